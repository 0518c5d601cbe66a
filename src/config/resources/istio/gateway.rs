//! Istio's `Gateway`: the servers at the edge of the mesh.

use crate::mesh::Labels;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The servers of the gateways that carry these labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Gateway {
    /// The servers.
    pub servers: Vec<Server>,
    /// Labels of the gateways.
    pub selector: Labels,
}

/// A port, its hosts and its TLS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Server {
    /// The port.
    pub port: Option<GatewayPort>,
    /// The address.
    pub bind: Option<String>,
    /// The hosts, as `namespace/host`; `*` is any.
    pub hosts: Vec<String>,
    /// TLS of the server.
    pub tls: Option<ServerTls>,
    /// Where requests without a route go.
    pub default_endpoint: Option<String>,
    /// A name for statistics.
    pub name: Option<String>,
}

/// A port of a server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayPort {
    /// Its number.
    pub number: u16,
    /// HTTP, HTTPS, GRPC, HTTP2, MONGO, TCP or TLS.
    pub protocol: String,
    /// Its name.
    pub name: String,
    /// Deprecated and without effect in Istio.
    pub target_port: Option<u16>,
}

/// TLS of a server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerTls {
    /// Answer plain HTTP with a redirect to HTTPS.
    pub https_redirect: Option<bool>,
    /// How TLS is terminated.
    pub mode: Option<ServerTlsMode>,
    /// File of our certificate.
    pub server_certificate: Option<String>,
    /// File of our key.
    pub private_key: Option<String>,
    /// File of the roots for clients.
    pub ca_certificates: Option<String>,
    /// File of revoked certificates.
    pub ca_crl: Option<String>,
    /// The secret with all of them.
    pub credential_name: Option<String>,
    /// Several secrets.
    pub credential_names: Vec<String>,
    /// The secret with the roots for clients.
    pub ca_cert_credential_name: Option<String>,
    /// Several certificates.
    pub tls_certificates: Vec<TlsCertificate>,
    /// Names of which a client must prove one.
    pub subject_alt_names: Vec<String>,
    /// Hashes of client keys that are allowed.
    pub verify_certificate_spki: Vec<String>,
    /// Hashes of client certificates that are allowed.
    pub verify_certificate_hash: Vec<String>,
    /// The oldest TLS version.
    pub min_protocol_version: Option<TlsProtocol>,
    /// The newest TLS version.
    pub max_protocol_version: Option<TlsProtocol>,
    /// Cipher suites of TLS 1.2.
    pub cipher_suites: Vec<String>,
    /// Whether the client's certificate is not checked.
    pub insecure_skip_verify: Option<bool>,
}

/// How TLS is terminated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ServerTlsMode {
    /// Not: routed by SNI.
    #[default]
    Passthrough,
    /// With our certificate.
    Simple,
    /// And the client proves itself.
    Mutual,
    /// Not: the SNI names the destination.
    AutoPassthrough,
    /// With the mesh identity on both sides.
    IstioMutual,
    /// The client may prove itself.
    OptionalMutual,
}

/// Files of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsCertificate {
    /// The certificate.
    pub server_certificate: Option<String>,
    /// The key.
    pub private_key: Option<String>,
    /// The roots.
    pub ca_certificates: Option<String>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TlsProtocol {
    /// The best.
    #[default]
    TlsAuto,
    /// TLS 1.0.
    #[serde(rename = "TLSV1_0")]
    Tls10,
    /// TLS 1.1.
    #[serde(rename = "TLSV1_1")]
    Tls11,
    /// TLS 1.2.
    #[serde(rename = "TLSV1_2")]
    Tls12,
    /// TLS 1.3.
    #[serde(rename = "TLSV1_3")]
    Tls13,
}
