//! What goes in as HTTP/1, HTTP/2, gRPC, WebSocket or plain bytes comes out as it should.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use futures_util::{SinkExt, StreamExt};
use std::time::Duration;
use support::body::{self, ChannelBody};
use support::objects::{destination_rule, service, virtual_service};
use support::raw::lossy;
use support::{
    Client1, Client2, Proxy, Raw, Upstream, empty, eventually, fetch, full, get, in_time, request,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

/// A proxy in front of one upstream that is called by HTTP/1 as `up.shop` and by HTTP/2 as `up2.shop`.
async fn one_upstream() -> (Proxy, Upstream) {
    let up = Upstream::start().await;
    let objects = service("up.shop", "HTTP", &[up.address]) + &service("up2.shop", "HTTP2", &[up.address]);
    let proxy = Proxy::start(&objects).await;
    proxy.assert_no_complaints();
    (proxy, up)
}

#[tokio::test]
async fn http_1_0_and_1_1_are_kept_open_as_their_rules_say() {
    let (proxy, up) = one_upstream().await;
    let mut old = Raw::connect(proxy.outbound()).await;
    old.send("GET /old HTTP/1.0\r\nHost: up.shop\r\n\r\n").await;
    assert_eq!(old.reply().await.status, 200);
    assert!(old.is_at_end().await);

    let mut kept = Raw::connect(proxy.outbound()).await;
    for _ in 0..2 {
        kept.send("GET /old HTTP/1.0\r\nHost: up.shop\r\nConnection: keep-alive\r\n\r\n").await;
        let reply = kept.reply().await;
        assert_eq!((reply.status, reply.header("connection")), (200, "keep-alive"));
    }

    let mut new = Raw::connect(proxy.outbound()).await;
    for _ in 0..3 {
        new.send("GET /new HTTP/1.1\r\nHost: up.shop\r\n\r\n").await;
        assert_eq!(new.reply().await.status, 200);
    }
    new.send("GET /last HTTP/1.1\r\nHost: up.shop\r\nConnection: close\r\n\r\n").await;
    assert_eq!(new.reply().await.header("connection"), "close");
    assert!(new.is_at_end().await);
    assert_eq!(up.requests(), 7);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (proxy, up) = one_upstream().await;
    let mut raw = Raw::connect(proxy.outbound()).await;
    let requests: String = (0..20).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: up.shop\r\n\r\n")).collect();
    raw.send(requests).await;
    for n in 0..20 {
        let reply = raw.reply().await;
        assert!(reply.text().contains(&format!("\"target\":\"/{n}\"")), "{n}: {}", reply.text());
    }
    assert_eq!(up.requests(), 20);
}

#[tokio::test]
async fn responses_that_have_no_body_leave_the_connection_usable() {
    let (proxy, _up) = one_upstream().await;
    let mut raw = Raw::connect(proxy.outbound()).await;
    for host in ["up.shop", "up2.shop"] {
        for (method, path, status) in
            [("HEAD", "/bytes/1234", 200), ("GET", "/status/204", 204), ("GET", "/status/304", 304)]
        {
            raw.send(format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
            let reply = raw.reply_to(method).await.unwrap();
            assert_eq!(reply.status, status, "{host} {method} {path}: {}", reply.head);
            if method == "HEAD" {
                assert_eq!(reply.header("content-length"), "1234", "{host}: {}", reply.head);
            }
            if status == 204 {
                assert_eq!((reply.header("content-length"), reply.header("transfer-encoding")), ("", ""));
            }
        }
        raw.send(format!("GET /after HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert!(raw.reply().await.text().contains("/after"), "{host}");
    }
}

#[tokio::test]
async fn a_client_that_expects_a_100_gets_it_before_its_body() {
    let (proxy, _up) = one_upstream().await;
    let mut raw = Raw::connect(proxy.outbound()).await;
    raw.send("POST /x HTTP/1.1\r\nHost: up.shop\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(raw.head().await.unwrap().0, 100);
    raw.send("hello").await;
    let reply = raw.reply().await;
    assert_eq!(reply.status, 200);
    assert!(reply.text().contains("\"body\":\"hello\""), "{}", reply.text());
    assert!(!reply.text().contains("expect"), "the expectation was answered here: {}", reply.text());
}

#[tokio::test]
async fn a_chunked_body_arrives_whole_however_it_is_cut() {
    let (proxy, _up) = one_upstream().await;
    for host in ["up.shop", "up2.shop"] {
        let mut raw = Raw::connect(proxy.outbound()).await;
        let head = format!("POST /stream HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n");
        for byte in head.bytes() {
            raw.send([byte]).await;
        }
        for piece in [
            "5\r",
            "\nhel",
            "lo\r\n",
            "B;ext=1\r\n, wide world\r\n".replace("B;", "C;").as_str(),
            "0\r\n\r\n",
        ] {
            raw.send(piece).await;
        }
        let reply = raw.reply().await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "hello, wide world"), "{host}");
        assert_eq!(reply.header("transfer-encoding"), "chunked");
    }
}

#[tokio::test]
async fn bodies_start_to_flow_back_before_the_request_has_ended() {
    let (proxy, _up) = one_upstream().await;
    let mut http1 = Client1::connect(proxy.outbound()).await;
    let mut http2 = Client2::connect(proxy.outbound()).await;
    for host in ["up.shop", "up2.shop"] {
        for version in 1..=2 {
            let (frames, body) = ChannelBody::new();
            let message = request("POST", host, "/stream", &[], body);
            let sending =
                async { if version == 1 { http1.send(message).await } else { http2.send(message).await } };
            let sender = async {
                frames.data("ping").await;
                frames
            };
            let (response, frames) = tokio::join!(sending, sender);
            let mut body = response.unwrap().into_body();
            for round in 0..3 {
                let what = format!("{host} from HTTP/{version}, round {round}");
                let frame = in_time(&what, http_body_util::BodyExt::frame(&mut body)).await.unwrap().unwrap();
                assert_eq!(frame.into_data().unwrap(), "ping", "{what}");
                if round < 2 {
                    frames.data("ping").await;
                }
            }
            drop(frames);
            let rest = in_time("the end", http_body_util::BodyExt::collect(body)).await.unwrap();
            assert!(rest.to_bytes().is_empty(), "{host} from HTTP/{version}");
        }
    }
}

#[tokio::test]
async fn every_version_reaches_the_version_that_its_cluster_speaks() {
    let (proxy, up) = one_upstream().await;
    let mut http1 = Client1::connect(proxy.outbound()).await;
    let mut http2 = Client2::connect(proxy.outbound()).await;
    for (host, version) in [("up.shop", "HTTP/1.1"), ("up2.shop", "HTTP/2.0")] {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let body = || if method == "GET" { empty() } else { full("some body") };
            let message = || request(method, host, "/path?query=1", &[("x-one", "1")], body());
            for reply in [http1.exchange(message()).await, http2.exchange(message()).await] {
                let echo = reply.echo();
                assert_eq!(echo["version"], version);
                assert_eq!(echo["method"], method);
                assert!(echo["target"].as_str().unwrap().ends_with("/path?query=1"), "{echo}");
                assert_eq!(echo["body"], if method == "GET" { "" } else { "some body" });
                assert_eq!(reply.seen("x-one"), ["1"]);
            }
        }
    }
    assert_eq!(up.requests(), 24);
}

#[tokio::test]
async fn trailers_pass_both_ways_between_all_versions() {
    let (proxy, _up) = one_upstream().await;
    let mut http1 = Client1::connect(proxy.outbound()).await;
    let mut http2 = Client2::connect(proxy.outbound()).await;
    for host in ["up.shop", "up2.shop"] {
        for version in 1..=2 {
            let (frames, body) = ChannelBody::new();
            let message = request("POST", host, "/stream", &[("te", "trailers"), ("trailer", "x-sum")], body);
            let sending = async {
                if version == 1 {
                    http1.try_exchange(message).await
                } else {
                    http2.try_exchange(message).await
                }
            };
            let sender = async {
                frames.data("data").await;
                frames.trailers(body::trailers(&[("x-sum", "7")])).await;
                drop(frames);
            };
            let (reply, ()) = tokio::join!(sending, sender);
            let reply = reply.unwrap();
            assert_eq!(reply.text(), "data");
            let sum = reply.trailers.get("x-sum").map(|sum| sum.to_str().unwrap());
            assert_eq!(sum, Some("7"), "{host} from HTTP/{version}");
        }
    }
}

const GRPC: &[(&str, &str)] = &[("content-type", "application/grpc"), ("te", "trailers")];

#[tokio::test]
async fn a_unary_grpc_call_brings_its_status_in_trailers() {
    let (proxy, _up) = one_upstream().await;
    let mut client = Client2::connect(proxy.outbound()).await;
    let message = &b"\0\0\0\0\x05hello"[..];
    let reply = client.exchange(request("POST", "up2.shop", "/shop.Cart/Add", GRPC, full(message))).await;
    assert_eq!((reply.status.as_u16(), &reply.body[..]), (200, message));
    assert_eq!(reply.header("content-type"), "application/grpc");
    assert_eq!(reply.trailers["grpc-status"], "0");

    let failed = client.exchange(request("POST", "up2.shop", "/shop.Cart/Fail", GRPC, full(message))).await;
    assert_eq!(failed.header("grpc-status"), "5", "trailers-only: {:?}", failed.headers);
    assert_eq!(failed.header("grpc-message"), "no such thing");
}

#[tokio::test]
async fn grpc_streams_both_ways_at_once() {
    let (proxy, _up) = one_upstream().await;
    let mut client = Client2::connect(proxy.outbound()).await;
    let (frames, body) = ChannelBody::new();
    let response = client.send(request("POST", "up2.shop", "/shop.Cart/Chat", GRPC, body)).await.unwrap();
    let mut answers = response.into_body();
    for round in 0..100 {
        let message = format!("\0\0\0\0\x04{round:04}");
        frames.data(message.clone()).await;
        let frame =
            in_time("an answer", http_body_util::BodyExt::frame(&mut answers)).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), message);
    }
    frames.trailers(body::trailers(&[("x-sum", "100")])).await;
    drop(frames);
    let last = in_time("the trailers", http_body_util::BodyExt::frame(&mut answers)).await.unwrap().unwrap();
    let trailers = last.into_trailers().unwrap();
    assert_eq!(
        (&trailers["grpc-status"], &trailers["x-sum"]),
        (&"0".parse().unwrap(), &"100".parse().unwrap())
    );
}

