//! What `check` says of a folder: every Proxy in it, or a sidecar in every namespace, is translated.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::host::full;
use super::index::sorted;
use super::settings::DOMAIN;
use super::{Input, translate};
use crate::config::finding::Finding;
use crate::config::resources::istio::virtual_service::VirtualService;
use crate::config::resources::{Kind, Meta, ObjectKey, Placement, Resource, Spec};
use crate::config::spans::Outline;
use crate::mesh::Name;

/// Everything that objects have against each other, each once. Without a Proxy it is said of a sidecar in each namespace.
#[must_use]
pub fn check(resources: &[Arc<Resource>]) -> Vec<Finding> {
    let mut proxies: Vec<Arc<Resource>> =
        resources.iter().filter(|resource| matches!(resource.spec, Spec::Proxy(_))).cloned().collect();
    if proxies.is_empty() {
        proxies.extend(viewpoints(resources).into_iter().map(sidecar));
    }
    let all = proxies.iter().flat_map(|proxy| translate(&Input { resources, proxy }, None).findings);
    sorted(all.collect())
}

/// Namespaces whose sidecars see everything that any sidecar sees: those with a view of their own, and one of all others, who see the same.
/// What is said of a folder then takes time by its views, of which there are few, not by its namespaces.
fn viewpoints(resources: &[Arc<Resource>]) -> BTreeSet<Name> {
    let mut others: BTreeSet<Name> = resources
        .iter()
        .filter(|resource| !resource.key.namespace.is_empty())
        .map(|resource| Arc::clone(&resource.key.namespace))
        .collect();
    if resources.iter().any(|resource| narrows_all(resource)) {
        return others;
    }
    let mut named = BTreeSet::new();
    for resource in resources {
        named.extend(names(resource));
    }
    let mut own: BTreeSet<Name> = others.iter().filter(|name| named.contains(&***name)).cloned().collect();
    others.retain(|name| !own.contains(name));
    own.extend(others.pop_first());
    own
}

/// Settings of the mesh that hide objects from other namespaces.
fn narrows_all(resource: &Resource) -> bool {
    let Spec::MeshConfig(config) = &resource.spec else { return false };
    let lists = [
        &config.default_service_export_to,
        &config.default_virtual_service_export_to,
        &config.default_destination_rule_export_to,
    ];
    lists.into_iter().any(|list| !is_public(list))
}

fn is_public(exports: &[String]) -> bool {
    exports.is_empty() || exports.iter().any(|entry| entry == "*")
}

/// The namespaces to whose clients an object is something else than to those of other namespaces.
fn names(resource: &Resource) -> Vec<&str> {
    let owner = &*resource.key.namespace;
    let exported =
        |list: &'_ [String]| -> Vec<&str> { if is_public(list) { Vec::new() } else { vec![owner] } };
    let mut names = Vec::new();
    let mut exports: &[String] = &[];
    match &resource.spec {
        Spec::VirtualService(spec) => {
            exports = &spec.export_to;
            names.extend(callers(spec));
        }
        Spec::ServiceEntry(spec) => exports = &spec.export_to,
        Spec::DestinationRule(spec) => {
            exports = &spec.export_to;
            // A rule for a host of another namespace holds for the clients of its own alone.
            let of_us = format!(".{owner}.svc.{DOMAIN}");
            if spec.workload_selector.is_some() || !full(&spec.host, owner, DOMAIN).ends_with(&of_us) {
                names.push(owner);
            }
        }
        Spec::Service(_) => {
            if let Some(list) = resource.meta.annotations.get("networking.istio.io/exportTo") {
                names.extend(list.split(',').map(str::trim));
                names.push(owner);
            }
        }
        Spec::EndpointSlice(_) | Spec::ConfigMap(_) | Spec::Namespace | Spec::WorkloadEntry(_) => {}
        _ => names.push(owner),
    }
    names.extend(exported(exports));
    names.extend(exports.iter().map(String::as_str));
    names
}

/// The namespaces that rules name as those of the caller.
fn callers(spec: &VirtualService) -> impl Iterator<Item = &str> {
    let http = spec.http.iter().flat_map(|rule| &rule.matches).map(|one| &one.source_namespace);
    let tcp = spec.tcp.iter().flat_map(|rule| &rule.matches).map(|one| &one.source_namespace);
    let tls = spec.tls.iter().flat_map(|rule| &rule.matches).map(|one| &one.source_namespace);
    http.chain(tcp).chain(tls).filter_map(|name| name.as_deref())
}

