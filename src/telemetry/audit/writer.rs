//! The thread that writes an audit.

use super::chain::Head;
use super::event::{Event, Start};
use super::file::{Found, LogFile, Trouble};
use super::metrics::AuditMetrics;
use super::{Counts, Message, Queued, Ticket};
use crate::mesh;
use crate::telemetry::timestamp::Timestamps;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Semaphore;

/// Records that are written at once.
const BATCH: usize = 256;
/// How often metrics are told, a file that cannot be written is tried again, and with `sync: Interval` the disk is asked to have it all.
const TICK: Duration = Duration::from_secs(1);
/// A file that cannot be opened is tried again after this, so that whoever waits for it waits no longer than needed.
const RETRY: Duration = Duration::from_millis(200);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Writer {
    policy: Arc<mesh::Audit>,
    places: Arc<Semaphore>,
    counts: Arc<Counts>,
    metrics: Arc<AuditMetrics>,
    file: Option<LogFile>,
    head: Head,
    /// Where the chain stood when the file was last known to hold all of it: it goes on there whatever happens to the file.
    known: bool,
    pending: VecDeque<Queued>,
    /// Written, but perhaps not on disk, where the policy asks for that.
    unproven: Vec<Queued>,
    stamps: Timestamps,
    lines: Vec<u8>,
    /// Taken out of circulation while nothing can be written.
    withheld: usize,
    /// What the last failure was; `None`: there is none.
    failing: Option<String>,
    unsynced: Option<Instant>,
    told: Told,
}

/// What records and metrics have said of the counts.
#[derive(Debug, Default)]
struct Told {
    /// In a `Gap` record.
    gap: (u64, u64),
    /// In metrics.
    counted: (u64, u64),
}

impl Writer {
    pub(super) fn new(
        policy: Arc<mesh::Audit>,
        places: Arc<Semaphore>,
        counts: Arc<Counts>,
        metrics: Arc<AuditMetrics>,
    ) -> Self {
        Self {
            policy,
            places,
            counts,
            metrics,
            file: None,
            head: Head::default(),
            known: false,
            pending: VecDeque::new(),
            unproven: Vec::new(),
            stamps: Timestamps::default(),
            lines: Vec::new(),
            withheld: 0,
            failing: None,
            unsynced: None,
            told: Told::default(),
        }
    }

    /// Opens the file and writes that it begins.
    pub(super) fn begin(&mut self) {
        self.work();
    }

