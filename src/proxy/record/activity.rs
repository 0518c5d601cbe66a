//! How long an exchange has stood still, and whether it has to end before its time.

use crate::proxy::connection::{Close, Conn, Door};
use filter_api::{Cx, Meter, Reason};
use std::cell::{Cell, OnceCell, RefCell};
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
    limit: Cell<Duration>,
    meter: Option<Arc<Meter>>,
    metered: Cell<u64>,
    /// Why it has to end before its time.
    end_by: Cell<Option<Reason>>,
    over: Cell<bool>,
    /// Place in the worker's list.
    pub(crate) place: Cell<usize>,
    waker: RefCell<Option<Waker>>,
    /// The HTTP/1 connection that carries it alone, once there is a response.
    conn: RefCell<Option<Rc<Conn>>>,
    /// What is known of it, until it is recorded.
    cx: RefCell<Option<Cx>>,
    /// Of a tunnel: how its connection came in.
    door: OnceCell<Rc<Door>>,
    /// It is judged to end, at a moment that is still to come.
    doomed: Cell<bool>,
}

impl Activity {
    /// Begun when its request had arrived, by a clock that does not rest.
    pub(super) fn new(cx: &Cx, limit: Duration, meter: Option<Arc<Meter>>) -> Self {
        Self {
            last: Cell::new(cx.started.into()),
            moved: Cell::new(false),
            limit: Cell::new(limit),
            meter,
            metered: Cell::new(0),
            end_by: Cell::new(None),
            over: Cell::new(false),
            place: Cell::new(usize::MAX),
            waker: RefCell::new(None),
            conn: RefCell::new(None),
            cx: RefCell::new(Some(cx.clone())),
            door: OnceCell::new(),
            doomed: Cell::new(false),
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
        // What it holds goes with the exchange, whoever still looks at its activity.
        self.cx.borrow_mut().take();
        self.over.replace(true)
    }

    /// The HTTP/1 connection that carries the exchange alone: it ends when nobody asks for the body any more.
    pub(super) fn carried_by(&self, conn: &Rc<Conn>) {
        *self.conn.borrow_mut() = Some(conn.clone());
    }

    /// It is a tunnel from now on, which has a time of its own for standing still.
    pub(super) fn becomes_tunnel(&self, door: Option<&Rc<Door>>) {
        self.limit.set(Duration::ZERO);
        if let Some(door) = door {
            self.door.get_or_init(|| door.clone());
        }
    }

    /// How the connection came in, of a tunnel.
    pub(in crate::proxy) fn door(&self) -> Option<&Rc<Door>> {
        self.door.get()
    }

    /// What is known of the exchange; `None` once it is recorded.
    pub(in crate::proxy) fn cx(&self) -> Option<Cx> {
        self.cx.borrow().clone()
    }

    /// Notes whether it is judged to end.
    pub(in crate::proxy) fn doom(&self, doomed: bool) {
        self.doomed.set(doomed);
    }

    pub(in crate::proxy) fn is_doomed(&self) -> bool {
        self.doomed.get()
    }

    /// Looks whether nothing moved for longer than the limit. Wakes the exchange, which then ends itself.
    pub(crate) fn expire(&self, now: Instant) {
        if self.over.get() {
            return;
        }
        if self.end_by.get().is_some() {
            // A codec does not ask for a body while its client does not read, so nobody hears the waker: then the connection ends.
            if let Some(conn) = self.conn.borrow_mut().take() {
                conn.close(Close::Now);
            }
            return self.wake();
        }
        if self.limit.get().is_zero() {
            return;
        }
        let metered = self.meter.as_ref().map_or(0, |meter| meter.bytes());
        if self.moved.take() | (self.metered.replace(metered) != metered) {
            self.last.set(now);
        }
        if now - self.last.get() >= self.limit.get() {
            self.end_for(Reason::StreamIdle);
        }
    }

    /// Ends the exchange: it wakes, and ends itself for this reason.
    pub(in crate::proxy) fn end_for(&self, reason: Reason) {
        if !self.over.get() && self.end_by.replace(Some(reason)) != Some(reason) {
            self.wake();
        }
    }

    /// Why it has to end before its time: nothing has moved for longer than the limit, or a policy allows it no more.
    #[inline]
    pub(crate) fn must_end(&self) -> Option<Reason> {
        self.end_by.get().filter(|_| !self.over.get())
    }

    /// The same, for who answers it: the answer itself is not cut off.
    pub(super) fn take_end(&self) -> Option<Reason> {
        self.must_end().inspect(|_| self.end_by.set(None))
    }

    /// Wakes this task when it has to end.
    pub(crate) fn watch(&self, task: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        match &*waker {
            Some(waker) if waker.will_wake(task.waker()) => {}
            _ => *waker = Some(task.waker().clone()),
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}
