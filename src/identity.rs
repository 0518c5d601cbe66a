//! Who we are and whom we believe: certificates, SPIFFE identities, TLS settings, rotation.
//!
//! A source (files, or an SDS server) delivers PEM text to a [`Held`], which checks it and publishes an immutable [`Identity`]; a broken one is kept
//! out and said, the last good one stays. [`server_config`] and [`client_config`] turn an identity into what a handshake needs. A handshake
//! uses what it began with; nothing here is changed in place.

pub mod alpn;
mod certificate;
mod client;
mod epoch;
mod error;
mod facts;
mod files;
#[doc(hidden)]
pub mod fuzz;
mod held;
pub mod issue;
mod judge;
mod keyring;
mod material;
mod metrics;
mod pem;
mod provider;
mod sds;
mod server;
mod spiffe;
mod trust;
mod watched;

pub use client::{ClientSettings, ClientTls, Servers, client_config};
pub use epoch::Epoch;
pub use error::{Error, Refused, explain};
pub use files::{Files, follow};
pub use held::{Held, Offer, Status};
pub use judge::NameMatch;
pub use keyring::{Keyring, Places, Within};
pub use material::{Certificate, Identity, Purpose};
pub use metrics::IdentityMetrics;
pub use pem::{Pem, SecretBytes};
pub use provider::{Hybrid, Tls, TlsVersion};
pub use sds::{Names, Sds};
pub use server::{Clients, ServerSettings, ServerTls, server_config};
pub use spiffe::{Malformed, TrustDomains, parse};
pub use trust::Trust;
pub use watched::{Supply, Watched};

#[cfg(test)]
mod tests;
