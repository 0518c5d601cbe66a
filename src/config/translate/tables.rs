//! Route tables of outbound traffic: which hosts a listener serves, and under which domains.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use filter_transform::Reply;
use rustc_hash::{FxHashMap, FxHashSet};

use super::World;
use super::clusters::{self, PASSTHROUGH};
use super::host::{self, HostMap, is_wildcard, with_port};
use super::index::origin;
use super::reuse::part;
use super::routes::{Client, respond, routes, simple_route};
use super::scope::View;
use super::service::{Port, Service};
use super::settings::DOMAIN;
use super::virtual_services::MESH;
use crate::config::resources::istio::sidecar::OutboundMode;
use crate::mesh::{Domains, Name, Origin, RouteTable, VirtualHost};

/// The hosts of one egress listener, ready to be put into tables.
#[derive(Debug)]
pub(super) struct Hosts<'w, 'a> {
    world: &'w World<'a>,
    view: &'w View<'a>,
    by_host: HostMap<Vec<usize>>,
    services: FxHashMap<&'w str, &'w Service<'a>>,
    /// Hosts of VirtualServices that are no services, by port.
    loose: BTreeMap<u16, BTreeSet<String>>,
}

type OldHosts<'a> = FxHashMap<&'a str, &'a Arc<VirtualHost>>;

/// One virtual host to be.
struct Item<'w, 'a> {
    host: &'w str,
    port: u16,
    service: Option<(&'w Service<'a>, &'w Port)>,
}

impl<'w, 'a> Hosts<'w, 'a> {
    /// The hosts of a view.
    pub(super) fn new(world: &'w World<'a>, view: &'w View<'a>) -> Self {
        let mut by_host: HostMap<Vec<usize>> = HostMap::default();
        for at in &view.rules {
            for host in &world.bound[*at].hosts {
                let rules = by_host.entry(host);
                if rules.last() != Some(at) {
                    rules.push(*at);
                }
            }
        }
        let services: FxHashMap<_, _> =
            view.services.iter().map(|at| (&*world.services[*at].host, &world.services[*at])).collect();
        let loose = loose(world, view, &services);
        Self { world, view, by_host, services, loose }
    }

    /// The VirtualServices of a host: those of exactly this name, else those of the most specific wildcard.
    pub(super) fn rules(&self, host: &str) -> &[usize] {
        self.by_host.find(host).map_or(&[], Vec::as_slice)
    }

    /// The services, the older first.
    pub(super) fn services(&self) -> Vec<&'w Service<'a>> {
        let mut order = self.view.services.clone();
        order.sort_unstable();
        order.into_iter().map(|at| &self.world.services[at]).collect()
    }

    /// The table of a port: requests are told apart by host alone, since the port is known.
    pub(super) fn of_port(&self, name: &str, port: u16, catch_all: Option<OutboundMode>) -> RouteTable {
        let mut used = Once::default();
        let mut hosts = Vec::new();
        let old = self.old_hosts(name);
        for item in self.items(|number| number == port) {
            let domains = self.domains(&item).into_iter().map(|domain| with_port(&domain, None));
            hosts.extend(self.virtual_host(&item, used.take(domains.collect()), &old));
            let without_port = |domain: &str| vec![with_port(domain, None)];
            hosts.extend(self.pods(&item, &mut used, without_port));
        }
        hosts.extend(catch_all.map(|mode| Arc::new(self::catch_all(mode))));
        hosts.shrink_to_fit();
        RouteTable { name: name.into(), hosts, ignore_port: true, origin: Origin::BUILT_IN }
    }

    /// The table of one service at its own address: whatever host is asked for.
    pub(super) fn of_service(&self, service: &'w Service<'a>, port: &'w Port) -> RouteTable {
        let item = Item { host: &service.host, port: port.number, service: Some((service, port)) };
        let name = with_port(&service.host, Some(port.number));
        let old = self.old_hosts(&name);
        let hosts = self.virtual_host(&item, ["*"].into_iter().collect(), &old).into_iter().collect();
        RouteTable { name: name.into(), hosts, ignore_port: true, origin: Origin::BUILT_IN }
    }

