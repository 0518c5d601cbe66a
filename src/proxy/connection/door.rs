//! How a connection came in: what it takes to find its chain in a newer snapshot, and to judge its client again.

use crate::mesh::{DownstreamTls, Name, TransportProtocol};
use crate::proxy::worker::Worker;
use crate::snapshot::{Chain, ChainQuery, Listener, Snapshot};
use filter_api::{ConnectionFacts, Protocol};
use smallvec::SmallVec;
use std::cell::{Cell, RefCell};
use std::sync::Arc;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) facts: Arc<ConnectionFacts>,
    listener: Name,
    transport: Transport,
    /// How TLS was ended, as the newest chain that was seen has it.
    tls: RefCell<Option<Arc<DownstreamTls>>>,
    /// Of the keyring, when the client was last judged.
    epoch: Cell<u64>,
}

/// What the first bytes told of the transport.
#[derive(Debug)]
pub(super) struct Transport {
    pub(super) protocol: TransportProtocol,
    pub(super) offered: Box<[Box<str>]>,
    /// What was spoken before TLS was ended: HTTP, or else.
    pub(super) first: Protocol,
}

impl Door {
    /// A connection whose client was judged in this epoch of the keyring.
    pub(super) fn new(
        listener: Name,
        facts: Arc<ConnectionFacts>,
        transport: Transport,
        tls: Option<Arc<DownstreamTls>>,
        epoch: u64,
    ) -> Self {
        Self { facts, listener, transport, tls: RefCell::new(tls), epoch: Cell::new(epoch) }
    }

    /// The listener that took it, as a snapshot has it.
    pub(crate) fn listener<'s>(&self, snapshot: &'s Snapshot) -> Option<&'s Arc<Listener>> {
        snapshot.listener(&self.listener)
    }

    /// The chain that would take it there.
    pub(crate) fn chain<'l>(&self, listener: &'l Listener) -> Option<&'l Arc<Chain>> {
        self.transport.chain(listener, &self.facts)
    }

    /// Whether a client has to prove at this chain what this one has proven.
    pub(crate) fn is_as_at(&self, chain: &Chain) -> bool {
        asks_the_same(chain.mesh.tls.as_deref(), self.tls.borrow().as_deref())
    }

    /// This chain, which asks the same proof, goes on with it.
    pub(super) fn follow(&self, chain: &Chain) {
        let mut tls = self.tls.borrow_mut();
        if tls.as_ref().map(Arc::as_ptr) != chain.mesh.tls.as_ref().map(Arc::as_ptr) {
            tls.clone_from(&chain.mesh.tls);
            // Its settings are kept under another key, and what they stand for may be another.
            self.epoch.set(u64::MAX);
        }
    }

    /// Whether its client is believed in the newest epoch. Cheap when that is the one of the last time.
    ///
    /// # Errors
    /// Why not. The expiry of its certificate is no reason.
    pub(crate) fn believes(&self, worker: &Worker) -> Result<(), Name> {
        let epoch = worker.follow_epoch();
        if self.epoch.get() == epoch {
            return Ok(());
        }
        let tls = self.tls.borrow();
        let peer = self.facts.tls.as_ref().and_then(|tls| tls.peer.as_ref());
        if let (Some(tls), Some(peer)) = (&*tls, peer) {
            let judged = worker.keyring().still_believes(tls, peer);
            judged.map_err(|why| Name::from(format!("its certificate is not believed any more: {why}")))?;
        }
        self.epoch.set(epoch);
        Ok(())
    }
}

/// Whether two doors ask the same proof of a client.
pub(super) fn asks_the_same(one: Option<&DownstreamTls>, other: Option<&DownstreamTls>) -> bool {
    one.map(|tls| (&tls.client, tls.min_version)) == other.map(|tls| (&tls.client, tls.min_version))
}

impl Transport {
    /// The chain that takes a connection.
    pub(super) fn chain<'l>(
        &self,
        listener: &'l Listener,
        facts: &ConnectionFacts,
    ) -> Option<&'l Arc<Chain>> {
        let offered: SmallVec<[&str; 8]> = match (self.protocol, self.first) {
            (TransportProtocol::Tls, _) => self.offered.iter().map(|name| &**name).collect(),
            (_, Protocol::Http1) => SmallVec::from_slice(&["http/1.1"]),
            (_, Protocol::Http2) => SmallVec::from_slice(&["h2c"]),
            _ => SmallVec::new(),
        };
        listener.chain(&ChainQuery {
            destination: facts.original_destination.or(Some(facts.local)),
            source: facts.remote.ip(),
            transport: self.protocol,
            server_name: facts.server_name.as_deref(),
            application_protocols: &offered,
        })
    }
}
