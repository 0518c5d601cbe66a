//! AuthorizationPolicy on the way to the application: requests, connections that are no HTTP, and tunnels.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use futures_util::{SinkExt, StreamExt};
use support::{Proxy, Raw, Upstream, client, empty, fetch, in_time, request};
use tokio_tungstenite::tungstenite::{Error, Message};

/// A sidecar in front of this application, with one policy.
async fn under(spec: &str, application: &Upstream) -> Proxy {
    let policy = format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {spec}\n"
    );
    let application = application.address;
    let inbound = format!("inbound: {{addresses: [\"127.0.0.1:0\"], application: \"{application}\"}}");
    let proxy = Proxy::with(&inbound, &policy).await;
    // Of ports it is said that several of them could not be told apart here.
    if !spec.contains("ports") {
        proxy.assert_no_complaints();
    }
    proxy
}

async fn status(proxy: &Proxy, path: &str, headers: &[(&str, &str)]) -> u16 {
    fetch(proxy.inbound(), request("GET", "app", path, headers, empty())).await.status.as_u16()
}

/// Whether bytes that are no HTTP come back from the application.
async fn echoes(proxy: &Proxy) -> bool {
    let mut raw = Raw::connect(proxy.inbound()).await;
    raw.send("\0ping").await;
    raw.finish().await;
    raw.rest().await == b"\0ping"
}

#[tokio::test]
async fn a_policy_holds_for_connections_that_are_no_http() {
    let application = Upstream::echo().await;
    let port = application.address.port();
    let refused = [
        "{rules: [{from: [{source: {namespaces: [ops]}}]}]}".to_owned(),
        "{}".to_owned(),
        "{action: DENY, rules: [{from: [{source: {ipBlocks: [127.0.0.0/8]}}]}]}".to_owned(),
        format!("{{action: DENY, rules: [{{to: [{{operation: {{ports: ['{port}']}}}}]}}]}}"),
        // What speaks of requests allows no connection.
        "{rules: [{to: [{operation: {paths: ['/*']}}]}]}".to_owned(),
    ];
    for spec in &refused {
        let proxy = under(spec, &application).await;
        assert!(!echoes(&proxy).await, "{spec}");
        proxy.stop().await;
    }
    assert_eq!(application.connections(), 0, "the application hears of none of them");
    let allowed = [
        "{rules: [{from: [{source: {ipBlocks: [127.0.0.0/8]}}]}]}".to_owned(),
        format!("{{rules: [{{to: [{{operation: {{ports: ['{port}']}}}}]}}]}}"),
        "{action: DENY, rules: [{to: [{operation: {ports: ['1']}}]}]}".to_owned(),
    ];
    for spec in &allowed {
        let proxy = under(spec, &application).await;
        assert!(echoes(&proxy).await, "{spec}");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_tunnel_is_judged_by_the_request_that_opens_it_and_not_again_as_bytes() {
    let application = Upstream::start().await;
    let proxy = under("{rules: [{to: [{operation: {paths: [/chat]}}]}]}", &application).await;
    let stream = client::connect(proxy.inbound()).await;
    let connecting = tokio_tungstenite::client_async("ws://app/chat", stream);
    let (mut socket, response) = in_time("the handshake", connecting).await.unwrap();
    assert_eq!(response.status(), 101);
    in_time("sending", socket.send(Message::text("hello"))).await.unwrap();
    let echo = in_time("an echo", socket.next()).await.unwrap().unwrap();
    assert_eq!(echo, Message::text("hello"));

    let stream = client::connect(proxy.inbound()).await;
    let refused = in_time("a refusal", tokio_tungstenite::client_async("ws://app/other", stream)).await;
    assert!(matches!(&refused, Err(Error::Http(response)) if response.status() == 403), "{refused:?}");
}

#[tokio::test]
async fn the_remote_address_of_a_request_is_the_clients() {
    let application = Upstream::start().await;
    let proxy =
        under("{rules: [{from: [{source: {remoteIpBlocks: [198.51.100.0/24]}}]}]}", &application).await;
    assert_eq!(status(&proxy, "/", &[]).await, 403);
    assert_eq!(status(&proxy, "/", &[("x-forwarded-for", "198.51.100.7")]).await, 200);
    let last_counts = [("x-forwarded-for", "198.51.100.7, 203.0.113.9")];
    assert_eq!(status(&proxy, "/", &last_counts).await, 403);
}
