//! The servers of the Gateways that select a proxy of the role `Gateway`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use filter_authorization::DestinationPort;
use filter_transform::{Redirect, Reply};

mod tls;

use super::host::{full, overlap, with_port};
use super::index::{Written, origin};
use super::listeners::{add, add_table, bind, chain, flow_chain, http, listener};
use super::routes::{Client, respond, routes_of, takes_everything};
use super::service::{Protocol, exported};
use super::settings::DOMAIN;
use super::tcp::{Caller, nets, tcp_flows};
use super::virtual_services::Bound;
use super::workloads::is_subset;
use super::{World, security};
use crate::config::resources::istio::gateway::{Gateway, Server};
use crate::mesh::{
    Address, ChainMatch, ChainProtocol, Direction, HttpChain, Listener, Mesh, Name, ProxyProtocol, Route,
    RouteTable, VirtualHost,
};

/// A server and where it stands.
struct Place<'a> {
    gateway: Written<'a, Gateway>,
    server: &'a Server,
    field: String,
}

impl Place<'_> {
    /// `namespace/name` of its Gateway.
    fn name(&self) -> String {
        format!("{}/{}", self.gateway.namespace(), self.gateway.object.key.name)
    }
}

/// Adds a listener for each address and port of the servers. Servers of several Gateways on one port share it.
pub(super) fn add_servers(world: &World<'_>, mesh: &mut Mesh) {
    let mut ports: BTreeMap<(String, u16), Vec<Place<'_>>> = BTreeMap::new();
    for gateway in &world.index.gateways {
        if !is_subset(&gateway.spec.selector, &world.proxy.workload.labels) {
            continue;
        }
        for (at, server) in gateway.spec.servers.iter().enumerate() {
            let place = Place { gateway: *gateway, server, field: format!("spec.servers[{at}]") };
            if let Some(port) = &server.port {
                let address = server.bind.clone().unwrap_or_default();
                ports.entry((address, port.number)).or_default().push(place);
            }
        }
    }
    let proxy_protocol = if ports.is_empty() { None } else { proxy_protocol(world) };
    for ((address, port), servers) in ports {
        if let Some(mut listener) = add_port(world, &address, port, servers, mesh) {
            listener.proxy_protocol.clone_from(&proxy_protocol);
            add(mesh, listener);
        }
    }
}

/// Whose PROXY protocol header is believed. Istio believes everybody's; here the Proxy has to say whose, for the header names the client.
fn proxy_protocol(world: &World<'_>) -> Option<ProxyProtocol> {
    if !world.settings.proxy_protocol() {
        return None;
    }
    let field = "spec.gateway.proxyProtocolFrom";
    let from = nets(world, world.object, field, &world.proxy.gateway.proxy_protocol_from);
    if from.is_empty() {
        let message = "is empty, and gatewayTopology.proxyProtocol asks for a PROXY protocol header: every connection is refused";
        let hint = "write the addresses of the load balancers, as in `[10.0.0.0/8]`";
        world.index.notes.error(world.object, field, "proxy-protocol", message.to_owned(), hint);
    }
    Some(ProxyProtocol { from })
}

/// What the servers of one port speak before anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speech {
    Http,
    Tls,
    Tcp,
}

fn speech(server: &Server) -> Speech {
    match protocol(server) {
        Protocol::Tls => Speech::Tls,
        protocol if protocol.may_be_http() => Speech::Http,
        _ => Speech::Tcp,
    }
}

fn protocol(server: &Server) -> Protocol {
    let written = server.port.as_ref().map_or("", |port| &port.protocol);
    Protocol::parse(written).unwrap_or(Protocol::Tcp)
}

