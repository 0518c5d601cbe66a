//! Listeners, their filter chains, and what each chain does with a connection.

use super::{DownstreamTls, Name, Origin, WeightedCluster};
use crate::filters;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A place where connections arrive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listener {
    /// Unique name, `virtualOutbound`, `virtualInbound`, `0.0.0.0_8080`.
    pub name: Name,
    /// Where it listens. For a listener that is not bound: the original destinations that it takes over.
    pub addresses: Vec<Address>,
    /// False: never bound, reached by original destination from a bound listener (Envoy's `bind_to_port: false`).
    pub bound: bool,
    /// Whose traffic arrives here.
    pub direction: Direction,
    /// How the kernel sends captured connections here; `None`: clients connect on purpose.
    pub interception: Option<Interception>,
    /// Hands a captured connection to the listener that has its original destination (Envoy's `use_original_dst`).
    pub hand_over: bool,
    /// Expect a PROXY protocol header from these peers.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// How long the first bytes may take before the connection counts as plain TCP, where both HTTP and TCP are served. Zero:
    /// [`handshake_timeout`](Self::handshake_timeout).
    pub detection_timeout: Duration,
    /// How long a PROXY protocol header may take, and the first bytes where HTTP alone is served. Zero: for ever.
    pub handshake_timeout: Duration,
    /// Chains; the most specific match wins, as in Envoy.
    pub chains: Vec<Arc<FilterChain>>,
    /// Chain for connections that no other matches; `None`: they are closed with `NR`.
    pub default_chain: Option<Arc<FilterChain>>,
    /// Where it was written.
    pub origin: Origin,
}

/// A TCP address or the path of a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Address {
    /// An IP address and a port; port 0 is chosen by the kernel.
    Socket(SocketAddr),
    /// A Unix stream socket.
    Unix(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Whose traffic a listener carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// From other workloads to the local application.
    Inbound,
    /// From the local application to other workloads.
    Outbound,
    /// From outside the mesh into it.
    Gateway,
}

/// How the kernel redirects connections to a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Interception {
    /// iptables REDIRECT: the original destination is read by `SO_ORIGINAL_DST`.
    Redirect,
    /// iptables TPROXY: the original destination is the socket's own local address.
    Tproxy,
}

/// PROXY protocol on accepted connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyProtocol {
    /// Peers whose header is believed; any other peer that sends one is closed.
    pub from: Vec<IpNet>,
}

/// Which PROXY protocol is written towards an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProxyProtocolVersion {
    /// The text form.
    V1,
    /// The binary form.
    V2,
}

/// What a listener does with a connection that matches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FilterChain {
    /// Unique within the listener.
    pub name: Name,
    /// Which connections.
    pub matches: ChainMatch,
    /// Ends TLS before anything else is read. The condition on TLS is in `matches`.
    pub tls: Option<Arc<DownstreamTls>>,
    /// What becomes of them.
    pub protocol: ChainProtocol,
    /// Where it was written.
    pub origin: Origin,
}

/// Which connections a chain takes; an empty field matches all. Order of specificity as in Envoy: destination port, destination address,
/// server name, transport protocol, application protocols, source addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainMatch {
    /// Original destination port.
    pub destination_port: Option<u16>,
    /// Original destination address.
    pub destinations: Vec<IpNet>,
    /// SNI, exact or `*.suffix`.
    pub server_names: Vec<String>,
    /// TLS or not.
    pub transport: Option<TransportProtocol>,
    /// `http/1.1` or `h2c` as detection found; for TLS what the client offers by ALPN.
    pub application_protocols: Vec<String>,
    /// Address of the downstream.
    pub sources: Vec<IpNet>,
}

/// The transport that the first bytes show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TransportProtocol {
    /// A TLS ClientHello.
    Tls,
    /// Anything else.
    RawBuffer,
}

/// What a chain speaks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ChainProtocol {
    /// HTTP/1 and HTTP/2 by route table. Bytes that are neither are refused.
    Http(Arc<HttpChain>),
    /// Bytes, to a cluster.
    Tcp(Arc<TcpChain>),
    /// HTTP when the first bytes say so, else bytes (an undeclared port).
    Detect {
        /// For connections that speak HTTP.
        http: Arc<HttpChain>,
        /// For all others.
        tcp: Arc<TcpChain>,
    },
    /// Closed at once, flagged `NR`, for the reason given: REGISTRY_ONLY's black hole, plain text where mutual TLS is required.
    Refuse(Name),
}

