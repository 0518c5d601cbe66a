//! Workloads prove who they are: mutual TLS between two real proxies.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use sidegate::identity::issue::Authority;
use std::net::SocketAddr;
use std::time::Duration;
use support::{Client1, Client2, Proxy, Raw, Upstream, certificates, eventually, fetch, get};

const STRICT: &str = "---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: STRICT}}
";

/// The sidecar of `api`, whose application is `upstream`.
async fn server(authority: &Authority, upstream: &Upstream, objects: &str) -> Proxy {
    let spec = format!("inbound: {{addresses: [\"127.0.0.1:0\"], application: \"{}\"}}", upstream.address);
    Proxy::secured(authority, "api", &spec, objects).await
}

/// The service `api` as its callers know it.
fn api(protocol: &str, endpoint: SocketAddr, account: &str) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: api, namespace: shop}}
spec:
  hosts: [api]
  ports: [{{number: 80, name: main, protocol: {protocol}}}]
  location: MESH_INTERNAL
  resolution: STATIC
  endpoints:
  - address: {}
    ports: {{main: {}}}
    labels: {{security.istio.io/tlsMode: istio}}
    serviceAccount: {account}
",
        endpoint.ip(),
        endpoint.port()
    )
}

#[tokio::test]
async fn sidecars_prove_themselves_to_each_other_and_the_application_hears_of_it() {
    let (authority, upstream) = (certificates::authority(), Upstream::start().await);
    let server = server(&authority, &upstream, STRICT).await;
    server.assert_no_complaints();
    for protocol in ["HTTP", "HTTP2"] {
        let client = Proxy::secured(&authority, "web", "", &api(protocol, server.inbound(), "api")).await;
        client.assert_no_complaints();
        let reply = fetch(client.outbound(), get("api", "/x")).await;
        assert_eq!((reply.status.as_u16(), reply.target().ends_with("/x")), (200, true), "{}", reply.text());
        let told = reply.seen("x-forwarded-client-cert");
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("By=spiffe://cluster.local/ns/shop/sa/api"), "{told:?}");
        assert!(told[0].contains("URI=spiffe://cluster.local/ns/shop/sa/web"), "{told:?}");
        assert_eq!(reply.seen("x-forwarded-proto"), ["http"], "as the application's own client spoke");
    }
}

#[tokio::test]
async fn under_strict_plain_text_is_refused_and_nothing_reaches_the_application() {
    let (authority, upstream) = (certificates::authority(), Upstream::start().await);
    let server = server(&authority, &upstream, STRICT).await;
    let mut raw = Raw::connect(server.inbound()).await;
    raw.send("GET / HTTP/1.1\r\nHost: api\r\n\r\n").await;
    assert!(raw.is_at_end().await);
    assert_eq!(upstream.requests(), 0);
}

#[tokio::test]
async fn permissive_takes_both_and_a_client_cannot_claim_a_certificate() {
    let (authority, upstream) = (certificates::authority(), Upstream::start().await);
    let server = server(&authority, &upstream, "").await;
    let client = Proxy::secured(&authority, "web", "", &api("HTTP", server.inbound(), "api")).await;
    let forged = || {
        let mut request = get("api", "/");
        let value = "By=spiffe://x;Hash=00;URI=spiffe://cluster.local/ns/shop/sa/admin";
        request.headers_mut().insert("x-forwarded-client-cert", value.parse().unwrap());
        request
    };
    let plain = fetch(server.inbound(), forged()).await;
    assert_eq!(plain.seen("x-forwarded-client-cert"), [""; 0], "plain text proves nothing");
    let proven = fetch(client.outbound(), forged()).await;
    let told = proven.seen("x-forwarded-client-cert").join(",");
    assert!(told.contains("sa/web") && !told.contains("sa/admin"), "{told}");
}

