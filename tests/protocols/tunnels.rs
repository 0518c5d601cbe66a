//! Upgrades and CONNECT.

use crate::one_upstream;
use crate::support::objects::service;
use crate::support::raw::lossy;
use crate::support::{Proxy, Raw, Upstream, client, eventually, in_time};
use futures_util::{SinkExt, StreamExt};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn a_websocket_goes_through() {
    let (proxy, _up) = one_upstream().await;
    let stream = client::connect(proxy.outbound()).await;
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
