//! What one proxy sees: the services and VirtualServices that are exported to it, narrowed by its Sidecar.

use rustc_hash::FxHashMap;

use super::World;
use super::host::{covers, full};
use super::index::Written;
use super::service::exported;
use super::settings::DOMAIN;
use super::virtual_services::Bound;
use super::workloads::is_subset;
use crate::config::resources::istio::sidecar::{EgressListener, OutboundMode, Sidecar};

/// What a proxy sees, listener by listener.
#[derive(Debug)]
pub(super) struct Scope<'a> {
    /// The Sidecar that holds for it.
    pub(super) sidecar: Option<Written<'a, Sidecar>>,
    /// Its egress listeners; without a Sidecar one that sees all.
    pub(super) views: Vec<View<'a>>,
    /// What happens to unknown destinations.
    pub(super) policy: OutboundMode,
}

/// What one egress listener sees. The places are those in [`World::services`] and [`World::bound`].
#[derive(Debug)]
pub(super) struct View<'a> {
    /// The listener; `None` without a Sidecar.
    pub(super) listener: Option<&'a EgressListener>,
    /// Its path in the Sidecar.
    pub(super) field: String,
    /// The services, one for each host, in the order of hosts.
    pub(super) services: Vec<usize>,
    /// The VirtualServices bound to sidecars, the older first.
    pub(super) rules: Vec<usize>,
}

impl<'a> Scope<'a> {
    /// The scope of the proxy that `world` is for.
    pub(super) fn new(world: &World<'a>) -> Self {
        let sidecar = sidecar(world);
        let services: Vec<usize> = (0..world.services.len())
            .filter(|at| world.services[*at].is_visible(&world.settings, world.namespace))
            .collect();
        let rules: Vec<usize> = (0..world.bound.len())
            .filter(|at| world.bound[*at].is_for_sidecars() && is_visible(&world.bound[*at], world))
            .collect();
        let policy = sidecar
            .and_then(|sidecar| sidecar.spec.outbound_traffic_policy.as_ref())
            .map(|policy| policy.mode)
            .or(world.proxy.outbound.policy)
            .unwrap_or_else(|| world.settings.outbound());
        let egress = sidecar.map_or(&[][..], |sidecar| &sidecar.spec.egress);
        let views = if egress.is_empty() {
            vec![View {
                listener: None,
                field: String::new(),
                services: unique(world, &services, None),
                rules,
            }]
        } else {
            let owner = sidecar.map_or(world.namespace, |sidecar| sidecar.namespace());
            let view = |(at, listener): (usize, &'a EgressListener)| {
                view(world, sidecar, (at, listener), owner, (&services, &rules))
            };
            egress.iter().enumerate().map(view).collect()
        };
        Self { sidecar, views, policy }
    }

    /// The view of the listener that catches everything without a listener of its own.
    pub(super) fn catch_all(&self) -> Option<&View<'a>> {
        self.views.iter().find(|view| view.listener.is_none_or(|listener| listener.port.is_none()))
    }
}

fn is_visible(bound: &Bound<'_>, world: &World<'_>) -> bool {
    let default = world.settings.virtual_service_exports();
    exported(&bound.spec.export_to, default, &bound.object.key.namespace, world.namespace)
}

/// A Sidecar that selects the workload, else that of its namespace, else that of the root namespace. The oldest of several.
fn sidecar<'a>(world: &World<'a>) -> Option<Written<'a, Sidecar>> {
    if world.is_gateway() {
        return None;
    }
    let root = world.settings.root();
    let of =
        |namespace: &'a str| world.index.sidecars.iter().filter(move |one| **one.namespace() == *namespace);
    let labels = |one: &Written<'a, Sidecar>| {
        one.spec
            .workload_selector
            .as_ref()
            .map(|selector| &selector.labels)
            .filter(|labels| !labels.is_empty())
    };
    of(world.namespace)
        .find(|one| labels(one).is_some_and(|wanted| is_subset(wanted, &world.proxy.workload.labels)))
        .or_else(|| of(world.namespace).find(|one| labels(one).is_none()))
        .or_else(|| of(root).find(|one| labels(one).is_none()))
        .copied()
}

