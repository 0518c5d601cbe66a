//! Objects that contradict each other, whichever proxy asks.

use rustc_hash::{FxHashMap, FxHashSet};

use super::World;
use super::host::{HostMap, full, is_wildcard};
use super::index::Written;
use super::service::exported;
use super::settings::DOMAIN;
use super::virtual_services::{Bound, MESH};
use super::workloads::is_subset;
use crate::config::resources::istio::common::Destination;
use crate::config::resources::istio::destination_rule::DestinationRule;
use crate::config::resources::proxy::Role;
use crate::config::resources::{Kind, Resource};

/// Reports them.
pub(super) fn report(world: &World<'_>) {
    destination_rules(world);
    virtual_service_hosts(world);
    destinations(world);
    gateways(world);
    service_hosts(world);
}

/// Several DestinationRules for one host are united, which their authors may not expect.
fn destination_rules(world: &World<'_>) {
    let mut by_host: FxHashMap<(&str, String, bool), Written<'_, DestinationRule>> = FxHashMap::default();
    let mut policies: FxHashMap<(&str, String, bool), &Resource> = FxHashMap::default();
    for rule in &world.index.destination_rules {
        let key = (
            &**rule.namespace(),
            full(&rule.spec.host, rule.namespace(), DOMAIN),
            rule.spec.workload_selector.is_some(),
        );
        let holder = policies.get(&key).copied();
        if let Some(first) = by_host.get(&key) {
            let policy = match (holder, &rule.spec.traffic_policy) {
                (Some(holder), Some(_)) => {
                    format!("its `trafficPolicy` is ignored, that of {} holds", holder.key)
                }
                (Some(holder), None) => format!("its subsets get the `trafficPolicy` of {}", holder.key),
                (None, _) => "its `trafficPolicy` and subsets hold for both".to_owned(),
            };
            let place = first.object.place("spec.host");
            let message =
                format!("{} is also for {} ({place}): both are united, {policy}", first.object.key, key.1);
            let hint = "write one DestinationRule for each host";
            world.index.notes.warn(rule.object, "spec.host", "destination-rules-merged", message, hint);
        }
        if holder.is_none() && rule.spec.traffic_policy.is_some() {
            policies.insert(key.clone(), rule.object);
        }
        by_host.entry(key).or_insert(*rule);
    }
}

/// Several VirtualServices for one host and gateway are merged; one for a host of another namespace takes its clients over.
fn virtual_service_hosts(world: &World<'_>) {
    let mut first: FxHashMap<(&str, &str), &Bound<'_>> = FxHashMap::default();
    for bound in &world.bound {
        for (at, host) in bound.hosts.iter().enumerate() {
            let field = format!("spec.hosts[{at}]");
            for gateway in &bound.gateways {
                let Some(other) = first.get(&(host.as_str(), gateway.as_str())) else {
                    first.insert((host, gateway), bound);
                    continue;
                };
                if std::ptr::eq(other.object, bound.object) || !meet(world, other, bound) {
                    continue;
                }
                let place = other.object.place("spec.hosts");
                let message = format!(
                    "{} is also for {host} ({place}): its rules come first, then those written here",
                    other.object.key
                );
                let hint = "put the rules of a host into one VirtualService";
                world.index.notes.warn(bound.object, &field, "virtual-services-merged", message, hint);
            }
            foreign_host(world, bound, host, &field);
        }
    }
}

/// Whether clients of the namespace of one see the other.
fn meet(world: &World<'_>, one: &Bound<'_>, other: &Bound<'_>) -> bool {
    let default = world.settings.virtual_service_exports();
    let seen = |of: &Bound<'_>, by: &Bound<'_>| {
        exported(&of.spec.export_to, default, &of.object.key.namespace, &by.object.key.namespace)
    };
    one.object.key.namespace == other.object.key.namespace || seen(one, other) || seen(other, one)
}

fn foreign_host(world: &World<'_>, bound: &Bound<'_>, host: &str, field: &str) {
    if !bound.is_for_sidecars() || is_wildcard(host) {
        return;
    }
    let Some(owners) = world.by_host.exact(host) else { return };
    let owns = |at: &usize| world.services[*at].namespace == bound.object.key.namespace;
    if owners.is_empty() || owners.iter().any(owns) {
        return;
    }
    let private =
        bound.spec.export_to.iter().all(|entry| entry == "." || *entry == *bound.object.key.namespace);
    let whose = if !bound.spec.export_to.is_empty() && private {
        "of this namespace"
    } else {
        "of every namespace that sees it"
    };
    let message = format!(
        "{host} belongs to namespace {}: this VirtualService decides over its clients {whose}",
        world.services[owners[0]].namespace
    );
    let hint =
        "write it in the namespace of the service, or keep it to your own clients with `exportTo: [\".\"]`";
    world.index.notes.warn(bound.object, field, "host-of-another-namespace", message, hint);
}

