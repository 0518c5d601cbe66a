//! Certificates come from a server of secrets on a UNIX socket.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use sidegate::identity::issue::Authority;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::sds::{Said, SecretServer, certificate, mixed, roots};
use support::{Client1, Proxy, Upstream, certificates, eventually, fetch, get};

const STRICT: &str = "---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: STRICT}}
";

/// Each request opens a connection, and so a handshake of its own.
const ONE_EACH: &str = "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: api, namespace: shop}
spec: {host: api, trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 1}}}}
";

/// A workload of `shop` whose certificate comes from a socket.
async fn proxy(socket: &Path, account: &str, spec: &str, objects: &str) -> Proxy {
    let identity = format!("identity: {{sds: {{path: {}}}}}", socket.display());
    let workload = format!("workload: {{serviceAccount: {account}, labels: {{app: {account}}}}}");
    Proxy::with(&format!("{identity}\n{workload}\n{spec}"), objects).await
}

async fn api(socket: &Path, upstream: &Upstream) -> Proxy {
    let spec = format!("inbound: {{addresses: [\"127.0.0.1:0\"], application: \"{}\"}}", upstream.address);
    proxy(socket, "api", &spec, STRICT).await
}

/// The service `api` as its callers know it.
fn known(endpoint: SocketAddr) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: api, namespace: shop}}
spec:
  hosts: [api]
  ports: [{{number: 80, name: main, protocol: HTTP}}]
  location: MESH_INTERNAL
  resolution: STATIC
  endpoints:
  - address: {}
    ports: {{main: {}}}
    labels: {{security.istio.io/tlsMode: istio}}
    serviceAccount: api
{ONE_EACH}",
        endpoint.ip(),
        endpoint.port()
    )
}

/// A folder, and a path for a socket in it.
fn place() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("sds.sock");
    (folder, socket)
}

fn serve(socket: &Path, authority: &Authority, account: &str) -> SecretServer {
    SecretServer::start(socket, vec![certificate(authority, account), roots(authority.certificate())])
}

/// The answer to the response with this number.
async fn answer(server: &SecretServer, number: usize) -> Said {
    let nonce = format!("n{number}");
    eventually("an answer", || server.said().iter().any(|said| said.nonce == nonce)).await;
    server.said().into_iter().find(|said| said.nonce == nonce).unwrap()
}

#[tokio::test]
async fn certificates_arrive_before_the_start_is_over_and_prove_both_sides() {
    let (authority, upstream) = (certificates::authority(), Upstream::start().await);
    let ((_one, api_socket), (_two, web_socket)) = (place(), place());
    let api_secrets = serve(&api_socket, &authority, "api");
    let _web_secrets = serve(&web_socket, &authority, "web");
    let server = api(&api_socket, &upstream).await;
    server.assert_no_complaints();
    assert_eq!(server.status.ready(), Ok(()), "the start has waited for it");
    let client = proxy(&web_socket, "web", "", &known(server.inbound())).await;
    client.assert_no_complaints();
    let reply = fetch(client.outbound(), get("api", "/")).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let told = reply.seen("x-forwarded-client-cert").join(",");
    assert!(told.contains("URI=spiffe://cluster.local/ns/shop/sa/web"), "{told}");

    let said = answer(&api_secrets, 1).await;
    assert_eq!((said.version.as_str(), said.error), ("v1", None), "acknowledged");
    let first = &api_secrets.said()[0];
    assert_eq!(first.names, ["default", "ROOTCA"]);
    assert!(first.type_url.ends_with("tls.v3.Secret") && first.version.is_empty(), "{first:?}");
    let node = first.node.clone().unwrap();
    assert_eq!((node.id.as_str(), node.cluster.as_str()), ("client.shop", "client"));
}

