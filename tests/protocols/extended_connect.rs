//! WebSocket and CONNECT between all versions (RFC 8441).

use crate::support::frames::{DATA, END_HEADERS, END_STREAM, Frame, Frames, HEADERS, RST_STREAM};
use crate::support::objects::{service, virtual_service};
use crate::support::raw::lossy;
use crate::support::{BoxBody, Client2, Proxy, Raw, Upstream, client, empty, eventually, in_time};
use futures_util::{SinkExt, StreamExt};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

/// A proxy in front of one upstream that takes extended CONNECT, as `up.shop` by HTTP/1 and as `up2.shop` by HTTP/2.
async fn one_upstream() -> (Proxy, Upstream) {
    let up = Upstream::extended().await;
    let objects = service("up.shop", "HTTP", &[up.address]) + &service("up2.shop", "HTTP2", &[up.address]);
    let proxy = Proxy::start(&objects).await;
    proxy.assert_no_complaints();
    (proxy, up)
}

/// A client whose connection knows the server's settings: hyper does not wait for them.
async fn client2(proxy: &Proxy) -> Client2 {
    let mut client = Client2::connect(proxy.outbound()).await;
    client.exchange(crate::support::get("nobody.shop", "/")).await;
    client
}

fn extended(host: &str, path: &str) -> Request<BoxBody> {
    let request = Request::connect(format!("http://{host}{path}")).header("sec-websocket-version", "13");
    request.extension(Protocol::from_static("websocket")).body(empty()).unwrap()
}

async fn open(client: &mut Client2, request: Request<BoxBody>) -> Response<Incoming> {
    in_time("the connection", client.sender.ready()).await.unwrap();
    in_time("an answer", client.sender.send_request(request)).await.unwrap()
}

async fn echoes<S>(mut socket: WebSocketStream<S>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    for message in [Message::text("hello"), Message::binary(vec![7; 300_000]), Message::text("bye")] {
        in_time("sending", socket.send(message.clone())).await.unwrap();
        assert_eq!(in_time("an echo", socket.next()).await.unwrap().unwrap(), message);
    }
    in_time("closing", socket.close(None)).await.unwrap();
    let last = in_time("the end", socket.next()).await;
    assert!(matches!(last, Some(Ok(Message::Close(_)))), "{last:?}");
}

#[tokio::test]
async fn a_websocket_over_http_2_reaches_servers_of_both_versions() {
    let (proxy, up) = one_upstream().await;
    let mut client = client2(&proxy).await;
    for (host, seen) in [("up.shop", "GET /chat"), ("up2.shop", "CONNECT http://up2.shop/chat")] {
        let response = open(&mut client, extended(host, "/chat")).await;
        assert_eq!(response.status(), 200, "{host}");
        for name in ["upgrade", "connection", "sec-websocket-accept"] {
            assert!(!response.headers().contains_key(name), "{host} {name}");
        }
        let io = TokioIo::new(in_time("the tunnel", hyper::upgrade::on(response)).await.unwrap());
        echoes(WebSocketStream::from_raw_socket(io, Role::Client, None).await).await;
        assert_eq!(up.heads().last().unwrap(), seen);
    }
    // The connection goes on, and so does that to the HTTP/2 server.
    assert_eq!(client.exchange(crate::support::get("up2.shop", "/after")).await.status, 200);
}

#[tokio::test]
async fn a_websocket_over_http_1_reaches_an_http_2_server_and_its_accept_is_right() {
    let (proxy, up) = one_upstream().await;
    let stream = client::connect(proxy.outbound()).await;
    // The client checks sec-websocket-accept.
    let connecting = tokio_tungstenite::client_async("ws://up2.shop/chat", stream);
    let (socket, response) = in_time("the handshake", connecting).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["upgrade"]),
        (101, &"websocket".parse().unwrap())
    );
    echoes(socket).await;
    assert_eq!(up.heads(), ["CONNECT http://up2.shop/chat"]);
}

