//! AccessPolicy on the way to the application: bands of risk, steps up, roles, sessions, shadow, and what is closed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use sidegate::identity::issue::Authority;
use std::net::SocketAddr;
use support::issuer::{Issuer, now};
use support::proxy::OBJECTS;
use support::{Proxy, Raw, Reply, Upstream, certificates, empty, fetch, request};

fn policy(spec: &str) -> String {
    format!(
        "---\napiVersion: sidegate.io/v1alpha1\nkind: AccessPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {spec}\n"
    )
}

fn users(issuer: &Issuer) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: users, namespace: shop}}\n\
         spec: {{jwtRules: [{{issuer: \"http://issuer.mesh\", jwks: '{}'}}]}}\n",
        issuer.jwks()
    )
}

fn inbound(application: &Upstream) -> String {
    format!("inbound: {{addresses: [\"127.0.0.1:0\"], application: \"{}\"}}", application.address)
}

/// A sidecar in front of this application that has nothing to complain about.
async fn under(objects: &str, application: &Upstream) -> Proxy {
    let proxy = Proxy::with(&inbound(application), objects).await;
    proxy.assert_no_complaints();
    proxy
}

async fn ask(proxy: &Proxy, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
    fetch(proxy.inbound(), request(method, "app", path, headers, empty())).await
}

async fn status(proxy: &Proxy, headers: &[(&str, &str)]) -> u16 {
    ask(proxy, "GET", "/", headers).await.status.as_u16()
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// The sidecar of `account`, which calls `app` by mutual TLS.
async fn caller(authority: &Authority, account: &str, endpoint: SocketAddr) -> Proxy {
    let app = format!(
        "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: app, namespace: shop}}
spec:
  hosts: [app]
  ports: [{{number: 80, name: main, protocol: HTTP}}]
  location: MESH_INTERNAL
  resolution: STATIC
  endpoints:
  - address: {}
    ports: {{main: {}}}
    labels: {{security.istio.io/tlsMode: istio}}
    serviceAccount: payment-service
",
        endpoint.ip(),
        endpoint.port()
    );
    Proxy::secured(authority, account, "", &app).await
}

#[tokio::test]
async fn a_trusted_peer_says_the_risk_and_nobody_else_does() {
    let bands = policy(
        "{risk: {header: {name: x-risk-score, from: [cluster.local/ns/shop/sa/scorer]}}, rules: [
        {name: high, when: [{key: risk.score, above: 0.7}], effect: Deny},
        {name: middle, when: [{key: risk.score, above: 0.3}], effect: StepUp},
        {name: low, effect: Allow}]}",
    );
    let (authority, application) = (certificates::authority(), Upstream::start().await);
    let server = Proxy::secured(&authority, "payment-service", &inbound(&application), &bands).await;
    server.assert_no_complaints();
    let scorer = caller(&authority, "scorer", server.inbound()).await;
    let web = caller(&authority, "web", server.inbound()).await;
    let scored = async |proxy: &Proxy, score: &str| {
        fetch(proxy.outbound(), request("GET", "app", "/", &[("x-risk-score", score)], empty())).await
    };
    let low = scored(&scorer, "0.2").await;
    assert_eq!((low.status.as_u16(), low.seen("x-risk-score")), (200, vec!["0.2".to_owned()]));
    let middle = scored(&scorer, "0.5").await;
    assert_eq!(middle.status, 401);
    assert_eq!(middle.header("www-authenticate"), "Bearer error=\"insufficient_user_authentication\"");
    assert_eq!(scored(&scorer, "0.9").await.status, 403);
    assert_eq!(scored(&scorer, "very high").await.status, 403, "what cannot be read lets nobody in");
    let ignored = scored(&web, "0.9").await;
    assert_eq!(ignored.status, 200);
    assert!(ignored.seen("x-risk-score").is_empty(), "and taken away");
    assert_eq!(status(&server, &[("x-risk-score", "0.9")]).await, 200, "plain text proves nothing");
}

#[tokio::test]
async fn roles_give_permissions_and_old_tokens_are_sent_back() {
    let spec = policy(
        "{session: {maxTokenAge: 15m},
        roles: [{claim: roles, value: manager, permissions: ['orders:write']}],
        permissions: [{name: 'orders:write', match: [{methods: [POST], paths: ['/orders/*']}]}],
        rules: [{name: users, when: [{key: request.auth.principal, values: ['*']}], effect: Allow,
          actions: [{addHeader: {name: x-access, value: user}}]}]}",
    );
    let (issuer, application) = (Issuer::new("one"), Upstream::start().await);
    let proxy = under(&format!("{}{spec}", users(&issuer)), &application).await;
    let fresh = |claims: &str| bearer(&issuer.token_with("alice", &format!(",\"iat\":{}{claims}", now())));
    let manager = fresh(",\"roles\":[\"clerk\",\"manager\"]");
    let clerk = fresh(",\"roles\":[\"clerk\"]");
    let write =
        async |token: &str| ask(&proxy, "POST", "/orders/1", &[("authorization", token)]).await.status;
    assert_eq!((write(&manager).await.as_u16(), write(&clerk).await.as_u16()), (200, 403));
    let read = ask(&proxy, "GET", "/orders/1", &[("authorization", &clerk), ("x-access", "root")]).await;
    assert_eq!((read.status.as_u16(), read.seen("x-access")), (200, vec!["user".to_owned()]));
    assert_eq!(status(&proxy, &[]).await, 403, "no rule holds for nobody");
    let old = bearer(&issuer.token_with("alice", &format!(",\"iat\":{}", now() - 1000)));
    for token in [old, bearer(&issuer.token("alice"))] {
        let sent_back = ask(&proxy, "GET", "/", &[("authorization", &token)]).await;
        assert_eq!(sent_back.status, 401);
        assert_eq!(
            sent_back.header("www-authenticate"),
            "Bearer error=\"insufficient_user_authentication\", max_age=\"900\""
        );
    }
    assert_eq!(application.requests(), 2, "the application hears of no refusal");
}

#[tokio::test]
async fn both_kinds_of_policy_have_to_allow() {
    let application = Upstream::start().await;
    let authorization = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: shop}\n\
        spec: {rules: [{to: [{operation: {paths: [/a, /both]}}]}]}\n";
    let access = policy("{rules: [{match: [{paths: [/b, /both]}], effect: Allow}]}");
    let proxy = under(&format!("{authorization}{access}"), &application).await;
    for (path, expected) in [("/a", 403), ("/b", 403), ("/both", 200), ("/none", 403)] {
        assert_eq!(ask(&proxy, "GET", path, &[]).await.status, expected, "{path}");
    }
}

