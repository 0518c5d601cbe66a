//! RequestAuthentication: tokens are verified with keys of an issuer in the mesh, which change while the proxy runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::issuer::Issuer;
use support::objects::service;
use support::{Proxy, Reply, Upstream, empty, fetch, request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What the server of keys answers with; empty: it is down.
type Shown = Arc<Mutex<String>>;

async fn key_server(shown: Shown) -> Upstream {
    Upstream::tcp(move |_, mut stream| {
        let shown = shown.clone();
        async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await?);
            }
            let body = shown.lock().unwrap().clone();
            let status = if body.is_empty() { "503 Service Unavailable" } else { "200 OK" };
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await
        }
    })
    .await
}

fn authentication(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n"
    )
}

const RULE: &str = "{jwtRules: [{issuer: \"http://issuer.mesh\", jwksUri: \"http://issuer.mesh/keys\", outputClaimToHeaders: [{header: x-user, claim: sub}]}]}";

async fn ask(proxy: &Proxy, headers: &[(&str, &str)]) -> Reply {
    fetch(proxy.inbound(), request("GET", "app", "/p", headers, empty())).await
}

async fn with_token(proxy: &Proxy, token: &str) -> Reply {
    ask(proxy, &[("authorization", &format!("Bearer {token}"))]).await
}

async fn start(objects: &str, application: &Upstream, state: &str) -> Proxy {
    let inbound = format!(
        "inbound: {{addresses: [\"127.0.0.1:0\"], application: \"{}\"}}\n{state}",
        application.address
    );
    Proxy::with(inbound.trim_end(), objects).await
}

