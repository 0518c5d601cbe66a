//! The endpoints of services: EndpointSlices, WorkloadEntries by label, and those that a ServiceEntry lists itself.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::index::{Index, Notes, Written, origin};
use super::service::{Port, Resolution, Service, Source};
use crate::config::resources::Resource;
use crate::config::resources::istio::service_entry::{ServiceEntry, WorkloadEntry};
use crate::config::resources::kubernetes::{self, EndpointSlice, ServicePort, SliceEndpoint};
use crate::config::resources::scalar::IntOrString;
use crate::mesh::{self, Endpoint, EndpointAddress, Health, Labels, Locality, Name, Workload};

/// The workloads that services can select, found by label, service and address.
#[derive(Debug, Default)]
pub(super) struct Workloads<'a> {
    entries: Vec<Written<'a, WorkloadEntry>>,
    by_label: FxHashMap<(&'a str, &'a str, &'a str), Vec<usize>>,
    by_address: FxHashMap<(&'a str, &'a str), usize>,
    slices: FxHashMap<(&'a str, &'a str), Vec<Written<'a, EndpointSlice>>>,
    cluster: Name,
    /// Where endpoints are of which nothing else is known.
    nowhere: Arc<Locality>,
}

impl<'a> Workloads<'a> {
    /// Indexes the workloads of a cluster of this name.
    pub(super) fn new(index: &Index<'a>, cluster: &str) -> Self {
        let mut workloads = Self { cluster: cluster.into(), ..Self::default() };
        for (at, entry) in index.workload_entries.iter().enumerate() {
            let namespace: &str = entry.namespace();
            for (label, value) in entry.spec.labels.iter() {
                workloads.by_label.entry((namespace, label, value)).or_default().push(at);
            }
            if let Some(address) = &entry.spec.address {
                workloads.by_address.entry((namespace, address)).or_insert(at);
            }
        }
        workloads.entries.clone_from(&index.workload_entries);
        for slice in &index.slices {
            if let Some(service) = slice.object.meta.labels.get("kubernetes.io/service-name") {
                workloads.slices.entry((slice.namespace(), service)).or_default().push(*slice);
            }
        }
        workloads
    }

    /// The endpoints of a port of a service, each with the labels that subsets select by.
    pub(super) fn endpoints(&self, service: &Service<'a>, port: &Port, notes: &Notes) -> Vec<Endpoint> {
        match service.source {
            Source::Kubernetes(spec) if spec.service_type == Some(kubernetes::ServiceType::ExternalName) => {
                let name = spec.external_name.as_deref().unwrap_or_default();
                vec![self.named(service, name, port.number, "spec.externalName")]
            }
            Source::Kubernetes(spec) => {
                let Some(written) = spec.ports.get(port.index) else { return Vec::new() };
                let mut endpoints = self.sliced(service, spec, written, None);
                endpoints.extend(self.select(&service.namespace, &spec.selector).filter_map(|entry| {
                    let number = entry_port(entry.spec, written);
                    self.entry(entry.object, entry.spec, "spec", number, Some(notes))
                }));
                endpoints
            }
            Source::Entry(spec, at) => self.listed(service, spec, at, port, notes),
        }
    }

