//! The `extensionProviders` of a mesh: named services for policy and telemetry.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::resources::scalar::Duration;

/// A named service: one of its forms.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ExtensionProvider {
    /// Its name in policies.
    pub name: String,
    /// Decides requests, over HTTP.
    pub envoy_ext_authz_http: Option<ExtAuthzHttp>,
    /// Decides requests, over gRPC.
    pub envoy_ext_authz_grpc: Option<ExtAuthzGrpc>,
    /// Takes traces, as Zipkin.
    pub zipkin: Option<ZipkinProvider>,
    /// Takes traces, as OTLP.
    pub opentelemetry: Option<OpenTelemetryProvider>,
    /// Scrapes metrics.
    pub prometheus: Option<Empty>,
    /// Takes access logs, as a file.
    pub envoy_file_access_log: Option<FileAccessLog>,
    /// Takes access logs, as OTLP.
    pub envoy_otel_als: Option<OtelAccessLog>,
    /// Takes access logs of HTTP, as Envoy's ALS.
    pub envoy_http_als: Option<GrpcAccessLog>,
    /// Takes access logs of TCP, as Envoy's ALS.
    pub envoy_tcp_als: Option<GrpcAccessLog>,
    /// Takes traces, as Lightstep.
    pub lightstep: Option<ServiceAddress>,
    /// Takes traces, as Datadog.
    pub datadog: Option<ServiceAddress>,
    /// Takes traces, as SkyWalking.
    pub skywalking: Option<ServiceAddress>,
    /// Takes traces, as OpenCensus.
    pub opencensus: Option<ServiceAddress>,
    /// Takes traces and logs, as Stackdriver.
    pub stackdriver: Option<BTreeMap<String, serde_json::Value>>,
    /// Gives certificates.
    pub sds: Option<ServiceAddress>,
}

/// Has no settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Empty {}

/// Decides requests, over HTTP.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ExtAuthzHttp {
    /// The service, as `namespace/host` or a host.
    pub service: String,
    /// Its port.
    pub port: u16,
    /// The most time, 600 s when absent.
    pub timeout: Option<Duration>,
    /// Put before the path.
    pub path_prefix: Option<String>,
    /// Whether requests pass when it fails.
    pub fail_open: Option<bool>,
    /// Whether the route is chosen again.
    pub clear_route_cache: Option<bool>,
    /// The status when it fails, 403 when absent.
    pub status_on_error: Option<String>,
    /// Deprecated: as `includeRequestHeadersInCheck`.
    pub include_headers_in_check: Vec<String>,
    /// Headers that it sees.
    pub include_request_headers_in_check: Vec<String>,
    /// Headers added for it.
    pub include_additional_headers_in_check: BTreeMap<String, String>,
    /// How much of the body it sees.
    pub include_request_body_in_check: Option<ExtAuthzBody>,
    /// Its headers that go upstream.
    pub headers_to_upstream_on_allow: Vec<String>,
    /// Its headers that go to the client when it refuses.
    pub headers_to_downstream_on_deny: Vec<String>,
    /// Its headers that go to the client when it allows.
    pub headers_to_downstream_on_allow: Vec<String>,
}

/// Decides requests, over gRPC.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ExtAuthzGrpc {
    /// The service, as `namespace/host` or a host.
    pub service: String,
    /// Its port.
    pub port: u16,
    /// The most time, 600 s when absent.
    pub timeout: Option<Duration>,
    /// Whether requests pass when it fails.
    pub fail_open: Option<bool>,
    /// Whether the route is chosen again.
    pub clear_route_cache: Option<bool>,
    /// The status when it fails, 403 when absent.
    pub status_on_error: Option<String>,
    /// How much of the body it sees.
    pub include_request_body_in_check: Option<ExtAuthzBody>,
}

/// How much of the body a decider sees.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ExtAuthzBody {
    /// The most bytes.
    pub max_request_bytes: u32,
    /// Whether a longer body is cut.
    pub allow_partial_message: Option<bool>,
    /// Whether it is sent as bytes.
    pub pack_as_bytes: Option<bool>,
}