#[tokio::test]
async fn a_grpc_caller_gets_our_own_refusals_as_a_grpc_status() {
    let (proxy, _up) = one_upstream().await;
    let subset = destination_rule("up2.shop", "subsets: [{name: none, labels: {version: none}}]")
        + &virtual_service("empty.shop", "http: [{route: [{destination: {host: up2.shop, subset: none}}]}]");
    proxy.edit("empty.yaml", &subset).await;
    let mut client = Client2::connect(proxy.outbound()).await;
    for (host, status, http, words) in [
        ("nobody.shop", "12", 404, "nobody.shop"),
        ("empty.shop", "14", 503, "no endpoint of subset none of up2.shop"),
    ] {
        let reply = client.exchange(request("POST", host, "/shop.Cart/Add", GRPC, full("x"))).await;
        assert_eq!((reply.status.as_u16(), reply.header("grpc-status")), (200, status), "{host}");
        assert_eq!(reply.header("content-type"), "application/grpc");
        assert!(reply.header("grpc-message").contains(words), "{:?}", reply.headers);
        assert!(reply.body.is_empty() && reply.trailers.is_empty());
        let plain = client.exchange(request("POST", host, "/shop.Cart/Add", &[], full("x"))).await;
        assert_eq!(plain.status.as_u16(), http);
        assert!(plain.text().contains(words), "{}", plain.text());
    }
}