/// The HTTP settings of a chain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HttpChain {
    /// Name in `Mesh::routes`.
    pub routes: Name,
    /// How the request target is made canonical before anything reads it.
    pub path_normalization: PathNormalization,
    /// Trusted hops in front of us: how many `x-forwarded-for` entries, from the right, are believed (Envoy's `xff_num_trusted_hops`).
    pub trusted_hops: u32,
    /// True where the downstream is not part of the mesh: control and identity headers it sends are removed, and those of answers to it;
    /// its own address is the client's (Envoy's `use_remote_address`).
    pub edge: bool,
    /// How long a connection without requests stays open. Zero: for ever.
    pub idle_timeout: Duration,
    /// How long a stream may go without a byte in either direction. Zero: for ever.
    pub stream_idle_timeout: Duration,
    /// How long the request head may take, from its first byte (slowloris). Zero: for ever.
    pub request_headers_timeout: Duration,
    /// Longest life of a downstream connection. Zero: for ever.
    pub max_connection_duration: Duration,
    /// Streams at once on one HTTP/2 connection.
    pub max_concurrent_streams: u32,
    /// Header fields in a request head; beyond: 431.
    pub max_headers: u32,
    /// Bytes of a request head; beyond: 431.
    pub max_header_bytes: u32,
    /// Bytes of a request body; beyond: 413. Zero: no limit.
    pub max_body_bytes: u64,
    /// WebSocket and other upgrades are carried.
    pub upgrades: bool,
    /// Value of the `server` response header; empty: none is added or changed.
    pub server_name: Name,
    /// The hosts that a server which ends TLS serves, exact or `*.suffix`; a request for another one is answered 421. Empty: any.
    pub served_hosts: Vec<String>,
    /// Those of the other TLS servers of the port, which a client may have to prove more to: a host that one of them names more exactly is theirs.
    pub sibling_hosts: Vec<String>,
    /// What becomes of `x-forwarded-client-cert`.
    pub forward_client_cert: ForwardClientCert,
    /// An audit records what becomes of its requests.
    pub audited: bool,
    /// Settings of the filters before route matching.
    pub filters: filters::PortSettings,
}

/// What becomes of `x-forwarded-client-cert`, with Envoy's names. The header of a peer without a verified certificate is removed in all modes but the
/// last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ForwardClientCert {
    /// It is removed.
    #[default]
    Sanitize,
    /// It is sent on as it came.
    ForwardOnly,
    /// The peer is added to it.
    AppendForward,
    /// It is replaced by the peer.
    SanitizeSet,
    /// It is sent on as it came, whoever sent it.
    AlwaysForwardOnly,
}

impl HttpChain {
    /// Istio's and Envoy's defaults for a route table.
    pub fn new(routes: Name) -> Self {
        Self {
            routes,
            path_normalization: PathNormalization::Base,
            trusted_hops: 0,
            edge: false,
            idle_timeout: Duration::from_secs(3600),
            stream_idle_timeout: Duration::from_secs(300),
            request_headers_timeout: Duration::from_secs(60),
            max_connection_duration: Duration::ZERO,
            max_concurrent_streams: 1024,
            max_headers: 100,
            max_header_bytes: 60 * 1024,
            max_body_bytes: 0,
            upgrades: true,
            server_name: Name::from(""),
            served_hosts: Vec::new(),
            sibling_hosts: Vec::new(),
            forward_client_cert: ForwardClientCert::Sanitize,
            audited: false,
            filters: filters::PortSettings::default(),
        }
    }
}

/// How far a path is normalised: `MeshConfig.pathNormalization.normalization` of Istio.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PathNormalization {
    /// The path stays as sent. Refusals still hold.
    None,
    /// RFC 3986 section 6.2.2 as Envoy's `normalize_path`: percent-encoded unreserved bytes decoded, dot segments removed (encoded ones too), `\` turned
    /// into `/`, bytes no path may hold percent-encoded. Istio's default.
    #[default]
    Base,
    /// [`Base`](Self::Base), then adjacent slashes merged.
    MergeSlashes,
    /// `%2f` and `%5c` in any case read as `/` and `\`, then [`MergeSlashes`](Self::MergeSlashes).
    DecodeAndMergeSlashes,
}

/// The TCP settings of a chain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TcpChain {
    /// Where connections go.
    pub target: TcpTarget,
    /// Ends a connection that carries no byte for so long. Zero: never.
    pub idle_timeout: Duration,
    /// An audit records what becomes of its connections.
    pub audited: bool,
    /// Settings of the filters that judge a connection.
    pub filters: filters::PortSettings,
    /// Where it was written.
    pub origin: Origin,
}

impl TcpChain {
    /// A chain that lets every connection pass.
    pub fn new(target: TcpTarget, idle_timeout: Duration, origin: Origin) -> Self {
        Self { target, idle_timeout, audited: false, filters: filters::PortSettings::default(), origin }
    }
}

/// Where the bytes of a connection go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum TcpTarget {
    /// One of these, by weight.
    Clusters(Vec<WeightedCluster>),
    /// Nowhere: closed with `NR`.
    Refuse,
}
