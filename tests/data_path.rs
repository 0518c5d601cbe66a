//! Pools, limits and backpressure: what a request costs, and what a slow or broken peer cannot do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};
use support::objects::{destination_rule, service};
use support::{
    Client1, Client2, Proxy, Raw, Upstream, empty, eventually, fetch, full, get, in_time, request, settled,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn in_front_of(up: &Upstream, protocol: &str, rule: &str) -> Proxy {
    let mut objects = service("up.shop", protocol, &[up.address]);
    if !rule.is_empty() {
        objects += &destination_rule("up.shop", rule);
    }
    let proxy = Proxy::start(&objects).await;
    proxy.assert_no_complaints();
    proxy
}

#[tokio::test]
async fn connections_are_reused_whoever_asks() {
    for protocol in ["HTTP", "HTTP2"] {
        let up = Upstream::start().await;
        let proxy = in_front_of(&up, protocol, "").await;
        for client in 0..5 {
            let mut client1 = Client1::connect(proxy.outbound()).await;
            for _ in 0..5 {
                let body = if client % 2 == 0 { empty() } else { full("body") };
                let message = request("POST", "up.shop", "/", &[], body);
                assert_eq!(client1.exchange(message).await.status, 200);
            }
        }
        assert_eq!((up.requests(), up.connections()), (25, 1), "{protocol}");
    }
}

#[tokio::test]
async fn a_connection_takes_no_more_than_its_requests() {
    for (protocol, connections) in [("HTTP", 4), ("HTTP2", 4)] {
        let up = Upstream::start().await;
        let rule = "trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 3}}}";
        let proxy = in_front_of(&up, protocol, rule).await;
        let mut client = Client1::connect(proxy.outbound()).await;
        for _ in 0..12 {
            assert_eq!(client.exchange(get("up.shop", "/")).await.status, 200);
        }
        assert_eq!((up.requests(), up.connections()), (12, connections), "{protocol}");
    }
}

#[tokio::test]
async fn beyond_the_limits_of_a_cluster_requests_are_refused_by_name() {
    let up = Upstream::start().await;
    let rule = "
trafficPolicy:
  connectionPool: {tcp: {maxConnections: 2}, http: {http1MaxPendingRequests: 1}}
";
    let proxy = in_front_of(&up, "HTTP", rule).await;
    let slow = || request("GET", "up.shop", "/", &[("x-delay-ms", "1000")], empty());
    let address = proxy.outbound();
    let mut busy = Vec::new();
    for place in 1..=2 {
        busy.push(tokio::spawn(fetch(address, slow())));
        eventually("a slow request", || up.requests() == place).await;
    }
    // One of these waits for a connection; all others are beyond the limit.
    let crowd: Vec<_> = (0..5).map(|_| tokio::spawn(fetch(address, get("up.shop", "/")))).collect();
    let (mut served, mut refused) = (0, 0);
    for one in crowd {
        let reply = one.await.unwrap();
        match reply.status.as_u16() {
            200 => served += 1,
            503 => {
                refused += 1;
                let words = reply.text();
                assert!(words.contains("overflow") && words.contains("http1MaxPendingRequests"), "{words}");
                assert!(words.contains("outbound|80||up.shop"), "{words}");
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!((served, refused), (1, 4));
    for one in busy {
        assert_eq!(one.await.unwrap().status, 200);
    }
    assert_eq!((up.connections(), up.most_active()), (2, 2));
}

#[tokio::test]
async fn more_requests_than_http2_may_have_are_refused_by_name() {
    let up = Upstream::start().await;
    let proxy =
        in_front_of(&up, "HTTP2", "trafficPolicy: {connectionPool: {http: {http2MaxRequests: 3}}}").await;
    let address = proxy.outbound();
    let slow = || request("GET", "up.shop", "/", &[("x-delay-ms", "700")], empty());
    let busy: Vec<_> = (0..3).map(|_| tokio::spawn(fetch(address, slow()))).collect();
    eventually("three slow requests", || up.requests() == 3).await;
    let reply = fetch(address, get("up.shop", "/")).await;
    assert_eq!(reply.status, 503);
    assert!(reply.text().contains("http2MaxRequests"), "{}", reply.text());
    for one in busy {
        assert_eq!(one.await.unwrap().status, 200);
    }
    assert_eq!(fetch(address, get("up.shop", "/")).await.status, 200);
}

#[tokio::test]
async fn an_upstream_that_does_not_accept_costs_no_more_than_the_connect_timeout() {
    // A listener whose queue is full: further connections get no answer.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut filling = Vec::new();
    for _ in 0..4 {
        filling.push(tokio::spawn(tokio::net::TcpStream::connect(address)));
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let objects = service("up.shop", "HTTP", &[address])
        + &destination_rule("up.shop", "trafficPolicy: {connectionPool: {tcp: {connectTimeout: 300ms}}}");
    let proxy = Proxy::start(&objects).await;
    let began = Instant::now();
    let reply = fetch(proxy.outbound(), get("up.shop", "/")).await;
    let took = began.elapsed();
    assert_eq!(reply.status, 503);
    assert!(reply.text().contains("connection timeout"), "{}", reply.text());
    assert!((300..2000).contains(&took.as_millis()), "{took:?}");
    filling.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn an_upstream_that_nobody_runs_is_answered_503_with_the_reason() {
    let nobody = ([127, 0, 0, 1], support::free_port()).into();
    for protocol in ["HTTP", "HTTP2"] {
        let proxy = Proxy::start(&service("up.shop", protocol, &[nobody])).await;
        let reply = fetch(proxy.outbound(), get("up.shop", "/")).await;
        assert_eq!(reply.status, 503);
        assert!(reply.text().contains("remote connection failure"), "{}", reply.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_closes_idle_connections_never_costs_a_get() {
    let idle = Duration::from_millis(30);
    let up = Upstream::closing_idle(idle).await;
    let proxy = in_front_of(&up, "HTTP", "").await;
    let mut client = Client1::connect(proxy.outbound()).await;
    let mut random = fastrand::Rng::with_seed(1);
    for round in 0..150 {
        // Around the very moment at which the server gives up.
        tokio::time::sleep(idle - Duration::from_micros(1500) + Duration::from_micros(random.u64(0..3000)))
            .await;
        let reply = client.exchange(get("up.shop", "/")).await;
        assert_eq!(reply.status, 200, "{round}: {}", reply.text());
    }
    assert!(up.connections() > 3, "the server closed nothing: {}", up.connections());
}

#[tokio::test]
async fn a_post_that_was_written_is_never_sent_again() {
    let up = Upstream::start().await;
    let proxy = in_front_of(&up, "HTTP", "").await;
    let mut client = Client1::connect(proxy.outbound()).await;
    for round in 1..=5 {
        assert_eq!(client.exchange(get("up.shop", "/warm")).await.status, 200);
        let reply = client.exchange(request("POST", "up.shop", "/die", &[], full("order"))).await;
        assert_eq!(reply.status, 503, "{}", reply.text());
        assert!(reply.text().contains("connection termination"), "{}", reply.text());
        let orders = up.heads().iter().filter(|head| *head == "POST /die").count();
        assert_eq!(orders, round, "each was seen once");
    }
}

#[tokio::test]
async fn a_get_that_dies_on_a_new_connection_is_not_sent_twice() {
    let up = Upstream::start().await;
    let proxy = in_front_of(&up, "HTTP", "").await;
    let reply = fetch(proxy.outbound(), get("up.shop", "/die")).await;
    assert_eq!(reply.status, 503);
    assert_eq!(up.requests(), 1);
}

/// An HTTP/1 server whose answer never ends, and how many bytes it got rid of.
async fn endless() -> (Upstream, std::sync::Arc<AtomicU64>) {
    let written = std::sync::Arc::new(AtomicU64::new(0));
    let count = written.clone();
    let up = Upstream::tcp(move |_, mut stream| {
        let count = count.clone();
        async move {
            let mut chunk = vec![0; 4096];
            if stream.read(&mut chunk).await? == 0 {
                return Ok(());
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n").await?;
            loop {
                count.fetch_add(stream.write(&[b'e'; 16 * 1024]).await? as u64, SeqCst);
            }
        }
    })
    .await;
    (up, written)
}

/// What the kernel may hold between the two ends of a connection: both let their buffers grow up to its limits.
fn sockets() -> u64 {
    let largest = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap();
        text.split_whitespace().last().unwrap().parse::<u64>().unwrap()
    };
    largest("tcp_rmem") + largest("tcp_wmem")
}

/// The memory of the process is measured, so the tests that fill it take turns.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// An HTTP/1 server that answers with one byte of many, and sends no more.
async fn hesitant() -> Upstream {
    Upstream::tcp(|_, mut stream| async move {
        let mut chunk = vec![0; 4096];
        if stream.read(&mut chunk).await? == 0 {
            return Ok(());
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\ne").await?;
        stream.read(&mut chunk).await.map(drop)
    })
    .await
}

/// Clients that read the beginning of an answer and no more.
async fn stopped(proxy: &Proxy, host: &str, count: usize) -> Vec<Raw> {
    let mut all = Vec::new();
    for _ in 0..count {
        let mut raw = Raw::connect(proxy.outbound()).await;
        raw.send(format!("GET /endless HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(raw.head().await.unwrap().0, 200);
        raw.some().await;
        all.push(raw);
    }
    all
}

#[tokio::test]
async fn fifty_http1_readers_that_stop_hold_no_more_than_their_buffers() {
    let _alone = ALONE.lock().await;
    let (up, written) = endless().await;
    let (slow, fine) = (hesitant().await, Upstream::start().await);
    let objects = service("up.shop", "HTTP", &[up.address])
        + &service("slow.shop", "HTTP", &[slow.address])
        + &service("fine.shop", "HTTP", &[fine.address]);
    let proxy = Proxy::start(&objects).await;
    drop(stopped(&proxy, "slow.shop", 5).await);
    let before = resident();
    let waiting = stopped(&proxy, "slow.shop", 50).await;
    let open = resident();
    let stalled = stopped(&proxy, "up.shop", 50).await;
    let sent = settled(Duration::from_millis(500), || written.load(SeqCst)).await;
    assert!(sent / 50 <= 2 * sockets() + STALLED, "{sent} bytes for 50 readers");
    // What the readers pin is what they cost more than those that only wait, whose client and server are of this process, too.
    let (open, pinned) = (open.saturating_sub(before), resident().saturating_sub(open));
    let each = pinned.saturating_sub(open) / 50;
    assert!(each <= STALLED - 2 * CONNECTION, "{each} bytes for each, and its connections");
    assert_eq!(fetch(proxy.outbound(), get("fine.shop", "/")).await.status, 200);
    drop((stalled, waiting));
    eventually("the upstream hears of it", || up.open() == 0).await;
}

/// What a reader that stops may cost, its two connections included.
const STALLED: u64 = 128 * 1024;

/// What an open connection costs (`docs/performance.md`).
const CONNECTION: u64 = 12 * 1024 + 512;

/// Bytes of memory that the process occupies; most of the kernel's buffers are none of it.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[tokio::test]
async fn a_hundred_http2_readers_that_stop_hold_no_more_than_their_windows() {
    let _alone = ALONE.lock().await;
    for protocol in ["HTTP", "HTTP2"] {
        let up = Upstream::start().await;
        let (endless, written) = endless().await;
        let place = if protocol == "HTTP" { endless.address } else { up.address };
        let objects = service("up.shop", protocol, &[place]) + &service("fine.shop", protocol, &[up.address]);
        let proxy = Proxy::start(&objects).await;
        let mut other = Client2::connect(proxy.outbound()).await;
        assert_eq!(other.exchange(get("fine.shop", "/fine")).await.status, 200);
        let stream = support::client::connect(proxy.outbound()).await;
        // Room for all that the streams may bring, so that each of them stops by itself.
        let (send, connection) = h2::client::Builder::new()
            .initial_connection_window_size(100 * 64 * 1024)
            .handshake::<_, bytes::Bytes>(stream)
            .await
            .unwrap();
        tokio::spawn(connection);
        let before = resident();
        let mut stalled = Vec::new();
        for _ in 0..100 {
            let mut ready = in_time("a stream", send.clone().ready()).await.unwrap();
            let message = http::Request::get("http://up.shop/endless").body(()).unwrap();
            let (response, _) = ready.send_request(message, true).unwrap();
            stalled.push(in_time("a head", response).await.unwrap());
        }
        let sent = settled(Duration::from_millis(500), || up.sent() + written.load(SeqCst)).await;
        if protocol == "HTTP2" {
            // Its window towards us, what waits for the reader, and what the little server itself holds.
            assert!(sent / 100 <= (64 + 64 + 64) * 1024, "{sent} bytes for 100 streams");
        }
        // The client of this process holds a window of each, and its server a piece.
        let each = resident().saturating_sub(before) / 100;
        assert!(each <= STALLED + (64 + 16) * 1024, "{protocol}: {each} bytes for each");
        for _ in 0..10 {
            assert_eq!(other.exchange(get("fine.shop", "/fine")).await.status, 200);
        }
        drop(stalled);
        drop(send);
        // The streams' upstream ends have to be cancelled, or their windows stay taken.
        for _ in 0..10 {
            assert_eq!(other.exchange(get("fine.shop", "/fine")).await.status, 200);
        }
        eventually("the upstream hears of it", || endless.open() == 0).await;
    }
}

#[tokio::test]
async fn a_writer_is_slowed_down_by_an_upstream_that_does_not_read() {
    let _alone = ALONE.lock().await;
    let up = Upstream::tcp(|_, stream| async move {
        let _held = stream;
        std::future::pending().await
    })
    .await;
    let proxy = in_front_of(&up, "HTTP", "").await;
    let mut raw = Raw::connect(proxy.outbound()).await;
    raw.send("POST / HTTP/1.1\r\nHost: up.shop\r\nContent-Length: 999999999999\r\n\r\n").await;
    let written = std::sync::Arc::new(AtomicU64::new(0));
    let count = written.clone();
    let writing = tokio::spawn(async move {
        while let Ok(some) = raw.stream.write(&[b'w'; 16 * 1024]).await {
            count.fetch_add(some as u64, SeqCst);
        }
    });
    let sent = settled(Duration::from_millis(500), || written.load(SeqCst)).await;
    assert!(sent <= 2 * sockets() + 128 * 1024, "{sent} bytes were taken");
    writing.abort();
}

#[tokio::test]
async fn a_client_that_goes_away_ends_what_it_asked_for() {
    let _alone = ALONE.lock().await;
    for protocol in ["HTTP", "HTTP2"] {
        let up = Upstream::start().await;
        let proxy = in_front_of(&up, protocol, "").await;
        let mut raw = Raw::connect(proxy.outbound()).await;
        raw.send("GET /endless HTTP/1.1\r\nHost: up.shop\r\n\r\n").await;
        assert_eq!(raw.head().await.unwrap().0, 200);
        drop(raw);
        let before = settled(Duration::from_millis(300), || up.sent()).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(up.sent(), before, "{protocol}");
    }
}

#[tokio::test]
async fn a_head_that_takes_too_long_ends_its_connection() {
    let up = Upstream::start().await;
    let proxy = Proxy::with("limits: {headerTimeout: 1s}", &service("up.shop", "HTTP", &[up.address])).await;
    let mut slow = Raw::connect(proxy.outbound()).await;
    let began = Instant::now();
    slow.send("GET / HTTP/1.1\r\nHost: up.shop\r\n").await;
    let mut idle = Client1::connect(proxy.outbound()).await;
    assert_eq!(idle.exchange(get("up.shop", "/")).await.status, 200);
    assert_eq!(slow.reply().await.status, 408);
    assert!(slow.is_at_end().await);
    assert!((900..5000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    // An idle connection is not a slow head.
    assert_eq!(idle.exchange(get("up.shop", "/")).await.status, 200);
}

#[tokio::test]
async fn an_exchange_that_stands_still_is_ended() {
    let up = Upstream::start().await;
    let proxy =
        Proxy::with("limits: {streamIdleTimeout: 1s}", &service("up.shop", "HTTP", &[up.address])).await;
    let began = Instant::now();
    let reply = fetch(proxy.outbound(), get("up.shop", "/hang")).await;
    assert_eq!(reply.status, 408, "{}", reply.text());
    assert!(reply.text().contains("stream idle timeout"), "{}", reply.text());
    assert!((900..5000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_refusal_for_want_of_endpoints_names_the_dns_failure_behind_it() {
    // Nobody is asked for a name below `invalid` (RFC 6761 section 6.4): it does not exist.
    let objects = "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: far, namespace: shop}
spec:
  hosts: [far.invalid]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: DNS
";
    let proxy = Proxy::start(objects).await;
    proxy.assert_no_complaints();
    let clusters = || async { fetch(proxy.page("admin"), get("localhost", "/clusters")).await.text() };
    let mut page = clusters().await;
    for _ in 0..500 {
        if page.contains("\"discoveryFailure\": \"") || page.contains("\"discoveryFailure\":\"") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        page = clusters().await;
    }
    assert!(page.contains("far.invalid: the name does not exist (NXDOMAIN)"), "{page}");
    let reply = fetch(proxy.outbound(), get("far.invalid", "/")).await;
    assert_eq!(reply.status, 503);
    let text = reply.text();
    assert!(text.starts_with("no healthy upstream: ") && text.contains("; DNS: far.invalid: "), "{text}");
}