    /// The WorkloadEntries of a namespace that carry all these labels; none for an empty selector.
    pub(super) fn select<'s>(
        &'s self,
        namespace: &'s str,
        selector: &'s Labels,
    ) -> impl Iterator<Item = Written<'a, WorkloadEntry>> + 's {
        let rarest = selector
            .iter()
            .map(|(label, value)| self.by_label.get(&(namespace, label, value)))
            .min_by_key(|found| found.map_or(0, Vec::len))
            .flatten();
        rarest
            .into_iter()
            .flatten()
            .filter_map(|at| self.entries.get(*at).copied())
            .filter(move |entry| is_subset(selector, &entry.spec.labels))
    }

    /// The slices of a Kubernetes Service.
    pub(super) fn slices<'s>(
        &'s self,
        namespace: &'s str,
        service: &'s str,
    ) -> &'s [Written<'a, EndpointSlice>] {
        self.slices.get(&(namespace, service)).map_or(&[], Vec::as_slice)
    }

    /// The names that the slices of a Service give to its pods, `web-0` for one.
    pub(super) fn hostnames(&self, service: &Service<'a>) -> BTreeSet<&'a str> {
        let slices = self.slices(&service.namespace, &service.name).iter();
        let endpoints = slices.flat_map(|slice| &slice.spec.endpoints);
        endpoints.filter_map(|one| one.hostname.as_deref()).filter(|name| !name.is_empty()).collect()
    }

    /// The endpoints of a port of a Service that are the pod of this name.
    pub(super) fn pod(&self, service: &Service<'a>, port: &Port, hostname: &str) -> Vec<Endpoint> {
        let Source::Kubernetes(spec) = service.source else { return Vec::new() };
        let Some(written) = spec.ports.get(port.index) else { return Vec::new() };
        self.sliced(service, spec, written, Some(hostname))
    }

    fn sliced(
        &self,
        service: &Service<'a>,
        spec: &kubernetes::Service,
        port: &ServicePort,
        hostname: Option<&str>,
    ) -> Vec<Endpoint> {
        let mut endpoints = Vec::new();
        for slice in self.slices(&service.namespace, &service.name) {
            let Some(number) = slice_port(slice.spec, port.name.as_deref()) else { continue };
            for (at, endpoint) in slice.spec.endpoints.iter().enumerate() {
                if hostname.is_some() && endpoint.hostname.as_deref() != hostname {
                    continue;
                }
                let Some(health) = health(endpoint, spec.publish_not_ready_addresses == Some(true)) else {
                    continue;
                };
                for address in &endpoint.addresses {
                    let mut new = self.slice_endpoint(slice, at, endpoint, address, number, health);
                    self.share(&mut new, endpoints.last());
                    endpoints.push(new);
                }
            }
        }
        endpoints
    }

    /// Holds once what an endpoint has in common with the one before it.
    fn share(&self, new: &mut Endpoint, last: Option<&Endpoint>) {
        if let Some(last) = last.filter(|last| last.workload == new.workload) {
            new.workload = Arc::clone(&last.workload);
        }
        let known = [Some(&self.nowhere), last.map(|last| &last.locality)];
        if let Some(known) = known.into_iter().flatten().find(|known| **known == new.locality) {
            new.locality = Arc::clone(known);
        }
    }

    fn slice_endpoint(
        &self,
        slice: &Written<'a, EndpointSlice>,
        at: usize,
        endpoint: &SliceEndpoint,
        address: &str,
        port: u16,
        health: Health,
    ) -> Endpoint {
        let namespace = slice.namespace();
        // A slice names no labels of its pods. A WorkloadEntry of the same address does, or the slice's own labels stand for them.
        let known = self.by_address.get(&(namespace, address)).and_then(|at| self.entries.get(*at));
        let labels = known.map_or(&slice.object.meta.labels, |entry| &entry.spec.labels);
        let pod = endpoint.target_ref.as_ref().and_then(|target| target.name.as_deref());
        let account = known.and_then(|entry| entry.spec.service_account.as_deref());
        let zone = endpoint.zone.as_deref().unwrap_or_default();
        let region = endpoint.deprecated_topology.get("topology.kubernetes.io/region");
        Endpoint {
            address: parse_address(address, port),
            weight: 1,
            health,
            priority: 0,
            locality: Arc::new(Locality {
                region: mesh::name(region.unwrap_or_default()),
                zone: mesh::name(zone),
                subzone: mesh::name(""),
            }),
            workload: Arc::new(describe(pod.unwrap_or_default(), namespace, labels, account, &self.cluster)),
            origin: origin(slice.object, format!("endpoints[{at}]")),
        }
    }

    fn listed(
        &self,
        service: &Service<'a>,
        spec: &'a ServiceEntry,
        at: usize,
        port: &Port,
        notes: &Notes,
    ) -> Vec<Endpoint> {
        let target = spec.ports.get(port.index).and_then(|port| port.target_port).unwrap_or(port.number);
        let number = |entry: &WorkloadEntry| entry.ports.get(&port.name).copied().unwrap_or(target);
        if let Some(selector) = &spec.workload_selector {
            return self
                .select(&service.namespace, &selector.labels)
                .filter_map(|entry| {
                    self.entry(entry.object, entry.spec, "spec", number(entry.spec), Some(notes))
                })
                .collect();
        }
        let listed: Vec<_> = spec.endpoints.iter().enumerate().collect();
        if listed.is_empty() && matches!(service.resolution, Resolution::Dns | Resolution::DnsRoundRobin) {
            return vec![self.named(service, &service.host, target, &format!("spec.hosts[{at}]"))];
        }
        listed
            .into_iter()
            .filter_map(|(at, entry)| {
                self.entry(
                    service.object,
                    entry,
                    &format!("spec.endpoints[{at}]"),
                    number(entry),
                    Some(notes),
                )
            })
            .collect()
    }

    fn named(&self, service: &Service<'a>, name: &str, port: u16, field: &str) -> Endpoint {
        Endpoint {
            address: parse_address(name, port),
            weight: 1,
            health: Health::Healthy,
            priority: 0,
            locality: Arc::default(),
            workload: Arc::new(describe("", &service.namespace, &Labels::default(), None, &self.cluster)),
            origin: origin(service.object, field),
        }
    }

    /// An endpoint that a WorkloadEntry describes, written as `field` of `object`.
    fn entry(
        &self,
        object: &Resource,
        entry: &WorkloadEntry,
        field: &str,
        port: u16,
        notes: Option<&Notes>,
    ) -> Option<Endpoint> {
        let Some(address) = entry.address.as_deref().filter(|address| !address.is_empty()) else {
            if let Some(notes) = notes {
                let message = "has no address, so nobody can call it".to_owned();
                notes.warn(
                    object,
                    field,
                    "endpoint-without-address",
                    message,
                    "write `address: IP` or a DNS name",
                );
            }
            return None;
        };
        let mut places = entry.locality.as_deref().unwrap_or_default().splitn(3, '/');
        let mut place = || Name::from(places.next().unwrap_or_default());
        let locality = Locality { region: place(), zone: place(), subzone: place() };
        let account = entry.service_account.as_deref();
        let name = if field == "spec" { &*object.key.name } else { "" };
        Some(Endpoint {
            address: parse_address(address, port),
            weight: entry.weight.unwrap_or(1).max(1),
            health: Health::Healthy,
            priority: 0,
            locality: Arc::new(locality),
            workload: Arc::new(describe(name, &object.key.namespace, &entry.labels, account, &self.cluster)),
            origin: origin(object, format!("{field}.address")),
        })
    }
}