#[tokio::test]
async fn a_websocket_goes_through() {
    let (proxy, _up) = one_upstream().await;
    let stream = support::client::connect(proxy.outbound()).await;
    let connecting = tokio_tungstenite::client_async("ws://up.shop/chat", stream);
    let (mut socket, response) = in_time("the handshake", connecting).await.unwrap();
    assert_eq!(response.status(), 101);
    for message in [Message::text("hello"), Message::binary(vec![7; 200_000]), Message::text("bye")] {
        in_time("sending", socket.send(message.clone())).await.unwrap();
        assert_eq!(in_time("an echo", socket.next()).await.unwrap().unwrap(), message);
    }
    in_time("closing", socket.close(None)).await.unwrap();
    let last = in_time("the end", socket.next()).await;
    assert!(matches!(last, Some(Ok(Message::Close(_)))), "{last:?}");
}

#[tokio::test]
async fn connect_opens_a_tunnel() {
    let (proxy, up) = one_upstream().await;
    let mut raw = Raw::connect(proxy.outbound()).await;
    raw.send("CONNECT up.shop:80 HTTP/1.1\r\nHost: up.shop:80\r\n\r\n").await;
    let (status, head) = raw.head().await.unwrap();
    assert_eq!(status, 200, "{head}");
    raw.send("anything").await;
    assert_eq!(raw.exactly(8).await, b"anything");
    raw.finish().await;
    assert!(raw.is_at_end().await);
    assert_eq!(up.heads(), ["CONNECT up.shop:80"]);
}

