//! Paths, request targets and hosts: one spelling inside, whatever the client wrote.

use super::{assert_refused, sidecar};
use crate::support::frames::{END_HEADERS, END_STREAM, Frame, Frames, HEADERS, block};
use crate::support::objects::virtual_service;
use crate::support::raw::{lossy, speak};
use crate::support::{Raw, fetch, get, in_time};

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
async fn row_2_only_http_is_served_whatever_scheme_a_target_names() {
    let (proxy, up) = sidecar().await;
    for target in ["ftp://up.shop/x", "ws://up.shop/x", "file://up.shop/x"] {
        assert_refused(proxy.outbound(), format!("GET {target} HTTP/1.1\r\nHost: up.shop\r\n\r\n")).await;
    }
    let mut frames = Frames::connect(proxy.outbound()).await;
    let head = block(&[(":method", "GET"), (":scheme", "foo"), (":authority", "up.shop"), (":path", "/")]);
    frames.send(&Frame::new(HEADERS, END_HEADERS | END_STREAM, 1, head)).await.unwrap();
    let answer = in_time("an answer", frames.next_of(HEADERS)).await.unwrap();
    // `:status 400` of HPACK's table.
    assert_eq!(answer.payload[0], 0x8c, "{answer:?}");
    assert_eq!(up.requests(), 0);
    for scheme in ["http", "https", "HTTP"] {
        let mut raw = Raw::connect(proxy.outbound()).await;
        raw.send(format!("GET {scheme}://up.shop/x HTTP/1.1\r\nHost: up.shop\r\n\r\n")).await;
        assert_eq!(raw.reply().await.status, 200, "{scheme}");
    }
}
