//! The contract of the filters over real connections: one that waits, one that sends a body again, one that holds a permit to the end.

use super::support::{Running, broke, captured, mesh, nobody, sniffed_tcp};
use bytes::Bytes;
use filter_api::{Outcome, Reason};
use http::{Request, StatusCode};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Serves each connection by `serve`, which is told how many came before.
async fn upstream<F>(serve: impl Fn(u32, TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let count = AtomicU32::new(0);
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(count.fetch_add(1, Ordering::Relaxed), stream));
        }
    });
    address
}

/// HTTP/1 for one request per connection: `/ok`, `/hang` after half of its body, `/die` there; `/flaky` dies on its first connection after the first
/// bytes of the body and gives the body back on the second; an upgrade gives its bytes back until `die`.
async fn web() -> SocketAddr {
    upstream(|number, mut stream| async move {
        let mut seen = Vec::new();
        while !seen.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
            if stream.read_buf(&mut seen).await? == 0 {
                return Ok(());
            }
        }
        let text = String::from_utf8_lossy(&seen).into_owned();
        let path = text.split(' ').nth(1).unwrap_or_default();
        let half = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf.";
        match path {
            "/hang" => {
                stream.write_all(half).await?;
                std::future::pending().await
            }
            "/die" => stream.write_all(half).await,
            "/flaky" => {
                let start = seen.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap_or_default() + 4;
                if number == 0 {
                    stream.set_zero_linger()?;
                    return Ok(());
                }
                while !seen.ends_with(b"the end") && !seen.ends_with(b"0\r\n\r\n") {
                    if stream.read_buf(&mut seen).await? == 0 {
                        return Ok(());
                    }
                }
                let whole = String::from_utf8_lossy(&seen[start..]).contains("from the beginning");
                let body = if whole { "whole" } else { "torn" };
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
                stream.write_all(answer.as_bytes()).await
            }
            "/up" => {
                stream
                    .write_all(
                        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n",
                    )
                    .await?;
                echo(stream).await
            }
            _ => {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello")
                    .await
            }
        }
    })
    .await
}

/// Gives every byte back; breaks at `die`.
async fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    let mut chunk = vec![0; 4096];
    loop {
        let read = stream.read(&mut chunk).await?;
        if read == 0 {
            return stream.shutdown().await;
        }
        if chunk[..read].ends_with(b"die") {
            return stream.set_zero_linger();
        }
        stream.write_all(&chunk[..read]).await?;
    }
}

async fn running(name: &str) -> Running {
    let bytes = upstream(|_, stream| echo(stream)).await;
    Running::start(name, web().await, bytes)
}

