//! Istio's `MeshConfig`: settings of the whole mesh.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{ConnectionPool, H2UpgradePolicy, TcpKeepalive};
use super::destination_rule::{ClientTls, LocalityLb, OutlierDetection, ZoneAwareLb};
use super::provider::ExtensionProvider;
use super::sidecar::OutboundMode;
use super::virtual_service::HttpRetry;
use crate::config::resources::scalar::Duration;

/// Settings of the whole mesh; fields of the control plane alone are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshConfig {
    /// What happens to unknown destinations.
    pub outbound_traffic_policy: Option<MeshOutboundPolicy>,
    /// What happens to unknown inbound ports.
    pub inbound_traffic_policy: Option<MeshInboundPolicy>,
    /// Named services for policy and telemetry.
    pub extension_providers: Vec<ExtensionProvider>,
    /// Which of them are used when nothing is said.
    pub default_providers: Option<DefaultProviders>,
    /// Settings of every proxy.
    pub default_config: Option<ProxyConfig>,
    /// Where access is logged; empty is nowhere.
    pub access_log_file: Option<String>,
    /// The format of a line.
    pub access_log_format: Option<String>,
    /// Text or JSON.
    pub access_log_encoding: Option<AccessLogEncoding>,
    /// Whether traces are made.
    pub enable_tracing: Option<bool>,
    /// The namespace whose objects hold for all, `istio-system` when absent.
    pub root_namespace: Option<String>,
    /// The trust domain, `cluster.local` when absent.
    pub trust_domain: Option<String>,
    /// Other names of it.
    pub trust_domain_aliases: Vec<String>,
    /// Who sees a service that says nothing.
    pub default_service_export_to: Vec<String>,
    /// Who sees a VirtualService that says nothing.
    pub default_virtual_service_export_to: Vec<String>,
    /// Who sees a DestinationRule that says nothing.
    pub default_destination_rule_export_to: Vec<String>,
    /// How long to wait for the first bytes; 0 is for ever.
    pub protocol_detection_timeout: Option<Duration>,
    /// The most time for connecting, 10 s when absent.
    pub connect_timeout: Option<Duration>,
    /// TCP keep-alive upstream.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Whether HTTP/1.1 is sent on as HTTP/2.
    pub h2_upgrade_policy: Option<H2UpgradePolicy>,
    /// Time between look-ups without a lifetime.
    pub dns_refresh_rate: Option<Duration>,
    /// How paths are made canonical.
    pub path_normalization: Option<PathNormalization>,
    /// Retries of routes that say nothing.
    pub default_http_retry_policy: Option<HttpRetry>,
    /// Pools and ejection of hosts without a rule.
    pub default_traffic_policy: Option<DefaultTrafficPolicy>,
    /// Whether mutual TLS is used where both sides can.
    #[serde(rename = "enableAutoMtls")]
    pub enable_auto_mtls: Option<bool>,
    /// Preference for near endpoints.
    pub locality_lb_setting: Option<LocalityLb>,
    /// Preference for the own zone.
    pub zone_aware_lb_setting: Option<ZoneAwareLb>,
    /// TLS between workloads.
    #[serde(rename = "meshMTLS")]
    pub mesh_mtls: Option<MeshTls>,
    /// TLS elsewhere.
    pub tls_defaults: Option<MeshTls>,
    /// Settings of some services.
    pub service_settings: Vec<ServiceSettings>,
}

/// What happens to unknown destinations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshOutboundPolicy {
    /// Whether they are let through.
    pub mode: OutboundMode,
    /// TLS towards them.
    pub tls: Option<ClientTls>,
}

/// What happens to unknown inbound ports.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshInboundPolicy {
    /// Where they go.
    pub mode: InboundMode,
}

/// Where unknown inbound ports go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum InboundMode {
    /// To the address that the caller asked for.
    #[default]
    Passthrough,
    /// To the same port at 127.0.0.1.
    Localhost,
}

/// How a line of the access log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AccessLogEncoding {
    /// As text.
    #[default]
    Text,
    /// As JSON.
    Json,
}

/// Which providers are used when nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DefaultProviders {
    /// For traces.
    pub tracing: Vec<String>,
    /// For metrics.
    pub metrics: Vec<String>,
    /// For access logs.
    pub access_logging: Vec<String>,
}