#[tokio::test]
async fn whoever_is_of_another_authority_or_another_account_is_not_spoken_to() {
    let (authority, upstream) = (certificates::authority(), Upstream::start().await);
    let server = server(&authority, &upstream, STRICT).await;
    let stranger = certificates::authority();
    let client = Proxy::secured(&stranger, "web", "", &api("HTTP", server.inbound(), "api")).await;
    let reply = fetch(client.outbound(), get("api", "/")).await;
    assert_eq!(reply.status, 503, "{}", reply.text());
    let client = Proxy::secured(&authority, "web", "", &api("HTTP", server.inbound(), "other")).await;
    let reply = fetch(client.outbound(), get("api", "/")).await;
    assert_eq!(reply.status, 503, "the server is not who the endpoint says: {}", reply.text());
    assert_eq!(upstream.requests(), 0);
}

#[tokio::test]
async fn a_change_to_strict_refuses_the_next_plain_request_of_an_old_connection() {
    let (authority, upstream) = (certificates::authority(), Upstream::start().await);
    let server = server(&authority, &upstream, "").await;
    let mut one = Client1::connect(server.inbound()).await;
    let mut two = Client2::connect(server.inbound()).await;
    assert_eq!(one.exchange(get("api", "/")).await.status, 200);
    assert_eq!(two.exchange(get("api", "/")).await.status, 200);
    let before = upstream.requests();
    server.edit(support::proxy::OBJECTS, STRICT).await;
    if let Ok(reply) = one.try_exchange(get("api", "/")).await {
        assert_eq!(reply.status, 403, "{}", reply.text());
    }
    if let Ok(reply) = two.try_exchange(get("api", "/")).await {
        assert_eq!(reply.status, 403, "{}", reply.text());
    }
    assert_eq!(upstream.requests(), before);
}

#[tokio::test]
async fn certificates_are_renewed_under_load_and_no_request_is_lost() {
    let (authority, upstream) = (certificates::authority(), Upstream::start().await);
    let server = server(&authority, &upstream, STRICT).await;
    // Each request opens a connection, and so a handshake of its own.
    let rule = "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: api, namespace: shop}
spec: {host: api, trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 1}}}}
";
    let client = Proxy::secured(&authority, "web", "", &(api("HTTP", server.inbound(), "api") + rule)).await;
    let renewing = async {
        for _ in 0..40 {
            certificates::write(server.folder(), &authority, "api");
            certificates::write(client.folder(), &authority, "web");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let asking = async {
        let mut one = Client1::connect(client.outbound()).await;
        for _ in 0..150 {
            let reply = one.exchange(get("api", "/")).await;
            assert_eq!(reply.status, 200, "{}", reply.text());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::join!(renewing, asking);
}

#[tokio::test]
async fn a_renewal_that_is_broken_is_kept_out_and_a_new_root_is_believed_beside_the_old() {
    let (authority, upstream) = (certificates::authority(), Upstream::start().await);
    let server = server(&authority, &upstream, STRICT).await;
    let client = Proxy::secured(&authority, "web", "", &api("HTTP", server.inbound(), "api")).await;
    std::fs::write(server.folder().join("key.pem"), "no key").unwrap();
    std::fs::write(client.folder().join("cert-chain.pem"), "no certificate").unwrap();
    let status = |proxy: &Proxy| proxy.status.shared().keyring().status(std::time::SystemTime::now());
    eventually("both broken renewals were read and kept out", || {
        [&server, &client].iter().all(|proxy| status(proxy).iter().any(|held| held.failures > 0))
    })
    .await;
    assert_eq!(fetch(client.outbound(), get("api", "/")).await.status, 200);
    // The server goes over to a new root while its callers are still certified by the old one.
    let next = certificates::authority();
    let both = format!("{}{}", authority.certificate(), next.certificate());
    certificates::write_trusting(client.folder(), &authority, "web", &both);
    certificates::write_trusting(server.folder(), &next, "api", &both);
    eventually("both roots are believed", || {
        status(&client).iter().chain(&status(&server)).all(|held| held.trust_generation == 2)
    })
    .await;
    assert_eq!(fetch(client.outbound(), get("api", "/")).await.status, 200);
}
