//! The audit: who was refused, who was let in and what was changed, one record each, in a file that shows whether anybody changed it later.
//!
//! Unlike the access log it loses nothing in silence. A request that may need a record takes a [`Place`] in the bounded queue before it goes on, and
//! keeps it until its event is there: writing the event can then not fail. Without a free place it waits or is refused, as the policy says. A file
//! that cannot be written counts as a full queue: its events are kept and tried again, and no place is given out meanwhile. Events that no
//! request waits for (configurations, certificates, admin calls) have a queue of their own; what does not fit into that is counted in a `Gap`
//! record.
//!
//! What a chain of hashes cannot show: whoever may write the file can write all of it anew, hashes included, or cut off its end. Both are found by
//! a head that was noted elsewhere: `/audit` of the admin interface shows it, `sidegate audit verify --expect-head` compares it.

mod chain;
mod event;
mod file;
mod metrics;
mod writer;

pub mod fuzz;
pub mod verify;

#[cfg(test)]
mod tests;

pub use chain::{Flaw, Hash, Head, Link, VERSION};
pub use event::{Access, Call, Certificate, Change, Event, Start};

use crate::mesh;
use crate::telemetry::metrics::Registry;
use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use metrics::AuditMetrics;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use writer::Writer;

/// Requests that may need a record and have none yet, of all workers: under way, or waiting for the disk.
pub const PLACES: usize = 16 * 1024;
/// Events that no request waits for.
const OTHERS: usize = 1024;
/// For what is left to be written when an audit ends.
const PATIENCE: Duration = Duration::from_secs(5);

/// The audit of a process: the log that a policy asks for, if there is one.
#[derive(Debug)]
pub struct Auditor {
    log: ArcSwapOption<AuditLog>,
    metrics: Arc<AuditMetrics>,
}

/// One audit file, for all threads.
#[derive(Debug)]
pub struct AuditLog {
    path: PathBuf,
    policy: ArcSwap<mesh::Audit>,
    places: Arc<Semaphore>,
    others: Arc<AtomicUsize>,
    queue: Sender<Message>,
    counts: Arc<Counts>,
    /// Says, when the last place is given back and the file is closed, whether it has all.
    done: Mutex<Option<Receiver<bool>>>,
}

/// A place in the queue of an audit: the right to write one event.
#[derive(Debug)]
pub struct Place {
    /// Until the event is written.
    permit: Option<OwnedSemaphorePermit>,
    log: Arc<AuditLog>,
}

/// Where an audit stands, for `/audit`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The file.
    pub path: PathBuf,
    /// The policy.
    pub policy: String,
    /// Number of the last record.
    pub sequence: u64,
    /// Its hash: noted elsewhere, it shows later whether the records up to it are still there.
    pub head: String,
    /// Events that are not written yet.
    pub waiting: usize,
    /// Places that requests can still take.
    pub free: usize,
    /// Requests that were refused because they could not be recorded.
    pub refused: u64,
    /// Other events that have no record of their own.
    pub missed: u64,
    /// Why it cannot be written now.
    pub problem: Option<String>,
}

/// What the writer and its users tell each other.
#[derive(Debug, Default)]
struct Counts {
    refused: AtomicU64,
    missed: AtomicU64,
    waiting: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    head: Head,
    problem: Option<String>,
    /// Why it ends, once it does.
    reason: &'static str,
}

#[derive(Debug)]
enum Message {
    Event(Queued),
    Policy(Arc<mesh::Audit>),
}

#[derive(Debug)]
struct Queued {
    time: SystemTime,
    event: Event,
    /// Given back when the event is written.
    _place: Ticket,
}