    /// One table of all ports, told apart by the port in the authority. Without a port it is 80 when the host has it, else its lowest.
    pub(super) fn of_all_ports(&self, name: &str) -> RouteTable {
        let items = self.items(|_| true);
        let mut default: FxHashMap<&str, u16> = FxHashMap::default();
        for item in &items {
            let current = default.entry(item.host).or_insert(item.port);
            if item.port == 80 || (*current != 80 && item.port < *current) {
                *current = item.port;
            }
        }
        let mut used = Once::default();
        let mut hosts = Vec::new();
        let old = self.old_hosts(name);
        for item in &items {
            let without = default.get(item.host) == Some(&item.port);
            let written = |domain: &str| {
                let bare = without.then(|| with_port(domain, None));
                bare.into_iter().chain([with_port(domain, Some(item.port))]).collect()
            };
            let domains = self.domains(item).iter().flat_map(|domain| written(domain)).collect();
            hosts.extend(self.virtual_host(item, used.take(domains), &old));
            hosts.extend(self.pods(item, &mut used, written));
        }
        hosts.shrink_to_fit();
        RouteTable { name: name.into(), hosts, ignore_port: false, origin: Origin::BUILT_IN }
    }

    /// Everything that may speak HTTP at these ports, in the order of hosts and ports.
    fn items(&self, wanted: impl Fn(u16) -> bool) -> Vec<Item<'_, 'a>> {
        let mut items = Vec::new();
        for at in &self.view.services {
            let service = &self.world.services[*at];
            let ports =
                service.ports.iter().filter(|port| port.protocol.may_be_http() && wanted(port.number));
            items.extend(ports.map(|port| Item {
                host: &service.host,
                port: port.number,
                service: Some((service, port)),
            }));
        }
        for (port, hosts) in self.loose.iter().filter(|(port, _)| wanted(**port)) {
            items.extend(hosts.iter().map(|host| Item { host, port: *port, service: None }));
        }
        items.sort_by(|one, other| (one.host, one.port).cmp(&(other.host, other.port)));
        items
    }

    /// The domains without port.
    fn domains(&self, item: &Item<'_, 'a>) -> Vec<String> {
        let (names, own) = match item.service {
            Some(_) => host::domains(item.host, self.world.namespace, DOMAIN),
            None => (vec![item.host.to_owned()], 1),
        };
        let mut domains: Vec<_> = names
            .into_iter()
            .enumerate()
            .filter(|(at, name)| *at < own || !self.services.contains_key(name.as_str()))
            .map(|(_, name)| name)
            .collect();
        if let Some((service, _)) = item.service {
            if service.is_headless() {
                let pods: Vec<_> = domains.iter().map(|name| format!("*.{name}")).collect();
                domains.extend(pods);
            }
            let single = service.addresses.iter().filter(|net| net.prefix_len() == net.max_prefix_len());
            domains.extend(single.map(|net| net.addr().to_string()));
        }
        domains
    }

    /// The hosts of single pods. Where a VirtualService speaks for the Service, its rules hold for all of them.
    fn pods(
        &self,
        item: &Item<'_, 'a>,
        used: &mut Once,
        written: impl Fn(&str) -> Vec<String>,
    ) -> Vec<Arc<VirtualHost>> {
        let Some((service, port)) = item.service.filter(|_| self.rules(item.host).is_empty()) else {
            return Vec::new();
        };
        let pods = clusters::pods(self.world, service);
        let hosts = pods.into_iter().map(|hostname| {
            let host = format!("{hostname}.{}", service.host);
            let domains = self.domains(item).into_iter().filter(|domain| !domain.starts_with("*."));
            let domains = domains.flat_map(|domain| written(&format!("{hostname}.{domain}"))).collect();
            let origin = origin(service.object, service.port_field(port));
            let cluster = clusters::name(self.world, port.number, "", &host);
            Arc::new(VirtualHost {
                name: with_port(&host, Some(port.number)).into(),
                domains: used.take(domains),
                routes: vec![simple_route("default", cluster, &origin)],
                origin,
            })
        });
        hosts.filter(|host| !host.domains.is_empty()).collect()
    }

