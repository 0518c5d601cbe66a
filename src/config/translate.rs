//! Turns what people wrote into the model that one proxy runs: Istio's control plane as a pure function.
//!
//! The same objects give the same model, whatever their order. What Istio would drop in silence is a finding here.

pub(in crate::config) mod access;
mod audit;
mod authentication;
pub(in crate::config) mod authorization;
mod captured;
mod check;
mod clusters;
mod conflicts;
pub(in crate::config) mod custom;
mod delegate;
mod egress;
mod explicit;
mod gateway;
mod host;
mod inbound;
mod index;
mod listeners;
mod mutual_tls;
mod policy;
mod reuse;
mod routes;
mod rules;
mod scope;
mod security;
mod service;
mod settings;
mod tables;
mod tcp;
mod telemetry;
mod upstream_tls;
mod virtual_services;
mod workloads;

#[cfg(test)]
mod tests;

use std::cell::{OnceCell, RefCell};
use std::sync::{Arc, LazyLock};

use rustc_hash::FxHashSet;

pub use check::check;
pub(in crate::config) use routes::action_faults;

use self::host::HostMap;
use self::index::Index;
use self::mutual_tls::OfWorkload;
use self::rules::Rules;
use self::scope::Scope;
use self::service::Service;
use self::settings::Settings;
use self::virtual_services::Bound;
use self::workloads::Workloads;
use super::finding::Finding;
use super::resources::proxy::{Interception, Proxy, Role};
use super::resources::{Resource, Spec};
use crate::mesh::{Locality, Mesh, Name, Node, forget_names};

/// What is translated, and for whom.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Everything that is loaded, in any order.
    pub resources: &'a [Arc<Resource>],
    /// The Proxy to translate for. An object of another kind counts as a Proxy that says nothing.
    pub proxy: &'a Resource,
}

/// What a proxy runs, and what is wrong with it.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// What it runs.
    pub mesh: Mesh,
    /// What objects have against each other, in the order of files and lines.
    pub findings: Vec<Finding>,
}

/// Translates the objects for one proxy. Parts that equal those of `previous` are those of `previous`: the same pointers.
#[must_use]
pub fn translate(input: &Input<'_>, previous: Option<&Mesh>) -> Output {
    let world = World::new(input, previous);
    let scope = Scope::new(&world);
    let mut mesh = Mesh {
        node: Arc::new(world.node.clone()),
        telemetry: Arc::new(telemetry::settings(&world)),
        ..Mesh::default()
    };
    clusters::add(&world, &scope, &mut mesh);
    if world.is_gateway() {
        gateway::add_servers(&world, &mut mesh);
    } else {
        let taken = egress::add_listeners(&world, &scope, &mut mesh);
        if world.is_captured() {
            clusters::add_passthrough(&mut mesh, Some(inbound::SOURCE));
            captured::add_outbound(&world, &scope, &taken, &mut mesh);
            inbound::add_captured(&world, &scope, &mut mesh);
        } else {
            explicit::add_outbound(&world, &scope, &mut mesh);
            inbound::add_explicit(&world, &scope, &mut mesh);
        }
    }
    conflicts::report(&world);
    if let Some(previous) = previous {
        reuse::reuse(&mut mesh, previous);
    }
    forget_names();
    Output { mesh, findings: world.index.notes.take() }
}

/// Everything that parts of the translation look up.
#[derive(Debug)]
struct World<'a> {
    index: Index<'a>,
    /// The model in force: a part that it has as well is not held twice, not even for a moment.
    previous: Option<&'a Mesh>,
    settings: Settings<'a>,
    /// The Proxy, and the object that holds it.
    proxy: &'a Proxy,
    object: &'a Resource,
    namespace: &'a str,
    node: Node,
    services: Vec<Service<'a>>,
    by_host: HostMap<Vec<usize>>,
    /// The names of clusters that were given out: routes and clusters hold the same ones.
    cluster_names: RefCell<FxHashSet<Name>>,
    workloads: Workloads<'a>,
    bound: Vec<Bound<'a>>,
    rules: Rules<'a>,
    /// What callers of our workload have to speak.
    callers: OfWorkload<'a>,
    /// The policies that hold for the workload.
    policies: Arc<Vec<filter_authorization::Policy>>,
    /// Whom those of them ask that are CUSTOM.
    asked: OnceCell<custom::Asked>,
    /// The access policies that hold for it.
    access: Arc<Vec<filter_authorization::access::Policy>>,
    /// What is audited.
    audits: audit::Audits,
}

impl<'a> World<'a> {
    fn new(input: &Input<'a>, previous: Option<&'a Mesh>) -> Self {
        static DEFAULT: LazyLock<Proxy> = LazyLock::new(Proxy::default);
        let proxy = if let Spec::Proxy(proxy) = &input.proxy.spec { proxy } else { &*DEFAULT };
        let namespace: &'a str = &input.proxy.key.namespace;
        let index = Index::new(input.resources);
        let settings = Settings::new(proxy, &index);
        let services = service::services(&index);
        let mut by_host: HostMap<Vec<usize>> = HostMap::default();
        for (at, service) in services.iter().enumerate() {
            by_host.entry(&service.host).push(at);
        }
        let workloads = Workloads::new(&index, &settings, &proxy.cluster);
        let bound = virtual_services::bind(&index, &settings);
        let rules = Rules::new(&index, &settings, namespace, proxy);
        let callers = workloads.mutual_tls(namespace, &proxy.workload.labels);
        let policies = authorization::policies(&index, &settings, proxy, namespace);
        let access = access::policies(&index, &settings, proxy, namespace);
        let audits = audit::audits(&index, &settings, proxy, namespace);
        let node = node(proxy, &settings, &index, input.proxy);
        Self {
            index,
            previous,
            settings,
            proxy,
            object: input.proxy,
            namespace,
            node,
            services,
            by_host,
            cluster_names: RefCell::default(),
            workloads,
            bound,
            rules,
            callers,
            policies,
            asked: OnceCell::new(),
            access,
            audits,
        }
    }

    fn is_audited(&self) -> bool {
        self.audits.audit.is_some()
    }

    fn is_gateway(&self) -> bool {
        self.proxy.role == Role::Gateway
    }

    /// Whether the original destination of connections is known.
    fn is_captured(&self) -> bool {
        !self.is_gateway() && self.proxy.interception != Interception::Explicit
    }
}

fn node(proxy: &Proxy, settings: &Settings<'_>, index: &Index<'_>, object: &Resource) -> Node {
    let trust_domain = settings.trust_domain(proxy);
    let written = &proxy.workload;
    let name = if written.name.is_empty() { &*object.key.name } else { &written.name };
    let account = written.service_account.as_deref().unwrap_or("default");
    let cluster = proxy.cluster.as_str().into();
    let mut workload =
        workloads::describe(name, &object.key.namespace, &written.labels, Some(account), &cluster);
    if let Some(revision) = written.revision.as_deref().filter(|revision| !revision.is_empty()) {
        workload.canonical_revision = revision.into();
    }
    Node {
        namespace: Arc::clone(&object.key.namespace),
        name: Arc::clone(&object.key.name),
        workload: Arc::new(workload),
        trust_domain: trust_domain.into(),
        tls: settings.mesh_tls(&index.notes, object),
        locality: Locality {
            region: proxy.locality.region.as_str().into(),
            zone: proxy.locality.zone.as_str().into(),
            subzone: proxy.locality.subzone.as_str().into(),
        },
        network: proxy.network.as_str().into(),
    }
}