#[tokio::test]
async fn connect_passes_between_all_versions_and_either_end_may_close_its_half() {
    let (proxy, _up) = one_upstream().await;
    let mut client = Client2::connect(proxy.outbound()).await;
    for host in ["up.shop", "up2.shop"] {
        let mut raw = Raw::connect(proxy.outbound()).await;
        raw.send(format!("CONNECT {host}:80 HTTP/1.1\r\nHost: {host}:80\r\n\r\n")).await;
        assert_eq!(raw.head().await.unwrap().0, 200, "{host}");
        raw.send("anything").await;
        assert_eq!(raw.exactly(8).await, b"anything", "{host}");
        raw.finish().await;
        assert!(raw.is_at_end().await, "{host}");

        let request = Request::connect(format!("{host}:80")).body(empty()).unwrap();
        let response = open(&mut client, request).await;
        assert_eq!(response.status(), 200, "{host}");
        let mut io = TokioIo::new(in_time("the tunnel", hyper::upgrade::on(response)).await.unwrap());
        let large = vec![9; 300_000];
        let (mut reader, mut writer) = tokio::io::split(&mut io);
        let mut back = Vec::new();
        let writing = async {
            writer.write_all(&large).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let both = async { tokio::join!(writing, reader.read_to_end(&mut back)) };
        in_time("both ways", both).await.1.unwrap();
        assert!(back == large, "{host}: {} bytes came back of {}", back.len(), large.len());
    }
}

#[tokio::test]
async fn a_refused_websocket_is_an_ordinary_answer() {
    let (proxy, _up) = one_upstream().await;
    let mut client = client2(&proxy).await;
    for host in ["up.shop", "up2.shop"] {
        let response = open(&mut client, extended(host, "/refuse")).await;
        assert_eq!(response.status(), 401, "{host}");
        let stream = client::connect(proxy.outbound()).await;
        let refused = tokio_tungstenite::client_async(format!("ws://{host}/refuse"), stream).await;
        assert!(refused.unwrap_err().to_string().contains("401"), "{host}");
    }
}

#[tokio::test]
async fn a_success_without_a_switch_opens_no_tunnel() {
    let up = Upstream::tcp(|_, mut stream| async move {
        let mut chunk = [0; 4096];
        while stream.read(&mut chunk).await? > 0 {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await?;
        }
        Ok(())
    })
    .await;
    let direct =
        virtual_service("here.shop", "http: [{directResponse: {status: 200, body: {string: here}}}]");
    let proxy = Proxy::start(&(service("up.shop", "HTTP", &[up.address]) + &direct)).await;
    let mut client = client2(&proxy).await;
    assert_eq!(open(&mut client, extended("up.shop", "/")).await.status(), 502);
    assert_eq!(open(&mut client, extended("here.shop", "/")).await.status(), 403);
    assert_eq!(client.exchange(crate::support::get("here.shop", "/")).await.status, 200);
}

#[tokio::test]
async fn http_2_over_cleartext_is_not_offered_to_an_upstream() {
    let (proxy, up) = one_upstream().await;
    let mut raw = Raw::connect(proxy.outbound()).await;
    let offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    raw.send(format!("GET /x HTTP/1.1\r\nHost: up.shop\r\n{offer}\r\n")).await;
    let reply = raw.reply().await;
    assert_eq!(reply.status, 200);
    assert!(!lossy(&up.bytes()[0]).to_ascii_lowercase().contains("upgrade"), "{}", lossy(&up.bytes()[0]));
}

/// An HTTP/2 server that answers a CONNECT with 200 once the test says so, and tells which DATA came before and after.
async fn hesitant() -> (Upstream, Arc<Notify>) {
    let go = Arc::new(Notify::new());
    let gate = go.clone();
    let up = Upstream::tcp(move |seen, stream| {
        let gate = gate.clone();
        async move {
            let place = seen.begin_bytes();
            let mut frames = Frames::accept(stream, &[(8, 1)]).await?;
            let mut stream = 0;
            loop {
                tokio::select! {
                    () = gate.notified(), if stream != 0 => {
                        frames.send(&Frame::ok(stream, 0)).await?;
                        seen.record(place, b"[answered]");
                    }
                    frame = frames.next() => {
                        let frame = frame?;
                        match frame.kind {
                            HEADERS => {
                                assert_eq!(frame.flags & END_STREAM, 0, "the tunnel is open");
                                stream = frame.stream;
                                seen.record(place, b"[head]");
                            }
                            DATA => {
                                seen.record(place, &frame.payload);
                                if frame.flags & END_STREAM != 0 {
                                    seen.record(place, b"[end]");
                                }
                            }
                            RST_STREAM => seen.record(place, format!("[reset {}]", frame.code()).as_bytes()),
                            _ => {}
                        }
                    }
                }
            }
        }
    })
    .await;
    (up, go)
}

#[tokio::test]
async fn no_byte_of_the_client_goes_into_an_http_2_stream_before_its_answer() {
    let (up, go) = hesitant().await;
    let proxy = Proxy::start(&service("up2.shop", "HTTP2", &[up.address])).await;
    let mut raw = Raw::connect(proxy.outbound()).await;
    raw.send("GET /up HTTP/1.1\r\nHost: up2.shop\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nearly").await;
    let seen = || up.bytes().first().map(|bytes| lossy(bytes)).unwrap_or_default();
    eventually("the upgrade arrives", || seen().contains("[head]")).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(seen(), "[head]");
    go.notify_one();
    assert_eq!(raw.head().await.unwrap().0, 101);
    raw.finish().await;
    eventually("the early bytes and the end follow", || seen() == "[head][answered]early[end]").await;
}

#[tokio::test]
async fn a_stream_that_the_client_resets_is_reset_upstream() {
    let (up, go) = hesitant().await;
    let proxy = Proxy::start(&service("up2.shop", "HTTP2", &[up.address])).await;
    let mut frames = Frames::connect(proxy.outbound()).await;
    let head = crate::support::frames::block(&[
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":authority", "up2.shop"),
        (":path", "/chat"),
    ]);
    frames.send(&Frame::new(HEADERS, END_HEADERS, 1, head)).await.unwrap();
    let seen = || up.bytes().first().map(|bytes| lossy(bytes)).unwrap_or_default();
    eventually("the head arrives", || seen().contains("[head]")).await;
    go.notify_one();
    let answer = in_time("an answer", frames.next_of(HEADERS)).await.unwrap();
    assert_eq!((answer.stream, answer.flags & END_STREAM), (1, 0));
    frames.send(&Frame::new(DATA, 0, 1, *b"hello")).await.unwrap();
    eventually("the bytes arrive", || seen() == "[head][answered]hello").await;
    frames.send(&Frame::reset(1, crate::support::frames::CANCEL)).await.unwrap();
    eventually("the reset arrives", || seen() == "[head][answered]hello[reset 8]").await;
}

