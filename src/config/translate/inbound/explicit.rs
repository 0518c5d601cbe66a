//! The inbound listener of clients that call us on purpose: host and port name a service port, and that the port of the application.

use std::collections::BTreeMap;
use std::sync::Arc;

use filter_authorization::DestinationPort;
use rustc_hash::FxHashSet;

use super::super::World;
use super::super::host::{self, with_port};
use super::super::index::origin;
use super::super::listeners::{add as add_listener, add_table, addresses, listener};
use super::super::routes::simple_route;
use super::super::scope::Scope;
use super::super::settings::DOMAIN;
use super::captured::add_bound;
use super::{AppPort, add_cluster, application, inbound_http, inbound_tcp, ports};
use crate::mesh::{ChainMatch, ChainProtocol, Direction, Mesh, RouteTable, VirtualHost};

/// The name of the listener and of its table.
pub(in super::super) const INBOUND: &str = "inbound";

/// Adds the listener, its table and the clusters of the application.
pub(in super::super) fn add(world: &World<'_>, scope: &Scope<'_>, mesh: &mut Mesh) {
    let ports = ports(world, scope);
    let application = application(world);
    for port in ports.iter().chain(&application) {
        add_cluster(world, port, mesh);
        if port.is_bound(world) {
            if port.protocol.may_be_http() {
                add_table(mesh, port.table());
            }
            add_bound(world, port, mesh);
        }
    }
    // Who names no service of ours means the application; if nobody says where it is, its only port.
    let mut numbers: Vec<u16> = ports.iter().map(|port| port.number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let fallback = application.as_ref().or_else(|| if numbers.len() == 1 { ports.first() } else { None });
    let field = "spec.inbound.addresses";
    let origin = origin(world.object, field);
    add_table(mesh, RouteTable { origin: origin.clone(), ..table(world, &ports, fallback) });
    let mut inbound = listener(world, INBOUND, Direction::Inbound, origin.clone());
    inbound.addresses = addresses(world, world.object, field, &world.proxy.inbound.addresses);
    inbound.bound = true;
    // Which of several ports a request is for is decided by its route.
    let targets: FxHashSet<u16> = ports.iter().chain(&application).map(|port| port.number).collect();
    let destination = match targets.into_iter().collect::<Vec<_>>()[..] {
        [only] => known(only),
        _ => DestinationPort::Unknown,
    };
    let http = Arc::new(inbound_http(world, INBOUND, destination));
    let protocol = match fallback {
        Some(port) => {
            let tcp = inbound_tcp(world, &port.cluster(), port.origin(), known(port.number));
            ChainProtocol::Detect { http, tcp: Arc::new(tcp) }
        }
        None => ChainProtocol::Http(http),
    };
    let cluster = fallback.map(AppPort::cluster);
    let asked = world.callers.strictest(world);
    let mut chains =
        asked.chains(world, INBOUND, &ChainMatch::default(), (&protocol, cluster.as_deref()), &origin);
    inbound.default_chain = chains.pop();
    inbound.chains = chains;
    add_listener(mesh, inbound);
}

/// An application behind a Unix socket has no port.
fn known(port: u16) -> DestinationPort {
    if port == 0 { DestinationPort::Unknown } else { DestinationPort::Fixed(port) }
}

fn table(world: &World<'_>, ports: &[AppPort<'_, '_>], fallback: Option<&AppPort<'_, '_>>) -> RouteTable {
    let served = || {
        ports
            .iter()
            .filter_map(|port| Some((port, port.service?)))
            .filter(|(port, _)| port.protocol.may_be_http())
    };
    let mut default: BTreeMap<&str, u16> = BTreeMap::new();
    for (_, (service, port)) in served() {
        let current = default.entry(&service.host).or_insert(port.number);
        if port.number == 80 || (*current != 80 && port.number < *current) {
            *current = port.number;
        }
    }
    let mut used = FxHashSet::default();
    let mut hosts = Vec::new();
    for (port, (service, of)) in served() {
        let mut domains = Vec::new();
        for name in host::domains(&service.host, world.namespace, DOMAIN).0 {
            if default.get(&*service.host) == Some(&of.number) {
                domains.push(with_port(&name, None));
            }
            domains.push(with_port(&name, Some(of.number)));
        }
        domains.retain(|domain| used.insert(domain.clone()));
        if domains.is_empty() {
            continue;
        }
        let name = with_port(&service.host, Some(of.number)).into();
        let routes = vec![simple_route("default", port.cluster(), &port.origin())];
        hosts.push(Arc::new(VirtualHost {
            name,
            domains: domains.into_iter().collect(),
            routes,
            origin: port.origin(),
        }));
    }
    if let Some(port) = fallback {
        hosts.push(Arc::new(VirtualHost {
            name: "application".into(),
            domains: ["*"].into_iter().collect(),
            routes: vec![simple_route("default", port.cluster(), &port.origin())],
            origin: port.origin(),
        }));
    }
    RouteTable { name: INBOUND.into(), hosts, ignore_port: false, origin: crate::mesh::Origin::BUILT_IN }
}
