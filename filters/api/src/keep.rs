//! State of filters that outlives a reload: limiters, key sets, caches.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Hands out shared state by type and key. The same key gives the same state for as long as something holds it: a new configuration is compiled
/// while the last one is still in force, so state that both name is carried over, and what nobody names any more is freed.
#[derive(Default)]
pub struct Keep(Mutex<HashMap<Key, Weak<dyn Any + Send + Sync>>>);

type Key = (TypeId, Box<str>);

impl Keep {
    /// The state of this type and key; made when there is none. For compiling, not for the data path: it locks.
    pub fn share<T: Any + Send + Sync>(&self, key: &str, make: impl FnOnce() -> T) -> Arc<T> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (TypeId::of::<T>(), Box::from(key));
        if let Some(found) = kept.get(&place).and_then(Weak::upgrade).and_then(|found| found.downcast().ok())
        {
            return found;
        }
        let made = Arc::new(make());
        kept.retain(|_, state| state.strong_count() > 0);
        let erased: Arc<dyn Any + Send + Sync> = made.clone();
        kept.insert(place, Arc::downgrade(&erased));
        made
    }

    /// All state of this type that is in use, in no order.
    pub fn all<T: Any + Send + Sync>(&self) -> Vec<Arc<T>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.values().filter_map(|state| state.upgrade()?.downcast().ok()).collect()
    }
}

impl fmt::Debug for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_set().entries(kept.keys().map(|(_, key)| key)).finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::Keep;
    use std::sync::Arc;

    #[test]
    fn state_is_shared_by_type_and_key_while_it_is_held() {
        let keep = Keep::default();
        let first = keep.share("a", || 1_u32);
        assert!(Arc::ptr_eq(&first, &keep.share("a", || 2_u32)));
        assert_eq!(*keep.share("b", || 3_u32), 3);
        assert_eq!(*keep.share("a", || 4_u64), 4, "another type");
        assert_eq!(keep.all::<u32>(), std::slice::from_ref(&first), "what nobody holds is gone");
        drop(first);
        assert_eq!(*keep.share("a", || 5_u32), 5);
    }
}
