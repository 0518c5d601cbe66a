//! Istio's `DestinationRule`: how to talk to a service once a route has chosen it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{ConnectionPool, MatchLabels, PortSelector};
use crate::config::resources::scalar::Duration;
use crate::mesh::Labels;

/// The policy towards one host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DestinationRule {
    /// The service; a short name is completed with our namespace, a leading `*.` is allowed.
    pub host: String,
    /// The policy for all of it.
    pub traffic_policy: Option<TrafficPolicy>,
    /// Named parts of it.
    pub subsets: Vec<Subset>,
    /// The namespaces that see it: `.`, `*`, or names.
    pub export_to: Vec<String>,
    /// Which of our workloads use it; absent is all.
    pub workload_selector: Option<MatchLabels>,
}

/// A part of a service: the endpoints with these labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Subset {
    /// Its name in routes.
    pub name: String,
    /// Labels that must all be equal.
    pub labels: Labels,
    /// What differs from the policy of the host.
    pub traffic_policy: Option<TrafficPolicy>,
}

/// Balancing, pools, ejection and TLS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficPolicy {
    /// How an endpoint is chosen.
    pub load_balancer: Option<LoadBalancer>,
    /// Limits and timeouts.
    pub connection_pool: Option<ConnectionPool>,
    /// When a failing endpoint is left out.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS towards the service.
    pub tls: Option<ClientTls>,
    /// What differs by port; replaces, not merges.
    pub port_level_settings: Vec<PortTrafficPolicy>,
    /// TCP through an HTTP proxy.
    pub tunnel: Option<Tunnel>,
    /// A PROXY header on each connection.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// The most retries at a time, as a share of requests.
    pub retry_budget: Option<RetryBudget>,
}

/// The policy of one port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PortTrafficPolicy {
    /// The port.
    pub port: Option<PortSelector>,
    /// How an endpoint is chosen.
    pub load_balancer: Option<LoadBalancer>,
    /// Limits and timeouts.
    pub connection_pool: Option<ConnectionPool>,
    /// When a failing endpoint is left out.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS towards the service.
    pub tls: Option<ClientTls>,
}

/// How an endpoint is chosen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancer {
    /// One of the simple ways.
    pub simple: Option<SimpleLb>,
    /// By hash of a property of the request.
    pub consistent_hash: Option<ConsistentHash>,
    /// Preference for near endpoints.
    pub locality_lb_setting: Option<LocalityLb>,
    /// Preference for the own zone.
    pub zone_aware_lb_setting: Option<ZoneAwareLb>,
    /// Deprecated: how long a new endpoint gets less.
    pub warmup_duration_secs: Option<Duration>,
    /// How a new endpoint gets less at first.
    pub warmup: Option<Warmup>,
}

/// The simple ways to choose an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SimpleLb {
    /// Istio's default, `LEAST_REQUEST`.
    #[default]
    Unspecified,
    /// Deprecated name of `LEAST_REQUEST`.
    LeastConn,
    /// Any.
    Random,
    /// The address that the client asked for.
    Passthrough,
    /// One after the other.
    RoundRobin,
    /// The less busy of two.
    LeastRequest,
}

/// What is hashed, and how.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsistentHash {
    /// The value of a header.
    pub http_header_name: Option<String>,
    /// The value of a cookie.
    pub http_cookie: Option<HashCookie>,
    /// The address of the client.
    pub use_source_ip: Option<bool>,
    /// The value of a query parameter.
    pub http_query_parameter_name: Option<String>,
    /// Ketama.
    pub ring_hash: Option<RingHash>,
    /// Maglev.
    pub maglev: Option<Maglev>,
    /// Deprecated: as in `ringHash`.
    pub minimum_ring_size: Option<u64>,
}

/// A cookie to hash, made when it is absent and has a lifetime.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HashCookie {
    /// Its name.
    pub name: String,
    /// Its path.
    pub path: Option<String>,
    /// Its lifetime.
    pub ttl: Option<Duration>,
    /// Further attributes.
    pub attributes: Vec<CookieAttribute>,
}

/// An attribute of a cookie.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CookieAttribute {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Option<String>,
}

/// The size of a hash ring.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RingHash {
    /// The least number of points, 1024 when absent.
    pub minimum_ring_size: Option<u64>,
}

