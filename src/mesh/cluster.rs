//! Clusters and their endpoints: whom we call, and how.

use super::{Labels, Name, Origin, ProxyProtocolVersion};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A set of endpoints that are called in the same way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// Istio's form: `direction|port|subset|host`.
    pub name: Name,
    /// The service it stands for, as metrics name it.
    pub service: ServiceName,
    /// What is spoken to its endpoints.
    pub protocol: UpstreamProtocol,
    /// Where its endpoints come from.
    pub discovery: Discovery,
    /// How one is chosen.
    pub balance: Balance,
    /// Connection limits and times.
    pub pool: Pool,
    /// Source address of upstream connections (127.0.0.6 towards the application, as Istio).
    pub source_address: Option<IpAddr>,
    /// PROXY protocol header written first on each upstream connection.
    pub proxy_protocol: Option<ProxyProtocolVersion>,
    /// Where it was written.
    pub origin: Origin,
}

/// The service behind a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceName {
    /// Full host, `reviews.shop.svc.cluster.local`.
    pub host: Name,
    /// Short name, `reviews`.
    pub name: Name,
    /// Namespace, `shop`.
    pub namespace: Name,
    /// Subset; empty for the whole service.
    pub subset: Name,
    /// Service port.
    pub port: u16,
}

/// What is spoken to the endpoints of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// What the downstream speaks (`h2UpgradePolicy: DO_NOT_UPGRADE` on an undeclared port, and inbound).
    Downstream,
}

/// Where endpoints come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Discovery {
    /// From `Mesh::endpoints`.
    Endpoints,
    /// Names in `Mesh::endpoints` are resolved by DNS; all addresses are endpoints (Envoy's STRICT_DNS).
    StrictDns {
        /// Refresh when an answer carries no time to live.
        refresh: Duration,
    },
    /// As StrictDns, but only the current address of each name is used for new connections (LOGICAL_DNS).
    LogicalDns {
        /// Refresh when an answer carries no time to live.
        refresh: Duration,
    },
    /// The destination that the downstream connected to (passthrough).
    OriginalDestination,
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Balance {
    /// The less busy of two random ones, by weight. Istio's default.
    #[default]
    LeastRequest,
    /// In turn, by weight.
    RoundRobin,
    /// By chance, by weight.
    Random,
    /// The downstream's original destination.
    Passthrough,
}

/// Connection limits and times of a cluster (DestinationRule `connectionPool`). Counts hold for the process, not for each worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Connections at once, HTTP/1 and TCP.
    pub max_connections: u32,
    /// Requests waiting for a connection.
    pub max_pending: u32,
    /// Requests at once (HTTP/2).
    pub max_requests: u32,
    /// Requests on one connection before it is closed; 0: no limit.
    pub max_requests_per_connection: u32,
    /// Streams at once on one HTTP/2 connection; 0: what the peer allows.
    pub max_concurrent_streams: u32,
    /// Time to connect.
    pub connect_timeout: Duration,
    /// An unused connection is closed after it. Zero: never.
    pub idle_timeout: Duration,
    /// A connection takes no new request after it. Zero: never.
    pub max_connection_duration: Duration,
    /// A TCP connection without bytes is closed after it. Zero: never.
    pub tcp_idle_timeout: Duration,
    /// TCP keep-alive probes.
    pub keepalive: Option<Keepalive>,
}

impl Default for Pool {
    /// Istio's defaults: no limits but the connect timeout, one hour of idleness.
    fn default() -> Self {
        Self {
            max_connections: u32::MAX,
            max_pending: u32::MAX,
            max_requests: u32::MAX,
            max_requests_per_connection: 0,
            max_concurrent_streams: 0,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(3600),
            max_connection_duration: Duration::ZERO,
            tcp_idle_timeout: Duration::from_secs(3600),
            keepalive: None,
        }
    }
}

/// SO_KEEPALIVE and its times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keepalive {
    /// Unanswered probes before the connection is dead.
    pub probes: Option<u32>,
    /// Idle time before the first probe.
    pub time: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
}

/// The endpoints of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EndpointSet {
    /// In no particular order.
    pub endpoints: Vec<Endpoint>,
}

/// One place that can be called.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Where it is.
    pub address: EndpointAddress,
    /// Share of the traffic, at least 1.
    pub weight: u32,
    /// What discovery says of it.
    pub health: Health,
    /// Priority level; 0 is used first.
    pub priority: u32,
    /// Where it runs.
    pub locality: Arc<Locality>,
    /// What metrics say of it.
    pub workload: Arc<Workload>,
    /// Where it was written.
    pub origin: Origin,
}

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EndpointAddress {
    /// An IP address.
    Socket(SocketAddr),
    /// A DNS name, resolved by the cluster's discovery.
    Name(Name, u16),
    /// A Unix stream socket.
    Unix(PathBuf),
}

/// Health as discovery reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Health {
    /// Takes traffic.
    #[default]
    Healthy,
    /// Takes no new traffic, finishes what it has.
    Draining,
    /// Takes no traffic.
    Unhealthy,
}

/// Region, zone and sub-zone; empty parts are unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Locality {
    /// Region.
    pub region: Name,
    /// Zone.
    pub zone: Name,
    /// Sub-zone.
    pub subzone: Name,
}

/// What Istio's standard metrics say of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Name of its Deployment or the like; empty when unknown.
    pub name: Name,
    /// Namespace.
    pub namespace: Name,
    /// Service account.
    pub service_account: Name,
    /// `service.istio.io/canonical-name`, else the `app` label.
    pub canonical_service: Name,
    /// `service.istio.io/canonical-revision`, else the `version` label, else `latest`.
    pub canonical_revision: Name,
    /// Cluster it runs in.
    pub cluster: Name,
    /// Its labels: `app`, `version`, what subsets select by.
    pub labels: Labels,
}
