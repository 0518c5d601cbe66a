//! Sidegate's own `Proxy`: one proxy, where it listens and what it knows.

mod defaults;
mod telling;

pub use telling::{Explain, Find, Mask, PseudonymKey, Redaction};

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::istio::mesh_config::MeshConfig;
use super::istio::sidecar::OutboundMode;
use super::scalar::{Duration, Quantity};
use crate::mesh::Labels;

/// One proxy, where it listens and what it knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Proxy {
    /// What it does.
    pub role: Role,
    /// Settings of the role `Gateway`.
    pub gateway: GatewayRole,
    /// The workload that it belongs to.
    pub workload: Workload,
    /// The name of its cluster.
    pub cluster: String,
    /// The name of its network.
    pub network: String,
    /// Where it runs.
    pub locality: Locality,
    /// The trust domain of its identity.
    pub trust_domain: String,
    /// How many worker threads; absent is the CPU limit of the container.
    pub workers: Option<u32>,
    /// Traffic of the application to others.
    pub outbound: Outbound,
    /// Traffic of others to the application.
    pub inbound: Inbound,
    /// How traffic comes to the proxy.
    pub interception: Interception,
    /// Where the admin interface listens.
    pub admin: Address,
    /// Where the health check listens.
    pub health: Address,
    /// Where the metrics are served.
    pub metrics: Address,
    /// Where its certificate comes from.
    pub identity: Option<Identity>,
    /// Roots for servers outside of the mesh.
    pub trust: Trust,
    /// Certificates that Gateways and DestinationRules name.
    pub credentials: Credentials,
    /// Where its configuration comes from.
    pub discovery: Discovery,
    /// What it keeps between runs.
    pub state: State,
    /// Settings of the mesh.
    pub mesh_config: MeshConfig,
    /// Bounds of everything that outsiders can fill.
    pub limits: Limits,
    /// How it ends.
    pub drain: Drain,
    /// What it tells of its decisions.
    pub explain: Explain,
    /// What is hidden of what is written down.
    pub redaction: Redaction,
}

/// What a proxy does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub enum Role {
    /// Serves one workload.
    #[default]
    Sidecar,
    /// Opens the servers of the Gateways that select it.
    Gateway,
}

/// Settings of the role `Gateway`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayRole {
    /// The port to bind, by the port of the server, where that cannot be bound.
    pub ports: BTreeMap<String, u16>,
    /// The address of servers that name none; absent is every address.
    pub bind: Option<String>,
    /// The peers whose PROXY protocol header is believed, as address ranges, where `gatewayTopology.proxyProtocol` asks for one.
    pub proxy_protocol_from: Vec<String>,
}

/// The workload that a proxy belongs to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Workload {
    /// Its name; empty is the name of the Proxy.
    pub name: String,
    /// Its revision.
    pub revision: Option<String>,
    /// Its service account, `default` when absent.
    pub service_account: Option<String>,
    /// Its labels.
    pub labels: Labels,
}

/// Where something runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Locality {
    /// The region.
    pub region: String,
    /// The zone.
    pub zone: String,
    /// The part of the zone.
    pub subzone: String,
}

/// Traffic of the application to others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Outbound {
    /// Where it is taken.
    pub addresses: Vec<String>,
    /// What happens to unknown destinations; Sidecar wins, then this, then the mesh.
    pub policy: Option<OutboundMode>,
}

/// Traffic of others to the application.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Inbound {
    /// Where it is taken.
    pub addresses: Vec<String>,
    /// Where the application listens, for requests that no Service places.
    pub application: Option<String>,
}

/// How traffic comes to the proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Interception {
    /// Addressed to it; the host decides, an unknown host is refused.
    #[default]
    Explicit,
    /// Redirected, with the original destination in the socket.
    Redirect,
    /// Redirected, with the client's address kept.
    Tproxy,
}

/// A place to listen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Address {
    /// `host:port` or `unix:/path`.
    pub address: String,
}

/// Where a certificate comes from: one of its forms.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Identity {
    /// PEM files.
    pub files: Option<IdentityFiles>,
    /// A local SDS server.
    pub sds: Option<IdentitySds>,
    /// Istio's certificate authority.
    pub istio: Option<IdentityIstio>,
    /// The SPIFFE Workload API.
    pub spiffe: Option<IdentitySpiffe>,
}

/// PEM files, read again when they change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct IdentityFiles {
    /// The certificate and its chain.
    pub certificate: String,
    /// The key.
    pub private_key: String,
    /// The roots of the mesh.
    pub trust_bundle: String,
    /// Revoked certificates of the mesh.
    pub crl: Option<String>,
}

/// A local SDS server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct IdentitySds {
    /// Its socket.
    pub path: String,
}

/// Istio's certificate authority.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct IdentityIstio {
    /// Its `host:port`.
    pub address: String,
}

/// The SPIFFE Workload API.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct IdentitySpiffe {
    /// Its socket, as `unix:///path`.
    pub endpoint: String,
}

/// Certificates that Gateways and DestinationRules name by `credentialName`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Credentials {
    /// The folder that holds one folder for each credential, with `tls.crt`, `tls.key`, `ca.crt` and `ca.crl` as Secret volumes have them.
    pub directory: Option<String>,
}

/// Servers outside of the mesh: those that keys of token issuers are fetched from, and those of DestinationRules with TLS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Trust {
    /// Their roots: a folder or file of PEM.
    pub system: String,
    /// Addresses, CIDRs and hosts (`*.example.com` for all below) that may be fetched from although they are private.
    pub private_targets: Vec<String>,
}

/// Where configuration comes from: the files themselves, or one of these.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Discovery {
    /// An ADS server.
    pub xds: Option<DiscoveryXds>,
    /// The API server.
    pub kubernetes: Option<DiscoveryKubernetes>,
}

/// An ADS server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DiscoveryXds {
    /// Its `host:port` or `unix:/path`.
    pub address: String,
    /// Who we say we are.
    pub node: XdsNode,
    /// Whether only changes are sent.
    pub delta: bool,
}

/// Who we say we are to an ADS server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct XdsNode {
    /// The node id; absent follows the environment.
    pub id: Option<String>,
    /// Metadata; absent follows the environment.
    pub metadata: BTreeMap<String, serde_json::Value>,
}

/// The API server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DiscoveryKubernetes {
    /// The namespaces that are watched; empty is all.
    pub namespaces: Vec<String>,
}

/// What is kept between runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    /// The folder, for keys of token issuers; absent keeps nothing.
    pub directory: Option<String>,
}

/// Bounds of everything that outsiders can fill.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// The most downstream connections of all listeners.
    pub max_connections: u32,
    /// The most streams of one downstream HTTP/2 connection.
    pub max_concurrent_streams: u32,
    /// The most bytes of one head.
    pub max_header_bytes: Quantity,
    /// The most headers of one head.
    pub max_headers: u32,
    /// The most bytes of one request body; absent is no limit.
    pub max_body_bytes: Option<Quantity>,
    /// The most time for receiving one head.
    pub header_timeout: Duration,
    /// How long a downstream connection may be idle.
    pub idle_timeout: Duration,
    /// How long one exchange may stand still.
    pub stream_idle_timeout: Duration,
    /// The most time for a PROXY protocol header, and for the first bytes that show the protocol; `meshConfig.protocolDetectionTimeout` wins where a
    /// connection may be plain TCP.
    pub handshake_timeout: Duration,
}

/// How a proxy ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Drain {
    /// How long it goes on as before, so that callers learn of it.
    pub propagation: Duration,
    /// The most time from SIGTERM to exit, with propagation.
    pub grace_period: Duration,
}
