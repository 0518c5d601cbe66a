//! Whole identities and handshakes in memory. Parsers are tested beside them.

pub(super) mod certificates;
mod delivery;
mod handshake;
mod peers;
mod resumption;
mod rotation;
