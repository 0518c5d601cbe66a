//! AuthorizationPolicy: which hold for a workload, and what closes a scope.

use super::*;
use crate::config::files::Store;
use crate::explain::{Outcome, Question, explain};
use crate::mesh::{ChainProtocol, HttpChain};
use crate::snapshot::Snapshot;
use filter_authorization::{Action, DestinationPort, Policy};

fn policy(namespace: &str, name: &str, spec: &str) -> String {
    annotated(namespace, name, "{}", spec)
}

fn annotated(namespace: &str, name: &str, annotations: &str, spec: &str) -> String {
    format!(
        "\n---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: {namespace}, annotations: {annotations}}}\nspec: {spec}\n"
    )
}

const ME: &str = "{workload: {labels: {app: me, version: v1}}, inbound: {application: '127.0.0.1:9080'}}";

fn chain(mesh: &Mesh) -> &HttpChain {
    let listener =
        mesh.listeners.values().find(|one| one.direction == crate::mesh::Direction::Inbound).unwrap();
    match &listener.default_chain.as_ref().unwrap().protocol {
        ChainProtocol::Http(http) | ChainProtocol::Detect { http, .. } => http,
        other => panic!("{other:?}"),
    }
}

/// The policies in force for the application, by name.
fn policies(mesh: &Mesh) -> Vec<&Policy> {
    chain(mesh).filters.authorization.iter().flat_map(|settings| settings.policies.iter()).collect()
}

fn names(mesh: &Mesh) -> Vec<String> {
    policies(mesh).iter().map(|policy| format!("{}/{}", policy.namespace, policy.name)).collect()
}

#[test]
fn policies_of_the_namespace_and_of_the_root_hold_where_they_select() {
    let yaml = proxy(ME)
        + &policy("shop", "mine", "{selector: {matchLabels: {app: me}}, rules: [{}]}")
        + &policy("shop", "all", "{rules: [{}]}")
        + &policy("shop", "another", "{selector: {matchLabels: {app: you}}, rules: [{}]}")
        + &policy("istio-system", "mesh", "{rules: [{}]}")
        + &policy("istio-system", "mesh-mine", "{selector: {matchLabels: {version: v1}}, rules: [{}]}")
        + &policy("elsewhere", "foreign", "{rules: [{}]}");
    assert_eq!(
        names(&run(&yaml).mesh),
        ["istio-system/mesh", "istio-system/mesh-mine", "shop/all", "shop/mine"]
    );
}

#[test]
fn what_is_attached_to_a_gateway_is_that_gateways() {
    let target = "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}]";
    let attached = policy("shop", "edge", &format!("{{{target}, rules: [{{}}]}}"));
    assert!(names(&run(&(proxy(ME) + &attached)).mesh).is_empty(), "a sidecar has no part in it");
    let labels = "{workload: {labels: {gateway.networking.k8s.io/gateway-name: edge}}, inbound: {application: '127.0.0.1:1'}}";
    assert_eq!(names(&run(&(proxy(labels) + &attached)).mesh), ["shop/edge"]);
}

#[test]
fn each_rule_keeps_its_place_and_a_policy_on_trial_its_mark() {
    let trial = annotated(
        "shop",
        "a",
        "{istio.io/dry-run: 'true'}",
        "{action: DENY, rules: [{}, {to: [{operation: {ports: ['1']}}]}]}",
    );
    let output = run(&(proxy(ME) + &trial));
    let found = policies(&output.mesh);
    assert!(found[0].dry_run && found[0].action == Action::Deny);
    assert!(
        found[0].rules[1]
            .origin
            .to_string()
            .starts_with("AuthorizationPolicy shop/a spec.rules[1] (test.yaml:")
    );
    assert!(finding(&output, "ports-unknown").message.contains("known only after routing"));
    let wrong = annotated("shop", "a", "{istio.io/dry-run: 'yes'}", "{rules: [{}]}");
    let output = run(&(proxy(ME) + &wrong));
    assert!(!policies(&output.mesh)[0].dry_run && codes(&output).contains(&"dry-run"));
}

#[test]
fn cluster_local_in_a_principal_is_the_own_trust_domain_and_its_aliases() {
    let mesh = "{trustDomain: prod.example, workload: {labels: {app: me}}, inbound: {application: '127.0.0.1:1'}, meshConfig: {trustDomainAliases: [old.example]}}";
    let principals = |text: &str| {
        let spec = format!("{{rules: [{{from: [{{source: {{principals: ['{text}']}}}}]}}]}}");
        let output = run(&(proxy(mesh) + &policy("shop", "a", &spec)));
        policies(&output.mesh)[0].rules[0].from[0].principals.clone()
    };
    let both = ["prod.example/ns/a/sa/b", "old.example/ns/a/sa/b"];
    assert_eq!(principals("cluster.local/ns/a/sa/b"), both);
    assert_eq!(principals("old.example/ns/a/sa/b"), both);
    assert_eq!(principals("other.example/ns/a/sa/b"), ["other.example/ns/a/sa/b"]);
    assert_eq!(principals("*/ns/a/sa/b"), ["*/ns/a/sa/b"]);
    assert_eq!(principals("*.example/ns/a/sa/b"), ["*.example/ns/a/sa/b"]);
}

