//! All key material of a proxy: what the mesh names, loaded and watched, and turned into what handshakes need.
//!
//! Control configures it before a mesh is put in force; workers ask it at each handshake. The answer for the same settings is the same object until an
//! identity behind it is renewed, so that sessions are resumed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::{ArcSwap, ArcSwapOption};
use rustc_hash::FxHashMap;

use super::alpn;
use super::client::{ClientSettings, ClientTls, Servers, client_config};
use super::error::Error;
use super::files::Files;
use super::held::{Held, Status};
use super::judge::NameMatch;
use super::material::{Identity, Purpose};
use super::provider::{Hybrid, Tls, TlsVersion};
use super::server::{Clients, ServerSettings, ServerTls, server_config};
use super::spiffe::TrustDomains;
use super::trust::Trust;
use super::watched::{Watched, secret_name};
use crate::config::finding::Finding;
use crate::mesh::{
    self, Certificate, ClientCertificate, DownstreamTls, KeyExchange, Mesh, Node, Roots, UpstreamTls,
};
use crate::telemetry::metrics::Registry;

/// Where the key material of a proxy is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// The identity of the workload.
    pub workload: Option<Files>,
    /// The folder of credentials.
    pub credentials: Option<PathBuf>,
    /// Roots for servers outside of the mesh: a file or a folder.
    pub system: PathBuf,
    /// What relative paths start from: the folder of the file that holds the Proxy.
    pub base: PathBuf,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Keyring {
    registry: Arc<Registry>,
    /// Held while it is configured.
    configuring: Mutex<()>,
    state: ArcSwap<State>,
}

#[derive(Debug, Default)]
struct State {
    workload: Option<Arc<Watched>>,
    sources: HashMap<Source, Arc<Watched>>,
    /// What each source was opened as.
    opened: HashMap<Source, (Purpose, Files)>,
    servers: FxHashMap<DownstreamTls, Arc<Server>>,
    clients: FxHashMap<UpstreamTls, Arc<Client>>,
    /// Grows with every source that is replaced.
    epoch: u64,
    /// Of the configuration before: exchanges under way may still ask.
    last_servers: FxHashMap<DownstreamTls, Arc<Server>>,
    last_clients: FxHashMap<UpstreamTls, Arc<Client>>,
}

/// Where something is loaded from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Source {
    Workload,
    /// Name, and that of the Secret with its roots.
    Credential(mesh::Name, Option<mesh::Name>),
    RootsOf(mesh::Name),
    Files {
        certificate: Option<(PathBuf, PathBuf)>,
        roots: Option<(PathBuf, Option<PathBuf>)>,
    },
    System,
}

/// The server's side of one kind of TLS.
#[derive(Debug)]
struct Server {
    /// What it shows; the trust of the first judges clients.
    own: Arc<Watched>,
    settings: ServerSettings,
    current: ArcSwapOption<(u64, ServerTls)>,
}

/// The client's side of one kind of TLS.
#[derive(Debug)]
struct Client {
    own: Option<Arc<Watched>>,
    /// `None`: nobody has to prove anything.
    trust: Option<Arc<Watched>>,
    servers: Servers,
    tls: Tls,
    mesh: bool,
    current: [ArcSwapOption<((u64, u64), ClientTls)>; 3],
}

/// What will be spoken within TLS; decides which application protocols a client offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Within {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Bytes.
    Bytes,
}

