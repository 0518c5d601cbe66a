//! Routes of connections that are no HTTP: by SNI for TLS, by destination for TCP.

use ipnet::IpNet;

use super::World;
use super::clusters;
use super::host::full;
use super::index::origin;
use super::routes::cluster_name;
use super::service::{Port, Service};
use super::settings::DOMAIN;
use super::virtual_services::{Bound, MESH, gateway};
use super::workloads::is_subset;
use crate::config::resources::Resource;
use crate::config::resources::istio::virtual_service::{L4Match, RouteDestination, TlsMatch};
use crate::filters::RouteSettings;
use crate::mesh::{Name, Origin, Pool, TcpChain, TcpTarget, WeightedCluster};

/// Connections by what is known of them, and where they go.
#[derive(Debug)]
pub(super) struct Flow {
    /// Server names; empty is any.
    pub(super) server_names: Vec<String>,
    /// Destinations; empty is any.
    pub(super) destinations: Vec<IpNet>,
    /// Addresses of the client; empty is any.
    pub(super) sources: Vec<IpNet>,
    /// Where they go.
    pub(super) chain: TcpChain,
    /// Where that was written.
    pub(super) origin: Origin,
}

impl Flow {
    /// Whether it takes every connection.
    pub(super) fn is_final(&self) -> bool {
        self.server_names.is_empty() && self.destinations.is_empty() && self.sources.is_empty()
    }
}

/// For whom connections are routed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller<'c> {
    /// The port that the client addressed; `None` when it is not known.
    pub(super) port: Option<u16>,
    /// `mesh`, or a gateway's `namespace/name`.
    pub(super) gateway: &'c str,
}

/// The flows of the `tls` routes of these VirtualServices that hold for a host. The first of several with the same condition counts.
pub(super) fn tls_flows(
    world: &World<'_>,
    bound: &[&Bound<'_>],
    caller: Caller<'_>,
    host: Option<&str>,
) -> Vec<Flow> {
    let mut flows: Vec<Flow> = Vec::new();
    for bound in bound {
        for (at, route) in bound.spec.tls.iter().enumerate().filter(|(_, route)| !route.route.is_empty()) {
            for (match_at, written) in route.matches.iter().enumerate() {
                let source = (&written.source_labels, written.source_namespace.as_deref());
                if !applies(world, bound.object, written.port, &written.gateways, source, caller) {
                    continue;
                }
                let field = format!("spec.tls[{at}].match[{match_at}]");
                let names = server_names(written, bound, host);
                let destinations = nets(world, bound.object, &field, &written.destination_subnets);
                let known =
                    flows.iter().any(|one| one.server_names == names && one.destinations == destinations);
                if known || names.is_empty() {
                    continue;
                }
                let origin = origin(bound.object, field);
                let chain = chain(world, bound.object, &route.route, &format!("spec.tls[{at}]"), caller.port);
                flows.push(Flow { server_names: names, destinations, sources: Vec::new(), chain, origin });
            }
        }
    }
    flows
}

/// The flows of the `tcp` routes of these VirtualServices. One without destinations ends the list.
pub(super) fn tcp_flows(world: &World<'_>, bound: &[&Bound<'_>], caller: Caller<'_>) -> Vec<Flow> {
    let mut flows: Vec<Flow> = Vec::new();
    for bound in bound {
        for (at, route) in bound.spec.tcp.iter().enumerate().filter(|(_, route)| !route.route.is_empty()) {
            let field = format!("spec.tcp[{at}]");
            let applies = |written: &&L4Match| {
                let source = (&written.source_labels, written.source_namespace.as_deref());
                applies(world, bound.object, written.port, &written.gateways, source, caller)
            };
            let matching: Vec<_> = route.matches.iter().filter(applies).collect();
            if matching.is_empty() && !route.matches.is_empty() {
                continue;
            }
            let chain = chain(world, bound.object, &route.route, &field, caller.port);
            let origin = origin(bound.object, field.clone());
            let flow = |destinations: Vec<IpNet>, sources: Vec<IpNet>| Flow {
                server_names: Vec::new(),
                destinations,
                sources,
                chain: chain.clone(),
                origin: origin.clone(),
            };
            for one in &matching {
                let destinations = nets(world, bound.object, &field, &one.destination_subnets);
                let sources = nets(world, bound.object, &field, one.source_subnet.as_slice());
                // What could not be read must not become a condition that always holds.
                let unread = destinations.len() < one.destination_subnets.len()
                    || sources.is_empty() && one.source_subnet.is_some();
                if !unread {
                    flows.push(flow(destinations, sources));
                }
                if flows.last().is_some_and(Flow::is_final) {
                    return flows;
                }
            }
            if matching.is_empty() {
                flows.push(flow(Vec::new(), Vec::new()));
                return flows;
            }
        }
    }
    flows
}

