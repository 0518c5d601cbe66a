//! Each test is named by its row in the table of what has gone wrong in other proxies.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use support::objects::{service, virtual_service};
use support::raw::{lossy, speak};
use support::{
    Client1, Client2, Proxy, Raw, Upstream, empty, eventually, fetch, free_port, get, in_time, request,
};

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
async fn gateway() -> (Proxy, Upstream, std::net::SocketAddr) {
    let up = Upstream::start().await;
    let port = free_port();
    let objects = service("up.shop", "HTTP", &[up.address])
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
        "role: Gateway\nworkload: {{labels: {{istio: ingressgateway}}}}\ngateway: {{ports: {{\"80\": {port}}}}}"
    );
    let proxy = Proxy::with(&spec, &objects).await;
    proxy.assert_no_complaints();
    (proxy, up, ([127, 0, 0, 1], port).into())
}

#[tokio::test]
async fn row_1_the_upstream_sees_the_one_canonical_path() {
    let (proxy, up) = sidecar().await;
    let mut client = Raw::connect(proxy.outbound()).await;
    for (sent, seen) in [
        ("/a/./b/../c", "/a/c"),
        ("/../../etc/passwd", "/etc/passwd"),
        ("/app/%2E./admin", "/admin"),
        ("/app/%2e%2E/admin", "/admin"),
        ("/a\\..\\b", "/b"),
        ("/%61dmin", "/admin"),
        ("/a%252e%252e/b", "/a%252e%252e/b"),
        ("/x?y=/../z", "/x?y=/../z"),
        ("/a;b=c/d", "/a;b=c/d"),
        ("/%7euser", "/~user"),
    ] {
        client.send(format!("GET {sent} HTTP/1.1\r\nHost: up.shop\r\n\r\n")).await;
        let reply = client.reply().await;
        assert_eq!(reply.status, 200, "{sent}: {}", reply.text());
        let last = up.heads().last().cloned().unwrap();
        assert_eq!(last, format!("GET {seen}"), "{sent}");
    }
}

#[tokio::test]
async fn row_1_every_percent_code_is_routed_and_forwarded_alike() {
    let (proxy, up) = sidecar().await;
    let routes = "
http:
- match: [{uri: {prefix: /admin}}]
  directResponse: {status: 403}
- route: [{destination: {host: up.shop}}]
";
    proxy.edit("routes.yaml", &virtual_service("up.shop", routes)).await;
    proxy.assert_no_complaints();
    let mut client = Raw::connect(proxy.outbound()).await;
    let vectors = (0..=255).flat_map(|code| {
        [
            format!("/%{code:02x}admin"),
            format!("/x/%{code:02X}./admin"),
            format!("/x/.%{code:02x}/admin"),
            format!("/admi%{code:02x}"),
        ]
    });
    for sent in vectors {
        let before = up.requests();
        client.send(format!("GET {sent} HTTP/1.1\r\nHost: up.shop\r\n\r\n")).await;
        let Some(reply) = client.reply_to("GET").await else { panic!("{sent}: closed") };
        if up.requests() > before {
            let seen = up.heads().last().cloned().unwrap();
            let seen = seen.strip_prefix("GET ").unwrap();
            // What reaches the upstream would be routed there again, as it stands.
            assert!(!seen.starts_with("/admin"), "{sent} went round the route to {seen}");
            assert!(!seen.contains("/../") && !seen.contains("/./"), "{sent} as {seen}");
            let again = fetch(proxy.outbound(), get("up.shop", seen)).await;
            assert_eq!(again.target(), seen, "{sent}: forwarded bytes are canonical");
        } else {
            assert!(matches!(reply.status, 400 | 403), "{sent}: {}", reply.status);
        }
        if reply.header("connection") == "close" {
            client = Raw::connect(proxy.outbound()).await;
        }
    }
}

