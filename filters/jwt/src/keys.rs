//! The keys of an issuer, fetched in the background and kept across reloads.
//!
//! A request never fetches. It reads the keys that are there; when its token names an unknown key it asks for a fetch, which whoever fetches
//! does once for all who ask. A failed fetch changes nothing: the last good keys hold until they are [`MAX_AGE`] old.

use crate::jwk::{self, Jwks};
use arc_swap::ArcSwapOption;
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Notify, watch};

/// How long keys hold that could not be fetched again.
pub const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// The least time between two fetches that requests ask for.
pub const ASK_INTERVAL: Duration = Duration::from_secs(10);

/// How long a key that a fetch did not bring is not asked for again.
pub const UNKNOWN_FOR: Duration = Duration::from_secs(300);

/// Unknown keys that are remembered; the oldest is forgotten for a further one.
pub const MAX_UNKNOWN: usize = 256;

/// Requests that may wait at once for the first keys of an issuer.
pub const MAX_WAITING: usize = 1024;

/// The longest body of a key set, in bytes.
pub const MAX_JWKS: usize = 1 << 20;

/// The keys at one `jwksUri` for one issuer. Shared by all rules that name both, whatever the configuration.
#[derive(Debug)]
pub struct KeySet {
    issuer: Box<str>,
    uri: Box<str>,
    held: ArcSwapOption<Held>,
    state: Mutex<State>,
    asked: Arc<Notify>,
    /// Counts the fetches that ended, so that nobody who waits misses one.
    ended: watch::Sender<u64>,
    waiting: AtomicUsize,
    hasher: RandomState,
}

/// Keys that were fetched.
#[derive(Debug)]
pub struct Held {
    /// The keys.
    pub jwks: Jwks,
    /// Counts the times that they changed, from 1. What was verified with another generation has to be verified again.
    pub generation: u64,
    /// When the answer came that they were in, or one that said the same.
    pub fetched: SystemTime,
    text: Box<[u8]>,
}

#[derive(Debug, Default)]
struct State {
    timeout: Duration,
    under_way: bool,
    fetches: u64,
    failures: u64,
    last_error: Option<String>,
    last_asked: Option<Instant>,
    unknown: VecDeque<(u64, Instant)>,
}

/// What is known of a [`KeySet`], for pages and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySetStatus {
    /// Keys that can be used; 0: none are there.
    pub keys: usize,
    /// Keys of the last answer that cannot be used, and why.
    pub refused: Vec<String>,
    /// See [`Held::generation`].
    pub generation: u64,
    /// See [`Held::fetched`].
    pub fetched: Option<SystemTime>,
    /// Fetches that ended.
    pub fetches: u64,
    /// Those of them that failed.
    pub failures: u64,
    /// Why the last fetch failed; `None` when it did not.
    pub last_error: Option<String>,
}

/// A fetch that is under way. Dropped without an answer, it has failed.
#[derive(Debug)]
pub struct Fetch {
    keys: Arc<KeySet>,
    ended: bool,
}

/// What a request can do without keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Without {
    /// The first fetch has not ended: wait for it.
    Wait,
    /// It failed, or too many wait: go without.
    Refuse,
}

impl KeySet {
    pub(crate) fn new(issuer: &str, uri: &str) -> Self {
        Self {
            issuer: issuer.into(),
            uri: uri.into(),
            held: ArcSwapOption::empty(),
            state: Mutex::default(),
            asked: Arc::default(),
            ended: watch::Sender::new(0),
            waiting: AtomicUsize::new(0),
            hasher: RandomState::new(),
        }
    }

    /// Whose keys.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Where they are.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The most time that a fetch may take: that of the rule that was compiled last.
    pub fn timeout(&self) -> Duration {
        self.state().timeout
    }

    pub(crate) fn set_timeout(&self, timeout: Duration) {
        self.state().timeout = timeout;
    }

    /// Told when a request asks for a fetch, and when the set is used no more. Holding it does not keep the set.
    pub fn asked(&self) -> Arc<Notify> {
        self.asked.clone()
    }

    /// The keys, unless they are too old.
    pub fn current(&self, now: SystemTime) -> Option<Arc<Held>> {
        let held = self.held.load();
        let held = held.as_ref()?;
        // A clock that was set back makes them no older.
        let age = now.duration_since(held.fetched).unwrap_or_default();
        (age <= MAX_AGE).then(|| held.clone())
    }

    /// Begins a fetch.
    pub fn begin(self: &Arc<Self>) -> Fetch {
        self.state().under_way = true;
        Fetch { keys: self.clone(), ended: false }
    }

