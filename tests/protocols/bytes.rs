//! Plain bytes, and how they are told from HTTP.

use crate::support::objects::service_at;
use crate::support::{Client2, Proxy, Raw, Upstream, eventually, free_port, get, in_time};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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
    let port = free_port();
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
    let db = service_at("db.shop", port, "TCP", &[up.address]);
    let proxy = Proxy::start(&(db + &sidecar)).await;
    proxy.assert_no_complaints();
    let mut raw = Raw::connect(([127, 0, 0, 1], port).into()).await;
    assert_eq!(raw.rest().await, b"hello from the server");
}
