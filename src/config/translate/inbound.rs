//! Inbound: the ports of the application, as the Services that select it, or its Sidecar, declare them.

mod captured;
mod explicit;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

pub(super) use captured::add as add_captured;
pub(super) use explicit::add as add_explicit;

use filter_authorization::DestinationPort;

use super::World;
use super::index::origin;
use super::listeners::{address, http};
use super::policy::Effective;
use super::routes::simple_route;
use super::scope::Scope;
use super::security;
use super::service::{Port, Protocol, Service, Source};
use super::tcp::to_cluster;
use super::workloads::{is_subset, slice_port};
use crate::config::resources::Resource;
use crate::config::resources::istio::common::ConnectionPool;
use crate::config::resources::istio::sidecar::{CaptureMode, IngressListener};
use crate::config::resources::kubernetes::ServicePort;
use crate::config::resources::scalar::IntOrString;
use crate::mesh::{
    Address, Balance, ChainProtocol, Cluster, Discovery, Endpoint, EndpointAddress, EndpointSet,
    ForwardClientCert, Health, HttpChain, Mesh, Name, Origin, Pool, RouteTable, ServiceName, TcpChain,
    VirtualHost,
};

/// Whence the proxy calls the application, so that its own traffic is not captured again.
pub(super) const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6));

/// A port of the application.
#[derive(Debug)]
pub(super) struct AppPort<'w, 'a> {
    /// The port where connections arrive: that of the application, or of the ingress listener.
    pub(super) number: u16,
    /// The service and its port; `None` for a port of the Sidecar or the Proxy.
    pub(super) service: Option<(&'w Service<'a>, &'w Port)>,
    /// What is spoken.
    pub(super) protocol: Protocol,
    /// Where the application listens.
    pub(super) target: Address,
    /// The ingress listener, if it is one.
    pub(super) ingress: Option<&'a IngressListener>,
    object: &'a Resource,
    field: String,
    pool: Option<&'a ConnectionPool>,
}

impl AppPort<'_, '_> {
    /// The name of its cluster, and of its table.
    pub(super) fn cluster(&self) -> Name {
        format!("inbound|{}||", self.number).into()
    }

    /// Where it was written.
    pub(super) fn origin(&self) -> Origin {
        origin(self.object, self.field.clone())
    }

    /// Whether it has a listener of its own: one that nothing captures.
    pub(super) fn is_bound(&self, world: &World<'_>) -> bool {
        self.ingress.is_some_and(|ingress| {
            ingress.capture_mode == Some(CaptureMode::None)
                || (!world.is_captured() && ingress.bind.as_deref().is_some_and(|bind| !bind.is_empty()))
        })
    }

    /// What is done with its connections.
    pub(super) fn chain(&self, world: &World<'_>) -> ChainProtocol {
        let cluster = self.cluster();
        // The port of a connection that was captured, or came to a listener of its own, is that of the application.
        let http = || Arc::new(inbound_http(world, &cluster, DestinationPort::Connection));
        let tcp = || Arc::new(inbound_tcp(world, &cluster, self.origin(), DestinationPort::Connection));
        match self.protocol {
            Protocol::Http | Protocol::Http2 => ChainProtocol::Http(http()),
            Protocol::Detect => ChainProtocol::Detect { http: http(), tcp: tcp() },
            Protocol::Tls | Protocol::Tcp | Protocol::Udp => ChainProtocol::Tcp(tcp()),
        }
    }

