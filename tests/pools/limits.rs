//! `maxConnections` towards HTTP/2 servers.

use crate::support::objects::{destination_rule, service};
use crate::support::{Client2, Proxy, Reply, Upstream, empty, eventually, request};

/// Calls that take a while, all at once.
async fn calls(proxy: &Proxy, count: usize) -> Vec<Reply> {
    let client = Client2::connect(proxy.outbound()).await;
    let calls =
        (0..count).map(|_| {
            let mut client = client.clone();
            async move {
                client.exchange(request("GET", "up2.shop", "/", &[("x-delay-ms", "100")], empty())).await
            }
        });
    futures_util::future::join_all(calls).await
}

fn two_streams(up: &Upstream, tcp: &str, http: &str) -> String {
    let pool = format!(
        "trafficPolicy: {{connectionPool: {{tcp: {{{tcp}}}, http: {{maxConcurrentStreams: 2{http}}}}}}}"
    );
    service("up2.shop", "HTTP2", &[up.address]) + &destination_rule("up2.shop", &pool)
}

#[tokio::test]
async fn more_streams_than_a_connection_takes_wait_for_room_where_the_limit_is_reached() {
    for (tcp, connections) in [("maxConnections: 1", 1), ("maxConnections: 2", 2), ("", 3)] {
        let up = Upstream::start().await;
        let proxy = Proxy::start(&two_streams(&up, tcp, "")).await;
        proxy.assert_no_complaints();
        for reply in calls(&proxy, 6).await {
            assert_eq!(reply.status, 200, "{tcp}: {}", reply.text());
        }
        assert_eq!((up.connections(), up.requests()), (connections, 6), "{tcp}");
        assert!(up.most_active() <= 2 * connections, "{tcp}");
    }
}

#[tokio::test]
async fn who_finds_too_many_waiting_is_told_so() {
    let up = Upstream::start().await;
    let proxy = Proxy::start(&two_streams(&up, "maxConnections: 1", ", http1MaxPendingRequests: 1")).await;
    let replies = calls(&proxy, 6).await;
    let refused: Vec<_> = replies.iter().filter(|reply| reply.status == 503).collect();
    assert_eq!((refused.len(), up.requests(), up.connections()), (3, 3, 1));
    for reply in refused {
        assert!(reply.text().contains("http1MaxPendingRequests"), "{}", reply.text());
    }
}

#[tokio::test]
async fn an_endpoint_without_a_connection_gets_one_whatever_the_limit() {
    let (one, other) = (Upstream::start().await, Upstream::start().await);
    let pool =
        "trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}, connectionPool: {tcp: {maxConnections: 1}}}";
    let objects = service("up2.shop", "HTTP2", &[one.address, other.address]);
    let proxy = Proxy::start(&(objects + &destination_rule("up2.shop", pool))).await;
    for reply in calls(&proxy, 8).await {
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    assert_eq!((one.connections(), other.connections()), (1, 1));
}

#[tokio::test]
async fn a_connection_that_its_server_closed_makes_room_for_another() {
    let up = Upstream::closing_idle(std::time::Duration::from_millis(50)).await;
    let proxy = Proxy::start(&two_streams(&up, "maxConnections: 1", "")).await;
    for round in 1..=3 {
        for reply in calls(&proxy, 4).await {
            assert_eq!(reply.status, 200, "{}", reply.text());
        }
        assert_eq!(up.connections(), round);
        eventually("the server closes", || up.open() == 0).await;
    }
}