#[tokio::test]
async fn renewals_and_new_roots_under_load_lose_no_request() {
    let (old, new, upstream) =
        (certificates::authority(), certificates::authority(), Upstream::start().await);
    let ((_one, api_socket), (_two, web_socket)) = (place(), place());
    let secrets = [serve(&api_socket, &old, "api"), serve(&web_socket, &old, "web")];
    let server = api(&api_socket, &upstream).await;
    let client = proxy(&web_socket, "web", "", &known(server.inbound())).await;
    let both = roots(&[old.certificate(), new.certificate()].join("\n"));
    let pushing = async {
        let mut number = 1;
        for round in 0..30 {
            let authority = if round < 10 { &old } else { &new };
            number += 1;
            for (server, account) in secrets.iter().zip(["api", "web"]) {
                // Apart, as Istio's agent sends them: first both sides believe the new root.
                server.send(if round == 9 {
                    vec![both.clone()]
                } else {
                    vec![certificate(authority, account)]
                });
            }
            for server in &secrets {
                let said = answer(server, number).await;
                assert_eq!(said.error, None, "{round}");
            }
        }
    };
    let asking = async {
        let mut one = Client1::connect(client.outbound()).await;
        for _ in 0..150 {
            let reply = one.exchange(get("api", "/")).await;
            assert_eq!(reply.status, 200, "{}", reply.text());
        }
    };
    tokio::join!(pushing, asking);
    let reply = fetch(client.outbound(), get("api", "/")).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

#[tokio::test]
async fn a_broken_push_is_refused_with_its_reason_and_the_last_good_one_stays() {
    let (authority, upstream) = (certificates::authority(), Upstream::start().await);
    let ((_one, socket), (_two, web_socket)) = (place(), place());
    let secrets = serve(&socket, &authority, "api");
    let _web = serve(&web_socket, &authority, "web");
    let server = api(&socket, &upstream).await;
    let client = proxy(&web_socket, "web", "", &known(server.inbound())).await;
    let key = mixed(&authority, "api");
    secrets.send(vec![key]);
    let said = answer(&secrets, 2).await;
    assert_eq!(said.version, "v1", "what is in force");
    let error = said.error.unwrap();
    assert!(error.code == 3 && error.message.contains("does not belong to the certificate"), "{error:?}");
    secrets.send(vec![roots("no PEM")]);
    let error = answer(&secrets, 3).await.error.unwrap();
    assert!(error.message.contains("trust bundle"), "{error:?}");
    secrets.send(vec![vec![0xff]]);
    assert!(answer(&secrets, 4).await.error.unwrap().message.contains("cannot be read"));
    assert_eq!(server.status.ready(), Ok(()));
    assert_eq!(fetch(client.outbound(), get("api", "/")).await.status, 200);
    // A good part is taken, although what came before it was broken.
    secrets.send(vec![roots(authority.certificate())]);
    let said = answer(&secrets, 5).await;
    assert_eq!((said.version.as_str(), said.error), ("v5", None));
    secrets.send(vec![certificate(&authority, "api")]);
    let said = answer(&secrets, 6).await;
    assert_eq!((said.version.as_str(), said.error), ("v6", None));
    assert_eq!(fetch(client.outbound(), get("api", "/")).await.status, 200);
}

#[tokio::test]
async fn a_server_that_goes_away_and_comes_back_costs_nothing() {
    let (authority, upstream) = (certificates::authority(), Upstream::start().await);
    let ((_one, socket), (_two, web_socket)) = (place(), place());
    let secrets = serve(&socket, &authority, "api");
    let _web = serve(&web_socket, &authority, "web");
    let server = api(&socket, &upstream).await;
    let client = proxy(&web_socket, "web", "", &known(server.inbound())).await;
    drop(secrets);
    std::fs::remove_file(&socket).unwrap();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(server.status.ready(), Ok(()), "the last good one stays");
        assert_eq!(fetch(client.outbound(), get("api", "/")).await.status, 200);
    }
    let again = serve(&socket, &authority, "api");
    let said = answer(&again, 1).await;
    assert_eq!(said.error, None);
    assert_eq!(again.said()[0].version, "", "all is asked for anew");
    assert_eq!(fetch(client.outbound(), get("api", "/")).await.status, 200);
}

#[tokio::test]
async fn without_a_server_the_start_goes_on_not_ready_and_is_ready_once_there_is_one() {
    let (authority, upstream) = (certificates::authority(), Upstream::start().await);
    let (_folder, socket) = place();
    let server = api(&socket, &upstream).await;
    let why = server.status.ready().unwrap_err();
    assert!(why.contains("SDS server") && why.contains("sds.sock"), "{why}");
    let (_other, web_socket) = place();
    let _web = serve(&web_socket, &authority, "web");
    let client = proxy(&web_socket, "web", "", &known(server.inbound())).await;
    assert_eq!(fetch(client.outbound(), get("api", "/")).await.status, 503, "nothing is served without");
    assert_eq!(upstream.requests(), 0);
    let _secrets = serve(&socket, &authority, "api");
    eventually("readiness", || server.status.ready().is_ok()).await;
    assert_eq!(fetch(client.outbound(), get("api", "/")).await.status, 200);
}