/// Takes traces, as Zipkin.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ZipkinProvider {
    /// The service.
    pub service: String,
    /// Its port.
    pub port: u16,
    /// The longest path in a span.
    pub max_tag_length: Option<u32>,
    /// Whether trace ids have 64 bits.
    #[serde(rename = "enable64bitTraceId")]
    pub enable64bit_trace_id: Option<bool>,
    /// The path, `/api/v2/spans` when absent.
    pub path: Option<String>,
    /// Which headers carry the trace.
    pub trace_context_option: Option<String>,
    /// The most time for one export.
    pub timeout: Option<Duration>,
    /// Headers of each export.
    pub headers: Vec<ProviderHeader>,
}

/// Takes traces, as OTLP.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OpenTelemetryProvider {
    /// The service.
    pub service: String,
    /// Its port.
    pub port: u16,
    /// The longest path in a span.
    pub max_tag_length: Option<u32>,
    /// OTLP over HTTP.
    pub http: Option<ProviderHttp>,
    /// OTLP over gRPC, the default.
    pub grpc: Option<ProviderGrpc>,
    /// Where resource attributes come from.
    pub resource_detectors: Option<ResourceDetectors>,
    /// Which attributes name the service.
    pub service_attribute_enrichment: Option<String>,
    /// Sampling by Dynatrace.
    pub dynatrace_sampler: Option<BTreeMap<String, serde_json::Value>>,
}

/// Where resource attributes come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceDetectors {
    /// `OTEL_RESOURCE_ATTRIBUTES`.
    pub environment: Option<Empty>,
    /// Files of Dynatrace.
    pub dynatrace: Option<Empty>,
}

/// Calls over HTTP.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProviderHttp {
    /// The path.
    pub path: String,
    /// The most time.
    pub timeout: Option<Duration>,
    /// Headers of each call.
    pub headers: Vec<ProviderHeader>,
}

/// Calls over gRPC.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProviderGrpc {
    /// The most time.
    pub timeout: Option<Duration>,
    /// Metadata of each call.
    pub initial_metadata: Vec<ProviderHeader>,
}

/// A header of a call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProviderHeader {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Option<String>,
    /// The environment variable that holds its value.
    pub env_name: Option<String>,
}

/// Takes access logs, as a file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FileAccessLog {
    /// The file, `/dev/stdout` as a rule.
    pub path: String,
    /// The format.
    pub log_format: Option<LogFormat>,
    /// Whether absent values are left out.
    pub omit_empty_values: Option<bool>,
}

/// The format of an access log: text, or JSON by labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LogFormat {
    /// A line of text.
    pub text: Option<String>,
    /// The fields of a JSON object.
    pub labels: BTreeMap<String, serde_json::Value>,
}

/// Takes access logs, as OTLP.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OtelAccessLog {
    /// The service.
    pub service: String,
    /// Its port.
    pub port: u16,
    /// The name of the log.
    pub log_name: Option<String>,
    /// The format.
    pub log_format: Option<LogFormat>,
}

/// Takes access logs, as Envoy's ALS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcAccessLog {
    /// The service.
    pub service: String,
    /// Its port.
    pub port: u16,
    /// The name of the log.
    pub log_name: Option<String>,
    /// Filter state that is logged.
    pub filter_state_objects_to_log: Vec<String>,
    /// Request headers that are logged.
    pub additional_request_headers_to_log: Vec<String>,
    /// Response headers that are logged.
    pub additional_response_headers_to_log: Vec<String>,
    /// Response trailers that are logged.
    pub additional_response_trailers_to_log: Vec<String>,
}

/// A service of a provider that we do not speak.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceAddress {
    /// The service.
    pub service: String,
    /// Its port.
    pub port: u16,
    /// Its name.
    pub name: Option<String>,
    /// The longest path in a span.
    pub max_tag_length: Option<u32>,
    /// Its token.
    pub access_token: Option<String>,
    /// Which headers carry the trace.
    pub context: Vec<String>,
}
