//! Ends what is open and would not be let in any more, where an AccessPolicy asks for it (`session.revokeExisting`): TCP connections, tunnels, and
//! requests whose bodies are under way.
//!
//! All of it is judged again when a snapshot or other roots come into force, and in between, since time alone may make the difference. Where no
//! policy revokes, that is one branch. What has to end does so at a moment of its own within a short time, so that not all come back at once, and
//! only if it is still so then.

mod judge;

use super::audit;
use super::connection::Door;
use super::record::Activity;
use super::worker::{Tunnel, Worker};
use crate::snapshot::Snapshot;
use filter_api::{ConnectionFacts, Error, Reason};
use judge::Refused;
use rustc_hash::FxHashMap;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How often all is judged by the time that has passed.
const INTERVAL: Duration = Duration::from_secs(15);

/// So many end in a second, one or two of them at once as well as a few.
const PER_SECOND: u32 = 100;

/// The least and the most time over which ends are spread.
const SPREAD: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// What a worker remembers of it.
#[derive(Debug, Default)]
pub(super) struct Revocation {
    /// Some policy of the snapshot revokes.
    revokes: Cell<bool>,
    judged: Cell<Option<Instant>>,
}

/// Something that is open.
enum Open {
    Connection(Tunnel, Rc<Door>),
    Request(Rc<Activity>, Rc<Door>),
}

impl Revocation {
    /// Learns whether any policy of a snapshot revokes.
    pub(super) fn follow(&self, snapshot: &Snapshot) {
        let mut chains = snapshot.listeners().flat_map(|listener| listener.chains());
        self.revokes.set(chains.any(|chain| judge::revokes(chain)));
    }
}

impl Worker {
    /// Judges all that is open again.
    pub(super) fn rejudge(self: &Rc<Self>) {
        if !self.revocation.revokes.get() {
            return;
        }
        self.revocation.judged.set(Some(Instant::now()));
        let snapshot = self.snapshot().clone();
        let refused: Vec<Open> =
            self.open().into_iter().filter(|open| open.refusal(self, &snapshot).is_some()).collect();
        if refused.is_empty() {
            return;
        }
        tracing::info!(count = refused.len(), "what is open is not allowed any more, and is ended");
        refused.iter().for_each(|open| open.doom(true));
        tokio::task::spawn_local(self.clone().end_spread(refused));
    }

    /// The same, if it is time again.
    pub(super) fn rejudge_in_time(self: &Rc<Self>, now: Instant) {
        if self.revocation.revokes.get()
            && self
                .revocation
                .judged
                .get()
                .is_none_or(|judged| now.saturating_duration_since(judged) >= INTERVAL)
        {
            self.rejudge();
        }
    }

    /// All that is open, but for what is judged to end already.
    fn open(&self) -> Vec<Open> {
        let doors: FxHashMap<*const ConnectionFacts, Rc<Door>> =
            self.doors().into_iter().map(|door| (Arc::as_ptr(&door.facts), door)).collect();
        let connections = self.carried_connections().into_iter();
        let connections = connections.map(|(tunnel, door)| Open::Connection(tunnel, door));
        let requests = self.exchanges_under_way().into_iter().filter_map(|activity| {
            let of_connection = || doors.get(&Arc::as_ptr(&activity.cx()?.connection)).cloned();
            let door = activity.door().cloned().or_else(of_connection)?;
            Some(Open::Request(activity, door))
        });
        connections.chain(requests).filter(|open| !open.is_doomed()).collect()
    }

    async fn end_spread(self: Rc<Self>, refused: Vec<Open>) {
        let (began, spread) = (Instant::now(), spread(refused.len()));
        let millis = u64::try_from(spread.as_millis()).unwrap_or(u64::MAX);
        let mut moments: Vec<(Instant, Open)> = refused
            .into_iter()
            .map(|open| (began + Duration::from_millis(self.random() % millis.max(1)), open))
            .collect();
        moments.sort_unstable_by_key(|(moment, _)| *moment);
        for (moment, open) in moments {
            sleep_until(moment).await;
            let snapshot = self.snapshot().clone();
            match open.refusal(&self, &snapshot) {
                Some(refused) => {
                    self.count_revoked();
                    open.end(&self, refused);
                }
                // The policy was taken back meanwhile, or the exchange is over.
                None => open.doom(false),
            }
        }
    }
}

impl Open {
    fn refusal(&self, worker: &Worker, snapshot: &Snapshot) -> Option<Refused> {
        match self {
            Self::Connection(_, door) => judge::connection(worker, snapshot, door),
            Self::Request(activity, door) => judge::request(worker, snapshot, door, &activity.cx()?),
        }
    }

    fn end(self, worker: &Worker, refused: Refused) {
        let details = format!("{}{{{}}}", Reason::AccessRevoked.details(), refused.details);
        match self {
            Self::Connection(tunnel, door) => {
                tracing::debug!(remote = %door.facts.remote, why = %refused.record.because, "a TCP connection is revoked");
                tunnel.revoke(Error::new(Reason::AccessRevoked).detail(details).record(refused.record));
            }
            Self::Request(activity, door) => {
                tracing::debug!(remote = %door.facts.remote, why = %refused.record.because, "a request is revoked");
                if let Some(cx) = activity.cx() {
                    audit::revoked(worker, &cx);
                    let mut facts = cx.facts.borrow_mut();
                    facts.records.push(refused.record);
                    facts.details = Some(details.into());
                }
                activity.end_for(Reason::AccessRevoked);
            }
        }
    }

    fn doom(&self, doomed: bool) {
        match self {
            Self::Connection(tunnel, _) => tunnel.doom(doomed),
            Self::Request(activity, _) => activity.doom(doomed),
        }
    }

    fn is_doomed(&self) -> bool {
        match self {
            Self::Connection(tunnel, _) => tunnel.is_doomed(),
            Self::Request(activity, _) => activity.is_doomed(),
        }
    }
}

/// Over which time so many ends are spread.
fn spread(count: usize) -> Duration {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    (Duration::from_secs(1) / PER_SECOND).saturating_mul(count).clamp(SPREAD.0, SPREAD.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_end_within_a_second_and_however_many_within_five() {
        for (count, seconds) in [(0, 1), (1, 1), (100, 1), (300, 3), (500, 5), (usize::MAX, 5)] {
            assert_eq!(spread(count), Duration::from_secs(seconds), "{count}");
        }
    }
}
