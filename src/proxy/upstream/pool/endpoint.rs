//! The connections of one worker to one endpoint, and who waits for one.

use super::idle_time::IdleTime;
use super::lease::{H1Connection, Lease, Limits, Open};
use crate::mesh::{Pool, UpstreamTls};
use crate::proxy::upstream::h2::H2Connection;
use crate::snapshot::{Cluster, Permit, Resource};
use filter_api::{Error, Reason};
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct EndpointPool {
    idle: RefCell<Vec<H1Connection>>,
    /// Requests without a connection, oldest first.
    waiting: RefCell<VecDeque<oneshot::Sender<Result<Lease, Error>>>>,
    /// As many as `waiting` holds, without those that gave up.
    wanted: Cell<usize>,
    /// HTTP/1 connections that are being opened.
    opening: Cell<usize>,
    /// Connections of this worker, HTTP/1 and HTTP/2: idle, busy, or being opened.
    open: Cell<u32>,
    h2: RefCell<Vec<Rc<H2Connection>>>,
    /// One at a time: a burst of requests must not open one connection each.
    h2_opening: Cell<bool>,
    /// Requests that no HTTP/2 connection has room for, oldest first. Each is told to look again, or why none could be opened.
    h2_waiting: RefCell<VecDeque<oneshot::Sender<Option<OpenFailure>>>>,
    idle_time: RefCell<IdleTime>,
    retired: Cell<bool>,
    /// How its connections are secured, once one was asked for.
    secured: OnceCell<Option<Arc<UpstreamTls>>>,
}

/// Why a connection could not be opened: the reason and its cause in words.
pub(in crate::proxy::upstream) type OpenFailure = (Reason, Option<String>);

/// The place of a request in the queue for an HTTP/1 connection.
#[derive(Debug)]
pub(in crate::proxy::upstream) struct Wanted {
    pool: Rc<EndpointPool>,
    receiver: oneshot::Receiver<Result<Lease, Error>>,
    served: bool,
}

/// The place of a request in the queue for room on an HTTP/2 connection.
#[derive(Debug)]
pub(in crate::proxy::upstream) struct News {
    pool: Rc<EndpointPool>,
    receiver: oneshot::Receiver<Option<OpenFailure>>,
    heard: bool,
}

/// An HTTP/1 connection that is being opened, until it is there or has failed.
#[derive(Debug)]
pub(in crate::proxy::upstream) struct Opening(Rc<EndpointPool>);

/// The HTTP/2 connection that is being opened. Dropped, it tells all who wait.
#[derive(Debug)]
pub(in crate::proxy::upstream) struct H2Opening {
    pool: Rc<EndpointPool>,
    failure: Option<OpenFailure>,
}

/// How long a request may wait for a connection to come back when the limit of connections is reached and no limit of time is set on its route.
pub(in crate::proxy::upstream) const PENDING_TIMEOUT: Duration = Duration::from_secs(15);

impl EndpointPool {
    /// A pool that keeps nothing: its connection is for one request alone.
    pub(super) fn for_one_request() -> Rc<Self> {
        Rc::new(Self { retired: Cell::new(true), ..Self::default() })
    }

    /// Whether its connections are secured in this way; a new one takes it on.
    pub(super) fn is_secured_by(&self, tls: Option<&Arc<UpstreamTls>>) -> bool {
        match (self.secured.get_or_init(|| tls.cloned()), tls) {
            (None, None) => true,
            (Some(own), Some(tls)) => Arc::ptr_eq(own, tls) || own == tls,
            _ => false,
        }
    }

    /// Whether its connections speak TLS.
    pub(super) fn is_secured(&self) -> bool {
        matches!(self.secured.get(), Some(Some(_)))
    }

    pub(super) fn retire(&self) {
        self.retired.set(true);
        self.idle.borrow_mut().clear();
        self.h2.borrow_mut().clear();
    }

    /// True when it keeps no connection.
    pub(super) fn is_empty(&self) -> bool {
        self.idle.borrow().is_empty() && self.h2.borrow().is_empty()
    }

    /// Idle and open connections.
    pub(super) fn count(&self) -> (usize, usize) {
        let h2_idle = self.h2.borrow().iter().filter(|connection| connection.active() == 0).count();
        (self.idle.borrow().len() + h2_idle, self.open.get() as usize)
    }

    /// Closes what was idle for too long.
    pub(super) fn expire(&self, now: Instant, limits: &Pool) {
        let limit = self.idle_limit(limits.idle_timeout, now);
        self.idle.borrow_mut().retain(|connection| {
            !connection.sender.is_closed() && limit.is_none_or(|limit| connection.idle_for(now) < limit)
        });
        self.h2.borrow_mut().retain(|connection| connection.is_usable(now, limits));
    }

