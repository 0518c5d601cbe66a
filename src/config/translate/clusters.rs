//! The clusters that a proxy calls: one for each port and subset of each service that it sees.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::World;
use super::host::is_wildcard;
use super::index::origin;
use super::policy::Effective;
use super::reuse::part;
use super::rules::{Merged, NamedSubset};
use super::scope::{Scope, find_service};
use super::service::{Port, Protocol, Resolution, Service};
use super::upstream_tls;
use super::workloads::is_subset;
use crate::config::resources::istio::common::Destination;
use crate::mesh::{
    Balance, Cluster, Discovery, Endpoint, EndpointAddress, EndpointSet, Labels, Mesh, Name, Origin, Pool,
    ServiceName, UpstreamProtocol,
};

/// Where captured connections to unknown destinations go.
pub(super) const PASSTHROUGH: &str = "PassthroughCluster";
/// Where captured connections to undeclared ports of the application go.
pub(super) const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";
/// The cluster without endpoints.
pub(super) const BLACK_HOLE: &str = "BlackHoleCluster";

/// Adds the clusters of everything that the proxy sees, and of everything that its routes name.
pub(super) fn add(world: &World<'_>, scope: &Scope<'_>, mesh: &mut Mesh) {
    let mut wanted: FxHashSet<usize> =
        scope.views.iter().flat_map(|view| view.services.iter().copied()).collect();
    let taken: FxHashSet<&str> = wanted.iter().map(|at| &*world.services[*at].host).collect();
    let named: Vec<usize> = destinations(world, scope)
        .into_iter()
        .filter_map(|(host, namespace)| {
            find_service(world, &host, namespace).filter(|at| !taken.contains(&*world.services[*at].host))
        })
        .collect();
    wanted.extend(named);
    let provider = super::custom::asked(world).service;
    wanted.extend(provider.filter(|at| !taken.contains(&*world.services[*at].host)));
    for at in wanted {
        add_service(world, &world.services[at], mesh);
    }
}

/// The hosts that routes send requests to and that no listener imports, with the namespace that names them.
fn destinations<'a>(world: &World<'a>, scope: &Scope<'_>) -> FxHashSet<(String, &'a str)> {
    let imported: FxHashSet<&str> =
        scope.views.iter().flat_map(|view| &view.services).map(|at| &*world.services[*at].host).collect();
    let mut hosts = FxHashSet::default();
    let mut add = |destination: &Destination, namespace: &'a str| {
        let host = super::host::full(&destination.host, namespace, super::settings::DOMAIN);
        if !imported.contains(host.as_str()) {
            hosts.insert((host, namespace));
        }
    };
    for at in scope.views.iter().flat_map(|view| &view.rules) {
        let bound = &world.bound[*at];
        for rule in &bound.http {
            rule.rule.route.iter().for_each(|one| add(&one.destination, &rule.object.key.namespace));
        }
        let (tcp, tls) =
            (bound.spec.tcp.iter().map(|rule| &rule.route), bound.spec.tls.iter().map(|rule| &rule.route));
        for route in tcp.chain(tls).flatten() {
            add(&route.destination, &bound.object.key.namespace);
        }
    }
    hosts
}

fn add_service<'a>(world: &World<'a>, service: &Service<'a>, mesh: &mut Mesh) {
    let rule = world.rules.find(service);
    for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
        let endpoints = world.workloads.endpoints(service, port, &world.index.notes);
        add_cluster(world, (service, port), &service.host, rule, None, &endpoints, mesh);
        for hostname in pods(world, service) {
            let own = world.workloads.pod(service, port, hostname);
            let host = format!("{hostname}.{}", service.host);
            add_cluster(world, (service, port), &host, rule, None, &own, mesh);
        }
        for subset in rule.into_iter().flat_map(|rule| &rule.subsets) {
            let labels = &subset.subset.labels;
            let chosen: Vec<Endpoint> =
                endpoints.iter().filter(|one| is_subset(labels, &one.workload.labels)).cloned().collect();
            add_cluster(world, (service, port), &service.host, rule, Some(subset), &chosen, mesh);
        }
    }
}

/// The pods of a headless Service that are called by names of their own, as Kubernetes' DNS has them. Captured connections to one keep its
/// address, so it is addressed traffic alone that needs them.
pub(super) fn pods<'a>(world: &World<'a>, service: &Service<'a>) -> BTreeSet<&'a str> {
    let needed = service.is_headless() && !world.is_captured() && !world.is_gateway();
    if needed { world.workloads.hostnames(service) } else { BTreeSet::new() }
}

