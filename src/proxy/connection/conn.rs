//! A connection as the worker's clock and the drain see it.

use crate::mesh::Direction;
use crate::proxy::worker::Worker;
use filter_api::Protocol;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// An HTTP/1 connection that has to end waits so long for a last request, which is answered with `Connection: close`: closed at once, it would
/// cost the request that is on its way.
const LAST_CALL: Duration = Duration::from_secs(1);

/// A connection as the worker's clock and the drain see it.
#[derive(Debug)]
pub(crate) struct Conn {
    phase: Arc<Phase>,
    direction: Direction,
    opened: Instant,
    close: Cell<Close>,
    waker: RefCell<Option<Waker>>,
    active: Cell<u32>,
    /// Since it was opened.
    exchanges: Cell<u64>,
    idle_timeout: Cell<Duration>,
    head_timeout: Cell<Duration>,
    max_duration: Cell<Duration>,
    /// Place in the worker's list.
    pub(in crate::proxy) place: Cell<usize>,
}

/// Whether a connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Close {
    /// It goes on.
    Open,
    /// HTTP/2 as `Graceful`. HTTP/1 after its next answer, `Connection: close`: a client may be sending on an idle connection right now, and what it
    /// sends would be lost.
    Soon,
    /// After the exchanges that are under way: GOAWAY, `Connection: close`.
    Graceful,
    /// At once.
    Now,
}

/// What a connection is doing; shared with its socket, which hyper may move to another task. Times are milliseconds of the worker's clock.
#[derive(Debug)]
pub(super) struct Phase {
    state: AtomicU8,
    since: AtomicU64,
    clock: Arc<AtomicU64>,
    /// HTTP/2: bytes between requests are pings, window updates and settings as often as heads.
    multiplexed: bool,
}

/// How long an idle connection may take to end in order.
const CLOSING_PATIENCE: Duration = Duration::from_secs(30);

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;

impl Phase {
    /// Bytes came in: on an idle HTTP/1 connection they begin a head.
    pub(super) fn read(&self) {
        if !self.multiplexed && self.state.load(Ordering::Relaxed) == IDLE {
            self.enter(HEAD);
        }
    }

