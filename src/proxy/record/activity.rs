//! How long an exchange has stood still.

use crate::proxy::connection::{Close, Conn};
use filter_api::Meter;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;
use tokio::time::Instant;

/// When an exchange last moved a byte, for the worker's clock to find the ones that stand still.
#[derive(Debug)]
pub(crate) struct Activity {
    /// As far as the clock has seen it: a byte is noted in `moved`, and counts as of the next tick.
    last: Cell<Instant>,
    moved: Cell<bool>,
    limit: Duration,
    meter: Option<Arc<Meter>>,
    metered: Cell<u64>,
    expired: Cell<bool>,
    over: Cell<bool>,
    /// Place in the worker's list.
    pub(crate) place: Cell<usize>,
    waker: RefCell<Option<Waker>>,
    /// The HTTP/1 connection that carries it alone, once there is a response.
    conn: RefCell<Option<Rc<Conn>>>,
}

impl Activity {
    /// Begun at `started`, by a clock that does not rest.
    pub(super) fn new(started: Instant, limit: Duration, meter: Option<Arc<Meter>>) -> Self {
        Self {
            last: Cell::new(started),
            moved: Cell::new(false),
            limit,
            meter,
            metered: Cell::new(0),
            expired: Cell::new(false),
            over: Cell::new(false),
            place: Cell::new(usize::MAX),
            waker: RefCell::new(None),
            conn: RefCell::new(None),
        }
    }

    /// A byte went to the downstream.
    pub(super) fn moved(&self) {
        self.moved.set(true);
    }

    /// True once the exchange is recorded.
    pub(super) fn is_over(&self) -> bool {
        self.over.get()
    }

    /// Marks the exchange as recorded. True when it was that already.
    pub(super) fn end(&self) -> bool {
        self.over.replace(true)
    }

    /// The HTTP/1 connection that carries the exchange alone: it ends when nobody asks for the body any more.
    pub(super) fn carried_by(&self, conn: &Rc<Conn>) {
        *self.conn.borrow_mut() = Some(conn.clone());
    }

    /// True when nothing moved for longer than the limit. Wakes the exchange, which then ends itself.
    pub(crate) fn expire(&self, now: Instant) {
        if self.limit.is_zero() || self.over.get() {
            return;
        }
        let metered = self.meter.as_ref().map_or(0, |meter| meter.bytes());
        if self.moved.take() | (self.metered.replace(metered) != metered) {
            self.last.set(now);
        }
        if now - self.last.get() >= self.limit {
            // A codec does not ask for a body while its client does not read, so nobody hears the waker: then the connection ends.
            if self.expired.replace(true)
                && let Some(conn) = self.conn.borrow_mut().take()
            {
                conn.close(Close::Now);
            }
            if let Some(waker) = self.waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }

    /// True once nothing has moved for longer than the limit.
    pub(crate) fn is_expired(&self) -> bool {
        self.expired.get() && !self.over.get()
    }

    /// Wakes this task when the limit is reached.
    pub(crate) fn watch(&self, task: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        match &*waker {
            Some(waker) if waker.will_wake(task.waker()) => {}
            _ => *waker = Some(task.waker().clone()),
        }
    }
}
