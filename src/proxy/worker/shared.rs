//! What workers and the control side share.

use super::LogTarget;
use crate::identity::Keyring;
use crate::mesh::Direction;
use crate::proxy::decisions::Reporting;
use crate::snapshot::Snapshot;
use crate::telemetry::audit::Auditor;
use crate::telemetry::decisions::Decisions;
use crate::telemetry::metrics::Registry;
use arc_swap::ArcSwap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// What workers and the control side share.
#[derive(Debug)]
pub struct Shared {
    pub(super) snapshot: ArcSwap<Snapshot>,
    pub(super) generation: AtomicU64,
    pub(super) logs: ArcSwap<Vec<LogTarget>>,
    reporting: ArcSwap<Reporting>,
    decisions: Decisions,
    registry: Arc<Registry>,
    keyring: Arc<Keyring>,
    auditor: Arc<Auditor>,
    /// Addresses that listeners are bound to: a connection to one of them would come back to us.
    pub(super) own_addresses: ArcSwap<Vec<SocketAddr>>,
    connections: [AtomicU32; 3],
    /// Accepted connections of all listeners, and how many there may be.
    accepted: AtomicU32,
    max_connections: AtomicU32,
    draining: AtomicBool,
    outbound_draining: AtomicBool,
}

/// One accepted connection, until it is closed.
#[derive(Debug)]
pub(crate) struct Accepted(Arc<Shared>);

impl Shared {
    /// Shared state that starts with this snapshot.
    pub fn new(snapshot: Arc<Snapshot>, registry: Arc<Registry>) -> Arc<Self> {
        let auditor = Arc::new(Auditor::new(&registry));
        Arc::new(Self {
            generation: AtomicU64::new(snapshot.generation),
            snapshot: ArcSwap::new(snapshot),
            logs: ArcSwap::default(),
            reporting: ArcSwap::default(),
            decisions: Decisions::new(),
            keyring: Arc::new(Keyring::new(registry.clone(), auditor.clone())),
            auditor,
            registry,
            own_addresses: ArcSwap::default(),
            connections: Default::default(),
            accepted: AtomicU32::new(0),
            max_connections: AtomicU32::new(u32::MAX),
            draining: AtomicBool::new(false),
            outbound_draining: AtomicBool::new(false),
        })
    }

    /// The snapshot in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Puts a snapshot in force: the next request of every connection reads it.
    pub(crate) fn publish(&self, snapshot: Arc<Snapshot>) {
        let generation = snapshot.generation;
        self.snapshot.store(snapshot);
        self.generation.store(generation, Ordering::Release);
    }

    pub(crate) fn set_logs(&self, logs: Vec<LogTarget>) {
        self.logs.store(Arc::new(logs));
    }

    /// Sets how decisions are told. Workers follow with the next snapshot.
    pub(crate) fn set_reporting(&self, reporting: Reporting) {
        self.reporting.store(Arc::new(reporting));
    }

    pub(super) fn reporting(&self) -> Arc<Reporting> {
        self.reporting.load_full()
    }

    /// The decisions of the last while.
    pub fn decisions(&self) -> &Decisions {
        &self.decisions
    }

    pub(crate) fn set_own_addresses(&self, addresses: Vec<SocketAddr>) {
        self.own_addresses.store(Arc::new(addresses));
    }

    /// Downstream connections of all workers in one direction, tunnels included.
    pub fn connections(&self, direction: Direction) -> u32 {
        self.count(direction).load(Ordering::Relaxed)
    }

    pub(super) fn count(&self, direction: Direction) -> &AtomicU32 {
        match direction {
            Direction::Inbound => &self.connections[0],
            Direction::Outbound => &self.connections[1],
            Direction::Gateway => &self.connections[2],
        }
    }

    /// Sets how many downstream connections there may be at once. Those that are open stay.
    pub(crate) fn set_max_connections(&self, limit: u32) {
        self.max_connections.store(limit, Ordering::Relaxed);
    }

    pub(super) fn accept(self: &Arc<Self>) -> Option<Accepted> {
        let limit = self.max_connections.load(Ordering::Relaxed);
        let free = |count: u32| (count < limit).then(|| count + 1);
        let counted = self.accepted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free);
        counted.is_ok().then(|| Accepted(self.clone()))
    }

    /// Marks that the process is going away.
    pub(crate) fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// True once the process is going away.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Marks that the application's own calls have to end as well.
    pub(crate) fn set_outbound_draining(&self) {
        self.outbound_draining.store(true, Ordering::Relaxed);
    }

    /// Whether a connection of this direction has to go elsewhere.
    pub(super) fn ends(&self, direction: Direction) -> bool {
        let ending = if direction == Direction::Outbound { &self.outbound_draining } else { &self.draining };
        ending.load(Ordering::Relaxed)
    }

    /// The key material of the process.
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// The audit of the process.
    pub fn auditor(&self) -> &Arc<Auditor> {
        &self.auditor
    }

    /// The metrics of the process.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        self.0.accepted.fetch_sub(1, Ordering::Relaxed);
    }
}
