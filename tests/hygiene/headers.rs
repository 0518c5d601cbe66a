//! Headers that only a trusted peer may set, and headers of one connection alone.

use super::{assert_refused, gateway, gateway_to, sidecar};
use crate::support::raw::lossy;
use crate::support::{Client1, Client2, Proxy, Upstream, empty, fetch, get, in_time, request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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
    for name in control.into_iter().filter(|name| *name != "x-envoy-external-address") {
        assert_eq!(reply.seen(&name.to_lowercase()), [""; 0], "{name}");
    }
    assert_eq!(reply.seen("x-envoy-external-address"), ["127.0.0.1"], "this one is ours to say");
    assert_ne!(reply.seen("x-request-id"), ["forged"]);
    assert_eq!(reply.seen("x-forwarded-proto"), ["http"]);
    assert_eq!(reply.seen("x-forwarded-for"), ["9.9.9.9,127.0.0.1"]);
    assert_eq!(reply.seen("x-mine"), ["kept"]);
    drop(proxy);
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
async fn row_2_header_values_of_http2_neither_begin_nor_end_with_blanks() {
    let (proxy, up) = sidecar().await;
    let mut http2 = Client2::connect(proxy.outbound()).await;
    for value in [" admin ", " admin", "admin ", "\tadmin", "admin\t", " ", "\t"] {
        for host in ["up.shop", "up2.shop"] {
            let reply = http2.exchange(request("GET", host, "/", &[("x-role", value)], empty())).await;
            assert_eq!(reply.status, 400, "{value:?}");
            assert!(reply.text().starts_with("http2.invalid.header.field"), "{value:?}: {}", reply.text());
        }
    }
    assert_eq!(up.requests(), 0);
    for value in ["admin", "", "a b\tc"] {
        let reply = http2.exchange(request("GET", "up.shop", "/", &[("x-role", value)], empty())).await;
        assert_eq!(reply.seen("x-role"), [value]);
    }
    // HTTP/1 does not read them as part of the value.
    let mut raw = crate::support::Raw::connect(proxy.outbound()).await;
    raw.send("GET / HTTP/1.1\r\nHost: up.shop\r\nX-Role: \t admin \t\r\n\r\n").await;
    assert!(raw.reply().await.text().contains("[\"x-role\",\"admin\"]"));
}

#[tokio::test]
async fn row_2_trailers_and_answers_of_http2_lose_the_blanks_around_their_values() {
    let (proxy, _up) = sidecar().await;
    let mut http2 = Client2::connect(proxy.outbound()).await;
    for host in ["up.shop", "up2.shop"] {
        let (frames, body) = crate::support::ChannelBody::new();
        let message = request("POST", host, "/", &[("trailer", "x-sum")], body);
        let sender = async {
            frames.data("data").await;
            frames.trailers(crate::support::body::trailers(&[("x-sum", " 7\t")])).await;
            drop(frames);
        };
        let (reply, ()) = tokio::join!(http2.exchange(message), sender);
        assert_eq!(reply.echo()["trailers"].to_string(), "[[\"x-sum\",\"7\"]]", "{host}");
    }
    let up = Upstream::tcp(|_, stream| async move {
        use crate::support::frames::{END_HEADERS, END_STREAM, Frame, Frames, HEADERS, block};
        let mut frames = Frames::accept(stream, &[]).await?;
        let stream = frames.next_of(HEADERS).await?.stream;
        let head = block(&[(":status", "200"), ("x-role", " admin ")]);
        frames.send(&Frame::new(HEADERS, END_HEADERS | END_STREAM, stream, head)).await?;
        frames.next().await.map(drop)
    })
    .await;
    let objects = crate::support::objects::service("up.shop", "HTTP2", &[up.address]);
    let proxy = Proxy::start(&objects).await;
    let reply = Client2::connect(proxy.outbound()).await.exchange(get("up.shop", "/")).await;
    assert_eq!(reply.header("x-role"), "admin");
}

/// A server that answers each head at once, whatever follows it, and says what it read.
async fn answering(answer: &'static str) -> Upstream {
    Upstream::tcp(move |seen, mut stream| async move {
        let place = seen.begin_bytes();
        let mut chunk = vec![0; 4096];
        loop {
            let read = stream.read(&mut chunk).await?;
            if read == 0 {
                return Ok(());
            }
            seen.record(place, &chunk[..read]);
            if lossy(&chunk[..read]).contains("\r\n\r\n") {
                stream.write_all(answer.as_bytes()).await?;
            }
        }
    })
    .await
}

#[tokio::test]
async fn row_5_what_an_upstream_tells_proxies_ends_at_the_gateway() {
    let control = [
        "x-envoy-overloaded",
        "x-envoy-ratelimited",
        "x-envoy-degraded",
        "x-envoy-immediate-health-check-fail",
        "x-envoy-decorator-operation",
        "x-envoy-peer-metadata",
        "x-envoy-peer-metadata-id",
        "x-envoy-attempt-count",
        "x-istio-attributes",
        "l5d-proxy-error",
        "x-forwarded-client-cert",
    ];
    let answer =
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Mine: kept\r\nX-Envoy-Upstream-Service-Time: forged\r\n";
    let lines: String = control.iter().map(|name| format!("{name}: told\r\n")).collect();
    let up = answering(format!("{answer}{lines}\r\n").leak()).await;
    let (proxy, address) = gateway_to(up.address, "", "").await;
    let reply = fetch(address, get("shop.example.com", "/")).await;
    for name in control {
        assert_eq!(reply.header(name), "", "{name}");
    }
    let took = reply.header("x-envoy-upstream-service-time");
    assert!(took.parse::<u64>().is_ok(), "{took}: the time is what we measured");
    assert_eq!(reply.header("x-mine"), "kept");
    drop(proxy);
    // Within the mesh they are for the next proxy; only the time is ours to say.
    let objects = crate::support::objects::service("up.shop", "HTTP", &[up.address]);
    let sidecar = Proxy::start(&objects).await;
    let reply = fetch(sidecar.outbound(), get("up.shop", "/")).await;
    assert_eq!(reply.header("x-envoy-overloaded"), "told");
    assert_ne!(reply.header("x-envoy-upstream-service-time"), "forged");
}

#[tokio::test]
async fn an_expectation_over_http2_is_put_to_the_upstream_whose_refusal_needs_no_body() {
    for (answer, expected) in [
        ("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", 417),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            403,
        ),
    ] {
        let up = answering(answer).await;
        let objects = crate::support::objects::service("up.shop", "HTTP", &[up.address]);
        let proxy = Proxy::start(&objects).await;
        let stream = crate::support::client::connect(proxy.outbound()).await;
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut send = send.ready().await.unwrap();
        let message =
            http::Request::post("http://up.shop/").header("expect", "100-continue").body(()).unwrap();
        // The body is held back: the client waits for leave to send it.
        let (response, _body) = send.send_request(message, false).unwrap();
        let response = in_time("an answer before the body", response).await.unwrap();
        assert_eq!(response.status(), expected);
        let seen = lossy(&up.bytes()[0]).to_lowercase();
        assert!(seen.contains("\r\nexpect: 100-continue\r\n"), "{seen}");
    }
}

#[tokio::test]
async fn an_expectation_over_http1_is_answered_here_and_goes_no_further() {
    let (proxy, up) = sidecar().await;
    let mut raw = crate::support::Raw::connect(proxy.outbound()).await;
    raw.send("POST / HTTP/1.1\r\nHost: up.shop\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").await;
    assert_eq!(raw.reply().await.status, 100);
    raw.send("body").await;
    assert_eq!(raw.reply().await.status, 200);
    let seen = lossy(&up.bytes()[0]).to_lowercase();
    assert!(!seen.contains("expect:"), "{seen}");
}