/// The flow of a service without routes: to its own cluster.
pub(super) fn own_flow(world: &World<'_>, service: &Service<'_>, port: &Port) -> Flow {
    let cluster = clusters::name(world, port.number, "", &service.host);
    let origin = origin(service.object, service.port_field(port));
    Flow {
        server_names: Vec::new(),
        destinations: Vec::new(),
        sources: Vec::new(),
        chain: to_cluster(&cluster, idle_timeout(world, service, port), origin.clone()),
        origin,
    }
}

/// A chain to one cluster.
pub(super) fn to_cluster(cluster: &str, idle_timeout: std::time::Duration, origin: Origin) -> TcpChain {
    let target = TcpTarget::Clusters(vec![weighted(cluster.into(), 1, origin.clone())]);
    TcpChain::new(target, idle_timeout, origin)
}

fn idle_timeout(world: &World<'_>, service: &Service<'_>, port: &Port) -> std::time::Duration {
    let policy = world.rules.find(service).and_then(|rule| rule.policy).map(|(policy, _)| policy);
    super::policy::Effective::new(policy, None, port.number).pool(&world.settings).tcp_idle_timeout
}

fn weighted(cluster: Name, weight: u32, origin: Origin) -> WeightedCluster {
    WeightedCluster { cluster, weight, filters: RouteSettings::default(), origin }
}

fn chain(
    world: &World<'_>,
    object: &Resource,
    written: &[RouteDestination],
    field: &str,
    port: Option<u16>,
) -> TcpChain {
    let clusters = written.iter().enumerate().filter_map(|(at, one)| {
        let weight = if written.len() == 1 { 1 } else { one.weight.unwrap_or(0) };
        let cluster = cluster_name(world, &one.destination, &object.key.namespace, port.unwrap_or(443));
        (weight > 0).then(|| weighted(cluster, weight, origin(object, format!("{field}.route[{at}]"))))
    });
    let clusters: Vec<_> = clusters.collect();
    if clusters.is_empty() {
        let message = "has no destination that takes connections: they are closed".to_owned();
        world.index.notes.error(
            object,
            &format!("{field}.route"),
            "no-destination",
            message,
            "give one a `weight` above 0",
        );
    }
    let target = if clusters.is_empty() { TcpTarget::Refuse } else { TcpTarget::Clusters(clusters) };
    TcpChain::new(target, Pool::default().tcp_idle_timeout, origin(object, field))
}

/// The server names of a match, as far as they are names of the host.
fn server_names(written: &TlsMatch, bound: &Bound<'_>, host: Option<&str>) -> Vec<String> {
    let names = written.sni_hosts.iter().map(|name| full(name, &bound.object.key.namespace, DOMAIN));
    names.filter(|name| host.is_none_or(|host| super::host::overlap(host, name).is_some())).collect()
}

fn applies(
    world: &World<'_>,
    object: &Resource,
    port: Option<u16>,
    gateways: &[String],
    (labels, namespace): (&crate::mesh::Labels, Option<&str>),
    caller: Caller<'_>,
) -> bool {
    let here = |name: &String| gateway(name, &object.key.namespace) == caller.gateway;
    let bound = gateways.is_empty() || gateways.iter().any(here);
    let port = match (port.filter(|port| *port != 0), caller.port) {
        (Some(wanted), Some(known)) => wanted == known,
        _ => true,
    };
    let source = is_subset(labels, &world.proxy.workload.labels)
        && namespace.is_none_or(|name| name.is_empty() || name == world.namespace);
    bound && port && (source || caller.gateway != MESH && labels.is_empty())
}

pub(super) fn nets(world: &World<'_>, object: &Resource, field: &str, written: &[String]) -> Vec<IpNet> {
    let parse = |text: &String| {
        let net = text.parse::<std::net::IpAddr>().map(IpNet::from).or_else(|_| text.parse::<IpNet>()).ok();
        if net.is_none() {
            let message = format!("`{text}` is no address or block of addresses, so nothing matches it");
            world.index.notes.error(object, field, "subnet", message, "write a CIDR, as in `10.0.0.0/8`");
        }
        net
    };
    written.iter().filter_map(parse).collect()
}