/// The listener of a port, unless there can be none, which is reported.
fn add_port(
    world: &World<'_>,
    address: &str,
    port: u16,
    servers: Vec<Place<'_>>,
    mesh: &mut Mesh,
) -> Option<Listener> {
    let spoken = speech(servers.first()?.server);
    let (servers, others): (Vec<_>, Vec<_>) =
        servers.into_iter().partition(|place| speech(place.server) == spoken);
    let first = servers.first()?;
    for other in others {
        let message = format!(
            "port {port} already speaks {} for {}: this server is not opened",
            match spoken {
                Speech::Http => "HTTP",
                Speech::Tls => "TLS",
                Speech::Tcp => "TCP",
            },
            first.gateway.object.key
        );
        let hint = "give one of the servers another port";
        world.index.notes.warn(other.gateway.object, &other.field, "listener-conflict", message, hint);
    }
    let bound = world.proxy.gateway.ports.get(&port.to_string()).copied().unwrap_or(port);
    let text = match (address, &world.proxy.gateway.bind) {
        ("", Some(bind)) => bind.clone(),
        ("", None) => IpAddr::V4(Ipv4Addr::UNSPECIFIED).to_string(),
        (address, _) => address.to_owned(),
    };
    let Some(bound_address) = bind(&text, bound) else {
        let message = format!("`{text}` is no address to listen on");
        let field = format!("{}.bind", first.field);
        world.index.notes.error(
            first.gateway.object,
            &field,
            "address",
            message,
            "write an IP address or `unix:///path`",
        );
        return None;
    };
    let origin = origin(first.gateway.object, first.field.clone());
    let name = match &bound_address {
        Address::Socket(_) => format!("{text}_{bound}"),
        Address::Unix(_) => text.clone(),
    };
    if let Some(other) = mesh.listeners.get(name.as_str()) {
        let message = format!("{} already listens there: this server is not opened", other.origin);
        let hint = "give one of the servers another port, or map it in the Proxy's `gateway.ports`";
        world.index.notes.warn(first.gateway.object, &first.field, "listener-conflict", message, hint);
        return None;
    }
    let mut listener = listener(world, &name, Direction::Gateway, origin.clone());
    listener.addresses = vec![bound_address];
    listener.bound = true;
    match spoken {
        Speech::Http => {
            let table =
                if address.is_empty() { format!("http.{bound}") } else { format!("http.{bound}.{address}") };
            let hosts = virtual_hosts(world, &servers, port);
            add_table(
                mesh,
                RouteTable { name: table.as_str().into(), hosts, ignore_port: true, origin: origin.clone() },
            );
            let protocol = ChainProtocol::Http(Arc::new(edge(world, &table)));
            listener.default_chain = Some(chain(&name, ChainMatch::default(), protocol, origin));
        }
        Speech::Tls => {
            for place in &servers {
                tls::add_server(world, (place, &servers), port, &mut listener, mesh);
            }
        }
        Speech::Tcp => {
            for place in &servers {
                add_flows(world, place, port, &mut listener);
            }
        }
    }
    Some(listener)
}

/// The HTTP settings of a chain that takes requests from outside of the mesh.
fn edge(world: &World<'_>, table: &str) -> HttpChain {
    HttpChain {
        edge: true,
        trusted_hops: world.settings.trusted_hops(),
        server_name: world.settings.server_header().into(),
        forward_client_cert: world.settings.forward_client_cert(true).unwrap_or_default(),
        audited: world.is_audited(),
        filters: security::of_requests(world, DestinationPort::Connection),
        ..http(world, table)
    }
}

fn add_flows(world: &World<'_>, place: &Place<'_>, port: u16, listener: &mut Listener) {
    let name = place.name();
    let caller = Caller { port: Some(port), gateway: &name };
    for mut flow in tcp_flows(world, &bound_to(world, place), caller) {
        flow.chain.audited = world.is_audited();
        flow.chain.filters = security::of_connections(world, DestinationPort::Connection);
        let chain = flow_chain(&format!("tcp-{}", listener.chains.len()), flow);
        if chain.matches != ChainMatch::default() {
            listener.chains.push(chain);
        } else if listener.default_chain.is_none() {
            listener.default_chain = Some(chain);
        }
    }
}

