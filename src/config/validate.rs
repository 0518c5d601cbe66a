//! Checks each object on its own: what the types cannot say. Errors reject that object alone.

mod access;
mod destination_rule;
mod gateway;
mod kubernetes;
mod own;
mod parts;
mod proxy;
mod security;
mod service_entry;
#[cfg(test)]
mod tests;
mod virtual_service;
mod virtual_service_action;

use super::decode::Report;
use super::resources::{Resource, Spec};

/// Says everything that is wrong with what an object says.
pub fn validate(resource: &Resource, report: &mut Report<'_>) {
    match &resource.spec {
        Spec::VirtualService(spec) => virtual_service::check(spec, report),
        Spec::DestinationRule(spec) => destination_rule::check(spec, report),
        Spec::ServiceEntry(spec) => service_entry::check(spec, report),
        Spec::WorkloadEntry(spec) => service_entry::check_workload(spec, "spec", report),
        Spec::Sidecar(spec) => gateway::check_sidecar(spec, report),
        Spec::Gateway(spec) => gateway::check(spec, report),
        Spec::Service(spec) => kubernetes::check_service(spec, report),
        Spec::EndpointSlice(spec) => kubernetes::check_slice(spec, report),
        Spec::Proxy(spec) => proxy::check(spec, report),
        Spec::PeerAuthentication(spec) => security::check_peer(spec, report),
        Spec::AuthorizationPolicy(spec) => security::check_authorization(resource, spec, report),
        Spec::RequestAuthentication(spec) => security::check_request(spec, report),
        Spec::AccessPolicy(spec) => access::check(resource, spec, report),
        Spec::AuditPolicy(spec) => own::check_audit(spec, report),
        Spec::Telemetry(_)
        | Spec::ConfigMap(_)
        | Spec::MeshConfig(_)
        | Spec::Namespace
        | Spec::Closed(_)
        | Spec::Untyped(_) => {}
    }
}
