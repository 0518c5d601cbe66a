use std::sync::Arc;

use proptest::prelude::*;

use super::{Input, istio, load, proxy, run_on, service, targets_of, translate};
use crate::config::resources::Spec;

/// Several VirtualServices for one host, each known by its redirect, some of them dated.
fn several() -> String {
    let dated = [
        ("a", ""),
        ("b", "2026-01-02T00:00:00Z"),
        ("c", "2026-01-01T00:00:00Z"),
        ("d", ""),
        ("e", "2026-01-01T00:00:00Z"),
    ];
    let services: String = dated
        .into_iter()
        .map(|(name, date)| {
            let spec = format!("{{hosts: [cart], http: [{{match: [{{uri: {{prefix: /{name}}}}}], redirect: {{uri: /{name}}}}}]}}");
            let object = istio("VirtualService", name, &spec);
            if date.is_empty() {
                return object;
            }
            object.replace("namespace: shop}", &format!("namespace: shop, creationTimestamp: '{date}'}}"))
        })
        .collect();
    let rules: String = ["x", "y"]
        .map(|name| istio("DestinationRule", name, &format!("{{host: cart, subsets: [{{name: {name}, labels: {{}}}}, {{name: z, labels: {{by: {name}}}}}]}}")))
        .concat();
    services + &rules + &service("cart", "[{port: 80}]") + &proxy("{}")
}

#[test]
fn older_rules_come_first_and_equals_by_name() {
    let output = run_on(&load(&several()));
    let routes = &super::host(&output.mesh, "outbound", "cart").routes;
    let order: Vec<_> = routes.iter().map(|route| format!("{:?}", route.matches.path)).collect();
    assert_eq!(order, ["/a", "/d", "/c", "/e", "/b"].map(|path| format!("Prefix({path:?})")));
    assert_eq!(targets_of(routes).len(), 5);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_objects_never_matters(order in Just(load(&several())).prop_shuffle()) {
        let expected = run_on(&load(&several()));
        let found = run_on(&order);
        prop_assert_eq!(&found.mesh, &expected.mesh);
        prop_assert_eq!(&found.findings, &expected.findings);
    }
}

#[test]
fn equal_parts_keep_their_pointers() {
    let yaml = several() + &service("other", "[{port: 80}]");
    let before = load(&yaml);
    let own = |resources: &[Arc<_>]| -> usize {
        resources
            .iter()
            .position(|one: &Arc<crate::config::resources::Resource>| matches!(one.spec, Spec::Proxy(_)))
            .unwrap()
    };
    let first = translate(&Input { resources: &before, proxy: &before[own(&before)] }, None);
    // The first line moves every object, and one rule changes.
    let after = load(&format!("# moved\n{}", yaml.replace("redirect: {uri: /e}", "redirect: {uri: /new}")));
    let second = translate(&Input { resources: &after, proxy: &after[own(&after)] }, Some(&first.mesh));
    assert_ne!(first.mesh, second.mesh);
    for (name, cluster) in &second.mesh.clusters {
        assert!(Arc::ptr_eq(cluster, &first.mesh.clusters[name]), "{name}");
        assert!(Arc::ptr_eq(&second.mesh.endpoints[name], &first.mesh.endpoints[name]), "{name}");
    }
    assert!(Arc::ptr_eq(&second.mesh.listeners["outbound"], &first.mesh.listeners["outbound"]));
    let (old, new) = (&first.mesh.routes["outbound"], &second.mesh.routes["outbound"]);
    assert!(!Arc::ptr_eq(old, new));
    let same: Vec<_> = old.hosts.iter().zip(&new.hosts).map(|(old, new)| Arc::ptr_eq(old, new)).collect();
    assert_eq!(same, [false, true], "cart changed, other did not");
    let kept = old.hosts[0]
        .routes
        .iter()
        .zip(&new.hosts[0].routes)
        .filter(|(old, new)| Arc::ptr_eq(&old.action, &new.action));
    assert_eq!(kept.count(), 4);
    let third = translate(&Input { resources: &after, proxy: &after[own(&after)] }, Some(&second.mesh));
    assert!(Arc::ptr_eq(&second.mesh.routes["outbound"], &third.mesh.routes["outbound"]));
}