#[tokio::test]
async fn an_extended_connect_waits_for_the_settings_of_a_new_connection() {
    for (settings, status) in [(&[(8, 1)][..], 200), (&[][..], 403)] {
        let up = Upstream::tcp(move |_, stream| async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let mut frames = Frames::accept(stream, settings).await?;
            let head = frames.next_of(HEADERS).await?;
            frames.send(&Frame::ok(head.stream, 0)).await?;
            frames.next_of(crate::support::frames::GOAWAY).await.map(drop)
        })
        .await;
        let proxy = Proxy::start(&service("up2.shop", "HTTP2", &[up.address])).await;
        let mut client = client2(&proxy).await;
        let response = open(&mut client, extended("up2.shop", "/chat")).await;
        assert_eq!(response.status(), status, "{settings:?}");
    }
}

#[tokio::test]
async fn an_http_2_tunnel_without_a_byte_ends_after_the_idle_time_and_not_while_it_is_used() {
    let up = Upstream::extended().await;
    let objects = service("up2.shop", "HTTP2", &[up.address]);
    let proxy = Proxy::with("limits: {idleTimeout: 1s}", &objects).await;
    let mut client = Client2::connect(proxy.outbound()).await;
    let response = open(&mut client, Request::connect("up2.shop:80").body(empty()).unwrap()).await;
    let mut io = TokioIo::new(in_time("the tunnel", hyper::upgrade::on(response)).await.unwrap());
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        io.write_all(b"x").await.unwrap();
        let mut back = [0];
        in_time("an echo", io.read_exact(&mut back)).await.unwrap();
    }
    let mut rest = Vec::new();
    // How it ends, by its end or by a reset, is all the same here.
    let _ = in_time("the end", io.read_to_end(&mut rest)).await;
    assert!(rest.is_empty());
}
