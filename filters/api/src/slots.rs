//! Where a filter finds its compiled settings: a fixed place in the port's policy or the matched route.

use crate::Spec;
use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;

/// The compiled settings of all filters for one port or route. A filter that is off has an empty place.
#[derive(Clone)]
pub struct Slots(Arc<[Option<Arc<dyn Any + Send + Sync>>]>);

/// The place of one filter's settings, given out by the table of filters.
pub struct Slot<F> {
    index: usize,
    filter: PhantomData<fn() -> F>,
}

impl Slots {
    /// Empty places for `count` filters.
    pub fn empty(count: usize) -> Self {
        Self((0..count).map(|_| None).collect())
    }

    /// Puts settings at a filter's place; an empty list leaves it off. For use while compiling, before the slots are shared.
    pub fn with<F: Spec>(self, slot: Slot<F>, settings: Vec<F::Compiled>) -> Self {
        if settings.is_empty() {
            return self;
        }
        let mut places: Vec<_> = self.0.iter().cloned().collect();
        if places.len() <= slot.index {
            // Counted too few: settings that silently get lost would leave a filter off.
            places.resize(slot.index + 1, None);
        }
        places[slot.index] = Some(Arc::new(settings));
        Self(places.into())
    }

    /// True when the filter at this place is on.
    #[inline]
    pub fn holds<F>(&self, slot: Slot<F>) -> bool {
        matches!(self.0.get(slot.index), Some(Some(_)))
    }

    /// The settings at a filter's place, in the order in which they apply. `None` also when they are another filter's, which the adapter answers
    /// with a failure.
    #[inline]
    pub fn read<F: Spec>(&self, slot: Slot<F>) -> Option<&Vec<F::Compiled>> {
        match self.0.get(slot.index) {
            Some(Some(settings)) => settings.downcast_ref(),
            _ => None,
        }
    }

    /// The same, to be kept until the exchange ends.
    #[inline]
    pub fn share<F: Spec>(&self, slot: Slot<F>) -> Option<Arc<Vec<F::Compiled>>> {
        match self.0.get(slot.index) {
            Some(Some(settings)) => settings.clone().downcast().ok(),
            _ => None,
        }
    }

    /// True when every filter is off.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

impl std::fmt::Debug for Slots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let live = self.0.iter().filter(|place| place.is_some()).count();
        write!(f, "Slots({live} of {} live)", self.0.len())
    }
}

impl<F> Slot<F> {
    /// The place number `index`.
    pub const fn new(index: usize) -> Self {
        Self { index, filter: PhantomData }
    }
}

impl<F> Clone for Slot<F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F> Copy for Slot<F> {}

impl<F> std::fmt::Debug for Slot<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Slot({})", self.index)
    }
}
