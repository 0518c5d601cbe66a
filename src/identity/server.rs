//! TLS of our own servers: the inbound side of the mesh, and gateways.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use filter_api::{Peer, TlsFacts};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection};
use rustls_pki_types::CertificateDer;

use super::certificate::Read;
use super::error::{Error, Refused, unix};
use super::facts;
use super::judge::{Judge, NameMatch, Rule};
use super::material::Identity;
use super::provider::Tls;
use super::trust::{Trust, Usage};

/// What clients have to prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Clients {
    /// Nothing (`SIMPLE`).
    Unknown,
    /// That they are workloads of the mesh (`ISTIO_MUTUAL`, inbound `STRICT`).
    Mesh,
    /// A certificate by a root of the bundle (`MUTUAL`).
    Required,
    /// The same, if they show one (`OPTIONAL_MUTUAL`).
    Optional,
}

/// Settings of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// What clients have to prove.
    pub clients: Clients,
    /// Names of which a client must prove one; empty is any.
    pub names: Vec<NameMatch>,
    /// SHA-256 of client certificates that are allowed, in hexadecimal with or without colons; empty is any.
    pub certificate_hashes: Vec<String>,
    /// SHA-256 of client keys (SubjectPublicKeyInfo) that are allowed, in base64; empty is any.
    pub key_hashes: Vec<String>,
    /// Application protocols, best first. A client that offers some, and none of them, is refused; one that offers none is not.
    pub alpn: Vec<Vec<u8>>,
    /// Versions, suites and groups.
    pub tls: Tls,
}

impl ServerSettings {
    /// Settings with these demands on clients, these protocols, and the rest by default.
    #[must_use]
    pub fn new(clients: Clients, alpn: &[&[u8]]) -> Self {
        Self {
            clients,
            names: Vec::new(),
            certificate_hashes: Vec::new(),
            key_hashes: Vec::new(),
            alpn: alpn.iter().map(|name| name.to_vec()).collect(),
            tls: Tls::default(),
        }
    }
}

/// A server's side of handshakes; one generation of identity and settings.
#[derive(Clone, Debug)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    judge: Option<Arc<Judge>>,
}

impl ServerTls {
    /// For `tokio_rustls::TlsAcceptor`. Keep the `ServerTls` that a handshake began with until [`facts`](Self::facts) was asked.
    #[must_use]
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// What the handshake agreed on and who the client is. A resumed session is judged anew here: a connection that is refused must be
    /// closed before a byte of it is used.
    ///
    /// # Errors
    /// Why the client is refused.
    pub fn facts(&self, connection: &ServerConnection) -> Result<TlsFacts, Refused> {
        facts::facts(connection, self.judge.as_deref(), None)
    }

    /// Judges the client of an old connection again, by the roots, revocation lists and demands of today. Certificates of its chain that have expired
    /// since are judged as of then: time alone takes nobody's belief away.
    ///
    /// # Errors
    /// Why it would be refused today.
    pub fn still_believes(&self, peer: &Peer, now: SystemTime) -> Result<(), Refused> {
        let Some(judge) = &self.judge else { return Ok(()) };
        let chain: Vec<CertificateDer<'_>> =
            peer.chain.iter().map(|der| CertificateDer::from(&**der)).collect();
        let ends = chain.iter().filter_map(|der| Read::new(der).ok()).map(|read| read.not_after);
        let at = ends.fold(now, SystemTime::min);
        judge.judge(&chain, None, unix(at))
    }
}

