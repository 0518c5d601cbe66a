//! A worker: one thread, one current-thread runtime, its own listening sockets, connections and pools.
//!
//! Nothing here is shared with another worker but the snapshot and the cluster states, so no request waits for another thread.

use super::connection::{Close, Conn};
use super::internal;
use super::labels::LabelCache;
use super::listener::{self, Socket};
use super::record::Activity;
use super::stack;
use super::upstream::Pools;
use crate::mesh::{Direction, Name};
use crate::snapshot::{Cluster, Listener, Snapshot};
use crate::telemetry::access_log::{self, Format, Formatter, Kept};
use crate::telemetry::log_sink::{LogSink, WorkerLog};
use crate::telemetry::metrics::{Registry, WorkerMetrics};
use arc_swap::ArcSwap;
use filter_api::{Facts, Reason};
use http::{HeaderName, HeaderValue};
use rustc_hash::FxHashMap;
use std::cell::{Cell, Ref, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

/// What workers and the control side share.
#[derive(Debug)]
pub struct Shared {
    snapshot: ArcSwap<Snapshot>,
    generation: AtomicU64,
    logs: ArcSwap<Vec<LogTarget>>,
    registry: Arc<Registry>,
    /// Addresses that listeners are bound to: a connection to one of them would come back to us.
    own_addresses: ArcSwap<Vec<SocketAddr>>,
    connections: [AtomicU32; 3],
    /// Accepted connections of all listeners, and how many there may be.
    accepted: AtomicU32,
    max_connections: AtomicU32,
    draining: AtomicBool,
}

/// One accepted connection, until it is closed.
#[derive(Debug)]
pub(crate) struct Accepted(Arc<Shared>);

/// One access log: where, and in which form.
#[derive(Clone, Debug)]
pub struct LogTarget {
    /// The file.
    pub sink: LogSink,
    /// The line.
    pub format: Arc<Format>,
}

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
    /// A new snapshot is there: let go of what it does not know any more.
    Reconcile,
    /// End every connection now.
    Stop,
}

/// See the module's documentation.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    snapshot: RefCell<Arc<Snapshot>>,
    pub(crate) pools: Pools,
    pub(crate) metrics: WorkerMetrics,
    pub(crate) labels: LabelCache,
    random: RefCell<fastrand::Rng>,
    logs: RefCell<Logs>,
    clock: Cell<Instant>,
    clock_millis: Arc<AtomicU64>,
    started: Instant,
    conns: RefCell<Vec<Rc<Conn>>>,
    exchanges: RefCell<Vec<Rc<Activity>>>,
    /// The clusters of the last snapshot that was reconciled, by id.
    clusters: RefCell<FxHashMap<u32, Arc<Cluster>>>,
    tunnels: Rc<Tunnels>,
    tick: Notify,
    /// The clock waits for longer than a [`TICK`].
    at_rest: Cell<bool>,
    counts: super::counts::Counts,
}

#[derive(Default)]
struct Logs {
    of: Option<Arc<Vec<LogTarget>>>,
    sinks: Vec<(WorkerLog, Arc<Format>)>,
    request_headers: Vec<HeaderName>,
    response_headers: Vec<HeaderName>,
    formatter: Formatter,
}

#[derive(Debug, Default)]
struct Tunnels {
    stopped: Cell<bool>,
    stop: Notify,
}

/// A connection that carries bytes, for the drain to wait for and the stop to end.
#[derive(Clone, Debug)]
pub(crate) struct Tunnel(Rc<OpenTunnel>);

#[derive(Debug)]
struct OpenTunnel {
    all: Rc<Tunnels>,
    shared: Arc<Shared>,
    direction: Direction,
}

/// How often connections and exchanges are looked at while there are any under way.
const TICK: Duration = Duration::from_secs(1);

/// How often when all of them are idle.
const IDLE_TICK: Duration = Duration::from_secs(15);