/// One service for each host: that of the preferred namespace, else the one of Kubernetes, else the oldest.
fn unique(world: &World<'_>, services: &[usize], preferred: Option<&str>) -> Vec<usize> {
    let rank = |at: usize| {
        let service = &world.services[at];
        (preferred.is_some_and(|name| *service.namespace == *name), service.is_kubernetes())
    };
    let mut chosen: FxHashMap<&str, usize> = FxHashMap::default();
    for &at in services {
        chosen
            .entry(&world.services[at].host)
            .and_modify(|current| {
                if rank(at) > rank(*current) {
                    *current = at;
                }
            })
            .or_insert(at);
    }
    let mut chosen: Vec<usize> = chosen.into_values().collect();
    chosen.sort_unstable_by_key(|at| &world.services[*at].host);
    chosen
}

/// The `namespace/host` entries of an egress listener.
struct Imports<'a> {
    by_namespace: FxHashMap<&'a str, Vec<String>>,
    everywhere: Vec<String>,
}

impl<'a> Imports<'a> {
    fn new(world: &World<'a>, listener: &'a EgressListener, owner: &'a str, report: &dyn Fn(usize)) -> Self {
        let mut imports = Self { by_namespace: FxHashMap::default(), everywhere: Vec::new() };
        for (at, entry) in listener.hosts.iter().enumerate() {
            let Some((namespace, host)) = entry.split_once('/') else {
                report(at);
                continue;
            };
            let host = full(host, owner, DOMAIN);
            match namespace {
                "~" => {}
                "*" => imports.everywhere.push(host),
                "." => imports.by_namespace.entry(world.namespace).or_default().push(host),
                name => imports.by_namespace.entry(name).or_default().push(host),
            }
        }
        imports
    }

    fn takes(&self, namespace: &str, host: &str, matches: impl Fn(&str, &str) -> bool) -> bool {
        let own = self.by_namespace.get(namespace).into_iter().flatten();
        own.chain(&self.everywhere).any(|pattern| matches(pattern, host))
    }
}

fn view<'a>(
    world: &World<'a>,
    sidecar: Option<Written<'a, Sidecar>>,
    (at, listener): (usize, &'a EgressListener),
    owner: &'a str,
    (services, rules): (&[usize], &[usize]),
) -> View<'a> {
    let field = format!("spec.egress[{at}]");
    let report = |entry: usize| {
        let Some(sidecar) = sidecar else { return };
        let field = format!("{field}.hosts[{entry}]");
        let message = format!("`{}` names no namespace, so it selects nothing", listener.hosts[entry]);
        world.index.notes.error(
            sidecar.object,
            &field,
            "sidecar-host",
            message,
            "write `NAMESPACE/HOST`, as in `./*`",
        );
    };
    let imports = Imports::new(world, listener, owner, &report);
    let seen: Vec<usize> = services
        .iter()
        .copied()
        .filter(|at| {
            let service = &world.services[*at];
            imports.takes(&service.namespace, &service.host, covers)
        })
        .collect();
    // A VirtualService is imported when any of its hosts and any imported one overlap.
    let rules = rules.iter().copied().filter(|at| {
        let bound = &world.bound[*at];
        let either = |pattern: &str, host: &str| covers(pattern, host) || covers(host, pattern);
        bound.hosts.iter().any(|host| imports.takes(&bound.object.key.namespace, host, either))
    });
    View {
        listener: Some(listener),
        services: unique(world, &seen, Some(world.namespace)),
        rules: rules.collect(),
        field,
    }
}

/// The place of a service by host, of those that the proxy may see: in the preferred namespace first.
pub(super) fn find_service(world: &World<'_>, host: &str, preferred: &str) -> Option<usize> {
    // The last of equals is chosen, so the younger come first.
    let known = world.by_host.find(host)?.iter().rev().copied();
    known.filter(|at| world.services[*at].is_visible(&world.settings, world.namespace)).max_by_key(|at| {
        let service = &world.services[*at];
        (*service.namespace == *preferred, service.is_kubernetes())
    })
}
