//! Nothing is refused in silence: what the codec refuses has its line in the log, its count, and its reason.

use super::sidecar_with;
use crate::support::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, Frames, HEADERS, RST_STREAM, block,
};
use crate::support::raw::{lossy, speak};
use crate::support::{Client2, Proxy, Raw, Upstream, empty, fetch, get, in_time, request};
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const FIELDS: &str = "%REQ(:METHOD)% %REQ(:AUTHORITY)% %PROTOCOL% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %UPSTREAM_TRANSPORT_FAILURE_REASON%";

async fn logging(path: &Path, more: &str) -> (Proxy, Upstream) {
    let format = format!("accessLogFormat: \"{FIELDS}\\n\"");
    sidecar_with(&format!("meshConfig: {{{format}, accessLogFile: \"{}\"}}\n{more}", path.display())).await
}

/// The lines of the log, once the proxy has ended.
async fn lines(proxy: Proxy, path: &Path) -> Vec<String> {
    proxy.stop().await;
    std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

/// Waits until a number of the proxy's own metrics is this one.
async fn assert_counted(proxy: &Proxy, series: &str, expected: u64) {
    let end = std::time::Instant::now() + crate::support::PATIENCE;
    while metric(proxy, series).await != expected {
        assert!(std::time::Instant::now() < end, "{series}: {}", metric(proxy, series).await);
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

async fn metric(proxy: &Proxy, series: &str) -> u64 {
    let page = fetch(proxy.page("admin"), get("localhost", "/stats/prometheus")).await.text();
    let values = page.lines().filter(|line| line.contains(series)).filter_map(|line| line.split(' ').nth(1));
    values.map(|value| value.parse::<u64>().unwrap()).sum()
}

#[tokio::test]
async fn what_the_codec_refuses_of_http1_is_logged_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let (proxy, up) = logging(&path, "").await;
    let many: String = (0..101).map(|n| format!("X-{n}: v\r\n")).collect();
    let cases = [
        ("GET / HTTP/1.1\r\nHost: up.shop\r\nX: a\0b\r\n\r\n".to_owned(), "400", "http1.codec_error"),
        ("GET / HTTP/1.1\r\nHost: up.shop\r\nX: y\r\n z\r\n\r\n".to_owned(), "400", "http1.codec_error"),
        (
            "POST / HTTP/1.1\r\nHost: up.shop\r\nTransfer-Encoding: chunked,\r\n\r\n".to_owned(),
            "400",
            "http1.codec_error",
        ),
        (
            "POST / HTTP/1.1\r\nHost: up.shop\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_owned(),
            "400",
            "http1.codec_error",
        ),
        ("GET / HTTP/9.9\r\nHost: up.shop\r\n\r\n".to_owned(), "400", "http1.codec_error"),
        (format!("GET / HTTP/1.1\r\nHost: up.shop\r\n{many}\r\n"), "431", "request_headers_too_large"),
        (
            format!("GET / HTTP/1.1\r\nHost: up.shop\r\nX: {}\r\n\r\n", "v".repeat(70_000)),
            "431",
            "request_headers_too_large",
        ),
    ];
    for (bytes, status, _) in &cases {
        let answer = lossy(&speak(proxy.outbound(), bytes).await);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{bytes:.80}: {answer}");
    }
    assert_eq!(up.requests(), 0);
    assert_counted(&proxy, "sidegate_limit_hits_total{limit=\"http1.codec_error\"}", 5).await;
    assert_counted(&proxy, "sidegate_limit_hits_total{limit=\"request_headers_too_large\"}", 2).await;
    let series = "response_flags=\"DPE\"";
    let page = fetch(proxy.page("metrics"), get("localhost", "/stats/prometheus")).await.text();
    assert!(
        page.lines().any(|line| line.starts_with("istio_requests_total") && line.contains(series)),
        "{page}"
    );
    let lines = lines(proxy, &path).await;
    let expected: Vec<_> =
        cases.iter().map(|(_, status, details)| format!("- - HTTP/1.1 {status} DPE {details} -")).collect();
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn what_the_codec_refuses_of_http2_is_logged_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let (proxy, up) = logging(&path, "").await;
    let base = [(":method", "GET"), (":scheme", "http"), (":authority", "up.shop"), (":path", "/")];
    let with = |more: &[(&str, &str)]| block(&[&base[..], more].concat());
    for bad in [with(&[(":path", "/b")]), with(&[("connection", "close")]), with(&[("te", "gzip")])] {
        let mut frames = Frames::connect(proxy.outbound()).await;
        frames.send(&Frame::new(HEADERS, END_HEADERS | END_STREAM, 1, bad)).await.unwrap();
        let reset = in_time("a reset", frames.next_of(RST_STREAM)).await.unwrap();
        assert_eq!(reset.code(), 1);
        // Others of the connection go on.
        frames.send(&Frame::get(3, "up.shop", "/status/204")).await.unwrap();
        assert_eq!(in_time("an answer", frames.next_of(HEADERS)).await.unwrap().stream, 3);
    }
    // DATA on a stream that never was.
    let mut frames = Frames::connect(proxy.outbound()).await;
    frames.send(&Frame::new(DATA, 0, 1, *b"x")).await.unwrap();
    frames.rest().await;
    assert_eq!(up.requests(), 3);
    let series = "sidegate_limit_hits_total{limit=\"http2.violation.of.messaging.rule\"}";
    assert_counted(&proxy, series, 4).await;
    let lines = lines(proxy, &path).await;
    let refused = "- - HTTP/2 0 DPE http2.violation.of.messaging.rule -";
    let (refused, served): (Vec<_>, Vec<_>) = lines.iter().partition(|line| *line == refused);
    assert_eq!((refused.len(), served.len()), (4, 3), "{lines:#?}");
}

#[tokio::test]
async fn a_head_of_http1_that_does_not_come_is_answered_408_and_logged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let (proxy, _up) = logging(&path, "limits: {headerTimeout: 1s}").await;
    let mut slow = Raw::connect(proxy.outbound()).await;
    slow.send("GET / HTTP/1.1\r\nHost: up.shop\r\n").await;
    let reply = slow.reply().await;
    assert_eq!((reply.status, reply.header("connection")), (408, "close"));
    assert!(slow.is_at_end().await);
    assert_counted(&proxy, "sidegate_limit_hits_total{limit=\"request_overall_timeout\"}", 1).await;
    assert_eq!(lines(proxy, &path).await, ["- - HTTP/1.1 408 DT request_header_timeout -"]);
}

#[tokio::test]
async fn a_head_of_http2_that_never_ends_ends_its_connection() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let (proxy, up) = logging(&path, "limits: {headerTimeout: 1s}").await;
    let head = block(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "up.shop"),
        (":path", "/status/204"),
    ]);
    // One without CONTINUATION, one within it, one within HEADERS, one without SETTINGS.
    for attempt in 0..4 {
        let began = std::time::Instant::now();
        let mut frames = if attempt == 3 {
            let mut stream = crate::support::client::connect(proxy.outbound()).await;
            stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
            Frames(stream)
        } else {
            Frames::connect(proxy.outbound()).await
        };
        let start = Frame::new(HEADERS, END_STREAM, 1, &head[..20]);
        match attempt {
            0 => frames.send(&start).await.unwrap(),
            1 => {
                frames.send(&start).await.unwrap();
                let rest = Frame::new(CONTINUATION, END_HEADERS, 1, &head[20..]).bytes();
                frames.0.write_all(&rest[..rest.len() - 1]).await.unwrap();
            }
            2 => {
                let all = Frame::get(1, "up.shop", "/").bytes();
                frames.0.write_all(&all[..all.len() - 1]).await.unwrap();
            }
            _ => {}
        }
        let mut rest = Vec::new();
        let _ = in_time("the end", frames.0.read_to_end(&mut rest)).await;
        assert!((900..5000).contains(&began.elapsed().as_millis()), "{attempt}: {:?}", began.elapsed());
    }
    assert_eq!(up.requests(), 0);
    // One that owes nothing may rest, and take its time between heads.
    let mut frames = Frames::connect(proxy.outbound()).await;
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    frames.send(&Frame::new(HEADERS, END_STREAM, 1, &head[..20])).await.unwrap();
    frames.send(&Frame::new(CONTINUATION, END_HEADERS, 1, &head[20..])).await.unwrap();
    assert_eq!(in_time("an answer", frames.next_of(HEADERS)).await.unwrap().stream, 1);
    assert_counted(&proxy, "sidegate_limit_hits_total{limit=\"request_overall_timeout\"}", 4).await;
    drop(frames);
    let lines = lines(proxy, &path).await;
    let late = lines.iter().filter(|line| *line == "- - HTTP/2 0 DT request_header_timeout -").count();
    assert_eq!((late, lines.len()), (4, 5), "{lines:#?}");
}