/// A sidecar that nobody wrote.
fn sidecar(namespace: Name) -> Arc<Resource> {
    Arc::new(Resource::new(
        ObjectKey { kind: Kind::Proxy, namespace, name: "any".into() },
        Meta::default(),
        Spec::Proxy(Box::default()),
        Arc::new(Placement::new(Path::new("").into(), &Outline::default())),
    ))
}

#[cfg(test)]
mod tests {
    use super::{check, sidecar, viewpoints};
    use crate::config::decode::{Strictness, decode};
    use crate::config::resources::{Kind, Resource};
    use crate::config::translate::index::sorted;
    use crate::config::translate::{Input, translate};
    use std::collections::BTreeSet;
    use std::path::Path;
    use std::sync::Arc;

    fn resources(yaml: &str) -> Vec<Arc<Resource>> {
        let objects = decode(&Path::new("a.yaml").into(), yaml, Strictness::default()).objects;
        objects.into_iter().filter_map(|object| object.resource).collect()
    }

    fn object(group: &str, kind: &str, namespace: &str, spec: &str) -> String {
        format!(
            "---\napiVersion: {group}v1\nkind: {kind}\nmetadata: {{name: a, namespace: {namespace}}}\nspec: {spec}\n"
        )
    }

    fn istio(kind: &str, namespace: &str, spec: &str) -> String {
        object("networking.istio.io/", kind, namespace, spec)
    }

    #[test]
    fn namespaces_that_see_the_same_are_one_point_of_view() {
        let mut yaml: String =
            (0..50).map(|at| object("", "Service", &format!("n{at:02}"), "{ports: [{port: 80}]}")).collect();
        let views = |yaml: &str| -> Vec<String> {
            viewpoints(&resources(yaml)).iter().map(ToString::to_string).collect()
        };
        assert_eq!(views(&yaml), ["n00"]);
        yaml += &istio("DestinationRule", "n07", "{host: a}");
        yaml += &istio("VirtualService", "n08", "{hosts: [a], http: [{route: [{destination: {host: a}}]}]}");
        assert_eq!(views(&yaml), ["n00"]);
        yaml += &istio("DestinationRule", "n09", "{host: a.n10.svc.cluster.local}");
        yaml += &istio("Sidecar", "n11", "{egress: [{hosts: [\"./*\"]}]}");
        yaml += &istio(
            "VirtualService",
            "n12",
            "{hosts: [a], exportTo: [n13], http: [{match: [{sourceNamespace: n14}], route: [{destination: {host: a}}]}]}",
        );
        assert_eq!(views(&yaml), ["n00", "n09", "n11", "n12", "n13", "n14"]);
    }

    #[test]
    fn nothing_is_missed_that_a_sidecar_of_any_namespace_finds() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/demo/shop");
        let mut resources = Vec::new();
        for file in ["istio.yaml", "kubernetes.yaml"] {
            let path = folder.join(file);
            let text = std::fs::read_to_string(&path).unwrap();
            let objects = decode(&path.into(), &text, Strictness::default()).objects;
            resources.extend(objects.into_iter().filter_map(|object| object.resource));
        }
        for namespace in ["one", "other"] {
            resources.extend(self::resources(
                &(object("", "Service", namespace, "{ports: [{port: 80}]}")
                    + &istio("DestinationRule", namespace, "{host: nobody.x.svc.cluster.local, subsets: [{name: v1}]}")
                    + &istio(
                        "VirtualService",
                        namespace,
                        "{hosts: [a], exportTo: [\".\"], http: [{route: [{destination: {host: gone}}]}, {route: [{destination: {host: a}}]}]}",
                    )),
            ));
        }
        resources.retain(|resource| resource.key.kind != Kind::Proxy);
        resources.sort_by(|one, other| one.key.cmp(&other.key));
        let namespaces: BTreeSet<_> = resources.iter().map(|one| one.key.namespace.clone()).collect();
        let every = namespaces.into_iter().filter(|name| !name.is_empty()).flat_map(|name| {
            translate(&Input { resources: &resources, proxy: &sidecar(name) }, None).findings
        });
        let every = sorted(every.collect());
        assert!(every.len() > 3, "{every:?}");
        assert_eq!(check(&resources), every);
    }
}
