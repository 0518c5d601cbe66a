//! What metrics say of the two ends of a connection, interned once for each cluster and endpoint.

use crate::mesh::{Direction, Node, Workload};
use crate::snapshot::{Cluster, Endpoint};
use crate::telemetry::flags::ResponseFlags;
use crate::telemetry::metrics::{
    ConnectionLabels, Part, Protocol, Registry, Reporter, SecurityPolicy, Service, Workload as Labels,
};
use filter_api::{ConnectionFacts, Reason};
use rustc_hash::FxHashMap;
use std::cell::RefCell;
use std::sync::Arc;

/// The interned labels of one worker.
#[derive(Debug)]
pub(crate) struct LabelCache {
    registry: Arc<Registry>,
    own: RefCell<Part>,
    nobody: Part,
    no_service: Part,
    services: RefCell<FxHashMap<u32, Service_>>,
    endpoints: RefCell<FxHashMap<(u32, u32), Part>>,
    /// Callers by the identity that they have proven.
    callers: RefCell<FxHashMap<Arc<str>, Part>>,
}

/// Callers whose labels are kept; beyond, they are made anew.
const MAX_CALLERS: usize = 4096;

#[derive(Debug)]
struct Service_ {
    part: Part,
    direction: Direction,
}

impl LabelCache {
    pub(crate) fn new(registry: &Arc<Registry>, node: &Node) -> Self {
        Self {
            registry: registry.clone(),
            own: RefCell::new(workload(registry, &node.workload, &node.trust_domain)),
            nobody: registry.workload(&Labels::default()),
            no_service: registry.service(&Service::default()),
            services: RefCell::default(),
            endpoints: RefCell::default(),
            callers: RefCell::default(),
        }
    }

    /// Lets go of what is not part of the new snapshot.
    pub(crate) fn retain(&self, node: &Node, mut keep: impl FnMut(u32) -> bool) {
        *self.own.borrow_mut() = workload(&self.registry, &node.workload, &node.trust_domain);
        self.services.borrow_mut().retain(|cluster, _| keep(*cluster));
        // Workloads may have been relabelled: made again when they are next used.
        self.endpoints.borrow_mut().clear();
    }

    /// Calls `with` with the labels of a connection towards `endpoint` of `cluster`.
    pub(crate) fn connection<T>(
        &self,
        cluster: Option<&Cluster>,
        endpoint: Option<&Endpoint>,
        protocol: Protocol,
        flags: ResponseFlags,
        downstream: &ConnectionFacts,
        with: impl FnOnce(ConnectionLabels<'_>) -> T,
    ) -> T {
        let own = self.own.borrow();
        let mut services = self.services.borrow_mut();
        let mut endpoints = self.endpoints.borrow_mut();
        let service = cluster.map(|cluster| {
            services.entry(cluster.state.id).or_insert_with(|| {
                let name = &cluster.mesh.service;
                let service = Service { host: &name.host, name: &name.name, namespace: &name.namespace };
                let inbound = cluster.mesh.name.starts_with("inbound|")
                    || &*cluster.mesh.name == "InboundPassthroughCluster";
                let direction = if inbound { Direction::Inbound } else { Direction::Outbound };
                Service_ { part: self.registry.service(&service), direction }
            })
        });
        let inbound = service.as_ref().is_some_and(|service| service.direction == Direction::Inbound);
        let peer = match (cluster, endpoint) {
            (Some(cluster), Some(endpoint)) if !inbound => {
                let key = (cluster.state.id, endpoint.id);
                endpoints.entry(key).or_insert_with(|| workload(&self.registry, &endpoint.mesh.workload, ""))
            }
            _ => &self.nobody,
        };
        let mut callers = self.callers.borrow_mut();
        let principal = downstream.tls.as_ref().and_then(|tls| tls.peer.as_ref()?.principal.as_ref());
        let caller = match principal {
            Some(principal) if inbound => {
                if callers.len() >= MAX_CALLERS && !callers.contains_key(principal.shared()) {
                    callers.clear();
                }
                callers.entry(principal.shared().clone()).or_insert_with(|| {
                    let uri = format!("spiffe://{principal}");
                    let namespace = principal.namespace();
                    self.registry.workload(&Labels { principal: &uri, namespace, ..Labels::default() })
                })
            }
            _ => &self.nobody,
        };
        let (reporter, source, destination) = match inbound {
            true => (Reporter::Destination, caller, &*own),
            false => (Reporter::Source, &*own, peer),
        };
        with(ConnectionLabels {
            reporter,
            source,
            destination,
            service: service.map_or(&self.no_service, |service| &service.part),
            protocol,
            flags,
            security: match (inbound, principal) {
                (true, Some(_)) => SecurityPolicy::MutualTls,
                (true, None) => SecurityPolicy::None,
                (false, _) => SecurityPolicy::Unknown,
            },
        })
    }
}

fn workload(registry: &Registry, workload: &Workload, _trust_domain: &str) -> Part {
    let label = |name: &str| workload.labels.get(name).unwrap_or_default();
    registry.workload(&Labels {
        name: &workload.name,
        namespace: &workload.namespace,
        principal: "",
        app: label("app"),
        version: label("version"),
        cluster: &workload.cluster,
        canonical_service: &workload.canonical_service,
        canonical_revision: &workload.canonical_revision,
    })
}

/// The flag that log and metrics show for a reason.
pub(crate) fn flag(reason: Reason) -> ResponseFlags {
    match reason {
        Reason::NoRoute | Reason::Loop | Reason::ConnectionRefused | Reason::Misdirected => {
            ResponseFlags::NO_ROUTE
        }
        Reason::NoCluster => ResponseFlags::NO_CLUSTER,
        Reason::NoHealthyUpstream => ResponseFlags::NO_HEALTHY_UPSTREAM,
        Reason::UpstreamOverflow => ResponseFlags::UPSTREAM_OVERFLOW,
        Reason::ConnectFailure | Reason::ConnectTimeout => ResponseFlags::UPSTREAM_CONNECTION_FAILURE,
        Reason::UpstreamClosed => ResponseFlags::UPSTREAM_CONNECTION_TERMINATION,
        Reason::UpstreamReset => ResponseFlags::UPSTREAM_REMOTE_RESET,
        Reason::UpstreamProtocol => ResponseFlags::UPSTREAM_PROTOCOL_ERROR,
        Reason::DnsFailure => ResponseFlags::DNS_FAILURE,
        Reason::RequestTimeout => ResponseFlags::UPSTREAM_REQUEST_TIMEOUT,
        Reason::StreamIdle => ResponseFlags::STREAM_IDLE_TIMEOUT,
        Reason::DownstreamTimeout => ResponseFlags::DURATION_TIMEOUT,
        Reason::DownstreamClosed => ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION,
        Reason::DownstreamReset => ResponseFlags::DOWNSTREAM_REMOTE_RESET,
        Reason::DownstreamProtocol
        | Reason::DownstreamMessage
        | Reason::DownstreamTls
        | Reason::BadPath
        | Reason::BadAuthority
        | Reason::BadFraming
        | Reason::HeadersTooLarge
        | Reason::UriTooLong => ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR,
        Reason::Overload | Reason::AuditUnavailable => ResponseFlags::OVERLOAD,
        Reason::ExternalDenied | Reason::ExternalFailed => ResponseFlags::UNAUTHORIZED_EXTERNAL,
        Reason::BodyTooLarge
        | Reason::UpgradeRefused
        | Reason::AccessDenied
        | Reason::AccessRevoked
        | Reason::BadRewrite
        | Reason::Internal => ResponseFlags::NONE,
    }
}