#[tokio::test]
async fn a_body_that_breaks_its_framing_is_the_clients_fault_and_said_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let (proxy, _up) = logging(&path, "").await;
    let chunked = "POST / HTTP/1.1\r\nHost: up.shop\r\nTransfer-Encoding: chunked\r\n\r\n";
    let bad = ["3\nabc", "0x3\r\nabc\r\n", "-1\r\n", "zz\r\n"];
    for body in bad {
        let mut raw = Raw::connect(proxy.outbound()).await;
        raw.send(format!("{chunked}{body}")).await;
        let reply = raw.reply().await;
        assert_eq!((reply.status, reply.header("connection")), (400, "close"), "{body:?}: {}", reply.text());
        assert!(reply.text().starts_with("http1.codec error"), "{body:?}: {}", reply.text());
        assert!(raw.is_at_end().await);
    }
    // More, and less, than its content-length says.
    for host in ["up.shop", "up2.shop"] {
        for (length, flags) in [("3", 0), ("9", END_STREAM)] {
            let mut frames = Frames::connect(proxy.outbound()).await;
            let head = [
                (":method", "POST"),
                (":scheme", "http"),
                (":authority", host),
                (":path", "/hang"),
                ("content-length", length),
            ];
            frames.send(&Frame::new(HEADERS, END_HEADERS, 1, block(&head))).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            frames.send(&Frame::new(DATA, flags, 1, *b"12345")).await.unwrap();
            let reset = in_time("a reset", frames.next_of(RST_STREAM)).await.unwrap();
            assert_eq!(reset.code(), 1);
        }
    }
    let lines = lines(proxy, &path).await;
    assert_eq!(lines.len(), bad.len() + 4, "{lines:#?}");
    for line in &lines[..bad.len()] {
        assert_eq!(line, "POST up.shop HTTP/1.1 400 DPE http1.codec_error -");
    }
    for line in &lines[bad.len()..] {
        assert!(
            line.contains("HTTP/2") && line.contains(" DPE http2.violation.of.messaging.rule -"),
            "{line}"
        );
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_head_is_said_in_envoys_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let (proxy, _up) = logging(&path, "").await;
    let head = |lines: &str| format!("GET / HTTP/1.1\r\nHost: up.shop\r\n{lines}\r\n\r\n");
    for (bytes, details) in [
        (head("Connection: close, host"), "http1.connection_header_rejected"),
        (head("Transfer-Encoding: gzip, chunked"), "http1.invalid_transfer_encoding"),
        (
            "CONNECT up.shop:80 HTTP/1.1\r\nHost: up.shop:80\r\nContent-Length: 3\r\n\r\nabc".to_owned(),
            "http1.body_disallowed",
        ),
        ("GET ftp://up.shop/x HTTP/1.1\r\nHost: up.shop\r\n\r\n".to_owned(), "http1.invalid_scheme"),
    ] {
        let mut raw = Raw::connect(proxy.outbound()).await;
        raw.send(&bytes).await;
        let reply = raw.reply().await;
        assert_eq!(reply.status, 400, "{bytes}: {}", reply.text());
        assert!(reply.text().starts_with(&details.replace('_', " ")), "{}", reply.text());
    }
    let mut http2 = Client2::connect(proxy.outbound()).await;
    let twice = request("GET", "up.shop", "/", &[("content-length", "0"), ("content-length", "0")], empty());
    assert_eq!(http2.exchange(twice).await.status, 400);
    let lines = lines(proxy, &path).await;
    let seen: Vec<_> = lines.iter().map(|line| line.split(' ').nth(5).unwrap()).collect();
    assert_eq!(
        seen,
        [
            "http1.connection_header_rejected",
            "http1.invalid_transfer_encoding",
            "http1.body_disallowed",
            "http1.invalid_scheme",
            "http2.violation.of.messaging.rule",
        ]
    );
    assert!(lines[4].starts_with("GET up.shop HTTP/2 400 DPE "), "its authority is there: {}", lines[4]);
}
