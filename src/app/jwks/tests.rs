#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use super::*;
use crate::mesh::Mesh;
use crate::telemetry::metrics::{Registry, RegistryLimits};
use filter_api::{Keep, Spec};
use filter_jwt::{Jwt, Keys, Rule};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

const KEYS: &str =
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// Answers every connection with these bytes, and then closes it or holds it open.
async fn serve(answer: impl Into<Vec<u8>>, hold: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = answer.into();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move { speak(stream, &answer, hold).await });
        }
    });
    address
}

async fn speak(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &[u8], hold: bool) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    // The reader may have enough before the end.
    let _ = stream.write_all(answer).await;
    let _ = stream.flush().await;
    if hold {
        let _ = stream.read_u8().await;
    }
    let _ = stream.shutdown().await;
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncache-control: max-age=120\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn fetcher() -> Fetcher {
    let registry = Registry::new(RegistryLimits::default());
    let (snapshot, _) = Snapshot::compile(Mesh::default(), None);
    Fetcher::new(Shared::new(snapshot, registry), Calls::new(std::iter::empty()))
}

/// The set of a rule, and what keeps it.
fn set(issuer: &str, uri: &str, timeout: Duration) -> (Arc<KeySet>, Box<dyn std::any::Any>) {
    let keep = Keep::default();
    let rule = Rule {
        issuer: issuer.to_owned(),
        keys: Keys::Fetched { uri: uri.to_owned(), timeout },
        ..Rule::default()
    };
    let compiled =
        Jwt::compile(&filter_jwt::Settings { rules: vec![rule], broken: Vec::new() }, &keep).unwrap();
    (keep.all::<KeySet>()[0].clone(), Box::new(compiled))
}

fn loopback() -> Settings {
    Settings { allowed: Allowed::new(&["127.0.0.0/8".to_owned()]), ..Settings::default() }
}

async fn fetch(uri: &str, settings: &Settings) -> Result<fetch::Fetched, String> {
    let (set, _kept) = set("i", uri, Duration::from_millis(500));
    fetcher().fetch(&set, settings).await
}

#[tokio::test]
async fn keys_are_fetched_with_the_time_that_their_server_gives_them() {
    let address = serve(ok(KEYS), false).await;
    let fetched = fetch(&format!("http://{address}/keys?a=1"), &loopback()).await.unwrap();
    assert_eq!((&fetched.text[..], fetched.fresh_for), (KEYS.as_bytes(), Some(Duration::from_secs(120))));
}

#[tokio::test]
async fn servers_that_misbehave_are_failures() {
    let long = format!("HTTP/1.1 200 OK\r\n\r\n{}", " ".repeat((1 << 20) + 1));
    let promised = "HTTP/1.1 200 OK\r\ncontent-length: 104857600\r\n\r\n{".to_owned();
    for (answer, hold, why) in [
        ("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n".to_owned(), false, "500"),
        ("HTTP/1.1 204 No Content\r\n\r\n".to_owned(), false, "204"),
        (
            "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/latest\r\ncontent-length: 0\r\n\r\n"
                .to_owned(),
            false,
            "redirects are not followed",
        ),
        (long, false, "longer than 1048576 bytes"),
        (promised.clone(), true, "within 500ms"),
        (promised, false, ""),
        ("nonsense\r\n\r\n".to_owned(), false, ""),
        (String::new(), false, ""),
        (String::new(), true, "within 500ms"),
    ] {
        let address = serve(answer.clone(), hold).await;
        let error = fetch(&format!("http://{address}/"), &loopback()).await.unwrap_err();
        assert!(error.contains(why), "{answer:.40}: {error}");
    }
}

#[tokio::test]
async fn private_targets_are_not_even_connected_to() {
    let address = serve(ok(KEYS), false).await;
    for uri in [format!("http://{address}/"), format!("http://localhost:{}/", address.port())] {
        let error = fetch(&uri, &Settings::default()).await.unwrap_err();
        assert!(error.contains("a private address"), "{error}");
    }
    let error = fetch("http://169.254.169.254/latest/meta-data", &Settings::default()).await.unwrap_err();
    assert!(error.contains("trust.privateTargets"), "{error}");
}