/// An upstream that answers an upgrade with these bytes, once the test says so.
async fn hesitant(answer: &'static str) -> (Upstream, std::sync::Arc<tokio::sync::Notify>) {
    let go = std::sync::Arc::new(tokio::sync::Notify::new());
    let gate = go.clone();
    let up = Upstream::tcp(move |seen, mut stream| {
        let gate = gate.clone();
        async move {
            let place = seen.begin_bytes();
            let mut chunk = [0; 1024];
            let mut answered = false;
            loop {
                tokio::select! {
                    () = gate.notified(), if !answered => {
                        answered = true;
                        stream.write_all(answer.as_bytes()).await?;
                    }
                    read = stream.read(&mut chunk) => {
                        let read = read?;
                        if read == 0 {
                            return Ok(());
                        }
                        seen.record(place, &chunk[..read]);
                    }
                }
            }
        }
    })
    .await;
    (up, go)
}

#[tokio::test]
async fn no_byte_of_the_client_goes_upstream_before_the_101() {
    let upgrade = "GET /up HTTP/1.1\r\nHost: up.shop\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    let early = "GET /smuggled HTTP/1.1\r\nHost: up.shop\r\n\r\n";
    for (answer, wanted) in [
        ("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", false),
    ] {
        let (up, go) = hesitant(answer).await;
        let proxy = Proxy::start(&service("up.shop", "HTTP", &[up.address])).await;
        let mut raw = Raw::connect(proxy.outbound()).await;
        raw.send(format!("{upgrade}{early}")).await;
        eventually("the upgrade arrives", || {
            up.bytes().first().is_some_and(|bytes| bytes.ends_with(b"\r\n\r\n"))
        })
        .await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!lossy(&up.bytes()[0]).contains("smuggled"), "before the answer");
        go.notify_one();
        let (status, _) = raw.head().await.unwrap();
        assert_eq!(status, if wanted { 101 } else { 200 });
        if wanted {
            eventually("the early bytes follow", || lossy(&up.bytes()[0]).ends_with(early)).await;
        } else {
            // Refused, the client's bytes are a request of their own, on a connection of its own.
            drop(raw);
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(!lossy(&up.bytes()[0]).contains("smuggled"), "after the refusal");
        }
    }
}

/// A sidecar whose application, at this address, takes whatever comes.
async fn in_front_of(application: std::net::SocketAddr, limits: &str) -> Proxy {
    let inbound =
        format!("inbound: {{addresses: [\"127.0.0.1:0\"], application: \"{application}\"}}\n{limits}");
    Proxy::with(&inbound, "").await
}

