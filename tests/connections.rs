//! Connections, down- and upstream: how long they live, how many there are, what becomes of those who wait.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;
use support::{Proxy, Raw};

#[tokio::test]
async fn the_only_connection_of_a_worker_is_held_to_the_time_for_a_head() {
    let proxy = Proxy::with("limits: {headerTimeout: 1s}", "").await;
    let mut raw = Raw::connect(proxy.outbound()).await;
    raw.send("GET / HTTP/1.1\r\n").await;
    assert!(raw.is_at_end().await, "a head that does not end");
}

#[tokio::test]
async fn an_http_2_connection_without_requests_outlives_the_time_for_a_head() {
    let proxy = Proxy::with("limits: {headerTimeout: 1s}", "").await;
    let mut raw = Raw::connect(proxy.outbound()).await;
    raw.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    tokio::time::sleep(Duration::from_millis(3500)).await;
    raw.send(b"\0\0\x08\x06\0\0\0\0\0sidegate").await;
    let mut seen = Vec::new();
    while !seen.ends_with(b"sidegate") {
        let some = raw.some().await;
        assert!(!some.is_empty(), "closed: a ping, a window update or settings begin no head");
        seen.extend(some);
    }
}