/// The size of a Maglev table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Maglev {
    /// A prime number, 65537 when absent.
    pub table_size: Option<u64>,
}

/// Preference for near endpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LocalityLb {
    /// Fixed shares by locality.
    pub distribute: Vec<Distribute>,
    /// Which region takes over.
    pub failover: Vec<Failover>,
    /// Labels by which nearness is measured.
    pub failover_priority: Vec<String>,
    /// Off when false.
    pub enabled: Option<bool>,
}

/// Fixed shares for callers of one locality.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Distribute {
    /// The caller's `region/zone/subzone`.
    pub from: String,
    /// Shares of 100, by locality.
    pub to: BTreeMap<String, u32>,
}

/// Which region takes over.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Failover {
    /// The region that fails.
    pub from: String,
    /// The region that takes over.
    pub to: String,
}

/// Preference for the own zone by load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ZoneAwareLb {
    /// Off when false.
    pub enabled: Option<bool>,
    /// Which region takes over.
    pub failover: Vec<Failover>,
    /// Labels by which nearness is measured.
    pub failover_priority: Vec<String>,
    /// The fewest endpoints for it to hold.
    pub min_cluster_size: Option<u64>,
}

/// How a new endpoint gets less at first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Warmup {
    /// For how long.
    pub duration: Option<Duration>,
    /// The share it starts with.
    pub minimum_percent: Option<f64>,
    /// The form of the rise; 1 is linear.
    pub aggression: Option<f64>,
}

/// When a failing endpoint is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OutlierDetection {
    /// Deprecated and without effect in Istio.
    pub consecutive_errors: Option<u32>,
    /// Count errors of our own side apart.
    pub split_external_local_origin_errors: Option<bool>,
    /// Errors of our own side in a row.
    pub consecutive_local_origin_failures: Option<u32>,
    /// 502, 503 and 504 in a row.
    pub consecutive_gateway_errors: Option<u32>,
    /// 5xx in a row, 5 when absent.
    #[serde(rename = "consecutive5xxErrors")]
    pub consecutive_5xx_errors: Option<u32>,
    /// Time between sweeps, 10 s when absent.
    pub interval: Option<Duration>,
    /// The least time that an endpoint is out, 30 s when absent.
    pub base_ejection_time: Option<Duration>,
    /// The most endpoints that may be out, 10 when absent.
    pub max_ejection_percent: Option<u32>,
    /// Below this share of healthy endpoints all are used.
    pub min_health_percent: Option<u32>,
    /// Which statuses count as errors.
    pub outlier_detection_http_error_codes: Vec<u16>,
}

/// TLS towards a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientTls {
    /// Whether, and with which certificate.
    pub mode: Option<ClientTlsMode>,
    /// File of our certificate.
    pub client_certificate: Option<String>,
    /// File of our key.
    pub private_key: Option<String>,
    /// File of the roots.
    pub ca_certificates: Option<String>,
    /// File of revoked certificates.
    pub ca_crl: Option<String>,
    /// The secret with all of them.
    pub credential_name: Option<String>,
    /// Names of which the server must prove one.
    pub subject_alt_names: Vec<String>,
    /// The server name to ask for.
    pub sni: Option<String>,
    /// Whether the server's certificate is not checked.
    pub insecure_skip_verify: Option<bool>,
}

/// Whether there is TLS towards a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ClientTlsMode {
    /// None.
    #[default]
    Disable,
    /// The server proves itself.
    Simple,
    /// Both sides do, with named certificates.
    Mutual,
    /// Both sides do, with the mesh identity.
    IstioMutual,
}

/// TCP through an HTTP proxy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Tunnel {
    /// `CONNECT` or `POST`.
    pub protocol: Option<String>,
    /// The host behind the proxy.
    pub target_host: String,
    /// The port behind the proxy.
    pub target_port: u16,
}

/// A PROXY header on each connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyProtocol {
    /// Its version.
    pub version: ProxyProtocolVersion,
}

/// The version of a PROXY header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ProxyProtocolVersion {
    /// Text.
    #[default]
    V1,
    /// Binary.
    V2,
}

/// The most retries at a time, as a share of requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryBudget {
    /// The share of active requests, 20 when absent.
    pub percent: Option<f64>,
    /// Always allowed, 3 when absent.
    pub min_retry_concurrency: Option<u32>,
    /// How long a request counts.
    pub budget_interval: Option<Duration>,
}