fn add_cluster(
    world: &World<'_>,
    (service, port): (&Service<'_>, &Port),
    host: &str,
    rule: Option<&Merged<'_>>,
    subset: Option<&NamedSubset<'_>>,
    endpoints: &[Endpoint],
    mesh: &mut Mesh,
) {
    let subset_name = subset.map_or("", |subset| &subset.subset.name);
    let name = name(world, port.number, subset_name, host);
    let policy = rule.and_then(|rule| rule.policy).map(|(policy, _)| policy);
    let policy =
        Effective::new(policy, subset.and_then(|subset| subset.subset.traffic_policy.as_ref()), port.number);
    let mut balance = policy.balance();
    let discovery = discovery(world, service, balance, endpoints);
    match discovery {
        Discovery::OriginalDestination => balance = Balance::Passthrough,
        _ if balance == Balance::Passthrough => balance = Balance::LeastRequest,
        _ => {}
    }
    if let (Some(subset), [], true) = (subset, endpoints, discovery != Discovery::OriginalDestination) {
        note_empty(world, service, subset);
    }
    let origin = match subset {
        Some(subset) => origin(subset.object, format!("spec.subsets[{}]", subset.index)),
        None => origin(service.object, service.port_field(port)),
    };
    if discovery != Discovery::OriginalDestination {
        let set = EndpointSet { endpoints: resolvable(world, service, port, endpoints) };
        let old = world.previous.and_then(|previous| previous.endpoints.get(&name));
        mesh.endpoints.insert(name.clone(), part(set, old));
    }
    let old = world.previous.and_then(|previous| previous.clusters.get(&name));
    let cluster = Cluster {
        name: name.clone(),
        service: ServiceName {
            host: service.host.clone(),
            name: service.name.clone(),
            namespace: service.namespace.clone(),
            subset: crate::mesh::name(subset_name),
            port: port.number,
        },
        protocol: policy.protocol(port, &world.settings),
        discovery,
        balance,
        pool: policy.pool(&world.settings),
        tls: upstream_tls::of_cluster(world, (service, port), subset_name, &policy, endpoints),
        source_address: None,
        proxy_protocol: policy.proxy_protocol(),
        origin,
    };
    mesh.clusters.insert(name, part(cluster, old));
}

/// The name of an outbound cluster, Istio's form.
pub(super) fn name(world: &World<'_>, port: u16, subset: &str, host: &str) -> Name {
    let text = format!("outbound|{port}|{subset}|{host}");
    let mut names = world.cluster_names.borrow_mut();
    if let Some(known) = names.get(text.as_str()) {
        return Name::clone(known);
    }
    let old = world.previous.and_then(|previous| previous.clusters.get_key_value(text.as_str()));
    let name = old.map_or_else(|| text.into(), |(name, _)| Name::clone(name));
    names.insert(Name::clone(&name));
    name
}

fn discovery(
    world: &World<'_>,
    service: &Service<'_>,
    balance: Balance,
    endpoints: &[Endpoint],
) -> Discovery {
    let refresh = world.settings.dns_refresh();
    let by_name = endpoints.iter().any(|one| matches!(one.address, EndpointAddress::Name(..)));
    match service.resolution {
        _ if world.is_captured() && balance == Balance::Passthrough => Discovery::OriginalDestination,
        Resolution::Original if world.is_captured() => Discovery::OriginalDestination,
        // Whoever calls us on purpose has no other destination, so the name that is asked for is looked up.
        Resolution::Original if !service.is_headless() => Discovery::LogicalDns { refresh },
        Resolution::DnsRoundRobin if by_name => Discovery::LogicalDns { refresh },
        Resolution::Dns | Resolution::DnsRoundRobin | Resolution::Listed | Resolution::Original
            if by_name =>
        {
            Discovery::StrictDns { refresh }
        }
        _ => Discovery::Endpoints,
    }
}

fn resolvable(
    world: &World<'_>,
    service: &Service<'_>,
    port: &Port,
    endpoints: &[Endpoint],
) -> Vec<Endpoint> {
    let unnamed =
        service.resolution == Resolution::Original && !service.is_headless() && endpoints.is_empty();
    if !unnamed || is_wildcard(&service.host) {
        return endpoints.to_vec();
    }
    vec![Endpoint {
        address: EndpointAddress::Name(service.host.clone(), port.number),
        weight: 1,
        health: crate::mesh::Health::Healthy,
        priority: 0,
        sidecar: false,
        locality: Arc::default(),
        workload: Arc::new(super::workloads::describe(
            "",
            &service.namespace,
            &Labels::default(),
            None,
            &world.proxy.cluster.as_str().into(),
        )),
        origin: origin(service.object, service.port_field(port)),
    }]
}

fn note_empty(world: &World<'_>, service: &Service<'_>, subset: &NamedSubset<'_>) {
    let labels: Vec<String> =
        subset.subset.labels.iter().map(|(label, value)| format!("{label}: {value}")).collect();
    let field = format!("spec.subsets[{}]", subset.index);
    let message = format!(
        "subset `{}` has no endpoint: none of {} carries `{}`, so requests to it are answered 503 (UH)",
        subset.subset.name,
        service.host,
        labels.join(", ")
    );
    let hint = "give the workloads these labels, or leave the subset out";
    world.index.notes.warn(subset.object, &field, "subset-empty", message, hint);
}

/// The clusters of captured traffic that nobody declared.
pub(super) fn add_passthrough(mesh: &mut Mesh, inbound_source: Option<std::net::IpAddr>) {
    for (name, source) in [(PASSTHROUGH, None), (INBOUND_PASSTHROUGH, inbound_source)] {
        let cluster = Cluster {
            name: name.into(),
            service: ServiceName { host: name.into(), name: name.into(), ..ServiceName::default() },
            protocol: UpstreamProtocol::Downstream,
            discovery: Discovery::OriginalDestination,
            balance: Balance::Passthrough,
            pool: Pool { idle_timeout: std::time::Duration::from_secs(300), ..Pool::default() },
            tls: None,
            source_address: source,
            proxy_protocol: None,
            origin: Origin::BUILT_IN,
        };
        mesh.clusters.insert(name.into(), Arc::new(cluster));
    }
    let cluster = Cluster {
        name: BLACK_HOLE.into(),
        service: ServiceName { host: BLACK_HOLE.into(), name: BLACK_HOLE.into(), ..ServiceName::default() },
        protocol: UpstreamProtocol::Http1,
        discovery: Discovery::Endpoints,
        balance: Balance::LeastRequest,
        pool: Pool::default(),
        tls: None,
        source_address: None,
        proxy_protocol: None,
        origin: Origin::BUILT_IN,
    };
    mesh.clusters.insert(BLACK_HOLE.into(), Arc::new(cluster));
    mesh.endpoints.insert(BLACK_HOLE.into(), Arc::default());
}