#[test]
fn the_port_of_the_application_is_known_where_there_is_one_alone() {
    let all = policy("shop", "all", "{rules: [{}]}");
    let port = |yaml: &str| chain(&run(yaml).mesh).filters.authorization[0].destination_port;
    assert_eq!(port(&(proxy(ME) + &all)), DestinationPort::Fixed(9080));
    let two = service("me", "[{name: http, port: 80, targetPort: 8080}]");
    assert_eq!(port(&(proxy(ME) + &all + &two)), DestinationPort::Unknown);
    let captured = "{interception: REDIRECT, workload: {labels: {app: me}}}";
    assert_eq!(port(&(proxy(captured) + &all)), DestinationPort::Connection);
}

/// What connections that are no HTTP are asked for, by chain.
fn bytes(mesh: &Mesh) -> Vec<(String, Option<DestinationPort>)> {
    let chains = mesh.listeners.values().filter(|one| one.direction != crate::mesh::Direction::Outbound);
    let chains = chains.flat_map(|listener| listener.chains.iter().chain(&listener.default_chain));
    let tcp = chains.filter_map(|chain| match &chain.protocol {
        ChainProtocol::Tcp(tcp) | ChainProtocol::Detect { tcp, .. } => Some((chain, tcp)),
        _ => None,
    });
    tcp.map(|(chain, tcp)| {
        assert!(tcp.filters.jwt.is_empty(), "bytes bring no token");
        let asked = tcp.filters.authorization.first().map(|settings| settings.destination_port);
        (chain.name.to_string(), asked)
    })
    .collect()
}

#[test]
fn connections_that_are_no_http_meet_the_policies_too() {
    let all = policy("shop", "all", "{rules: [{}]}");
    let some = |chains: &[(&str, DestinationPort)]| -> Vec<_> {
        chains.iter().map(|(name, port)| ((*name).to_owned(), Some(*port))).collect()
    };
    assert_eq!(bytes(&run(&(proxy(ME) + &all)).mesh), some(&[("inbound", DestinationPort::Fixed(9080))]));
    let unix = "{workload: {labels: {app: me}}, inbound: {application: 'unix:/app'}}";
    assert_eq!(bytes(&run(&(proxy(unix) + &all)).mesh), some(&[("inbound", DestinationPort::Unknown)]));
    let ports = "[{name: tcp-db, port: 5432, targetPort: 5432}, {name: any, port: 80, targetPort: 8080}]";
    let captured = proxy("{interception: REDIRECT, workload: {labels: {app: me}}}") + &service("me", ports);
    let connection = DestinationPort::Connection;
    assert_eq!(
        bytes(&run(&(captured.clone() + &all)).mesh),
        some(&[
            ("0.0.0.0_5432", connection),
            ("0.0.0.0_8080", connection),
            ("virtualInbound-catchall", connection)
        ])
    );
    assert!(bytes(&run(&captured).mesh).iter().all(|(_, asked)| asked.is_none()));
}

#[test]
fn a_gateway_judges_the_connections_that_it_passes_on() {
    let yaml = proxy("{role: Gateway, workload: {labels: {app: edge}}}")
        + "
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: db, namespace: shop}
spec: {selector: {app: edge}, servers: [{port: {number: 5432, name: tcp, protocol: TCP}, hosts: ['*']}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: db, namespace: shop}
spec: {hosts: ['*'], gateways: [db], tcp: [{route: [{destination: {host: db.shop.svc.cluster.local, port: {number: 5432}}}]}]}
"
        + &policy("shop", "all", "{rules: [{}]}");
    let found = bytes(&run(&yaml).mesh);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].1, Some(DestinationPort::Connection));
}

#[test]
fn a_workload_without_policies_has_no_filter() {
    assert!(chain(&run(&proxy(ME)).mesh).filters.authorization.is_empty());
}

