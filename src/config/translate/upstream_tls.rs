//! TLS towards services: what a DestinationRule asks for, else mutual TLS towards those that have a sidecar.

use std::sync::Arc;

use super::World;
use super::policy::Effective;
use super::service::{Port, Service, Source};
use crate::config::resources::istio::destination_rule::{ClientTls, ClientTlsMode};
use crate::config::resources::istio::service_entry::{Location, ServiceEntry};
use crate::mesh::{Certificate, Endpoint, Name, Roots, UpstreamTls, UpstreamTlsWhen};

/// How connections to one port and subset of a service begin. `None`: as plain text.
pub(super) fn of_cluster(
    world: &World<'_>,
    (service, port): (&Service<'_>, &Port),
    subset: &str,
    policy: &Effective<'_>,
    endpoints: &[Endpoint],
) -> Option<Arc<UpstreamTls>> {
    let sni = || server_name(port.number, subset, &service.host);
    let Some(written) = policy.tls() else {
        let automatic = world.settings.auto_mtls() && world.proxy.identity.is_some() && !is_external(service);
        return automatic.then(|| {
            let names = proven_names(world, service, endpoints);
            Arc::new(UpstreamTls::mesh(UpstreamTlsWhen::EndpointHasSidecar, sni(), names))
        });
    };
    let own_sni = written.sni.as_deref().filter(|sni| !sni.is_empty()).map(Name::from);
    let names: Vec<Name> = written.subject_alt_names.iter().map(|name| name.as_str().into()).collect();
    let tls = match written.mode.unwrap_or_default() {
        ClientTlsMode::Disable => return None,
        ClientTlsMode::IstioMutual => {
            let names = if names.is_empty() { proven_names(world, service, endpoints) } else { names };
            UpstreamTls::mesh(UpstreamTlsWhen::Always, own_sni.unwrap_or_else(sni), names)
        }
        ClientTlsMode::Simple => originate(written, None, names, own_sni),
        ClientTlsMode::Mutual => {
            let certificate = match &written.credential_name {
                Some(credential) => Certificate::Credential(credential.as_str().into()),
                None => Certificate::Files {
                    certificate: written.client_certificate.as_deref().unwrap_or_default().into(),
                    private_key: written.private_key.as_deref().unwrap_or_default().into(),
                },
            };
            originate(written, Some(certificate), names, own_sni)
        }
    };
    Some(Arc::new(tls))
}

fn originate(
    written: &ClientTls,
    certificate: Option<Certificate>,
    names: Vec<Name>,
    sni: Option<Name>,
) -> UpstreamTls {
    let crl = written.ca_crl.as_deref().filter(|path| !path.is_empty()).map(Into::into);
    let roots = match (&written.ca_certificates, &written.credential_name) {
        _ if written.insecure_skip_verify == Some(true) => Roots::Unverified,
        (_, Some(credential)) => Roots::Credential(credential.as_str().into()),
        (Some(file), None) if !file.is_empty() && file != "system" => {
            Roots::File { bundle: file.into(), crl }
        }
        _ => Roots::System,
    };
    UpstreamTls { when: UpstreamTlsWhen::Always, certificate, roots, names, sni, mesh: false }
}

fn is_external(service: &Service<'_>) -> bool {
    match service.source {
        Source::Entry(ServiceEntry { location, .. }, _) => {
            location.unwrap_or_default() == Location::MeshExternal
        }
        Source::Kubernetes(_) => false,
    }
}

/// The SNI between sidecars: the cluster's name in the form of a DNS SRV record.
fn server_name(port: u16, subset: &str, host: &str) -> Name {
    format!("outbound_.{port}_.{subset}_.{host}").into()
}

/// Whom a service runs as, where all of its endpoints say so; else anybody of the trust domain.
fn proven_names(world: &World<'_>, service: &Service<'_>, endpoints: &[Endpoint]) -> Vec<Name> {
    let mut names: Vec<Name> = Vec::new();
    if let Source::Entry(entry, _) = service.source {
        names.extend(entry.subject_alt_names.iter().map(|name| name.as_str().into()));
    }
    if !names.is_empty() {
        return names;
    }
    for endpoint in endpoints {
        let workload = &endpoint.workload;
        if workload.service_account.is_empty() {
            return Vec::new();
        }
        let domain = &world.node.trust_domain;
        names.push(
            format!("spiffe://{domain}/ns/{}/sa/{}", workload.namespace, workload.service_account).into(),
        );
    }
    names.sort_unstable();
    names.dedup();
    names
}
