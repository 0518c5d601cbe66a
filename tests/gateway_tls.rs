//! A gateway ends TLS by server name, asks for certificates, or passes TLS on unopened.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use sidegate::identity::issue::{Authority, Issued, Workload};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use support::objects::{service, service_at, virtual_service};
use support::{Client1, Proxy, Reply, Upstream, certificates, eventually, fetch, free_port, get};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A gateway with servers of each kind.
struct Edge {
    proxy: Proxy,
    https: SocketAddr,
    http: SocketAddr,
    credentials: tempfile::TempDir,
    /// Issued the certificates of the servers that end TLS.
    public: Authority,
    /// Issues the certificates of the clients of `mutual.example.com`.
    partners: Authority,
    one: Upstream,
    two: Upstream,
}

impl Edge {
    async fn start() -> Self {
        Self::with("").await
    }

    /// With further objects.
    async fn with(objects: &str) -> Self {
        let (public, partners) = (certificates::authority(), certificates::authority());
        let (one, two) = (Upstream::named("one").await, Upstream::named("two").await);
        let credentials = tempfile::tempdir().unwrap();
        for name in ["one", "two", "mutual"] {
            put(credentials.path(), name, &issue(&public, &format!("{name}.example.com")));
        }
        std::fs::write(credentials.path().join("mutual/ca.crt"), partners.certificate()).unwrap();
        let (http, https) = (free_port(), free_port());
        let spec = format!(
            "role: Gateway
workload: {{labels: {{istio: ingressgateway}}}}
credentials: {{directory: {}}}
gateway: {{bind: 127.0.0.1, ports: {{\"80\": {http}, \"443\": {https}}}}}",
            credentials.path().display()
        );
        let routes = |host: &str, upstream: &str| {
            let spec =
                format!("gateways: [edge]\nhttp: [{{route: [{{destination: {{host: {upstream}}}}}]}}]");
            virtual_service(host, &spec)
        };
        let objects = GATEWAY.to_owned()
            + &service("one.shop", "HTTP", &[one.address])
            + &service("two.shop", "HTTP", &[two.address])
            + &routes("one.example.com", "one.shop")
            + &routes("two.example.com", "two.shop")
            + &routes("mutual.example.com", "one.shop")
            + objects;
        let proxy = Proxy::with(&spec, &objects).await;
        proxy.assert_no_complaints();
        let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        Self { proxy, https: local(https), http: local(http), credentials, public, partners, one, two }
    }
}

const GATEWAY: &str = "---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: [\"*.example.com\"]
    tls: {httpsRedirect: true}
  - port: {number: 443, name: one, protocol: HTTPS}
    hosts: [one.example.com]
    tls: {mode: SIMPLE, credentialName: one}
  - port: {number: 443, name: two, protocol: HTTPS}
    hosts: [two.example.com]
    tls: {mode: SIMPLE, credentialName: two}
  - port: {number: 443, name: mutual, protocol: HTTPS}
    hosts: [mutual.example.com]
    tls: {mode: MUTUAL, credentialName: mutual}
  - port: {number: 443, name: passed, protocol: TLS}
    hosts: [passed.example.com]
    tls: {mode: PASSTHROUGH}
";

fn issue(authority: &Authority, host: &str) -> Issued {
    let workload = Workload {
        trust_domain: "cluster.local",
        namespace: "shop",
        service_account: "edge",
        dns: &[host.to_owned()],
        days: 1,
    };
    authority.issue(&workload).unwrap()
}

/// Puts a credential where the gateway looks for it, the certificate last.
fn put(folder: &Path, name: &str, issued: &Issued) {
    let folder = folder.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    for (file, bytes) in [("tls.key", issued.key.reveal()), ("tls.crt", issued.certificate.as_bytes())] {
        let temporary = folder.join(format!(".{file}.new"));
        std::fs::write(&temporary, bytes).unwrap();
        std::fs::rename(&temporary, folder.join(file)).unwrap();
    }
}

fn chain(issued: &Issued) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_slice_iter(issued.certificate.as_bytes()).map(Result::unwrap).collect();
    (chain, PrivateKeyDer::from_pem_slice(issued.key.reveal()).unwrap())
}

/// A client that believes these, and shows this certificate.
fn client(believed: &[&Authority], own: Option<&Issued>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    for authority in believed {
        roots.add(CertificateDer::from_pem_slice(authority.certificate().as_bytes()).unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    TlsConnector::from(Arc::new(match own.map(chain) {
        Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
        None => config.with_no_client_auth(),
    }))
}

async fn connect(client: &TlsConnector, address: SocketAddr, name: &str) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    client.connect(ServerName::try_from(name.to_owned()).unwrap(), stream).await
}

/// An HTTP/1.1 request for `host` over a connection for `name`.
async fn ask(client: &TlsConnector, address: SocketAddr, name: &str, host: &str) -> io::Result<Reply> {
    let stream = connect(client, address, name).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    let request = http::Request::builder().uri("/").header("host", host);
    let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    Reply::read(response).await.map_err(io::Error::other)
}

#[tokio::test]
async fn each_server_shows_its_certificate_by_server_name_and_serves_its_hosts_alone() {
    let edge = Edge::start().await;
    let client = client(&[&edge.public], None);
    for (host, upstream) in [("one.example.com", "one"), ("two.example.com", "two")] {
        let reply = ask(&client, edge.https, host, host).await.unwrap();
        assert_eq!((reply.status.as_u16(), reply.upstream().as_str()), (200, upstream), "{host}");
        assert_eq!(reply.seen("x-forwarded-proto"), ["https"]);
    }
    let (ones, twos) = (edge.one.requests(), edge.two.requests());
    for (name, host) in [("one.example.com", "two.example.com"), ("two.example.com", "mutual.example.com")] {
        let reply = ask(&client, edge.https, name, host).await.unwrap();
        assert_eq!(reply.status, 421, "{host} over a connection for {name}");
    }
    assert!(ask(&client, edge.https, "three.example.com", "three.example.com").await.is_err());
    assert_eq!((edge.one.requests(), edge.two.requests()), (ones, twos), "nothing of it came through");
}

#[tokio::test]
async fn a_mutual_server_serves_those_whom_its_roots_certify_and_nobody_else() {
    let edge = Edge::start().await;
    let name = "mutual.example.com";
    let known = issue(&edge.partners, "partner.example.org");
    let reply = ask(&client(&[&edge.public], Some(&known)), edge.https, name, name).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    let stranger = issue(&certificates::authority(), "partner.example.org");
    let before = edge.one.requests();
    for own in [None, Some(&stranger)] {
        let answer = ask(&client(&[&edge.public], own), edge.https, name, name).await;
        assert!(answer.is_err(), "{answer:?}");
    }
    assert_eq!(edge.one.requests(), before);
}

#[tokio::test]
async fn what_is_passed_through_is_ended_by_the_service_with_its_own_certificate() {
    let own = certificates::authority();
    let issued = issue(&own, "passed.example.com");
    let (certificates, key) = chain(&issued);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(certificates, key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let service = Upstream::tcp(move |_, stream| {
        let acceptor = acceptor.clone();
        async move {
            let mut stream = acceptor.accept(stream).await?;
            let mut bytes = [0; 5];
            stream.read_exact(&mut bytes).await?;
            stream.write_all(&bytes).await?;
            stream.shutdown().await
        }
    })
    .await;
    let routes = "gateways: [edge]
tls: [{match: [{port: 443, sniHosts: [passed.example.com]}], route: [{destination: {host: passed.shop, port: {number: 443}}}]}]";
    let objects = service_at("passed.shop", 443, "TLS", &[service.address])
        + &virtual_service("passed.example.com", routes);
    let edge = Edge::with(&objects).await;
    let mut stream = connect(&client(&[&own], None), edge.https, "passed.example.com").await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut echo = [0; 5];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"hello");
    // The gateway's own certificates are not shown there.
    assert!(connect(&client(&[&edge.public], None), edge.https, "passed.example.com").await.is_err());
}

#[tokio::test]
async fn plain_requests_are_sent_to_https() {
    let edge = Edge::start().await;
    let reply = fetch(edge.http, get("one.example.com", "/a?b=c")).await;
    assert_eq!((reply.status.as_u16(), reply.header("location")), (301, "https://one.example.com/a?b=c"));
    assert_eq!(edge.one.requests(), 0);
}

#[tokio::test]
async fn a_credential_is_renewed_under_load_and_a_broken_one_is_kept_out() {
    let edge = Edge::start().await;
    let (next, name) = (certificates::authority(), "one.example.com");
    let either = client(&[&edge.public, &next], None);
    let mut kept = Client1::over(connect(&either, edge.https, name).await.unwrap()).await;
    assert_eq!(kept.exchange(get(name, "/")).await.status, 200);
    let renewing = async {
        for round in 0..20 {
            let authority = if round < 10 { &edge.public } else { &next };
            put(edge.credentials.path(), "one", &issue(authority, name));
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let asking = async {
        for _ in 0..60 {
            let reply = ask(&either, edge.https, name, name).await.unwrap();
            assert_eq!(reply.status, 200);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::join!(renewing, asking);
    let held = || {
        let all = edge.proxy.status.shared().keyring().status(std::time::SystemTime::now());
        all.into_iter().find(|held| &*held.name == "one").unwrap()
    };
    let only_next = client(&[&next], None);
    let mut served = false;
    for _ in 0..1000 {
        served = ask(&only_next, edge.https, name, name).await.is_ok();
        if served {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(served, "the new certificate is shown: {:?}", held());
    assert_eq!(kept.exchange(get(name, "/")).await.status, 200, "the old connection lives on");
    let failures = held().failures;
    std::fs::write(edge.credentials.path().join("one/tls.crt"), "no certificate").unwrap();
    eventually("the broken one is kept out", || held().failures > failures).await;
    assert_eq!(ask(&only_next, edge.https, name, name).await.unwrap().status, 200);
}
