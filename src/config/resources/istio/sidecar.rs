//! Istio's `Sidecar`: what one workload sees and listens on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{ConnectionPool, Destination, LabelsSelector};
use super::gateway::ServerTls;

/// What a workload sees and listens on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Sidecar {
    /// The workloads; absent is the whole namespace.
    pub workload_selector: Option<LabelsSelector>,
    /// Inbound listeners; empty takes them from the services.
    pub ingress: Vec<IngressListener>,
    /// Outbound listeners and the hosts they see.
    pub egress: Vec<EgressListener>,
    /// Limits towards the application.
    pub inbound_connection_pool: Option<ConnectionPool>,
    /// What happens to unknown destinations.
    pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
}

/// An inbound listener.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressListener {
    /// The port.
    pub port: Option<SidecarPort>,
    /// The address; absent is that of the workload.
    pub bind: Option<String>,
    /// How connections come here.
    pub capture_mode: Option<CaptureMode>,
    /// Where they go: `127.0.0.1:PORT`, `0.0.0.0:PORT` or `unix:///path`.
    pub default_endpoint: Option<String>,
    /// TLS of the listener.
    pub tls: Option<ServerTls>,
    /// Limits towards the application.
    pub connection_pool: Option<ConnectionPool>,
}

/// An outbound listener.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EgressListener {
    /// The port; absent is the capture port.
    pub port: Option<SidecarPort>,
    /// The address, or `unix:///path`.
    pub bind: Option<String>,
    /// How connections come here.
    pub capture_mode: Option<CaptureMode>,
    /// The services it sees, as `namespace/host`.
    pub hosts: Vec<String>,
}

/// A port of a listener.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SidecarPort {
    /// Its number.
    pub number: u16,
    /// HTTP, HTTPS, GRPC, HTTP2, MONGO, TCP or TLS.
    pub protocol: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Deprecated and without effect in Istio.
    pub target_port: Option<u16>,
}

/// How connections come to a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CaptureMode {
    /// As the environment does it.
    #[default]
    Default,
    /// Redirected.
    Iptables,
    /// Addressed.
    None,
}

/// What happens to unknown destinations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OutboundTrafficPolicy {
    /// Whether they are let through.
    pub mode: OutboundMode,
    /// Where they are sent instead.
    pub egress_proxy: Option<Destination>,
}

/// Whether unknown destinations are let through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OutboundMode {
    /// Refused.
    #[default]
    RegistryOnly,
    /// Let through.
    AllowAny,
    /// Let through by a look-up of the name asked for.
    AllowAnyDynamicDns,
}
