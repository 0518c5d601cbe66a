//! Rapid reset (CVE-2023-44487): requests that are cancelled as soon as they are made cost no upstream a connection each.

use crate::support::frames::{CANCEL, ENHANCE_YOUR_CALM, Frame, Frames, GOAWAY, HEADERS};
use crate::support::objects::service;
use crate::support::{Client2, Proxy, Upstream, eventually, get, in_time};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn pair(number: u32, path: &str) -> Vec<u8> {
    let stream = 2 * number + 1;
    [Frame::get(stream, "up.shop", path).bytes(), Frame::reset(stream, CANCEL).bytes()].concat()
}

#[tokio::test]
async fn streams_that_are_reset_at_once_end_their_connection_and_open_few() {
    for protocol in ["HTTP", "HTTP2"] {
        let up = Upstream::start().await;
        let proxy = Proxy::start(&service("up.shop", protocol, &[up.address])).await;
        let mut frames = Frames::connect(proxy.outbound()).await;
        let all: Vec<u8> = (0..2000).flat_map(|number| pair(number, "/hang")).collect();
        // The proxy may have closed before it has read all.
        let _ = in_time("writing", frames.0.write_all(&all)).await;
        frames.rest().await;
        eventually("no request is left", || up.open() <= 1).await;
        assert!(up.connections() <= 5, "{protocol}: {} connections", up.connections());
        let reply = Client2::connect(proxy.outbound()).await.exchange(get("up.shop", "/")).await;
        assert_eq!(reply.status, 200, "others are served: {protocol}");
    }
}

#[tokio::test]
async fn who_resets_at_once_is_told_to_calm_down() {
    let up = Upstream::start().await;
    let proxy = Proxy::start(&service("up.shop", "HTTP", &[up.address])).await;
    let mut frames = Frames::connect(proxy.outbound()).await;
    // No more than is read at once, and no word after it: what a socket holds unread when it is closed costs the last word of its owner.
    let all: Vec<u8> = (0..60).flat_map(|number| pair(number, "/hang")).collect();
    frames.0.write_all(&all).await.unwrap();
    let mut answer = Vec::new();
    in_time("the end", frames.0.read_to_end(&mut answer)).await.unwrap();
    let last = Frame::all(&answer).into_iter().rfind(|frame| frame.kind == GOAWAY).unwrap();
    assert_eq!(last.code(), ENHANCE_YOUR_CALM);
}

#[tokio::test]
async fn streams_that_are_reset_one_by_one_end_their_connection_too() {
    let up = Upstream::start().await;
    let proxy = Proxy::start(&service("up.shop", "HTTP", &[up.address])).await;
    let mut frames = Frames::connect(proxy.outbound()).await;
    let mut sent = 0;
    while sent < 2000 && frames.0.write_all(&pair(sent, "/hang")).await.is_ok() {
        sent += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(sent < 2000, "all were taken");
    eventually("no request is left", || up.open() <= 1).await;
    assert!(up.connections() <= 5, "{} connections for {sent} requests", up.connections());
}

#[tokio::test]
async fn requests_that_are_cancelled_once_they_arrived_cost_a_bounded_number_of_connections() {
    let up = Upstream::start().await;
    let proxy = Proxy::start(&service("up.shop", "HTTP", &[up.address])).await;
    let mut frames = Frames::connect(proxy.outbound()).await;
    let mut sent = 0;
    while sent < 2000 {
        let stream = 2 * sent + 1;
        let arrived = up.requests() + 1;
        if frames.send(&Frame::get(stream, "up.shop", "/hang")).await.is_err() {
            break;
        }
        let end = std::time::Instant::now() + Duration::from_millis(500);
        while up.requests() < arrived && std::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        sent += 1;
        if up.requests() < arrived || frames.send(&Frame::reset(stream, CANCEL)).await.is_err() {
            break;
        }
    }
    assert!((250..=252).contains(&sent), "{sent}");
    assert!(up.connections() <= 251, "{} connections for {sent} requests", up.connections());
}

#[tokio::test]
async fn a_client_that_cancels_now_and_then_goes_on() {
    let up = Upstream::start().await;
    let proxy = Proxy::start(&service("up.shop", "HTTP", &[up.address])).await;
    let mut frames = Frames::connect(proxy.outbound()).await;
    for number in 0..600 {
        let stream = 2 * number + 1;
        if number % 3 == 0 {
            frames.0.write_all(&pair(number, "/hang")).await.unwrap();
        } else {
            frames.send(&Frame::get(stream, "up.shop", "/status/204")).await.unwrap();
            let answer = in_time("an answer", frames.next_of(HEADERS)).await.unwrap();
            assert_eq!(answer.stream, stream, "{answer:?}");
        }
    }
}
