//! What is known of the running proxy, for the admin pages and for tests.

use crate::config::files::Rejected;
use crate::config::finding::Finding;
use crate::config::resources::ObjectKey;
use crate::mesh::{Address, Name};
use crate::proxy::Shared;
use crate::telemetry::metrics::Registry;
use arc_swap::{ArcSwap, ArcSwapOption};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::{Notify, watch};

/// See the module's documentation.
#[derive(Debug)]
pub struct Status {
    shared: Arc<Shared>,
    registry: Arc<Registry>,
    source: Vec<PathBuf>,
    applied: ArcSwapOption<Applied>,
    refused: ArcSwapOption<Rejected>,
    listeners: ArcSwap<BTreeMap<Name, Vec<Address>>>,
    pages: ArcSwap<BTreeMap<&'static str, SocketAddr>>,
    generation: watch::Sender<u64>,
    quit: Notify,
    drain: watch::Sender<Option<DrainRequest>>,
}

/// What `/drain_listeners` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DrainRequest {
    /// Accept for the propagation window before listeners are closed.
    pub(super) graceful: bool,
}

/// A configuration that is in force.
#[derive(Clone, Debug)]
pub struct Applied {
    /// Counts the loads that read something new, from 1.
    pub generation: u64,
    /// A hash of all that was read.
    pub hash: u64,
    /// When it came into force.
    pub time: SystemTime,
    /// The Proxy that runs.
    pub proxy: ObjectKey,
    /// Objects whose newest version does not hold, and what could not be read as an object.
    pub rejected: Vec<Rejected>,
    /// Security objects that are rejected and have no earlier version: what they are about is closed.
    pub closed: Vec<ObjectKey>,
    /// Files and folders that cannot be read, or not to their end.
    pub unreadable: Vec<Arc<Path>>,
    /// All there was to say.
    pub findings: Vec<Finding>,
    /// Parts of the mesh that are not in force as written.
    pub problems: Vec<String>,
}

impl Status {
    pub(super) fn new(shared: Arc<Shared>, registry: Arc<Registry>, source: Vec<PathBuf>) -> Self {
        Self {
            shared,
            registry,
            source,
            applied: ArcSwapOption::empty(),
            refused: ArcSwapOption::empty(),
            listeners: ArcSwap::default(),
            pages: ArcSwap::default(),
            generation: watch::Sender::new(0),
            quit: Notify::new(),
            drain: watch::Sender::new(None),
        }
    }

    /// The data path's side.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The metrics of the process.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The folders and files that are read.
    pub fn source(&self) -> &[PathBuf] {
        &self.source
    }

    /// The configuration in force; `None` before the first.
    pub fn applied(&self) -> Option<Arc<Applied>> {
        self.applied.load_full()
    }

    /// Why the newest configuration as a whole is not in force; `None` when it is.
    pub fn refused(&self) -> Option<Arc<Rejected>> {
        self.refused.load_full()
    }

    /// Where a listener really listens.
    pub fn listener(&self, name: &str) -> Option<SocketAddr> {
        self.listeners.load().get(name)?.iter().find_map(|address| match address {
            Address::Socket(address) => Some(*address),
            Address::Unix(_) => None,
        })
    }

    /// All bound listeners.
    pub fn listeners(&self) -> Arc<BTreeMap<Name, Vec<Address>>> {
        self.listeners.load_full()
    }

    /// Where the `admin`, `health` and `metrics` servers listen.
    pub fn page(&self, name: &str) -> Option<SocketAddr> {
        self.pages.load().get(name).copied()
    }

    /// Waits until a configuration of at least this generation is in force.
    pub async fn reached(&self, generation: u64) {
        // The sender lives in this very object.
        let _ = self.generation.subscribe().wait_for(|now| *now >= generation).await;
    }

    /// True when traffic is welcome.
    ///
    /// # Errors
    ///
    /// Says why not.
    pub fn ready(&self) -> Result<(), String> {
        self.shared.keyring().ready(SystemTime::now())?;
        if self.applied.load().is_none() {
            return Err("the first configuration is not in force yet".to_owned());
        }
        if self.shared.is_draining() {
            return Err("draining: this proxy is going away".to_owned());
        }
        Ok(())
    }

    /// Asks the proxy to end as SIGTERM does.
    pub fn quit(&self) {
        self.quit.notify_one();
    }

    /// Asks for an end of inbound traffic while the process goes on.
    pub(super) fn drain_listeners(&self, request: DrainRequest) {
        self.drain.send_replace(Some(request));
    }

    pub(super) fn drain_requests(&self) -> watch::Receiver<Option<DrainRequest>> {
        self.drain.subscribe()
    }

    pub(super) async fn quit_requested(&self) {
        self.quit.notified().await;
    }

    pub(super) fn set_applied(&self, applied: Applied) {
        let generation = applied.generation;
        self.applied.store(Some(Arc::new(applied)));
        self.generation.send_replace(generation);
    }

    pub(super) fn set_refused(&self, refused: Option<Rejected>) {
        self.refused.store(refused.map(Arc::new));
    }

    pub(super) fn set_listeners(&self, listeners: BTreeMap<Name, Vec<Address>>) {
        self.listeners.store(Arc::new(listeners));
    }

    pub(super) fn set_page(&self, name: &'static str, address: SocketAddr) {
        let mut pages = BTreeMap::clone(&self.pages.load());
        pages.insert(name, address);
        self.pages.store(Arc::new(pages));
    }
}
