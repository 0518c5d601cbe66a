//! Route tables: host, then ordered rules, then where to.

use super::{Domains, Name, Origin};
use crate::filters;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The virtual hosts of an HTTP chain.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RouteTable {
    /// Name that chains use, `80` or `inbound|8080`.
    pub name: Name,
    /// Hosts. A request whose authority matches none is answered 404 `NR`.
    pub hosts: Vec<Arc<VirtualHost>>,
    /// True: the request's own port is not part of the look-up when only a domain without port matches (Envoy's
    /// `ignore_port_in_host_matching`).
    pub ignore_port: bool,
    /// Where it was written.
    pub origin: Origin,
}

/// Routes for a set of domains.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VirtualHost {
    /// Name, `reviews.shop.svc.cluster.local:80`.
    pub name: Name,
    /// Lower-case domains: `host`, `host:port`, `*.suffix`, `*.suffix:port`, `prefix.*` or `*`. Exact beats suffix (longest first) beats
    /// prefix beats `*`, as in Envoy.
    pub domains: Domains,
    /// Rules in order; the first that matches wins.
    pub routes: Vec<Route>,
    /// Where it was written.
    pub origin: Origin,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// Name for logs and metrics; empty when the author gave none.
    pub name: Name,
    /// Which requests.
    pub matches: RouteMatch,
    /// What becomes of them; shared by the rules that one Istio rule with several matches turns into.
    pub action: Arc<RouteAction>,
    /// Where it was written.
    pub origin: Origin,
}

/// All conditions must hold; an empty match takes every request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RouteMatch {
    /// The path, without its query.
    pub path: PathMatch,
    /// The path is compared without regard to ASCII case (Istio's `ignoreUriCase`; not for regex).
    pub ignore_path_case: bool,
    /// The method.
    pub method: Option<StringMatch>,
    /// `http` or `https`.
    pub scheme: Option<StringMatch>,
    /// The authority as it came, with its port, lower-cased.
    pub authority: Option<StringMatch>,
    /// Header conditions.
    pub headers: Vec<HeaderMatch>,
    /// Query parameter conditions.
    pub query: Vec<QueryMatch>,
}

/// A condition on the path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum PathMatch {
    /// Every path.
    #[default]
    Any,
    /// Equal.
    Exact(String),
    /// Begins with these bytes.
    Prefix(String),
    /// Equal, or begins with it followed by `/` (Gateway API, Envoy's `path_separated_prefix`).
    SegmentPrefix(String),
    /// The whole path matches (RE2 syntax, linear time).
    Regex(String),
}

/// A condition on a string.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StringMatch {
    /// Equal.
    Exact(String),
    /// Begins with.
    Prefix(String),
    /// Ends with.
    Suffix(String),
    /// Holds.
    Contains(String),
    /// The whole string matches (RE2 syntax, linear time).
    Regex(String),
}

/// A condition on the value of a header or query parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ValueMatch {
    /// It is there, with whatever value.
    Present,
    /// It is there and its value matches. Several header fields are joined by `,` first, as in Envoy.
    Value(StringMatch),
}

/// A condition on a header.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeaderMatch {
    /// Lower-case name.
    pub name: String,
    /// What its value must be.
    pub value: ValueMatch,
    /// The condition must not hold (Istio's `withoutHeaders`). An absent header satisfies it.
    pub invert: bool,
}

/// A condition on a query parameter; the first of that name counts, percent-decoding is not applied, as in Envoy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryMatch {
    /// Name, case-sensitive.
    pub name: String,
    /// What its value must be.
    pub value: ValueMatch,
}

/// What becomes of a request that matched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteAction {
    /// Forward, or answer here.
    pub action: Action,
    /// Settings of the filters after route matching.
    pub filters: filters::RouteSettings,
}

/// Forward, or answer here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// To one of these, by weight. Never empty.
    Forward(Vec<WeightedCluster>),
    /// A filter of the route answers: a redirect or a direct response.
    Respond,
}

/// A cluster and its share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WeightedCluster {
    /// Name in `Mesh::clusters`.
    pub cluster: Name,
    /// Share of the sum; zero takes nothing.
    pub weight: u32,
    /// Filter settings for this destination alone, after those of the route.
    pub filters: filters::RouteSettings,
    /// Where it was written.
    pub origin: Origin,
}
