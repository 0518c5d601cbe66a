//! How long a server keeps an idle connection, as far as it shows.

use std::time::Duration;
use tokio::time::Instant;

/// What is known of it.
///
/// A server that closes an idle connection may do so because its time is up, or because it goes away; and of one that goes away nothing can be learned. So one
/// close says nothing yet: a second one after the same time has to agree. A connection that served a request after a longer time refutes both, closes at one
/// moment of connections that had rested for different times are a restart, and every belief lapses: connections that we close ourselves before their time cannot
/// tell that it has become longer.
#[derive(Debug, Default)]
pub(super) struct IdleTime {
    /// As its last answer said (`Keep-Alive: timeout`).
    told: Option<Duration>,
    /// What two closes agreed on, and when the second one came.
    believed: Option<(Duration, Instant)>,
    /// What the last close would mean.
    guess: Option<Duration>,
    last_close: Option<Instant>,
}

/// Below that the pool would be of no use; a close so soon is a race like any other, and safe requests are sent again.
const LEAST: Duration = Duration::from_millis(100);

/// Closes within this time are one event.
const BURST: Duration = Duration::from_millis(50);

/// A belief holds for so many times what it says, but not shorter than [`HOLDS_AT_LEAST`].
const HOLDS: u32 = 60;

const HOLDS_AT_LEAST: Duration = Duration::from_secs(30);

/// A connection is not used in the last part of the time after which its server closes it: the request could cross the FIN.
const SAFETY: f64 = 0.9;

impl IdleTime {
    /// A request was answered, on a connection that had rested for `idle` if it was not new. `told`: what the answer says of the server's patience.
    pub(super) fn answered(&mut self, told: Option<Duration>, idle: Option<Duration>) {
        self.told = told.filter(|told| *told >= LEAST);
        let Some(idle) = idle else { return };
        if self.guess.is_some_and(|guess| guess < idle) {
            self.guess = None;
        }
        if self.believed.is_some_and(|(believed, _)| believed < idle) {
            self.believed = None;
        }
    }

    /// The server closed a connection that had rested for `idle`.
    pub(super) fn closed(&mut self, idle: Duration, now: Instant) {
        if idle < LEAST {
            return;
        }
        let burst = self.last_close.replace(now).is_some_and(|last| now - last < BURST);
        match self.guess {
            Some(guess) if burst && !agree(guess, idle) => self.forget(),
            Some(guess) if !burst && agree(guess, idle) => {
                self.believed = Some((guess.min(idle), now));
                self.guess = Some(idle);
            }
            Some(_) if burst => {}
            _ => self.guess = Some(idle),
        }
    }

    /// The server was away: another one may have come back.
    pub(super) fn forget(&mut self) {
        let last_close = self.last_close;
        *self = Self { last_close, ..Self::default() };
    }

    /// After which time an idle connection is not used any more.
    pub(super) fn limit(&self, now: Instant) -> Option<Duration> {
        let holds = |believed: Duration| believed.saturating_mul(HOLDS).max(HOLDS_AT_LEAST);
        let believed = self.believed.filter(|(believed, since)| now - *since < holds(*believed));
        let shortest = self.told.into_iter().chain(believed.map(|(believed, _)| believed)).min();
        shortest.map(|shortest| shortest.mul_f64(SAFETY))
    }
}

/// The same time, but for what timers and networks add.
fn agree(one: Duration, other: Duration) -> bool {
    one.abs_diff(other) <= one.max(other) / 10
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn two_closes_after_the_same_time_are_believed_and_one_is_not() {
        let (mut time, now) = (IdleTime::default(), Instant::now());
        time.closed(seconds(5), now);
        assert_eq!(time.limit(now), None);
        time.closed(Duration::from_millis(5200), now + seconds(10));
        assert_eq!(time.limit(now + seconds(10)), Some(Duration::from_millis(4500)));
    }

    #[test]
    fn closes_after_different_times_are_restarts() {
        let (mut time, now) = (IdleTime::default(), Instant::now());
        for (count, idle) in (0..).zip([5, 9, 3, 2, 7, 1]) {
            time.closed(seconds(idle), now + seconds(100 * count));
        }
        assert_eq!(time.limit(now), None);
    }

    #[test]
    fn connections_that_close_at_one_moment_say_nothing_and_undo_what_was_believed() {
        let (mut time, now) = (IdleTime::default(), Instant::now());
        time.closed(seconds(5), now);
        time.closed(seconds(5), now + SECOND);
        assert!(time.limit(now).is_some());
        for (millis, idle) in [(0, 1), (1, 3), (2, 1), (3, 1), (4, 1)] {
            time.closed(seconds(idle), now + seconds(20) + Duration::from_millis(millis));
        }
        assert_eq!(time.limit(now + seconds(21)), None);
        let (mut same, now) = (IdleTime::default(), Instant::now());
        same.closed(seconds(5), now);
        same.closed(seconds(5), now);
        assert_eq!(same.limit(now), None, "they rested together: one observation");
    }

    #[test]
    fn a_longer_rest_that_ended_well_refutes_what_was_believed() {
        let (mut time, now) = (IdleTime::default(), Instant::now());
        time.closed(SECOND, now);
        time.answered(None, Some(seconds(2)));
        time.closed(SECOND, now + SECOND);
        assert_eq!(time.limit(now), None, "the first one was refuted");
        time.closed(SECOND, now + seconds(2));
        assert!(time.limit(now).is_some());
        time.answered(None, Some(Duration::from_millis(800)));
        assert!(time.limit(now).is_some());
        time.answered(None, Some(seconds(2)));
        assert_eq!(time.limit(now), None);
    }

    #[test]
    fn a_belief_lapses_so_that_a_longer_time_can_show() {
        let (mut time, now) = (IdleTime::default(), Instant::now());
        time.closed(SECOND, now);
        time.closed(SECOND, now + SECOND);
        assert!(time.limit(now + seconds(59)).is_some());
        assert_eq!(time.limit(now + seconds(62)), None);
    }

    #[test]
    fn what_the_server_says_itself_counts_as_long_as_it_says_it() {
        let (mut time, now) = (IdleTime::default(), Instant::now());
        time.answered(Some(seconds(10)), None);
        assert_eq!(time.limit(now), Some(seconds(9)));
        time.answered(Some(seconds(20)), None);
        assert_eq!(time.limit(now), Some(seconds(18)));
        time.answered(None, None);
        assert_eq!(time.limit(now), None);
        time.answered(Some(Duration::ZERO), None);
        assert_eq!(time.limit(now), None);
    }
}