    /// The hosts of a table in the model in force, by name.
    fn old_hosts(&self, table: &str) -> OldHosts<'a> {
        let table = self.world.previous.and_then(|previous| previous.routes.get(table));
        let hosts = table.into_iter().flat_map(|table| &table.hosts);
        hosts.map(|host| (&*host.name, host)).collect()
    }

    fn virtual_host(
        &self,
        item: &Item<'_, 'a>,
        domains: Domains,
        old: &OldHosts<'a>,
    ) -> Option<Arc<VirtualHost>> {
        if domains.is_empty() {
            return None;
        }
        let bound: Vec<_> = self.rules(item.host).iter().map(|at| &self.world.bound[*at]).collect();
        let client = Client { port: item.port, gateway: MESH, tls: false };
        let mut found = routes(self.world, &bound, client, item.host);
        let origin = match (item.service, bound.first()) {
            (_, Some(first)) if !found.is_empty() => origin(first.object, "spec.hosts"),
            (Some((service, port)), _) => origin(service.object, service.port_field(port)),
            (None, _) => Origin::BUILT_IN,
        };
        if found.is_empty() {
            let (service, port) = item.service?;
            let cluster = clusters::name(self.world, port.number, "", &service.host);
            found.push(simple_route("default", cluster, &origin));
        }
        found.shrink_to_fit();
        let name: Name = with_port(item.host, Some(item.port)).into();
        let old = old.get(&*name).copied();
        Some(part(VirtualHost { name, domains, routes: found, origin }, old))
    }
}

/// The hosts of VirtualServices that are no services: at the ports of a wildcard service that covers them, else at those of the services
/// that the same VirtualService is for, else at port 80.
fn loose<'w>(
    world: &World<'_>,
    view: &View<'_>,
    services: &FxHashMap<&'w str, &'w Service<'_>>,
) -> BTreeMap<u16, BTreeSet<String>> {
    let wild: Vec<_> = services.values().filter(|service| is_wildcard(&service.host)).collect();
    let http = |service: &Service<'_>| -> Vec<u16> {
        service.ports.iter().filter(|port| port.protocol.may_be_http()).map(|port| port.number).collect()
    };
    let mut loose: BTreeMap<u16, BTreeSet<String>> = BTreeMap::new();
    for bound in view.rules.iter().map(|at| &world.bound[*at]).filter(|bound| !bound.http.is_empty()) {
        let of_services: BTreeSet<u16> = bound
            .hosts
            .iter()
            .filter_map(|host| services.get(host.as_str()))
            .flat_map(|one| http(one))
            .collect();
        for host in bound.hosts.iter().filter(|host| !services.contains_key(host.as_str())) {
            // A wildcard that covers services speaks for those, not for itself.
            if is_wildcard(host) && services.keys().any(|service| host::covers(host, service)) {
                continue;
            }
            let mut ports: BTreeSet<u16> =
                wild.iter().filter(|one| host::covers(&one.host, host)).flat_map(|one| http(one)).collect();
            if ports.is_empty() {
                ports.clone_from(&of_services);
            }
            if ports.is_empty() {
                ports.insert(80);
            }
            for port in ports {
                loose.entry(port).or_default().insert(host.clone());
            }
        }
    }
    loose
}

/// What becomes of requests to hosts that nobody declared, as Istio names it.
fn catch_all(mode: OutboundMode) -> VirtualHost {
    let (name, route) = if mode == OutboundMode::RegistryOnly {
        let reply = Reply::Direct { status: 502, body: Vec::new() };
        ("block_all", respond("block_all", reply, &Origin::BUILT_IN))
    } else {
        ("allow_any", simple_route("allow_any", PASSTHROUGH, &Origin::BUILT_IN))
    };
    VirtualHost {
        name: name.into(),
        domains: ["*"].into_iter().collect(),
        routes: vec![route],
        origin: Origin::BUILT_IN,
    }
}

/// The domains of a table, each given out once.
#[derive(Default)]
struct Once(FxHashSet<String>);

impl Once {
    fn take(&mut self, domains: Vec<String>) -> Domains {
        domains.into_iter().filter(|domain| self.0.insert(domain.clone())).collect()
    }
}
