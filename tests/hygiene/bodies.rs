//! Request bodies that are longer than the port allows.

use super::sidecar_with;
use crate::support::{ChannelBody, Client1, Client2, Proxy, Raw, Reply, fetch, full, get, in_time, request};

const LIMIT: &str = "limits: {maxBodyBytes: 10}";

/// How often the limit was hit.
async fn hits(proxy: &Proxy) -> String {
    let page = fetch(proxy.page("admin"), get("localhost", "/stats")).await.text();
    let line = page.lines().find_map(|line| {
        line.strip_prefix("sidegate_limit_hits_total{limit=\"request_payload_too_large\"} ")
    });
    line.unwrap_or("none").to_owned()
}

#[tokio::test]
async fn row_19_a_body_that_says_it_is_too_long_never_goes_upstream() {
    let (proxy, up) = sidecar_with(LIMIT).await;
    let mut raw = Raw::connect(proxy.outbound()).await;
    raw.send("POST / HTTP/1.1\r\nHost: up.shop\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n").await;
    let reply = raw.reply().await;
    assert_eq!((reply.status, reply.header("connection")), (413, "close"), "{}", reply.text());
    assert!(reply.text().contains("request payload too large"), "{}", reply.text());
    assert!(raw.is_at_end().await);
    let mut http2 = Client2::connect(proxy.outbound()).await;
    let reply = http2.exchange(request("POST", "up.shop", "/", &[], full("eleven byte"))).await;
    assert_eq!(reply.status, 413);
    assert_eq!((up.requests(), &*hits(&proxy).await), (0, "2"));
    for body in ["", "ten bytes!"] {
        let reply = fetch(proxy.outbound(), request("POST", "up.shop", "/", &[], full(body))).await;
        assert_eq!((reply.status.as_u16(), reply.echo()["body"].as_str()), (200, Some(body)));
    }
    let limits = fetch(proxy.page("admin"), get("localhost", "/limits")).await.text();
    assert!(limits.contains("max_body_bytes"), "{limits}");
}

#[tokio::test]
async fn row_19_a_body_that_grows_too_long_is_answered_413_before_the_answer_has_begun() {
    let (proxy, _up) = sidecar_with(LIMIT).await;
    let mut raw = Raw::connect(proxy.outbound()).await;
    raw.send("POST / HTTP/1.1\r\nHost: up.shop\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n12345678\r\n").await;
    raw.send("3\r\n901\r\n").await;
    let reply = raw.reply().await;
    assert_eq!((reply.status, reply.header("connection")), (413, "close"), "{}", reply.text());
    for host in ["up.shop", "up2.shop"] {
        let mut http2 = Client2::connect(proxy.outbound()).await;
        let (frames, body) = ChannelBody::new();
        frames.data("12345678").await;
        frames.data("901").await;
        let reply = http2.exchange(request("POST", host, "/", &[], body)).await;
        assert_eq!(reply.status, 413, "{host}: {}", reply.text());
        drop(frames);
        assert_eq!(http2.exchange(get(host, "/next")).await.status, 200);
    }
    assert_eq!(hits(&proxy).await, "3");
}

#[tokio::test]
async fn row_19_grpc_is_told_resource_exhausted() {
    let (proxy, up) = sidecar_with(LIMIT).await;
    let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
    let mut http2 = Client2::connect(proxy.outbound()).await;
    let told = |reply: Reply| {
        assert_eq!((reply.status.as_u16(), reply.header("grpc-status")), (200, "8"), "{:?}", reply.headers);
        assert_eq!(reply.body.len(), 0);
    };
    told(http2.exchange(request("POST", "up2.shop", "/a.B/C", &grpc, full("eleven byte"))).await);
    assert_eq!(up.requests(), 0);
    let (frames, body) = ChannelBody::new();
    frames.data("12345678").await;
    frames.data("901").await;
    told(http2.exchange(request("POST", "up2.shop", "/a.B/C", &grpc, body)).await);
}

#[tokio::test]
async fn row_19_a_body_that_grows_too_long_under_an_answer_resets_it() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let format = "meshConfig: {accessLogFormat: \"%RESPONSE_CODE% %RESPONSE_CODE_DETAILS%\\n\"";
    let (proxy, _up) =
        sidecar_with(&format!("{LIMIT}\n{format}, accessLogFile: \"{}\"}}", log.display())).await;
    for host in ["up.shop", "up2.shop"] {
        let (frames, body) = ChannelBody::new();
        let mut http2 = Client2::connect(proxy.outbound()).await;
        frames.data("12345678").await;
        let response = http2.send(request("POST", host, "/stream", &[], body)).await.unwrap();
        assert_eq!(response.status(), 200);
        frames.data("901").await;
        assert!(Reply::read(response).await.is_err(), "{host}");
        let (frames, body) = ChannelBody::new();
        let mut http1 = Client1::connect(proxy.outbound()).await;
        frames.data("12345678").await;
        let response = http1.send(request("POST", host, "/stream", &[], body)).await.unwrap();
        frames.data("901").await;
        assert!(Reply::read(response).await.is_err(), "{host}");
        // The client may have seen the reset first; either way the connection ends.
        drop(frames);
        let _ = in_time("the end of the connection", http1.connection).await.unwrap();
    }
    assert_eq!(hits(&proxy).await, "4");
    proxy.stop().await;
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "200 request_payload_too_large\n".repeat(4));
}

#[tokio::test]
async fn row_19_a_client_that_sends_all_of_a_long_body_first_still_reads_why() {
    let (proxy, up) = sidecar_with(LIMIT).await;
    for _ in 0..20 {
        let mut raw = Raw::connect(proxy.outbound()).await;
        raw.send("POST / HTTP/1.1\r\nHost: up.shop\r\nContent-Length: 200000\r\n\r\n").await;
        raw.send(vec![b'x'; 200_000]).await;
        let answer = raw.some().await;
        assert!(answer.starts_with(b"HTTP/1.1 413 "), "{:?}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(up.requests(), 0);
}