impl Shared {
    /// Shared state that starts with this snapshot.
    pub fn new(snapshot: Arc<Snapshot>, registry: Arc<Registry>) -> Arc<Self> {
        Arc::new(Self {
            generation: AtomicU64::new(snapshot.generation),
            snapshot: ArcSwap::new(snapshot),
            logs: ArcSwap::default(),
            registry,
            own_addresses: ArcSwap::default(),
            connections: Default::default(),
            accepted: AtomicU32::new(0),
            max_connections: AtomicU32::new(u32::MAX),
            draining: AtomicBool::new(false),
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

    pub(crate) fn set_own_addresses(&self, addresses: Vec<SocketAddr>) {
        self.own_addresses.store(Arc::new(addresses));
    }

    /// Downstream connections of all workers in one direction, tunnels included.
    pub fn connections(&self, direction: Direction) -> u32 {
        self.count(direction).load(Ordering::Relaxed)
    }

    fn count(&self, direction: Direction) -> &AtomicU32 {
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

    fn accept(self: &Arc<Self>) -> Option<Accepted> {
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

    /// The metrics of the process.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }
}

/// Runs a worker on the current thread until its commands end.
pub(crate) fn run(shared: Arc<Shared>, mut commands: mpsc::Receiver<Command>) -> io::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    runtime.block_on(async move {
        let worker = Rc::new(Worker::new(shared));
        let stack = stack::build(&worker);
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
        let metrics = shared.registry.worker();
        let now = Instant::now();
        let worker = Self {
            labels: LabelCache::new(&shared.registry, &snapshot.mesh.node),
            counts: super::counts::Counts::new(&metrics),
            metrics,
            pools: Pools::default(),
            random: RefCell::new(fastrand::Rng::new()),
            logs: RefCell::default(),
            clock: Cell::new(now),
            clock_millis: Arc::default(),
            started: now,
            conns: RefCell::default(),
            exchanges: RefCell::default(),
            clusters: RefCell::default(),
            tunnels: Rc::default(),
            tick: Notify::new(),
            at_rest: Cell::new(false),
            snapshot: RefCell::new(snapshot),
            shared,
        };
        worker.reconcile_logs();
        worker
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
    fn reconcile(&self) {
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
        self.reconcile_logs();
        // A connection whose listener or chain is gone hears of it here, not only with its next request.
        for conn in &*self.conns.borrow() {
            conn.look_again();
        }
    }

    fn reconcile_logs(&self) {
        let targets = self.shared.logs.load_full();
        let mut logs = self.logs.borrow_mut();
        if logs.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, &targets)) {
            return;
        }
        logs.sinks = targets.iter().map(|target| (target.sink.worker(), target.format.clone())).collect();
        for (log, _) in &logs.sinks {
            tokio::task::spawn_local(log.clone().flush_in_time());
        }
        logs.request_headers = targets.iter().flat_map(|target| target.format.request_headers()).collect();
        logs.response_headers = targets.iter().flat_map(|target| target.format.response_headers()).collect();
        logs.request_headers.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        logs.request_headers.dedup();
        logs.response_headers.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        logs.response_headers.dedup();
        logs.of = Some(targets);
    }

    /// A random number, for balancing and weights.
    #[inline]
    pub(crate) fn random(&self) -> u64 {
        self.random.borrow_mut().u64(..)
    }

    /// True when an access log is written.
    pub(crate) fn logs(&self) -> bool {
        !self.logs.borrow().sinks.is_empty()
    }

    /// Request headers that a log line shows.
    pub(crate) fn log_request_headers(&self) -> Ref<'_, Vec<HeaderName>> {
        Ref::map(self.logs.borrow(), |logs| &logs.request_headers)
    }

    /// Response headers that a log line shows.
    pub(crate) fn log_response_headers(&self) -> Ref<'_, Vec<HeaderName>> {
        Ref::map(self.logs.borrow(), |logs| &logs.response_headers)
    }

    /// Writes a line to every access log. Header values are those of `log_request_headers` and `log_response_headers`, in their order.
    pub(crate) fn log(
        &self,
        record: &access_log::Record<'_>,
        request: &[Option<HeaderValue>],
        response: &[Option<HeaderValue>],
    ) {
        let Logs { sinks, request_headers, response_headers, formatter, .. } = &mut *self.logs.borrow_mut();
        let request = Kept::new(request_headers, request);
        let response = Kept::new(response_headers, response);
        let record = access_log::Record {
            request_headers: Some(&request),
            response_headers: Some(&response),
            ..*record
        };
        for (log, format) in sinks {
            log.line(|line| formatter.write(format, &record, line));
        }
    }

    /// Time, as of the last tick: good enough for limits of seconds, and free.
    pub(crate) fn clock(&self) -> Instant {
        self.clock.get()
    }

    pub(crate) fn clock_millis(&self) -> &Arc<AtomicU64> {
        &self.clock_millis
    }

    fn advance_clock(&self) -> Instant {
        let now = Instant::now();
        self.clock.set(now);
        let millis = u64::try_from((now - self.started).as_millis()).unwrap_or(u64::MAX);
        self.clock_millis.store(millis, Ordering::Relaxed);
        now
    }

    /// Watches the limits of connections and exchanges. Sleeps for good while there are none.
    async fn keep_time(self: Rc<Self>) {
        loop {
            if self.conns.borrow().is_empty() && self.exchanges.borrow().is_empty() && self.pools.are_empty()
            {
                self.at_rest.set(true);
                self.tick.notified().await;
            } else {
                let busy = !self.exchanges.borrow().is_empty()
                    || self.conns.borrow().iter().any(|conn| conn.is_waiting());
                let pause = if busy { TICK } else { IDLE_TICK };
                self.at_rest.set(!busy);
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = self.tick.notified() => {}
                }
            }
            let now = self.advance_clock();
            let millis = self.clock_millis.load(Ordering::Relaxed);
            for conn in &*self.conns.borrow() {
                if conn.tick(now, millis) {
                    self.count_limit(Reason::DownstreamTimeout);
                }
            }
            let exchanges = self.exchanges.borrow().clone();
            for activity in exchanges {
                activity.expire(now);
            }
            let clusters = self.clusters.borrow();
            self.pools.expire(now, |cluster| clusters.get(&cluster).map(|cluster| cluster.mesh.pool.clone()));
            self.counts.pool_sizes(&self.metrics, |cluster| self.pools.count(cluster));
        }
    }

    /// A connection was accepted: what is known of it begins now. `None` when there are as many as there may be; it is closed then.
    pub(crate) fn connection_arrived(&self) -> Option<Accepted> {
        self.advance_clock();
        let accepted = self.shared.accept();
        if accepted.is_none() {
            self.count_limit(Reason::Overload);
        }
        accepted
    }

    /// Something is under way whose time is limited: the clock has to run, if it does not.
    fn hurry(&self) {
        if self.at_rest.replace(false) {
            self.tick.notify_one();
        }
    }

    /// Puts a connection on the list of those that the clock and the drain look at.
    pub(crate) fn register(self: &Rc<Self>, conn: &Rc<Conn>) -> Registered {
        let mut conns = self.conns.borrow_mut();
        conn.place.set(conns.len());
        conns.push(conn.clone());
        self.hurry();
        self.shared.count(conn.direction()).fetch_add(1, Ordering::Relaxed);
        if self.shared.is_draining() && conn.direction() != Direction::Outbound {
            conn.close(Close::Soon);
        }
        Registered { worker: self.clone(), conn: conn.clone() }
    }

    pub(crate) fn begin_exchange(&self, activity: &Rc<Activity>) {
        let mut exchanges = self.exchanges.borrow_mut();
        activity.place.set(exchanges.len());
        exchanges.push(activity.clone());
        self.hurry();
    }

    pub(crate) fn end_exchange(&self, activity: &Activity) {
        let mut exchanges = self.exchanges.borrow_mut();
        let place = activity.place.get();
        if place < exchanges.len() {
            exchanges.swap_remove(place);
            if let Some(moved) = exchanges.get(place) {
                moved.place.set(place);
            }
        }
    }

    /// A connection that carries bytes from now on.
    pub(crate) fn open_tunnel(&self, direction: Direction) -> Tunnel {
        self.shared.count(direction).fetch_add(1, Ordering::Relaxed);
        Tunnel(Rc::new(OpenTunnel { all: self.tunnels.clone(), shared: self.shared.clone(), direction }))
    }

    /// Asks every connection of this direction to go elsewhere: with its next answer, spread over some time so that the clients do not all return
    /// at once; or, with no time left, even if it is idle.
    async fn drain(self: Rc<Self>, direction: Direction, over: Duration) {
        let conns: Vec<_> =
            self.conns.borrow().iter().filter(|conn| conn.direction() == direction).cloned().collect();
        let Some(step) = over.checked_div(u32::try_from(conns.len()).unwrap_or(u32::MAX)) else { return };
        let how = if over.is_zero() { Close::Graceful } else { Close::Soon };
        for conn in conns {
            conn.close(how);
            if !step.is_zero() {
                tokio::time::sleep(step).await;
            }
        }
    }

    fn stop(&self) {
        for conn in self.conns.borrow().iter().cloned().collect::<Vec<_>>() {
            conn.close(Close::Now);
        }
        self.tunnels.stopped.set(true);
        self.tunnels.stop.notify_waiters();
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

    /// What the log shows as authority.
    pub(crate) fn logged_authority<'a>(&self, facts: &'a Facts) -> Option<&'a str> {
        let logs = self.logs.borrow();
        let place = logs.request_headers.iter().position(|name| name == http::header::HOST)?;
        facts.kept_headers.get(place)?.as_ref()?.to_str().ok()
    }

