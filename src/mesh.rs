//! The one model that every source fills and the data path is compiled from.
//!
//! Plain data, comparable and serializable: what `/config_dump` shows. Names follow Envoy: a *listener* accepts connections and picks a *filter
//! chain*, an HTTP chain names a *route table*, a route picks a *cluster*, a cluster has *endpoints*. Every part is behind an `Arc`, so that an
//! update which leaves a part unchanged also leaves its pointer unchanged and the compiler reuses what it built from it.

mod audit;
mod cluster;
mod domains;
mod labels;
mod listener;
mod name;
mod route;
mod tls;

pub use audit::Audit;
pub use cluster::{
    Balance, Cluster, Discovery, Endpoint, EndpointAddress, EndpointSet, Health, Keepalive, Locality, Pool,
    ServiceName, UpstreamProtocol, Workload,
};
pub use domains::Domains;
pub use filter_api::{Locate, ObjectName, Origin, Place, Source};
pub use labels::{Labels, Word};
pub use listener::{
    Address, ChainMatch, ChainProtocol, Direction, FilterChain, ForwardClientCert, HttpChain, Interception,
    Listener, PathNormalization, ProxyProtocol, ProxyProtocolVersion, TcpChain, TcpTarget, TransportProtocol,
};
pub use name::{Name, forget_names, name};
pub use route::{
    Action, HeaderMatch, PathMatch, QueryMatch, Route, RouteAction, RouteMatch, RouteTable, StringMatch,
    ValueMatch, VirtualHost, WeightedCluster,
};
pub use tls::{
    Certificate, ClientCertificate, ClientTrust, DownstreamTls, KeyExchange, MeshTls, Roots, TlsVersion,
    UpstreamTls, UpstreamTlsWhen,
};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything one proxy has to serve, as some source described it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mesh {
    /// Who this proxy is: the `source_*` or `destination_*` side of its metrics.
    pub node: Arc<Node>,
    /// Listeners by name, bound ones and those reached only by original destination.
    pub listeners: BTreeMap<Name, Arc<Listener>>,
    /// Route tables by the name that HTTP chains use.
    pub routes: BTreeMap<Name, Arc<RouteTable>>,
    /// Clusters by name, for example `outbound|80|v1|reviews.shop.svc.cluster.local`.
    pub clusters: BTreeMap<Name, Arc<Cluster>>,
    /// Endpoints by the name of their cluster. A cluster whose discovery needs none has no entry.
    pub endpoints: BTreeMap<Name, Arc<EndpointSet>>,
    /// What is recorded of each request.
    pub telemetry: Arc<TelemetrySettings>,
}

/// The workload that this proxy stands beside.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Namespace and name of the `Proxy` object, `name.namespace` in logs.
    pub namespace: Name,
    /// Name of the `Proxy` object or pod.
    pub name: Name,
    /// What metrics say of this workload.
    pub workload: Arc<Workload>,
    /// Trust domain of its identity, `cluster.local` by default.
    pub trust_domain: Name,
    /// What holds for mutual TLS in the whole mesh.
    pub tls: MeshTls,
    /// Where it runs, for locality-aware balancing.
    pub locality: Locality,
    /// Istio's network name; empty for the default network.
    pub network: Name,
}

/// Access log as MeshConfig or a Telemetry object asks for it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TelemetrySettings {
    /// One log each; none: no access log is written.
    pub access_logs: Vec<AccessLog>,
    /// What is audited; `None`: nothing.
    pub audit: Option<Audit>,
    /// AuditPolicies for this workload that are rejected and have no earlier version.
    pub audit_missing: Vec<String>,
}

/// One access log file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessLog {
    /// `/dev/stdout`, `/dev/stderr` or a file that is appended to.
    pub path: String,
    /// How each line is written.
    pub format: LogFormat,
}

/// The shape of an access-log line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogFormat {
    /// Istio's default text line.
    #[default]
    Text,
    /// Istio's default JSON object.
    Json,
    /// A text line of Envoy's command operators, `%START_TIME%` and so on.
    CustomText(String),
    /// A JSON object whose values are command operators.
    CustomJson(BTreeMap<String, String>),
}
