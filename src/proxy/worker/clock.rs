//! The worker's clock: the limits of connections and exchanges.

use super::{Accepted, Worker};
use filter_api::Reason;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// How often connections and exchanges are looked at while there are any under way.
const TICK: Duration = Duration::from_secs(1);

/// How often when all of them are idle.
const IDLE_TICK: Duration = Duration::from_secs(15);

impl Worker {
    /// Time, as of the last tick: good enough for limits of seconds, and free.
    pub(crate) fn clock(&self) -> Instant {
        self.clock.get()
    }

    pub(crate) fn clock_millis(&self) -> &Arc<AtomicU64> {
        &self.clock_millis
    }

    fn advance_clock(&self) -> Instant {
        let now = Instant::now();
        self.clock.set(now);
        let millis = u64::try_from((now - self.started).as_millis()).unwrap_or(u64::MAX);
        self.clock_millis.store(millis, Ordering::Relaxed);
        now
    }

    /// Watches the limits of connections and exchanges. Sleeps for good while there are none.
    pub(super) async fn keep_time(self: Rc<Self>) {
        loop {
            if self.conns.borrow().is_empty() && self.exchanges.borrow().is_empty() && self.pools.are_empty()
            {
                self.at_rest.set(true);
                self.tick.notified().await;
            } else {
                let busy = !self.exchanges.borrow().is_empty()
                    || self.conns.borrow().iter().any(|conn| conn.is_waiting());
                let pause = if busy { TICK } else { IDLE_TICK };
                self.at_rest.set(!busy);
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = self.tick.notified() => {}
                }
            }
            let now = self.advance_clock();
            let millis = self.clock_millis.load(Ordering::Relaxed);
            for conn in &*self.conns.borrow() {
                if conn.tick(now, millis) {
                    self.count_limit(Reason::DownstreamTimeout);
                }
            }
            let exchanges = self.exchanges.borrow().clone();
            for activity in exchanges {
                activity.expire(now);
            }
            let clusters = self.clusters.borrow();
            self.pools.expire(now, |cluster| clusters.get(&cluster).map(|cluster| cluster.mesh.pool.clone()));
            self.counts.pool_sizes(&self.metrics, |cluster| self.pools.count(cluster));
        }
    }

    /// A connection was accepted: what is known of it begins now. `None` when there are as many as there may be; it is closed then.
    pub(crate) fn connection_arrived(&self) -> Option<Accepted> {
        self.advance_clock();
        let accepted = self.shared.accept();
        if accepted.is_none() {
            self.count_limit(Reason::Overload);
        }
        accepted
    }

    /// Something is under way whose time is limited: the clock has to run, if it does not.
    pub(super) fn hurry(&self) {
        if self.at_rest.replace(false) {
            self.tick.notify_one();
        }
    }
}