    /// The time that an unused connection may stay: the cluster's, or what was learned of the server, whichever is shorter.
    fn idle_limit(&self, configured: Duration, now: Instant) -> Option<Duration> {
        let configured = (!configured.is_zero()).then_some(configured);
        configured.into_iter().chain(self.idle_time.borrow().limit(now)).min()
    }

    /// A request was answered, on a connection that had rested for `idle` if it was not new. `told`: what the answer says of the server's patience.
    pub(in crate::proxy::upstream) fn answered(&self, told: Option<Duration>, idle: Option<Duration>) {
        self.idle_time.borrow_mut().answered(told, idle);
    }

    /// The server closed a connection that had rested for `idle`.
    pub(in crate::proxy::upstream) fn closed_idle(&self, idle: Duration, now: Instant) {
        self.idle_time.borrow_mut().closed(idle, now);
        self.idle.borrow_mut().retain(|connection| !connection.sender.is_closed());
    }

    /// The server could not be reached: whoever comes back may have other habits.
    pub(in crate::proxy::upstream) fn was_away(&self) {
        self.idle_time.borrow_mut().forget();
    }

    /// The right to open one more connection. A worker that has none to this endpoint, and opens none, may always do so, whatever the limit.
    pub(in crate::proxy::upstream) fn may_open(self: &Rc<Self>, cluster: &Cluster) -> Option<Open> {
        let permit = cluster
            .acquire(Resource::Connections)
            .or_else(|| (self.open.get() == 0).then(|| cluster.acquire_anyway(Resource::Connections)))?;
        self.open.set(self.open.get() + 1);
        Some(Open::new(self, permit))
    }

    pub(super) fn closed_one(&self) {
        self.open.set(self.open.get().saturating_sub(1));
    }

    /// The right to wait for a connection although the limit of connections is reached.
    pub(in crate::proxy::upstream) fn may_wait(cluster: &Cluster) -> Result<Permit, Error> {
        let pending = cluster.acquire(Resource::Pending);
        pending.ok_or_else(|| overflow(cluster, "the limit of pending requests (http1MaxPendingRequests)"))
    }

    /// What a request is told that has waited for too long.
    pub(in crate::proxy::upstream) fn waited_too_long(cluster: &Cluster) -> Error {
        overflow(cluster, "the limit of connections (maxConnections)")
    }
}

/// HTTP/1: an exchange has a connection for itself.
impl EndpointPool {
    /// An idle connection that can take a request now. Last in, first out: the warmest one, and the others can grow old and close.
    pub(in crate::proxy::upstream) fn take_idle(&self, limits: &Pool, now: Instant) -> Option<H1Connection> {
        let limit = self.idle_limit(limits.idle_timeout, now);
        let mut idle = self.idle.borrow_mut();
        let mut at = idle.len();
        while at > 0 {
            at -= 1;
            let connection = &idle[at];
            let late = limit.is_some_and(|limit| connection.idle_for(now) >= limit);
            if connection.sender.is_closed() || late {
                idle.swap_remove(at);
            } else if connection.sender.is_ready() {
                let connection = idle.remove(at);
                connection.wake();
                return Some(connection);
            }
        }
        None
    }

    /// Queues up for a connection: one that comes back, or one that is being opened, for whomever.
    pub(in crate::proxy::upstream) fn queue_up(self: &Rc<Self>) -> Wanted {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting.borrow_mut();
        // Those that gave up leave a place behind.
        if waiting.len() > 2 * self.wanted.get() + 16 {
            waiting.retain(|one| !one.is_closed());
        }
        waiting.push_back(sender);
        self.wanted.set(self.wanted.get() + 1);
        Wanted { pool: self.clone(), receiver, served: false }
    }

    /// True when more requests wait than connections are being opened. Those that were opened for requests which gave up count: a client that cancels
    /// what it asks for must not make us open one connection each.
    pub(in crate::proxy::upstream) fn wants_another(&self) -> bool {
        self.opening.get() < self.wanted.get()
    }

    /// Notes that a connection is being opened.
    pub(in crate::proxy::upstream) fn begin_opening(self: &Rc<Self>) -> Opening {
        self.opening.set(self.opening.get() + 1);
        Opening(self.clone())
    }

    /// Tells the request that has waited longest that a connection could not be opened.
    pub(in crate::proxy::upstream) fn fail_one(&self, error: Error) {
        drop(self.serve_one(Err(error)));
    }