/// Sends these bytes and reads until the end, or until `enough`.
async fn exchange(stream: &mut TcpStream, bytes: &str, enough: &str) -> String {
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    let reading = async {
        while enough.is_empty() || !seen.windows(enough.len()).any(|part| part == enough.as_bytes()) {
            match stream.read_buf(&mut seen).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reading).await.expect("no answer in time");
    String::from_utf8_lossy(&seen).into_owned()
}

fn get(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n")
}

#[tokio::test]
async fn over_http_1_every_end_is_told_once() {
    let proxy = running("http 1").await;
    let mut client = proxy.connect().await;
    assert!(exchange(&mut client, &get("up", "/ok"), "hello").await.contains("200 OK"));
    assert_eq!(proxy.settled(1, 0).await.request_ends, [(Outcome::Complete, 5)]);

    assert!(exchange(&mut client, &get("up", "/hang"), "half.").await.contains("200 OK"));
    drop(client);
    let pages = proxy.settled(2, 0).await;
    assert!(broke(pages.request_ends[1].0), "{pages:?}");

    let mut client = proxy.connect().await;
    assert!(exchange(&mut client, &get("up", "/die"), "").await.ends_with("half."));
    let pages = proxy.settled(3, 0).await;
    assert_eq!(pages.request_ends[2], (Outcome::Reset(Reason::UpstreamClosed), 5));

    let mut client = proxy.connect().await;
    assert!(exchange(&mut client, &get("dead", "/"), "\r\n\r\n").await.starts_with("HTTP/1.1 503"));
    let pages = proxy.settled(4, 0).await;
    assert_eq!(pages.request_ends[3], (Outcome::Reset(Reason::ConnectFailure), 0));
    assert_eq!(pages.connections, 0, "HTTP is judged by the request");
}

#[tokio::test]
async fn a_filter_that_says_no_after_asking_ends_it_before_the_next_one() {
    let proxy = running("asking").await;
    let mut client = proxy.connect().await;
    let refused = "GET / HTTP/1.1\r\nhost: up\r\nx-verdict: no\r\n\r\n";
    assert!(exchange(&mut client, refused, "\r\n\r\n").await.starts_with("HTTP/1.1 403"));
    assert!(
        exchange(&mut client, &get("up", "/ok"), "hello").await.contains("200 OK"),
        "the connection goes on"
    );
    assert_eq!(proxy.settled(1, 0).await.requests, 1);
}

#[tokio::test]
async fn a_body_is_sent_again_to_an_upstream_that_died_on_it() {
    let proxy = running("again").await;
    let mut client = proxy.connect().await;
    let message = "POST /flaky HTTP/1.1\r\nhost: up\r\nx-retry: 1\r\ncontent-length: 26\r\n\r\nfrom the beginning the end";
    assert!(exchange(&mut client, message, "whole").await.starts_with("HTTP/1.1 200"));
    assert_eq!(proxy.settled(1, 0).await.request_ends, [(Outcome::Complete, 5)]);
}

#[tokio::test]
async fn over_http_2_every_end_is_told_once() {
    let proxy = running("http 2").await;
    let (mut client, connection) = h2::client::handshake(proxy.connect().await).await.unwrap();
    let driving = tokio::spawn(connection);
    let mut send = |host: &str, path: &str| {
        let message = Request::builder().uri(format!("http://{host}{path}")).body(()).unwrap();
        client.send_request(message, true).unwrap().0
    };
    let answer = send("up", "/ok").await.unwrap();
    let mut body = answer.into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), Bytes::from_static(b"hello"));
    assert!(body.data().await.is_none());
    assert_eq!(proxy.settled(1, 0).await.request_ends, [(Outcome::Complete, 5)]);

    // One stream is reset by the client, the connection goes on.
    let mut body = send("up", "/hang").await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), Bytes::from_static(b"half."));
    drop(body);
    assert!(broke(proxy.settled(2, 0).await.request_ends[1].0));

    let mut body = send("up", "/die").await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), Bytes::from_static(b"half."));
    assert!(body.data().await.unwrap().is_err());
    let pages = proxy.settled(3, 0).await;
    assert_eq!(pages.request_ends[2], (Outcome::Reset(Reason::UpstreamClosed), 5));

    assert_eq!(send("dead", "/").await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    let pages = proxy.settled(4, 0).await;
    assert_eq!(pages.request_ends[3], (Outcome::Reset(Reason::ConnectFailure), 0));

    // The whole connection goes away under a stream.
    let mut body = send("up", "/hang").await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), Bytes::from_static(b"half."));
    driving.abort();
    assert!(broke(proxy.settled(5, 0).await.request_ends[4].0));
}

const UPGRADE: &str = "GET /up HTTP/1.1\r\nhost: up\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";

#[tokio::test]
async fn a_tunnel_is_a_connection_and_a_request_and_each_ends_once() {
    let proxy = running("upgrade").await;
    let mut client = proxy.connect().await;
    assert!(exchange(&mut client, UPGRADE, "\r\n\r\n").await.starts_with("HTTP/1.1 101"));
    assert_eq!(exchange(&mut client, "ping", "ping").await, "ping");
    client.shutdown().await.unwrap();
    let pages = proxy.settled(1, 1).await;
    assert_eq!(
        (pages.request_ends[0], pages.connection_ends[0]),
        ((Outcome::Complete, 8), (Outcome::Complete, 8))
    );

    let mut client = proxy.connect().await;
    exchange(&mut client, UPGRADE, "\r\n\r\n").await;
    client.set_zero_linger().unwrap();
    drop(client);
    let pages = proxy.settled(2, 2).await;
    assert_eq!(pages.connection_ends[1].0, Outcome::Reset(Reason::DownstreamClosed));

    let mut client = proxy.connect().await;
    exchange(&mut client, UPGRADE, "\r\n\r\n").await;
    exchange(&mut client, "die", "").await;
    let pages = proxy.settled(3, 3).await;
    assert_eq!(pages.connection_ends[2].0, Outcome::Reset(Reason::UpstreamClosed));

    // Asked for a tunnel, and none was opened: it ends with the answer.
    let mut client = proxy.connect().await;
    exchange(&mut client, &UPGRADE.replace("/up", "/ok"), "hello").await;
    let pages = proxy.settled(4, 4).await;
    assert_eq!(pages.connection_ends[3], (Outcome::Complete, 5));
}

