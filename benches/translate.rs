//! How long the objects of 10,000 services take to become the model of one proxy, and again after a change.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use sidegate::config::decode::{Strictness, decode};
use sidegate::config::resources::{Kind, Resource};
use sidegate::config::translate::{Input, translate};

const SERVICES: usize = 10_000;

/// Services in 50 namespaces, each with two endpoints; every tenth with routes and subsets of its own.
fn objects(interception: &str) -> Vec<Arc<Resource>> {
    let mut yaml = format!(
        "apiVersion: sidegate.io/v1alpha1\nkind: Proxy\nmetadata: {{name: me, namespace: n0}}\nspec: {{interception: {interception}}}\n"
    );
    for at in 0..SERVICES {
        let meta = format!("metadata: {{name: s{at}, namespace: n{}", at % 50);
        // Writing to a String cannot fail.
        let _ = write!(
            yaml,
            "---\napiVersion: v1\nkind: Service\n{meta}}}\nspec: {{clusterIP: 10.{}.{}.{}, selector: {{app: s{at}}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}\n\
             ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n{meta}, labels: {{kubernetes.io/service-name: s{at}, version: v1}}}}\naddressType: IPv4\n\
             ports: [{{name: http, port: 8080}}]\nendpoints: [{{addresses: [127.0.0.1]}}, {{addresses: [127.0.0.2]}}]\n",
            at >> 16,
            (at >> 8) & 255,
            at & 255,
        );
        if at % 10 == 0 {
            let _ = write!(
                yaml,
                "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\n{meta}}}\nspec: {{hosts: [s{at}], http: [{{match: [{{uri: {{prefix: /a}}}}], route: [{{destination: {{host: s{at}, subset: v1}}}}]}}, {{route: [{{destination: {{host: s{at}}}}}]}}]}}\n\
                 ---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\n{meta}}}\nspec: {{host: s{at}, subsets: [{{name: v1, labels: {{version: v1}}}}]}}\n"
            );
        }
    }
    // A file holds a bounded number of nodes, so each document is one of its own.
    let file: Arc<Path> = Path::new("bench.yaml").into();
    let documents = yaml.split("---\n");
    documents
        .flat_map(|text| decode(&file, text, Strictness::default()).objects)
        .filter_map(|object| object.resource)
        .collect()
}

fn ten_thousand_services(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("translate");
    group.sample_size(10);
    for interception in ["EXPLICIT", "REDIRECT"] {
        let resources = objects(interception);
        let Some(proxy) = resources.iter().find(|one| one.key.kind == Kind::Proxy) else { return };
        let input = Input { resources: &resources, proxy };
        let first = translate(&input, None);
        assert!(first.mesh.clusters.len() >= SERVICES, "{:?}", first.findings.first());
        group.bench_function(format!("{interception}/first"), |bencher| {
            bencher.iter(|| black_box(translate(&input, None)));
        });
        group.bench_function(format!("{interception}/again"), |bencher| {
            bencher.iter(|| black_box(translate(&input, Some(&first.mesh))));
        });
    }
    group.finish();
}

criterion_group!(benches, ten_thousand_services);
criterion_main!(benches);
