use std::path::Path;

use crate::config::decode::{Strictness, decode};

/// Code and field of each finding about one object of this kind and spec.
fn found(kind: &str, spec: &str) -> Vec<(&'static str, String)> {
    let group = match kind {
        "Service" => "v1",
        "Proxy" | "AuditPolicy" => "sidegate.io/v1alpha1",
        "AuthorizationPolicy" | "PeerAuthentication" | "RequestAuthentication" => "security.istio.io/v1",
        _ => "networking.istio.io/v1",
    };
    let yaml = format!("apiVersion: {group}\nkind: {kind}\nmetadata: {{name: x}}\nspec: {spec}\n");
    let reading = decode(&Path::new("t.yaml").into(), &yaml, Strictness::default());
    assert!(!reading.unreadable, "{:?}", reading.findings);
    let findings = reading.objects.into_iter().flat_map(|object| object.findings);
    findings
        .filter(|finding| finding.code != "not-enforced")
        .map(|finding| (finding.code, finding.field))
        .collect()
}

fn one(kind: &str, spec: &str, code: &str, field: &str) {
    assert_eq!(found(kind, spec), [(code, field.to_owned())], "{spec}");
}

/// A VirtualService with one HTTP rule.
fn rule(rule: &str) -> String {
    format!("{{hosts: [a], http: [{{{rule}}}]}}")
}

const TO: &str = "route: [{destination: {host: a}}]";

#[test]
fn a_route_does_exactly_one_thing() {
    one("VirtualService", &rule("timeout: 1s"), "no-route", "spec.http[0]");
    one(
        "VirtualService",
        &rule(&format!("{TO}, redirect: {{uri: /x}}")),
        "conflict",
        "spec.http[0].redirect",
    );
    one(
        "VirtualService",
        &rule("redirect: {uri: /x}, rewrite: {uri: /}"),
        "conflict",
        "spec.http[0].rewrite",
    );
    assert_eq!(found("VirtualService", &rule(TO)), []);
}

#[test]
fn weights_must_lead_somewhere() {
    let split = |a: u32, b: u32| {
        rule(&format!(
            "route: [{{destination: {{host: a}}, weight: {a}}}, {{destination: {{host: b}}, weight: {b}}}]"
        ))
    };
    one("VirtualService", &split(0, 0), "no-weight", "spec.http[0].route");
    one("VirtualService", &split(50, 60), "weights-not-100", "spec.http[0].route");
    assert_eq!(found("VirtualService", &split(90, 10)), []);
    one(
        "VirtualService",
        &rule("route: [{destination: {host: a}, weight: -1}]"),
        "bad-value",
        "spec.http[0].route[0].weight",
    );
}

#[test]
fn hosts_are_host_names() {
    one("VirtualService", &format!("{{hosts: ['a b'], http: [{{{TO}}}]}}"), "bad-host", "spec.hosts[0]");
    one("VirtualService", &format!("{{hosts: ['*'], http: [{{{TO}}}]}}"), "wildcard-host", "spec.hosts[0]");
    one("VirtualService", "{hosts: [a]}", "no-route", "spec");
    one(
        "VirtualService",
        &rule("route: [{destination: {host: 'a:80'}}]"),
        "bad-host",
        "spec.http[0].route[0].destination.host",
    );
    assert_eq!(found("VirtualService", &format!("{{http: [{{{TO}}}]}}")), [], "a delegate has no hosts");
}

#[test]
fn matches_compile_and_can_match() {
    let matched = |of: &str| rule(&format!("match: [{{{of}}}], {TO}"));
    one("VirtualService", &matched("uri: {regex: '(?=x)'}"), "bad-regex", "spec.http[0].match[0].uri.regex");
    one(
        "VirtualService",
        &matched("uri: {regex: '(a{1000}){1000}'}"),
        "bad-regex",
        "spec.http[0].match[0].uri.regex",
    );
    one("VirtualService", &matched("uri: {prefix: api}"), "never-matches", "spec.http[0].match[0].uri");
    one("VirtualService", &matched("uri: {}"), "empty-match", "spec.http[0].match[0].uri");
    one(
        "VirtualService",
        &matched("headers: {'a b': {exact: x}}"),
        "bad-header",
        "spec.http[0].match[0].headers[\"a b\"]",
    );
    one("VirtualService", &matched("port: 0"), "bad-port", "spec.http[0].match[0].port");
    assert_eq!(found("VirtualService", &matched("headers: {x-a: {}}")), [], "an empty match is presence");
}

#[test]
fn a_route_behind_one_without_match_is_reported() {
    one(
        "VirtualService",
        &format!("{{hosts: [a], http: [{{{TO}}}, {{{TO}}}]}}"),
        "unreachable-route",
        "spec.http[1]",
    );
}