    fn enter(&self, state: u8) {
        self.state.store(state, Ordering::Relaxed);
        self.since.store(self.clock.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Conn {
    pub(super) fn new(worker: &Worker, direction: Direction, protocol: Protocol) -> (Rc<Self>, Arc<Phase>) {
        let clock = worker.clock_millis().clone();
        let since = AtomicU64::new(clock.load(Ordering::Relaxed));
        // Its first bytes are there already: the head has begun. On HTTP/2 they are the preface, and what follows need not be a head.
        let multiplexed = protocol == Protocol::Http2;
        let state = AtomicU8::new(if multiplexed { IDLE } else { HEAD });
        let phase = Arc::new(Phase { state, since, clock, multiplexed });
        let conn = Self {
            phase: phase.clone(),
            direction,
            opened: worker.clock(),
            close: Cell::new(Close::Open),
            waker: RefCell::new(None),
            active: Cell::new(0),
            exchanges: Cell::new(0),
            idle_timeout: Cell::new(Duration::ZERO),
            head_timeout: Cell::new(Duration::ZERO),
            max_duration: Cell::new(Duration::ZERO),
            place: Cell::new(usize::MAX),
        };
        (Rc::new(conn), phase)
    }

    /// Makes the connection's task look at the newest snapshot.
    pub(crate) fn look_again(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// True while time matters soon: a head is on its way.
    pub(crate) fn is_waiting(&self) -> bool {
        self.phase.state.load(Ordering::Relaxed) != IDLE
    }

    pub(super) fn set_limits(&self, settings: &crate::mesh::HttpChain) {
        self.idle_timeout.set(settings.idle_timeout);
        self.head_timeout.set(settings.request_headers_timeout);
        self.max_duration.set(settings.max_connection_duration);
    }

    /// Whose traffic it carries.
    pub(crate) fn direction(&self) -> Direction {
        self.direction
    }

    /// Ends it, now or after what is under way.
    pub(crate) fn close(&self, how: Close) {
        if how > self.close.get() {
            self.close.set(how);
            if let Some(waker) = self.waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }

    /// Looks at the time. True when a limit was hit that is worth counting: a head that did not come.
    pub(crate) fn tick(&self, now: Instant, now_millis: u64) -> bool {
        let for_so_long =
            Duration::from_millis(now_millis.saturating_sub(self.phase.since.load(Ordering::Relaxed)));
        let over = |limit: Duration| !limit.is_zero() && for_so_long >= limit;
        let max = self.max_duration.get();
        if !max.is_zero() && now - self.opened >= max {
            self.close(Close::Graceful);
        }
        match self.phase.state.load(Ordering::Relaxed) {
            // Asked to end, and long after still there: its client does not even read what is left.
            IDLE if over(self.idle_timeout.get()) => {
                let late = for_so_long >= self.idle_timeout.get().saturating_add(CLOSING_PATIENCE);
                self.close(if late { Close::Now } else { Close::Graceful });
            }
            HEAD if over(self.head_timeout.get()) => {
                self.close(Close::Now);
                return true;
            }
            _ => {}
        }
        false
    }

    /// Runs the codec until it ends or the connection is closed. `look` may find that it has to be; `graceful` then tells the codec: HTTP/2 at once, it
    /// knows how to finish; HTTP/1 only once no request comes any more, until then each answer says that it is the last.
    pub(in crate::proxy) async fn drive<C: Future>(
        &self,
        mut connection: Pin<&mut C>,
        http1: bool,
        look: impl Fn(),
        graceful: impl Fn(Pin<&mut C>),
    ) {
        let from = if http1 { Close::Graceful } else { Close::Soon };
        let mut told = false;
        let mut last_call = None;
        poll_fn(|task| {
            look();
            match self.close.get() {
                Close::Now => return Poll::Ready(()),
                how if how >= from && !told && (!http1 || self.was_unused(&mut last_call, task)) => {
                    told = true;
                    graceful(connection.as_mut());
                }
                _ => {}
            }
            if connection.as_mut().poll(task).is_ready() {
                return Poll::Ready(());
            }
            let mut waker = self.waker.borrow_mut();
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(task.waker())) {
                *waker = Some(task.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Whether a whole [`LAST_CALL`] has passed without a request.
    fn was_unused(&self, last_call: &mut Option<(Pin<Box<Sleep>>, u64)>, task: &mut Context<'_>) -> bool {
        let begin = || (Box::pin(sleep(LAST_CALL)), self.exchanges.get());
        loop {
            let (pause, exchanges) = last_call.get_or_insert_with(begin);
            if pause.as_mut().poll(task).is_pending() {
                return false;
            }
            if *exchanges == self.exchanges.get() && self.phase.state.load(Ordering::Relaxed) == IDLE {
                return true;
            }
            *last_call = None;
        }
    }
}

/// One exchange of a connection; the connection is not idle before it is dropped.
#[derive(Debug)]
pub(crate) struct Busy(Rc<Conn>);

impl Busy {
    pub(in crate::proxy) fn new(conn: &Rc<Conn>) -> Self {
        conn.active.set(conn.active.get() + 1);
        conn.exchanges.set(conn.exchanges.get() + 1);
        conn.phase.enter(BUSY);
        Self(conn.clone())
    }

    /// True when this exchange should be the connection's last.
    pub(in crate::proxy) fn is_last(&self) -> bool {
        self.0.close.get() != Close::Open
    }

    /// Its connection.
    pub(in crate::proxy) fn conn(&self) -> &Rc<Conn> {
        &self.0
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let active = self.0.active.get().saturating_sub(1);
        self.0.active.set(active);
        if active == 0 {
            self.0.phase.enter(IDLE);
        }
    }
}