#[tokio::test]
async fn an_issuer_without_a_uri_describes_itself() {
    let keys = serve(ok(KEYS), false).await;
    for (issuer, named, good) in [("i", "i", true), ("i", "other", false)] {
        let description = format!(r#"{{"issuer":"{named}","jwks_uri":"http://{keys}/keys"}}"#);
        let server = serve(ok(&description), false).await;
        let uri = format!("http://{server}/.well-known/openid-configuration");
        let (set, _kept) = set(issuer, &uri, Duration::from_secs(1));
        assert_eq!(fetcher().fetch(&set, &loopback()).await.is_ok(), good, "{named}");
    }
}

#[tokio::test]
async fn https_is_spoken_with_servers_that_the_roots_vouch_for() {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let chain = vec![certified.cert.der().clone()];
    let key = rustls_pki_types::PrivateKeyDer::Pkcs8(certified.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server =
        rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let server = server.with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                speak(stream, ok(KEYS).as_bytes(), false).await;
            }
        }
    });
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.pem"), certified.cert.pem()).unwrap();
    let trusting = Settings { roots: folder.path().to_owned(), ..loopback() };
    let uri = format!("https://localhost:{port}/keys");
    assert_eq!(fetch(&uri, &trusting).await.unwrap().text, KEYS.as_bytes());
    let error = fetch(&format!("https://127.0.0.1:{port}/keys"), &trusting).await.unwrap_err();
    assert!(error.contains("TLS with"), "another name: {error}");
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(folder.path().join("ca.pem"), other.cert.pem()).unwrap();
    let error = fetch(&uri, &trusting).await.unwrap_err();
    assert!(error.contains("TLS with"), "another root: {error}");
}

#[test]
fn keys_that_are_kept_are_ours_alone_and_read_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (set, _kept) = set("i", "http://i/k", Duration::from_secs(1));
    let disk = || Disk::new(folder.path(), &set);
    assert_eq!(disk().read().unwrap(), None);
    let fetched = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    disk().write(KEYS.as_bytes(), fetched).unwrap();
    disk().write(KEYS.as_bytes(), fetched).unwrap();
    assert_eq!(disk().read().unwrap(), Some((KEYS.as_bytes().to_vec(), fetched)));
    let below = folder.path().join("jwks");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&below), 0o700);
    let files: Vec<_> = std::fs::read_dir(&below).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!((files.len(), mode(&files[0])), (1, 0o600));
    std::fs::set_permissions(&files[0], PermissionsExt::from_mode(0o666)).unwrap();
    assert!(disk().read().unwrap_err().to_string().contains("others may write it"));
    std::fs::set_permissions(&files[0], PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(&files[0], "{\"issuer\":\"i\"").unwrap();
    assert!(disk().read().is_err());
}

#[tokio::test]
async fn a_proxy_that_starts_without_its_issuer_knows_the_keys_of_its_last_run() {
    let folder = tempfile::tempdir().unwrap();
    let (set, kept) = set("i", "http://127.0.0.1:1/k", Duration::from_secs(1));
    Disk::new(folder.path(), &set).write(KEYS.as_bytes(), SystemTime::now()).unwrap();
    let settings = Settings { state: Some(folder.path().to_owned()), ..loopback() };
    let shared = Arc::new(Fetching { fetcher: fetcher(), settings: ArcSwap::from_pointee(settings) });
    let weak = Arc::downgrade(&set);
    let task = tokio::spawn(keep_fresh(shared, weak.clone()));
    while set.status().failures == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(set.status().keys, 1, "though nobody answers");
    drop((set, kept));
    // The task ends with the set, not with its next fetch.
    tokio::time::timeout(Duration::from_secs(5), task).await.unwrap().unwrap();
    assert!(weak.upgrade().is_none());
}
