//! Outbound listeners of captured traffic (REDIRECT, TPROXY): one that takes all, and one behind it for each port and address.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::World;
use super::clusters::PASSTHROUGH;
use super::index::origin;
use super::listeners::{add, add_table, addresses, chain, flow_chain, http, listener};
use super::scope::{Scope, View};
use super::service::{Port, Protocol, Service};
use super::tables::Hosts;
use super::tcp::{Caller, Flow, own_flow, tcp_flows, tls_flows, to_cluster};
use super::virtual_services::MESH;
use crate::config::resources::istio::sidecar::OutboundMode;
use crate::mesh::{
    Address, ChainMatch, ChainProtocol, Direction, EndpointAddress, FilterChain, Mesh, Origin, Pool,
    TcpChain, TcpTarget,
};

/// Adds the listeners and tables of captured outbound traffic.
pub(super) fn add_outbound(world: &World<'_>, scope: &Scope<'_>, taken: &[u16], mesh: &mut Mesh) {
    let field = "spec.outbound.addresses";
    let bound = addresses(world, world.object, field, &world.proxy.outbound.addresses);
    let mut outbound = listener(world, "virtualOutbound", Direction::Outbound, origin(world.object, field));
    for port in bound.iter().filter_map(port_of) {
        // A connection to our own port would come back to us for ever.
        let matches = ChainMatch { destination_port: Some(port), ..ChainMatch::default() };
        outbound.chains.push(chain(
            "virtualOutbound-blackhole",
            matches,
            ChainProtocol::Refuse,
            Origin::BUILT_IN,
        ));
    }
    outbound.default_chain = Some(unknown(scope.policy, "virtualOutbound-catchall-tcp"));
    outbound.addresses = bound;
    outbound.bound = true;
    outbound.hand_over = true;
    add(mesh, outbound);
    if let Some(view) = scope.catch_all() {
        Ports { world, hosts: &Hosts::new(world, view), scope, wild: BTreeMap::new() }.add(view, taken, mesh);
    }
}

pub(super) fn port_of(address: &Address) -> Option<u16> {
    match address {
        Address::Socket(address) => Some(address.port()),
        Address::Unix(_) => None,
    }
}

fn unknown(policy: OutboundMode, name: &str) -> Arc<FilterChain> {
    let protocol = match policy {
        OutboundMode::RegistryOnly => ChainProtocol::Refuse,
        _ => ChainProtocol::Tcp(passthrough(policy)),
    };
    chain(name, ChainMatch::default(), protocol, Origin::BUILT_IN)
}

fn passthrough(policy: OutboundMode) -> Arc<TcpChain> {
    let idle_timeout = Pool::default().tcp_idle_timeout;
    Arc::new(match policy {
        OutboundMode::RegistryOnly => TcpChain::new(TcpTarget::Refuse, idle_timeout, Origin::BUILT_IN),
        _ => to_cluster(PASSTHROUGH, idle_timeout, Origin::BUILT_IN),
    })
}

/// What a port without an address of its own carries.
#[derive(Default)]
struct Wild<'w, 'a> {
    http: bool,
    flows: Vec<Flow>,
    /// The service whose connections need no further condition.
    owner: Option<(&'w Service<'a>, &'w Port)>,
}

struct Ports<'w, 'a> {
    world: &'w World<'a>,
    hosts: &'w Hosts<'w, 'a>,
    scope: &'w Scope<'a>,
    wild: BTreeMap<u16, Wild<'w, 'a>>,
}

impl<'w, 'a> Ports<'w, 'a> {
    fn add(mut self, view: &View<'a>, taken: &[u16], mesh: &mut Mesh) {
        debug_assert!(view.listener.is_none_or(|listener| listener.port.is_none()));
        for service in self.hosts.services() {
            for port in service.ports.iter().filter(|port| !taken.contains(&port.number)) {
                self.port(service, port, mesh);
            }
        }
        for (port, wild) in std::mem::take(&mut self.wild) {
            self.wildcard(port, wild, mesh);
        }
    }

    fn port(&mut self, service: &'w Service<'a>, port: &'w Port, mesh: &mut Mesh) {
        let own: Vec<SocketAddr> = service
            .addresses
            .iter()
            .filter(|net| net.prefix_len() == net.max_prefix_len())
            .map(|net| SocketAddr::new(net.addr(), port.number))
            .collect();
        match port.protocol {
            Protocol::Udp => {}
            Protocol::Http | Protocol::Http2 => self.http(service, port),
            Protocol::Detect if own.is_empty() => self.http(service, port),
            Protocol::Detect => {
                let table = self.hosts.of_service(service, port);
                let flow =
                    self.flows(service, port).pop().unwrap_or_else(|| own_flow(self.world, service, port));
                let detect = ChainProtocol::Detect {
                    http: Arc::new(http(self.world, &table.name)),
                    tcp: Arc::new(flow.chain),
                };
                add_table(mesh, table);
                let origin = origin(service.object, service.port_field(port));
                let chain = chain("detect", ChainMatch::default(), detect, origin);
                self.addressed(service, port, &own, vec![chain], mesh);
            }
            Protocol::Tcp | Protocol::Tls if own.is_empty() && !service.is_headless() => {
                self.bytes(service, port);
            }
            Protocol::Tcp | Protocol::Tls => {
                let own = if own.is_empty() { self.pods(service, port) } else { own };
                let flows = self.flows(service, port);
                let chains =
                    flows.into_iter().enumerate().map(|(at, flow)| flow_chain(&format!("tcp-{at}"), flow));
                self.addressed(service, port, &own, chains.collect(), mesh);
            }
        }
    }

