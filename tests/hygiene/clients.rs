//! Who the client is: only what a trusted hop says of it counts.

use super::{gateway_to, sidecar_with};
use crate::support::raw::{lossy, speak};
use crate::support::{Proxy, Raw, Upstream, empty, fetch, request};
use std::path::Path;

const LINE: &str = "%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%\\n";

fn logging(path: &Path, more: &str) -> String {
    format!("meshConfig: {{accessLogFormat: \"{LINE}\", accessLogFile: \"{}\", {more}}}", path.display())
}

/// The addresses of the log: with port and without.
async fn logged(proxy: Proxy, path: &Path) -> Vec<(String, String)> {
    proxy.stop().await;
    let text = std::fs::read_to_string(path).unwrap();
    let pair = |line: &str| line.split_once(' ').map(|(one, two)| (one.to_owned(), two.to_owned()));
    text.lines().map(|line| pair(line).unwrap()).collect()
}

/// By the list of `x-forwarded-for` and the trusted hops: who the client is.
const CLIENTS: &[(&str, u32, &str)] = &[
    ("", 0, "127.0.0.1"),
    ("", 1, "127.0.0.1"),
    ("6.6.6.6, 1.1.1.1", 0, "127.0.0.1"),
    ("6.6.6.6, 1.1.1.1", 1, "1.1.1.1"),
    ("6.6.6.6, 1.1.1.1", 2, "6.6.6.6"),
    ("6.6.6.6, 1.1.1.1", 3, "127.0.0.1"),
    ("6.6.6.6,::ffff:3.3.3.3", 1, "3.3.3.3"),
    ("6.6.6.6,2001:DB8::1", 1, "2001:db8::1"),
    ("6.6.6.6,fe80::1%eth0", 1, "127.0.0.1"),
    ("6.6.6.6,1.1.1.1:80", 1, "127.0.0.1"),
    ("6.6.6.6,[::1]", 1, "127.0.0.1"),
    ("6.6.6.6,", 1, "127.0.0.1"),
    ("rubbish \u{e9}", 1, "127.0.0.1"),
];

#[tokio::test]
async fn row_6_at_a_gateway_the_client_is_who_the_trusted_hops_say() {
    for hops in 0..=3 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let up = Upstream::start().await;
        let topology = format!("defaultConfig: {{gatewayTopology: {{numTrustedProxies: {hops}}}}}");
        let (proxy, address) = gateway_to(up.address, &logging(&path, &topology), "").await;
        proxy.assert_no_complaints();
        let cases: Vec<_> = CLIENTS.iter().filter(|(_, of, _)| *of == hops).collect();
        for (forwarded, _, client) in &cases {
            let mut lines = vec![("x-envoy-external-address", "8.8.8.8"), ("x-forwarded-proto", "https")];
            lines.extend(Some(("x-forwarded-for", *forwarded)).filter(|(_, list)| !list.is_empty()));
            let reply = fetch(address, request("GET", "shop.example.com", "/", &lines, empty())).await;
            assert_eq!(reply.seen("x-envoy-external-address"), [*client], "{forwarded:?} {hops}");
            let list = if forwarded.is_empty() { "" } else { &format!("{forwarded},") };
            assert_eq!(reply.seen("x-forwarded-for"), [format!("{list}127.0.0.1")]);
            // What a proxy of ours in front says of its own connection is believed.
            assert_eq!(reply.seen("x-forwarded-proto"), [if hops == 0 { "http" } else { "https" }]);
        }
        let logged = logged(proxy, &path).await;
        assert_eq!(logged.len(), cases.len());
        for ((with_port, without), (forwarded, _, client)) in logged.into_iter().zip(cases) {
            assert_eq!(without, *client, "{forwarded:?} {hops}");
            let by_header = *client != "127.0.0.1";
            assert_eq!(with_port.ends_with(":0"), by_header, "a header names no port: {with_port}");
        }
    }
}

#[tokio::test]
async fn row_6_within_the_mesh_the_client_is_who_the_last_hop_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let (proxy, _up) = sidecar_with(&logging(&path, "")).await;
    let cases = [("", "127.0.0.1"), ("6.6.6.6, 1.1.1.1", "1.1.1.1"), ("1.1.1.1, fe80::1%eth0", "127.0.0.1")];
    for (forwarded, _) in cases {
        let lines: Vec<_> =
            Some(("x-forwarded-for", forwarded)).into_iter().filter(|_| !forwarded.is_empty()).collect();
        let reply = fetch(proxy.outbound(), request("GET", "up.shop", "/", &lines, empty())).await;
        let list = if forwarded.is_empty() { vec![] } else { vec![forwarded] };
        assert_eq!(reply.seen("x-forwarded-for"), list, "a sidecar adds nothing");
        assert_eq!(reply.seen("x-envoy-external-address"), [""; 0]);
    }
    let logged = logged(proxy, &path).await;
    assert_eq!(
        logged.iter().map(|(_, client)| &**client).collect::<Vec<_>>(),
        cases.map(|(_, client)| client)
    );
}

const TOPOLOGY: &str = "defaultConfig: {gatewayTopology: {proxyProtocol: {}}}";

#[tokio::test]
async fn row_6_a_proxy_protocol_header_names_the_client_when_a_listed_peer_sends_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let up = Upstream::start().await;
    let role = ", proxyProtocolFrom: [\"10.0.0.0/8\", 127.0.0.1]";
    let (proxy, address) = gateway_to(up.address, &logging(&path, TOPOLOGY), role).await;
    proxy.assert_no_complaints();
    let mut raw = Raw::connect(address).await;
    raw.send("PROXY TCP4 203.0.113.7 127.0.0.1 4711 80\r\nGET / HTTP/1.1\r\nHost: shop.example.com\r\n\r\n")
        .await;
    let reply = raw.reply().await;
    assert!(reply.text().contains("[\"x-forwarded-for\",\"203.0.113.7\"]"), "{}", reply.text());
    assert!(reply.text().contains("[\"x-envoy-external-address\",\"203.0.113.7\"]"), "{}", reply.text());
    // Without the header nothing is served: who could leave it out would be somebody else.
    let mut raw = Raw::connect(address).await;
    raw.send("GET / HTTP/1.1\r\nHost: shop.example.com\r\n\r\n").await;
    assert_eq!(lossy(&raw.rest().await), "");
    assert_eq!(up.requests(), 1);
    drop(raw);
    assert_eq!(logged(proxy, &path).await, [("203.0.113.7:4711".to_owned(), "203.0.113.7".to_owned())]);
}

#[tokio::test]
async fn row_6_a_proxy_protocol_header_of_anybody_else_is_refused() {
    let up = Upstream::start().await;
    for (role, complaint) in [(", proxyProtocolFrom: [10.0.0.0/8]", ""), ("", "every connection is refused")]
    {
        let (proxy, address) = gateway_to(up.address, &format!("meshConfig: {{{TOPOLOGY}}}"), role).await;
        let said = proxy.complaints();
        assert!(said.is_empty() == complaint.is_empty() && said.contains(complaint), "{said}");
        let get = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
        for bytes in [format!("PROXY TCP4 203.0.113.7 127.0.0.1 4711 80\r\n{get}"), get.to_owned()] {
            assert_eq!(lossy(&speak(address, bytes).await), "");
        }
    }
    assert_eq!(up.requests(), 0);
}
