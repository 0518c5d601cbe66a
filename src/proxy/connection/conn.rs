//! A connection as the worker's clock and the drain see it.

use super::Door;
use super::frames::Refused;
use crate::mesh::{Direction, HttpChain};
use crate::proxy::record::Activity;
use crate::proxy::worker::{Clock, Worker};
use filter_api::Protocol;
use std::cell::{Cell, OnceCell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
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
    /// A head did not come in time.
    late: Cell<bool>,
    /// The exchange whose response has just begun, for its stream to take.
    answering: RefCell<Option<Rc<Activity>>>,
    /// Once it speaks HTTP.
    door: OnceCell<Rc<Door>>,
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

/// What a connection is doing; shared with its socket, which hyper may move to another task.
#[derive(Debug)]
pub(super) struct Phase {
    state: AtomicU8,
    /// Milliseconds of the worker's clock, noted by its next tick: never too early, and free.
    since: AtomicU64,
    clock: Arc<Clock>,
    /// HTTP/2: bytes between requests are pings, window updates and settings as often as heads.
    multiplexed: AtomicBool,
    /// HTTP/2: since when the client owes the rest of a head, as `since`.
    owes_since: AtomicU64,
    /// HTTP/2: streams that the codec has refused, and nobody has accounted for.
    malformed: AtomicU32,
    too_large: AtomicU32,
    /// HTTP/1: bytes of the answer's body that the codec has and the socket has not.
    queued: AtomicUsize,
    /// The body waits for the socket to take them.
    waiting: AtomicBool,
}

/// How long an idle connection may take to end in order.
const CLOSING_PATIENCE: Duration = Duration::from_secs(30);

/// Accepted, and not a byte came.
const SILENT: u8 = 0;
/// Its first bytes are looked at, by a timer of their own.
const FIRST_BYTES: u8 = 1;
const IDLE: u8 = 2;
const HEAD: u8 = 3;
const BUSY: u8 = 4;

/// No tick has passed since.
const JUST_NOW: u64 = u64::MAX;

/// There is nothing to measure.
const NEVER: u64 = u64::MAX - 1;

impl Phase {
    fn new(clock: Arc<Clock>) -> Self {
        Self {
            state: AtomicU8::new(SILENT),
            since: AtomicU64::new(JUST_NOW),
            clock,
            multiplexed: AtomicBool::new(false),
            owes_since: AtomicU64::new(NEVER),
            malformed: AtomicU32::new(0),
            too_large: AtomicU32::new(0),
            queued: AtomicUsize::new(0),
            waiting: AtomicBool::new(false),
        }
    }

    /// The socket took so many bytes; the few around the body that count as its own only make its end come sooner. True when the body waited for the last of them.
    pub(super) fn sent(&self, bytes: usize) -> bool {
        let queued = self.queued.load(Ordering::Relaxed).saturating_sub(bytes);
        self.queued.store(queued, Ordering::Relaxed);
        queued == 0 && self.waiting.load(Ordering::Relaxed) && self.waiting.swap(false, Ordering::Relaxed)
    }

    /// HTTP/2: whether the client owes the rest of a head now.
    pub(super) fn within_head(&self, within: bool) {
        let was = self.owes_since.load(Ordering::Relaxed) != NEVER;
        if was != within {
            self.owes_since.store(if within { JUST_NOW } else { NEVER }, Ordering::Relaxed);
            if within {
                self.clock.hurry();
            }
        }
    }

    /// For how long the client has owed the rest of a head.
    fn owes(&self, now_millis: u64) -> Option<Duration> {
        let since = self.owes_since.load(Ordering::Relaxed);
        if since == JUST_NOW {
            self.owes_since.store(now_millis, Ordering::Relaxed);
        }
        (since != NEVER).then(|| Duration::from_millis(now_millis.saturating_sub(since)))
    }

    /// The codec has refused a stream.
    pub(super) fn refused(&self, refused: Refused) {
        let count = match refused {
            Refused::Malformed => &self.malformed,
            Refused::TooLarge => &self.too_large,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes came in. On an idle HTTP/1 connection they begin a head.
    pub(super) fn read(&self) {
        match self.state.load(Ordering::Relaxed) {
            SILENT => self.enter(FIRST_BYTES),
            IDLE if !self.multiplexed.load(Ordering::Relaxed) => {
                self.enter(HEAD);
                self.clock.hurry();
            }
            _ => {}
        }
    }

    fn enter(&self, state: u8) {
        self.state.store(state, Ordering::Relaxed);
        self.since.store(JUST_NOW, Ordering::Relaxed);
    }

    /// For how long it is doing that.
    fn age(&self, now_millis: u64) -> Duration {
        let since = self.since.load(Ordering::Relaxed);
        if since == JUST_NOW {
            self.since.store(now_millis, Ordering::Relaxed);
        }
        Duration::from_millis(now_millis.saturating_sub(since))
    }

    /// Nothing has begun that would be lost with the connection.
    fn is_quiet(&self) -> bool {
        matches!(self.state.load(Ordering::Relaxed), SILENT | IDLE)
    }
}

impl Conn {
    /// An accepted connection from which no byte has been read.
    pub(super) fn new(worker: &Worker, direction: Direction) -> Rc<Self> {
        Rc::new(Self {
            phase: Arc::new(Phase::new(worker.clock.clone())),
            direction,
            opened: worker.clock.now(),
            close: Cell::new(Close::Open),
            waker: RefCell::new(None),
            active: Cell::new(0),
            exchanges: Cell::new(0),
            idle_timeout: Cell::new(Duration::ZERO),
            head_timeout: Cell::new(Duration::ZERO),
            max_duration: Cell::new(Duration::ZERO),
            late: Cell::new(false),
            answering: RefCell::new(None),
            door: OnceCell::new(),
            place: Cell::new(usize::MAX),
        })
    }

    /// What its socket tells of it.
    pub(super) fn phase(&self) -> &Arc<Phase> {
        &self.phase
    }

    /// It speaks HTTP, within these limits. Its first bytes are there already: the head has begun. On HTTP/2 they are the preface, and what follows
    /// need not be a head.
    pub(super) fn begin_http(&self, protocol: Protocol, settings: &HttpChain) {
        self.idle_timeout.set(settings.idle_timeout);
        self.head_timeout.set(settings.request_headers_timeout);
        self.max_duration.set(settings.max_connection_duration);
        let multiplexed = protocol == Protocol::Http2;
        self.phase.multiplexed.store(multiplexed, Ordering::Relaxed);
        self.phase.enter(if multiplexed { IDLE } else { HEAD });
        self.phase.clock.hurry();
    }

    /// Makes the connection's task look at the newest snapshot.
    pub(crate) fn look_again(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// True while time matters soon: a head is on its way.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.phase.state.load(Ordering::Relaxed), HEAD | BUSY)
            || self.phase.owes_since.load(Ordering::Relaxed) != NEVER
    }

    /// Whether it is at its end because a head did not come in time.
    pub(in crate::proxy) fn is_late(&self) -> bool {
        self.late.get()
    }

    /// Accounts for a stream that the codec has reset because it broke the rules of HTTP/2: true for one.
    pub(in crate::proxy) fn take_malformed_stream(&self) -> bool {
        take_one(&self.phase.malformed)
    }

    /// Accounts for a stream that the codec has refused, once no exchange is under way that may have been it; true in the answer if its head was too large.
    pub(in crate::proxy) fn take_refused_stream(&self) -> Option<bool> {
        if take_one(&self.phase.too_large) {
            return Some(true);
        }
        (self.active.get() == 0 && self.take_malformed_stream()).then_some(false)
    }

    /// How it came in.
    pub(super) fn came_by(&self, door: &Rc<Door>) {
        self.door.get_or_init(|| door.clone());
    }

    /// How it came in; known once it speaks HTTP.
    pub(crate) fn door(&self) -> Option<&Rc<Door>> {
        self.door.get()
    }

    /// On a stream of this connection a response begins.
    pub(crate) fn answers(&self, activity: Rc<Activity>) {
        *self.answering.borrow_mut() = Some(activity);
    }

    pub(super) fn take_answering(&self) -> Option<Rc<Activity>> {
        self.answering.borrow_mut().take()
    }

    /// HTTP/1: an answer begins.
    pub(in crate::proxy) fn begin_answer(&self) {
        self.phase.queued.store(0, Ordering::Relaxed);
    }

    /// HTTP/1: the codec is given some of the answer's body.
    pub(in crate::proxy) fn queue(&self, bytes: usize) {
        let queued = self.phase.queued.load(Ordering::Relaxed);
        self.phase.queued.store(queued + bytes, Ordering::Relaxed);
    }

    /// HTTP/1: whether the socket has yet to take some of what the codec was given. It wakes the task once it has.
    pub(in crate::proxy) fn waits_for_socket(&self) -> bool {
        let queued = self.phase.queued.load(Ordering::Relaxed) > 0;
        self.phase.waiting.store(queued, Ordering::Relaxed);
        queued
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
        let for_so_long = self.phase.age(now_millis);
        let over = |limit: Duration| !limit.is_zero() && for_so_long >= limit;
        let max = self.max_duration.get();
        if !max.is_zero() && now - self.opened >= max {
            self.close(Close::Graceful);
        }
        let head = self.head_timeout.get();
        let late = !head.is_zero() && self.phase.owes(now_millis).is_some_and(|time| time >= head);
        match self.phase.state.load(Ordering::Relaxed) {
            _ if late && !self.late.replace(true) => {
                self.close(Close::Now);
                return true;
            }
            // Asked to end, and long after still there: its client does not even read what is left.
            IDLE if over(self.idle_timeout.get()) => {
                let late = for_so_long >= self.idle_timeout.get().saturating_add(CLOSING_PATIENCE);
                self.close(if late { Close::Now } else { Close::Graceful });
            }
            HEAD if over(head) && !self.late.replace(true) => {
                self.close(Close::Now);
                return true;
            }
            _ => {}
        }
        false
    }

    /// Runs the codec until it ends, or the connection is closed at once (`None`). `look` may find that it has to end; `graceful` then tells the codec: HTTP/2
    /// at once, it knows how to finish; HTTP/1 only once no request comes any more, until then each answer says that it is the last. `after` follows each turn.
    pub(in crate::proxy) async fn drive<C: Future>(
        &self,
        mut connection: Pin<&mut C>,
        http1: bool,
        look: impl Fn(),
        after: impl Fn(),
        graceful: impl Fn(Pin<&mut C>),
    ) -> Option<C::Output> {
        let from = if http1 { Close::Graceful } else { Close::Soon };
        let mut told = false;
        let mut last_call = None;
        poll_fn(|task| {
            look();
            match self.close.get() {
                Close::Now => return Poll::Ready(None),
                how if how >= from && !told && (!http1 || self.was_unused(&mut last_call, task)) => {
                    told = true;
                    graceful(connection.as_mut());
                }
                _ => {}
            }
            if let Poll::Ready(output) = connection.as_mut().poll(task) {
                return Poll::Ready(Some(output));
            }
            after();
            self.watch(task);
            Poll::Pending
        })
        .await
    }

    /// Does what comes before the codec. `None`: the connection is to end first; in order, that is after a [`LAST_CALL`] without a byte.
    pub(super) async fn unless_closed<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        let mut last_call = None;
        poll_fn(|task| {
            if let Poll::Ready(done) = work.as_mut().poll(task) {
                return Poll::Ready(Some(done));
            }
            match self.close.get() {
                Close::Now => return Poll::Ready(None),
                Close::Graceful if self.was_unused(&mut last_call, task) => return Poll::Ready(None),
                _ => {}
            }
            self.watch(task);
            Poll::Pending
        })
        .await
    }

    fn watch(&self, task: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(task.waker())) {
            *waker = Some(task.waker().clone());
        }
    }

    /// Whether a whole [`LAST_CALL`] has passed without a request.
    fn was_unused(&self, last_call: &mut Option<(Pin<Box<Sleep>>, u64)>, task: &mut Context<'_>) -> bool {
        let begin = || (Box::pin(sleep(LAST_CALL)), self.exchanges.get());
        loop {
            let (pause, exchanges) = last_call.get_or_insert_with(begin);
            if pause.as_mut().poll(task).is_pending() {
                return false;
            }
            if *exchanges == self.exchanges.get() && self.phase.is_quiet() {
                return true;
            }
            *last_call = None;
        }
    }
}

/// Takes one of a number, if it is not zero.
fn take_one(number: &AtomicU32) -> bool {
    let less = |number: u32| number.checked_sub(1);
    number.load(Ordering::Relaxed) > 0
        && number.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_just_begun_is_new_however_old_the_clock_is() {
        let phase = Phase {
            state: AtomicU8::new(IDLE),
            since: AtomicU64::new(5),
            ..Phase::new(Arc::new(Clock::new()))
        };
        assert_eq!(phase.age(14_005), Duration::from_secs(14));
        phase.read();
        assert_eq!(phase.state.load(Ordering::Relaxed), HEAD);
        assert_eq!(phase.age(15_000), Duration::ZERO, "the first tick notes when it began");
        assert_eq!(phase.age(16_000), Duration::from_secs(1));
    }
}
