use super::{Bound, Case, Report, junit, read, run, targets};
use crate::config::decode::{Strictness, decode};
use crate::config::resources::Resource;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn resources(yaml: &str) -> Vec<Arc<Resource>> {
    let reading = decode(&Path::new("a.yaml").into(), yaml, Strictness::default());
    let mut found: Vec<_> = reading.objects.into_iter().filter_map(|object| object.resource).collect();
    found.sort_by(|one, other| one.key.cmp(&other.key));
    found
}

fn policy(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n"
    )
}

/// The cases of a file of this text, or what is wrong with it.
fn cases(text: &str) -> (Vec<Case>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tests.yaml");
    std::fs::write(&path, text).unwrap();
    let (cases, findings) = read(&[path]);
    (cases, findings.iter().map(ToString::to_string).collect())
}

fn report(config: &str, tests: &str) -> Report {
    let (cases, findings) = cases(tests);
    assert!(findings.is_empty(), "{findings:?}");
    let bound = Bound { changes: 1000, time: Duration::MAX };
    run(&resources(config), &cases, &[], Some(bound)).unwrap()
}

fn unnoticed(report: &Report) -> Vec<&str> {
    report.mutations.as_ref().unwrap().survivors.iter().map(|survivor| &*survivor.what).collect()
}

const TWO: &str = "tests:\n\
    - {name: web reads, to: cart.shop, request: {path: /items, principal: cluster.local/ns/shop/sa/web}, expect: {decision: Allow}}\n\
    - {name: nobody else, to: cart.shop, request: {path: /items, principal: cluster.local/ns/shop/sa/job}, expect: {decision: Deny, by: no ALLOW rule}}\n";

fn allow(rest: &str) -> String {
    let from = "from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]";
    policy("cart", &format!("{{selector: {{matchLabels: {{app: cart}}}}, rules: [{{{from}{rest}}}]}}"))
}

#[test]
fn policies_are_tested_without_services_and_proxies() {
    let report = report(&allow(""), TWO);
    assert_eq!((report.failed(), report.coverage.hit()), (0, 1), "{report}");
    assert!(report.to_string().contains("taken as a workload with the label app=cart"), "{report}");
    assert_eq!(unnoticed(&report), [""; 0]);
    assert!(report.is_complete());
}

#[test]
fn a_deny_that_no_test_holds_on_to_is_told() {
    let deny = policy("no-admin", "{action: DENY, rules: [{to: [{operation: {paths: [/admin/*]}}]}]}");
    let report = report(&(allow("") + &deny), TWO);
    assert_eq!(report.failed(), 0, "{report}");
    assert_eq!(
        report.coverage.missed().map(|rule| &*rule.rule).collect::<Vec<_>>(),
        ["AuthorizationPolicy shop/no-admin rule 0"]
    );
    // Without its paths it would refuse everything, which the first test notices.
    assert_eq!(unnoticed(&report), ["DENY: this AuthorizationPolicy shop/no-admin"]);
    assert!(!report.is_complete());
}

#[test]
fn a_condition_that_no_test_holds_on_to_is_told() {
    let report = report(&allow(", to: [{operation: {methods: [GET], paths: [/items]}}]"), TWO);
    let field =
        |name| format!("ALLOW: spec.rules[0].to[0].operation.{name} of AuthorizationPolicy shop/cart");
    assert_eq!(unnoticed(&report), [field("methods"), field("paths")], "{report}");
}

#[test]
fn rules_keep_their_numbers_while_one_is_left_out() {
    let two =
        policy("cart", "{rules: [{to: [{operation: {paths: [/a]}}]}, {to: [{operation: {paths: [/b]}}]}]}");
    let tests = "tests:\n\
        - {name: a, to: cart.shop, request: {path: /b, principal: a/ns/b/sa/c}, expect: {by: AuthorizationPolicy shop/cart rule 1}}\n\
        - {name: b, to: cart.shop, request: {path: /c, principal: a/ns/b/sa/c}, expect: {decision: Deny}}\n";
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: cart, namespace: shop}\nspec: {selector: {app: cart}, ports: [{port: 80}]}\n";
    let report = report(&(service.to_owned() + &two), tests);
    let left = unnoticed(&report);
    assert!(left.contains(&"ALLOW: spec.rules[0] of AuthorizationPolicy shop/cart"), "{left:?}");
    assert!(!left.contains(&"ALLOW: spec.rules[1] of AuthorizationPolicy shop/cart"), "{left:?}");
}

