//! Servers that want to know the client: a connection carries one client's PROXY protocol header, and that client's requests alone.

use crate::support::objects::{destination_rule, service};
use crate::support::raw::lossy;
use crate::support::{Client2, Proxy, Raw, Upstream, eventually, get};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const GET: &str = "GET / HTTP/1.1\r\nHost: up.shop\r\n\r\n";

async fn header_and_answers() -> Upstream {
    Upstream::tcp(|seen, mut stream| async move {
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
    .await
}

async fn proxy(protocol: &str, up: &Upstream) -> Proxy {
    let rule = destination_rule("up.shop", "trafficPolicy: {proxyProtocol: {version: V1}}");
    let proxy = Proxy::start(&(service("up.shop", protocol, &[up.address]) + &rule)).await;
    proxy.assert_no_complaints();
    proxy
}

#[tokio::test]
async fn each_client_has_a_connection_of_its_own_and_keeps_it() {
    let up = header_and_answers().await;
    let proxy = proxy("HTTP", &up).await;
    let mut clients = Vec::new();
    let mut said = Vec::new();
    for _ in 0..2 {
        let raw = Raw::connect(proxy.outbound()).await;
        let (client, server) = (raw.stream.local_addr().unwrap(), proxy.outbound());
        said.push(format!(
            "PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\nGET / HTTP/1.1\r\n",
            client.port(),
            server.port()
        ));
        clients.push(raw);
    }
    for _ in 0..3 {
        for raw in &mut clients {
            raw.send(GET).await;
            assert_eq!(raw.reply().await.status, 200);
        }
    }
    let bytes = up.bytes();
    assert_eq!(bytes.len(), 2, "{:?}", bytes.iter().map(|bytes| lossy(bytes)).collect::<Vec<_>>());
    for (bytes, said) in bytes.iter().zip(said) {
        let text = lossy(bytes);
        assert!(text.starts_with(&said), "{said:?}: {text:?}");
        assert_eq!((text.matches("PROXY ").count(), text.matches("GET / ").count()), (1, 3), "{text}");
    }
}

#[tokio::test]
async fn the_connection_of_a_client_ends_soon_after_its_client() {
    let up = header_and_answers().await;
    let proxy = proxy("HTTP", &up).await;
    let mut gone = Raw::connect(proxy.outbound()).await;
    gone.send(GET).await;
    assert_eq!(gone.reply().await.status, 200);
    assert_eq!(up.open(), 1);
    drop(gone);
    // A request that is on its way makes the worker's clock run.
    let mut other = Raw::connect(proxy.outbound()).await;
    other.send("GET /").await;
    eventually("it is closed", || up.open() == 0).await;
}

#[tokio::test]
async fn requests_of_one_http_2_client_share_their_connection() {
    // Reads PROXY's line, then is an ordinary server.
    let inner = Upstream::start().await;
    let address = inner.address;
    let up = Upstream::tcp(move |seen, mut stream| async move {
        let place = seen.begin_bytes();
        let mut byte = [0];
        while byte != *b"\n" {
            stream.read_exact(&mut byte).await?;
            seen.record(place, &byte);
        }
        let mut server = tokio::net::TcpStream::connect(address).await?;
        tokio::io::copy_bidirectional(&mut stream, &mut server).await.map(drop)
    })
    .await;
    let proxy = proxy("HTTP2", &up).await;
    for clients in 1..=2 {
        let mut client = Client2::connect(proxy.outbound()).await;
        for _ in 0..3 {
            assert_eq!(client.exchange(get("up.shop", "/")).await.status, 200);
        }
        assert_eq!(up.connections(), clients);
    }
    assert_ne!(up.bytes()[0], up.bytes()[1], "each names its own client");
}
