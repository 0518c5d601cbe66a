//! Clients that are not believed any more.

use crate::support::body::BoxBody;
use crate::support::proxy::OBJECTS;
use crate::support::{
    self, Client1, Client2, Proxy, Upstream, certificates, empty, eventually, in_time, request,
};
use crate::{SPREAD, policy};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    CertificateRevocationListParams, Issuer as Signer, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber,
};
use sidegate::identity::issue::{Authority, Issued, Workload};
use sidegate::identity::{ClientSettings, Identity, Purpose, Servers, TrustDomains, alpn, client_config};
use std::net::SocketAddr;
use std::path::Path;
use std::time::SystemTime;
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const STRICT: &str = "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
    metadata: {name: default, namespace: shop}\nspec: {mtls: {mode: STRICT}}\n";

async fn server(authority: &Authority, application: &Upstream, more: &str, objects: &str) -> Proxy {
    let inbound =
        format!("inbound: {{addresses: [\"127.0.0.1:0\"], application: \"{}\"}}{more}", application.address);
    let proxy = Proxy::secured(authority, "api", &inbound, &format!("{STRICT}{objects}")).await;
    proxy.assert_no_complaints();
    proxy
}

fn workload(authority: &Authority) -> Issued {
    let (trust_domain, namespace, service_account) = ("cluster.local", "shop", "web");
    authority.issue(&Workload { trust_domain, namespace, service_account, dns: &[], days: 1 }).unwrap()
}

/// A connection of this workload, which the test holds itself.
async fn connect(to: SocketAddr, client: &Issued, protocols: &[&[u8]]) -> TokioIo<TlsStream<TcpStream>> {
    let purpose = Purpose::Workload(TrustDomains::new("cluster.local", &[]).unwrap());
    let identity = Identity::new(&client.pem(), &purpose, None, SystemTime::now()).unwrap();
    let settings = ClientSettings::new(Servers::Mesh(Vec::new()), protocols);
    let tls = client_config(Some(&identity), identity.trust(), &settings).unwrap();
    let stream = support::client::connect(to).await;
    let connecting = TlsConnector::from(tls.config().clone()).connect(to.ip().into(), stream);
    TokioIo::new(in_time("a handshake", connecting).await.unwrap())
}

enum Client {
    One(Client1),
    Two(Client2),
}

impl Client {
    async fn both(to: SocketAddr, client: &Issued) -> [Self; 2] {
        let one = connect(to, client, alpn::CLIENT_HTTP1).await;
        let (sender, connection) = hyper::client::conn::http1::handshake(one).await.unwrap();
        let one = Client1 { sender, connection: tokio::spawn(connection.with_upgrades()) };
        let two = connect(to, client, alpn::CLIENT_HTTP2).await;
        let (sender, connection) =
            hyper::client::conn::http2::handshake::<_, _, BoxBody>(TokioExecutor::new(), two).await.unwrap();
        tokio::spawn(connection);
        let mut all = [Self::One(one), Self::Two(Client2 { sender })];
        for client in &mut all {
            assert_eq!(client.ask().await, Some(200));
        }
        all
    }

    /// The status of an answer; `None` when there is none on this connection.
    async fn ask(&mut self) -> Option<u16> {
        let request = request("GET", "api", "/", &[], empty());
        let reply = match self {
            Self::One(client) => client.try_exchange(request).await,
            Self::Two(client) => client.try_exchange(request).await,
        };
        reply.ok().map(|reply| reply.status.as_u16())
    }
}

/// The connections are refused the next request, or gone before it is sent.
async fn are_refused(clients: &mut [Client], application: &Upstream) {
    let before = application.requests();
    for client in clients {
        let status = client.ask().await;
        assert!(matches!(status, None | Some(403)), "{status:?}");
    }
    assert_eq!(application.requests(), before);
}

async fn believes(proxy: &Proxy, generation: u64) {
    eventually("the roots are in force", || {
        let held = proxy.status.shared().keyring().status(SystemTime::now());
        held.iter().all(|held| held.trust_generation == generation)
    })
    .await;
}