    /// The table of its HTTP, every host to the application.
    pub(super) fn table(&self) -> RouteTable {
        let port = self.service.map_or(self.number, |(_, port)| port.number);
        table(&self.cluster(), port, &self.cluster(), &self.origin())
    }
}

/// The HTTP settings of an inbound chain.
pub(super) fn inbound_http(world: &World<'_>, routes: &str, port: DestinationPort) -> HttpChain {
    HttpChain {
        server_name: world.settings.server_header().into(),
        forward_client_cert: world
            .settings
            .forward_client_cert(false)
            .unwrap_or(ForwardClientCert::AppendForward),
        audited: world.is_audited(),
        filters: security::of_requests(world, port),
        ..http(world, routes)
    }
}

/// A chain that carries what is no HTTP to one cluster of the application.
pub(super) fn inbound_tcp(
    world: &World<'_>,
    cluster: &str,
    origin: Origin,
    port: DestinationPort,
) -> TcpChain {
    TcpChain {
        audited: world.is_audited(),
        filters: security::of_connections(world, port),
        ..to_cluster(cluster, Pool::default().tcp_idle_timeout, origin)
    }
}

/// A table that sends every host to one cluster.
pub(super) fn table(name: &str, port: u16, cluster: &str, origin: &Origin) -> RouteTable {
    let host = VirtualHost {
        name: format!("inbound|http|{port}").into(),
        domains: ["*"].into_iter().collect(),
        routes: vec![simple_route("default", cluster, origin)],
        origin: origin.clone(),
    };
    RouteTable { name: name.into(), hosts: vec![Arc::new(host)], ignore_port: true, origin: origin.clone() }
}

/// The ports of the application: those of the Sidecar when it lists any, else those of the services that select the workload. Of two that
/// mean the same port of the application, both are listed; the first gives it its cluster.
pub(super) fn ports<'w, 'a>(world: &'w World<'a>, scope: &Scope<'a>) -> Vec<AppPort<'w, 'a>> {
    let mut ports = Vec::new();
    let local = || world.services.iter().filter(|service| is_local(world, service));
    let sidecar = scope.sidecar.filter(|sidecar| !sidecar.spec.ingress.is_empty());
    let Some(sidecar) = sidecar else {
        let pool = scope.sidecar.and_then(|sidecar| sidecar.spec.inbound_connection_pool.as_ref());
        for service in local() {
            ports.extend(service.ports.iter().filter_map(|port| of_service(world, service, port, pool)));
        }
        return ports;
    };
    for (at, ingress) in sidecar.spec.ingress.iter().enumerate() {
        let Some(port) = &ingress.port else { continue };
        let field = format!("spec.ingress[{at}]");
        let name = port.name.as_deref().unwrap_or_default();
        let protocol = port
            .protocol
            .as_deref()
            .and_then(Protocol::parse)
            .unwrap_or_else(|| Protocol::of_port(port.number, name, None, None));
        let Some(target) = endpoint(ingress, port.number) else {
            let text = ingress.default_endpoint.as_deref().unwrap_or_default();
            let message = format!("`{text}` is no address of the application");
            let hint = "write `127.0.0.1:PORT`, `0.0.0.0:PORT` or `unix:///path`";
            let field = format!("{field}.defaultEndpoint");
            world.index.notes.error(sidecar.object, &field, "address", message, hint);
            continue;
        };
        let service = local().find_map(|service| {
            let own = |of: &&Port| target_port(world, service, of) == Some(port.number);
            service.ports.iter().find(own).map(|port| (service, port))
        });
        ports.push(AppPort {
            number: port.number,
            service,
            protocol,
            target,
            ingress: Some(ingress),
            object: sidecar.object,
            field,
            pool: ingress.connection_pool.as_ref().or(sidecar.spec.inbound_connection_pool.as_ref()),
        });
    }
    ports
}

fn endpoint(ingress: &IngressListener, port: u16) -> Option<Address> {
    let Some(text) = ingress.default_endpoint.as_deref().filter(|text| !text.is_empty()) else {
        return Some(Address::Socket(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)));
    };
    Some(match address(text)? {
        // The workload's own address: the application listens on all of them.
        Address::Socket(target) if target.ip().is_unspecified() => {
            Address::Socket(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), target.port()))
        }
        other => other,
    })
}

/// Whether a service selects our workload.
fn is_local(world: &World<'_>, service: &Service<'_>) -> bool {
    let selector = match service.source {
        Source::Kubernetes(spec) => Some(&spec.selector),
        Source::Entry(spec, _) => spec.workload_selector.as_ref().map(|selector| &selector.labels),
    };
    *service.namespace == *world.namespace
        && selector
            .is_some_and(|labels| !labels.is_empty() && is_subset(labels, &world.proxy.workload.labels))
}

