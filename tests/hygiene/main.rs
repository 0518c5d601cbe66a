//! Each test is named by its row in the table of what has gone wrong in other proxies.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod bodies;
mod clients;
mod floods;
mod framing;
mod headers;
mod logs;
mod refusals;
mod targets;

use std::net::SocketAddr;
use support::objects::service;
use support::raw::{lossy, speak};
use support::{Proxy, Upstream, free_port};

async fn sidecar() -> (Proxy, Upstream) {
    sidecar_with("").await
}

async fn sidecar_with(spec: &str) -> (Proxy, Upstream) {
    let up = Upstream::start().await;
    let objects = service("up.shop", "HTTP", &[up.address]) + &service("up2.shop", "HTTP2", &[up.address]);
    let proxy = Proxy::with(spec, &objects).await;
    proxy.assert_no_complaints();
    (proxy, up)
}

/// A gateway for `shop.example.com`, and where it listens.
async fn gateway() -> (Proxy, Upstream, SocketAddr) {
    let up = Upstream::start().await;
    let (proxy, address) = gateway_to(up.address, "", "").await;
    proxy.assert_no_complaints();
    (proxy, up, address)
}

/// A gateway to a server of the test's own, with further fields of the Proxy and of its `gateway`.
async fn gateway_to(upstream: SocketAddr, spec: &str, role: &str) -> (Proxy, SocketAddr) {
    let port = free_port();
    let objects = service("up.shop", "HTTP", &[upstream])
        + "---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    bind: 127.0.0.1
    hosts: [\"*\"]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: shop}
spec:
  hosts: [\"*\"]
  gateways: [edge]
  http: [{route: [{destination: {host: up.shop}}]}]
";
    let spec = format!(
        "role: Gateway\nworkload: {{labels: {{istio: ingressgateway}}}}\ngateway: {{ports: {{\"80\": {port}}}{role}}}\n{spec}"
    );
    (Proxy::with(&spec, &objects).await, ([127, 0, 0, 1], port).into())
}

/// The first answer is a 4xx, and nothing comes after it but the end.
async fn assert_refused(proxy: SocketAddr, bytes: impl AsRef<[u8]>) {
    let answer = lossy(&speak(proxy, &bytes).await);
    let what = lossy(bytes.as_ref());
    let status = answer.split(' ').nth(1).unwrap_or("none");
    // A client that breaks framing may also just be cut off.
    assert!(
        answer.is_empty() || matches!(status, "400" | "404" | "414" | "431" | "501"),
        "{what:?}: {answer:?}"
    );
    assert_eq!(answer.matches("HTTP/1.1 ").count(), usize::from(!answer.is_empty()), "{what:?}: {answer:?}");
}
