use super::{Unknown, Way, decide};
use crate::config::decode::{Strictness, decode as read};
use crate::config::resources::{Resource, Spec};
use crate::config::translate::{Input, translate};
use crate::explain::{Question, explain};
use crate::snapshot::Snapshot;
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;

fn resources(policies: &str) -> Vec<Arc<Resource>> {
    let yaml = format!(
        "apiVersion: sidegate.io/v1alpha1\nkind: Proxy\nmetadata: {{name: a, namespace: shop}}\n\
         spec: {{inbound: {{application: \"127.0.0.1:9\"}}, identity: {{files: {{certificate: a, privateKey: b, trustBundle: c}}}}}}\n{policies}"
    );
    let objects = read(&Path::new("a.yaml").into(), &yaml, Strictness::default()).objects;
    objects.into_iter().filter_map(|object| object.resource).collect()
}

/// A rule out of conditions on the path, which is known, and on caller and headers, which are not.
fn rule() -> impl Strategy<Value = String> {
    let from = prop::option::of(prop::collection::vec(
        prop_oneof![
            Just("{source: {namespaces: [shop]}}"),
            Just("{source: {notPrincipals: [t/ns/shop/sa/web]}}"),
            Just("{source: {principals: [t/ns/shop/sa/web], remoteIpBlocks: [127.0.0.0/8]}}"),
            Just("{source: {remoteIpBlocks: [10.0.0.0/8]}}"),
        ],
        1..3,
    ));
    let to = prop::option::of(prop_oneof![Just("/a"), Just("/b"), Just("/*")]);
    let when = prop::option::of(prop_oneof![
        Just("{key: \"request.headers[x-t]\", values: [one]}"),
        Just("{key: \"request.headers[x-t]\", notValues: [one]}"),
        Just("{key: source.namespace, values: [shop, ops]}"),
    ]);
    (from, to, when).prop_map(|(from, to, when)| {
        let mut parts = Vec::new();
        parts.extend(from.map(|from| format!("from: [{}]", from.join(", "))));
        parts.extend(to.map(|path| format!("to: [{{operation: {{paths: [{path}]}}}}]")));
        parts.extend(when.map(|when| format!("when: [{when}]")));
        format!("{{{}}}", parts.join(", "))
    })
}

fn policies() -> impl Strategy<Value = String> {
    let policy = (prop_oneof![Just("ALLOW"), Just("DENY")], prop::collection::vec(rule(), 1..3));
    prop::collection::vec(policy, 1..3).prop_map(|policies| {
        let object = |(at, (action, rules)): (usize, &(&str, Vec<String>))| {
            format!(
                "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p{at}, namespace: shop}}\n\
                 spec: {{action: {action}, rules: [{}]}}\n",
                rules.join(", ")
            )
        };
        policies.iter().enumerate().map(object).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn where_both_ways_agree_the_truth_agrees_with_them(policies in policies()) {
        let resources = resources(&policies);
        let proxy = resources.iter().find(|one| matches!(one.spec, Spec::Proxy(_))).unwrap();
        let mesh = translate(&Input { resources: &resources, proxy }, None).mesh;
        let unknown = Unknown { principal: true, peer: false, token: false };
        let [lenient, strict] = [Way::Lenient, Way::Strict].map(|way| {
            let mut mesh = mesh.clone();
            decide(&mut mesh, unknown, way);
            let (snapshot, problems) = Snapshot::compile(mesh, None);
            assert!(problems.is_empty(), "{problems:?}");
            snapshot
        });
        let (real, _) = Snapshot::compile(mesh, None);
        let anybody = ["t/ns/shop/sa/web", "t/ns/shop/sa/job", "t/ns/ops/sa/bot", "t/ns/far/sa/away"];
        for path in ["/a", "/b"] {
            let url = format!("http://a{path}");
            let passes = |snapshot: &Snapshot, caller: &str, header: &[&str]| {
                let question = Question::parse("GET", &url, header.iter().copied()).unwrap();
                !explain(snapshot, &question.inbound(true).by(caller).unwrap()).outcome.is_refused()
            };
            let (most, least) = (passes(&lenient, anybody[0], &[]), passes(&strict, anybody[0], &[]));
            for caller in anybody {
                for header in [&[][..], &["x-t: one"], &["x-t: two"]] {
                    let truth = passes(&real, caller, header);
                    prop_assert!(least <= truth && truth <= most, "{path} {caller} {header:?}\n{policies}");
                }
            }
        }
    }
}
