//! The decisions of the last while: every refusal, and a sample of what passed. What `explain ID` answers from.
//!
//! Each worker writes into rings of its own, one store of a pointer for each entry; readers load those pointers. So nobody ever waits: an entry
//! that is overwritten while it is read lives on until the reader lets go of it. Rings and entries are bounded: so is the memory.

mod entry;
mod text;

pub use entry::{Decision, MAX_BYTES, Named, Subject};

use arc_swap::ArcSwapOption;
use filter_api::DecisionId;
use std::cmp::Reverse;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// Refusals that a worker remembers.
pub const REFUSALS: usize = 512;

/// Decisions to let pass that a worker remembers. Apart from refusals, so that neither pushes the other out.
pub const PASSES: usize = 64;

/// The rings of all workers.
#[derive(Debug)]
pub struct Decisions {
    rings: Mutex<Vec<Arc<Ring>>>,
    started: SystemTime,
}

/// What one worker remembers. It alone writes.
#[derive(Debug)]
pub struct Ring {
    refused: Slots,
    passed: Slots,
}

/// Which decisions are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The status that was answered; refused connections have none.
    pub status: Option<u16>,
    /// `namespace/name`, or the name alone, of an object that had a part in it.
    pub policy: Option<String>,
    /// Refusals alone, or what passed alone.
    pub refused: Option<bool>,
}

/// How far the memory of refusals reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Refusals that are remembered.
    pub held: usize,
    /// The most that can be, of all workers.
    pub capacity: usize,
    /// Refusals since the start.
    pub total: u64,
    /// Every refusal since then is remembered.
    pub since: SystemTime,
}

impl Decisions {
    /// No ring yet.
    #[must_use]
    pub fn new() -> Self {
        Self { rings: Mutex::default(), started: SystemTime::now() }
    }

    /// The rings of one more worker.
    #[must_use]
    pub fn ring(&self) -> Arc<Ring> {
        let ring = Arc::new(Ring { refused: Slots::new(REFUSALS), passed: Slots::new(PASSES) });
        self.rings.lock().unwrap_or_else(PoisonError::into_inner).push(ring.clone());
        ring
    }

    /// The decision of this id, while it is remembered.
    #[must_use]
    pub fn find(&self, id: DecisionId) -> Option<Arc<Decision>> {
        self.rings().iter().flat_map(|ring| ring.all()).find(|decision| decision.id == id)
    }

    /// The latest decisions that the filter lets through, the newest first, no more than `limit`.
    #[must_use]
    pub fn latest(&self, limit: usize, filter: &Filter) -> Vec<Arc<Decision>> {
        let rings = self.rings();
        let held = rings.iter().flat_map(|ring| ring.all());
        let mut found: Vec<_> = held.filter(|decision| filter.takes(decision)).collect();
        found.sort_by_key(|decision| Reverse(decision.time));
        found.truncate(limit);
        found
    }

    /// How far the memory of refusals reaches.
    #[must_use]
    pub fn reach(&self) -> Reach {
        let mut reach = Reach { held: 0, capacity: 0, total: 0, since: self.started };
        for ring in self.rings() {
            let held: Vec<_> = ring.refused.all().collect();
            let total = ring.refused.written.load(Ordering::Acquire);
            reach.held += held.len();
            reach.capacity += REFUSALS;
            reach.total += total;
            if total > REFUSALS as u64 {
                let oldest = held.iter().map(|decision| decision.time).min();
                reach.since = reach.since.max(oldest.unwrap_or(reach.since));
            }
        }
        reach
    }

    fn rings(&self) -> Vec<Arc<Ring>> {
        // Held by readers and by workers that start, never by one that serves.
        self.rings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Default for Decisions {
    fn default() -> Self {
        Self::new()
    }
}

impl Ring {
    /// Remembers a decision, in place of the oldest of its sort. For the worker of this ring alone.
    pub fn push(&self, decision: Decision) {
        let slots = if decision.refused { &self.refused } else { &self.passed };
        slots.push(decision);
    }

    fn all(&self) -> impl Iterator<Item = Arc<Decision>> {
        self.refused.all().chain(self.passed.all())
    }
}

impl Filter {
    fn takes(&self, decision: &Decision) -> bool {
        self.status.is_none_or(|status| decision.status == Some(status))
            && self.refused.is_none_or(|refused| decision.refused == refused)
            && self.policy.as_ref().is_none_or(|policy| decision.objects().any(|object| object.is(policy)))
    }
}

#[derive(Debug)]
struct Slots {
    slots: Box<[ArcSwapOption<Decision>]>,
    written: AtomicU64,
}

impl Slots {
    fn new(count: usize) -> Self {
        Self { slots: (0..count).map(|_| ArcSwapOption::empty()).collect(), written: AtomicU64::new(0) }
    }

    fn push(&self, decision: Decision) {
        let written = self.written.load(Ordering::Relaxed);
        let place = written % self.slots.len().max(1) as u64;
        if let Some(slot) = self.slots.get(place as usize) {
            slot.store(Some(Arc::new(decision)));
        }
        self.written.store(written + 1, Ordering::Release);
    }

    fn all(&self) -> impl Iterator<Item = Arc<Decision>> {
        self.slots.iter().filter_map(ArcSwapOption::load_full)
    }
}

#[cfg(test)]
mod tests;