#[tokio::test]
async fn row_1_a_fragment_is_never_part_of_what_is_matched_or_forwarded() {
    let (proxy, up) = sidecar().await;
    let answer =
        speak(proxy.outbound(), "GET /app#/../admin HTTP/1.1\r\nHost: up.shop\r\nConnection: close\r\n\r\n")
            .await;
    let heads = up.heads();
    assert!(
        answer.starts_with(b"HTTP/1.1 400") && heads.is_empty() || heads == ["GET /app"],
        "{} {heads:?}",
        lossy(&answer)
    );
}

#[tokio::test]
async fn row_2_targets_without_a_leading_slash_are_refused() {
    let (proxy, up) = sidecar().await;
    for target in ["shop.Cart/Add", "*", "admin", "//@evil/x y", "http:/up.shop/x", "/a\0b", "/a\x7fb"] {
        let answer = speak(
            proxy.outbound(),
            format!("GET {target} HTTP/1.1\r\nHost: up.shop\r\nConnection: close\r\n\r\n"),
        )
        .await;
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 400") || answer.starts_with(b"HTTP/1.1 404"),
            "{target:?}: {}",
            lossy(&answer)
        );
    }
    assert_eq!(up.heads(), [""; 0]);
}

#[tokio::test]
async fn row_2_an_absolute_target_counts_whatever_the_case_of_its_scheme_and_must_agree_with_host() {
    let (proxy, up) = sidecar().await;
    let mut raw = Raw::connect(proxy.outbound()).await;
    for scheme in ["http", "HTTP", "hTTp"] {
        raw.send(format!("GET {scheme}://UP.shop/x HTTP/1.1\r\nHost: up.shop\r\n\r\n")).await;
        let reply = raw.reply().await;
        assert_eq!(reply.status, 200, "{scheme}: {}", reply.text());
        assert_eq!(up.heads().last().unwrap(), "GET /x");
    }
    let count = up.requests();
    for request in [
        "GET http://other.shop/x HTTP/1.1\r\nHost: up.shop\r\n\r\n",
        "GET http://up.shop/x HTTP/1.1\r\nHost: other.shop\r\n\r\n",
        "GET http://user@up.shop/x HTTP/1.1\r\nHost: up.shop\r\n\r\n",
        "GET http://up.shop:8080/x HTTP/1.1\r\nHost: up.shop\r\n\r\n",
    ] {
        assert_refused(proxy.outbound(), request).await;
    }
    assert_eq!(up.requests(), count);
}

