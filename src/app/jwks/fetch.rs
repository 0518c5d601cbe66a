//! One fetch of one key set.

use super::Settings;
use super::target::Allowed;
use super::tls;
use crate::mesh::EndpointAddress;
use crate::proxy::Shared;
use crate::proxy::internal::{Bounds, Calls};
use bytes::{Bytes, BytesMut};
use filter_jwt::{KeySet, MAX_JWKS};
use http::header::{ACCEPT, CACHE_CONTROL, HOST, LOCATION, USER_AGENT};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Where an issuer without `jwksUri` says where its keys are (OpenID Connect Discovery 1.0), as Istio looks for it.
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// Addresses of one host that are tried.
const MAX_ADDRESSES: usize = 4;

/// Fetches over the mesh where the host is a service of it, else directly.
#[derive(Debug)]
pub(super) struct Fetcher {
    shared: Arc<Shared>,
    calls: Calls,
}

/// What a server sent.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) text: Bytes,
    /// How long it says that it is good for.
    pub(super) fresh_for: Option<Duration>,
}

/// A URI taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    tls: bool,
    host: String,
    port: u16,
    authority: String,
    target: String,
}

impl Fetcher {
    pub(super) fn new(shared: Arc<Shared>, calls: Calls) -> Self {
        Self { shared, calls }
    }

    /// Fetches a set within its time. Redirects are not followed: they would lead where nobody looked.
    pub(super) async fn fetch(&self, set: &KeySet, settings: &Settings) -> Result<Fetched, String> {
        let timeout = set.timeout();
        let fetching = async {
            if !set.uri().ends_with(DISCOVERY) {
                return self.get(set.uri(), settings, timeout).await;
            }
            let found = self.get(set.uri(), settings, timeout).await?;
            let found: serde_json::Value = serde_json::from_slice(&found.text)
                .map_err(|error| format!("the description of the issuer is no JSON: {error}"))?;
            if found["issuer"].as_str() != Some(set.issuer()) {
                return Err("the description is that of another issuer; write `jwksUri`".to_owned());
            }
            let uri =
                found["jwks_uri"].as_str().ok_or("the description of the issuer names no `jwks_uri`")?;
            self.get(uri, settings, timeout).await.map_err(|error| format!("{uri}: {error}"))
        };
        let fetched = tokio::time::timeout(timeout, fetching).await;
        fetched.unwrap_or_else(|_| Err(format!("no whole answer within {timeout:?}")))
    }

    async fn get(&self, uri: &str, settings: &Settings, timeout: Duration) -> Result<Fetched, String> {
        let place = Place::parse(uri)?;
        let cluster = self.cluster(&place);
        if let (Some(cluster), false) = (&cluster, place.tls) {
            let bounds = Bounds { timeout, body: MAX_JWKS };
            let request = place.request(Bytes::new())?;
            let response =
                self.calls.call(cluster, request, bounds).await.map_err(|error| error.to_string())?;
            check(&response)?;
            let fresh_for = fresh_for(&response);
            return Ok(Fetched { text: response.into_body(), fresh_for });
        }
        let addresses = match cluster {
            Some(cluster) => self.endpoints(&cluster),
            None => resolve(&place, &settings.allowed).await?,
        };
        let stream = connect(&place, &addresses).await?;
        if !place.tls {
            return exchange(&place, stream).await;
        }
        let roots = settings.roots.clone();
        let client = crate::app::blocking(move || tls::client(&roots)).await?;
        let name =
            ServerName::try_from(place.host.clone()).map_err(|error| format!("{}: {error}", place.host))?;
        let stream = TlsConnector::from(client).connect(name, stream).await;
        exchange(&place, stream.map_err(|error| format!("TLS with {}: {error}", place.host))?).await
    }

    /// The cluster of a host of the mesh, by its name as a resolver in our namespace would complete it.
    fn cluster(&self, place: &Place) -> Option<String> {
        let snapshot = self.shared.snapshot();
        let namespace = &snapshot.mesh.node.namespace;
        let hosts = [
            place.host.clone(),
            format!("{}.svc.cluster.local", place.host),
            format!("{}.cluster.local", place.host),
            format!("{}.{namespace}.svc.cluster.local", place.host),
        ];
        let names = hosts.iter().map(|host| format!("outbound|{}||{host}", place.port));
        names.into_iter().find(|name| snapshot.cluster(name).is_some())
    }

    fn endpoints(&self, cluster: &str) -> Vec<SocketAddr> {
        let Some(cluster) = self.shared.snapshot().cluster(cluster).cloned() else { return Vec::new() };
        let endpoints = cluster.state.endpoints();
        let addresses = endpoints.endpoints().iter().filter_map(|endpoint| match endpoint.address {
            EndpointAddress::Socket(address) => Some(address),
            _ => None,
        });
        addresses.take(MAX_ADDRESSES).collect()
    }
}

