//! When whom we believe, or who we are, has changed.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

/// Counts the changes of whom we believe and of who we are. A renewal that keeps both is none.
///
/// What was opened in an earlier epoch is judged again, or left behind. Asked for each request, so it is one load.
#[derive(Debug, Default)]
pub struct Epoch {
    number: AtomicU64,
    changed: watch::Sender<()>,
}

impl Epoch {
    /// The number of the epoch. Whoever reads a new one sees what is believed in it.
    #[inline]
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// Tells when another one has begun.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Another one begins. What is believed from now on is in force already.
    pub(super) fn begin(&self) {
        self.number.fetch_add(1, Ordering::Release);
        self.changed.send_replace(());
    }
}
