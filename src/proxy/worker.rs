//! A worker: one thread, one current-thread runtime, its own listening sockets, connections and pools.
//!
//! Nothing here is shared with another worker but the snapshot and the cluster states, so no request waits for another thread.

mod clock;
mod logs;
mod register;
mod shared;

pub(crate) use clock::Clock;
pub use logs::LogTarget;
pub(crate) use register::Tunnel;
pub(crate) use shared::Accepted;
pub use shared::Shared;

use super::carried::Bytes;
use super::connection::Conn;
use super::internal;
use super::labels::LabelCache;
use super::listener::{self, Socket};
use super::record::{Activity, Recorded};
use super::revoke::Revocation;
use super::stack;
use super::upstream::Pools;
use super::xfcc;
use crate::identity::Keyring;
use crate::mesh::{Direction, Name};
use crate::snapshot::{Cluster, Snapshot};
use crate::telemetry::audit::Auditor;
use crate::telemetry::metrics::WorkerMetrics;
use filter_api::Request;
use logs::Logs;
use register::Tunnels;
use rustc_hash::FxHashMap;
use std::cell::{Cell, Ref, RefCell};
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// What the control side tells a worker.
pub(crate) enum Command {
    /// Accept on this socket.
    Listen(Name, Socket),
    /// Stop accepting for this listener.
    Close(Name),
    /// Ask the connections of a direction to go elsewhere, spread over this time.
    Drain(Direction, Duration),
    /// Send a request of our own.
    Call(Box<internal::Call>),
    /// A new snapshot is there, or other roots: let go of what they do not know any more.
    Reconcile,
    /// End every connection now.
    Stop,
}

/// See the module's documentation.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    snapshot: RefCell<Arc<Snapshot>>,
    pub(crate) pools: Pools,
    /// Of the keyring, as it was seen last.
    epoch: Cell<u64>,
    pub(in crate::proxy) revocation: Revocation,
    /// What is told of the clients' certificates.
    pub(in crate::proxy) client_elements: xfcc::Elements,
    pub(crate) metrics: WorkerMetrics,
    pub(crate) labels: LabelCache,
    random: RefCell<fastrand::Rng>,
    logs: RefCell<Logs>,
    pub(super) clock: Arc<Clock>,
    conns: RefCell<Vec<Rc<Conn>>>,
    exchanges: RefCell<Vec<Rc<Activity>>>,
    carried: RefCell<Vec<Rc<Bytes>>>,
    /// The clusters of the last snapshot that was reconciled, by id.
    clusters: RefCell<FxHashMap<u32, Arc<Cluster>>>,
    tunnels: Rc<Tunnels>,
    pub(super) counts: super::counts::Counts,
    pub(super) memory: super::decisions::Memory,
}

/// Events of sockets that are taken from the kernel at a time. What a few dozen connections have read is written again while it is still in
/// the processor's cache; of hundreds it is not (a tenth of the time for bodies of 64 KiB).
const EVENTS_PER_TICK: usize = 32;

/// Runs a worker on the current thread until its commands end.
pub(crate) fn run(shared: Arc<Shared>, commands: mpsc::Receiver<Command>) -> io::Result<()> {
    run_with(shared, commands, stack::build)
}

/// The same with a stack of its own.
pub(super) fn run_with<S>(
    shared: Arc<Shared>,
    mut commands: mpsc::Receiver<Command>,
    build: impl FnOnce(&Rc<Worker>) -> S,
) -> io::Result<()>
where
    S: tower::Service<Request, Response = http::Response<Recorded>, Error = Infallible, Future: 'static>
        + Clone
        + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_io_events_per_tick(EVENTS_PER_TICK)
        .build_local(Default::default())?;
    runtime.block_on(async move {
        let worker = Rc::new(Worker::new(shared));
        let stack = build(&worker);
        tokio::task::spawn_local(worker.clone().keep_time());
        let mut listeners: HashMap<Name, Vec<watch::Sender<bool>>> = HashMap::new();
        while let Some(command) = commands.recv().await {
            match command {
                Command::Listen(name, socket) => {
                    let (stop, stopped) = watch::channel(false);
                    let accepting =
                        listener::accept(worker.clone(), name.clone(), socket, stopped, stack.clone());
                    tokio::task::spawn_local(accepting);
                    listeners.entry(name).or_default().push(stop);
                }
                Command::Close(name) => {
                    for stop in listeners.remove(&name).unwrap_or_default() {
                        stop.send_replace(true);
                    }
                }
                Command::Reconcile => worker.reconcile(),
                Command::Drain(direction, over) => {
                    tokio::task::spawn_local(worker.clone().drain(direction, over));
                }
                Command::Call(call) => {
                    tokio::task::spawn_local(internal::serve(worker.clone(), *call));
                }
                Command::Stop => worker.stop(),
            }
        }
    });
    Ok(())
}