/// How paths are made canonical.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PathNormalization {
    /// How much is done.
    pub normalization: Normalization,
}

/// How much is done to a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Normalization {
    /// As `BASE`.
    #[default]
    Default,
    /// Nothing.
    None,
    /// RFC 3986: dots and backslashes.
    Base,
    /// And slashes are merged.
    MergeSlashes,
    /// And `%2F` and `%5C` are decoded.
    DecodeAndMergeSlashes,
}

/// Pools and ejection of hosts without a rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DefaultTrafficPolicy {
    /// Limits and timeouts.
    pub connection_pool: Option<ConnectionPool>,
    /// When a failing endpoint is left out.
    pub outlier_detection: Option<OutlierDetection>,
}

/// Bounds of TLS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshTls {
    /// The oldest version.
    pub min_protocol_version: Option<String>,
    /// Key exchanges.
    pub ecdh_curves: Vec<String>,
    /// Cipher suites of TLS 1.2.
    pub cipher_suites: Vec<String>,
}

/// Settings of some services.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSettings {
    /// The settings.
    pub settings: Option<ServiceSetting>,
    /// The services.
    pub hosts: Vec<String>,
}

/// A setting of a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSetting {
    /// Whether its endpoints are of the own cluster only.
    pub cluster_local: Option<bool>,
}

/// Settings of every proxy, of which we know a few.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyConfig {
    /// How many worker threads; 0 is one for each CPU.
    pub concurrency: Option<u32>,
    /// How long connections are drained on a change.
    pub drain_duration: Option<Duration>,
    /// How long they are drained at the end.
    pub termination_drain_duration: Option<Duration>,
    /// The control plane.
    pub discovery_address: Option<String>,
    /// How traffic is captured.
    pub interception_mode: Option<String>,
    /// Whether the application waits for us.
    pub hold_application_until_proxy_starts: Option<bool>,
    /// Environment of the proxy.
    pub proxy_metadata: BTreeMap<String, String>,
    /// What stands in front of a gateway.
    pub gateway_topology: Option<Topology>,
    /// How traces are made.
    pub tracing: Option<ProxyTracing>,
    /// The port of the agent.
    pub status_port: Option<u16>,
    /// Further labels of metrics.
    pub extra_stat_tags: Vec<String>,
    /// Which headers the proxy adds.
    pub proxy_headers: Option<ProxyHeaders>,
    /// The name of the mesh.
    pub mesh_id: Option<String>,
}

/// What stands in front of a gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Topology {
    /// How many proxies in front are trusted.
    pub num_trusted_proxies: Option<u32>,
    /// What happens to `x-forwarded-client-cert`.
    pub forward_client_cert_details: Option<String>,
    /// Connections begin with a PROXY protocol header.
    pub proxy_protocol: Option<ProxyProtocolConfiguration>,
}

/// That connections to a gateway begin with a PROXY protocol header: it has no fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyProtocolConfiguration {}

/// How traces are made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyTracing {
    /// The share of new traces that is kept, 1 when absent.
    pub sampling: Option<f64>,
    /// The longest path in a span.
    pub max_path_tag_length: Option<u32>,
}

/// Which headers the proxy adds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyHeaders {
    /// The `server` header.
    pub server: Option<ServerHeader>,
    /// `x-request-id`.
    pub request_id: Option<HeaderSwitch>,
    /// `x-envoy-attempt-count`.
    pub attempt_count: Option<HeaderSwitch>,
    /// Headers for debugging.
    pub envoy_debug_headers: Option<HeaderSwitch>,
    /// What happens to `x-forwarded-client-cert`.
    pub forwarded_client_cert: Option<String>,
    /// Whether HTTP/1.1 names keep their case.
    #[serde(rename = "preserveHttp1HeaderCase")]
    pub preserve_http1_header_case: Option<bool>,
}

/// The `server` header.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerHeader {
    /// Whether it is left alone.
    pub disabled: Option<bool>,
    /// Its value.
    pub value: Option<String>,
}

/// Whether a header is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HeaderSwitch {
    /// Left out when true.
    pub disabled: Option<bool>,
}