#[test]
fn statuses_and_forms_are_checked() {
    one(
        "VirtualService",
        &rule("redirect: {uri: /, redirectCode: 200}"),
        "bad-status",
        "spec.http[0].redirect.redirectCode",
    );
    one(
        "VirtualService",
        &rule("directResponse: {status: 99}"),
        "bad-status",
        "spec.http[0].directResponse.status",
    );
    one("VirtualService", &rule("redirect: {}"), "empty-redirect", "spec.http[0].redirect");
    one(
        "VirtualService",
        &rule(&format!("{TO}, headers: {{request: {{set: {{':path': /}}}}}}")),
        "bad-header",
        "spec.http[0].headers.request.set[\":path\"]",
    );
}

#[test]
fn subsets_have_names_of_their_own() {
    one(
        "DestinationRule",
        "{host: a, subsets: [{name: v1}, {name: v1}]}",
        "duplicate",
        "spec.subsets[1].name",
    );
    one("DestinationRule", "{subsets: []}", "empty-host", "spec.host");
    one(
        "DestinationRule",
        "{host: a, trafficPolicy: {connectionPool: {tcp: {connectTimeout: 0s}}}}",
        "bad-duration",
        "spec.trafficPolicy.connectionPool.tcp.connectTimeout",
    );
    one(
        "DestinationRule",
        "{host: a, trafficPolicy: {outlierDetection: {consecutiveErrors: 5}}}",
        "deprecated",
        "spec.trafficPolicy.outlierDetection.consecutiveErrors",
    );
}

#[test]
fn entries_sidecars_and_gateways_are_checked() {
    let entry = |rest: &str| format!("{{hosts: [a.com], ports: [{{number: 80, name: http}}], {rest}}}");
    one("ServiceEntry", &entry("resolution: STATIC"), "no-endpoint", "spec.endpoints");
    one(
        "ServiceEntry",
        &entry("resolution: STATIC, endpoints: [{address: b.com}]"),
        "bad-address",
        "spec.endpoints[0].address",
    );
    one("ServiceEntry", &entry("endpoints: [{address: 1.2.3.4}]"), "conflict", "spec.endpoints");
    assert_eq!(found("ServiceEntry", &entry("resolution: DNS")), []);
    one("Sidecar", "{egress: [{hosts: [a]}]}", "no-namespace", "spec.egress[0].hosts[0]");
    one(
        "Sidecar",
        "{ingress: [{port: {number: 80}, defaultEndpoint: '8.8.8.8:80'}]}",
        "bad-address",
        "spec.ingress[0].defaultEndpoint",
    );
    one(
        "Gateway",
        "{servers: [{hosts: [a], port: {number: 443, name: x, protocol: HTTPS}}]}",
        "no-tls",
        "spec.servers[0].tls",
    );
    one("Service", "{ports: [{port: 1}, {port: 2, name: b}]}", "no-name", "spec.ports[0].name");
}

#[test]
fn a_proxy_is_checked() {
    one("Proxy", "{admin: {address: here}}", "bad-address", "spec.admin.address");
    one("Proxy", "{drain: {propagation: 1m}}", "bad-drain", "spec.drain.propagation");
    one("Proxy", "{workers: 0}", "bad-number", "spec.workers");
    one("Proxy", "{explain: {allowedPercent: 101}}", "bad-number", "spec.explain.allowedPercent");
    one("Proxy", "{explain: {allowedPercent: .nan}}", "bad-number", "spec.explain.allowedPercent");
}

#[test]
fn rules_of_redaction_that_cannot_be_used_reject_the_proxy() {
    let pattern = "spec.redaction.masks[0].pattern";
    one("Proxy", "{redaction: {masks: [{}]}}", "bad-mask", pattern);
    one("Proxy", "{redaction: {masks: [{find: Email, pattern: x}]}}", "bad-mask", pattern);
    one("Proxy", "{redaction: {masks: [{pattern: '('}]}}", "bad-redaction", pattern);
    one("Proxy", "{redaction: {headers: ['a b']}}", "bad-redaction", "spec.redaction.headers[0]");
    let fine =
        "{redaction: {headers: [X-A], query: [q], masks: [{find: Card}, {pattern: x, pseudonym: true}]}}";
    assert_eq!(found("Proxy", fine), []);
}

#[test]
fn security_objects_with_empty_conditions_are_rejected() {
    one(
        "AuthorizationPolicy",
        "{rules: [{from: [{source: {}}]}]}",
        "bad-policy",
        "spec.rules[0].from[0].source",
    );
    one(
        "PeerAuthentication",
        "{selector: {matchLabels: {a: b}}, portLevelMtls: {http: {mode: STRICT}}}",
        "bad-port",
        "spec.portLevelMtls.http",
    );
}