    /// Writes until nobody has anything to write any more. False when not all is on disk then.
    pub(super) fn run(mut self, queue: &Receiver<Message>) -> bool {
        loop {
            match queue.recv_timeout(self.patience()) {
                Ok(message) => {
                    let mut next = Some(message);
                    while let Some(message) = next {
                        match message {
                            Message::Event(event) => self.pending.push_back(event),
                            Message::Policy(policy) => self.follow(policy),
                        }
                        next = if self.pending.len() < BATCH { queue.try_recv().ok() } else { None };
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.end(),
            }
            self.work();
        }
    }

    fn patience(&self) -> Duration {
        if self.failing.is_some() { RETRY } else { TICK }
    }

    fn follow(&mut self, policy: Arc<mesh::Audit>) {
        if let Some(file) = &mut self.file {
            file.keep(policy.keep);
        }
        self.policy = policy;
    }

    /// Writes what is there, as far as that is possible.
    fn work(&mut self) {
        self.note_gap();
        match self.write() {
            Ok(()) => self.recover(),
            Err(trouble) => self.fail(&trouble),
        }
        let waiting = self.pending.len() as u64;
        self.metrics.set(AuditMetrics::WAITING, waiting);
        self.metrics.set(AuditMetrics::UP, u64::from(self.failing.is_none()));
        self.metrics.set(AuditMetrics::SEQUENCE, self.head.sequence);
        let (refused, missed) = self.losses();
        self.metrics.add(AuditMetrics::REFUSED, refused - self.told.counted.0);
        self.metrics.add(AuditMetrics::MISSED, missed - self.told.counted.1);
        self.told.counted = (refused, missed);
    }

    fn losses(&self) -> (u64, u64) {
        (self.counts.refused.load(Ordering::Relaxed), self.counts.missed.load(Ordering::Relaxed))
    }

    /// Puts a record of what has none behind all others, once there is a file for it.
    fn note_gap(&mut self) {
        let now = self.losses();
        if now != self.told.gap && self.failing.is_none() {
            let event = Event::Gap { refused: now.0 - self.told.gap.0, missed: now.1 - self.told.gap.1 };
            self.told.gap = now;
            self.pending.push_back(ours(event, &self.counts));
        }
    }

    fn write(&mut self) -> Result<(), Trouble> {
        let checked = self.file.as_ref().map(LogFile::check);
        match checked {
            Some(Ok(())) => {}
            Some(Err(Trouble::Gone)) => {
                tracing::error!(path = %self.policy.path.display(), "the audit was moved or removed; another file is begun");
                self.file = None;
                self.open()?;
                self.first(Event::Rotated { reason: "the file before was moved or removed" });
            }
            Some(Err(trouble)) => return Err(trouble),
            None => {
                let found = self.open()?;
                if let Some(found) = found {
                    self.first(Event::Start(start(&found)));
                }
            }
        }
        while !self.pending.is_empty() {
            self.write_batch()?;
        }
        if !self.unproven.is_empty() || self.unsynced.is_some_and(|since| since.elapsed() >= TICK) {
            self.sync()?;
        }
        Ok(())
    }

    /// Opens the file. What it held is returned when it is the first time; later the chain goes on from where it stands.
    fn open(&mut self) -> Result<Option<Found>, Trouble> {
        let (mut file, found) = LogFile::open(&self.policy.path, self.policy.keep)?;
        if let Some((bytes, _)) = found.torn {
            tracing::warn!(path = %self.policy.path.display(), bytes, "the audit ended within a record, which is cut off");
        }
        if found.damaged {
            tracing::error!(path = %self.policy.path.display(), "the last record of the audit is damaged; the file is set aside, and a chain begun anew");
        }
        let first = !std::mem::replace(&mut self.known, true);
        if first {
            self.head = found.head;
        } else if found.head != self.head && file.length() > 0 {
            // Not where we left off: whatever it is, it is none of ours.
            file.rotate()?;
        }
        self.file = Some(file);
        Ok(first.then_some(found))
    }

    /// Writes some of what waits, and only then forgets it.
    fn write_batch(&mut self) -> Result<(), Trouble> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut head = self.head;
        let (mut count, mut full) = (0, false);
        self.lines.clear();
        for queued in self.pending.iter().take(BATCH) {
            let (before, stamps) = (self.lines.len(), &mut self.stamps);
            let next = head.append(&mut self.lines, |out| queued.event.write(queued.time, stamps, out));
            let size = file.length() + self.lines.len() as u64;
            // A file holds one record at least, however small it may be.
            if size > self.policy.max_size && file.length() + before as u64 > 0 {
                self.lines.truncate(before);
                full = true;
                break;
            }
            (head, count) = (next, count + 1);
        }
        if count > 0 {
            file.append(&self.lines)?;
            self.head = head;
            self.counts.state().head = head;
            self.unsynced.get_or_insert_with(Instant::now);
            self.counts.waiting.fetch_sub(count, Ordering::Relaxed);
            self.metrics.add(AuditMetrics::RECORDS, count as u64);
            let written = self.pending.drain(..count);
            if self.policy.sync_always {
                self.unproven.extend(written);
                self.sync()?;
            }
        }
        let Some(file) = self.file.as_mut().filter(|_| full) else { return Ok(()) };
        file.rotate()?;
        self.first(Event::Rotated { reason: "the file before was full" });
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Trouble> {
        if let Some(file) = &self.file {
            file.sync()?;
        }
        self.unsynced = None;
        self.unproven.clear();
        Ok(())
    }

    /// Puts an event before all that wait.
    fn first(&mut self, event: Event) {
        self.pending.push_front(ours(event, &self.counts));
    }

    /// Writes what is left, and the end. Gives up after some time.
    fn end(mut self) -> bool {
        let began = Instant::now();
        let reason = self.counts.state().reason;
        self.note_gap();
        self.pending.push_back(ours(Event::Stop { reason }, &self.counts));
        loop {
            match self.write().and_then(|()| self.sync()) {
                Ok(()) => return true,
                Err(trouble) => self.fail(&trouble),
            }
            if began.elapsed() >= super::PATIENCE {
                return false;
            }
            std::thread::park_timeout(RETRY);
        }
    }

    /// Nothing can be written: no place is given out, as if all were taken.
    fn fail(&mut self, trouble: &Trouble) {
        self.metrics.add(AuditMetrics::FAILURES, 1);
        self.withheld += self.places.forget_permits(super::PLACES);
        let text = trouble.to_string();
        if self.failing.as_ref() != Some(&text) {
            let full = if self.policy.deny_when_full { "refused" } else { "held" };
            tracing::error!(path = %self.policy.path.display(), error = text, "the audit cannot be written; requests that need a record are {full}");
        }
        self.counts.state().problem = Some(text.clone());
        self.failing = Some(text);
        // Opened anew: what the file holds is looked at again.
        self.file = None;
    }

    fn recover(&mut self) {
        if self.failing.take().is_some() {
            tracing::info!(path = %self.policy.path.display(), "the audit is written again");
        }
        self.counts.state().problem = None;
        self.places.add_permits(std::mem::take(&mut self.withheld));
    }
}

/// An event of the writer's own, which takes nobody's place.
fn ours(event: Event, counts: &Counts) -> Queued {
    counts.waiting.fetch_add(1, Ordering::Relaxed);
    Queued { time: SystemTime::now(), event, _place: Ticket::Other(Arc::new(AtomicUsize::new(1))) }
}

fn start(found: &Found) -> Start {
    Start {
        version: env!("CARGO_PKG_VERSION"),
        process: std::process::id(),
        after: match found {
            Found { damaged: true, .. } => "Damage",
            Found { head: Head { sequence: 0, .. }, .. } => "Nothing",
            Found { stopped: true, torn: None, .. } => "Stop",
            _ => "Crash",
        },
        torn: found.torn,
    }
}
