//! Connections, down- and upstream: how long they live, how many there are, what becomes of those who wait.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;
use support::objects::{destination_rule, service};
use support::{Client1, Client2, Proxy, Raw, Upstream, eventually, fetch, free_port, get, request};

#[tokio::test]
async fn the_only_connection_of_a_worker_is_held_to_the_time_for_a_head() {
    let proxy = Proxy::with("limits: {headerTimeout: 1s}", "").await;
    let mut raw = Raw::connect(proxy.outbound()).await;
    raw.send("GET / HTTP/1.1\r\n").await;
    assert_eq!(raw.reply().await.status, 408, "a head that does not end");
    assert!(raw.is_at_end().await);
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

/// A number of the metrics page, of all series of this family together.
async fn metric(proxy: &Proxy, family: &str) -> f64 {
    let page = fetch(proxy.page("metrics"), get("localhost", "/stats/prometheus")).await.text();
    let values = page.lines().filter(|line| line.starts_with(family));
    values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn open_connections(proxy: &Proxy) -> u32 {
    proxy.status.shared().connections(sidegate::mesh::Direction::Outbound)
}

#[tokio::test]
async fn a_client_of_an_http_port_that_says_nothing_is_closed_and_counted() {
    for opening in ["", "GET / HT", "PRI * HTTP/2.0\r\n"] {
        let proxy = Proxy::with("limits: {handshakeTimeout: 200ms}", "").await;
        let mut raw = Raw::connect(proxy.outbound()).await;
        raw.send(opening).await;
        eventually("the proxy knows of it before it says anything", || open_connections(&proxy) == 1).await;
        if opening.starts_with("GET") {
            // A path after a known method is HTTP already: the rest is the head's time.
            raw.send("TP/1.1\r\nHost: nobody\r\n\r\n").await;
            assert_eq!(raw.reply().await.status, 404);
            continue;
        }
        assert!(raw.is_at_end().await, "{opening:?}");
        eventually("it is forgotten", || open_connections(&proxy) == 0).await;
        assert_eq!(metric(&proxy, "sidegate_detection_timeouts_total").await, 1.0);
        assert_eq!(metric(&proxy, "sidegate_limit_hits_total{limit=\"request_overall_timeout\"").await, 1.0);
    }
}

#[tokio::test]
async fn a_connection_without_a_byte_neither_holds_up_the_end_nor_loses_its_first_request() {
    let up = Upstream::start().await;
    let proxy =
        Proxy::with("drain: {propagation: 0s, gracePeriod: 20s}", &service("up.shop", "HTTP", &[up.address]))
            .await;
    let mut silent = Raw::connect(proxy.outbound()).await;
    let mut late = Raw::connect(proxy.outbound()).await;
    eventually("both are known", || open_connections(&proxy) == 2).await;
    let began = std::time::Instant::now();
    let stopping = tokio::spawn(proxy.stop());
    tokio::time::sleep(Duration::from_millis(300)).await;
    late.send("GET / HTTP/1.1\r\nHost: up.shop\r\n\r\n").await;
    let reply = late.reply().await;
    assert_eq!((reply.status, reply.header("connection")), (200, "close"));
    assert!(silent.is_at_end().await);
    stopping.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

/// A service of one upstream whose pool holds one connection.
fn one_connection(protocol: &str, up: &Upstream) -> String {
    let pool = "trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}}}";
    service("up.shop", protocol, &[up.address]) + &destination_rule("up.shop", pool)
}

#[tokio::test]
async fn a_burst_opens_no_more_connections_than_the_limit() {
    let up = Upstream::start().await;
    let proxy = Proxy::start(&one_connection("HTTP", &up)).await;
    let outbound = proxy.outbound();
    let calls = (0..10)
        .map(|_| fetch(outbound, request("GET", "up.shop", "/", &[("x-delay-ms", "20")], support::empty())));
    for reply in futures_util::future::join_all(calls).await {
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    assert_eq!(up.connections(), 1);
}

#[tokio::test]
async fn who_waits_for_a_connection_opens_one_when_it_is_closed_instead() {
    let up = Upstream::start().await;
    let proxy = Proxy::start(&one_connection("HTTP", &up)).await;
    let outbound = proxy.outbound();
    let slow = [("x-delay-ms", "300")];
    let first = fetch(outbound, request("GET", "up.shop", "/close", &slow, support::empty()));
    let second = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let began = std::time::Instant::now();
        (fetch(outbound, get("up.shop", "/second")).await, began.elapsed())
    };
    let (first, (second, waited)) = tokio::join!(first, second);
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (200, 200), "{}", second.text());
    assert!(waited < Duration::from_secs(5), "woken, not late: {waited:?}");
}

#[tokio::test]
async fn upgraded_connections_are_counted_until_they_end() {
    let up = Upstream::start().await;
    let proxy = Proxy::start(&one_connection("HTTP", &up)).await;
    let upgrade = "GET /up HTTP/1.1\r\nHost: up.shop\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    let mut first = Raw::connect(proxy.outbound()).await;
    first.send(upgrade).await;
    assert_eq!(first.head().await.unwrap().0, 101);
    let mut second = Raw::connect(proxy.outbound()).await;
    second.send(upgrade).await;
    let reply = second.reply().await;
    assert_eq!(reply.status, 503);
    assert!(reply.text().contains("upgraded connections"), "{}", reply.text());
    first.finish().await;
    assert!(first.is_at_end().await);
    second.send(upgrade).await;
    assert_eq!(second.head().await.unwrap().0, 101);
}

#[tokio::test]
async fn an_upgrade_that_the_http_2_server_does_not_take_is_refused_and_not_forwarded_as_half() {
    let up = Upstream::start().await;
    let proxy = Proxy::start(&one_connection("HTTP2", &up)).await;
    let mut raw = Raw::connect(proxy.outbound()).await;
    raw.send("GET /up HTTP/1.1\r\nHost: up.shop\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").await;
    let reply = raw.reply().await;
    assert_eq!(reply.status, 403, "{}", reply.head);
    assert!(reply.text().contains("does not take extended CONNECT"), "{}", reply.text());
    assert_eq!(up.requests(), 0);
}

#[tokio::test]
async fn a_tunnel_without_a_byte_ends_after_the_idle_time() {
    let up = Upstream::start().await;
    let proxy = Proxy::with("limits: {idleTimeout: 1s}", &service("up.shop", "HTTP", &[up.address])).await;
    let mut raw = Raw::connect(proxy.outbound()).await;
    raw.send("GET /up HTTP/1.1\r\nHost: up.shop\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").await;
    assert_eq!(raw.head().await.unwrap().0, 101);
    assert!(raw.is_at_end().await);
}

#[tokio::test]
async fn a_protocol_is_switched_only_for_who_asked() {
    let up = Upstream::start().await;
    let proxy = Proxy::start(&service("up.shop", "HTTP", &[up.address])).await;
    let mut client = Client1::connect(proxy.outbound()).await;
    assert_eq!(client.exchange(get("up.shop", "/status/101")).await.status, 502);
}

#[tokio::test]
async fn an_endpoint_that_is_the_proxy_itself_is_not_called() {
    let port = free_port();
    let own = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let spec = format!("outbound: {{addresses: [\"{own}\"]}}");
    let proxy = Proxy::with(&spec, &service("up.shop", "HTTP", &[own])).await;
    let reply = fetch(proxy.outbound(), get("up.shop", "/")).await;
    assert_eq!(reply.status, 508, "{}", reply.text());
}

#[tokio::test]
async fn a_client_that_stops_reading_is_cut_off_after_the_stream_idle_time() {
    let up = Upstream::start().await;
    let objects = service("up.shop", "HTTP", &[up.address]);
    let proxy = Proxy::with("limits: {streamIdleTimeout: 1s}", &objects).await;
    let mut raw = Raw::connect(proxy.outbound()).await;
    raw.send("GET /endless HTTP/1.1\r\nHost: up.shop\r\n\r\n").await;
    eventually("the upstream is called", || up.open() == 1).await;
    eventually("the upstream connection is let go", || up.open() == 0).await;
}

#[tokio::test]
async fn no_more_clients_than_allowed_are_served_at_once() {
    let up = Upstream::start().await;
    let proxy = Proxy::with("limits: {maxConnections: 1}", &service("up.shop", "HTTP", &[up.address])).await;
    let mut first = Client1::connect(proxy.outbound()).await;
    assert_eq!(first.exchange(get("up.shop", "/")).await.status, 200);
    assert!(Raw::connect(proxy.outbound()).await.is_at_end().await);
    drop(first);
    eventually("its place is free again", || {
        proxy.status.shared().connections(sidegate::mesh::Direction::Outbound) == 0
    })
    .await;
    assert_eq!(fetch(proxy.outbound(), get("up.shop", "/")).await.status, 200);
}

#[tokio::test]
async fn more_headers_than_the_codec_reads_by_itself_pass_when_they_are_allowed() {
    let up = Upstream::start().await;
    let proxy = Proxy::with("limits: {maxHeaders: 150}", &service("up2.shop", "HTTP2", &[up.address])).await;
    for (count, status) in [(120, 200), (160, 431)] {
        let mut raw = Raw::connect(proxy.outbound()).await;
        let headers: String = (0..count).map(|n| format!("x-{n}: 1\r\n")).collect();
        raw.send(format!("GET / HTTP/1.1\r\nHost: up2.shop\r\n{headers}\r\n")).await;
        assert_eq!(raw.reply().await.status, status, "{count}");
    }
}

#[tokio::test]
async fn an_http_2_upstream_gets_the_authority_that_was_matched() {
    let up = Upstream::start().await;
    let proxy = Proxy::start(&service("up2.shop", "HTTP2", &[up.address])).await;
    let mut client = Client2::connect(proxy.outbound()).await;
    let reply = client.exchange(get("UP2.Shop.", "/x")).await;
    assert_eq!(reply.echo()["target"], "http://up2.shop/x");
}

/// What becomes of streams of one HTTP/2 connection whose client reads none of them, while it goes on with others.
async fn streams_that_nobody_reads(window: u32) {
    let up = Upstream::start().await;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let spec =
        format!("limits: {{streamIdleTimeout: 1s}}\nmeshConfig: {{accessLogFile: \"{}\"}}", log.display());
    let limit = "trafficPolicy: {connectionPool: {tcp: {maxConnections: 3}}}";
    let objects = service("up.shop", "HTTP", &[up.address]) + &destination_rule("up.shop", limit);
    let proxy = Proxy::with(&spec, &objects).await;
    let socket = support::client::connect(proxy.outbound()).await;
    let (mut client, connection) = h2::client::Builder::new()
        .initial_window_size(window)
        .initial_connection_window_size(1 << 20)
        .handshake::<_, bytes::Bytes>(socket)
        .await
        .unwrap();
    let running = tokio::spawn(connection);
    let message = |method: &str, path: &str| {
        http::Request::builder().method(method).uri(format!("http://up.shop{path}")).body(()).unwrap()
    };
    let mut unread = Vec::new();
    for path in ["/endless", "/small"] {
        let (answer, _) = client.send_request(message("GET", path), true).unwrap();
        unread.push(support::in_time("a head", answer).await.unwrap());
    }
    // Others on the same connection go on, before, while and after those are ended.
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_millis(3500) {
        let (answer, _) = client.send_request(message("HEAD", "/other"), true).unwrap();
        assert_eq!(support::in_time("an answer", answer).await.unwrap().status(), 200);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let small = window >= 1024;
    for (answer, read) in unread.into_iter().zip([false, small]) {
        let mut body = answer.into_body();
        let mut end = None;
        while let Some(chunk) = support::in_time("the end", body.data()).await {
            match chunk {
                Ok(_) => {}
                Err(error) => {
                    end = error.reason();
                    break;
                }
            }
        }
        assert_eq!(end.is_some(), !read, "{end:?}");
    }
    // What was read whole from the upstream goes back to the pool.
    let pooled = if small { 1 } else { 2 };
    eventually("the endless answer is let go", || up.open() == pooled).await;
    for _ in 0..4 {
        let (answer, _) = client.send_request(message("HEAD", "/after"), true).unwrap();
        assert_eq!(support::in_time("an answer", answer).await.unwrap().status(), 200);
    }
    drop(client);
    proxy.stop().await;
    running.abort();
    let log = std::fs::read_to_string(log).unwrap();
    let ended: Vec<_> = log.lines().filter(|line| line.contains(" SI ")).collect();
    assert_eq!(ended.len() as u64, pooled, "{log}");
    assert_eq!(log.matches("/endless").count() + log.matches("/small").count(), 2, "each once: {log}");
}

#[tokio::test]
async fn an_http_2_stream_with_a_closed_window_is_ended_and_its_connection_goes_on() {
    streams_that_nobody_reads(0).await;
}

#[tokio::test]
async fn an_http_2_stream_that_its_client_stops_reading_is_ended_and_its_connection_goes_on() {
    streams_that_nobody_reads(20_000).await;
}

#[tokio::test]
async fn the_bytes_of_a_tcp_connection_are_counted_while_it_lives_and_exactly_at_its_end() {
    let echo = Upstream::echo().await;
    let port = free_port();
    let objects = support::objects::service_at("db.shop", port, "TCP", &[echo.address])
        + &format!(
            "---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: client, namespace: shop}}
spec:
  egress:
  - {{port: {{number: {port}, name: tcp, protocol: TCP}}, bind: 127.0.0.1, captureMode: NONE, hosts: [\"./*\"]}}
"
        );
    let proxy = Proxy::start(&objects).await;
    let mut raw = Raw::connect(([127, 0, 0, 1], port).into()).await;
    raw.send("ping").await;
    assert_eq!(raw.exactly(4).await, b"ping");
    let began = std::time::Instant::now();
    while metric(&proxy, "istio_tcp_sent_bytes_total").await < 4.0 {
        assert!(began.elapsed() < Duration::from_secs(15), "{}", proxy.complaints());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(metric(&proxy, "istio_tcp_connections_closed_total").await, 0.0);
    raw.send("pong!").await;
    assert_eq!(raw.exactly(5).await, b"pong!");
    raw.finish().await;
    assert!(raw.is_at_end().await);
    while metric(&proxy, "istio_tcp_connections_closed_total").await == 0.0 {
        assert!(began.elapsed() < Duration::from_secs(15));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for family in ["istio_tcp_sent_bytes_total", "istio_tcp_received_bytes_total"] {
        assert_eq!(metric(&proxy, family).await, 9.0, "{family}");
    }
}
