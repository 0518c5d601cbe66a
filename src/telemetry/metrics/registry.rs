//! From label sets to series, and from the slabs of all workers to one picture.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::bundle::{Bundle, Slot, Spec};
use super::istio::{Part, PartInner};
use super::slab::{CHUNK_CELLS, MAX_CELLS, Slab};
use super::worker::WorkerMetrics;

/// Longer label values are cut: a caller must not be able to fill our memory with its names.
const MAX_VALUE_BYTES: usize = 512;
/// How many label sets are kept, and for how long after their last use.
#[derive(Clone, Copy, Debug)]
pub struct RegistryLimits {
    /// Label sets at once; further ones are counted under `other`.
    pub label_sets: usize,
    /// How long a label set nobody uses any more is still shown.
    pub grace: Duration,
}

impl Default for RegistryLimits {
    fn default() -> Self {
        Self { label_sets: 10_000, grace: Duration::from_secs(300) }
    }
}

/// Every series of the process. Shared by the workers, which come here only for label sets they have not met.
#[derive(Debug)]
pub struct Registry {
    pub(super) limits: RegistryLimits,
    pub(super) state: Mutex<State>,
    pub(super) slabs: Mutex<Vec<Arc<Slab>>>,
    /// For counts of the control side, which may come from several threads.
    shared: Arc<Slab>,
    overflow: AtomicU64,
    /// Moves when series became stale, so that workers forget them.
    pub(super) stale_epoch: AtomicU64,
}

/// A label set's place in every slab. Its cells are not given away while a handle exists.
#[derive(Clone, Debug)]
pub struct Series {
    pub(super) cell: u32,
    pub(super) life: Arc<Life>,
}

#[derive(Debug, Default)]
pub(super) struct Life {
    /// A part of its labels is gone; caches should let go of it.
    pub(super) stale: AtomicBool,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) series: HashMap<Key, Entry>,
    pub(super) parts: HashMap<Box<[Box<str>]>, Weak<PartInner>>,
    pub(super) next_part: u64,
    /// Freed cells by width.
    pub(super) free: HashMap<u32, Vec<u32>>,
    next_cell: u32,
    pub(super) others: HashMap<&'static str, (&'static Bundle, Series)>,
    pub(super) external: Vec<(&'static Spec, External)>,
}

pub(super) type External = Arc<dyn Fn() -> u64 + Send + Sync>;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) bundle: &'static str,
    pub(super) values: Arc<[Box<str>]>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) bundle: &'static Bundle,
    pub(super) series: Series,
    /// What the labels are made of; the series outlives its handles while these live.
    pub(super) anchors: Box<[Weak<PartInner>]>,
    pub(super) unused_since: Option<Instant>,
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new(limits: RegistryLimits) -> Arc<Self> {
        let shared = Arc::new(Slab::new());
        Arc::new(Self {
            limits,
            state: Mutex::default(),
            slabs: Mutex::new(vec![shared.clone()]),
            shared,
            overflow: AtomicU64::new(0),
            stale_epoch: AtomicU64::new(0),
        })
    }

    /// A slab of its own for one more worker, to be moved to that worker's thread.
    #[must_use]
    pub fn worker(self: &Arc<Self>) -> WorkerMetrics {
        let slab = Arc::new(Slab::new());
        lock(&self.slabs).push(slab.clone());
        WorkerMetrics::new(self.clone(), slab)
    }

    /// The series of these label values, one per label name (missing ones are empty, further ones ignored). It
    /// lives as long as the handle, and the grace period after. Beyond the budget this is the bundle's `other`.
    #[must_use]
    pub fn series(&self, bundle: &'static Bundle, values: &[&str]) -> Series {
        self.intern(bundle, values, &[])
    }

    /// Adds to a counter from the control side.
    pub fn add(&self, series: &Series, slot: Slot, n: u64) {
        if let Some(cell) = self.shared.cells(series.cell).get(slot.0 as usize) {
            cell.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// Sets a gauge that only the control side writes.
    pub fn set(&self, series: &Series, slot: Slot, value: i64) {
        if let Some(cell) = self.shared.cells(series.cell).get(slot.0 as usize) {
            cell.store(value.cast_unsigned(), Ordering::Relaxed);
        }
    }

    /// Shows a counter or gauge without labels that is kept elsewhere; `read` is called at every scrape.
    pub fn external(&self, spec: &'static Spec, read: impl Fn() -> u64 + Send + Sync + 'static) {
        let mut state = lock(&self.state);
        state.external.retain(|(known, _)| known.name != spec.name);
        state.external.push((spec, Arc::new(read)));
    }

    /// Label sets counted under `other` so far.
    #[must_use]
    pub fn overflowed(&self) -> u64 {
        self.overflow.load(Ordering::Relaxed)
    }

    pub(super) fn intern(&self, bundle: &'static Bundle, values: &[&str], parts: &[&Part]) -> Series {
        let values = (0..bundle.labels.len()).map(|index| values.get(index).copied().unwrap_or_default());
        let key = Key { bundle: bundle.name(), values: values.map(|value| Box::from(cut(value))).collect() };
        let anchors: Box<[_]> = parts.iter().map(|part| Arc::downgrade(&part.0)).collect();
        let mut state = lock(&self.state);
        if let Some(entry) = state.series.get_mut(&key) {
            entry.unused_since = None;
            entry.anchors = anchors;
            entry.series.life.stale.store(false, Ordering::Relaxed);
            return entry.series.clone();
        }
        let cell =
            if state.series.len() < self.limits.label_sets { state.allocate(bundle.width()) } else { None };
        let Some(cell) = cell else {
            self.overflow.fetch_add(1, Ordering::Relaxed);
            return state.other(bundle);
        };
        let series = Series { cell, life: Arc::default() };
        state.series.insert(key, Entry { bundle, series: series.clone(), anchors, unused_since: None });
        series
    }
}

impl State {
    /// Cells for one series, within one chunk; `None` when the slabs are full.
    fn allocate(&mut self, width: u32) -> Option<u32> {
        if let Some(cell) = self.free.get_mut(&width).and_then(Vec::pop) {
            return Some(cell);
        }
        let room = CHUNK_CELLS - self.next_cell % CHUNK_CELLS;
        let cell = if width <= room { self.next_cell } else { self.next_cell + room };
        let fits = width <= CHUNK_CELLS && cell + width <= MAX_CELLS;
        fits.then(|| {
            self.next_cell = cell + width;
            cell
        })
    }

    /// The bundle's series for everything beyond the budget. Without cells for it, it points past the slabs, where
    /// counting has no effect.
    fn other(&mut self, bundle: &'static Bundle) -> Series {
        if let Some((_, series)) = self.others.get(bundle.name()) {
            return series.clone();
        }
        let series =
            Series { cell: self.allocate(bundle.width()).unwrap_or(MAX_CELLS), life: Arc::default() };
        self.others.insert(bundle.name(), (bundle, series.clone()));
        series
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("series", &self.series.len())
            .field("next_cell", &self.next_cell)
            .finish()
    }
}

/// Locks, also after a panic elsewhere: every update of the guarded values is complete or harmless.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn cut(value: &str) -> &str {
    value.get(..value.floor_char_boundary(MAX_VALUE_BYTES)).unwrap_or(value)
}