#[test]
fn claims_count_only_where_somebody_would_verify_a_token() {
    let admins = policy(
        "cart",
        "{selector: {matchLabels: {app: cart}}, rules: [{when: [{key: \"request.auth.claims[role]\", values: [admin]}]}]}",
    );
    let tests = "tests:\n- {name: admin, to: cart.shop, request: {principal: a/ns/b/sa/c, claims: {role: admin}}, expect: {decision: Allow}}\n";
    let without = report(&admins, tests);
    assert_eq!(without.failed(), 1);
    assert!(without.to_string().contains("no RequestAuthentication holds here"), "{without}");
    let tokens = "---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: r, namespace: shop}\n\
        spec: {jwtRules: [{issuer: https://i, audiences: [cart], jwksUri: https://i/keys}]}\n";
    let with = report(&(admins.clone() + tokens), tests);
    assert_eq!(with.failed(), 0, "{with}");
    for (claims, by) in [("iss: https://other", "rule 0"), ("aud: other", "rule 0"), ("exp: 1", "rule 0")] {
        let tests = tests.replace("role: admin", &format!("role: admin, {claims}"));
        let tests = tests
            .replace("decision: Allow", &format!("decision: Deny, by: RequestAuthentication shop/r {by}"));
        let refused = report(&(admins.clone() + tokens), &tests);
        assert_eq!(refused.failed(), 0, "{claims}: {refused}");
    }
}

#[test]
fn every_workload_behind_a_service_is_asked() {
    let proxy = |name: &str, version: &str| {
        format!(
            "---\napiVersion: sidegate.io/v1alpha1\nkind: Proxy\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{workload: {{labels: {{app: cart, version: {version}}}}}, identity: {{files: {{certificate: a, privateKey: b, trustBundle: c}}}}}}\n"
        )
    };
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: cart, namespace: shop}\nspec: {selector: {app: cart}, ports: [{port: 80}]}\n";
    let closed = policy("v2", "{selector: {matchLabels: {version: v2}}}");
    let config = service.to_owned() + &proxy("one", "v1") + &proxy("two", "v2") + &closed;
    let found = targets(&resources(&config), "cart.shop", None).unwrap();
    assert_eq!(
        found.iter().map(super::Target::name).collect::<Vec<_>>(),
        ["Proxy shop/one", "Proxy shop/two"]
    );
    let tests =
        "tests:\n- {name: a, to: cart.shop, request: {principal: a/ns/b/sa/c}, expect: {decision: Allow}}\n";
    let report = report(&config, tests);
    let failures = &report.tests[0].failures;
    assert_eq!(failures.len(), 1, "{report}");
    assert_eq!((&*failures[0].workload, &*failures[0].actual), ("Proxy shop/two", "Deny"));
}

#[test]
fn a_refusal_that_no_policy_made_is_no_deny() {
    let tests = "tests:\n- {name: a, to: cart.shop, request: {path: /%00, principal: a/ns/b/sa/c}, expect: {decision: Deny}}\n";
    let told = report(&allow(""), tests);
    assert!(told.tests[0].failures[0].actual.starts_with("not decided: refused with 400"), "{told}");
    let tests = tests.replace("decision: Deny", "status: 400");
    assert_eq!(report(&allow(""), &tests).failed(), 0);
}

#[test]
fn an_unknown_service_is_told_with_the_name_that_was_meant() {
    let error = targets(&resources(&allow("")), "crat.shop", None).unwrap_err();
    assert!(error.ends_with("did you mean cart.shop?"), "{error}");
}

