use std::path::Path;

use crate::config::decode::{Object, Reading, Strictness, decode};
use crate::config::finding::Severity;
use crate::config::resources::{Closed, Spec};

const HEAD: &str =
    "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: x, namespace: shop}\n";
const POLICY: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: shop}
spec: {selector: {matchLabels: {app: b}}, action: DENY, rules: [{}]}
";

fn read(yaml: &str) -> Reading {
    decode(&Path::new("t.yaml").into(), yaml, Strictness::default())
}

fn said(reading: &Reading) -> Vec<String> {
    let all = reading.findings.iter().chain(reading.objects.iter().flat_map(|object| &object.findings));
    all.map(ToString::to_string).collect()
}

fn keys(objects: &[Object]) -> Vec<String> {
    objects.iter().map(|object| object.key.to_string()).collect()
}

fn closed(object: &Object) -> &Closed {
    assert!(object.resource.is_none(), "{:?}", object.findings);
    match &object.stand_in.as_ref().unwrap().spec {
        Spec::Closed(closed) => closed,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_policy_with_a_wrong_identity_closes_what_it_selects() {
    for (from, to, key) in [
        ("istio.io/v1", "istio.io/v1alpha1", "shop/deny"),
        ("security.istio.io/v1", "security.istio.oi/v1", "shop/deny"),
        ("security.istio.io/v1", "networking.istio.io/v1", "shop/deny"),
        ("apiVersion: security.istio.io/v1\n", "", "shop/deny"),
        ("kind: AuthorizationPolicy", "kind: AuthorisationPolicy", "shop/deny"),
        ("kind: AuthorizationPolicy\n", "", "shop/deny"),
        ("name: deny", "name: New_One", "shop/New_One"),
        ("name: deny, ", "", "shop/(t.yaml:1)"),
        ("name: deny", "name: [deny]", "shop/(t.yaml:1)"),
        ("namespace: shop", "namespace: Shop", "*/deny"),
        ("namespace: shop", "namespace: [shop]", "*/deny"),
        ("metadata: {name: deny, namespace: shop}", "metadata: deny", "*/(t.yaml:1)"),
        ("spec:", "metadata: {name: deny, namespace: other}\nspec:", "*/deny"),
    ] {
        let yaml = POLICY.replacen(from, to, 1);
        assert_ne!(yaml, POLICY);
        let reading = read(&yaml);
        assert!(!reading.broken, "{yaml}");
        assert_eq!(
            keys(&reading.objects),
            [format!("AuthorizationPolicy {key}")],
            "{yaml}: {:?}",
            said(&reading)
        );
        let object = &reading.objects[0];
        assert_eq!(closed(object).selector.match_labels.get("app"), Some("b"), "{yaml}");
        assert!(
            object
                .findings
                .iter()
                .any(|finding| finding.severity == Severity::Error && !finding.hint.is_empty())
        );
    }
}

#[test]
fn a_wrong_version_leaves_no_doubt_which_object_it_is_and_a_wrong_name_does() {
    let version = read(&HEAD.replace("io/v1", "io/v7"));
    assert!(!version.unreadable, "it keeps its own old version, and nothing else is kept");
    assert!(
        said(&version)[0].contains("write one of v1, v1beta1, v1alpha3 after `networking.istio.io/`"),
        "{:?}",
        said(&version)
    );
    assert!(read(&HEAD.replace("name: x", "name: X")).unreadable, "what it was called before is kept");
}

#[test]
fn a_misspelt_group_is_no_foreign_kind() {
    for group in ["networking.istio.oi/v1", "v1", "networking.istio.io/v2"] {
        let reading = read(&HEAD.replace("networking.istio.io/v1", group));
        assert_eq!(keys(&reading.objects), ["VirtualService shop/x"], "{group}");
        assert!(reading.objects[0].resource.is_none() && !reading.broken, "{group}: {:?}", said(&reading));
    }
    for (group, kind) in [
        ("networking.k8s.io/v1", "NetworkPolicy"),
        ("serving.knative.dev/v1", "Service"),
        ("policy.linkerd.io/v1alpha1", "AuthorizationPolicy"),
    ] {
        let reading = read(&format!("apiVersion: {group}\nkind: {kind}\nmetadata: {{name: x}}\n"));
        assert_eq!(reading.findings[0].severity, Severity::Info, "{:?}", said(&reading));
    }
}

#[test]
fn what_is_not_ours_is_skipped_and_said() {
    for yaml in [
        "apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nmetadata: {name: x}\nspec: {profile: default}\n",
        "apiVersion: security.istio.io/v1\nkind: Fancy\nmetadata: {name: x}\n",
        "resources:\n- mesh.yaml\nnamespace: shop\n",
        "replicaCount: 3\nimage: {tag: '1.0'}\n",
        "- op: add\n  path: /x\n",
        "just a text\n",
    ] {
        let reading = read(&format!("{yaml}---\n{HEAD}"));
        assert_eq!(keys(&reading.objects), ["VirtualService shop/x"], "{yaml}");
        assert!(!reading.broken, "{yaml}");
        assert_eq!(reading.findings[0].severity, Severity::Warning, "{yaml}: {:?}", said(&reading));
    }
    assert!(read("just a te").unreadable, "it may be the rest of what was there");
    assert!(!read("replicaCount: 3\n").unreadable);
}

#[test]
fn a_missing_separator_rejects_each_object_that_it_runs_together() {
    let reading = read(&format!("{HEAD}spec: {{hosts: [x]}}\n{POLICY}{HEAD}"));
    assert!(!reading.broken && !reading.unreadable);
    assert_eq!(
        keys(&reading.objects),
        ["VirtualService shop/x", "AuthorizationPolicy shop/deny", "VirtualService shop/x"]
    );
    assert!(reading.objects.iter().all(|object| object.resource.is_none()));
    assert_eq!(closed(&reading.objects[1]).selector.match_labels.get("app"), Some("b"));
    let lines: Vec<_> = reading
        .objects
        .iter()
        .map(|object| {
            assert!(object.findings[0].hint.contains("write a line `---`"), "{:?}", object.findings);
            object.findings[0].place.as_ref().unwrap().line
        })
        .collect();
    assert_eq!(lines, [5, 5, 9], "each says where");
    assert_eq!(reading.objects[1].place.line, 5);
}

#[test]
fn a_second_spec_is_no_second_object() {
    let reading = read(&format!("{POLICY}spec: {{}}\n"));
    assert_eq!(keys(&reading.objects), ["AuthorizationPolicy shop/deny"]);
    assert!(closed(&reading.objects[0]).selector.match_labels.is_empty(), "nobody knows which counts");
}

#[test]
fn a_bad_item_of_a_list_costs_itself() {
    let reading = read(
        "apiVersion: v1
kind: List
items:
- apiVersion: networking.istio.io/v1
  kind: DestinationRule
  metadata: {name: a, namespace: shop}
  spec: {host: one.shop, host: two.shop}
- apiVersion: networking.istio.io/v1
  kind: DestinationRule
  metadata: {name: b, namespace: shop}
  spec: {host: b.shop}
- {apiVersion: v1, kind: Service, metadata: {name: c, name: d}}
",
    );
    assert_eq!(
        keys(&reading.objects),
        ["DestinationRule shop/a", "DestinationRule shop/b", "Service default/c"]
    );
    let held: Vec<_> = reading.objects.iter().map(|object| object.resource.is_some()).collect();
    assert_eq!(held, [false, true, false]);
    let text = &said(&reading)[0];
    assert!(
        text.starts_with("error: DestinationRule shop/a: spec.host: ") && text.contains("t.yaml:7:26"),
        "{text}"
    );
    assert!(!reading.broken && !reading.unreadable);
}

#[test]
fn a_list_that_is_wrong_itself_keeps_what_was_there() {
    for (yaml, objects) in [
        ("apiVersion: v1\nkind: List\nitems: []\nitems: []\n", 0),
        ("apiVersion: v1\nkind: List\n", 0),
        ("apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, metadata: {name: a}}]\n", 0),
        (
            "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Service, metadata: {name: a}}]\nitems: [{apiVersion: v1, kind: Service, metadata: {name: b}}]\n",
            2,
        ),
    ] {
        let reading = read(yaml);
        assert!(reading.unreadable && !reading.broken, "{yaml}: {:?}", said(&reading));
        assert_eq!(reading.objects.len(), objects, "{yaml}");
        assert!(reading.objects.iter().all(|object| object.resource.is_none()), "{yaml}");
    }
}

#[test]
fn ten_thousand_services_fit_into_one_list() {
    let item = |n: usize| {
        format!(
            r#"{{"apiVersion":"v1","kind":"Service","metadata":{{"annotations":{{"a":"b","c":"d"}},"creationTimestamp":"2026-01-01T00:00:00Z","labels":{{"app":"s{n}","team":"t","tier":"u"}},"name":"s{n}","namespace":"n{n}","resourceVersion":"1","uid":"5"}},"spec":{{"clusterIP":"10.0.0.1","clusterIPs":["10.0.0.1"],"internalTrafficPolicy":"Cluster","ipFamilies":["IPv4"],"ipFamilyPolicy":"SingleStack","ports":[{{"name":"http","port":80,"protocol":"TCP","targetPort":8080}}],"selector":{{"app":"s{n}","team":"t"}},"sessionAffinity":"None","type":"ClusterIP"}},"status":{{"loadBalancer":{{}}}}}}"#
        )
    };
    let items: Vec<_> = (0..10_000).map(item).collect();
    let reading = read(&format!(r#"{{"apiVersion":"v1","kind":"List","items":[{}]}}"#, items.join(",\n")));
    assert_eq!(said(&reading), [""; 0]);
    assert_eq!(reading.objects.iter().filter(|object| object.resource.is_some()).count(), 10_000);
}

#[test]
fn security_objects_in_the_broken_part_of_a_text_are_seen() {
    for (text, keys) in [
        (format!("{POLICY}x: [\n"), vec!["shop/(t.yaml:2)"]),
        (format!("{HEAD}---\n{POLICY}x: [\n---\n{HEAD}"), vec!["shop/(t.yaml:6)"]),
        ("apiVersion: x: y\nkind: \"AuthorizationPolicy\"\n".to_owned(), vec!["*/(t.yaml:2)"]),
        (format!("{POLICY}{}x: [\n", POLICY.replace("shop", "far")), vec!["*/(t.yaml:2)", "*/(t.yaml:6)"]),
        (
            r#"{"kind": "AuthorizationPolicy", "metadata": {"namespace": "shop"}, "spec": {"#.to_owned(),
            vec!["shop/(t.yaml:1)"],
        ),
        (format!("{HEAD}x: [\n---\n{POLICY}"), vec![]),
    ] {
        let reading = read(&text);
        assert!(reading.broken && reading.unreadable, "{text}");
        let keys: Vec<_> = keys.into_iter().map(|key| format!("AuthorizationPolicy {key}")).collect();
        assert_eq!(self::keys(&reading.torn), keys, "{text}");
        assert!(reading.torn.iter().all(|torn| closed(torn).selector.match_labels.is_empty()));
    }
}
