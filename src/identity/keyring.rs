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
use rustc_hash::FxHashMap;

use self::loader::Loader;
use super::alpn;
use super::client::{ClientSettings, ClientTls, Servers, client_config};
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
}

#[derive(Debug, Default)]
struct State {
    workload: Option<Arc<Watched>>,
    sources: HashMap<Source, Arc<Watched>>,
    /// What each source was opened as.
    opened: HashMap<Source, (Purpose, Supply)>,
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
    pub fn new(registry: Arc<Registry>, auditor: Arc<Auditor>) -> Self {
        Self { registry, auditor, configuring: Mutex::default(), state: ArcSwap::default() }
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