#[test]
fn what_is_wrong_with_a_file_is_told_with_its_place() {
    let (cases, findings) = cases(
        "tests:\n- name: a\n  to: cart.shop\n  request: {principle: x}\n  expect: {decision: Allow}\n\
         - name: b\n  to: cart.shop\n  expect: {decision: Maybe}\n",
    );
    assert!(cases.is_empty());
    let text = findings.join("\n");
    assert!(text.contains("tests[0].request.principle: there is no such field"), "{text}");
    assert!(text.contains("tests.yaml:4:13") && text.contains("write `principal`"), "{text}");
    assert!(text.contains("tests[1].expect.decision: unknown variant `Maybe`"), "{text}");
    for (expect, message) in [
        ("{}", "expects nothing"),
        ("{decision: Deny, limit: x}", "`limit` cannot be tested"),
        ("{decision: Deny, retry: {}}", "`retry` cannot be tested"),
    ] {
        let (_, findings) = self::cases(&format!("tests:\n- {{name: a, to: b.c, expect: {expect}}}\n"));
        assert!(findings.join("\n").contains(message), "{expect}: {findings:?}");
    }
    for (request, field) in [
        ("principal: web", "request.principal"),
        ("time: noon", "request.time"),
        ("clientIP: here", "request.clientIP"),
        ("token: none", "request.token"),
        ("tls: none, principal: a/ns/b/sa/c", "request: a principal is proved by a certificate"),
    ] {
        let text =
            format!("tests:\n- {{name: a, to: b.c, request: {{{request}}}, expect: {{decision: Deny}}}}\n");
        let (_, findings) = self::cases(&text);
        assert!(findings.join("\n").contains(field), "{request}: {findings:?}");
    }
}

#[test]
fn junit_holds_whatever_a_name_or_explanation_holds() {
    let name = "a <b> & \"c\" 'd' \u{1} ü";
    let tests = format!(
        "tests:\n- {{name: {}, to: cart.shop, request: {{principal: a/ns/b/sa/c}}, expect: {{decision: Allow}}}}\n",
        serde_json::to_string(name).unwrap()
    );
    let xml = junit(&report(&allow(""), &tests));
    assert!(xml.contains("name=\"a &lt;b&gt; &amp; &quot;c&quot; &apos;d&apos; \u{fffd} ü\""), "{xml}");
    assert!(xml.contains("<testsuites tests=\"1\" failures=\"1\">"), "{xml}");
    assert!(xml.contains("<failure message=\"decision: expected Allow, is Deny\">"), "{xml}");
    let opened = xml.matches("<test").count() + xml.matches("<failure ").count();
    assert_eq!(opened, xml.matches("</").count(), "{xml}");
}

#[test]
fn access_policies_are_tested_by_time_effect_and_rule() {
    let config = "apiVersion: sidegate.io/v1alpha1\nkind: AccessPolicy\nmetadata: {name: hours, namespace: shop}\n\
        spec:\n  selector: {matchLabels: {app: cart}}\n  rules:\n\
        \x20 - {name: office, when: [{key: request.time, within: {from: \"08:00\", to: \"18:00\"}}], effect: Allow}\n\
        \x20 - {name: admin, match: [{paths: [\"/admin/*\"]}], effect: StepUp}\n";
    let test = |name: &str, path: &str, hour: u8, expect: &str| {
        format!(
            "- {{name: {name}, to: cart.shop, request: {{path: {path}, principal: t/ns/shop/sa/web, time: \"2026-01-05T{hour}:00:00Z\"}}, expect: {{{expect}}}}}\n"
        )
    };
    let tests = "tests:\n".to_owned()
        + &test("by day", "/items", 12, "decision: Allow, by: AccessPolicy shop/hours rule 0")
        + &test("at night", "/items", 23, "decision: Deny, by: AccessPolicy shop/hours default, status: 403")
        + &test("admin", "/admin/x", 23, "decision: StepUp, by: AccessPolicy shop/hours rule 1, status: 401");
    let report = report(config, &tests);
    assert_eq!((report.failed(), report.coverage.hit()), (0, 2), "{report}");
    assert_eq!(unnoticed(&report), [""; 0]);
}
