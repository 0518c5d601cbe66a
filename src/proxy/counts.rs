//! Counters of one worker that belong to no request.

use crate::snapshot::Cluster;
use crate::telemetry::metrics::{LimitMetrics, PoolMetrics, WorkerEvents, WorkerMetrics};
use filter_api::Reason;
use rustc_hash::FxHashMap;
use std::cell::RefCell;

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