#[tokio::test]
async fn a_client_cannot_write_what_a_policy_writes_for_any_policy_to_read() {
    let application = Upstream::start().await;
    let authorization = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: shop}\n\
        spec: {rules: [{when: [{key: 'request.headers[x-access]', values: ['*']}]}]}\n";
    let access = policy("{rules: [{effect: Allow, actions: [{addHeader: {name: x-access, value: a}}]}]}");
    let proxy = under(&format!("{authorization}{access}"), &application).await;
    assert_eq!(status(&proxy, &[("x-access", "a")]).await, 403);
    assert_eq!(status(&proxy, &[("x_access", "a")]).await, 403);
}

#[tokio::test]
async fn attempts_that_are_refused_by_whomever_raise_the_risk() {
    let spec = policy(
        "{risk: {signals: {failedAttempts: 1}}, rules: [
        {name: guessing, when: [{key: risk.score, above: 0.3}], effect: Deny}, {name: all, effect: Allow}]}",
    );
    let (issuer, application) = (Issuer::new("one"), Upstream::start().await);
    let proxy = under(&format!("{}{spec}", users(&issuer)), &application).await;
    let forged = bearer(&Issuer::new("one").token("root"));
    assert_eq!(status(&proxy, &[]).await, 200);
    for _ in 0..5 {
        assert_eq!(status(&proxy, &[("authorization", &forged)]).await, 401);
    }
    assert_eq!(status(&proxy, &[]).await, 403, "five tokens were forged from here");
    // What was seen outlives a reload; a policy that does not ask is not held up.
    proxy.edit(OBJECTS, &format!("# again\n{}{spec}", users(&issuer))).await;
    assert_eq!(status(&proxy, &[]).await, 403);
    proxy.edit(OBJECTS, &policy("{rules: [{effect: Allow}]}")).await;
    assert_eq!(status(&proxy, &[]).await, 200);
}

