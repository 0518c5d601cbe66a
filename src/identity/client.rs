//! TLS towards upstreams.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use filter_api::TlsFacts;
use rustls::client::Resumption;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ClientConnection};
use rustls_pki_types::{DnsName, ServerName};

use super::error::{Error, Refused};
use super::facts;
use super::judge::{Judge, NameMatch, Rule};
use super::material::Identity;
use super::provider::Tls;
use super::trust::{Trust, Usage};

/// The most server names whose sessions one configuration keeps.
const SESSIONS: usize = 256;

/// What a server has to prove.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Servers {
    /// That it is a workload of the mesh with one of these ids (`ISTIO_MUTUAL`); an empty list is any workload of our trust domains.
    Mesh(Vec<NameMatch>),
    /// One of these names, by a root (`subjectAltNames` of `SIMPLE` and `MUTUAL`); not empty.
    Names(Vec<NameMatch>),
    /// The name that was asked for, by a root.
    Asked,
    /// Nothing (`insecureSkipVerify`).
    Unverified,
}

/// Settings of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSettings {
    /// What a server has to prove.
    pub servers: Servers,
    /// Application protocols, best first.
    pub alpn: Vec<Vec<u8>>,
    /// Versions, suites and groups.
    pub tls: Tls,
}

impl ClientSettings {
    /// Settings with these demands on servers, these protocols, and the rest by default.
    #[must_use]
    pub fn new(servers: Servers, alpn: &[&[u8]]) -> Self {
        Self { servers, alpn: alpn.iter().map(|name| name.to_vec()).collect(), tls: Tls::default() }
    }
}

/// A client's side of handshakes; one generation of identity and settings.
///
/// Sessions are resumed within one `ClientTls`, by server name: another identity, trust or demand is another `ClientTls`.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    judge: Arc<Judge>,
}

impl ClientTls {
    /// For `tokio_rustls::TlsConnector`.
    #[must_use]
    pub fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// The name to connect with: it is sent as SNI, and the one to be proven by [`Servers::Asked`]. Without a name, or for one that is an
    /// address, nothing is sent and the address has to be proven.
    ///
    /// # Errors
    /// `sni` is neither a DNS name nor an address.
    pub fn server_name(sni: Option<&str>, endpoint: IpAddr) -> Result<ServerName<'static>, Error> {
        let Some(sni) = sni.filter(|sni| !sni.is_empty()) else { return Ok(endpoint.into()) };
        if let Ok(address) = sni.parse::<IpAddr>() {
            return Ok(address.into());
        }
        let name = DnsName::try_from(sni.to_owned());
        name.map(ServerName::DnsName).map_err(|_| Error::Settings("the server name (`sni`) is no DNS name"))
    }

    /// What the handshake agreed on and who the server is; a resumed session is judged anew. `asked` is the name that was connected with.
    ///
    /// # Errors
    /// Why the server is refused.
    pub fn facts(&self, connection: &ClientConnection, asked: &ServerName<'_>) -> Result<TlsFacts, Refused> {
        facts::facts(connection, Some(&self.judge), Some(asked))
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("judge", &self.judge).finish_non_exhaustive()
    }
}

/// TLS of a client that shows `ours`, where it shows something (`MUTUAL`, `ISTIO_MUTUAL`), and believes `trust`.
///
/// # Errors
/// Settings that cannot be followed.
pub fn client_config(
    ours: Option<&Identity>,
    trust: &Arc<Trust>,
    settings: &ClientSettings,
) -> Result<ClientTls, Error> {
    let rule = match &settings.servers {
        Servers::Unverified => Rule::Nothing,
        _ if trust.roots() == 0 => {
            return Err(Error::Settings(
                "servers have to prove themselves, and there is no root to verify them",
            ));
        }
        Servers::Mesh(_) if trust.domains().is_none() => {
            return Err(Error::Settings(
                "workloads of the mesh are verified by the identity of a workload only",
            ));
        }
        Servers::Mesh(names) => Rule::Mesh(names.clone().into()),
        Servers::Names(names) if names.is_empty() => {
            return Err(Error::Settings("no name is listed that a server could prove"));
        }
        Servers::Names(names) => {
            Rule::Listed { names: names.clone().into(), hashes: Box::default(), keys: Box::default() }
        }
        Servers::Asked => Rule::Asked,
    };
    let judge = Arc::new(Judge {
        trust: Arc::clone(trust),
        rule: Arc::new(rule),
        usage: Usage::Server,
        optional: false,
        hints: Vec::new(),
    });
    let builder = ClientConfig::builder_with_provider(settings.tls.provider()?)
        .with_protocol_versions(&settings.tls.versions()?)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&judge) as _);
    let mut config = match ours {
        Some(identity) => {
            let own = identity
                .certificate()
                .ok_or(Error::Settings("a client that proves itself needs a certificate, not roots alone"))?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&own.key))))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols.clone_from(&settings.alpn);
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(ClientTls { config: Arc::new(config), judge })
}
