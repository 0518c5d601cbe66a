//! Names, held once where they repeat.

use std::cell::RefCell;
use std::hash::BuildHasher;
use std::sync::Arc;

use rustc_hash::FxBuildHasher;

/// A shared name: of a listener, a route table, a cluster, a workload.
pub type Name = Arc<str>;

/// How many names a thread remembers. What repeats in configurations mostly repeats at once, or everywhere.
const RECENT: usize = 1024;

thread_local! {
    static RECENT_NAMES: RefCell<Vec<Option<Name>>> = RefCell::default();
}

/// A name of this text: the same allocation as a recent one of this thread where there is one.
#[must_use]
pub fn name(text: &str) -> Name {
    RECENT_NAMES.with_borrow_mut(|names| {
        names.resize(RECENT, None);
        let hash = FxBuildHasher.hash_one(text);
        let Some(slot) = names.get_mut(place(hash)) else { return text.into() };
        match slot {
            Some(known) if **known == *text => Arc::clone(known),
            _ => Arc::clone(slot.insert(text.into())),
        }
    })
}

/// Forgets the recent names of this thread, so that they are not held for its sake.
pub fn forget_names() {
    RECENT_NAMES.with_borrow_mut(|names| *names = Vec::new());
}

fn place(hash: u64) -> usize {
    // The remainder is smaller than `RECENT`, so that it fits.
    usize::try_from((hash >> 32) % RECENT as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{forget_names, name};
    use std::sync::Arc;

    #[test]
    fn a_name_that_repeats_is_held_once() {
        let (one, other) = (name("cart"), name("cart"));
        assert!(Arc::ptr_eq(&one, &other));
        for at in 0..10_000 {
            assert_eq!(*name(&format!("s{at}")), format!("s{at}"));
        }
        forget_names();
        assert_eq!(*name("cart"), *one);
    }
}
