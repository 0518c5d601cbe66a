//! Istio's `Telemetry`: traces, metrics and access logs.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{MatchLabels, TargetReference};
use crate::config::resources::scalar::Duration;

/// What is traced, measured and logged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Telemetry {
    /// The workloads; absent is the whole namespace.
    pub selector: Option<MatchLabels>,
    /// The object it is attached to.
    pub target_ref: Option<TargetReference>,
    /// The objects it is attached to.
    pub target_refs: Vec<TargetReference>,
    /// Traces.
    pub tracing: Vec<Tracing>,
    /// Metrics.
    pub metrics: Vec<Metrics>,
    /// Access logs.
    pub access_logging: Vec<AccessLogging>,
}

/// How traces are made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Tracing {
    /// Which side it is for.
    #[serde(rename = "match")]
    pub matches: Option<ModeSelector>,
    /// Where they go.
    pub providers: Vec<ProviderRef>,
    /// The share of new traces that is kept.
    pub random_sampling_percentage: Option<f64>,
    /// Whether nothing is reported.
    pub disable_span_reporting: Option<bool>,
    /// Tags added to each span.
    pub custom_tags: BTreeMap<String, CustomTag>,
    /// Whether the request id decides about sampling.
    pub use_request_id_for_trace_sampling: Option<bool>,
    /// Whether Istio's tags are added.
    pub enable_istio_tags: Option<bool>,
    /// Whether trace headers are left alone.
    pub disable_context_propagation: Option<bool>,
}

/// Which side of a call is meant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ModeSelector {
    /// The side.
    pub mode: WorkloadMode,
}

/// A side of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WorkloadMode {
    /// Both.
    #[default]
    ClientAndServer,
    /// The caller.
    Client,
    /// The called.
    Server,
}

/// An extension provider.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProviderRef {
    /// Its name in the mesh configuration.
    pub name: String,
}

/// Where the value of a tag comes from: one of its forms.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CustomTag {
    /// A fixed value.
    pub literal: Option<TagLiteral>,
    /// An environment variable of the proxy.
    pub environment: Option<TagSource>,
    /// A request header.
    pub header: Option<TagSource>,
    /// An access log format.
    pub formatter: Option<TagLiteral>,
}

/// A value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TagLiteral {
    /// The value.
    pub value: String,
}

/// A named source with a default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TagSource {
    /// Its name.
    pub name: String,
    /// The value when it is absent.
    pub default_value: Option<String>,
}

/// How metrics are made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Metrics {
    /// Where they go.
    pub providers: Vec<ProviderRef>,
    /// Changes, applied in order.
    pub overrides: Vec<MetricsOverride>,
    /// Time between reports of TCP metrics.
    pub reporting_interval: Option<Duration>,
}

/// A change of some metrics.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MetricsOverride {
    /// Which metrics.
    #[serde(rename = "match")]
    pub matches: Option<MetricSelector>,
    /// Whether they are off.
    pub disabled: Option<bool>,
    /// Changes of their labels.
    pub tag_overrides: BTreeMap<String, TagOverride>,
}

/// Some metrics.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MetricSelector {
    /// One of Istio's.
    pub metric: Option<IstioMetric>,
    /// One of another provider.
    pub custom_metric: Option<String>,
    /// The side.
    pub mode: WorkloadMode,
}

/// Istio's metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum IstioMetric {
    /// All of them.
    #[default]
    AllMetrics,
    /// `istio_requests_total`.
    RequestCount,
    /// `istio_request_duration_milliseconds`.
    RequestDuration,
    /// `istio_request_bytes`.
    RequestSize,
    /// `istio_response_bytes`.
    ResponseSize,
    /// `istio_tcp_connections_opened_total`.
    TcpOpenedConnections,
    /// `istio_tcp_connections_closed_total`.
    TcpClosedConnections,
    /// `istio_tcp_sent_bytes_total`.
    TcpSentBytes,
    /// `istio_tcp_received_bytes_total`.
    TcpReceivedBytes,
    /// `istio_request_messages_total`.
    GrpcRequestMessages,
    /// `istio_response_messages_total`.
    GrpcResponseMessages,
}

/// A change of a label.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TagOverride {
    /// What happens to it.
    pub operation: TagOperation,
    /// Its value, as a CEL expression.
    pub value: Option<String>,
}

/// What happens to a label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TagOperation {
    /// It is set.
    #[default]
    Upsert,
    /// It is removed.
    Remove,
}

/// How access is logged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessLogging {
    /// Which side it is for.
    #[serde(rename = "match")]
    pub matches: Option<ModeSelector>,
    /// Where it goes.
    pub providers: Vec<ProviderRef>,
    /// Whether nothing is logged.
    pub disabled: Option<bool>,
    /// Which requests are logged.
    pub filter: Option<AccessLogFilter>,
}

/// Which requests are logged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessLogFilter {
    /// A CEL expression.
    pub expression: String,
}