fn crl(authority: &Authority, client: &Issued, revoked: bool) -> String {
    let key = KeyPair::from_pem(std::str::from_utf8(authority.key().reveal()).unwrap()).unwrap();
    let signer = Signer::from_ca_cert_pem(authority.certificate(), key).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(client.certificate.as_bytes()).unwrap();
    let serial = SerialNumber::from_slice(pem.parse_x509().unwrap().raw_serial());
    let now = OffsetDateTime::now_utc();
    let entry = RevokedCertParams {
        serial_number: if revoked { serial } else { SerialNumber::from(1) },
        revocation_time: now - time::Duration::hours(1),
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: now - time::Duration::hours(1),
        next_update: now + time::Duration::hours(1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![entry],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(&signer).unwrap().pem().unwrap()
}

fn put(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(".new"), text).unwrap();
    std::fs::rename(folder.join(".new"), folder.join(name)).unwrap();
}

#[tokio::test]
async fn a_root_that_is_added_ends_nothing_and_one_that_is_taken_away_ends_its_clients() {
    let (authority, next) = (certificates::authority(), certificates::authority());
    let application = Upstream::start().await;
    let server = server(&authority, &application, "", "").await;
    let mut clients = Client::both(server.inbound(), &workload(&authority)).await;
    let both = format!("{}{}", authority.certificate(), next.certificate());
    certificates::write_trusting(server.folder(), &authority, "api", &both);
    believes(&server, 2).await;
    for client in &mut clients {
        assert_eq!(client.ask().await, Some(200), "the old root is believed beside the new one");
    }
    // The new root alone; the other connection stays what it is.
    certificates::write_trusting(server.folder(), &next, "api", &both);
    let renewed = Issued { root: both, ..workload(&next) };
    let mut others = Client::both(server.inbound(), &renewed).await;
    certificates::write(server.folder(), &next, "api");
    believes(&server, 3).await;
    are_refused(&mut clients, &application).await;
    for client in &mut others {
        assert_eq!(client.ask().await, Some(200));
    }
}

#[tokio::test]
async fn a_client_that_is_revoked_is_served_no_further_request() {
    let (authority, application) = (certificates::authority(), Upstream::start().await);
    let (bad, good) = (workload(&authority), workload(&authority));
    let listed = certificates::IDENTITY.replace("}}", ", crl: list.pem}}");
    let folder = tempfile::tempdir().unwrap();
    certificates::write(folder.path(), &authority, "api");
    put(folder.path(), "list.pem", &crl(&authority, &bad, false));
    let own = support::proxy::own(&format!(
        "{listed}\nworkload: {{serviceAccount: api, labels: {{app: api}}}}\n\
         inbound: {{addresses: [\"127.0.0.1:0\"], application: \"{}\"}}",
        application.address
    ));
    put(folder.path(), "proxy.yaml", &own);
    put(folder.path(), OBJECTS, STRICT);
    let server = Proxy::over(folder).await;
    server.assert_no_complaints();
    let mut revoked = Client::both(server.inbound(), &bad).await;
    let mut others = Client::both(server.inbound(), &good).await;
    put(server.folder(), "list.pem", &crl(&authority, &bad, true));
    believes(&server, 2).await;
    are_refused(&mut revoked, &application).await;
    for client in &mut others {
        assert_eq!(client.ask().await, Some(200));
    }
}

#[tokio::test]
async fn a_tcp_connection_of_a_root_that_is_taken_away_ends_where_a_policy_revokes() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    for revokes in [true, false] {
        let (authority, next) = (certificates::authority(), certificates::authority());
        let application = Upstream::echo().await;
        let objects = policy(&format!("session: {{revokeExisting: {revokes}}}, rules: [{{effect: Allow}}]"));
        let server = server(&authority, &application, "", &objects).await;
        let mut stream =
            connect(server.inbound(), &workload(&authority), alpn::CLIENT_TCP).await.into_inner();
        let mut buffer = [0; 5];
        in_time("writing", stream.write_all(b"\0ping")).await.unwrap();
        in_time("an echo", stream.read_exact(&mut buffer)).await.unwrap();
        certificates::write(server.folder(), &next, "api");
        believes(&server, 2).await;
        if revokes {
            let end = in_time("the end", stream.read(&mut buffer)).await;
            assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
        } else {
            tokio::time::sleep(SPREAD).await;
            in_time("writing", stream.write_all(b"\0pong")).await.unwrap();
            in_time("an echo", stream.read_exact(&mut buffer)).await.unwrap();
            assert_eq!(&buffer, b"\0pong");
        }
    }
}
