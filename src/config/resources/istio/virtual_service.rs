//! Istio's `VirtualService`: which requests to a host go where, and what happens to them on the way.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{Destination, Percent};
use crate::config::resources::scalar::{Base64, Duration};
use crate::config::resources::string_match::StringMatch;
use crate::mesh::Labels;

/// The routes of one or more hosts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualService {
    /// The hosts that the routes are for; a leading `*.` matches any sub-domain.
    pub hosts: Vec<String>,
    /// Where the routes hold: `mesh` (the default) for sidecars, or `namespace/gateway`.
    pub gateways: Vec<String>,
    /// HTTP routes; the first that matches wins.
    pub http: Vec<HttpRoute>,
    /// Routes of TLS connections that are passed through, chosen by SNI.
    pub tls: Vec<TlsRoute>,
    /// Routes of plain TCP connections.
    pub tcp: Vec<TcpRoute>,
    /// The namespaces that see it: `.`, `*`, or names.
    pub export_to: Vec<String>,
}

/// One HTTP rule: what it matches and what it does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRoute {
    /// The name in access logs and metrics.
    pub name: Option<String>,
    /// Conditions, any of which may hold; empty matches every request.
    #[serde(rename = "match")]
    pub matches: Vec<HttpMatch>,
    /// Where matching requests go, by weight.
    pub route: Vec<HttpRouteDestination>,
    /// Answer with a redirect instead of forwarding.
    pub redirect: Option<HttpRedirect>,
    /// Answer with a fixed response instead of forwarding.
    pub direct_response: Option<HttpDirectResponse>,
    /// Continue in another VirtualService.
    pub delegate: Option<Delegate>,
    /// Change path or authority before forwarding.
    pub rewrite: Option<HttpRewrite>,
    /// The most time for the whole exchange; absent or zero is no limit.
    pub timeout: Option<Duration>,
    /// When and how often to try again.
    pub retries: Option<HttpRetry>,
    /// Delays and failures injected on purpose.
    pub fault: Option<HttpFaultInjection>,
    /// Where a copy of each request goes.
    pub mirror: Option<Destination>,
    /// Several places that receive copies.
    pub mirrors: Vec<HttpMirrorPolicy>,
    /// Deprecated: whole percent of requests to mirror.
    pub mirror_percent: Option<u32>,
    /// The share of requests to mirror.
    pub mirror_percentage: Option<Percent>,
    /// Cross-origin rules.
    pub cors_policy: Option<CorsPolicy>,
    /// Header changes for every destination of this route.
    pub headers: Option<Headers>,
}

/// Conditions of which all must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpMatch {
    /// A name for the access log.
    pub name: Option<String>,
    /// The path.
    pub uri: Option<StringMatch>,
    /// The scheme of the request.
    pub scheme: Option<StringMatch>,
    /// The method.
    pub method: Option<StringMatch>,
    /// The `Host` or `:authority`.
    pub authority: Option<StringMatch>,
    /// Headers, by lower-case name.
    pub headers: BTreeMap<String, StringMatch>,
    /// Headers that must be absent or not match.
    pub without_headers: BTreeMap<String, StringMatch>,
    /// Query parameters.
    pub query_params: BTreeMap<String, StringMatch>,
    /// Compare exact and prefix paths without case.
    pub ignore_uri_case: Option<bool>,
    /// The port that the client addressed.
    pub port: Option<u16>,
    /// Labels of the calling workload.
    pub source_labels: Labels,
    /// The namespace of the calling workload.
    pub source_namespace: Option<String>,
    /// Where the condition holds; overrides the list of the VirtualService.
    pub gateways: Vec<String>,
    /// A prefix for statistics of this route.
    pub stat_prefix: Option<String>,
}

/// A destination and its share of the requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRouteDestination {
    /// The service, its subset and port.
    pub destination: Destination,
    /// The share; absent counts as 0, or as all when it is the only one.
    pub weight: Option<u32>,
    /// Header changes for this destination alone.
    pub headers: Option<Headers>,
}

/// A redirect, sent by the proxy itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRedirect {
    /// The new path.
    pub uri: Option<String>,
    /// Replaces the matched prefix of the path.
    pub prefix_rewrite: Option<String>,
    /// The new host.
    pub authority: Option<String>,
    /// The new port.
    pub port: Option<u16>,
    /// How to choose the new port when none is given.
    pub derive_port: Option<RedirectPort>,
    /// The new scheme.
    pub scheme: Option<String>,
    /// The status, 301 when absent.
    pub redirect_code: Option<u16>,
}

/// How a redirect chooses its port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RedirectPort {
    /// 80 for http, 443 for https.
    #[default]
    FromProtocolDefault,
    /// The port of the request.
    FromRequestPort,
}

/// A fixed answer, sent by the proxy itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpDirectResponse {
    /// The HTTP status.
    pub status: u16,
    /// The body; absent is empty.
    pub body: Option<HttpBody>,
}

/// The body of a fixed answer: one of its two forms.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpBody {
    /// The body as text.
    pub string: Option<String>,
    /// The body as base64.
    pub bytes: Option<Base64>,
}

/// Another VirtualService in which the routes of this prefix continue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Delegate {
    /// Its name.
    pub name: String,
    /// Its namespace; absent is our own.
    pub namespace: Option<String>,
}

