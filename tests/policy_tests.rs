//! `sidegate test` and `sidegate diff`: policies tried before they are live.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/demo")
}

fn sidegate(arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidegate"));
    arguments.iter().for_each(|argument| {
        command.arg(argument);
    });
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The shop's folder, with a change of its Istio objects.
fn shop(change: impl Fn(&str) -> String) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["istio.yaml", "kubernetes.yaml", "tests.yaml"] {
        let written = std::fs::read_to_string(demo().join("shop").join(file)).unwrap();
        let written = if file == "istio.yaml" { change(&written) } else { written };
        std::fs::write(folder.path().join(file), written).unwrap();
    }
    folder
}

#[test]
fn the_policies_of_the_demo_are_tested_whole_with_and_without_its_proxies() {
    let tests = demo().join("shop/tests.yaml");
    for config in [demo().join("shop"), demo()] {
        let output = sidegate(&[&"test", &tests, &"--config", &config, &"--strict", &"--mutations", &"all"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        assert!(text(&output).contains("13 tests, 0 failed; 3 of 3 rules reached"), "{}", text(&output));
        assert!(text(&output).contains(", 0 unnoticed"), "{}", text(&output));
    }
}

#[test]
fn a_loosened_policy_fails_a_test_that_explains_itself() {
    let folder =
        shop(|istio| istio.replace("        - /api/payments/process\n", "        - /api/payments/*\n"));
    let tests = folder.path().join("tests.yaml");
    let report = folder.path().join("report.xml");
    let output = sidegate(&[&"test", &tests, &"--junit", &report]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output);
    assert!(said.contains("FAIL  order-service may not refund a payment"), "{said}");
    assert!(said.contains("expected: Deny") && said.contains("actual:   Allow"), "{said}");
    assert!(
        said.contains("ALLOW AuthorizationPolicy ecommerce/payment-service-authz rule 0: holds"),
        "{said}"
    );
    assert!(said.contains("istio.yaml:252:5"), "{said}");
    let xml = std::fs::read_to_string(report).unwrap();
    assert!(xml.contains("<testsuites tests=\"13\" failures=\"1\">"), "{xml}");
    let told = json(&sidegate(&[&"test", &tests, &"--output", &"json"]));
    assert_eq!(told["mutations"], Value::Null, "what fails already cannot tell one more failure");
    assert_eq!(told["tests"].as_array().unwrap().len(), 13);
}

#[test]
fn a_deny_without_a_test_is_named() {
    let deny = "\n---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: no-export, namespace: ecommerce}\n\
        spec: {action: DENY, rules: [{to: [{operation: {paths: [/api/payments/export]}}]}]}\n";
    let folder = shop(|istio| istio.to_owned() + deny);
    let tests = folder.path().join("tests.yaml");
    let output = sidegate(&[&"test", &tests]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let said = text(&output);
    assert!(said.contains("never reached: AuthorizationPolicy ecommerce/no-export rule 0 ("), "{said}");
    let named = "can be left out, and no test fails: DENY: this AuthorizationPolicy ecommerce/no-export (";
    assert!(said.contains(named), "{said}");
    assert_eq!(sidegate(&[&"test", &tests, &"--strict"]).status.code(), Some(1));
    let off = sidegate(&[&"test", &tests, &"--mutations", &"off"]);
    assert!(!text(&off).contains("can be left out"), "{}", text(&off));
}

#[test]
fn tests_that_cannot_be_run_are_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.yaml");
    for (written, said) in [
        ("tests:\n- name: a\n  to: b.c\n  expect: {decison: Deny}\n", "t.yaml:4:12"),
        ("tests: []\n", "holds no tests"),
        ("tests: [", "t.yaml"),
        ("tests:\n- {name: a, to: b.c, expect: {decision: Deny}}\n", "holds no objects"),
    ] {
        std::fs::write(&file, written).unwrap();
        let output = sidegate(&[&"test", &file]);
        assert_eq!(output.status.code(), Some(2), "{written}");
        assert!(text(&output).contains(said), "{}", text(&output));
    }
    assert_eq!(sidegate(&[&"test", &"/nowhere.yaml"]).status.code(), Some(2));
}

/// Lines of the log of payment-service, in the text of Istio and as JSON.
fn log() -> String {
    let line = |method: &str, path: &str, sni: &str| {
        format!(
            "[2026-01-02T03:04:05.678Z] \"{method} {path} HTTP/1.1\" 200 - via_upstream - \"-\" 0 12 3 2 \"-\" \"curl/8\" \"id\" \
             \"payment-service.ecommerce\" \"127.0.0.1:18480\" inbound|18480|| 127.0.0.1:1 127.0.0.1:18406 127.0.0.1:40000 {sni} default\n"
        )
    };
    let json = |account: &str, path: &str| {
        format!(
            "{{\"start_time\":\"2026-01-02T03:04:05.678Z\",\"method\":\"POST\",\"path\":\"{path}\",\"authority\":\"payment-service.ecommerce\",\
             \"upstream_cluster\":\"inbound|18480||\",\"downstream_local_address\":\"127.0.0.1:18406\",\"downstream_remote_address\":\"127.0.0.1:40000\",\
             \"downstream_peer_uri_san\":\"spiffe://cluster.local/ns/ecommerce/sa/{account}\"}}\n"
        )
    };
    let mesh = "outbound_.80_._.payment-service.ecommerce.svc.cluster.local";
    line("POST", "/api/payments/process", mesh)
        + &line("GET", "/elsewhere", "-")
        + &json("order-service", "/api/payments/process")
        + &json("order-service", "/api/payments/process")
        + &json("user-service", "/api/payments/process")
}

/// The whole demo, with a change of its Istio objects.
fn whole(change: impl Fn(&str) -> String) -> tempfile::TempDir {
    let folder = shop(change);
    for file in ["payment-service.yaml", "mesh.yaml"] {
        std::fs::copy(demo().join("mesh").join(file), folder.path().join(file)).unwrap();
    }
    folder
}

#[test]
fn a_log_of_both_formats_tells_what_a_change_changes_and_what_it_cannot_tell() {
    let (old, new) =
        (whole(str::to_owned), whole(|istio| istio.replace("sa/order-service", "sa/user-service")));
    let requests = old.path().join("access.log");
    std::fs::write(&requests, log()).unwrap();
    let output =
        sidegate(&[&"diff", &old.path(), &new.path(), &"--requests", &requests, &"--output", &"json"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let told = json(&output);
    let changes: Vec<_> = told["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| {
            let caller = change["caller"].as_str().unwrap().rsplit('/').next().unwrap();
            (change["kind"].as_str().unwrap(), caller, change["count"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(changes, [("allowedToDenied", "order-service", 2), ("deniedToAllowed", "user-service", 1)]);
    // Istio's text does not say who called.
    assert_eq!((&told["requests"], &told["unknown"]), (&Value::from(5), &Value::from(1)), "{told}");
    assert_eq!(told["dependsOn"], serde_json::json!(["the caller"]));

    let same = sidegate(&[&"diff", &old.path(), &old.path(), &"--requests", &requests]);
    assert_eq!(same.status.code(), Some(0), "{}", text(&same));
    assert!(text(&same).contains("5 requests: 0 change, 0 unknown, 5 as before"), "{}", text(&same));
}

#[test]
fn a_port_that_stops_taking_plain_text_is_told() {
    let (old, new) = (whole(|istio| istio.replace("mode: STRICT", "mode: PERMISSIVE")), whole(str::to_owned));
    let requests = old.path().join("access.log");
    let plain = log().lines().nth(1).unwrap().replace("/elsewhere", "/api/payments/process");
    std::fs::write(&requests, plain).unwrap();
    let output = sidegate(&[&"diff", &old.path(), &new.path(), &"--requests", &requests]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("refused with 403, now connection closed"), "{}", text(&output));
}

#[test]
fn a_log_that_tells_nothing_is_wrong_usage() {
    let folder = whole(str::to_owned);
    let requests = folder.path().join("access.log");
    std::fs::write(&requests, "hello\n").unwrap();
    let output = sidegate(&[&"diff", &folder.path(), &folder.path(), &"--requests", &requests]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("1 are of neither format"), "{}", text(&output));
}

#[test]
fn many_rules_that_nothing_tells_apart_are_remarked() {
    let rules: Vec<_> = (0..150)
        .map(|at| format!("{{when: [{{key: \"request.headers[x-tenant]\", values: [t{at}]}}]}}"))
        .collect();
    let folder = whole(|istio| {
        format!(
            "{istio}\n---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: many, namespace: ecommerce}}\n\
             spec: {{rules: [{}]}}\n",
            rules.join(", ")
        )
    });
    let said = text(&sidegate(&[&"check", &folder.path()]));
    let line = "150 of 152 authorization rules are tried for every request";
    assert!(said.contains(line), "{said}");
    let said = text(&sidegate(&[&"check", &demo()]));
    assert!(!said.contains("tried for every request"), "{said}");
}
