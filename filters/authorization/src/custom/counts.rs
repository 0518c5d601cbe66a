//! What a provider came to.

use super::verdict::{Failure, Verdict};
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of one provider, by what became of questions to it. Outlives reloads; shared by all workers, for a question costs far more than a shared
/// count.
#[derive(Debug)]
pub struct ProviderCounts {
    name: Box<str>,
    counts: [AtomicU64; 8],
}

const ALLOWED: usize = 0;
const DENIED: usize = 1;
const TIMEOUT: usize = 2;
const UNREACHABLE: usize = 3;
const ERROR: usize = 4;
const UNREADABLE: usize = 5;
const PASSED: usize = 6;
const CACHED: usize = 7;

impl ProviderCounts {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.into(), counts: Default::default() }
    }

    /// The provider.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Allowed, denied, timeouts, unreachable, errors, unreadable (or not to be asked); then, of these, requests that passed without a verdict, and
    /// verdicts that were known from before.
    pub fn all(&self) -> [u64; 8] {
        self.counts.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    pub(super) fn verdict(&self, verdict: &Verdict, cached: bool) {
        self.add(if matches!(verdict, Verdict::Allow(_)) { ALLOWED } else { DENIED });
        if cached {
            self.add(CACHED);
        }
    }

    pub(super) fn failure(&self, failure: &Failure, passed: bool) {
        self.add(match failure {
            Failure::Timeout => TIMEOUT,
            Failure::Unreachable(_) => UNREACHABLE,
            Failure::Error(_) => ERROR,
            Failure::Unreadable(_) | Failure::Unaskable(_) => UNREADABLE,
        });
        if passed {
            self.add(PASSED);
        }
    }

    fn add(&self, at: usize) {
        if let Some(count) = self.counts.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}
