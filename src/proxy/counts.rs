//! Counters of one worker that belong to no request.

use super::worker::Worker;
use crate::snapshot::{Cluster, Listener};
use crate::telemetry::metrics::{LimitMetrics, PoolMetrics, WorkerEvents, WorkerMetrics};
use filter_api::Reason;
use rustc_hash::FxHashMap;
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Counts {
    events: WorkerEvents,
    limits: RefCell<FxHashMap<Reason, LimitMetrics>>,
    pools: RefCell<FxHashMap<u32, Pool>>,
}

/// The pool metrics of a cluster, and what they say of this worker.
#[derive(Debug)]
struct Pool {
    metrics: PoolMetrics,
    idle: i64,
    active: i64,
}

impl Counts {
    pub(super) fn new(metrics: &WorkerMetrics) -> Self {
        let events = WorkerEvents::new(metrics.registry());
        Self { events, limits: RefCell::default(), pools: RefCell::default() }
    }

    /// Lets go of the clusters that are gone.
    pub(super) fn retain(&self, mut keep: impl FnMut(u32) -> bool) {
        self.pools.borrow_mut().retain(|cluster, _| keep(*cluster));
    }

    /// A request or connection met a limit of ours, or a rule of what we forward.
    pub(super) fn limit(&self, metrics: &WorkerMetrics, reason: Reason) {
        let mut limits = self.limits.borrow_mut();
        let limit =
            limits.entry(reason).or_insert_with(|| LimitMetrics::new(metrics.registry(), reason.details()));
        limit.hit(metrics);
    }

    pub(super) fn detection_timeout(&self, metrics: &WorkerMetrics) {
        self.events.detection_timed_out(metrics);
    }

    pub(super) fn accept_error(&self, metrics: &WorkerMetrics) {
        self.events.accept_failed(metrics);
    }

    pub(super) fn trailers_lost(&self, metrics: &WorkerMetrics) {
        self.events.trailers_lost(metrics);
    }

    pub(super) fn revoked(&self, metrics: &WorkerMetrics) {
        self.events.revoked(metrics);
    }

    pub(super) fn panicked(&self, metrics: &WorkerMetrics) {
        self.events.panicked(metrics);
    }

    /// Calls `with` with the pool metrics of a cluster.
    pub(super) fn pool(&self, metrics: &WorkerMetrics, cluster: &Cluster, with: impl FnOnce(&PoolMetrics)) {
        let mut pools = self.pools.borrow_mut();
        let pool = pools.entry(cluster.state.id).or_insert_with(|| Pool {
            metrics: PoolMetrics::new(metrics.registry(), &cluster.mesh.name),
            idle: 0,
            active: 0,
        });
        with(&pool.metrics);
    }

    /// Says how many connections of each cluster are idle and open now.
    pub(super) fn pool_sizes(&self, metrics: &WorkerMetrics, count: impl Fn(u32) -> (usize, usize)) {
        for (cluster, pool) in &mut *self.pools.borrow_mut() {
            let (idle, open) = count(*cluster);
            let (idle, active) = (idle as i64, open.saturating_sub(idle) as i64);
            pool.metrics.shift_idle(metrics, idle - pool.idle);
            pool.metrics.shift_active(metrics, active - pool.active);
            (pool.idle, pool.active) = (idle, active);
        }
    }
}

impl Worker {
    /// Logs and counts a connection that is closed without having been served.
    pub(crate) fn refuse_connection(
        &self,
        listener: &Listener,
        (peer, local): (SocketAddr, SocketAddr),
        reason: Reason,
        why: &str,
    ) {
        self.counts.limit(&self.metrics, reason);
        let decision = self.note_unserved(listener, (peer, local), reason, why);
        let decision = decision.as_ref().map_or("-", |id| id.as_str());
        tracing::debug!(listener = %listener.mesh.name, %peer, flag = reason.flag(), why, decision, "a connection was closed");
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

    /// Trailers came that HTTP/1 cannot carry: the head did not announce them, or the client does not want any.
    pub(crate) fn count_lost_trailers(&self) {
        self.counts.trailers_lost(&self.metrics);
    }

    /// Something open was ended because no policy allows it any more.
    pub(crate) fn count_revoked(&self) {
        self.counts.revoked(&self.metrics);
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