/// TLS of a server that proves `identity`, and of several where it has certificates of several kinds: the first that the client can verify
/// is shown. The trust of the first judges clients.
///
/// Sessions are kept in tickets of the client alone; their keys live as long as the trust, not as long as the certificate. No 0-RTT.
///
/// # Errors
/// Settings that cannot be followed.
pub fn server_config(identities: &[Arc<Identity>], settings: &ServerSettings) -> Result<ServerTls, Error> {
    let keys = identities.iter().map(|identity| {
        let own =
            identity.certificate().ok_or(Error::Settings("a server needs a certificate, not roots alone"));
        own.map(|own| Arc::clone(&own.key))
    });
    let keys = keys.collect::<Result<Box<[_]>, _>>()?;
    let trust = identities.first().ok_or(Error::Settings("a server needs a certificate"))?.trust();
    let rule = rule(settings, trust)?;
    let optional = settings.clients == Clients::Optional;
    let tickets = trust.tickets(&rule.clone().map(|rule| (rule, optional)))?;
    let judge = rule.map(|rule| {
        Arc::new(Judge {
            trust: Arc::clone(trust),
            rule,
            usage: Usage::Client,
            optional,
            hints: trust.hints(),
        })
    });
    let builder = ServerConfig::builder_with_provider(settings.tls.provider()?)
        .with_protocol_versions(&settings.tls.versions()?)?;
    let builder = match &judge {
        Some(judge) => builder.with_client_cert_verifier(Arc::clone(judge) as _),
        None => builder.with_client_cert_verifier(WebPkiClientVerifier::no_client_auth()),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Keys(keys)));
    config.alpn_protocols.clone_from(&settings.alpn);
    config.ticketer = tickets;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(ServerTls { config: Arc::new(config), judge })
}

fn rule(settings: &ServerSettings, trust: &Trust) -> Result<Option<Arc<Rule>>, Error> {
    let pinned = !settings.certificate_hashes.is_empty() || !settings.key_hashes.is_empty();
    let rule = match settings.clients {
        Clients::Unknown if pinned || !settings.names.is_empty() => {
            return Err(Error::Settings(
                "names or hashes of clients are given, and no client is asked for a certificate; use MUTUAL",
            ));
        }
        Clients::Unknown => return Ok(None),
        _ if trust.roots() == 0 => {
            return Err(Error::Settings(
                "clients have to prove themselves, and there is no root to verify them (`ca.crt`)",
            ));
        }
        Clients::Mesh if pinned => {
            return Err(Error::Settings("hashes of clients do not go with ISTIO_MUTUAL; use MUTUAL"));
        }
        Clients::Mesh if trust.domains().is_none() => {
            return Err(Error::Settings(
                "workloads of the mesh are verified by the identity of a workload only",
            ));
        }
        Clients::Mesh => Rule::Mesh(settings.names.clone().into()),
        Clients::Required | Clients::Optional => Rule::Listed {
            names: settings.names.clone().into(),
            hashes: settings
                .certificate_hashes
                .iter()
                .map(|text| hexadecimal(text))
                .collect::<Result<_, _>>()?,
            keys: settings.key_hashes.iter().map(|text| base64(text)).collect::<Result<_, _>>()?,
        },
    };
    Ok(Some(Arc::new(rule)))
}

fn hexadecimal(text: &str) -> Result<[u8; 32], Error> {
    let wrong = || Error::Hash(text.to_owned());
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
    let mut hash = [0; 32];
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() || pairs.len() != hash.len() {
        return Err(wrong());
    }
    for (byte, pair) in hash.iter_mut().zip(pairs) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = digit(0).zip(digit(1)).map(|(high, low)| high << 4 | low).ok_or_else(wrong)?;
    }
    Ok(hash)
}

fn base64(text: &str) -> Result<[u8; 32], Error> {
    let decoded = text.parse::<crate::config::resources::scalar::Base64>().ok();
    decoded.and_then(|bytes| bytes.0.try_into().ok()).ok_or_else(|| Error::Hash(text.to_owned()))
}

/// Our certificates, in the order in which they are preferred.
struct Keys(Box<[Arc<CertifiedKey>]>);

impl ResolvesServerCert for Keys {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        self.0.iter().find(fits).or_else(|| self.0.first()).cloned()
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} certificates", self.0.len())
    }
}
