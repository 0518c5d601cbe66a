//! An HTTP/1 connection, and the exchange that has it.

use super::endpoint::EndpointPool;
use crate::proxy::cluster::Picked;
use crate::snapshot::{Cluster, Permit};
use filter_api::{Body, Cx};
use hyper::client::conn::http1::SendRequest;
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// An HTTP/1 connection.
#[derive(Debug)]
pub(in crate::proxy::upstream) struct H1Connection {
    pub(in crate::proxy::upstream) sender: SendRequest<Body>,
    pub(in crate::proxy::upstream) local: Option<SocketAddr>,
    pub(in crate::proxy::upstream) requests: u32,
    opened: Instant,
    idle_since: Instant,
    rest: Rc<Rest>,
    _open: Open,
}

/// Whether a connection rests in its pool, and since when: the task that drives it notes when it is the server who ends that.
#[derive(Debug, Default)]
pub(in crate::proxy::upstream) struct Rest(Cell<Option<Instant>>);

/// Counts a connection from the decision to open it until it is closed.
#[derive(Debug)]
pub(in crate::proxy::upstream) struct Open {
    // Not owned: the pool owns the connection.
    pool: Weak<EndpointPool>,
    _permit: Permit,
}

/// A connection that an exchange has taken. Dropped at the end of the exchange, it goes back to its pool.
#[derive(Debug)]
pub(in crate::proxy::upstream) struct Lease {
    connection: Option<H1Connection>,
    limits: Limits,
    pool: Rc<EndpointPool>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    requests: u32,
    duration: Duration,
    idle: Duration,
}

impl H1Connection {
    /// A new connection.
    pub(in crate::proxy::upstream) fn new(
        sender: SendRequest<Body>,
        local: Option<SocketAddr>,
        rest: Rc<Rest>,
        open: Open,
    ) -> Self {
        let now = Instant::now();
        Self { sender, local, requests: 0, opened: now, idle_since: now, rest, _open: open }
    }

    /// How long it has been unused.
    pub(in crate::proxy::upstream) fn idle_for(&self, now: Instant) -> Duration {
        now - self.idle_since
    }

    pub(super) fn rest(&mut self) {
        self.idle_since = Instant::now();
        self.rest.0.set(Some(self.idle_since));
    }

    /// A request takes it.
    pub(super) fn wake(&self) {
        self.rest.0.set(None);
    }
}

impl Drop for H1Connection {
    fn drop(&mut self) {
        // What ends from here on, we have ended.
        self.wake();
    }
}

impl Rest {
    /// For how long the connection has rested, if it does.
    pub(in crate::proxy::upstream) fn so_far(&self, now: Instant) -> Option<Duration> {
        self.0.get().map(|since| now - since)
    }
}

impl Open {
    pub(super) fn new(pool: &Rc<EndpointPool>, permit: Permit) -> Self {
        Self { pool: Rc::downgrade(pool), _permit: permit }
    }

    /// The pool of the connection, unless it is gone.
    pub(in crate::proxy::upstream) fn pool(&self) -> Option<Rc<EndpointPool>> {
        self.pool.upgrade()
    }
}

impl Lease {
    pub(in crate::proxy::upstream) fn new(
        connection: H1Connection,
        cluster: &Cluster,
        pool: &Rc<EndpointPool>,
    ) -> Self {
        let limits = &cluster.mesh.pool;
        let limits = Limits {
            requests: limits.max_requests_per_connection,
            duration: limits.max_connection_duration,
            idle: limits.idle_timeout,
        };
        Self::of(connection, limits, pool.clone())
    }

    pub(super) fn of(connection: H1Connection, limits: Limits, pool: Rc<EndpointPool>) -> Self {
        Self { connection: Some(connection), limits, pool }
    }

    pub(in crate::proxy::upstream) fn connection(&mut self) -> Option<&mut H1Connection> {
        self.connection.as_mut()
    }

    /// Keeps the connection, and what else was picked, until the exchange is over.
    pub(in crate::proxy::upstream) fn hold(self, picked: Picked, cx: &Cx) {
        cx.hold(Box::new((self, picked)));
    }

    /// Takes the connection out of the pool's reach: it carries an upgrade, or it is broken.
    pub(in crate::proxy::upstream) fn detach(mut self) -> Option<H1Connection> {
        self.connection.take()
    }
}

impl Limits {
    fn allow(&self, connection: &H1Connection, now: Instant) -> bool {
        (self.requests == 0 || connection.requests < self.requests)
            && (self.duration.is_zero() || now - connection.opened < self.duration)
            && !(self.idle.is_zero() && self.requests == 1)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        if connection.sender.is_closed() || !self.limits.allow(&connection, Instant::now()) {
            return;
        }
        if connection.sender.is_ready() {
            self.pool.put_back(connection, self.limits);
            return;
        }
        // The end of the response has been read, but the connection's own task has not come round to it yet; or it is new, and the request that it
        // was opened for has gone. A body that was given up half way leaves the connection unusable, which `ready` reports.
        let (pool, limits) = (self.pool.clone(), self.limits);
        tokio::task::spawn_local(async move {
            if let Ok(Ok(())) = tokio::time::timeout(Duration::from_secs(5), connection.sender.ready()).await
            {
                pool.put_back(connection, limits);
            }
        });
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.closed_one();
        }
    }
}
