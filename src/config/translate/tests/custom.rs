//! CUSTOM policies: which provider is asked, and what closes them.

use std::time::Duration;

use super::*;
use crate::config::files::Store;
use crate::explain::{Outcome, Question, explain};
use crate::mesh::{ChainProtocol, UpstreamProtocol};
use crate::snapshot::Snapshot;
use filter_authorization::{
    Action, Custom, Failures, OnFailure, Policy, Provider, ProviderProtocol, Settings,
};

const OPA: &str = "{name: opa, envoyExtAuthzGrpc: {service: opa.mesh, port: 9191}}";

fn me(providers: &str) -> String {
    proxy(&format!(
        "{{workload: {{labels: {{app: me}}}}, inbound: {{application: '127.0.0.1:9080'}}, meshConfig: {{extensionProviders: [{providers}]}}}}"
    ))
}

fn entry(protocol: &str) -> String {
    istio(
        "ServiceEntry",
        "opa",
        &format!(
            "{{hosts: [opa.mesh], ports: [{{number: 9191, name: main, protocol: {protocol}}}], resolution: STATIC, endpoints: [{{address: 10.0.0.9}}]}}"
        ),
    )
}

fn ask(name: &str, provider: &str) -> String {
    annotated(
        name,
        "{}",
        &format!(
            "{{action: CUSTOM, provider: {{name: {provider}}}, rules: [{{to: [{{operation: {{paths: ['/asked*']}}}}]}}]}}"
        ),
    )
}

fn annotated(name: &str, annotations: &str, spec: &str) -> String {
    format!(
        "\n---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: shop, annotations: {annotations}}}\nspec: {spec}\n"
    )
}

fn settings(mesh: &Mesh) -> &Settings {
    let listener =
        mesh.listeners.values().find(|one| one.direction == crate::mesh::Direction::Inbound).unwrap();
    match &listener.default_chain.as_ref().unwrap().protocol {
        ChainProtocol::Http(http) | ChainProtocol::Detect { http, .. } => &http.filters.authorization[0],
        other => panic!("{other:?}"),
    }
}

fn provider_in(output: &Output) -> &Provider {
    match settings(&output.mesh).custom.as_deref() {
        Some(Custom::Provider(provider)) => provider,
        other => panic!("{other:?}: {:?}", output.findings),
    }
}

