//! gRPC: streams, trailers and statuses.

use crate::one_upstream;
use crate::support::body::{self, ChannelBody};
use crate::support::objects::{destination_rule, service, virtual_service};
use crate::support::{Client2, Proxy, Upstream, eventually, fetch, full, get, in_time, request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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

/// The `grpc_response_status` of each series of gRPC requests, with its count.
async fn statuses(proxy: &Proxy) -> Vec<String> {
    let page = fetch(proxy.page("metrics"), get("localhost", "/stats/prometheus")).await.text();
    let series = page.lines().filter(|line| line.starts_with("istio_requests_total{"));
    let grpc = series.filter(|line| line.contains("request_protocol=\"grpc\""));
    let status = |line: &str| {
        let (_, rest) = line.split_once("grpc_response_status=\"").unwrap();
        format!("{} {}", rest.split('"').next().unwrap(), line.rsplit(' ').next().unwrap())
    };
    let mut all: Vec<_> = grpc.map(status).collect();
    all.sort();
    all
}

#[tokio::test]
async fn a_call_that_says_no_status_counts_as_what_its_http_status_stands_for() {
    let up = Upstream::tcp(|_, mut stream| async move {
        let mut chunk = vec![0; 4096];
        loop {
            let read = stream.read(&mut chunk).await?;
            if read == 0 {
                return Ok(());
            }
            let status = if chunk[..read].starts_with(b"POST /a.B/Lost") { "503 Gone" } else { "200 OK" };
            stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()).await?;
        }
    })
    .await;
    let proxy = Proxy::start(&service("up.shop", "HTTP", &[up.address])).await;
    let mut client = Client2::connect(proxy.outbound()).await;
    for path in ["/a.B/Silent", "/a.B/Lost"] {
        client.exchange(request("POST", "up.shop", path, GRPC, full("x"))).await;
    }
    assert_eq!(statuses(&proxy).await, ["14 1", "2 1"]);
}

#[tokio::test]
async fn a_call_that_was_cancelled_does_not_count_as_success() {
    let (proxy, up) = one_upstream().await;
    let stream = crate::support::client::connect(proxy.outbound()).await;
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    for hanging in [true, false] {
        let mut send = in_time("a stream", send.clone().ready()).await.unwrap();
        let mut message = http::Request::post("http://up2.shop/shop.Cart/Chat");
        message = message.header("content-type", "application/grpc").header("te", "trailers");
        if hanging {
            message = message.header("x-delay-ms", "5000");
        }
        let before = up.requests();
        let (response, mut body) = send.send_request(message.body(()).unwrap(), false).unwrap();
        let answered = if hanging { None } else { Some(in_time("an answer", response).await.unwrap()) };
        eventually("the call arrives", || up.requests() > before).await;
        body.send_reset(h2::Reason::CANCEL);
        drop(answered);
    }
    // Before any answer it is CANCELLED, if it is anything; after it there is UNKNOWN.
    let mut seen = Vec::new();
    for _ in 0..200 {
        seen = statuses(&proxy).await;
        if seen.len() == 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(seen == [" 1", "2 1"] || seen == ["1 1", "2 1"], "{seen:?}");
}
