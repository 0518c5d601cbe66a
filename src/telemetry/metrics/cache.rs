//! A worker's memory of the series it met last.

use std::hash::{Hash, Hasher};
use std::sync::atomic::Ordering;

use rustc_hash::FxHasher;

use super::registry::Series;

const WAYS: usize = 4;

/// A hash table of fixed size: a look-up compares at most four keys, a full set forgets its entries in turn.
#[derive(Debug)]
pub(super) struct Cache<K> {
    sets: Box<[Set<K>]>,
}

#[derive(Debug)]
struct Set<K> {
    ways: [Option<(K, Series)>; WAYS],
    next: usize,
}

impl<K: Hash + Eq> Cache<K> {
    /// A cache of at least `capacity` entries, rounded up to a power of two.
    pub(super) fn new(capacity: usize) -> Self {
        let sets = capacity.div_ceil(WAYS).next_power_of_two();
        Self { sets: (0..sets).map(|_| Set { ways: [const { None }; WAYS], next: 0 }).collect() }
    }

    pub(super) fn find(&self, key: &K) -> Option<&Series> {
        let set = self.sets.get(self.index(key))?;
        set.ways.iter().flatten().find(|(known, _)| known == key).map(|(_, series)| series)
    }

    pub(super) fn insert(&mut self, key: K, series: Series) {
        let index = self.index(&key);
        let Some(set) = self.sets.get_mut(index) else { return };
        let next = set.next;
        if let Some(way) = set.ways.get_mut(next) {
            *way = Some((key, series));
            set.next = (next + 1) % WAYS;
        }
    }

    /// Forgets the series whose labels are no longer current.
    pub(super) fn purge(&mut self) {
        for way in self.sets.iter_mut().flat_map(|set| &mut set.ways) {
            if way.as_ref().is_some_and(|(_, series)| series.life.stale.load(Ordering::Relaxed)) {
                *way = None;
            }
        }
    }

    fn index(&self, key: &K) -> usize {
        let mut hasher = FxHasher::default();
        key.hash(&mut hasher);
        // The upper bits of this hash are the better mixed ones.
        (hasher.finish() >> 32) as usize & (self.sets.len() - 1)
    }
}