fn unaskable(output: &Output) -> &str {
    match settings(&output.mesh).custom.as_deref() {
        Some(Custom::Unaskable(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_provider_over_grpc_is_a_cluster_and_istios_defaults() {
    let output = run(&(me(OPA) + &entry("GRPC") + &ask("ask", "opa")));
    assert_eq!(output.findings, []);
    let provider = provider_in(&output);
    let expected = Provider {
        name: "opa".into(),
        protocol: ProviderProtocol::Grpc,
        cluster: "outbound|9191||opa.mesh".into(),
        host: "opa.mesh".into(),
        timeout: Duration::from_secs(600),
        fail_open: false,
        status_on_error: 403,
        body: None,
    };
    assert_eq!(*provider, expected);
    assert_eq!(cluster(&output.mesh, "outbound|9191||opa.mesh").protocol, UpstreamProtocol::Http2);
}

#[test]
fn a_provider_over_http_has_all_that_is_written() {
    let written = "{name: web, envoyExtAuthzHttp: {service: shop/opa.mesh, port: 9191, timeout: 250ms, pathPrefix: /check, failOpen: true, \
        statusOnError: '503', includeRequestHeadersInCheck: [cookie, x-*], includeAdditionalHeadersInCheck: {x-a: '1'}, \
        includeRequestBodyInCheck: {maxRequestBytes: 8, allowPartialMessage: true}, headersToUpstreamOnAllow: [x-user], \
        headersToDownstreamOnDeny: [x-why], headersToDownstreamOnAllow: [set-cookie]}}";
    let output = run(&(me(written) + &entry("HTTP") + &ask("ask", "web")));
    assert_eq!(output.findings, []);
    let provider = provider_in(&output);
    assert_eq!(
        (provider.timeout, provider.fail_open, provider.status_on_error),
        (Duration::from_millis(250), true, 503)
    );
    let body = provider.body.as_ref().unwrap();
    assert_eq!((body.most, body.partial, body.as_bytes), (8, true, false));
    let ProviderProtocol::Http(http) = &provider.protocol else { panic!("{provider:?}") };
    assert_eq!((&*http.path_prefix, http.added_headers.len()), ("/check", 1));
    assert_eq!(http.request_headers, ["cookie", "x-*"]);
    let lists = [&http.upstream_on_allow, &http.downstream_on_deny, &http.downstream_on_allow];
    assert_eq!(lists, [&["x-user"], &["x-why"], &["set-cookie"]]);
}

#[test]
fn a_provider_outside_of_the_sidecars_view_is_called_all_the_same() {
    let view = istio("Sidecar", "narrow", "{egress: [{hosts: ['./other.mesh']}]}");
    let output = run(&(me(OPA) + &entry("GRPC") + &view + &ask("ask", "opa")));
    assert!(output.mesh.clusters.contains_key("outbound|9191||opa.mesh"));
    let without = run(&(me(OPA) + &entry("GRPC") + &view));
    assert!(!without.mesh.clusters.contains_key("outbound|9191||opa.mesh"), "nobody asks it");
}

#[test]
fn a_provider_that_cannot_be_asked_closes_its_rules_and_is_said() {
    let with =
        |fields: &str| format!("{{name: opa, envoyExtAuthzGrpc: {{service: opa.mesh, port: 9191{fields}}}}}");
    let http =
        |fields: &str| format!("{{name: opa, envoyExtAuthzHttp: {{service: opa.mesh, port: 9191{fields}}}}}");
    let grpc = entry("GRPC");
    for (objects, why) in [
        (me("") + &grpc, "has no provider `opa`"),
        (me("{name: opa, prometheus: {}}") + &grpc, "has not one of"),
        (me(OPA), "no service `opa.mesh`"),
        (me("{name: opa, envoyExtAuthzGrpc: {service: opa.mesh, port: 1}}") + &grpc, "no port 1"),
        (me(OPA) + &entry("HTTP"), "not declared as gRPC"),
        (me(&with(", statusOnError: teapot")) + &grpc, "statusOnError `teapot`"),
        (me(&with(", includeRequestBodyInCheck: {packAsBytes: true}")) + &grpc, "maxRequestBytes"),
        (me(&http(", pathPrefix: check")) + &grpc, "pathPrefix"),
    ] {
        let output = run(&(objects + &ask("ask", "opa")));
        assert!(unaskable(&output).contains(why), "{why}: {}", unaskable(&output));
        let finding = finding(&output, "unaskable-provider");
        assert!(finding.message.contains(why), "{}", finding.message);
        assert!(finding.field.ends_with("spec.provider.name"), "{}", finding.field);
        let (snapshot, problems) = Snapshot::compile(output.mesh, None);
        assert!(problems.is_empty(), "{problems:?}");
        let outcome =
            explain(&snapshot, &Question::parse("GET", "http://me.shop/asked", []).unwrap().inbound(true))
                .outcome;
        assert!(matches!(outcome, Outcome::Refused { status: 403, .. }), "{outcome:?}");
        let outcome =
            explain(&snapshot, &Question::parse("GET", "http://me.shop/free", []).unwrap().inbound(true))
                .outcome;
        assert!(!outcome.is_refused(), "{outcome:?}");
    }
}

#[test]
fn two_providers_of_one_workload_close_what_both_are_asked_about() {
    let providers = format!("{OPA}, {{name: web, envoyExtAuthzHttp: {{service: opa.mesh, port: 9191}}}}");
    let objects = me(&providers) + &entry("GRPC") + &ask("one", "opa") + &ask("two", "web");
    let output = run(&objects);
    assert!(unaskable(&output).contains("several providers"));
    assert_eq!(output.findings.len(), 2, "each policy is told: {:?}", output.findings);
    let trial = objects.replace(
        "name: two, namespace: shop, annotations: {}",
        "name: two, namespace: shop, annotations: {istio.io/dry-run: 'true'}",
    );
    assert_eq!(provider_in(&run(&trial)).name, "opa", "one on trial asks nobody");
}

#[test]
fn explain_asks_nobody_says_so_and_goes_on_as_if_it_were_allowed() {
    let deny = annotated("deny", "{}", "{action: DENY, rules: [{to: [{operation: {paths: ['*/no']}}]}]}");
    let output = run(&(me(OPA) + &entry("GRPC") + &ask("ask", "opa") + &deny));
    let (snapshot, _) = Snapshot::compile(output.mesh, None);
    let ask = |path: &str| {
        let question = Question::parse("GET", &format!("http://me.shop{path}"), []).unwrap().inbound(true);
        let explained = explain(&snapshot, &question);
        (serde_json::to_string(&explained).unwrap(), explained.outcome)
    };
    let (words, outcome) = ask("/asked");
    assert!(words.contains("provider `opa` would be asked"), "{words}");
    assert!(!outcome.is_refused(), "{outcome:?}");
    assert!(ask("/asked/no").1.is_refused());
}

/// The policies in force, and what is said of the objects.
fn policies(annotations: &str, action: &str) -> (Vec<Policy>, String) {
    let folder = tempfile::TempDir::new().unwrap();
    let yaml = annotated("ask", annotations, &format!("{{{action}, rules: [{{}}]}}"));
    std::fs::write(folder.path().join("a.yaml"), me(OPA) + &entry("GRPC") + &yaml).unwrap();
    let mut store = Store::new(vec![folder.path().to_owned()], Strictness::default());
    let loaded = store.reload();
    let said = format!("{:?}", loaded.findings);
    (settings(&run_on(&loaded.resources).mesh).policies.to_vec(), said)
}

#[test]
fn annotations_say_what_becomes_of_requests_without_a_verdict_and_how_long_one_is_kept() {
    let custom = "action: CUSTOM, provider: {name: opa}";
    let (found, said) = policies(
        "{sidegate.io/custom-on-timeout: '504', sidegate.io/custom-on-unreachable: allow, sidegate.io/custom-on-error: deny, sidegate.io/custom-cache-ttl: 5s}",
        custom,
    );
    let Action::Custom { failures, cache, .. } = &found[0].action else { panic!("{said}") };
    let expected = Failures {
        timeout: Some(OnFailure::Status(504)),
        unreachable: Some(OnFailure::Allow),
        error: Some(OnFailure::Deny),
    };
    assert_eq!((*failures, *cache), (expected, Some(Duration::from_secs(5))), "{said}");
    for (annotation, action) in [
        ("{sidegate.io/custom-on-timeout: maybe}", custom),
        ("{sidegate.io/custom-on-error: '200'}", custom),
        ("{sidegate.io/custom-cache-ttl: 2h}", custom),
        ("{sidegate.io/custom-cache-ttl: soon}", custom),
        ("{sidegate.io/custom-on-timeout: allow}", "action: ALLOW"),
    ] {
        let (found, said) = policies(annotation, action);
        assert!(found[0].closed.is_some() && said.contains("bad-annotation"), "{annotation}: {said}");
    }
}
