//! Who somebody proved to be: a peer by its certificate, a user by a token. Never from a header.

use serde_json::{Map, Value};
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

/// A workload's identity: exactly one `spiffe://<trust domain>/ns/<namespace>/sa/<service account>` of a verified certificate.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Principal {
    /// `<trust domain>/ns/<namespace>/sa/<service account>`, as policies write it.
    name: Arc<str>,
    trust_domain: usize,
    namespace: (usize, usize),
}

/// The certificate of a peer that was verified in the handshake.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its SPIFFE identity; `None` where it has none of that form (clients of a gateway).
    pub principal: Option<Principal>,
    /// Start of its validity.
    pub not_before: SystemTime,
    /// End of its validity.
    pub not_after: SystemTime,
    /// Subject of the leaf, as RFC 2253 writes it.
    pub subject: Arc<str>,
    /// URI names of the leaf.
    pub uris: Arc<[Box<str>]>,
    /// DNS names of the leaf.
    pub dns: Arc<[Box<str>]>,
    /// DER of the chain, leaf first.
    pub chain: Arc<[Box<[u8]>]>,
    /// SHA-256 of the leaf.
    pub hash: [u8; 32],
}

/// What a handshake agreed on.
#[derive(Clone, Debug)]
pub struct TlsFacts {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// Cipher suite, by its IANA name.
    pub cipher: &'static str,
    /// Key exchange group, by its IANA name.
    pub group: &'static str,
    /// Application protocol.
    pub alpn: Option<Arc<str>>,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
    /// Who the peer is; `None`: it showed no certificate.
    pub peer: Option<Arc<Peer>>,
}

/// A verified token.
#[derive(Debug)]
pub struct Token {
    /// `<iss>/<sub>`: Istio's request principal.
    pub principal: Box<str>,
    /// `iss`.
    pub issuer: Box<str>,
    /// `sub`; empty when it has none.
    pub subject: Box<str>,
    /// `aud`.
    pub audiences: Vec<Box<str>>,
    /// All claims.
    pub claims: Map<String, Value>,
}

impl Principal {
    /// Puts an identity together from parts that were checked before.
    pub fn new(trust_domain: &str, namespace: &str, service_account: &str) -> Self {
        let start = trust_domain.len() + "/ns/".len();
        Self {
            name: Arc::from(format!("{trust_domain}/ns/{namespace}/sa/{service_account}")),
            trust_domain: trust_domain.len(),
            namespace: (start, start + namespace.len()),
        }
    }

    /// `<trust domain>/ns/<namespace>/sa/<service account>`.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The same, to be kept.
    pub fn shared(&self) -> &Arc<str> {
        &self.name
    }

    /// Its trust domain.
    pub fn trust_domain(&self) -> &str {
        &self.name[..self.trust_domain]
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.name[self.namespace.0..self.namespace.1]
    }

    /// Its service account.
    pub fn service_account(&self) -> &str {
        &self.name[self.namespace.1 + "/sa/".len()..]
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::Principal;

    #[test]
    fn the_parts_of_a_principal_are_those_that_it_was_made_of() {
        let principal = Principal::new("cluster.local", "shop", "cart");
        assert_eq!(principal.as_str(), "cluster.local/ns/shop/sa/cart");
        let parts = (principal.trust_domain(), principal.namespace(), principal.service_account());
        assert_eq!(parts, ("cluster.local", "shop", "cart"));
    }
}
