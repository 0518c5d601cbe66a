//! The worker's clock: the limits of connections and exchanges.

use super::Worker;
use filter_api::Reason;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How often connections and exchanges are looked at while there are any under way.
const TICK: Duration = Duration::from_secs(1);

/// How often while bytes may flow on TCP connections, for they are counted then.
const COUNT_TICK: Duration = Duration::from_secs(5);

/// How often when all of them are idle.
const IDLE_TICK: Duration = Duration::from_secs(15);

/// Time as of the last tick: good enough for limits of seconds, and free. Shared with the sockets of connections, which hyper may move to another
/// task.
///
/// Who notes when something began does not read it while it rests: it may be [`IDLE_TICK`] old then. [`hurry`](Self::hurry) comes first.
#[derive(Debug)]
pub(crate) struct Clock {
    started: Instant,
    millis: AtomicU64,
    /// The next look is further away than a [`TICK`].
    resting: AtomicBool,
    tick: Notify,
}

impl Clock {
    pub(in crate::proxy) fn new() -> Self {
        let (millis, resting) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { started: Instant::now(), millis, resting, tick: Notify::new() }
    }

    /// When the worker last looked.
    pub(crate) fn now(&self) -> Instant {
        self.started + Duration::from_millis(self.millis.load(Ordering::Relaxed))
    }

    /// Something begins whose time is limited: the clock goes right, and on, if it rested.
    pub(crate) fn hurry(&self) {
        if self.resting.load(Ordering::Relaxed) {
            self.resting.store(false, Ordering::Relaxed);
            self.advance();
            self.tick.notify_one();
        }
    }

    pub(super) fn advance(&self) -> u64 {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.millis.store(millis, Ordering::Relaxed);
        millis
    }

    /// Waits for the next tick, for good when there is none.
    async fn wait(&self, pause: Option<Duration>) {
        self.resting.store(pause != Some(TICK), Ordering::Relaxed);
        match pause {
            Some(pause) => tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.tick.notified() => {}
            },
            None => self.tick.notified().await,
        }
    }
}

impl Worker {
    /// Watches the limits of connections and exchanges. Sleeps for good while there are none.
    pub(super) async fn keep_time(self: Rc<Self>) {
        loop {
            self.clock.wait(self.pause()).await;
            let millis = self.clock.advance();
            let now = self.clock.now();
            for conn in &*self.conns.borrow() {
                if conn.tick(now, millis) {
                    self.count_limit(Reason::DownstreamTimeout);
                }
            }
            let exchanges = self.exchanges.borrow().clone();
            for activity in exchanges {
                activity.expire(now);
            }
            for bytes in &*self.carried.borrow() {
                bytes.count(&self);
            }
            self.follow_epoch();
            self.rejudge_in_time(now);
            let clusters = self.clusters.borrow();
            self.pools.expire(now, |cluster| clusters.get(&cluster).map(|cluster| cluster.mesh.pool.clone()));
            self.counts.pool_sizes(&self.metrics, |cluster| self.pools.count(cluster));
        }
    }

    fn pause(&self) -> Option<Duration> {
        let (conns, exchanges) = (self.conns.borrow(), self.exchanges.borrow());
        if !exchanges.is_empty() || conns.iter().any(|conn| conn.is_waiting()) {
            Some(TICK)
        } else if !self.carried.borrow().is_empty() {
            Some(COUNT_TICK)
        } else if conns.is_empty() && self.pools.are_empty() {
            None
        } else {
            Some(IDLE_TICK)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Waker};

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_rested_is_right_before_anything_is_noted_by_it() {
        let clock = Rc::new(Clock::new());
        let waiting = {
            let clock = clock.clone();
            async move { clock.wait(Some(IDLE_TICK)).await }
        };
        let mut waiting = std::pin::pin!(waiting);
        let mut task = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut task).is_pending());
        tokio::time::advance(Duration::from_secs(14)).await;
        assert_eq!(Instant::now() - clock.now(), Duration::from_secs(14), "it rests");
        clock.hurry();
        assert_eq!(clock.now(), Instant::now());
        assert!(waiting.as_mut().poll(&mut task).is_ready(), "and ticks soon again");
    }
}
