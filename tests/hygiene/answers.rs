//! Answers of upstreams that could be read in two ways.

use crate::support::objects::service;
use crate::support::raw::lossy;
use crate::support::{Client1, Client2, Proxy, Raw, Upstream, get};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A server that answers each head with these bytes.
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
            if chunk[..read].ends_with(b"\r\n\r\n") {
                stream.write_all(answer.as_bytes()).await?;
            }
        }
    })
    .await
}

async fn proxy(up: &Upstream) -> Proxy {
    Proxy::start(&service("up.shop", "HTTP", &[up.address])).await
}

#[tokio::test]
async fn row_13_an_answer_of_doubtful_framing_is_a_502_and_its_connection_is_not_used_again() {
    for (lines, words) in [
        ("Content-Length: 3\r\nTransfer-Encoding: chunked", "both Content-Length and Transfer-Encoding"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 3", "both Content-Length and Transfer-Encoding"),
        ("Transfer-Encoding: gzip", "another than `chunked`"),
        ("Transfer-Encoding: gzip, chunked", "another than `chunked`"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "another than `chunked`"),
        ("Content-Length: 3\r\nContent-Length: 5", "protocol error"),
        ("Content-Length: 3, 5", "protocol error"),
        ("Content-Length: 9223372036854775808", "protocol error"),
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        let up = answering(answer.leak()).await;
        let proxy = proxy(&up).await;
        let mut http1 = Client1::connect(proxy.outbound()).await;
        for _ in 0..2 {
            let reply = http1.exchange(get("up.shop", "/")).await;
            assert_eq!(reply.status, 502, "{lines}: {}", reply.text());
            assert!(reply.text().starts_with("protocol error"), "{lines}: {}", reply.text());
            assert!(reply.text().contains(words), "{lines}: {}", reply.text());
        }
        let reply = Client2::connect(proxy.outbound()).await.exchange(get("up.shop", "/")).await;
        assert_eq!(reply.status, 502, "{lines}: {}", reply.text());
        assert_eq!(up.connections(), 3, "{lines}");
    }
}

#[tokio::test]
async fn row_13_lengths_that_agree_are_one() {
    let up = answering("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nhel").await;
    let proxy = proxy(&up).await;
    let mut raw = Raw::connect(proxy.outbound()).await;
    raw.send("GET / HTTP/1.1\r\nHost: up.shop\r\n\r\n").await;
    let reply = raw.reply().await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "hel"));
    assert_eq!(reply.head.to_lowercase().matches("content-length").count(), 1, "{}", reply.head);
    let reply = Client2::connect(proxy.outbound()).await.exchange(get("up.shop", "/")).await;
    assert_eq!((reply.status.as_u16(), reply.text().as_str()), (200, "hel"));
    assert_eq!(reply.headers.get_all("content-length").iter().count(), 1);
}

#[tokio::test]
async fn the_length_that_a_304_stands_for_reaches_every_client() {
    let up = answering("HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\nETag: \"a\"\r\n\r\n").await;
    let proxy = proxy(&up).await;
    let mut raw = Raw::connect(proxy.outbound()).await;
    for _ in 0..2 {
        raw.send("GET / HTTP/1.1\r\nHost: up.shop\r\nIf-None-Match: \"a\"\r\n\r\n").await;
        let reply = raw.reply().await;
        assert_eq!((reply.status, reply.header("content-length")), (304, "1234"), "{}", reply.head);
    }
    let reply = Client2::connect(proxy.outbound()).await.exchange(get("up.shop", "/")).await;
    assert_eq!((reply.status.as_u16(), reply.header("content-length")), (304, "1234"));
}

#[tokio::test]
async fn row_13_a_connection_on_which_a_tunnel_was_declined_is_not_used_again() {
    let up = answering("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
    let proxy = proxy(&up).await;
    for tunnel in [
        "CONNECT up.shop:80 HTTP/1.1\r\nHost: up.shop:80\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: up.shop\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n",
    ] {
        let before = up.connections();
        let mut raw = Raw::connect(proxy.outbound()).await;
        raw.send(tunnel).await;
        let reply = raw.reply().await;
        assert_eq!((reply.status, reply.text().as_str()), (403, "no"), "{tunnel}");
        for _ in 0..2 {
            let reply = Client1::connect(proxy.outbound()).await.exchange(get("up.shop", "/next")).await;
            assert_eq!(reply.status, 403);
        }
        let heads: Vec<_> = up.bytes().iter().map(|bytes| lossy(bytes)).collect();
        for text in &heads {
            let after = text.split_once("CONNECT").or_else(|| text.split_once("upgrade: echo"));
            assert!(!after.is_some_and(|(_, after)| after.contains("/next")), "{text}");
        }
        assert!(up.connections() > before, "{tunnel}");
    }
    crate::support::eventually("the declined ones end", || up.open() <= 1).await;
}
