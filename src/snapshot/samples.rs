//! Parts of a mesh that tests build on.

use crate::filters::RouteSettings;
use crate::mesh::{
    self, Action, Balance, ChainMatch, ChainProtocol, Direction, Discovery, EndpointAddress, FilterChain,
    Health, HttpChain, Origin, PathMatch, Pool, RouteAction, RouteMatch, TcpChain, TcpTarget,
    UpstreamProtocol, WeightedCluster,
};
use std::sync::Arc;
use std::time::Duration;

pub(crate) fn cluster(name: &str) -> mesh::Cluster {
    mesh::Cluster {
        name: name.into(),
        service: mesh::ServiceName::default(),
        protocol: UpstreamProtocol::Http1,
        discovery: Discovery::Endpoints,
        balance: Balance::RoundRobin,
        pool: Pool::default(),
        source_address: None,
        proxy_protocol: None,
        origin: Origin::BUILT_IN,
    }
}

pub(crate) fn endpoint(port: u16, weight: u32) -> mesh::Endpoint {
    mesh::Endpoint {
        address: EndpointAddress::Socket(([10, 0, 0, 1], port).into()),
        weight,
        health: Health::Healthy,
        priority: 0,
        locality: Arc::default(),
        workload: Arc::default(),
        origin: Origin::BUILT_IN,
    }
}

pub(crate) fn share(cluster: &str, weight: u32) -> WeightedCluster {
    WeightedCluster {
        cluster: cluster.into(),
        weight,
        filters: RouteSettings::default(),
        origin: Origin::BUILT_IN,
    }
}

pub(crate) fn rule(name: &str, path: PathMatch, clusters: Vec<WeightedCluster>) -> mesh::Route {
    mesh::Route {
        name: name.into(),
        matches: RouteMatch { path, ..RouteMatch::default() },
        action: Arc::new(RouteAction {
            action: Action::Forward(clusters),
            filters: RouteSettings::default(),
        }),
        origin: Origin::BUILT_IN,
    }
}

pub(crate) fn host(name: &str, domains: &[&str], routes: Vec<mesh::Route>) -> Arc<mesh::VirtualHost> {
    Arc::new(mesh::VirtualHost {
        name: name.into(),
        domains: domains.iter().collect(),
        routes,
        origin: Origin::BUILT_IN,
    })
}

pub(crate) fn listener(name: &str, chains: Vec<FilterChain>) -> mesh::Listener {
    mesh::Listener {
        name: name.into(),
        addresses: Vec::new(),
        bound: true,
        direction: Direction::Outbound,
        interception: None,
        hand_over: false,
        proxy_protocol: None,
        detection_timeout: Duration::ZERO,
        handshake_timeout: Duration::from_secs(10),
        chains: chains.into_iter().map(Arc::new).collect(),
        default_chain: None,
        origin: Origin::BUILT_IN,
    }
}

pub(crate) fn chain(name: &str, matches: ChainMatch, protocol: ChainProtocol) -> FilterChain {
    FilterChain { name: name.into(), matches, protocol, origin: Origin::BUILT_IN }
}

pub(crate) fn web(routes: &str) -> ChainProtocol {
    ChainProtocol::Http(Arc::new(HttpChain::new(routes.into())))
}

pub(crate) fn bytes(clusters: Vec<WeightedCluster>) -> ChainProtocol {
    let target = TcpTarget::Clusters(clusters);
    ChainProtocol::Tcp(Arc::new(TcpChain::new(target, Duration::ZERO, Origin::BUILT_IN)))
}

pub(crate) fn head(uri: &str) -> http::request::Parts {
    http::Request::get(uri).body(()).unwrap().into_parts().0
}