/// What a folder with these texts in turn comes to, first to last.
fn reloads(texts: &[&str]) -> Output {
    let folder = tempfile::TempDir::new().unwrap();
    let mut store = Store::new(vec![folder.path().to_owned()], Strictness::default());
    let mut output = Output::default();
    for text in texts {
        // A file that is written in place is not believed at once when it lacks a policy.
        std::fs::write(folder.path().join("new"), format!("{}{text}", proxy(ME))).unwrap();
        std::fs::rename(folder.path().join("new"), folder.path().join("a.yaml")).unwrap();
        output = run_on(&store.reload().resources);
    }
    output
}

#[test]
fn a_rejected_policy_closes_its_scope() {
    let bad = |selector: &str| {
        policy(
            "shop",
            "bad",
            &format!("{{selector: {selector}, rules: [{{from: [{{source: {{ipBlocks: [x]}}}}]}}]}}"),
        )
    };
    let output = reloads(&[&bad("{matchLabels: {app: me}}")]);
    let found = policies(&output.mesh);
    assert_eq!((found.len(), &found[0].action, found[0].rules.len()), (1, &Action::Deny, 1));
    assert!(
        found[0].closed.as_deref().unwrap().contains("spec.rules[0].from[0].source.ipBlocks[0]"),
        "{found:?}"
    );
    assert!(finding(&output, "closed-scope").message.contains("every request is refused"));
    assert!(
        policies(&reloads(&[&bad("{matchLabels: {app: you}}")]).mesh).is_empty(),
        "another workload is left alone"
    );
    for unreadable in ["{matchLabel: {app: you}}", "{matchLabels: [app]}", "you"] {
        assert_eq!(names(&reloads(&[&bad(unreadable)]).mesh), ["shop/bad"], "{unreadable}");
    }
}

#[test]
fn a_rejected_policy_leaves_its_last_good_version_in_force() {
    let good = policy("shop", "p", "{rules: [{to: [{operation: {paths: [/a]}}]}]}");
    let bad = policy("shop", "p", "{rules: [{to: [{operation: {paths: ['/{x']}}]}]}");
    let output = reloads(&[&good, &bad, &(bad.clone() + "\n")]);
    assert_eq!(policies(&output.mesh)[0].rules[0].to[0].paths, ["/a"]);
    let output = reloads(&[&bad, &(bad.clone() + "\n"), &good]);
    assert!(policies(&output.mesh)[0].closed.is_none(), "a good version opens it again");
    assert!(policies(&reloads(&[&bad, ""]).mesh).is_empty(), "and so does taking it away");
    assert!(
        policies(&reloads(&[&bad, &(bad.clone() + "\n")]).mesh)[0].closed.is_some(),
        "what stands in is no version"
    );
}

#[test]
fn row_1_every_spelling_of_a_path_meets_the_rule_of_its_canonical_form() {
    let deny = policy("shop", "deny", "{action: DENY, rules: [{to: [{operation: {paths: ['/admin*']}}]}]}");
    let (snapshot, problems) = Snapshot::compile(run(&(proxy(ME) + &deny)).mesh, None);
    assert!(problems.is_empty(), "{problems:?}");
    let ask = |path: &str| {
        let question = Question::parse("GET", &format!("http://me.shop{path}"), []).unwrap().inbound(true);
        explain(&snapshot, &question).outcome
    };
    for path in [
        "/admin",
        "/%61dmin",
        "/%61%64min/x",
        "/app/../admin",
        "/app/%2E./admin",
        "/./admin?x",
        "/app/%2e%2e/admin",
        "/admin%2f",
    ] {
        let outcome = ask(path);
        assert!(
            matches!(&outcome, Outcome::Refused { status: 403, why, .. } if why.contains("shop/deny rule 0")),
            "{path}: {outcome:?}"
        );
    }
    assert!(!ask("/app?/admin").is_refused() && !ask("/Admin").is_refused());
}

#[test]
fn explaining_tells_the_caller_from_others() {
    let spec = "{rules: [{from: [{source: {namespaces: [ops]}}]}]}";
    // Only a port that ends mutual TLS knows callers.
    let identity = "identity: {files: {certificate: a, privateKey: b, trustBundle: c}}";
    let me = proxy(&ME.replacen('{', &format!("{{{identity}, "), 1));
    let (snapshot, _) = Snapshot::compile(run(&(me + &policy("shop", "ops", spec))).mesh, None);
    let question = || Question::parse("GET", "http://me.shop/", []).unwrap().inbound(true);
    let refused = explain(&snapshot, &question());
    assert!(
        matches!(&refused.outcome, Outcome::Refused { hint, .. } if hint.contains("--principal")),
        "{:?}",
        refused.outcome
    );
    let asked = explain(&snapshot, &question().by("cluster.local/ns/ops/sa/bot").unwrap());
    assert!(
        !asked.outcome.is_refused()
            && asked.policies.iter().any(|step| step.held && step.origin.contains("spec.rules[0]"))
    );
}