#[tokio::test]
async fn tokens_are_verified_with_keys_that_are_fetched_through_the_mesh() {
    let (first, second) = (Issuer::new("one"), Issuer::new("two"));
    let shown: Shown = Arc::new(Mutex::new(first.jwks()));
    let (keys, application) = (key_server(shown.clone()).await, Upstream::start().await);
    let objects =
        format!("{}{}", service("issuer.mesh", "HTTP", &[keys.address]), authentication("users", RULE));
    let proxy = start(&objects, &application, "").await;
    proxy.assert_no_complaints();

    let anonymous = ask(&proxy, &[("x-user", "root")]).await;
    assert_eq!(anonymous.status, 200, "a request without a token passes");
    assert!(anonymous.seen("x-user").is_empty(), "and says nothing of itself");
    let known = with_token(&proxy, &first.token("alice")).await;
    assert_eq!((known.status.as_u16(), known.seen("x-user")), (200, vec!["alice".to_owned()]));
    assert!(known.seen("authorization").is_empty(), "the token ends here");

    let forged = Issuer::new("one").token("root");
    let refused = with_token(&proxy, &forged).await;
    assert_eq!(refused.status.as_u16(), 401);
    assert!(refused.text().starts_with("Jwt verification fails (decision "), "{}", refused.text());
    assert_eq!(refused.header("www-authenticate"), "Bearer realm=\"http://app/p\", error=\"invalid_token\"");

    // The issuer changes its key: the first that brings the new one is refused, and makes the proxy look.
    *shown.lock().unwrap() = second.jwks();
    let new = second.token("bob");
    assert_eq!(with_token(&proxy, &new).await.status, 401);
    let end = Instant::now() + support::PATIENCE;
    while with_token(&proxy, &new).await.status != 200 {
        assert!(Instant::now() < end, "the new key never came");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(with_token(&proxy, &first.token("alice")).await.status, 401, "the old key is gone");

    // The issuer is down, the configuration is loaded again: the keys stay.
    shown.lock().unwrap().clear();
    proxy.edit(support::proxy::OBJECTS, &format!("# again\n{objects}")).await;
    assert_eq!(with_token(&proxy, &new).await.status, 200);
}

#[tokio::test]
async fn where_the_object_is_not_valid_no_token_counts_until_it_is() {
    let issuer = Issuer::new("one");
    let application = Upstream::start().await;
    let inline = format!("{{jwtRules: [{{issuer: \"http://issuer.mesh\", jwks: '{}'}}]}}", issuer.jwks());
    let good = authentication("users", &inline);
    let proxy = start(&good, &application, "").await;
    let token = issuer.token("alice");
    assert_eq!(with_token(&proxy, &token).await.status, 200);

    let broken = authentication("others", "{jwtRules: [{issuer: \"http://x\", jwks: 'no keys'}]}");
    proxy.edit("others.yaml", &broken).await;
    assert!(proxy.complaints().contains("no token counts"), "{}", proxy.complaints());
    let refused = with_token(&proxy, &token).await;
    assert_eq!(refused.status, 401);
    assert!(refused.text().contains("RequestAuthentication here is not valid"));
    assert_eq!(ask(&proxy, &[]).await.status, 200);

    // For others alone it closes nothing here.
    let selective = broken.replace("spec: {", "spec: {selector: {matchLabels: {app: other}}, ");
    proxy.edit("others.yaml", &selective).await;
    assert_eq!(with_token(&proxy, &token).await.status, 200);

    // A valid object that becomes invalid stays as it was.
    proxy.remove("others.yaml").await;
    proxy.edit(support::proxy::OBJECTS, &good.replace("keys", "kyes")).await;
    assert_eq!(with_token(&proxy, &token).await.status, 200);
}

#[tokio::test]
async fn the_keys_of_the_last_run_serve_the_next_and_the_metrics_tell_of_them() {
    let issuer = Issuer::new("one");
    let shown: Shown = Arc::new(Mutex::new(issuer.jwks()));
    let (keys, application) = (key_server(shown.clone()).await, Upstream::start().await);
    let objects =
        format!("{}{}", service("issuer.mesh", "HTTP", &[keys.address]), authentication("users", RULE));
    let folder = tempfile::tempdir().unwrap();
    let state = format!("state: {{directory: \"{}\"}}", folder.path().display());
    let proxy = start(&objects, &application, &state).await;
    assert_eq!(with_token(&proxy, &issuer.token("alice")).await.status, 200);
    support::eventually("the keys are kept", || {
        std::fs::read_dir(folder.path().join("jwks"))
            .is_ok_and(|files| files.flatten().any(|file| file.path().extension().is_none()))
    })
    .await;
    proxy.stop().await;

    shown.lock().unwrap().clear();
    let proxy = start(&objects, &application, &state).await;
    assert_eq!(with_token(&proxy, &issuer.token("alice")).await.status, 200, "though the issuer is down");
    let end = Instant::now() + support::PATIENCE;
    loop {
        let page =
            fetch(proxy.page("metrics"), request("GET", "m", "/stats/prometheus", &[], empty())).await.text();
        let says = |name: &str| page.lines().any(|line| line.starts_with(name) && line.ends_with(" 1"));
        if says("sidegate_jwks_keys{")
            && page.contains("sidegate_jwks_fetch_failures_total{")
            && page.contains("sidegate_jwt_cache_misses_total")
        {
            break;
        }
        assert!(Instant::now() < end, "{page}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn policies_are_asked_about_tokens_that_were_verified() {
    let (issuer, application) = (Issuer::new("one"), Upstream::start().await);
    let rule = format!("{{jwtRules: [{{issuer: \"http://issuer.mesh\", jwks: '{}'}}]}}", issuer.jwks());
    let policy = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\n\
        spec: {rules: [{from: [{source: {requestPrincipals: [\"http://issuer.mesh/alice\"]}}]}]}\n";
    let proxy = start(&format!("{}{policy}", authentication("users", &rule)), &application, "").await;
    assert_eq!(with_token(&proxy, &issuer.token("alice")).await.status, 200);
    assert_eq!(with_token(&proxy, &issuer.token("bob")).await.status, 403);
    assert_eq!(ask(&proxy, &[]).await.status, 403, "who has no token is nobody");
    let forged = with_token(&proxy, &Issuer::new("one").token("alice")).await;
    assert_eq!(forged.status.as_u16(), 401);
    assert!(forged.text().starts_with("Jwt verification fails (decision "), "{}", forged.text());
}
