//! AuditPolicy: the one that holds, and what is said of the others.

use super::*;
use crate::config::files::Store;
use crate::config::finding::Severity;
use crate::mesh::{Audit, ChainProtocol, Direction};

const ME: &str = "{workload: {labels: {app: me}}, inbound: {application: '127.0.0.1:9080'}}";

fn policy(namespace: &str, name: &str, path: &str, further: &str) -> String {
    format!(
        "\n---\napiVersion: sidegate.io/v1alpha1\nkind: AuditPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{file: {{path: {path}}}, {further}}}\n"
    )
}

fn audit(output: &Output) -> &Audit {
    output.mesh.telemetry.audit.as_ref().unwrap()
}

const MINE: &str = "selector: {matchLabels: {app: me}}";

#[test]
fn the_more_specific_place_wins_and_the_others_are_told() {
    let all = [
        policy("shop", "mine", "/a/mine", MINE),
        policy("shop", "all", "/a/all", ""),
        policy("istio-system", "mesh-mine", "/a/mesh-mine", MINE),
        policy("istio-system", "mesh", "/a/mesh", ""),
    ];
    for first in 0..all.len() {
        let output = run(&(proxy(ME) + &all[first..].concat()));
        let expected = ["/a/mine", "/a/all", "/a/mesh-mine", "/a/mesh"][first];
        assert_eq!(audit(&output).path.to_str(), Some(expected));
        let told: Vec<_> =
            output.findings.iter().filter(|finding| finding.code == "audit-shadowed").collect();
        assert_eq!(told.len(), all.len() - first - 1);
        assert!(told.iter().all(|finding| finding.severity == Severity::Info), "{told:?}");
    }
    let other = proxy(ME)
        + &policy("shop", "other", "/a/other", "selector: {matchLabels: {app: you}}")
        + &policy("elsewhere", "foreign", "/a/foreign", "");
    assert_eq!(run(&other).mesh.telemetry.audit, None);
}

#[test]
fn of_two_for_the_same_workloads_the_first_by_name_wins_and_that_is_a_warning() {
    let output = run(&(proxy(ME) + &policy("shop", "b", "/a/b", "") + &policy("shop", "a", "/a/a", "")));
    assert_eq!(audit(&output).path.to_str(), Some("/a/a"));
    let told = finding(&output, "audit-shadowed");
    assert_eq!((told.severity, &*told.object.as_ref().unwrap().name), (Severity::Warning, "b"));
}

#[test]
fn a_policy_says_what_it_says_and_the_rest_by_default() {
    let output = run(&(proxy(ME) + &policy("shop", "all", "/a/b", "")));
    let found = audit(&output);
    assert_eq!(
        (found.allowed_percent, found.configuration, found.certificate, found.admin),
        (0.0, true, true, true)
    );
    assert_eq!(
        (found.max_size, found.keep, found.sync_always, found.deny_when_full),
        (64 << 20, 10, false, false)
    );
    let further = "events: [Denied, Allowed], allowedPercent: 2.5, whenFull: Deny";
    let output = run(&(proxy(ME) + &policy("shop", "all", "/a/b", further)));
    let found = audit(&output);
    assert_eq!((found.allowed_percent, found.configuration, found.deny_when_full), (2.5, false, true));
}

#[test]
fn what_comes_in_is_audited_and_what_goes_out_is_not() {
    let output = run(&(proxy(ME) + &policy("shop", "all", "/a/b", "")));
    let mut seen = Vec::new();
    for listener in output.mesh.listeners.values() {
        for chain in listener.chains.iter().chain(&listener.default_chain) {
            let audited = match &chain.protocol {
                ChainProtocol::Http(http) => vec![http.audited],
                ChainProtocol::Tcp(tcp) => vec![tcp.audited],
                ChainProtocol::Detect { http, tcp } => vec![http.audited, tcp.audited],
                ChainProtocol::Refuse(_) => Vec::new(),
            };
            let inbound = listener.direction == Direction::Inbound;
            assert!(audited.iter().all(|one| *one == inbound), "{}", chain.name);
            seen.push(inbound);
        }
    }
    assert!(seen.contains(&true) && seen.contains(&false), "{seen:?}");
}

#[test]
fn a_rejected_policy_without_an_earlier_version_is_missing_where_it_would_hold() {
    let folder = tempfile::tempdir().unwrap();
    let broken = |selector: &str| policy("shop", "broken", "/a/b", &format!("evnts: [Denied], {selector}"));
    for (selector, missing) in [("", 1), (MINE, 1), ("selector: {matchLabels: {app: you}}", 0)] {
        std::fs::write(folder.path().join("a.yaml"), proxy(ME) + &broken(selector)).unwrap();
        let update = Store::new(vec![folder.path().to_owned()], Strictness::default()).reload();
        let output = run_on(&update.resources);
        assert_eq!(output.mesh.telemetry.audit_missing.len(), missing, "{selector}");
        assert_eq!(codes(&output).contains(&"audit-missing"), missing > 0);
        let unknown = update.findings.iter().find(|finding| finding.code == "unknown-field").unwrap();
        assert!(
            unknown.place.is_some() && unknown.field == "spec.evnts" && unknown.hint.contains("`events`")
        );
    }
}
