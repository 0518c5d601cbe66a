//! Streams that a client opens only to reset them.
//!
//! Each costs it two frames and us a request, which HTTP/1 upstreams even pay with a connection. Those that are reset before we have accepted them are
//! counted by the codec (CVE-2023-44487); those that come later, here, by Envoy's rule for premature resets.

use super::connection::{Close, Conn};
use super::worker::Worker;
use filter_api::Reason;
use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The streams of one connection.
#[derive(Debug, Default)]
pub(super) struct Resets {
    ended: Cell<u32>,
    premature: Cell<u32>,
}

/// A stream without an answer. Dropped, it was reset by the client.
pub(super) struct Unanswered {
    began: Instant,
    resets: Rc<Resets>,
    worker: Rc<Worker>,
    conn: Rc<Conn>,
    answered: bool,
}

/// A stream that was reset within this time was never meant seriously (Envoy's `premature_reset_min_stream_lifetime_seconds`).
const MIN_LIFETIME: Duration = Duration::from_secs(1);

/// Streams among which half may be premature (Envoy's `premature_reset_total_stream_count`).
const AMONG: u32 = 500;

impl Resets {
    /// Whether streams of this connection were reset early before. The next ones begin a turn later, so that a reset which came along with its request is
    /// seen before the request is written: a connection to an HTTP/1 server does not survive that.
    pub(super) fn are_suspicious(&self) -> bool {
        self.premature.get() > 0
    }

    /// Counts a stream that has ended. True when the connection is abused.
    fn ended(&self, premature: bool) -> bool {
        self.ended.set(self.ended.get().saturating_add(1));
        if premature {
            self.premature.set(self.premature.get().saturating_add(1));
        }
        self.premature.get().saturating_mul(2) >= self.ended.get().max(AMONG)
    }
}

impl Unanswered {
    pub(super) fn new(resets: &Rc<Resets>, worker: &Rc<Worker>, conn: &Rc<Conn>, began: Instant) -> Self {
        let (resets, worker, conn) = (resets.clone(), worker.clone(), conn.clone());
        Self { began, resets, worker, conn, answered: false }
    }

    /// The stream has its answer.
    pub(super) fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        let premature = !self.answered && self.began.elapsed() < MIN_LIFETIME;
        if self.resets.ended(premature) {
            self.worker.count_limit(Reason::DownstreamReset);
            self.conn.close(Close::Now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_streams_may_be_reset_early() {
        let resets = Resets::default();
        for stream in 0..10_000 {
            assert!(!resets.ended(stream % 2 == 1) || stream + 1 >= AMONG, "{stream}");
        }
        let resets = Resets::default();
        assert!((0..249).all(|_| !resets.ended(true)));
        assert!(resets.ended(true), "250 of at most 500 leave no hope");
    }

    #[test]
    fn a_connection_that_served_long_is_judged_by_all_its_streams() {
        let resets = Resets::default();
        assert!((0..2000).all(|_| !resets.ended(false)));
        let borne = (0..4000).take_while(|_| !resets.ended(true)).count();
        assert_eq!(borne, 1999);
    }
}