#[tokio::test]
async fn plain_bytes_go_through_and_either_end_may_close_its_half() {
    let up = Upstream::echo().await;
    let proxy = in_front_of(up.address, "").await;
    let mut raw = Raw::connect(proxy.inbound()).await;
    raw.send("\x01\x02binary").await;
    assert_eq!(raw.exactly(8).await, b"\x01\x02binary");
    let large = vec![9; 300_000];
    let (mut reader, mut writer) = raw.stream.split();
    let mut back = Vec::new();
    let writing = async {
        writer.write_all(&large).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    in_time("both ways", async { tokio::join!(writing, reader.read_to_end(&mut back)) }).await.1.unwrap();
    assert!(back == large, "{} bytes came back of {}", back.len(), large.len());

    // The server ends first; what the client still has to say arrives.
    let up = Upstream::tcp(|seen, mut stream| async move {
        let place = seen.begin_bytes();
        stream.write_all(b"over").await?;
        stream.shutdown().await?;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await?;
        seen.record(place, &rest);
        Ok(())
    })
    .await;
    let proxy = in_front_of(up.address, "").await;
    let mut raw = Raw::connect(proxy.inbound()).await;
    raw.send("\0first").await;
    assert_eq!(raw.rest().await, b"over");
    raw.send(" and last").await;
    raw.finish().await;
    eventually("the last words arrive", || up.bytes() == [b"\0first and last"]).await;
}

#[tokio::test]
async fn http_is_known_by_its_first_bytes_however_slowly_they_come() {
    let up = Upstream::start().await;
    let proxy = in_front_of(up.address, "").await;
    let mut slow = Raw::connect(proxy.inbound()).await;
    for byte in "POST /slow HTTP/1.1\r\nHost: any\r\nContent-Length: 2\r\n\r\nok".bytes() {
        slow.send([byte]).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let reply = slow.reply().await;
    assert_eq!(reply.status, 200);
    assert!(!reply.header("x-envoy-upstream-service-time").is_empty(), "as HTTP: {}", reply.head);
    let mut http2 = Client2::connect(proxy.inbound()).await;
    let reply = http2.exchange(get("any", "/two")).await;
    assert_eq!(reply.echo()["version"], "HTTP/2.0");
}

#[tokio::test]
async fn a_silent_client_counts_as_plain_bytes_after_the_detection_time() {
    let up = Upstream::tcp(|_, mut stream| async move {
        stream.write_all(b"220 ready\r\n").await?;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.map(drop)
    })
    .await;
    let proxy = in_front_of(up.address, "limits: {handshakeTimeout: 100ms}").await;
    let mut raw = Raw::connect(proxy.inbound()).await;
    assert_eq!(raw.exactly(11).await, b"220 ready\r\n");
}

#[tokio::test]
async fn a_port_that_is_declared_tcp_waits_for_no_byte() {
    let up =
        Upstream::tcp(|_, mut stream| async move { stream.write_all(b"hello from the server").await }).await;
    let port = support::free_port();
    let sidecar = format!(
        "---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: client, namespace: shop}}
spec:
  egress:
  - port: {{number: {port}, protocol: TCP, name: tcp-db}}
    bind: 127.0.0.1
    captureMode: NONE
    hosts: [\"./db.shop\"]
  - hosts: [\"./*\"]
"
    );
    let db = support::objects::service_at("db.shop", port, "TCP", &[up.address]);
    let proxy = Proxy::start(&(db + &sidecar)).await;
    proxy.assert_no_complaints();
    let mut raw = Raw::connect(([127, 0, 0, 1], port).into()).await;
    assert_eq!(raw.rest().await, b"hello from the server");
}

#[tokio::test]
async fn garbage_at_an_http_port_reaches_nobody() {
    let (proxy, up) = one_upstream().await;
    for garbage in
        [&b"\0\xff\xfe\x01\x02\x03"[..], b"\x16\x03\x01\x00\x05hello", b"SSH-2.0-x\r\n", b"\r\n\r\n \r\n"]
    {
        let answer = support::raw::speak(proxy.outbound(), garbage).await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{garbage:?}: {}", lossy(&answer));
    }
    assert_eq!(up.connections(), 0);
    assert_eq!(fetch(proxy.outbound(), get("up.shop", "/")).await.status, 200);
}

#[tokio::test]
async fn an_upstream_that_wants_a_proxy_header_gets_that_of_each_client() {
    let up = Upstream::tcp(|seen, mut stream| async move {
        let place = seen.begin_bytes();
        let mut chunk = [0; 4096];
        loop {
            let read = stream.read(&mut chunk).await?;
            if read == 0 {
                return Ok(());
            }
            seen.record(place, &chunk[..read]);
            if chunk[..read].ends_with(b"\r\n\r\n") {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await?;
            }
        }
    })
    .await;
    let rule = destination_rule("up.shop", "trafficPolicy: {proxyProtocol: {version: V1}}");
    let proxy = Proxy::start(&(service("up.shop", "HTTP", &[up.address]) + &rule)).await;
    proxy.assert_no_complaints();
    let mut said = Vec::new();
    for _ in 0..2 {
        let mut raw = Raw::connect(proxy.outbound()).await;
        let (client, server) = (raw.stream.local_addr().unwrap(), proxy.outbound());
        said.push(format!(
            "PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\nGET / HTTP/1.1\r\n",
            client.port(),
            server.port()
        ));
        raw.send("GET / HTTP/1.1\r\nHost: up.shop\r\n\r\n").await;
        assert_eq!(raw.reply().await.status, 200);
    }
    let bytes = up.bytes();
    assert_eq!(
        bytes.len(),
        2,
        "a connection carries one client's header: {:?}",
        bytes.iter().map(|b| lossy(b)).collect::<Vec<_>>()
    );
    for (bytes, said) in bytes.iter().zip(said) {
        assert!(bytes.starts_with(said.as_bytes()), "{said:?}: {:?}", lossy(bytes));
    }
}
