//! gRPC: streams, trailers and statuses.

use crate::one_upstream;
use crate::support::body::{self, ChannelBody};
use crate::support::objects::{destination_rule, virtual_service};
use crate::support::{Client2, full, in_time, request};

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