/// The first answer is a 4xx, and nothing comes after it but the end.
async fn assert_refused(proxy: std::net::SocketAddr, bytes: impl AsRef<[u8]>) {
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

#[tokio::test]
async fn row_3_every_spelling_of_a_host_is_the_same_host() {
    let (proxy, up) = sidecar().await;
    let mut client = Raw::connect(proxy.outbound()).await;
    for host in ["up.shop", "UP.SHOP", "Up.Shop:80", "up.shop.", "UP.shop.:80", "up.shop:"] {
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        let reply = client.reply().await;
        assert_eq!(reply.status, 200, "{host}: {}", reply.text());
        let seen = reply.text();
        assert!(
            seen.contains("[\"host\",\"up.shop\"]") || seen.contains("[\"host\",\"up.shop:80\"]"),
            "{host}: {seen}"
        );
    }
    assert_eq!(up.requests(), 6);
    for host in ["up.shop:81", "up.shop:00080x", "xup.shop", "up.shop.evil"] {
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await;
        let reply = client.reply().await;
        assert!(matches!(reply.status, 400 | 404), "{host}: {}", reply.status);
        client = Raw::connect(proxy.outbound()).await;
    }
    assert_eq!(up.requests(), 6);
}

#[tokio::test]
async fn row_5_control_headers_of_strangers_end_at_the_gateway() {
    let (proxy, _up, address) = gateway().await;
    let control = [
        "x-envoy-original-path",
        "x-envoy-original-dst-host",
        "x-envoy-internal",
        "x-envoy-retry-on",
        "x-envoy-max-retries",
        "x-envoy-upstream-rq-timeout-ms",
        "x-envoy-upstream-rq-per-try-timeout-ms",
        "x-envoy-expected-rq-timeout-ms",
        "x-envoy-decorator-operation",
        "x-envoy-peer-metadata",
        "x-envoy-peer-metadata-id",
        "x-envoy-external-address",
        "x-envoy-force-trace",
        "x-envoy-hedge-on-per-try-timeout",
        "x-envoy-ip-tags",
        "x-envoy-attempt-count",
        "x-istio-attributes",
        "l5d-dst-override",
        "l5d-client-id",
        "x-forwarded-client-cert",
        "X-Envoy-Anything-New",
    ];
    let mut lines: Vec<_> = control.iter().map(|name| (*name, "forged")).collect();
    lines.extend([
        ("x-request-id", "forged"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-for", "9.9.9.9"),
        ("x-mine", "kept"),
    ]);
    let reply = fetch(address, request("GET", "shop.example.com", "/", &lines, empty())).await;
    for name in control {
        assert_eq!(reply.seen(&name.to_lowercase()), [""; 0], "{name}");
    }
    assert_ne!(reply.seen("x-request-id"), ["forged"]);
    assert_eq!(reply.seen("x-forwarded-proto"), ["http"]);
    assert_eq!(reply.seen("x-forwarded-for"), ["9.9.9.9,127.0.0.1"]);
    assert_eq!(reply.seen("x-mine"), ["kept"]);
    drop(proxy);
}

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: up.shop\r\n\r\n";

#[tokio::test]
async fn row_13_requests_of_doubtful_framing_never_become_two() {
    let (proxy, up) = sidecar().await;
    let post = |lines: &str, body: &str| {
        format!("POST /first HTTP/1.1\r\nHost: up.shop\r\n{lines}\r\n\r\n{body}{SMUGGLED}")
    };
    let vectors = [
        post("Content-Length: 4\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
        post("Transfer-Encoding: chunked\r\nContent-Length: 4", "0\r\n\r\n"),
        post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
        post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "0\r\n\r\n"),
        post("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
        post("Transfer-Encoding: gzip, chunked", "0\r\n\r\n"),
        post("Transfer-Encoding: chunked,", "0\r\n\r\n"),
        post("Transfer-Encoding: ,chunked", "0\r\n\r\n"),
        post("Transfer-Encoding: xchunked", "0\r\n\r\n"),
        post("Transfer-Encoding: \"chunked\"", "0\r\n\r\n"),
        post("Transfer-Encoding: chunked;x=1", "0\r\n\r\n"),
        post("Transfer-Encoding:\x0bchunked", "0\r\n\r\n"),
        post("Transfer-Encoding : chunked", "0\r\n\r\n"),
        post("Transfer-Encoding\t: chunked", "0\r\n\r\n"),
        post("X: y\r\n Transfer-Encoding: chunked", ""),
        post("Content-Length: 0\r\n , 5", ""),
        post("Content-Length: 4\r\nContent-Length: 5", "abcd"),
        post("Content-Length: 4, 4", "abcd"),
        post("Content-Length: +4", "abcd"),
        post("Content-Length: -4", "abcd"),
        post("Content-Length: 0x4", "abcd"),
        post("Content-Length: 4 4", "abcd"),
        post("Content-Length: 4e0", "abcd"),
        post("Content-Length: 99999999999999999999", "abcd"),
        post("Content-Length : 4", "abcd"),
        post("Content-Length:", "abcd"),
        post("Transfer-Encoding: chunked", "0x0\r\n\r\n"),
        post("Transfer-Encoding: chunked", "+0\r\n\r\n"),
        post("Transfer-Encoding: chunked", "-0\r\n\r\n"),
        post("Transfer-Encoding: chunked", "\r\n0\r\n\r\n"),
        post("Transfer-Encoding: chunked", "fffffffffffffffff\r\n\r\n"),
        post("Transfer-Encoding: chunked", "1;\nx\r\n0\r\n\r\n"),
        post("Transfer-Encoding: chunked", "1\nx\r\n0\r\n\r\n"),
        post("Transfer-Encoding: chunked", "1\r\nxyz0\r\n\r\n"),
        format!(
            "POST /first HTTP/1.0\r\nHost: up.shop\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}"
        ),
        format!("GET /first HTTP/1.1\r\nHost: up.shop\r\nHost: up.shop\r\n\r\n{SMUGGLED}"),
        format!("GET /first HTTP/1.1\r\nHost: up.shop\r\nHost: other.shop\r\n\r\n{SMUGGLED}"),
        format!("GET /first HTTP/1.1\r\nHost: user@up.shop\r\n\r\n{SMUGGLED}"),
        format!("GET /first HTTP/1.1\r\nHost: up.shop/path\r\n\r\n{SMUGGLED}"),
        format!("GET /first HTTP/1.1\r\nHost: up.shop, up.shop\r\n\r\n{SMUGGLED}"),
        format!("GET /first HTTP/1.1\r\nHost: up.shop:x\r\n\r\n{SMUGGLED}"),
        format!("GET /first HTTP/1.1\r\n\r\n{SMUGGLED}"),
        format!("GET http://other.shop/first HTTP/1.1\r\nHost: up.shop\r\n\r\n{SMUGGLED}"),
        format!("GET /first HTTP/1.1 x\r\nHost: up.shop\r\n\r\n{SMUGGLED}"),
        format!("GET /first HTTP/2.0\r\nHost: up.shop\r\n\r\n{SMUGGLED}"),
        format!("GET /first HTTP/1.1\r\nHost: up.shop\rX: y\r\n\r\n{SMUGGLED}"),
        format!("GET /first HTTP/1.1\r\nHost: up.shop\r\nX\0Y: z\r\n\r\n{SMUGGLED}"),
        format!("GET /first HTTP/1.1\r\nHost: up.shop\r\nX: a\0b\r\n\r\n{SMUGGLED}"),
        format!("GET /first HTTP/1.1\r\nHost: up.shop\r\n: nameless\r\n\r\n{SMUGGLED}"),
        format!("GET /first HTTP/1.1\r\n Host: up.shop\r\n\r\n{SMUGGLED}"),
    ];
    for vector in vectors {
        let answer = lossy(&speak(proxy.outbound(), &vector).await);
        assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{vector:?}: {answer}");
        if answer.starts_with("HTTP/1.1 200") {
            // Of both, RFC 9112 section 6.3 lets Transfer-Encoding win, if the connection is closed after it.
            let both =
                vector.contains("Content-Length: 4\r\n") && vector.contains("Transfer-Encoding: chunked\r\n");
            assert!(both && answer.contains("\r\nconnection: close\r\n"), "{vector:?}: {answer}");
        }
        let heads = up.heads();
        assert!(!heads.iter().any(|head| head.contains("smuggled")), "{vector:?} gave {heads:?}");
    }
    assert_views_agree(&up);
}

/// What went upstream could be read in one way only.
fn assert_views_agree(up: &Upstream) {
    for bytes in up.bytes() {
        let text = lossy(&bytes).to_lowercase();
        for head in text.split("\r\n\r\n") {
            let both = head.contains("\r\ntransfer-encoding:") && head.contains("\r\ncontent-length:");
            assert!(!both && head.matches("\r\nhost:").count() <= 1, "{head:?}");
            assert!(
                !head.contains("\r\n ") && !head.replace("\r\n", "").contains(['\n', '\r', '\0']),
                "{head:?}"
            );
        }
    }
}

#[tokio::test]
async fn row_13_lines_that_end_in_a_bare_lf_are_read_in_one_way_or_refused() {
    let (proxy, up) = sidecar().await;
    for vector in [
        "GET /lf HTTP/1.1\nHost: up.shop\nConnection: close\n\n",
        "GET /lf HTTP/1.1\r\nHost: up.shop\nX: y\r\nConnection: close\r\n\r\n",
        "POST /lf HTTP/1.1\r\nHost: up.shop\r\nX: y\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n",
    ] {
        let answer = lossy(&speak(proxy.outbound(), vector).await);
        assert_eq!(
            answer.matches("HTTP/1.1 ").count(),
            usize::from(!answer.is_empty()),
            "{vector:?}: {answer}"
        );
    }
    assert_views_agree(&up);
    assert!(up.heads().iter().all(|head| head.ends_with(" /lf")), "{:?}", up.heads());
}

#[tokio::test]
async fn row_13_chunk_extensions_and_trailers_change_nothing_for_the_next_request() {
    let (proxy, up) = sidecar().await;
    let long = "x".repeat(200);
    let body = format!("5;a=b;c=\"d\";{long}\r\nhello\r\n0;last\r\nContent-Length: 9\r\nHost: evil\r\n\r\n");
    let first = format!("POST /first HTTP/1.1\r\nHost: up.shop\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    let answer = lossy(
        &speak(
            proxy.outbound(),
            format!("{first}GET /second HTTP/1.1\r\nHost: up.shop\r\nConnection: close\r\n\r\n"),
        )
        .await,
    );
    assert_eq!(up.heads(), ["POST /first", "GET /second"], "{answer}");
    assert!(
        answer.contains("\\\"body\\\":\\\"hello\\\"") || answer.contains("\"body\":\"hello\""),
        "{answer}"
    );
    assert_views_agree(&up);
    assert!(up.bytes().iter().all(|bytes| !lossy(bytes).contains(&long)), "extensions end here");
}

#[tokio::test]
async fn row_13_endless_chunk_extensions_are_cut_off() {
    let (proxy, up) = sidecar().await;
    let mut raw = Raw::connect(proxy.outbound()).await;
    raw.send("POST /ext HTTP/1.1\r\nHost: up.shop\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for _ in 0..200 {
        raw.send(format!("1;{}\r\nx\r\n", "e".repeat(1000))).await;
    }
    raw.send("0\r\n\r\n").await;
    raw.finish().await;
    let answer = lossy(&raw.rest().await);
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(fetch(proxy.outbound(), get("up.shop", "/after")).await.status, 200);
    drop(up);
}

#[tokio::test]
async fn row_13_hop_by_hop_headers_end_here_both_ways() {
    let (proxy, _up) = sidecar().await;
    let lines = [
        ("connection", "keep-alive, x-hop, te"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("te", "trailers, gzip"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA"),
        ("x-end", "kept"),
    ];
    let reply = Client1::connect(proxy.outbound())
        .await
        .exchange(request("GET", "up.shop", "/", &lines, empty()))
        .await;
    for name in [
        "connection",
        "x-hop",
        "keep-alive",
        "proxy-connection",
        "upgrade",
        "http2-settings",
        "transfer-encoding",
    ] {
        assert_eq!(reply.seen(name), [""; 0], "{name}");
    }
    assert_eq!(
        (reply.seen("te"), reply.seen("x-end")),
        (vec!["trailers".to_owned()], vec!["kept".to_owned()])
    );
    for header in
        ["authorization", "host", "cookie", "content-length", "x-forwarded-for", "x-forwarded-client-cert"]
    {
        let head =
            format!("GET / HTTP/1.1\r\nHost: up.shop\r\nConnection: close, {header}\r\n{header}: x\r\n\r\n");
        assert_refused(
            proxy.outbound(),
            if header == "host" { head.replace("host: x\r\n", "") } else { head },
        )
        .await;
    }
    let mut client = Client1::connect(proxy.outbound()).await;
    let closing = client.exchange(get("up.shop", "/close")).await;
    assert_eq!(closing.header("connection"), "", "the upstream's wish to close is between it and us");
    assert_eq!(client.exchange(get("up.shop", "/next")).await.status, 200);
}

#[tokio::test]
async fn row_13_http2_cannot_bring_framing_headers_of_http1() {
    let (proxy, up) = sidecar().await;
    let stream = support::client::connect(proxy.outbound()).await;
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut send = send.ready().await.unwrap();
    for (name, value, ok) in [("te", "trailers", true), ("content-length", "5", false)] {
        let message = http::Request::get("http://up.shop/").header(name, value).body(()).unwrap();
        let (response, _) = send.send_request(message, true).unwrap();
        let outcome = in_time("an answer", response).await;
        let refused = outcome.as_ref().map_or(true, |response| response.status() == 400);
        assert_eq!(!refused, ok, "{name}: {outcome:?}");
    }
    assert!(up.requests() <= 1);
}

#[tokio::test]
async fn row_14_a_client_that_opens_and_resets_is_told_to_calm_down_and_others_go_on() {
    let (proxy, up) = sidecar().await;
    let mut other = Client2::connect(proxy.outbound()).await;
    let mut refused = 0;
    for _ in 0..5 {
        let stream = support::client::connect(proxy.outbound()).await;
        let (send, connection) = h2::client::Builder::new()
            .max_concurrent_reset_streams(10_000)
            .handshake::<_, bytes::Bytes>(stream)
            .await
            .unwrap();
        let connection = tokio::spawn(connection);
        let mut send = send;
        for _ in 0..5000 {
            let Ok(ready) = in_time("a stream", send.clone().ready()).await else { break };
            send = ready;
            let message = http::Request::get("http://up.shop/hang").body(()).unwrap();
            let Ok((_, mut stream)) = send.send_request(message, false) else { break };
            stream.send_reset(h2::Reason::CANCEL);
            tokio::task::yield_now().await;
        }
        drop(send);
        if let Err(error) = in_time("the end of the connection", connection).await.unwrap() {
            assert!(error.is_go_away() || error.is_io() || error.is_reset(), "{error}");
            refused += u32::from(error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM));
        }
        assert_eq!(other.exchange(get("up.shop", "/fine")).await.status, 200);
    }
    assert!(refused > 0, "no connection was told to calm down");
    eventually("what was cancelled ends upstream", || up.open() <= 3).await;
}

#[tokio::test]
async fn row_19_too_many_or_too_large_headers_are_answered_431() {
    let (proxy, up) = sidecar().await;
    let flood = |count: usize, size: usize| {
        let lines: String = (0..count).map(|n| format!("X-{n}: {}\r\n", "v".repeat(size))).collect();
        format!("GET / HTTP/1.1\r\nHost: up.shop\r\n{lines}\r\n")
    };
    for (count, size) in [(101, 1), (5000, 1), (1, 61 * 1024), (90, 1024), (1, 1024 * 1024)] {
        let answer = lossy(
            &speak(proxy.outbound(), flood(count, size) + "GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
                .await,
        );
        assert!(
            answer.starts_with("HTTP/1.1 431") || answer.is_empty() && size > 100_000,
            "{count} of {size}: {answer:?}"
        );
    }
    assert_eq!(up.requests(), 0);
    let mut http2 = Client2::connect(proxy.outbound()).await;
    let large = "v".repeat(1000);
    let lines: Vec<_> = (0..90).map(|n| (format!("x-{n}"), large.clone())).collect();
    let lines: Vec<_> = lines.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let outcome = http2.try_exchange(request("GET", "up.shop", "/", &lines, empty())).await;
    assert!(outcome.as_ref().map_or(true, |reply| reply.status == 431), "{outcome:?}");
    assert_eq!(up.requests(), 0);
    let allowed =
        fetch(proxy.outbound(), request("GET", "up.shop", "/", &[("x-a", &"v".repeat(50_000))], empty()))
            .await;
    assert_eq!(allowed.status, 200);
}

#[tokio::test]
async fn row_19_a_target_that_is_too_long_is_answered_414_or_431() {
    let (proxy, up) = sidecar().await;
    for length in [62 * 1024, 70_000, 1024 * 1024] {
        let head =
            format!("GET /{} HTTP/1.1\r\nHost: up.shop\r\nConnection: close\r\n\r\n", "a".repeat(length));
        let answer = lossy(&speak(proxy.outbound(), head).await);
        let refused =
            answer.starts_with("HTTP/1.1 414") || answer.starts_with("HTTP/1.1 431") || answer.is_empty();
        assert!(refused, "{length}: {}", &answer[..answer.len().min(200)]);
    }
    assert_eq!(up.requests(), 0);
}

#[tokio::test]
async fn row_20_garbage_on_any_port_ends_no_accept_loop() {
    let (proxy, _up) = sidecar().await;
    let mut random = fastrand::Rng::with_seed(7);
    let ports =
        [proxy.outbound(), proxy.inbound(), proxy.page("admin"), proxy.page("health"), proxy.page("metrics")];
    for port in ports {
        for round in 0..40 {
            let mut raw = Raw::connect(port).await;
            let length = random.usize(0..600);
            let mut bytes: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
            let starts: [&[u8]; 4] = [
                b"",
                b"GET / HTTP/1.1\r\n",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                b"\x16\x03\x01\x02\x00\x01",
            ];
            let start = starts[round % 4];
            bytes.splice(0..0, start.iter().copied());
            raw.send(bytes).await;
            if round % 2 == 0 {
                raw.finish().await;
                in_time("the proxy to end a garbled connection", raw.rest()).await;
            }
        }
    }
    assert_eq!(fetch(proxy.outbound(), get("up.shop", "/")).await.status, 200);
    for page in ["admin", "health", "metrics"] {
        let path = if page == "health" { "/healthz/ready" } else { "/stats/prometheus" };
        assert_eq!(fetch(proxy.page(page), get("localhost", path)).await.status, 200, "{page}");
    }
}

#[tokio::test]
async fn row_22_nothing_a_client_writes_starts_a_line_of_the_log() {
    let folder = tempfile::tempdir().unwrap();
    for (encoding, name) in [("TEXT", "text.log"), ("JSON", "json.log")] {
        let path = folder.path().join(name);
        let spec =
            format!("meshConfig: {{accessLogFile: \"{}\", accessLogEncoding: {encoding}}}", path.display());
        let (proxy, _up) = sidecar_with(&spec).await;
        let mut logged = 0;
        for line in [
            "User-Agent: a\x1b[31mred\x07",
            "User-Agent: \"quoted\" \\n [forged] line",
            "X-Forwarded-For: 1.2.3.4\" 200 - forged",
            "User-Agent: \u{85}\u{2028}next",
            "X-Request-Id: a\tb",
        ] {
            let mut raw = Raw::connect(proxy.outbound()).await;
            raw.send(format!("GET /log?a=%0a%0d\\n HTTP/1.1\r\nHost: up.shop\r\n{line}\r\n\r\n")).await;
            let status = raw.reply().await.status;
            assert!(matches!(status, 200 | 400), "{line:?}: {status}");
            // What the codec refuses never becomes an exchange.
            logged += usize::from(status == 200);
        }
        assert!(logged >= 3, "{logged}");
        proxy.stop().await;
        let log = std::fs::read(&path).unwrap();
        assert_eq!(log.iter().filter(|byte| **byte == b'\n').count(), logged, "{}", lossy(&log));
        // In JSON, other characters than those of ASCII stay as they are.
        let plain =
            |byte: u8| byte == b'\n' || (b' '..0x7f).contains(&byte) || encoding == "JSON" && byte > 0x7f;
        assert!(log.iter().all(|byte| plain(*byte)), "{}", lossy(&log));
        for line in lossy(&log).lines() {
            if encoding == "JSON" {
                let parsed: serde_json::Value = serde_json::from_str(line).unwrap();
                assert_eq!(parsed["method"], "GET", "{line}");
            } else {
                assert!(line.starts_with("[20") && line.contains("\"GET /log?a=%0a%0d"), "{line}");
            }
        }
    }
}