#[tokio::test]
async fn a_policy_in_shadow_changes_nothing_until_it_is_enforced() {
    let spec = |mode: &str| {
        policy(&format!(
            "{{mode: {mode}, default: Allow, rules: [{{match: [{{paths: ['/']}}], effect: Deny}}, \
             {{effect: Allow, actions: [{{addHeader: {{name: x-access, value: a}}}}]}}]}}"
        ))
    };
    let application = Upstream::start().await;
    let proxy = under(&spec("Shadow"), &application).await;
    let tried = ask(&proxy, "GET", "/", &[("x-access", "own")]).await;
    assert_eq!((tried.status.as_u16(), tried.seen("x-access")), (200, vec!["own".to_owned()]));
    proxy.edit(OBJECTS, &spec("Enforce")).await;
    assert_eq!(status(&proxy, &[]).await, 403);
    assert_eq!(ask(&proxy, "GET", "/x", &[("x-access", "own")]).await.seen("x-access"), ["a"]);
}

#[tokio::test]
async fn a_rejected_policy_closes_until_it_is_mended_and_a_good_one_stays() {
    let application = Upstream::start().await;
    let bad = policy("{rules: [{effect: Allow, when: [{key: riks.score, below: 0.5}]}]}");
    let proxy = Proxy::with(&inbound(&application), &bad).await;
    let said = proxy.complaints();
    assert!(said.contains("`riks.score` is no attribute") && said.contains("its scope is closed"), "{said}");
    assert_eq!(status(&proxy, &[]).await, 403);
    proxy.edit(OBJECTS, &policy("{rules: [{effect: Allow}]}")).await;
    assert_eq!(status(&proxy, &[]).await, 200);
    proxy.edit(OBJECTS, &bad).await;
    assert_eq!(status(&proxy, &[]).await, 200, "the last good version");
}

#[tokio::test]
async fn connections_that_are_no_http_are_judged_by_what_speaks_of_them() {
    let application = Upstream::echo().await;
    for (spec, passes) in [
        ("{rules: [{when: [{key: source.ip, values: [127.0.0.0/8]}], effect: Allow}]}", true),
        ("{rules: [{when: [{key: connection.tls, values: [mutual]}], effect: Allow}]}", false),
        ("{rules: [{match: [{methods: ['*']}], effect: Allow}]}", false),
        ("{default: Allow, rules: [{match: [{methods: ['*']}], effect: Deny}]}", false),
        (
            "{risk: {signals: {noClientCertificate: 0.5}}, default: Allow, \
            rules: [{when: [{key: risk.score, above: 0.4}], effect: StepUp}]}",
            false,
        ),
    ] {
        let proxy = under(&policy(spec), &application).await;
        let mut raw = Raw::connect(proxy.inbound()).await;
        raw.send("\0ping").await;
        raw.finish().await;
        assert_eq!(raw.rest().await == b"\0ping", passes, "{spec}");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn the_example_is_loaded_and_lets_nobody_in_who_proves_nothing() {
    let example = include_str!("../config/examples/access-policy.yaml");
    let (authority, application) = (certificates::authority(), Upstream::start().await);
    let server = Proxy::secured(&authority, "payment-service", &inbound(&application), example).await;
    server.assert_no_complaints();
    assert_eq!(status(&server, &[]).await, 403);
    let web = caller(&authority, "web", server.inbound()).await;
    let reply = fetch(web.outbound(), request("GET", "app", "/", &[], empty())).await;
    assert_eq!((reply.status.as_u16(), application.requests()), (403, 0));
}
