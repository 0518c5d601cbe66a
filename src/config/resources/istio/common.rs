//! Parts that several Istio objects share.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::resources::scalar::Duration;
use crate::mesh::Labels;

/// A service, its subset and its port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Destination {
    /// The service; a short name is completed with our namespace.
    pub host: String,
    /// A subset of a DestinationRule.
    pub subset: Option<String>,
    /// The port; may be left out when the service has one.
    pub port: Option<PortSelector>,
}

/// A port by its number.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PortSelector {
    /// The number, 1 to 65535.
    pub number: u16,
}

/// A share of 100.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Percent {
    /// 0 to 100.
    pub value: f64,
}

/// Workloads by label, as the security and telemetry kinds select them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MatchLabels {
    /// Labels that must all be equal; empty selects every workload of the namespace.
    pub match_labels: Labels,
}

/// Workloads by label, as the networking kinds select them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelsSelector {
    /// Labels that must all be equal.
    pub labels: Labels,
}

/// An object that a policy is attached to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TargetReference {
    /// The API group; absent is the core group.
    pub group: Option<String>,
    /// The kind.
    pub kind: String,
    /// The name.
    pub name: String,
    /// The namespace; absent is our own.
    pub namespace: Option<String>,
}

/// Limits and timeouts of upstream connections.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ConnectionPool {
    /// For every connection.
    pub tcp: Option<TcpPool>,
    /// For HTTP.
    pub http: Option<HttpPool>,
}

/// Limits and timeouts of every upstream connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpPool {
    /// The most connections to the destination.
    pub max_connections: Option<u32>,
    /// The most time for connecting, 10 s when absent.
    pub connect_timeout: Option<Duration>,
    /// TCP keep-alive.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// The most time that a connection lives.
    pub max_connection_duration: Option<Duration>,
    /// How long a TCP connection may be idle, 1 h when absent.
    pub idle_timeout: Option<Duration>,
}

/// TCP keep-alive of a socket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpKeepalive {
    /// Probes without answer before the connection is dead.
    pub probes: Option<u32>,
    /// Idle time before the first probe.
    pub time: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
}

/// Limits and timeouts of HTTP upstream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpPool {
    /// The most requests that wait for a connection.
    pub http1_max_pending_requests: Option<u32>,
    /// The most requests at a time, for both versions.
    pub http2_max_requests: Option<u32>,
    /// Requests before a connection is closed; 1 disables keep-alive.
    pub max_requests_per_connection: Option<u32>,
    /// The most retries at a time.
    pub max_retries: Option<u32>,
    /// How long a connection without requests is kept, 1 h when absent.
    pub idle_timeout: Option<Duration>,
    /// Whether HTTP/1.1 is sent on as HTTP/2.
    pub h2_upgrade_policy: Option<H2UpgradePolicy>,
    /// Whether the client's version is kept upstream.
    pub use_client_protocol: Option<bool>,
    /// The most streams on one HTTP/2 connection.
    pub max_concurrent_streams: Option<u32>,
    /// PING frames on HTTP/2 connections.
    #[serde(rename = "http2KeepAlive")]
    pub http2_keep_alive: Option<ConnectionKeepalive>,
}

/// Whether HTTP/1.1 is sent on as HTTP/2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum H2UpgradePolicy {
    /// As the mesh says.
    #[default]
    Default,
    /// Never.
    DoNotUpgrade,
    /// Always.
    Upgrade,
}

/// PING frames on HTTP/2 connections.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ConnectionKeepalive {
    /// Time between PINGs.
    pub interval: Option<Duration>,
    /// Time to wait for the answer.
    pub timeout: Option<Duration>,
}
