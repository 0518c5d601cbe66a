//! Headers that only a trusted peer may set, and headers of one connection alone.

use super::{assert_refused, gateway, sidecar};
use crate::support::{Client1, empty, fetch, get, request};

#[tokio::test]
async fn row_5_control_headers_of_strangers_end_at_the_gateway() {
    let (proxy, _up, address) = gateway().await;
    let control = [
        "x-envoy-original-path",
        "x-envoy-original-dst-host",
        "x-envoy-internal",
        "x-envoy-retry-on",
        "x-envoy-max-retries",
        "x-envoy-upstream-rq-timeout-ms",
        "x-envoy-upstream-rq-per-try-timeout-ms",
        "x-envoy-expected-rq-timeout-ms",
        "x-envoy-decorator-operation",
        "x-envoy-peer-metadata",
        "x-envoy-peer-metadata-id",
        "x-envoy-external-address",
        "x-envoy-force-trace",
        "x-envoy-hedge-on-per-try-timeout",
        "x-envoy-ip-tags",
        "x-envoy-attempt-count",
        "x-istio-attributes",
        "l5d-dst-override",
        "l5d-client-id",
        "x-forwarded-client-cert",
        "X-Envoy-Anything-New",
    ];
    let mut lines: Vec<_> = control.iter().map(|name| (*name, "forged")).collect();
    lines.extend([
        ("x-request-id", "forged"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-for", "9.9.9.9"),
        ("x-mine", "kept"),
    ]);
    let reply = fetch(address, request("GET", "shop.example.com", "/", &lines, empty())).await;
    for name in control {
        assert_eq!(reply.seen(&name.to_lowercase()), [""; 0], "{name}");
    }
    assert_ne!(reply.seen("x-request-id"), ["forged"]);
    assert_eq!(reply.seen("x-forwarded-proto"), ["http"]);
    assert_eq!(reply.seen("x-forwarded-for"), ["9.9.9.9,127.0.0.1"]);
    assert_eq!(reply.seen("x-mine"), ["kept"]);
    drop(proxy);
}

#[tokio::test]
async fn row_13_hop_by_hop_headers_end_here_both_ways() {
    let (proxy, _up) = sidecar().await;
    let lines = [
        ("connection", "keep-alive, x-hop, te"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("te", "trailers, gzip"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA"),
        ("x-end", "kept"),
    ];
    let reply = Client1::connect(proxy.outbound())
        .await
        .exchange(request("GET", "up.shop", "/", &lines, empty()))
        .await;
    for name in [
        "connection",
        "x-hop",
        "keep-alive",
        "proxy-connection",
        "upgrade",
        "http2-settings",
        "transfer-encoding",
    ] {
        assert_eq!(reply.seen(name), [""; 0], "{name}");
    }
    assert_eq!(
        (reply.seen("te"), reply.seen("x-end")),
        (vec!["trailers".to_owned()], vec!["kept".to_owned()])
    );
    for header in
        ["authorization", "host", "cookie", "content-length", "x-forwarded-for", "x-forwarded-client-cert"]
    {
        let head =
            format!("GET / HTTP/1.1\r\nHost: up.shop\r\nConnection: close, {header}\r\n{header}: x\r\n\r\n");
        assert_refused(
            proxy.outbound(),
            if header == "host" { head.replace("host: x\r\n", "") } else { head },
        )
        .await;
    }
    let mut client = Client1::connect(proxy.outbound()).await;
    let closing = client.exchange(get("up.shop", "/close")).await;
    assert_eq!(closing.header("connection"), "", "the upstream's wish to close is between it and us");
    assert_eq!(client.exchange(get("up.shop", "/next")).await.status, 200);
}