fn of_service<'w, 'a>(
    world: &'w World<'a>,
    service: &'w Service<'a>,
    port: &'w Port,
    pool: Option<&'a ConnectionPool>,
) -> Option<AppPort<'w, 'a>> {
    if port.protocol == Protocol::Udp {
        return None;
    }
    let field = service.port_field(port);
    let Some(number) = target_port(world, service, port) else {
        let message = format!(
            "no EndpointSlice or WorkloadEntry says which number the target port of {} has",
            service.host
        );
        let field = format!("{field}.targetPort");
        world.index.notes.warn(service.object, &field, "target-port-unknown", message, "write the number");
        return None;
    };
    let rule = world.rules.find(service).and_then(|rule| rule.policy).map(|(policy, _)| policy);
    Some(AppPort {
        number,
        service: Some((service, port)),
        protocol: port.protocol,
        target: Address::Socket(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), number)),
        ingress: None,
        object: service.object,
        field,
        pool: pool.or_else(|| Effective::new(rule, None, port.number).connection_pool()),
    })
}

/// The port of the application for a port of a service.
fn target_port(world: &World<'_>, service: &Service<'_>, port: &Port) -> Option<u16> {
    match service.source {
        Source::Entry(spec, _) => Some(spec.ports.get(port.index)?.target_port.unwrap_or(port.number)),
        Source::Kubernetes(spec) => {
            let written: &ServicePort = spec.ports.get(port.index)?;
            let slices = world.workloads.slices(&service.namespace, &service.name);
            match &written.target_port {
                None => Some(port.number),
                Some(IntOrString::Number(number)) => Some(*number),
                Some(IntOrString::Name(name)) => slices
                    .iter()
                    .find_map(|slice| slice_port(slice.spec, written.name.as_deref()))
                    .or_else(|| {
                        let mut entries = world.workloads.select(&service.namespace, &spec.selector);
                        entries.find_map(|entry| entry.spec.ports.get(&**name).copied())
                    }),
            }
        }
    }
}

/// Adds the cluster of a port, unless an older one has it.
pub(super) fn add_cluster(world: &World<'_>, port: &AppPort<'_, '_>, mesh: &mut Mesh) {
    let name = port.cluster();
    if mesh.clusters.contains_key(&name) {
        return;
    }
    let declared = Port { number: port.number, name: String::new(), protocol: port.protocol, index: 0 };
    let policy = Effective::of_pool(port.pool);
    let (address, source) = match &port.target {
        Address::Socket(address) => {
            (EndpointAddress::Socket(*address), world.is_captured().then_some(SOURCE))
        }
        Address::Unix(path) => (EndpointAddress::Unix(path.clone()), None),
    };
    let service = match port.service {
        Some((service, of)) => ServiceName {
            host: service.host.clone(),
            name: service.name.clone(),
            namespace: service.namespace.clone(),
            subset: Name::from(""),
            port: of.number,
        },
        None => {
            ServiceName { namespace: world.namespace.into(), port: port.number, ..ServiceName::default() }
        }
    };
    let cluster = Cluster {
        name: name.clone(),
        service,
        protocol: policy.protocol(&declared, &world.settings),
        discovery: Discovery::Endpoints,
        balance: Balance::LeastRequest,
        pool: policy.pool(&world.settings),
        tls: None,
        source_address: source,
        proxy_protocol: None,
        origin: port.origin(),
    };
    let endpoint = Endpoint {
        address,
        weight: 1,
        health: Health::Healthy,
        priority: 0,
        sidecar: false,
        locality: Arc::new(world.node.locality.clone()),
        workload: Arc::clone(&world.node.workload),
        origin: port.origin(),
    };
    mesh.endpoints.insert(name.clone(), Arc::new(EndpointSet { endpoints: vec![endpoint] }));
    mesh.clusters.insert(name, Arc::new(cluster));
}

/// The port that the Proxy names for requests that no service places.
pub(super) fn application<'w, 'a>(world: &World<'a>) -> Option<AppPort<'w, 'a>> {
    let text = world.proxy.inbound.application.as_deref().filter(|text| !text.is_empty())?;
    let field = "spec.inbound.application";
    let Some(target) = address(text) else {
        let message = format!("`{text}` is no address of an application");
        world.index.notes.error(
            world.object,
            field,
            "address",
            message,
            "write `127.0.0.1:PORT` or `unix:/path`",
        );
        return None;
    };
    let number = if let Address::Socket(address) = &target { address.port() } else { 0 };
    Some(AppPort {
        number,
        service: None,
        protocol: Protocol::Detect,
        target,
        ingress: None,
        object: world.object,
        field: field.to_owned(),
        pool: None,
    })
}