/// The VirtualServices bound to a server that name a host of it.
fn bound_to<'w, 'a>(world: &'w World<'a>, place: &Place<'_>) -> Vec<&'w Bound<'a>> {
    bound(world, &place.name())
        .filter(|bound| {
            bound.hosts.iter().any(|host| narrowed(place.server, &place.gateway, bound, host).is_some())
        })
        .collect()
}

/// The VirtualServices bound to a gateway that its proxy may see, the older first.
fn bound<'w, 'a>(world: &'w World<'a>, gateway: &str) -> impl Iterator<Item = &'w Bound<'a>> {
    let default = world.settings.virtual_service_exports();
    world.bound.iter().filter(move |bound| {
        bound.gateways.iter().any(|name| name == gateway)
            && exported(&bound.spec.export_to, default, &bound.object.key.namespace, world.namespace)
    })
}

/// What a server serves of a host of a VirtualService: `namespace/host` lets only those of the namespace in.
fn narrowed(
    server: &Server,
    gateway: &Written<'_, Gateway>,
    bound: &Bound<'_>,
    host: &str,
) -> Option<String> {
    let own = gateway.namespace();
    server.hosts.iter().find_map(|entry| {
        let (namespace, pattern) = entry.split_once('/').unwrap_or(("*", entry));
        let allowed = match namespace {
            "*" => true,
            "." => bound.object.key.namespace == *own,
            name => *bound.object.key.namespace == *name,
        };
        if !allowed {
            return None;
        }
        overlap(&full(pattern, own, DOMAIN), host).map(str::to_owned)
    })
}

fn virtual_hosts(world: &World<'_>, servers: &[Place<'_>], port: u16) -> Vec<Arc<VirtualHost>> {
    let mut hosts: BTreeMap<String, VirtualHost> = BTreeMap::new();
    for place in servers {
        let gateway = place.name();
        let client = Client { port, gateway: &gateway, tls: false };
        let redirects = place.server.tls.as_ref().is_some_and(|tls| tls.https_redirect == Some(true));
        let origin = origin(place.gateway.object, place.field.clone());
        for bound in bound(world, &gateway) {
            for host in
                bound.hosts.iter().filter_map(|host| narrowed(place.server, &place.gateway, bound, host))
            {
                let routes = if redirects { Vec::new() } else { routes_of(world, bound, client, &host) };
                entry(&mut hosts, &host, port, &origin).routes.extend(routes);
            }
        }
        if redirects {
            for written in &place.server.hosts {
                let host = written.split_once('/').map_or(written.as_str(), |(_, host)| host);
                let host = full(host, place.gateway.namespace(), DOMAIN);
                entry(&mut hosts, &host, port, &origin);
            }
            for host in hosts.values_mut().filter(|host| host.origin == origin && host.routes.is_empty()) {
                let redirect = Redirect {
                    status: 301,
                    scheme: Some("https".to_owned()),
                    authority: None,
                    port: None,
                    path: None,
                };
                host.routes.push(respond("https-redirect", Reply::Redirect(redirect), &origin));
            }
        }
    }
    let sort = |mut host: VirtualHost| {
        // What takes every request comes last, whichever VirtualService it is of.
        host.routes.sort_by_key(|route: &Route| takes_everything(&route.matches));
        Arc::new(host)
    };
    hosts.into_values().map(sort).collect()
}

fn entry<'h>(
    hosts: &'h mut BTreeMap<String, VirtualHost>,
    host: &str,
    port: u16,
    origin: &crate::mesh::Origin,
) -> &'h mut VirtualHost {
    hosts.entry(host.to_owned()).or_insert_with(|| {
        let name: Name = with_port(host, Some(port)).into();
        VirtualHost {
            name,
            domains: [with_port(host, None)].into_iter().collect(),
            routes: Vec::new(),
            origin: origin.clone(),
        }
    })
}
