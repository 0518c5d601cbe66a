//! Whole identities and handshakes in memory. Parsers are tested beside them.

mod certificates;
mod delivery;
mod handshake;
mod peers;
mod resumption;
mod rotation;
