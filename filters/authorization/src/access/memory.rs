//! Which sources were let in before, and which were refused of late. Bounded, without locks.

use filter_api::{ConnectionFacts, Principal};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Who a request comes from, as a digest under a key of this process: nobody outside can tell which sources share a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Source(u64);

/// What is remembered of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    /// It was let in before.
    pub(crate) known: bool,
    /// How often it was refused; a refusal counts half after [`HALF_LIFE`].
    pub(crate) failures: f32,
}

/// Remembers up to 16,384 sources, for [`REMEMBERED`] after the last that was heard of them. Shared by all workers, and by policies of one name
/// over reloads; a restart forgets.
///
/// A source has one of eight places; where all are taken, the one goes that was not refused and was silent for longest. What is forgotten is new
/// again, which is the safe side.
#[derive(Debug)]
pub(crate) struct Memory(Box<[Set]>);

/// Eight entries are one cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Set([AtomicU64; WAYS]);

const WAYS: usize = 8;
const SETS: usize = 2_048;
/// How long a source is remembered that is not heard of.
pub(crate) const REMEMBERED: Duration = Duration::from_hours(7 * 24);
/// After this time a refusal counts half.
pub(crate) const HALF_LIFE: Duration = Duration::from_mins(5);

/// How often a change is tried again that another worker came before.
const TRIES: usize = 8;

impl Source {
    /// The peer, by its identity or else its address; with it the client that it speaks for (`x-forwarded-for`), so that nobody can pass for the
    /// client of another peer. Of an IPv6 address the first 64 bits count: the rest is its owner's to choose.
    pub(crate) fn new(connection: &ConnectionFacts, principal: Option<&Principal>, client: IpAddr) -> Self {
        static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let (peer, client) = (connection.remote.ip().to_canonical(), client.to_canonical());
        let address = if principal.is_some() { None } else { Some(network(peer)) };
        let spoken_for = (client != peer).then(|| network(client));
        Self(KEY.hash_one((principal.map(Principal::as_str), address, spoken_for)))
    }

    /// To be kept until the answer comes.
    pub(crate) fn digest(self) -> u64 {
        self.0
    }

    /// What was kept.
    pub(crate) fn from_digest(digest: u64) -> Self {
        Self(digest)
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self((0..SETS).map(|_| Set::default()).collect())
    }
}

impl Memory {
    /// What is remembered of a source.
    pub(crate) fn look(&self, source: Source, now: SystemTime) -> Seen {
        let tick = tick(now);
        let mark = mark(source);
        let entries = self.set(source).0.iter().map(|entry| Entry(entry.load(Ordering::Relaxed)));
        entries
            .filter(|entry| entry.mark() == mark && !entry.is_over(tick))
            .map(|entry| Seen { known: entry.known(), failures: entry.failures(tick) })
            .next()
            .unwrap_or_default()
    }

    /// The source was let in.
    pub(crate) fn allow(&self, source: Source, now: SystemTime) {
        self.change(source, now, |seen| Seen { known: true, ..seen });
    }

    /// The source was refused.
    pub(crate) fn fail(&self, source: Source, now: SystemTime) {
        self.change(source, now, |seen| Seen { failures: seen.failures + 1.0, ..seen });
    }

    fn set(&self, source: Source) -> &Set {
        // The low bits choose the set, the high ones are the mark.
        #[allow(clippy::cast_possible_truncation, reason = "less than the number of sets")]
        &self.0[(source.0 % SETS as u64) as usize]
    }

    fn change(&self, source: Source, now: SystemTime, change: impl Fn(Seen) -> Seen) {
        let (tick, mark) = (tick(now), mark(source));
        let set = self.set(source);
        for _ in 0..TRIES {
            let mut chosen: Option<(&AtomicU64, Entry)> = None;
            for place in &set.0 {
                let entry = Entry(place.load(Ordering::Relaxed));
                if entry.mark() == mark {
                    chosen = Some((place, entry));
                    break;
                }
                if chosen.as_ref().is_none_or(|(_, other)| entry.worth(tick) < other.worth(tick)) {
                    chosen = Some((place, entry));
                }
            }
            let Some((place, before)) = chosen else { return };
            let seen = if before.mark() == mark && !before.is_over(tick) {
                Seen { known: before.known(), failures: before.failures(tick) }
            } else {
                Seen::default()
            };
            let after = Entry::new(mark, tick, change(seen));
            // Most requests find nothing to change, and write nothing.
            if after == before
                || place.compare_exchange(before.0, after.0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
            {
                return;
            }
        }
    }
}

/// Everything of a source in one word, so that no two parts of it can be of different sources: 32 bits of its digest, 20 of the time, whether it is
/// known, 11 of refusals in 64ths. 0 is empty.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry(u64);

const TIME: u32 = 12;
const TIME_BITS: u64 = (1 << 20) - 1;
const KNOWN: u64 = 1 << 11;
const FAILURES: u64 = KNOWN - 1;
/// Refusals are counted in parts of this.
const PARTS: f32 = 64.0;
/// The unit of time, in seconds.
const TICK: u64 = 64;

impl Entry {
    fn new(mark: u32, tick: u64, seen: Seen) -> Self {
        let parts = (seen.failures * PARTS).round().clamp(0.0, FAILURES as f32);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded by the clamp")]
        let parts = parts as u64;
        Self(u64::from(mark) << 32 | tick << TIME | if seen.known { KNOWN } else { 0 } | parts)
    }

    fn mark(self) -> u32 {
        #[allow(clippy::cast_possible_truncation, reason = "the upper half")]
        let mark = (self.0 >> 32) as u32;
        mark
    }

    fn known(self) -> bool {
        self.0 & KNOWN != 0
    }

    /// Time since the last change, in ticks. A clock that was put back has let no time pass.
    fn age(self, tick: u64) -> u64 {
        let age = tick.wrapping_sub(self.0 >> TIME) & TIME_BITS;
        if age > TIME_BITS / 2 { 0 } else { age }
    }

    fn is_over(self, tick: u64) -> bool {
        self.age(tick) * TICK > REMEMBERED.as_secs()
    }

    fn failures(self, tick: u64) -> f32 {
        #[allow(clippy::cast_precision_loss, reason = "11 and 26 bits")]
        let (parts, age) = ((self.0 & FAILURES) as f32, (self.age(tick) * TICK) as f32);
        parts / PARTS * 0.5_f32.powf(age / HALF_LIFE.as_secs_f32())
    }

    /// What is kept longest is worth most: an empty place nothing, one of a source that was refused more than any other.
    fn worth(self, tick: u64) -> (u8, u64) {
        let kind = match self {
            Self(0) => 0,
            _ if self.is_over(tick) => 1,
            _ if self.failures(tick) < 0.5 => 2,
            _ => 3,
        };
        (kind, TIME_BITS - self.age(tick))
    }
}

fn network(address: IpAddr) -> (bool, u64) {
    match address {
        IpAddr::V4(address) => (false, u64::from(address.to_bits())),
        #[allow(clippy::cast_possible_truncation, reason = "the upper half")]
        IpAddr::V6(address) => (true, (address.to_bits() >> 64) as u64),
    }
}

/// The part of the digest that tells sources of one set apart; never that of an empty place.
fn mark(source: Source) -> u32 {
    #[allow(clippy::cast_possible_truncation, reason = "the upper half")]
    let mark = (source.0 >> 32) as u32;
    mark.max(1)
}

fn tick(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() / TICK) & TIME_BITS
}

#[cfg(test)]
mod tests;