    /// Takes a connection back, or gives it to the request that has waited longest.
    pub(super) fn put_back(self: &Rc<Self>, connection: H1Connection, limits: Limits) {
        if let Some(Ok(lease)) = self.serve_one(Ok(Lease::of(connection, limits, self.clone())))
            && let Some(mut connection) = lease.detach()
            && !self.retired.get()
        {
            connection.rest();
            self.idle.borrow_mut().push(connection);
        }
    }

    /// Gives this to the request that has waited longest; back when none waits.
    fn serve_one(&self, mut outcome: Result<Lease, Error>) -> Option<Result<Lease, Error>> {
        loop {
            let Some(waiting) = self.waiting.borrow_mut().pop_front() else { return Some(outcome) };
            match waiting.send(outcome) {
                Ok(()) => {
                    self.left_queue();
                    return None;
                }
                Err(back) => outcome = back,
            }
        }
    }

    fn left_queue(&self) {
        self.wanted.set(self.wanted.get().saturating_sub(1));
    }
}

/// HTTP/2: exchanges share connections.
impl EndpointPool {
    /// A connection with room for one more stream.
    pub(in crate::proxy::upstream) fn with_room(
        &self,
        limits: &Pool,
        now: Instant,
    ) -> Option<Rc<H2Connection>> {
        let mut h2 = self.h2.borrow_mut();
        h2.retain(|connection| connection.is_usable(now, limits));
        h2.iter().find(|connection| connection.has_room(limits)).cloned()
    }

    /// Whether a connection is being opened.
    pub(in crate::proxy::upstream) fn opens_h2(&self) -> bool {
        self.h2_opening.get()
    }

    /// Notes that a connection is being opened.
    pub(in crate::proxy::upstream) fn begin_h2_opening(self: &Rc<Self>) -> H2Opening {
        self.h2_opening.set(true);
        H2Opening { pool: self.clone(), failure: None }
    }

    /// Queues up for news: a connection was opened, or failed to, or a stream has ended.
    pub(in crate::proxy::upstream) fn h2_news(self: &Rc<Self>) -> News {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.h2_waiting.borrow_mut();
        // Those that gave up leave a place behind.
        if waiting.len() == waiting.capacity() {
            waiting.retain(|one| !one.is_closed());
        }
        waiting.push_back(sender);
        News { pool: self.clone(), receiver, heard: false }
    }

    /// A stream has ended: the request that has waited longest looks for room again.
    pub(in crate::proxy::upstream) fn stream_ended(&self) {
        while let Some(waiting) = self.h2_waiting.borrow_mut().pop_front() {
            if waiting.send(None).is_ok() {
                return;
            }
        }
    }

    /// A connection has ended by itself.
    pub(in crate::proxy::upstream) fn forget_closed(&self) {
        self.h2.borrow_mut().retain(|connection| !connection.is_closed());
        self.stream_ended();
    }
}

impl H2Opening {
    pub(in crate::proxy::upstream) fn succeeded(self, connection: Rc<H2Connection>) {
        self.pool.h2.borrow_mut().push(connection);
    }

    /// All who wait share the outcome: one after the other, each would spend the time to connect again.
    pub(in crate::proxy::upstream) fn failed(mut self, error: &Error) {
        self.failure = Some((error.reason(), error.cause()));
    }
}

impl Drop for H2Opening {
    fn drop(&mut self) {
        self.pool.h2_opening.set(false);
        for waiting in self.pool.h2_waiting.take() {
            // Who does not listen any more has given up.
            let _ = waiting.send(self.failure.clone());
        }
    }
}

impl Wanted {
    /// What it was given.
    pub(in crate::proxy::upstream) async fn served(&mut self) -> Result<Lease, Error> {
        let got = (&mut self.receiver).await;
        self.served = true;
        got.unwrap_or_else(|_| Err(Reason::Internal.into()))
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        // A connection that came too late goes on to the next one.
        if !self.served && self.receiver.try_recv().is_err() {
            self.pool.left_queue();
        }
    }
}

impl News {
    /// Resolves when there may be room; with the reason when a connection could not be opened.
    pub(in crate::proxy::upstream) async fn heard(&mut self) -> Option<OpenFailure> {
        let news = (&mut self.receiver).await;
        self.heard = true;
        news.ok().flatten()
    }
}

impl Drop for News {
    fn drop(&mut self) {
        // News that came too late are for the next one.
        if !self.heard && self.receiver.try_recv().is_ok() {
            self.pool.stream_ended();
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.opening.set(self.0.opening.get().saturating_sub(1));
    }
}

fn overflow(cluster: &Cluster, what: &str) -> Error {
    let name = &cluster.mesh.name;
    Error::new(Reason::UpstreamOverflow).retry_safe().detail(format!("{what} of cluster {name} reached"))
}