#[test]
fn operators_of_envoy_in_header_values_are_said_to_be_literal() {
    let set = |value: &str| {
        let route = "route: [{destination: {host: a}}]";
        format!("{{hosts: [a], http: [{{{route}, headers: {{request: {{set: {{x-a: '{value}'}}}}}}}}]}}")
    };
    for value in ["%REQ(x-user)%", "a %PROTOCOL% b"] {
        one("VirtualService", &set(value), "literal-value", "spec.http[0].headers.request.set.x-a");
    }
    for value in ["100%", "50% of %d", "%20%20", "%%", "a%REQ"] {
        assert_eq!(found("VirtualService", &set(value)), [], "{value}");
    }
}

#[test]
fn rules_for_tokens_that_cannot_work_are_rejected() {
    let rule = |fields: &str| format!("{{jwtRules: [{{issuer: i, {fields}}}]}}");
    for (fields, code, field) in [
        ("jwks: 'no keys'", "bad-jwks", "jwks"),
        ("jwks: '{\"keys\": [{\"kty\": \"EC\", \"crv\": \"P-521\"}]}'", "bad-jwks", "jwks"),
        ("jwksUri: \"file:///etc/passwd\"", "bad-uri", "jwksUri"),
        ("outputPayloadToHeader: content-length", "bad-header", "outputPayloadToHeader"),
        (
            "outputClaimToHeaders: [{header: host, claim: sub}]",
            "bad-header",
            "outputClaimToHeaders[0].header",
        ),
        ("outputClaimToHeaders: [{header: x-a}]", "no-claim", "outputClaimToHeaders[0].claim"),
        ("fromCookies: ['']", "no-name", "fromCookies[0]"),
    ] {
        one("RequestAuthentication", &rule(fields), code, &format!("spec.jwtRules[0].{field}"));
    }
}

#[test]
fn an_audit_needs_a_file_that_it_can_read_again_and_never_leaves_refusals_out() {
    let audit = |further: &str| format!("{{file: {{path: /var/log/audit.jsonl}}, {further}}}");
    assert_eq!(found("AuditPolicy", &audit("events: [Denied, Allowed], allowedPercent: 1")), []);
    one("AuditPolicy", &audit("events: [Admin]"), "no-denied", "spec.events");
    one("AuditPolicy", &audit("allowedPercent: 1"), "no-effect", "spec.allowedPercent");
    one(
        "AuditPolicy",
        &audit("events: [Denied, Allowed], allowedPercent: 101"),
        "bad-number",
        "spec.allowedPercent",
    );
    for path in ["audit.jsonl", "/var/log/", "/var/../audit", "/dev/stdout", "''", "/"] {
        one("AuditPolicy", &format!("{{file: {{path: {path}}}}}"), "bad-path", "spec.file.path");
    }
    one("AuditPolicy", "{file: {path: /a, maxSize: 1Ki}}", "bad-number", "spec.file.maxSize");
    one("AuditPolicy", "{file: {path: /a, keep: 0}}", "bad-number", "spec.file.keep");
    one("AuditPolicy", &audit("whenFull: Drop"), "bad-value", "spec.whenFull");
    one("AuditPolicy", &audit("mode: Shadow"), "unknown-field", "spec.mode");
}

#[test]
fn what_the_data_path_could_not_do_rejects_its_object() {
    for (written, field) in [
        (format!("{TO}, rewrite: {{authority: \"a b\"}}"), "rewrite.authority"),
        (format!("{TO}, rewrite: {{uri: \"/a b\"}}"), "rewrite.uri"),
        (
            format!("{TO}, rewrite: {{uriRegexRewrite: {{match: \"/(a)\", rewrite: \"/\\\\2\"}}}}"),
            "rewrite.uriRegexRewrite",
        ),
        ("redirect: {uri: \"/ä\"}".to_owned(), "redirect"),
        ("redirect: {authority: \"a:80\", port: 81}".to_owned(), "redirect"),
        (format!("{TO}, headers: {{request: {{set: {{\":authority\": \"x y\"}}}}}}"), "headers"),
        (format!("{TO}, headers: {{response: {{set: {{transfer-encoding: chunked}}}}}}"), "headers"),
        (
            "route: [{destination: {host: a}, headers: {request: {add: {content-length: \"3\"}}}}]"
                .to_owned(),
            "route[0].headers",
        ),
    ] {
        one("VirtualService", &rule(&written), "bad-action", &format!("spec.http[0].{field}"));
    }
    let slash = rule(&format!("{TO}, rewrite: {{uri: new/}}"));
    one("VirtualService", &slash, "no-slash", "spec.http[0].rewrite.uri");
    for fine in ["uri: {regex: \"/[\\\\w-]{1,200}/[\\\\w-]{1,200}\"}", "headers: {\":method\": {exact: PUT}}"]
    {
        assert_eq!(found("VirtualService", &rule(&format!("{TO}, match: [{{{fine}}}]"))), [], "{fine}");
    }
}
