//! The resources by kind, the older first, and what is found on the way.

use std::cell::RefCell;
use std::sync::Arc;

use rustc_hash::FxHashSet;

use crate::config::finding::{Finding, Severity};
use crate::config::resources::istio::destination_rule::DestinationRule;
use crate::config::resources::istio::gateway::Gateway;
use crate::config::resources::istio::mesh_config::MeshConfig;
use crate::config::resources::istio::security::{
    AuthorizationPolicy, PeerAuthentication, RequestAuthentication,
};
use crate::config::resources::istio::service_entry::{ServiceEntry, WorkloadEntry};
use crate::config::resources::istio::sidecar::Sidecar;
use crate::config::resources::istio::telemetry::Telemetry;
use crate::config::resources::istio::virtual_service::VirtualService;
use crate::config::resources::kubernetes::{EndpointSlice, Service};
use crate::config::resources::own::access_policy::AccessPolicy;
use crate::config::resources::own::audit_policy::AuditPolicy;
use crate::config::resources::proxy::Proxy;
use crate::config::resources::{Closed, Resource, Spec};
use crate::mesh::{Name, Origin, name};

/// An object and what it says.
#[derive(Debug)]
pub(super) struct Written<'a, T> {
    /// The object.
    pub(super) object: &'a Resource,
    /// What it says.
    pub(super) spec: &'a T,
}

impl<T> Clone for Written<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Written<'_, T> {}

impl<'a, T> Written<'a, T> {
    /// The namespace that it is written in.
    pub(super) fn namespace(&self) -> &'a Name {
        &self.object.key.namespace
    }
}

/// The resources by kind. Within a kind the older comes first, then the order of namespace and name: never that of files.
#[derive(Debug, Default)]
pub(super) struct Index<'a> {
    pub(super) virtual_services: Vec<Written<'a, VirtualService>>,
    pub(super) destination_rules: Vec<Written<'a, DestinationRule>>,
    pub(super) service_entries: Vec<Written<'a, ServiceEntry>>,
    pub(super) workload_entries: Vec<Written<'a, WorkloadEntry>>,
    pub(super) sidecars: Vec<Written<'a, Sidecar>>,
    pub(super) gateways: Vec<Written<'a, Gateway>>,
    pub(super) telemetries: Vec<Written<'a, Telemetry>>,
    pub(super) peer_authentications: Vec<Written<'a, PeerAuthentication>>,
    pub(super) request_authentications: Vec<Written<'a, RequestAuthentication>>,
    pub(super) authorization_policies: Vec<Written<'a, AuthorizationPolicy>>,
    pub(super) access_policies: Vec<Written<'a, AccessPolicy>>,
    pub(super) audit_policies: Vec<Written<'a, AuditPolicy>>,
    /// Security objects that do not hold, and what they would have been about.
    pub(super) closed: Vec<Written<'a, Closed>>,
    pub(super) services: Vec<Written<'a, Service>>,
    pub(super) slices: Vec<Written<'a, EndpointSlice>>,
    pub(super) proxies: Vec<Written<'a, Proxy>>,
    pub(super) mesh_configs: Vec<Written<'a, MeshConfig>>,
    /// What was found.
    pub(super) notes: Notes,
}

impl<'a> Index<'a> {
    /// Sorts the resources out.
    pub(super) fn new(resources: &'a [Arc<Resource>]) -> Self {
        let mut order: Vec<&'a Resource> = resources.iter().map(AsRef::as_ref).collect();
        order.sort_by(|one, other| age(one).cmp(&age(other)));
        let mut index = Self::default();
        for object in order {
            match &object.spec {
                Spec::VirtualService(spec) => index.virtual_services.push(Written { object, spec }),
                Spec::DestinationRule(spec) => index.destination_rules.push(Written { object, spec }),
                Spec::ServiceEntry(spec) => index.service_entries.push(Written { object, spec }),
                Spec::WorkloadEntry(spec) => index.workload_entries.push(Written { object, spec }),
                Spec::Sidecar(spec) => index.sidecars.push(Written { object, spec }),
                Spec::Gateway(spec) => index.gateways.push(Written { object, spec }),
                Spec::Telemetry(spec) => index.telemetries.push(Written { object, spec }),
                Spec::PeerAuthentication(spec) => index.peer_authentications.push(Written { object, spec }),
                Spec::RequestAuthentication(spec) => {
                    index.request_authentications.push(Written { object, spec });
                }
                Spec::AuthorizationPolicy(spec) => {
                    index.authorization_policies.push(Written { object, spec });
                }
                Spec::AccessPolicy(spec) => index.access_policies.push(Written { object, spec }),
                Spec::AuditPolicy(spec) => index.audit_policies.push(Written { object, spec }),
                Spec::Closed(spec) => index.closed.push(Written { object, spec }),
                Spec::Service(spec) => index.services.push(Written { object, spec }),
                Spec::EndpointSlice(spec) => index.slices.push(Written { object, spec }),
                Spec::Proxy(spec) => index.proxies.push(Written { object, spec }),
                Spec::MeshConfig(spec) => index.mesh_configs.push(Written { object, spec }),
                _ => {}
            }
        }
        index
    }
}

// An object without a time counts as the oldest, as in Istio.
fn age(object: &Resource) -> impl Ord + '_ {
    (object.meta.creation_timestamp, &object.key.namespace, &object.key.name, object.key.kind)
}

/// Collects findings; each is kept once.
#[derive(Debug, Default)]
pub(super) struct Notes(RefCell<Vec<Finding>>);

impl Notes {
    /// Something that does not do what it says.
    pub(super) fn warn(
        &self,
        object: &Resource,
        field: &str,
        code: &'static str,
        message: String,
        hint: &str,
    ) {
        self.push(Severity::Warning, object, field, code, message, hint);
    }

    /// Something that is good to know.
    pub(super) fn remark(&self, object: &Resource, field: &str, code: &'static str, message: String) {
        self.push(Severity::Info, object, field, code, message, "");
    }

    /// Something that cannot work.
    pub(super) fn error(
        &self,
        object: &Resource,
        field: &str,
        code: &'static str,
        message: String,
        hint: &str,
    ) {
        self.push(Severity::Error, object, field, code, message, hint);
    }

    fn push(
        &self,
        severity: Severity,
        object: &Resource,
        field: &str,
        code: &'static str,
        message: String,
        hint: &str,
    ) {
        self.0.borrow_mut().push(Finding {
            severity,
            code,
            object: Some(object.key.clone()),
            field: field.to_owned(),
            place: Some(object.place(field)),
            message,
            hint: hint.to_owned(),
        });
    }

    /// Everything that was found, in the order of files and lines.
    pub(super) fn take(&self) -> Vec<Finding> {
        sorted(self.0.take())
    }
}

/// Each finding once, in the order of files and lines.
pub(super) fn sorted(mut findings: Vec<Finding>) -> Vec<Finding> {
    let mut seen = FxHashSet::default();
    findings.retain(|finding| {
        seen.insert((finding.code, finding.object.clone(), finding.field.clone(), finding.message.clone()))
    });
    findings.sort_by(Finding::order);
    findings
}

/// The origin of a part that was written as `field` of `object`.
pub(super) fn origin(object: &Resource, field: impl AsRef<str>) -> Origin {
    Origin::written(Arc::clone(&object.source), name(field.as_ref()))
}
