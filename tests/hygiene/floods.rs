//! Too much of something: resets, headers, bytes, garbage.

use super::sidecar;
use crate::support::raw::{lossy, speak};
use crate::support::{Client2, Raw, empty, eventually, fetch, get, in_time, request};

#[tokio::test]
async fn row_14_a_client_that_opens_and_resets_is_cut_off_and_others_go_on() {
    let (proxy, up) = sidecar().await;
    let mut other = Client2::connect(proxy.outbound()).await;
    for _ in 0..5 {
        let mut cut_off = false;
        let stream = crate::support::client::connect(proxy.outbound()).await;
        let (send, connection) = h2::client::Builder::new()
            .max_concurrent_reset_streams(10_000)
            .handshake::<_, bytes::Bytes>(stream)
            .await
            .unwrap();
        let connection = tokio::spawn(connection);
        let mut send = send;
        for _ in 0..5000 {
            let Ok(ready) = in_time("a stream", send.clone().ready()).await else {
                cut_off = true;
                break;
            };
            send = ready;
            let message = http::Request::get("http://up.shop/hang").body(()).unwrap();
            let Ok((_, mut stream)) = send.send_request(message, false) else {
                cut_off = true;
                break;
            };
            stream.send_reset(h2::Reason::CANCEL);
            tokio::task::yield_now().await;
        }
        drop(send);
        if let Err(error) = in_time("the end of the connection", connection).await.unwrap() {
            assert!(error.is_go_away() || error.is_io() || error.is_reset(), "{error}");
            cut_off = true;
        }
        // By a word where one arrives: what a socket holds unread when it is closed costs the last word of its owner.
        assert!(cut_off, "all of its streams were taken");
        assert_eq!(other.exchange(get("up.shop", "/fine")).await.status, 200);
    }
    eventually("what was cancelled ends upstream", || up.open() <= 3).await;
}

#[tokio::test]
async fn row_19_too_many_or_too_large_headers_are_answered_431() {
    let (proxy, up) = sidecar().await;
    let flood = |count: usize, size: usize| {
        let lines: String = (0..count).map(|n| format!("X-{n}: {}\r\n", "v".repeat(size))).collect();
        format!("GET / HTTP/1.1\r\nHost: up.shop\r\n{lines}\r\n")
    };
    for (count, size) in [(101, 1), (5000, 1), (1, 61 * 1024), (90, 1024), (1, 1024 * 1024)] {
        let answer = lossy(
            &speak(proxy.outbound(), flood(count, size) + "GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
                .await,
        );
        assert!(
            answer.starts_with("HTTP/1.1 431") || answer.is_empty() && size > 100_000,
            "{count} of {size}: {answer:?}"
        );
    }
    assert_eq!(up.requests(), 0);
    let mut http2 = Client2::connect(proxy.outbound()).await;
    let large = "v".repeat(1000);
    let lines: Vec<_> = (0..90).map(|n| (format!("x-{n}"), large.clone())).collect();
    let lines: Vec<_> = lines.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let outcome = http2.try_exchange(request("GET", "up.shop", "/", &lines, empty())).await;
    assert!(outcome.as_ref().map_or(true, |reply| reply.status == 431), "{outcome:?}");
    assert_eq!(up.requests(), 0);
    let allowed =
        fetch(proxy.outbound(), request("GET", "up.shop", "/", &[("x-a", &"v".repeat(50_000))], empty()))
            .await;
    assert_eq!(allowed.status, 200);
}

#[tokio::test]
async fn row_19_a_target_that_is_too_long_is_answered_414_or_431() {
    let (proxy, up) = sidecar().await;
    for length in [62 * 1024, 70_000, 1024 * 1024] {
        let head =
            format!("GET /{} HTTP/1.1\r\nHost: up.shop\r\nConnection: close\r\n\r\n", "a".repeat(length));
        let answer = lossy(&speak(proxy.outbound(), head).await);
        let refused =
            answer.starts_with("HTTP/1.1 414") || answer.starts_with("HTTP/1.1 431") || answer.is_empty();
        assert!(refused, "{length}: {}", &answer[..answer.len().min(200)]);
    }
    assert_eq!(up.requests(), 0);
}

#[tokio::test]
async fn row_20_garbage_on_any_port_ends_no_accept_loop() {
    let (proxy, _up) = sidecar().await;
    let mut random = fastrand::Rng::with_seed(7);
    let ports =
        [proxy.outbound(), proxy.inbound(), proxy.page("admin"), proxy.page("health"), proxy.page("metrics")];
    for port in ports {
        for round in 0..40 {
            let mut raw = Raw::connect(port).await;
            let length = random.usize(0..600);
            let mut bytes: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
            let starts: [&[u8]; 4] = [
                b"",
                b"GET / HTTP/1.1\r\n",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                b"\x16\x03\x01\x02\x00\x01",
            ];
            let start = starts[round % 4];
            bytes.splice(0..0, start.iter().copied());
            raw.send(bytes).await;
            if round % 2 == 0 {
                raw.finish().await;
                in_time("the proxy to end a garbled connection", raw.rest()).await;
            }
        }
    }
    assert_eq!(fetch(proxy.outbound(), get("up.shop", "/")).await.status, 200);
    for page in ["admin", "health", "metrics"] {
        let path = if page == "health" { "/healthz/ready" } else { "/stats/prometheus" };
        assert_eq!(fetch(proxy.page(page), get("localhost", path)).await.status, 200, "{page}");
    }
}