impl Keyring {
    /// One that holds nothing.
    #[must_use]
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry, configuring: Mutex::default(), state: ArcSwap::default() }
    }

    /// Loads and watches everything that the mesh names, and forgets what it names no more. Blocks while new files are read; needs a tokio runtime.
    ///
    /// Returns what cannot be used, in words; handshakes that need it fail until it is mended.
    pub fn configure(&self, places: &Places, mesh: &Mesh) -> Vec<String> {
        let _configuring = self.configuring.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.state.load_full();
        let mut problems = Vec::new();
        let domains = match trust_domains(&mesh.node) {
            Ok(domains) => Some(domains),
            Err(error) => {
                problems.push(error.to_string());
                None
            }
        };
        let mut loader = Loader {
            keyring: self,
            old: &old,
            places,
            domains: domains.clone(),
            sources: HashMap::new(),
            opened: HashMap::new(),
            problems,
        };
        let workload = places.workload.is_some().then(|| loader.load(Source::Workload)).flatten();
        let mut servers = FxHashMap::default();
        let chains = mesh
            .listeners
            .values()
            .flat_map(|listener| listener.chains.iter().chain(&listener.default_chain));
        for tls in chains.filter_map(|chain| chain.tls.as_deref()) {
            if !servers.contains_key(tls)
                && let Some(server) = loader.server(tls, &mesh.node)
            {
                servers.insert(tls.clone(), server);
            }
        }
        let mut clients = FxHashMap::default();
        for tls in mesh.clusters.values().filter_map(|cluster| cluster.tls.as_deref()) {
            if !clients.contains_key(tls)
                && let Some(client) = loader.client(tls, &mesh.node)
            {
                clients.insert(tls.clone(), client);
            }
        }
        let Loader { sources, opened, problems, .. } = loader;
        let replaced = |(source, watched): (&Source, &Arc<Watched>)| {
            old.sources.get(source).is_some_and(|known| !Arc::ptr_eq(known, watched))
        };
        let epoch = old.epoch + u64::from(sources.iter().any(replaced));
        let (last_servers, last_clients) = (old.servers.clone(), old.clients.clone());
        self.state.store(Arc::new(State {
            workload,
            sources,
            opened,
            servers,
            clients,
            epoch,
            last_servers,
            last_clients,
        }));
        problems
    }

    /// What a handshake with a client needs. The same until an identity is renewed.
    ///
    /// # Errors
    /// Nothing valid is held, or the settings cannot be followed.
    pub fn server(&self, tls: &DownstreamTls) -> Result<ServerTls, Error> {
        let state = self.state.load();
        let server = state
            .servers
            .get(tls)
            .or_else(|| state.last_servers.get(tls))
            .ok_or(Error::Settings("its certificate could not be loaded"))?;
        let identity = usable(&server.own)?;
        if let Some(current) = &*server.current.load()
            && current.0 == identity.generation()
        {
            return Ok(current.1.clone());
        }
        let generation = identity.generation();
        let made = server_config(&[identity], &server.settings)?;
        server.current.store(Some(Arc::new((generation, made.clone()))));
        Ok(made)
    }

    /// What a handshake with a server needs. The same until an identity is renewed.
    ///
    /// # Errors
    /// Nothing valid is held, or the settings cannot be followed.
    pub fn client(&self, tls: &UpstreamTls, within: Within) -> Result<ClientTls, Error> {
        let state = self.state.load();
        let client = state
            .clients
            .get(tls)
            .or_else(|| state.last_clients.get(tls))
            .ok_or(Error::Settings("its certificates could not be loaded"))?;
        let own = client.own.as_ref().map(|own| usable(own)).transpose()?;
        let trust = match &client.trust {
            Some(trust) => {
                trust.held().load().ok_or(Error::Settings("its roots could not be loaded"))?.trust().clone()
            }
            None => Arc::new(Trust::nobody()),
        };
        let generations = (own.as_ref().map_or(0, |own| own.generation()), trust.generation());
        let slot = &client.current[within as usize];
        if let Some(current) = &*slot.load()
            && current.0 == generations
        {
            return Ok(current.1.clone());
        }
        let protocols: &[&[u8]] = if client.mesh {
            match within {
                Within::Http1 => alpn::CLIENT_HTTP1,
                Within::Http2 => alpn::CLIENT_HTTP2,
                Within::Bytes => alpn::CLIENT_TCP,
            }
        } else {
            match within {
                Within::Http1 => &[b"http/1.1"],
                Within::Http2 => &[b"h2"],
                Within::Bytes => &[],
            }
        };
        let settings = ClientSettings {
            tls: client.tls.clone(),
            ..ClientSettings::new(client.servers.clone(), protocols)
        };
        let made = client_config(own.as_deref(), &trust, &settings)?;
        slot.store(Some(Arc::new((generations, made.clone()))));
        Ok(made)
    }

    /// Our own identity as a URI; `None` without one.
    pub fn own_uri(&self) -> Option<String> {
        let state = self.state.load();
        let identity = state.workload.as_ref()?.held().load()?;
        let principal = identity.certificate()?.principal()?.as_str().to_owned();
        Some(format!("spiffe://{principal}"))
    }

    /// Changes whenever whom we believe has changed: connections from before serve no new request. A renewed certificate of our own changes nothing.
    pub fn trust_epoch(&self) -> u64 {
        let state = self.state.load();
        let of = |watched: &Arc<Watched>| {
            watched.held().load().map_or(0, |identity| identity.trust().generation())
        };
        let sum: u64 = state.sources.values().map(of).sum();
        (state.epoch << 32).wrapping_add(sum)
    }

    /// Whether the workload can prove who it is.
    ///
    /// # Errors
    /// What is not, in words.
    pub fn ready(&self, now: SystemTime) -> Result<(), String> {
        let state = self.state.load();
        // The credential of one server does not decide for the others: its own handshakes fail, which `/certs` explains.
        state.workload.as_ref().map_or(Ok(()), |workload| workload.held().ready(now))
    }

    /// What is held, for `/certs`.
    pub fn status(&self, now: SystemTime) -> Vec<Status> {
        let state = self.state.load();
        let mut all: Vec<Status> = state.sources.values().map(|watched| watched.held().status(now)).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    /// What is wrong with what is held.
    pub fn findings(&self, now: SystemTime) -> Vec<Finding> {
        let state = self.state.load();
        state.sources.values().flat_map(|watched| watched.held().findings(now)).collect()
    }
}