/// Whether everything that `selector` asks for is among `labels`.
pub(super) fn is_subset(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(label, value)| labels.get(label) == Some(value))
}

/// What metrics say of a workload. The canonical names follow Istio: their own labels, then `app.kubernetes.io/name` and `app`, then the
/// name of the workload; revision likewise, `latest` at the end.
pub(super) fn describe(
    name: &str,
    namespace: &Name,
    labels: &Labels,
    service_account: Option<&str>,
    cluster: &Name,
) -> Workload {
    let first = |keys: &[&str]| keys.iter().find_map(|key| labels.get(key));
    let service = first(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]);
    let revision = first(&["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]);
    Workload {
        name: mesh::name(name),
        namespace: namespace.clone(),
        service_account: mesh::name(service_account.unwrap_or_default()),
        canonical_service: mesh::name(service.unwrap_or(name)),
        canonical_revision: mesh::name(revision.unwrap_or("latest")),
        cluster: cluster.clone(),
        labels: labels.clone(),
    }
}

/// The port of the pods for a port of their Service, as the slices tell it.
pub(super) fn slice_port(slice: &EndpointSlice, name: Option<&str>) -> Option<u16> {
    let name = name.unwrap_or_default();
    slice.ports.iter().find(|port| port.name.as_deref().unwrap_or_default() == name)?.port
}

fn entry_port(entry: &WorkloadEntry, port: &ServicePort) -> u16 {
    let by_name = |name: &str| entry.ports.get(name).copied();
    port.name
        .as_deref()
        .and_then(by_name)
        .or_else(|| match port.target_port.as_ref()? {
            IntOrString::Number(number) => Some(*number),
            IntOrString::Name(name) => by_name(name),
        })
        .unwrap_or(port.port)
}

/// `None` for an endpoint that takes no traffic at all.
fn health(endpoint: &SliceEndpoint, publish_not_ready: bool) -> Option<Health> {
    let Some(conditions) = &endpoint.conditions else { return Some(Health::Healthy) };
    if publish_not_ready || conditions.ready != Some(false) {
        return Some(Health::Healthy);
    }
    (conditions.terminating == Some(true) && conditions.serving == Some(true)).then_some(Health::Draining)
}

fn parse_address(address: &str, port: u16) -> EndpointAddress {
    if let Some(path) = address.strip_prefix("unix://").or_else(|| address.strip_prefix("unix:")) {
        return EndpointAddress::Unix(path.into());
    }
    match address.parse::<IpAddr>() {
        Ok(ip) => EndpointAddress::Socket(SocketAddr::new(ip, port)),
        Err(_) => EndpointAddress::Name(address.to_ascii_lowercase().into(), port),
    }
}
