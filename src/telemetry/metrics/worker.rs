//! How a worker counts.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::bundle::{Bundle, HistogramSlot, Slot};
use super::cache::Cache;
use super::istio::{
    ConnectionKey, ConnectionLabels, HTTP, Measured, REQUEST_BYTES, REQUEST_DURATION, REQUESTS_TOTAL,
    RESPONSE_BYTES, RequestKey, RequestLabels,
};
use super::registry::{Registry, Series};
use super::slab::{Slab, bump};

const CACHED_REQUEST_SERIES: usize = 1_024;
const CACHED_CONNECTION_SERIES: usize = 256;

/// The counting end of one worker: the only writer of its slab, so it stays on its thread (`!Sync`).
#[derive(Debug)]
pub struct WorkerMetrics {
    registry: Arc<Registry>,
    slab: Arc<Slab>,
    seen_epoch: Cell<u64>,
    requests: RefCell<Cache<RequestKey>>,
    connections: RefCell<Cache<ConnectionKey>>,
}

impl WorkerMetrics {
    pub(super) fn new(registry: Arc<Registry>, slab: Arc<Slab>) -> Self {
        Self {
            registry,
            slab,
            seen_epoch: Cell::new(0),
            requests: RefCell::new(Cache::new(CACHED_REQUEST_SERIES)),
            connections: RefCell::new(Cache::new(CACHED_CONNECTION_SERIES)),
        }
    }

    /// Adds to a counter.
    pub fn add(&self, series: &Series, slot: Slot, n: u64) {
        bump(self.slab.cells(series.cell), slot.0, n);
    }

    /// Moves this worker's share of a gauge.
    pub fn shift(&self, series: &Series, slot: Slot, by: i64) {
        bump(self.slab.cells(series.cell), slot.0, by.cast_unsigned());
    }

    /// Records an observation, in the unit of the histogram's bounds.
    pub fn observe(&self, series: &Series, slot: HistogramSlot, value: u64) {
        observe(self.slab.cells(series.cell), slot, value);
    }

    /// Counts one finished HTTP request in Istio's four families. No text is built for labels met before.
    pub fn request(&self, labels: &RequestLabels<'_>, measured: &Measured) {
        self.forget_stale();
        let key = labels.key();
        if let Some(series) = self.requests.borrow().find(&key) {
            self.count(series, measured);
            return;
        }
        let series = labels.intern(&self.registry);
        self.count(&series, measured);
        self.requests.borrow_mut().insert(key, series);
    }

    /// The series of a TCP connection ([`super::TCP`]) or a gRPC call's messages ([`super::MESSAGES`]), to be kept
    /// until its end.
    #[must_use]
    pub fn connection(&self, bundle: &'static Bundle, labels: &ConnectionLabels<'_>) -> Series {
        self.forget_stale();
        let key = labels.key(bundle);
        if let Some(series) = self.connections.borrow().find(&key) {
            return series.clone();
        }
        let series = labels.intern(bundle, &self.registry);
        self.connections.borrow_mut().insert(key, series.clone());
        series
    }

    /// Lets go of series whose route, cluster or peer is gone. Counting does so by itself; an idle worker calls it
    /// when it sees a new configuration.
    pub fn forget_stale(&self) {
        let epoch = self.registry.stale_epoch.load(Ordering::Relaxed);
        if self.seen_epoch.replace(epoch) != epoch {
            self.requests.borrow_mut().purge();
            self.connections.borrow_mut().purge();
        }
    }

    /// The registry behind this worker, for series resolved when a cluster or route is first seen.
    #[must_use]
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    fn count(&self, series: &Series, measured: &Measured) {
        const { assert!(HTTP.width() <= super::slab::CHUNK_CELLS) };
        let cells = self.slab.cells(series.cell);
        let micros = u64::try_from(measured.duration.as_micros()).unwrap_or(u64::MAX);
        bump(cells, REQUESTS_TOTAL.0, 1);
        observe(cells, REQUEST_DURATION, micros);
        observe(cells, REQUEST_BYTES, measured.request_bytes);
        observe(cells, RESPONSE_BYTES, measured.response_bytes);
    }
}

fn observe(cells: &[std::sync::atomic::AtomicU64], slot: HistogramSlot, value: u64) {
    bump(cells, slot.offset, value);
    bump(cells, slot.offset + 1 + slot.buckets.index(value) as u32, 1);
}