    /// The flows of a service port; the last takes what the others leave, unless all of them ask for a server name.
    fn flows(&self, service: &Service<'a>, port: &Port) -> Vec<Flow> {
        let bound: Vec<_> = self.hosts.rules(&service.host).iter().map(|at| &self.world.bound[*at]).collect();
        let caller = Caller { port: Some(port.number), gateway: MESH };
        let mut flows = match port.protocol {
            Protocol::Tls => tls_flows(self.world, &bound, caller, Some(&service.host)),
            _ => tcp_flows(self.world, &bound, caller),
        };
        let complete = match port.protocol {
            Protocol::Tls => !flows.is_empty(),
            _ => flows.last().is_some_and(Flow::is_final),
        };
        if !complete {
            flows.push(own_flow(self.world, service, port));
        }
        flows
    }

    fn addressed(
        &self,
        service: &Service<'a>,
        port: &Port,
        own: &[SocketAddr],
        mut chains: Vec<Arc<FilterChain>>,
        mesh: &mut Mesh,
    ) {
        let Some(first) = own.first() else { return };
        let name = format!("{}_{}", first.ip(), port.number);
        let field = service.port_field(port);
        if let Some(other) = mesh.listeners.get(name.as_str()) {
            let message = format!(
                "{} and {} claim the address {first}: the older keeps it",
                service.host, other.origin
            );
            let hint = "give every service an address of its own";
            self.world.index.notes.warn(service.object, &field, "listener-conflict", message, hint);
            return;
        }
        let mut listener = listener(self.world, &name, Direction::Outbound, origin(service.object, field));
        listener.addresses = own.iter().copied().map(Address::Socket).collect();
        // Without a condition it is for everything that the others leave.
        if chains.last().is_some_and(|chain| chain.matches == ChainMatch::default()) {
            listener.default_chain = chains.pop();
        }
        listener.chains = chains;
        add(mesh, listener);
    }

    fn pods(&self, service: &Service<'a>, port: &Port) -> Vec<SocketAddr> {
        let endpoints = self.world.workloads.endpoints(service, port, &self.world.index.notes);
        let addresses = endpoints.iter().filter_map(|one| match one.address {
            EndpointAddress::Socket(address) => Some(SocketAddr::new(address.ip(), port.number)),
            _ => None,
        });
        addresses.collect()
    }

    fn http(&mut self, service: &'w Service<'a>, port: &'w Port) {
        let wild = self.wild.entry(port.number).or_default();
        match wild.owner {
            Some(owner) if !wild.http && owner.1.protocol == Protocol::Tcp => {
                self.conflict(service, port, owner.0);
            }
            _ => {
                wild.http = true;
                wild.owner.get_or_insert((service, port));
            }
        }
    }

    fn bytes(&mut self, service: &'w Service<'a>, port: &'w Port) {
        let mut flows = self.flows(service, port);
        let blocks: Vec<_> = service.addresses.clone();
        for flow in &mut flows {
            if flow.destinations.is_empty() {
                flow.destinations.clone_from(&blocks);
            }
            // Nothing but the server name tells a TLS service without address from the others of its port.
            if port.protocol == Protocol::Tls && flow.server_names.is_empty() && blocks.is_empty() {
                flow.server_names.push(service.host.to_string());
            }
        }
        let wild = self.wild.entry(port.number).or_default();
        if flows.iter().any(Flow::is_final) {
            if let Some((owner, _)) = wild.owner {
                self.conflict(service, port, owner);
                return;
            }
            wild.owner = Some((service, port));
        }
        wild.flows.extend(flows);
    }

    fn conflict(&self, service: &Service<'a>, port: &Port, owner: &Service<'a>) {
        let message = format!(
            "port {} of {} has no address of its own and {} already takes all of that port: it is not reachable",
            port.number, service.host, owner.host
        );
        let hint = "give the service an address (`clusterIP`, `addresses`), or another port";
        self.world.index.notes.warn(
            service.object,
            &service.port_field(port),
            "listener-conflict",
            message,
            hint,
        );
    }

    fn wildcard(&self, port: u16, wild: Wild<'w, 'a>, mesh: &mut Mesh) {
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let name = format!("{any}_{port}");
        let origin = wild
            .owner
            .map_or(Origin::BUILT_IN, |(service, port)| origin(service.object, service.port_field(port)));
        let mut listener = listener(self.world, &name, Direction::Outbound, origin.clone());
        listener.addresses = vec![
            Address::Socket(SocketAddr::new(any, port)),
            Address::Socket(SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), port)),
        ];
        let mut chains: Vec<_> = wild
            .flows
            .into_iter()
            .enumerate()
            .map(|(at, flow)| flow_chain(&format!("tcp-{at}"), flow))
            .collect();
        if wild.http {
            let table = self.hosts.of_port(&port.to_string(), port, Some(self.scope.policy));
            add_table(mesh, table);
            let protocol = ChainProtocol::Detect {
                http: Arc::new(http(self.world, &port.to_string())),
                tcp: passthrough(self.scope.policy),
            };
            listener.default_chain = Some(chain(&name, ChainMatch::default(), protocol, origin));
        } else if let Some(at) = chains.iter().position(|chain| chain.matches == ChainMatch::default()) {
            listener.default_chain = Some(chains.remove(at));
        } else {
            listener.default_chain = Some(unknown(self.scope.policy, "PassthroughFilterChain"));
        }
        listener.chains = chains;
        add(mesh, listener);
    }
}