/// Destinations that no service or DestinationRule knows.
fn destinations(world: &World<'_>) {
    let mut subsets: HostMap<FxHashSet<&str>> = HostMap::default();
    for rule in &world.index.destination_rules {
        let host = full(&rule.spec.host, rule.namespace(), DOMAIN);
        subsets.entry(&host).extend(rule.spec.subsets.iter().map(|subset| subset.name.as_str()));
    }
    for bound in &world.bound {
        for rule in &bound.http {
            for (at, route) in rule.rule.route.iter().enumerate() {
                let field = format!("{}.route[{at}].destination", rule.field);
                destination(world, &subsets, rule.object, &field, &route.destination, true);
            }
        }
        for (list, routes) in [
            ("tcp", bound.spec.tcp.iter().map(|rule| &rule.route).collect::<Vec<_>>()),
            ("tls", bound.spec.tls.iter().map(|rule| &rule.route).collect()),
        ] {
            for (at, route) in routes.into_iter().enumerate() {
                for (to, one) in route.iter().enumerate() {
                    let field = format!("spec.{list}[{at}].route[{to}].destination");
                    destination(world, &subsets, bound.object, &field, &one.destination, false);
                }
            }
        }
    }
}

fn destination(
    world: &World<'_>,
    subsets: &HostMap<FxHashSet<&str>>,
    object: &Resource,
    field: &str,
    written: &Destination,
    http: bool,
) {
    let notes = &world.index.notes;
    let host = full(&written.host, &object.key.namespace, DOMAIN);
    let outcome = if http { "requests to it are answered 503 (NC)" } else { "connections to it are closed" };
    let services = world.by_host.find(&host).map_or(&[][..], Vec::as_slice);
    let Some(service) = services.first().map(|at| &world.services[*at]) else {
        let message = format!("no service has the host {host}: {outcome}");
        let hint = "add a Service or ServiceEntry for it, or correct the name";
        notes.warn(object, &format!("{field}.host"), "destination-unknown", message, hint);
        return;
    };
    let port = written.port.as_ref().map(|port| port.number).filter(|number| *number != 0);
    let known: Vec<String> = service.ports.iter().map(|port| port.number.to_string()).collect();
    match port {
        Some(number) if service.port(number).is_none() => {
            let message = format!("{host} has no port {number}, but {}: {outcome}", known.join(", "));
            notes.warn(
                object,
                &format!("{field}.port"),
                "destination-port",
                message,
                "write one of its ports",
            );
        }
        None if service.ports.len() > 1 => {
            let message = format!(
                "{host} has the ports {}: without `port` only requests to one of these numbers arrive, all others find no cluster",
                known.join(", ")
            );
            notes.error(object, field, "destination-port", message, "write `port: {number: ...}`");
        }
        _ => {}
    }
    let Some(subset) = written.subset.as_deref().filter(|subset| !subset.is_empty()) else { return };
    if !subsets.find(&host).is_some_and(|known| known.contains(subset)) {
        let message = format!("no DestinationRule for {host} has a subset `{subset}`: {outcome}");
        notes.warn(
            object,
            &format!("{field}.subset"),
            "subset-unknown",
            message,
            "add it to the DestinationRule of the host",
        );
    }
}

/// Gateways that nobody opens, and VirtualServices bound to none.
fn gateways(world: &World<'_>) {
    let names: FxHashSet<String> = world
        .index
        .gateways
        .iter()
        .map(|gateway| format!("{}/{}", gateway.namespace(), gateway.object.key.name))
        .collect();
    for gateway in &world.index.gateways {
        let opens = world.index.proxies.iter().any(|proxy| {
            proxy.spec.role == Role::Gateway && is_subset(&gateway.spec.selector, &proxy.spec.workload.labels)
        });
        if !opens {
            let labels: Vec<String> =
                gateway.spec.selector.iter().map(|(label, value)| format!("{label}: {value}")).collect();
            let message = format!(
                "no Proxy of the role Gateway carries `{}`, so nobody opens these servers",
                labels.join(", ")
            );
            let hint = "give a Proxy `role: Gateway` and these labels under `workload.labels`";
            world.index.notes.warn(gateway.object, "spec.selector", "gateway-unused", message, hint);
        }
    }
    for bound in &world.bound {
        for (at, name) in bound.gateways.iter().enumerate() {
            if name != MESH && !names.contains(name) {
                let field = format!("spec.gateways[{at}]");
                let message = format!("there is no Gateway {name}, so its routes hold nowhere");
                world.index.notes.warn(
                    bound.object,
                    &field,
                    "gateway-unknown",
                    message,
                    "write `NAMESPACE/NAME` of a Gateway",
                );
            }
        }
    }
}

/// A ServiceEntry for the host of a Service, or of an older ServiceEntry.
fn service_hosts(world: &World<'_>) {
    let mut first: FxHashMap<&str, usize> = FxHashMap::default();
    for (at, service) in world.services.iter().enumerate() {
        let Some(other) = first.get(&*service.host).map(|at| &world.services[*at]) else {
            first.insert(&service.host, at);
            continue;
        };
        // Kubernetes Services come first in the list, so the later one is always a ServiceEntry.
        debug_assert!(service.object.key.kind == Kind::ServiceEntry);
        let message = format!(
            "{} already describes {} ({}): it wins for clients that see both, unless only this one is of their namespace",
            other.object.key,
            service.host,
            other.object.place("")
        );
        world.index.notes.warn(
            service.object,
            "spec.hosts",
            "service-host-taken",
            message,
            "choose another host",
        );
    }
}