impl Worker {
    fn new(shared: Arc<Shared>) -> Self {
        let snapshot = shared.snapshot();
        let metrics = shared.registry().worker();
        let worker = Self {
            labels: LabelCache::new(shared.registry(), &snapshot.mesh.node),
            counts: super::counts::Counts::new(&metrics),
            memory: super::decisions::Memory::new(shared.decisions().ring(), shared.reporting()),
            metrics,
            pools: Pools::default(),
            epoch: Cell::new(0),
            revocation: Revocation::default(),
            client_elements: xfcc::Elements::default(),
            random: RefCell::new(fastrand::Rng::new()),
            logs: RefCell::default(),
            clock: Arc::new(Clock::new()),
            conns: RefCell::default(),
            exchanges: RefCell::default(),
            carried: RefCell::default(),
            clusters: RefCell::default(),
            tunnels: Rc::default(),
            snapshot: RefCell::new(snapshot),
            shared,
        };
        worker.reconcile_logs();
        worker
    }

    /// The key material of the process.
    pub(crate) fn keyring(&self) -> &Keyring {
        self.shared.keyring()
    }

    /// The audit of the process.
    #[inline]
    pub(crate) fn auditor(&self) -> &Auditor {
        self.shared.auditor()
    }

    /// The snapshot in force. Cheap: a number is compared, and only a new one is fetched.
    #[inline]
    pub(crate) fn snapshot(&self) -> Ref<'_, Arc<Snapshot>> {
        let generation = self.shared.generation.load(Ordering::Acquire);
        if self.snapshot.borrow().generation != generation {
            *self.snapshot.borrow_mut() = self.shared.snapshot();
        }
        self.snapshot.borrow()
    }

    /// Lets go of what the new snapshot does not know: pools, labels, log files.
    fn reconcile(self: &Rc<Self>) {
        let snapshot = self.snapshot().clone();
        let clusters: FxHashMap<u32, Arc<Cluster>> =
            snapshot.clusters().map(|cluster| (cluster.state.id, cluster.clone())).collect();
        self.pools.retain(|cluster, endpoint| {
            let Some(cluster) = clusters.get(&cluster) else { return false };
            let endpoints = cluster.state.endpoints();
            endpoint.is_none_or(|endpoint| endpoints.endpoints().iter().any(|known| known.id == endpoint))
        });
        self.counts.retain(|cluster| clusters.contains_key(&cluster));
        self.metrics.forget_stale();
        self.labels.retain(&snapshot.mesh.node, |cluster| clusters.contains_key(&cluster));
        *self.clusters.borrow_mut() = clusters;
        self.reconcile_memory(self.shared.reporting());
        self.reconcile_logs();
        // A connection whose listener or chain is gone hears of it here, not only with its next request.
        for conn in &*self.conns.borrow() {
            conn.look_again();
        }
        self.follow_epoch();
        self.revocation.follow(&snapshot);
        self.rejudge();
    }

    /// Follows whom we believe and who we are: what was opened to others before serves no new request. Returns the epoch.
    #[inline]
    pub(super) fn follow_epoch(&self) -> u64 {
        let epoch = self.keyring().epoch().number();
        if self.epoch.replace(epoch) != epoch {
            self.pools.retire_secured();
            self.client_elements.clear();
        }
        epoch
    }

    /// A random number, for balancing and weights.
    #[inline]
    pub(crate) fn random(&self) -> u64 {
        self.random.borrow_mut().u64(..)
    }

    fn stop(&self) {
        self.end_all();
        for (log, _) in &self.logs.borrow().sinks {
            log.flush();
        }
    }

    /// True for an address that one of our own listeners is bound to.
    pub(crate) fn is_own_address(&self, address: SocketAddr) -> bool {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        self.shared.own_addresses.load().iter().any(|own| {
            own.port() == address.port()
                && (own.ip() == address.ip() || own.ip().is_unspecified() && is_local(address))
        })
    }
}

/// An address of this machine, as far as can be told without asking the kernel: loopback.
fn is_local(address: SocketAddr) -> bool {
    address.ip().is_loopback()
}
