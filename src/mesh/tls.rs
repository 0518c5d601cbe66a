//! TLS as a listener ends it and as a cluster begins it. Key material is named here, never held.

use super::Name;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What holds for mutual TLS in the whole mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshTls {
    /// Other names of the trust domain: peers of theirs are peers of ours.
    pub trust_domain_aliases: Vec<Name>,
    /// Whether keys are agreed on in a way that outlives quantum computers.
    pub key_exchange: KeyExchange,
    /// Oldest version between workloads.
    pub min_version: TlsVersion,
    /// Suites of TLS 1.2 by their OpenSSL names; empty: all that are safe.
    pub cipher_suites: Vec<Name>,
}

/// Whether X25519MLKEM768 is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyExchange {
    /// It is offered first; peers that do not know it are spoken to all the same.
    #[default]
    Prefer,
    /// Nothing else is spoken.
    Require,
    /// It is not offered.
    Off,
}

/// How a chain ends TLS.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DownstreamTls {
    /// What we show.
    pub certificate: Certificate,
    /// What the client has to show.
    pub client: ClientCertificate,
    /// Application protocols, the preferred first; empty: none is agreed on.
    pub alpn: Vec<Name>,
    /// Oldest version.
    pub min_version: TlsVersion,
    /// Newest version.
    pub max_version: TlsVersion,
    /// Suites of TLS 1.2 by their OpenSSL names; empty: all that are safe.
    pub cipher_suites: Vec<Name>,
}

/// How a cluster begins TLS.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UpstreamTls {
    /// Towards which endpoints.
    pub when: UpstreamTlsWhen,
    /// What we show.
    pub certificate: Option<Certificate>,
    /// Who is trusted.
    pub roots: Roots,
    /// Names of which the server has to prove one; empty: `sni` for servers outside of the mesh, anybody of the trust domain within it.
    pub names: Vec<Name>,
    /// Server name to ask for; `None`: the request's host.
    pub sni: Option<Name>,
    /// A sidecar of the mesh: SPIFFE identity instead of a DNS name, Istio's application protocols.
    pub mesh: bool,
}

/// Towards which endpoints a cluster speaks TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum UpstreamTlsWhen {
    /// All of them.
    Always,
    /// Those that discovery marks as having a sidecar (`security.istio.io/tlsMode: istio`); others get plain text.
    EndpointHasSidecar,
}

/// Where a certificate and its key come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Certificate {
    /// The identity of the workload.
    Workload,
    /// A credential of the proxy's folder of credentials (`credentialName`).
    Credential(Name),
    /// Files.
    Files {
        /// The chain, leaf first.
        certificate: PathBuf,
        /// The key.
        private_key: PathBuf,
    },
}

/// What a client has to show.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ClientCertificate {
    /// Nothing.
    None,
    /// A certificate, if it has one.
    Optional(ClientTrust),
    /// A certificate.
    Required(ClientTrust),
}

/// Which certificates of clients hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ClientTrust {
    /// Who may have issued them.
    pub roots: Roots,
    /// The client is a workload: exactly one SPIFFE identity, of our trust domain or an alias of it.
    pub mesh: bool,
    /// Names of which it has to prove one; empty: any.
    pub names: Vec<Name>,
}

/// Whose signatures are believed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Roots {
    /// The trust bundle of the workload's identity.
    Mesh,
    /// The roots for servers outside of the mesh.
    System,
    /// `ca.crt` and `ca.crl` of a credential.
    Credential(Name),
    /// Files.
    File {
        /// The roots.
        bundle: PathBuf,
        /// Revoked certificates.
        crl: Option<PathBuf>,
    },
    /// Nobody is asked for a proof (`insecureSkipVerify`).
    Unverified,
}

/// A version of TLS that is spoken. Older ones are not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TlsVersion {
    /// 1.2, with ECDHE and AEAD.
    #[default]
    Tls12,
    /// 1.3.
    Tls13,
}

impl DownstreamTls {
    /// Mutual TLS between workloads of the mesh.
    pub fn mesh() -> Self {
        Self {
            certificate: Certificate::Workload,
            client: ClientCertificate::Required(ClientTrust {
                roots: Roots::Mesh,
                mesh: true,
                names: Vec::new(),
            }),
            // The last one is for peers that carry bytes: Istio's offer nothing plainer.
            alpn: ["h2", "http/1.1", "http/1.0", "istio"].map(Name::from).into(),
            min_version: TlsVersion::Tls12,
            max_version: TlsVersion::Tls13,
            cipher_suites: Vec::new(),
        }
    }
}

impl UpstreamTls {
    /// Mutual TLS with the mesh identity, as `ISTIO_MUTUAL` and auto mTLS mean it.
    pub fn mesh(when: UpstreamTlsWhen, sni: Name, names: Vec<Name>) -> Self {
        let certificate = Some(Certificate::Workload);
        Self { when, certificate, roots: Roots::Mesh, names, sni: Some(sni), mesh: true }
    }
}