/// Changes of path and authority before forwarding.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRewrite {
    /// The new path, or the new prefix when the match was a prefix.
    pub uri: Option<String>,
    /// The new authority.
    pub authority: Option<String>,
    /// A replacement by regular expression.
    pub uri_regex_rewrite: Option<RegexRewrite>,
}

/// A replacement within the path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RegexRewrite {
    /// The expression, in RE2 syntax.
    #[serde(rename = "match")]
    pub pattern: String,
    /// The replacement; `\1` is the first group.
    pub rewrite: String,
}

/// When and how often to try again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRetry {
    /// How many times to try after the first.
    pub attempts: Option<u32>,
    /// The most time for one try.
    pub per_try_timeout: Option<Duration>,
    /// Conditions and status codes, separated by commas.
    pub retry_on: Option<String>,
    /// Whether other localities may be tried.
    pub retry_remote_localities: Option<bool>,
    /// Whether endpoints that failed are avoided.
    pub retry_ignore_previous_hosts: Option<bool>,
    /// The least pause between tries.
    pub backoff: Option<Duration>,
}

/// Faults injected on purpose.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpFaultInjection {
    /// A pause before forwarding.
    pub delay: Option<FaultDelay>,
    /// An answer instead of forwarding.
    pub abort: Option<FaultAbort>,
}

/// A pause before forwarding.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FaultDelay {
    /// Deprecated: whole percent of requests.
    pub percent: Option<u32>,
    /// The pause.
    pub fixed_delay: Option<Duration>,
    /// Reserved by Istio, not implemented there.
    pub exponential_delay: Option<Duration>,
    /// The share of requests; absent is all.
    pub percentage: Option<Percent>,
}

/// An answer instead of forwarding.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FaultAbort {
    /// The HTTP status.
    pub http_status: Option<u16>,
    /// The gRPC status, as a name.
    pub grpc_status: Option<String>,
    /// Reserved by Istio, not implemented there.
    pub http2_error: Option<String>,
    /// The share of requests; absent is all.
    pub percentage: Option<Percent>,
}

/// One place that receives copies of requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpMirrorPolicy {
    /// Where the copies go.
    pub destination: Destination,
    /// The share of requests; absent is all.
    pub percentage: Option<Percent>,
}

/// Cross-origin rules.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CorsPolicy {
    /// Deprecated: origins, exact.
    pub allow_origin: Vec<String>,
    /// Origins.
    pub allow_origins: Vec<StringMatch>,
    /// Methods.
    pub allow_methods: Vec<String>,
    /// Request headers.
    pub allow_headers: Vec<String>,
    /// Response headers that scripts may read.
    pub expose_headers: Vec<String>,
    /// How long a preflight may be cached.
    pub max_age: Option<Duration>,
    /// Whether cookies may be sent.
    pub allow_credentials: Option<bool>,
    /// What happens to preflights of other origins.
    pub unmatched_preflights: Option<UnmatchedPreflights>,
}

/// What happens to preflights of an origin that is not allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum UnmatchedPreflights {
    /// As `FORWARD`.
    #[default]
    Unspecified,
    /// They are forwarded.
    Forward,
    /// They are answered without permission.
    Ignore,
}

/// Header changes on the way in and out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Headers {
    /// On the request.
    pub request: Option<HeaderOperations>,
    /// On the response.
    pub response: Option<HeaderOperations>,
}

/// Header changes; `set` first, then `add`, then `remove`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HeaderOperations {
    /// Overwrites.
    pub set: BTreeMap<String, String>,
    /// Appends.
    pub add: BTreeMap<String, String>,
    /// Removes.
    pub remove: Vec<String>,
}

/// One rule for TLS connections that are passed through.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsRoute {
    /// Conditions, any of which may hold.
    #[serde(rename = "match")]
    pub matches: Vec<TlsMatch>,
    /// Where they go, by weight.
    pub route: Vec<RouteDestination>,
}

/// Conditions of which all must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsMatch {
    /// Server names; a leading `*.` is allowed.
    pub sni_hosts: Vec<String>,
    /// Original destination, as CIDR.
    pub destination_subnets: Vec<String>,
    /// The port that the client addressed.
    pub port: Option<u16>,
    /// Labels of the calling workload.
    pub source_labels: Labels,
    /// The namespace of the calling workload.
    pub source_namespace: Option<String>,
    /// Where the condition holds.
    pub gateways: Vec<String>,
}

/// One rule for TCP connections.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpRoute {
    /// Conditions, any of which may hold; empty matches all.
    #[serde(rename = "match")]
    pub matches: Vec<L4Match>,
    /// Where they go, by weight.
    pub route: Vec<RouteDestination>,
}

/// Conditions of which all must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct L4Match {
    /// Original destination, as CIDR.
    pub destination_subnets: Vec<String>,
    /// The port that the client addressed.
    pub port: Option<u16>,
    /// Deprecated: the caller's address, as CIDR.
    pub source_subnet: Option<String>,
    /// Labels of the calling workload.
    pub source_labels: Labels,
    /// The namespace of the calling workload.
    pub source_namespace: Option<String>,
    /// Where the condition holds.
    pub gateways: Vec<String>,
}

/// A destination and its share of the connections.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteDestination {
    /// The service, its subset and port.
    pub destination: Destination,
    /// The share; absent counts as 0, or as all when it is the only one.
    pub weight: Option<u32>,
}
