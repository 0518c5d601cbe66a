//! What goes in as HTTP/1, HTTP/2, gRPC, WebSocket or plain bytes comes out as it should.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod bytes;
mod extended_connect;
mod grpc;
mod http;
mod tunnels;

use support::objects::service;
use support::{Proxy, Upstream};

/// A proxy in front of one upstream that is called by HTTP/1 as `up.shop` and by HTTP/2 as `up2.shop`.
async fn one_upstream() -> (Proxy, Upstream) {
    let up = Upstream::start().await;
    let objects = service("up.shop", "HTTP", &[up.address]) + &service("up2.shop", "HTTP2", &[up.address]);
    let proxy = Proxy::start(&objects).await;
    proxy.assert_no_complaints();
    (proxy, up)
}