    /// Puts keys in force that an earlier process fetched at `fetched`, unless there are newer ones or these are too old.
    ///
    /// # Errors
    ///
    /// When the text holds no usable keys.
    pub fn restore(&self, text: &[u8], fetched: SystemTime, now: SystemTime) -> Result<bool, String> {
        let newer = self.held.load().as_ref().is_some_and(|held| held.fetched >= fetched);
        if newer || fetched > now || now.duration_since(fetched).unwrap_or_default() > MAX_AGE {
            return Ok(false);
        }
        self.publish(text, fetched)?;
        Ok(true)
    }

    /// What is known of it.
    pub fn status(&self) -> KeySetStatus {
        let held = self.held.load_full();
        let held = held.as_ref();
        let state = self.state();
        KeySetStatus {
            keys: held.map_or(0, |held| held.jwks.len()),
            refused: held.map(|held| held.jwks.refused().to_vec()).unwrap_or_default(),
            generation: held.map_or(0, |held| held.generation),
            fetched: held.map(|held| held.fetched),
            fetches: state.fetches,
            failures: state.failures,
            last_error: state.last_error.clone(),
        }
    }

    /// Asks for a fetch, because a token names a key that is not there. One fetch each [`ASK_INTERVAL`], whatever comes; a key that it did not
    /// bring is not asked for again for a while.
    pub(crate) fn ask_for(&self, id: &str, now: Instant) -> bool {
        let hash = self.hasher.hash_one(id);
        let mut state = self.state();
        if state.under_way || state.last_asked.is_some_and(|last| now.duration_since(last) < ASK_INTERVAL) {
            return false;
        }
        while state.unknown.front().is_some_and(|(_, at)| now.duration_since(*at) >= UNKNOWN_FOR) {
            state.unknown.pop_front();
        }
        if state.unknown.iter().any(|(known, _)| *known == hash) {
            return false;
        }
        if state.unknown.len() == MAX_UNKNOWN {
            state.unknown.pop_front();
        }
        state.unknown.push_back((hash, now));
        state.last_asked = Some(now);
        drop(state);
        self.asked.notify_one();
        true
    }

    /// Asks for a fetch, because there are no keys at all.
    pub(crate) fn ask(&self, now: Instant) {
        let mut state = self.state();
        if state.under_way || state.last_asked.is_some_and(|last| now.duration_since(last) < ASK_INTERVAL) {
            return;
        }
        state.last_asked = Some(now);
        drop(state);
        self.asked.notify_one();
    }

    pub(crate) fn without(&self) -> Without {
        let first = self.state().fetches == 0;
        let room = self.waiting.load(Ordering::Relaxed) < MAX_WAITING;
        if first && room { Without::Wait } else { Without::Refuse }
    }

    /// Resolves when the first fetch has ended, or after `bound`.
    pub(crate) async fn wait(&self, bound: Duration) {
        let _waiting = Waiting::new(&self.waiting);
        let mut ended = self.ended.subscribe();
        // The sender is ours: it cannot be gone. Out of time, the caller looks once more.
        let _ = tokio::time::timeout(bound, ended.wait_for(|count| *count > 0)).await;
    }

    fn publish(&self, text: &[u8], fetched: SystemTime) -> Result<(), String> {
        let old = self.held.load_full();
        let same = old.as_ref().is_some_and(|old| *old.text == *text);
        let generation = old.as_ref().map_or(0, |old| old.generation) + u64::from(!same);
        let jwks = Jwks::parse(text, jwk::Origin::Fetched)?;
        self.held.store(Some(Arc::new(Held { jwks, generation, fetched, text: text.into() })));
        Ok(())
    }

    fn end(&self, error: Option<String>) {
        let mut state = self.state();
        state.under_way = false;
        state.fetches += 1;
        state.failures += u64::from(error.is_some());
        state.last_error = error;
        drop(state);
        self.ended.send_modify(|count| *count += 1);
    }

    // A panic while it was held leaves counters that are at worst one off.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for KeySet {
    fn drop(&mut self) {
        self.asked.notify_one();
    }
}

impl Fetch {
    /// Puts fetched keys in force, from `now` on. A set that cannot be used counts as a failure: the last good one stays.
    ///
    /// # Errors
    ///
    /// Why it cannot be used.
    pub fn succeed(mut self, text: &[u8], now: SystemTime) -> Result<(), String> {
        let result = if text.len() > MAX_JWKS {
            Err(format!("the key set is longer than {MAX_JWKS} bytes"))
        } else {
            self.keys.publish(text, now)
        };
        self.ended = true;
        self.keys.end(result.as_ref().err().cloned());
        result
    }

    /// Keeps what is there, and says why.
    pub fn fail(mut self, error: impl Into<String>) {
        self.ended = true;
        self.keys.end(Some(error.into()));
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        if !self.ended {
            self.keys.end(Some("the fetch was broken off".to_owned()));
        }
    }
}

/// One request that waits.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
