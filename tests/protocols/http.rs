//! HTTP in all its versions.

use crate::one_upstream;
use crate::support::body::{self, ChannelBody};
use crate::support::raw::{self, lossy};
use crate::support::{Client1, Client2, Raw, empty, fetch, full, get, in_time, request};

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
async fn a_get_keeps_its_body_however_it_is_framed() {
    let (proxy, _up) = one_upstream().await;
    for host in ["up.shop", "up2.shop"] {
        for (framing, body) in
            [("Content-Length: 5", "hello"), ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n")]
        {
            let mut raw = Raw::connect(proxy.outbound()).await;
            raw.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n{framing}\r\n\r\n{body}")).await;
            let text = raw.reply().await.text();
            assert!(text.contains("\"body\":\"hello\""), "{host} {framing}: {text}");
        }
        let (frames, body) = ChannelBody::new();
        let sender = async {
            frames.data("hello").await;
            drop(frames);
        };
        let mut http2 = Client2::connect(proxy.outbound()).await;
        let (reply, ()) = tokio::join!(http2.exchange(request("GET", host, "/", &[], body)), sender);
        assert_eq!(reply.echo()["body"], "hello", "{host}");
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

type Lines = &'static [(&'static str, &'static str)];

#[tokio::test]
async fn trailers_that_cannot_go_on_are_counted() {
    let (proxy, _up) = one_upstream().await;
    let lost = || async {
        let page = fetch(proxy.page("admin"), get("localhost", "/stats/prometheus")).await.text();
        let line = page.lines().find_map(|line| line.strip_prefix("sidegate_lost_trailers_total "));
        line.unwrap_or("0").parse::<u64>().unwrap()
    };
    // Who sends, to what; with which headers; how many of the two, the request's and the answer's, are lost. `/stream` announces its trailers.
    let cases: &[(u8, &str, &str, Lines, u64)] = &[
        (2, "up.shop", "/", &[], 1),
        (1, "up.shop", "/", &[], 1),
        (2, "up.shop", "/", &[("trailer", "x-sum")], 0),
        (1, "up.shop", "/", &[("trailer", "x-sum")], 0),
        (2, "up2.shop", "/", &[], 0),
        (1, "up2.shop", "/stream", &[("trailer", "x-sum")], 1),
        (1, "up2.shop", "/stream", &[("trailer", "x-sum"), ("te", "trailers")], 0),
        (2, "up.shop", "/stream", &[("trailer", "x-sum")], 0),
    ];
    for case in cases {
        let (version, host, path, lines, expected) = case;
        let before = lost().await;
        let (frames, body) = ChannelBody::new();
        // hyper's client sends only what it announces, so what an HTTP/1 client leaves out is written by hand.
        if *version == 1 {
            drop((frames, body));
            let lines: String = lines.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let head =
                format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n{lines}\r\n");
            let mut raw = Raw::connect(proxy.outbound()).await;
            raw.send(format!("{head}4\r\ndata\r\n0\r\nx-sum: 7\r\n\r\n")).await;
            assert_eq!(raw.reply().await.status, 200, "{case:?}");
        } else {
            let mut client = Client2::connect(proxy.outbound()).await;
            let message = request("POST", host, path, lines, body);
            let sender = async {
                frames.data("data").await;
                frames.trailers(body::trailers(&[("x-sum", "7")])).await;
                drop(frames);
            };
            let (reply, ()) = tokio::join!(client.exchange(message), sender);
            assert_eq!(reply.status, 200, "{case:?}");
        }
        let mut now = lost().await;
        for _ in 0..50 {
            if now != before {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(if *expected > 0 { 20 } else { 1 })).await;
            now = lost().await;
        }
        assert_eq!(now - before, *expected, "{case:?}");
    }
}

#[tokio::test]
async fn garbage_at_an_http_port_reaches_nobody() {
    let (proxy, up) = one_upstream().await;
    for garbage in
        [&b"\0\xff\xfe\x01\x02\x03"[..], b"\x16\x03\x01\x00\x05hello", b"SSH-2.0-x\r\n", b"\r\n\r\n \r\n"]
    {
        let answer = raw::speak(proxy.outbound(), garbage).await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{garbage:?}: {}", lossy(&answer));
    }
    assert_eq!(up.connections(), 0);
    assert_eq!(fetch(proxy.outbound(), get("up.shop", "/")).await.status, 200);
}
