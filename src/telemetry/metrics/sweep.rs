//! Gives back the cells of series that nobody uses any more.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::istio::PartInner;
use super::registry::{Entry, Registry, lock};

impl Registry {
    /// Retires series without a user and frees those retired for the grace period. To be called at every scrape or
    /// on a slow timer of the control side.
    ///
    /// A series is in use while somebody holds its handle, and one made of parts while all of its parts are held.
    /// Its cells are reused only once no handle is left, so a late count can never land in another series.
    pub fn sweep(&self, now: Instant) {
        let mut freed = Vec::new();
        let mut any_stale = false;
        let mut state = lock(&self.state);
        state.parts.retain(|_, part| part.strong_count() > 0);
        state.series.retain(|_, entry| {
            let gone = entry.anchors.iter().any(is_gone);
            any_stale |= gone && !entry.series.life.stale.swap(gone, Ordering::Relaxed);
            if entry.is_used(gone) {
                entry.unused_since = None;
                return true;
            }
            let since = *entry.unused_since.get_or_insert(now);
            // `get_mut` succeeds for the last handle only, and sees everything counted through the others.
            let free = now.saturating_duration_since(since) >= self.limits.grace
                && Arc::get_mut(&mut entry.series.life).is_some();
            if free {
                freed.push((entry.series.cell, entry.bundle.width()));
            }
            !free
        });
        let slabs = lock(&self.slabs).clone();
        for (cell, width) in freed {
            slabs.iter().for_each(|slab| slab.clear(cell, width));
            state.free.entry(width).or_default().push(cell);
        }
        if any_stale {
            self.stale_epoch.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Entry {
    fn is_used(&self, part_gone: bool) -> bool {
        let kept_by_parts = !self.anchors.is_empty() && !part_gone;
        kept_by_parts || Arc::strong_count(&self.series.life) > 1
    }
}

fn is_gone(part: &Weak<PartInner>) -> bool {
    part.strong_count() == 0
}