impl Place {
    fn parse(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|error| format!("{text:?} is no URI: {error}"))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(format!("{text:?}: keys are fetched by http or https alone")),
        };
        let authority = uri.authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default();
        if authority.contains('@') {
            return Err("names a user; leave out what is before the `@`".to_owned());
        }
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(format!("{text:?} names no host"));
        }
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let target = uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        Ok(Self { tls, host, port, authority, target })
    }

    fn request<B>(&self, body: B) -> Result<Request<B>, String> {
        Request::get(&self.target)
            .header(HOST, &self.authority)
            .header(ACCEPT, "application/json, application/jwk-set+json")
            .header(USER_AGENT, concat!("sidegate/", env!("CARGO_PKG_VERSION")))
            .body(body)
            .map_err(|error| error.to_string())
    }
}

/// The addresses of a host, all of them checked: the one that is called is one that was looked at.
async fn resolve(place: &Place, allowed: &Allowed) -> Result<Vec<SocketAddr>, String> {
    let found: Vec<SocketAddr> = match place.host.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, place.port)],
        Err(_) => tokio::net::lookup_host((place.host.as_str(), place.port))
            .await
            .map_err(|error| format!("{} cannot be resolved: {error}", place.host))?
            .take(MAX_ADDRESSES)
            .collect(),
    };
    match found.iter().find(|address| !allowed.permits(&place.host, address.ip())) {
        Some(address) => Err(format!(
            "{} is at {}, a private address; make it a service of the mesh, or list it in `trust.privateTargets` of the Proxy",
            place.host,
            address.ip()
        )),
        None => Ok(found),
    }
}

async fn connect(place: &Place, addresses: &[SocketAddr]) -> Result<TcpStream, String> {
    let mut last = format!("{} has no address", place.host);
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = format!("{address}: {error}"),
        }
    }
    Err(last)
}

async fn exchange(
    place: &Place,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Fetched, String> {
    let (mut sender, connection) = http1::Builder::new()
        .max_headers(100)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let request = place.request(Empty::<Bytes>::new())?;
    let asking = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        check(&response)?;
        let fresh_for = fresh_for(&response);
        Ok(Fetched { text: read(response.into_body()).await?, fresh_for })
    };
    let mut asking = std::pin::pin!(asking);
    tokio::select! {
        fetched = &mut asking => fetched,
        // The connection may end with the last byte of the answer, which is then still to be read.
        _ = connection => asking.await,
    }
}

async fn read(mut body: Incoming) -> Result<Bytes, String> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| error.to_string())?.into_data() else { continue };
        if bytes.len() + data.len() > MAX_JWKS {
            return Err(format!("the answer is longer than {MAX_JWKS} bytes"));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

fn check<B>(response: &Response<B>) -> Result<(), String> {
    let status = response.status();
    if status.is_redirection() {
        let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("somewhere else");
        return Err(format!("{status} leads to {to:?}; redirects are not followed, write the final URI"));
    }
    if status == StatusCode::OK { Ok(()) } else { Err(format!("the server answers {status}")) }
}

fn fresh_for<B>(response: &Response<B>) -> Option<Duration> {
    let values = response.headers().get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let seconds = values.flat_map(|value| value.split(',')).find_map(|directive| {
        let (name, value) = directive.trim().split_once('=')?;
        if name.eq_ignore_ascii_case("max-age") { value.trim_matches('"').parse().ok() } else { None }
    });
    seconds.map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_is_taken_apart_and_strange_ones_are_refused() {
        let place = Place::parse("https://Issuer.example./keys?a=1").unwrap();
        assert_eq!(
            (place.tls, &*place.host, place.port, &*place.target),
            (true, "issuer.example", 443, "/keys?a=1")
        );
        let place = Place::parse("http://[::1]:8080").unwrap();
        assert_eq!((place.tls, &*place.host, place.port, &*place.target), (false, "::1", 8080, "/"));
        for strange in [
            "",
            "/keys",
            "file:///etc/passwd",
            "ftp://a/b",
            "http://a@b/c",
            "gopher://127.0.0.1/_x",
            "https://",
        ] {
            assert!(Place::parse(strange).is_err(), "{strange}");
        }
    }

    #[test]
    fn the_server_may_say_how_long_keys_are_good_for() {
        let say =
            |value: &str| fresh_for(&Response::builder().header(CACHE_CONTROL, value).body(()).unwrap());
        assert_eq!(say("public, max-age=600, must-revalidate"), Some(Duration::from_secs(600)));
        assert_eq!(say("Max-Age=\"7\""), Some(Duration::from_secs(7)));
        assert_eq!((say("no-store"), say("max-age=-1"), say("max-age=x")), (None, None, None));
    }
}