#[derive(Debug)]
enum Ticket {
    Place { _permit: OwnedSemaphorePermit },
    Other(Arc<AtomicUsize>),
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Self::Other(count) = self {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Auditor {
    /// One that records nothing yet.
    #[must_use]
    pub fn new(registry: &Arc<Registry>) -> Self {
        Self { log: ArcSwapOption::empty(), metrics: Arc::new(AuditMetrics::new(registry)) }
    }

    /// The log in use.
    #[inline]
    pub fn log(&self) -> Guard<Option<Arc<AuditLog>>> {
        self.log.load()
    }

    /// Follows the policy in force. A change of the file ends one chain and begins or continues another; requests under way are recorded where they began. Blocks while files are
    /// opened.
    ///
    /// # Errors
    /// When the thread that writes cannot be started. A file that cannot be opened is no error here: it is tried again and again.
    pub fn follow(&self, policy: Option<&mesh::Audit>, missing: usize) -> std::io::Result<()> {
        self.metrics.set(AuditMetrics::MISSING, missing as u64);
        let current = self.log.load_full();
        if let (Some(current), Some(policy)) = (&current, policy)
            && current.path == policy.path
        {
            current.set_policy(policy);
            return Ok(());
        }
        let next = policy.map(|policy| AuditLog::open(policy, self.metrics.clone())).transpose()?;
        self.log.store(next.map(Arc::new));
        if let Some(current) = current {
            current.counts.state().reason = "the policy asks for it no more";
        }
        if policy.is_none() {
            self.metrics.set(AuditMetrics::UP, 0);
        }
        Ok(())
    }

    /// Records something that no request waits for, where the policy asks for it.
    pub fn note(&self, event: Event) {
        if let Some(log) = &*self.log.load() {
            log.note(event);
        }
    }

    /// Writes what is left. For the end of the process, when no request is under way any more; blocks.
    pub fn end(&self, reason: &'static str) {
        let Some(log) = self.log.swap(None) else { return };
        log.counts.state().reason = reason;
        let (counts, path) = (log.counts.clone(), log.path.clone());
        let done = log.done.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(log);
        if done.is_none_or(|done| done.recv_timeout(2 * PATIENCE) != Ok(true)) {
            let lost = counts.waiting.load(Ordering::Relaxed);
            tracing::error!(path = %path.display(), lost, "the audit ends without all of its records");
        }
    }

    /// Where it stands; `None` without a policy.
    pub fn status(&self) -> Option<Status> {
        self.log.load().as_ref().map(|log| log.status())
    }
}

impl AuditLog {
    fn open(policy: &mesh::Audit, metrics: Arc<AuditMetrics>) -> std::io::Result<Self> {
        let (queue, events) = channel();
        let counts = Arc::<Counts>::default();
        let places = Arc::new(Semaphore::new(PLACES));
        let policy = Arc::new(policy.clone());
        let mut writer = Writer::new(policy.clone(), places.clone(), counts.clone(), metrics);
        // Here and not on its own thread: a file that cannot be opened is known before the first request asks.
        writer.begin();
        let (ended, done) = sync_channel(1);
        let write = move || {
            // Nobody waits for it when a policy, and not the process, has ended.
            let _ = ended.try_send(writer.run(&events));
        };
        std::thread::Builder::new().name("audit".to_owned()).spawn(write)?;
        Ok(Self {
            path: policy.path.clone(),
            policy: ArcSwap::new(policy),
            places,
            others: Arc::default(),
            queue,
            counts,
            done: Mutex::new(Some(done)),
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a request that was let in is among those that are recorded; `random` is any number.
    #[must_use]
    pub fn samples(&self, random: u64) -> bool {
        let percent = self.policy.load().allowed_percent;
        // 53 bits are all that a float can hold.
        percent >= 100.0 || (random >> 11) as f64 / (1_u64 << 53) as f64 * 100.0 < percent
    }

    /// A place, if one is free.
    #[must_use]
    pub fn try_take(self: &Arc<Self>) -> Option<Place> {
        let permit = Some(self.places.clone().try_acquire_owned().ok()?);
        Some(Place { permit, log: self.clone() })
    }

    /// Whether who finds no free place is refused at once, and does not wait.
    #[must_use]
    pub fn denies_when_full(&self) -> bool {
        self.policy.load().deny_when_full
    }

    /// Waits for a place; first come, first served.
    pub async fn take(self: Arc<Self>) -> Place {
        match self.places.clone().acquire_owned().await {
            Ok(permit) => Place { permit: Some(permit), log: self },
            // The places are never closed.
            Err(_) => std::future::pending().await,
        }
    }

    /// Counts a request that was refused because it could not be recorded.
    pub fn count_refused(&self) {
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an event that has no record of its own.
    pub fn count_missed(&self) {
        self.counts.missed.fetch_add(1, Ordering::Relaxed);
    }

    fn note(&self, event: Event) {
        let policy = self.policy.load();
        let asked = match &event {
            Event::Configuration(_) => policy.configuration,
            Event::Certificate(_) => policy.certificate,
            Event::Admin(_) => policy.admin,
            _ => true,
        };
        if !asked {
            return;
        }
        let ticket = Ticket::Other(self.others.clone());
        // The ticket gives back what it did not get, too.
        if self.others.fetch_add(1, Ordering::Relaxed) >= OTHERS {
            return self.count_missed();
        }
        self.counts.waiting.fetch_add(1, Ordering::Relaxed);
        let queued = Queued { time: SystemTime::now(), event, _place: ticket };
        if self.queue.send(Message::Event(queued)).is_err() {
            self.count_missed();
        }
    }

    fn set_policy(&self, policy: &mesh::Audit) {
        if **self.policy.load() != *policy {
            let policy = Arc::new(policy.clone());
            self.policy.store(policy.clone());
            // A writer that is gone has ended in a panic, which was said.
            let _ = self.queue.send(Message::Policy(policy));
        }
    }

    fn status(&self) -> Status {
        let state = self.counts.state();
        Status {
            path: self.path.clone(),
            policy: self.policy.load().origin.to_string(),
            sequence: state.head.sequence,
            head: state.head.hash.to_string(),
            waiting: self.counts.waiting.load(Ordering::Relaxed),
            free: self.places.available_permits(),
            refused: self.counts.refused.load(Ordering::Relaxed),
            missed: self.counts.missed.load(Ordering::Relaxed),
            problem: state.problem.clone(),
        }
    }
}

impl Place {
    /// Writes the event that the place was taken for. Never waits.
    pub fn write(mut self, event: Event) {
        let (Some(permit), log) = (self.permit.take(), &self.log) else { return };
        log.counts.waiting.fetch_add(1, Ordering::Relaxed);
        let queued = Queued { time: SystemTime::now(), event, _place: Ticket::Place { _permit: permit } };
        if log.queue.send(Message::Event(queued)).is_err() {
            // The writer waits for us; it is gone only after a panic.
            tracing::error!(path = %log.path.display(), "an event is not recorded: the thread that writes the audit is gone");
        }
    }
}

/// Whoever took it went away with its event unwritten: a connection that was cut off while its endpoint was called.
impl Drop for Place {
    fn drop(&mut self) {
        if self.permit.is_some() {
            self.log.count_missed();
        }
    }
}

impl Counts {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
