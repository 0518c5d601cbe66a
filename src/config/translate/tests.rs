//! Rule by rule: YAML in, model out.

mod access;
mod audit;
mod authentication;
mod authorization;
mod custom;
mod destinations;
mod gateways;
mod listeners;
mod mutual_tls;
mod order;
mod pods;
mod routing;
mod scoping;
mod shop;
mod telemetry;

use std::path::Path;
use std::sync::Arc;

use super::{Input, Output, check, translate};
use crate::config::decode::{Strictness, decode};
use crate::config::resources::{Resource, Spec};
use crate::mesh::{Action, Cluster, EndpointAddress, Listener, Mesh, Route, RouteAction, VirtualHost};

/// A namespace's Service, written short.
fn service(name: &str, ports: &str) -> String {
    format!(
        "\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{selector: {{app: {name}}}, ports: {ports}}}\n"
    )
}

/// A WorkloadEntry of an app, written short.
fn workload(name: &str, app: &str, version: &str, address: &str) -> String {
    format!(
        "\n---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{address: {address}, labels: {{app: {app}, version: {version}}}}}\n"
    )
}

/// An Istio networking object in `shop`.
fn istio(kind: &str, name: &str, spec: &str) -> String {
    istio_in("shop", kind, name, spec)
}

fn istio_in(namespace: &str, kind: &str, name: &str, spec: &str) -> String {
    format!(
        "\n---\napiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

/// A Proxy in `shop`.
fn proxy(spec: &str) -> String {
    format!(
        "\n---\napiVersion: sidegate.io/v1alpha1\nkind: Proxy\nmetadata: {{name: me, namespace: shop}}\nspec: {spec}\n"
    )
}

fn load(yaml: &str) -> Vec<Arc<Resource>> {
    let reading = decode(&Path::new("test.yaml").into(), yaml, Strictness::default());
    assert!(!reading.broken, "{:?}", reading.findings);
    let accept = |object: crate::config::decode::Object| {
        let findings = object.findings;
        object.resource.unwrap_or_else(|| panic!("{findings:?}"))
    };
    reading.objects.into_iter().map(accept).collect()
}

/// Translates for the only Proxy of the YAML, or a sidecar of `shop` that says nothing.
fn run(yaml: &str) -> Output {
    let mut resources = load(yaml);
    if !resources.iter().any(|one| matches!(one.spec, Spec::Proxy(_))) {
        resources.extend(load(&proxy("{}")));
    }
    run_on(&resources)
}

fn run_on(resources: &[Arc<Resource>]) -> Output {
    let own = resources.iter().find(|one| matches!(one.spec, Spec::Proxy(_))).unwrap();
    translate(&Input { resources, proxy: own }, None)
}

fn codes(output: &Output) -> Vec<&'static str> {
    output.findings.iter().map(|finding| finding.code).collect()
}

fn finding<'o>(output: &'o Output, code: &str) -> &'o crate::config::finding::Finding {
    let found = output.findings.iter().find(|finding| finding.code == code);
    found.unwrap_or_else(|| panic!("no {code} in {:#?}", output.findings))
}

fn host<'m>(mesh: &'m Mesh, table: &str, domain: &str) -> &'m VirtualHost {
    let table =
        mesh.routes.get(table).unwrap_or_else(|| panic!("no table {table} in {:?}", mesh.routes.keys()));
    let found = table.hosts.iter().find(|host| host.domains.iter().any(|one| one == domain));
    found.unwrap_or_else(|| {
        panic!("no {domain} in {:?}", table.hosts.iter().map(|host| &host.domains).collect::<Vec<_>>())
    })
}

fn has_host(mesh: &Mesh, table: &str, domain: &str) -> bool {
    mesh.routes[table].hosts.iter().any(|host| host.domains.iter().any(|one| one == domain))
}

fn cluster<'m>(mesh: &'m Mesh, name: &str) -> &'m Cluster {
    mesh.clusters.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", mesh.clusters.keys()))
}

fn listener<'m>(mesh: &'m Mesh, name: &str) -> &'m Listener {
    mesh.listeners.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", mesh.listeners.keys()))
}

fn addresses(mesh: &Mesh, cluster: &str) -> Vec<String> {
    let show = |address: &EndpointAddress| match address {
        EndpointAddress::Socket(address) => address.to_string(),
        EndpointAddress::Name(name, port) => format!("{name}:{port}"),
        EndpointAddress::Unix(path) => path.display().to_string(),
    };
    mesh.endpoints[cluster].endpoints.iter().map(|one| show(&one.address)).collect()
}

/// `cluster*weight` of a route, or `respond`.
fn targets(action: &RouteAction) -> Vec<String> {
    match &action.action {
        Action::Forward(clusters) => {
            clusters.iter().map(|one| format!("{}*{}", one.cluster, one.weight)).collect()
        }
        Action::Respond => vec!["respond".to_owned()],
    }
}

fn targets_of(routes: &[Route]) -> Vec<Vec<String>> {
    routes.iter().map(|route| targets(&route.action)).collect()
}