fn usable(watched: &Watched) -> Result<Arc<Identity>, Error> {
    let identity = watched.held().load().ok_or(Error::Settings("no valid certificate is held"))?;
    if identity.certificate().is_some() && !identity.valid(SystemTime::now()) {
        return Err(Error::Settings("the certificate that is held is not valid now"));
    }
    Ok(identity)
}

fn trust_domains(node: &Node) -> Result<TrustDomains, Error> {
    let aliases: Vec<String> = node.tls.trust_domain_aliases.iter().map(ToString::to_string).collect();
    let own = if node.trust_domain.is_empty() { "cluster.local" } else { &node.trust_domain };
    TrustDomains::new(own, &aliases)
}

struct Loader<'a> {
    keyring: &'a Keyring,
    old: &'a State,
    places: &'a Places,
    domains: Option<TrustDomains>,
    sources: HashMap<Source, Arc<Watched>>,
    opened: HashMap<Source, (Purpose, Files)>,
    problems: Vec<String>,
}

impl Loader<'_> {
    fn server(&mut self, tls: &DownstreamTls, node: &Node) -> Option<Arc<Server>> {
        let (clients, trust) = match &tls.client {
            ClientCertificate::None => (Clients::Unknown, None),
            ClientCertificate::Optional(trust) => (Clients::Optional, Some(trust)),
            ClientCertificate::Required(trust) if trust.mesh => (Clients::Mesh, Some(trust)),
            ClientCertificate::Required(trust) => (Clients::Required, Some(trust)),
        };
        let own = self.load(self.shown(&tls.certificate, trust.map(|trust| &trust.roots)))?;
        let names = trust.map(|trust| names(&trust.names)).unwrap_or_default();
        let alpn = tls.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let mut settings = ServerSettings { names, alpn, ..ServerSettings::new(clients, &[]) };
        settings.tls = Tls {
            min: Some(version(tls.min_version)),
            max: Some(version(tls.max_version)),
            ciphers: tls.cipher_suites.iter().map(ToString::to_string).collect(),
            hybrid: hybrid(node.tls.key_exchange),
        };
        let known = self.old.servers.get(tls);
        if let Some(known) = known
            && Arc::ptr_eq(&known.own, &own)
            && known.settings == settings
        {
            return Some(known.clone());
        }
        Some(Arc::new(Server { own, settings, current: ArcSwapOption::empty() }))
    }

    fn client(&mut self, tls: &UpstreamTls, node: &Node) -> Option<Arc<Client>> {
        let own = match &tls.certificate {
            Some(certificate) => Some(self.load(self.shown(certificate, None))?),
            None => None,
        };
        let trust = match self.believed(&tls.roots) {
            Some(source) => Some(self.load(source)?),
            None => None,
        };
        let servers = match &tls.roots {
            Roots::Unverified => Servers::Unverified,
            _ if tls.mesh => Servers::Mesh(names(&tls.names)),
            _ if tls.names.is_empty() => Servers::Asked,
            _ => Servers::Names(names(&tls.names)),
        };
        let settings = Tls {
            min: tls.mesh.then(|| version(node.tls.min_version)),
            hybrid: hybrid(node.tls.key_exchange),
            ..Tls::default()
        };
        let same = |a: &Option<Arc<Watched>>, b: &Option<Arc<Watched>>| {
            a.as_ref().map(Arc::as_ptr) == b.as_ref().map(Arc::as_ptr)
        };
        let known = self.old.clients.get(tls);
        if let Some(known) = known
            && same(&known.own, &own)
            && same(&known.trust, &trust)
            && known.tls == settings
        {
            return Some(known.clone());
        }
        Some(Arc::new(Client {
            own,
            trust,
            servers,
            tls: settings,
            mesh: tls.mesh,
            current: Default::default(),
        }))
    }

    /// Where a certificate comes from, with the roots that it judges others by.
    fn shown(&self, certificate: &Certificate, roots: Option<&Roots>) -> Source {
        match certificate {
            Certificate::Workload => Source::Workload,
            Certificate::Credential(name) => {
                let ca = match roots {
                    Some(Roots::Credential(ca)) if ca != name => Some(ca.clone()),
                    _ => None,
                };
                Source::Credential(name.clone(), ca)
            }
            Certificate::Files { certificate, private_key } => {
                let roots = match roots {
                    Some(Roots::File { bundle, crl }) => {
                        Some((self.at(bundle), crl.as_ref().map(|crl| self.at(crl))))
                    }
                    _ => None,
                };
                Source::Files { certificate: Some((self.at(certificate), self.at(private_key))), roots }
            }
        }
    }

    fn believed(&self, roots: &Roots) -> Option<Source> {
        Some(match roots {
            Roots::Mesh => Source::Workload,
            Roots::System => Source::System,
            Roots::Credential(name) => Source::RootsOf(name.clone()),
            Roots::File { bundle, crl } => Source::Files {
                certificate: None,
                roots: Some((self.at(bundle), crl.as_ref().map(|crl| self.at(crl)))),
            },
            Roots::Unverified => return None,
        })
    }

    fn at(&self, path: &Path) -> PathBuf {
        self.places.base.join(path)
    }

    fn load(&mut self, source: Source) -> Option<Arc<Watched>> {
        if let Some(found) = self.sources.get(&source) {
            return Some(found.clone());
        }
        let (name, purpose, files) = match self.describe(&source) {
            Ok(described) => described,
            Err(error) => {
                self.problems.push(error);
                return None;
            }
        };
        // What is opened as before goes on: a good identity outlives every change that is not its own.
        let same = self.old.opened.get(&source).is_some_and(|known| known.0 == purpose && known.1 == files);
        let watched = match self.old.sources.get(&source).filter(|_| same) {
            Some(known) => known.clone(),
            None => {
                let held = Arc::new(Held::new(&name, purpose.clone()));
                Arc::new(Watched::start(held, files.clone(), &self.keyring.registry))
            }
        };
        self.opened.insert(source.clone(), (purpose, files));
        self.sources.insert(source, watched.clone());
        Some(watched)
    }

    /// Name, purpose and files of a source.
    fn describe(&self, source: &Source) -> Result<(String, Purpose, Files), String> {
        let folder = || {
            self.places.credentials.as_deref().map(|folder| self.places.base.join(folder)).ok_or_else(|| {
                "a credentialName is used, and the Proxy names no `credentials.directory` to find it in"
                    .to_owned()
            })
        };
        Ok(match source {
            Source::Workload => {
                let files = self
                    .places
                    .workload
                    .clone()
                    .ok_or("the Proxy has no identity; write `identity.files`")?;
                let domains = self.domains.clone().ok_or("the trust domain is none")?;
                ("workload".to_owned(), Purpose::Workload(domains), files)
            }
            Source::Credential(name, ca) => {
                let name = secret_name(name).map_err(|error| error.to_string())?;
                let ca = ca.as_deref().map(secret_name).transpose().map_err(|error| error.to_string())?;
                (name.to_owned(), Purpose::Credential, Files::secret(&folder()?, name, ca))
            }
            Source::RootsOf(name) => {
                let name = secret_name(name).map_err(|error| error.to_string())?;
                let files = Files::secret(&folder()?, name, Some(name)).without_certificate();
                (format!("{name} (roots)"), Purpose::Roots, files)
            }
            Source::Files { certificate, roots } => {
                let mut files = match certificate {
                    Some((certificate, key)) => Files::new(certificate, key),
                    None => Files::default(),
                };
                if let Some((bundle, crl)) = roots {
                    files = files.with_roots(bundle);
                    if let Some(crl) = crl {
                        files = files.with_crl(crl);
                    }
                }
                let path =
                    certificate.as_ref().map(|(path, _)| path).or(roots.as_ref().map(|(path, _)| path));
                let purpose = if certificate.is_some() { Purpose::Credential } else { Purpose::Roots };
                (path.map(|path| path.display().to_string()).unwrap_or_default(), purpose, files)
            }
            Source::System => {
                let path = self.at(&self.places.system);
                ("system".to_owned(), Purpose::Roots, Files::only_roots(path))
            }
        })
    }
}

/// `a*` is a start, as Istio writes it.
fn names(written: &[mesh::Name]) -> Vec<NameMatch> {
    let name = |name: &mesh::Name| match name.strip_suffix('*') {
        Some(start) => NameMatch::Prefix(start.into()),
        None => NameMatch::Exact((&**name).into()),
    };
    written.iter().map(name).collect()
}

fn version(version: mesh::TlsVersion) -> TlsVersion {
    match version {
        mesh::TlsVersion::Tls12 => TlsVersion::V12,
        mesh::TlsVersion::Tls13 => TlsVersion::V13,
    }
}

fn hybrid(exchange: KeyExchange) -> Hybrid {
    match exchange {
        KeyExchange::Prefer => Hybrid::Prefer,
        KeyExchange::Require => Hybrid::Require,
        KeyExchange::Off => Hybrid::Off,
    }
}