#[tokio::test]
async fn over_tcp_every_end_is_told_once() {
    let proxy = running("tcp").await;
    let mut client = proxy.connect().await;
    assert_eq!(exchange(&mut client, "\0ping", "ping").await, "\0ping");
    client.shutdown().await.unwrap();
    assert_eq!(exchange(&mut client, "", "").await, "");
    assert_eq!(proxy.settled_connections(1).await, [(Outcome::Complete, 10)]);

    let mut client = proxy.connect().await;
    exchange(&mut client, "\0ping", "ping").await;
    client.set_zero_linger().unwrap();
    drop(client);
    assert_eq!(proxy.settled_connections(2).await[1].0, Outcome::Reset(Reason::DownstreamClosed));

    let mut client = proxy.connect().await;
    exchange(&mut client, "\0die", "").await;
    assert_eq!(proxy.settled_connections(3).await[2].0, Outcome::Reset(Reason::UpstreamClosed));
    assert_eq!(proxy.permit.pages().requests, 0);
}

#[tokio::test]
async fn an_upstream_that_is_not_there_ends_a_tcp_connection_once() {
    let proxy = Running::start("tcp dead", nobody(), nobody());
    let mut client = proxy.connect().await;
    assert_eq!(exchange(&mut client, "\0ping", "").await, "");
    assert_eq!(proxy.settled_connections(1).await, [(Outcome::Reset(Reason::ConnectFailure), 0)]);
}

#[tokio::test]
async fn a_refused_connection_reaches_no_upstream() {
    let called = Arc::new(AtomicU32::new(0));
    let count = called.clone();
    let bytes = upstream(move |_, stream| {
        count.fetch_add(1, Ordering::Relaxed);
        echo(stream)
    })
    .await;
    let proxy = Running::start("refused", web().await, bytes);
    proxy.permit.close();
    let mut client = proxy.connect().await;
    assert_eq!(exchange(&mut client, "\0ping", "").await, "");
    let mut client = proxy.connect().await;
    let answer = exchange(&mut client, UPGRADE, "no permit is left").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("no permit is left"), "{answer}");
    assert_eq!(called.load(Ordering::Relaxed), 0);
    let pages = proxy.settled(1, 0).await;
    assert_eq!(pages.request_ends, [(Outcome::Reset(Reason::Overload), 0)]);
    // The filter before had let both go on, and hears of their end.
    let ends = proxy.waiting.pages().connection_ends;
    assert_eq!(ends, [(Outcome::Reset(Reason::Overload), 0); 2]);
}

#[tokio::test]
async fn a_captured_connection_that_says_nothing_is_bytes_after_the_time_for_a_handshake() {
    let server_first = upstream(|_, mut stream| async move {
        stream.write_all(b"220 ready\r\n").await?;
        echo(stream).await
    })
    .await;
    let limit = Duration::from_millis(200);
    let proxy = Running::over("silent", captured(mesh("silent", nobody(), server_first), limit));
    let began = Instant::now();
    let mut client = proxy.connect().await;
    assert_eq!(exchange(&mut client, "", "ready\r\n").await, "220 ready\r\n");
    assert!(began.elapsed() >= limit);
}

#[tokio::test]
async fn bytes_that_look_like_http_are_judged_as_bytes_where_nobody_reads_them_as_http() {
    let called = Arc::new(AtomicU32::new(0));
    let count = called.clone();
    let bytes = upstream(move |_, stream| {
        count.fetch_add(1, Ordering::Relaxed);
        echo(stream)
    })
    .await;
    let policy = filter_authorization::Policy::default();
    let proxy = Running::over("look alike", sniffed_tcp(mesh("look alike", nobody(), bytes), policy));
    let mut client = proxy.connect().await;
    assert_eq!(exchange(&mut client, &get("up", "/ok"), "").await, "", "nobody is allowed");
    let mut client = proxy.connect().await;
    assert_eq!(exchange(&mut client, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "").await, "");
    assert_eq!(called.load(Ordering::Relaxed), 0);
}