    /// Logs and counts a connection that is closed without having been served.
    pub(crate) fn refuse_connection(&self, listener: &Listener, peer: SocketAddr, reason: Reason, why: &str) {
        self.counts.limit(&self.metrics, reason);
        tracing::debug!(listener = %listener.mesh.name, %peer, flag = reason.flag(), why, "a connection was closed");
    }

    pub(crate) fn count_limit(&self, reason: Reason) {
        self.counts.limit(&self.metrics, reason);
    }

    pub(crate) fn count_detection_timeout(&self, listener: &str) {
        self.counts.detection_timeout(&self.metrics);
        tracing::debug!(listener, "the protocol of a connection did not show in time");
    }

    pub(crate) fn count_accept_error(&self, listener: &str, error: &io::Error) {
        self.counts.accept_error(&self.metrics);
        tracing::warn!(listener, %error, "accepting a connection failed");
    }

    /// Trailers came that HTTP/1 cannot carry, since the head did not announce them.
    pub(crate) fn count_lost_trailers(&self) {
        self.counts.trailers_lost(&self.metrics);
    }

    pub(crate) fn count_panic(&self) {
        self.counts.panicked(&self.metrics);
    }

    /// A request found a limit of its cluster's pool reached.
    pub(crate) fn count_overflow(&self, cluster: &Cluster) {
        self.counts.pool(&self.metrics, cluster, |pool| pool.overflowed(&self.metrics));
    }

    pub(crate) fn count_upstream_connection(&self, cluster: &Cluster) {
        self.counts.pool(&self.metrics, cluster, |pool| pool.opened(&self.metrics));
    }
}

/// An address of this machine, as far as can be told without asking the kernel: loopback.
fn is_local(address: SocketAddr) -> bool {
    address.ip().is_loopback()
}

/// A connection on the worker's list, until it is dropped.
pub(crate) struct Registered {
    worker: Rc<Worker>,
    conn: Rc<Conn>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.worker.shared.count(self.conn.direction()).fetch_sub(1, Ordering::Relaxed);
        let mut conns = self.worker.conns.borrow_mut();
        let place = self.conn.place.get();
        if place < conns.len() {
            conns.swap_remove(place);
            if let Some(moved) = conns.get(place) {
                moved.place.set(place);
            }
        }
    }
}

impl Tunnel {
    /// Resolves when the process stops.
    pub(crate) async fn stopped(&self) {
        let all = &self.0.all;
        if !all.stopped.get() {
            all.stop.notified().await;
        }
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        self.0.accepted.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        self.shared.count(self.direction).fetch_sub(1, Ordering::Relaxed);
    }
}
