//! All key material of a proxy: what the mesh names, loaded and watched, and turned into what handshakes need.
//!
//! Control configures it before a mesh is put in force; workers ask it at each handshake. The answer for the same settings is the same object until an
//! identity behind it is renewed, so that sessions are resumed.

mod loader;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::{ArcSwap, ArcSwapOption};
use filter_api::Peer;
use rustc_hash::FxHashMap;

use self::loader::Loader;
use super::alpn;
use super::client::{ClientSettings, ClientTls, Servers, client_config};
use super::epoch::Epoch;
use super::error::Error;
use super::held::Status;
use super::material::{Identity, Purpose};
use super::provider::Tls;
use super::server::{ServerSettings, ServerTls, server_config};
use super::spiffe::TrustDomains;
use super::trust::Trust;
use super::watched::{Supply, Watched};
use crate::config::finding::Finding;
use crate::mesh::{self, DownstreamTls, Mesh, Node, UpstreamTls};
use crate::telemetry::audit::Auditor;
use crate::telemetry::metrics::Registry;

/// Where the key material of a proxy is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// The identity of the workload.
    pub workload: Option<Supply>,
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
    /// Told what comes and what is kept out.
    auditor: Arc<Auditor>,
    /// Held while it is configured.
    configuring: Mutex<()>,
    state: ArcSwap<State>,
    epoch: Arc<Epoch>,
}

#[derive(Debug, Default)]
struct State {
    workload: Option<Arc<Watched>>,
    sources: HashMap<Source, Arc<Watched>>,
    /// What each source was opened as.
    opened: HashMap<Source, (Purpose, Supply)>,
    servers: FxHashMap<DownstreamTls, Arc<Server>>,
    clients: FxHashMap<UpstreamTls, Arc<Client>>,
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
    pub fn new(registry: Arc<Registry>, auditor: Arc<Auditor>) -> Self {
        let (configuring, state) = (Mutex::default(), ArcSwap::default());
        Self { registry, auditor, configuring, state, epoch: Arc::default() }
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
        // What comes back under a name that was given up may be another.
        let given_up = |(source, known): (&Source, &Arc<Watched>)| {
            sources.get(source).is_none_or(|watched| !Arc::ptr_eq(known, watched))
        };
        let turns = old.sources.iter().any(given_up);
        let (last_servers, last_clients) = (old.servers.clone(), old.clients.clone());
        self.state.store(Arc::new(State {
            workload,
            sources,
            opened,
            servers,
            clients,
            last_servers,
            last_clients,
        }));
        if turns {
            self.epoch.begin();
        }
        problems
    }

    /// What a handshake with a client needs. The same until an identity is renewed.
    ///
    /// # Errors
    /// Nothing valid is held, or the settings cannot be followed.
    pub fn server(&self, tls: &DownstreamTls) -> Result<ServerTls, Error> {
        let server = self.find_server(tls)?;
        server.tls(usable(&server.own)?)
    }

    /// Whether a client that was let in by these settings would still be, as far as roots, revocation lists and what it had to prove go. That its
    /// certificate has expired since is nothing against it, as in Envoy.
    ///
    /// # Errors
    /// Why not, in words; also when it cannot be told.
    pub fn still_believes(&self, tls: &DownstreamTls, peer: &Peer) -> Result<(), String> {
        let server = self.find_server(tls).map_err(|error| error.to_string())?;
        // Our own certificate may have expired: that is not about the client.
        let identity = server.own.held().load().ok_or("no roots are held to judge it by")?;
        let server = server.tls(identity).map_err(|error| error.to_string())?;
        server.still_believes(peer, SystemTime::now()).map_err(|refused| refused.to_string())
    }

    fn find_server(&self, tls: &DownstreamTls) -> Result<Arc<Server>, Error> {
        let state = self.state.load();
        let known = state.servers.get(tls).or_else(|| state.last_servers.get(tls));
        known.cloned().ok_or(Error::Settings("its certificate could not be loaded"))
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

    /// Another one begins whenever whom we believe has changed, or who we are: connections from before are judged again, or serve no new request.
    /// A renewed certificate of our own begins none.
    #[inline]
    pub fn epoch(&self) -> &Epoch {
        &self.epoch
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

impl Server {
    /// What a handshake needs with this identity. The same until it is renewed.
    fn tls(&self, identity: Arc<Identity>) -> Result<ServerTls, Error> {
        let generation = identity.generation();
        if let Some(current) = &*self.current.load()
            && current.0 == generation
        {
            return Ok(current.1.clone());
        }
        let made = server_config(&[identity], &self.settings)?;
        self.current.store(Some(Arc::new((generation, made.clone()))));
        Ok(made)
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
