//! Where a request ends: never in two ways.

use super::sidecar;
use crate::support::raw::{lossy, speak};
use crate::support::{Raw, Upstream, fetch, get, in_time};

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

#[tokio::test]
async fn row_13_nothing_that_follows_a_connect_goes_upstream_before_the_tunnel() {
    let (proxy, up) = sidecar().await;
    let connect = |lines: &str| format!("CONNECT up.shop:80 HTTP/1.1\r\nHost: up.shop:80\r\n{lines}\r\n");
    let length = SMUGGLED.len();
    for vector in [
        connect(&format!("Content-Length: {length}\r\n")) + SMUGGLED,
        connect("Transfer-Encoding: chunked\r\n") + &format!("{length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n"),
        connect(&format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n")) + SMUGGLED,
        connect("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n") + SMUGGLED,
    ] {
        let answer = lossy(&speak(proxy.outbound(), &vector).await);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{vector:?}: {answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{vector:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{vector:?}: {answer}");
        assert_eq!(up.connections(), 0, "{vector:?}");
    }
    // Some clients say that there is none.
    let mut raw = Raw::connect(proxy.outbound()).await;
    raw.send(connect("Content-Length: 0\r\n")).await;
    assert_eq!(raw.head().await.unwrap().0, 200);
    let seen = lossy(&up.bytes()[0]).to_lowercase();
    assert!(seen.starts_with("connect up.shop:80 ") && !seen.contains("content-length"), "{seen}");
}

#[tokio::test]
async fn row_13_a_request_with_a_body_asks_for_no_upgrade() {
    let (proxy, up) = sidecar().await;
    let length = SMUGGLED.len();
    for (framing, body) in [
        (format!("Content-Length: {length}"), SMUGGLED.to_owned()),
        ("Transfer-Encoding: chunked".to_owned(), format!("{length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n")),
    ] {
        let mut raw = Raw::connect(proxy.outbound()).await;
        let head = "GET /first HTTP/1.1\r\nHost: up.shop\r\nConnection: upgrade\r\nUpgrade: echo\r\n";
        raw.send(format!("{head}{framing}\r\n\r\n{body}")).await;
        let reply = raw.reply().await;
        assert_eq!(reply.status, 200, "an ordinary answer: {}", reply.head);
        assert!(reply.text().contains(&format!("\"length\":{length}")), "{}", reply.text());
    }
    assert_eq!(up.heads(), ["GET /first", "GET /first"]);
    assert!(up.bytes().iter().all(|bytes| !lossy(bytes).to_lowercase().contains("upgrade: ")));
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
async fn row_13_http2_cannot_bring_framing_headers_of_http1() {
    let (proxy, up) = sidecar().await;
    let stream = crate::support::client::connect(proxy.outbound()).await;
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
