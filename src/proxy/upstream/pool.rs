//! The connections of one worker, by endpoint.

use super::h2::H2Connection;
use crate::mesh::Pool;
use crate::proxy::cluster::Picked;
use crate::snapshot::{Cluster, Permit, Resource};
use filter_api::{Body, Cx, Error, Reason};
use hyper::client::conn::http1::SendRequest;
use rustc_hash::FxHashMap;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// All pools of a worker. Keyed by the endpoint's id, which is unique for the life of the process.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    endpoints: RefCell<FxHashMap<(u32, u32), Rc<EndpointPool>>>,
    /// Of clusters that forward to wherever the downstream wanted to go.
    addresses: RefCell<FxHashMap<(u32, SocketAddr), Rc<EndpointPool>>>,
}

/// The connections of one worker to one endpoint.
#[derive(Debug, Default)]
pub(crate) struct EndpointPool {
    idle: RefCell<Vec<H1Connection>>,
    /// Requests that found the connection limit reached, oldest first.
    waiting: RefCell<VecDeque<oneshot::Sender<H1Connection>>>,
    /// HTTP/1 connections of this worker: idle, busy, or being opened.
    open: Cell<u32>,
    pub(super) h2: RefCell<Vec<Rc<H2Connection>>>,
    /// Who waits for the HTTP/2 connection that is being opened; each hears why, if that fails.
    pub(super) h2_opening: RefCell<Vec<oneshot::Sender<Option<OpenFailure>>>>,
    /// The shortest time after which this server was seen to close an idle connection, or said that it will.
    learned_idle: Cell<Option<Duration>>,
    retired: Cell<bool>,
}

/// An HTTP/1 connection.
#[derive(Debug)]
pub(crate) struct H1Connection {
    pub(super) sender: SendRequest<Body>,
    pub(super) local: Option<SocketAddr>,
    pub(super) requests: u32,
    opened: Instant,
    idle_since: Instant,
    _open: Open,
}

/// Counts a connection from the decision to open it until it is closed.
#[derive(Debug)]
pub(super) struct Open {
    pool: Rc<EndpointPool>,
    _permit: Permit,
}

/// Why a connection could not be opened: the reason and its cause in words.
pub(super) type OpenFailure = (Reason, Option<String>);

/// What a request that waited got.
pub(super) enum Waited {
    /// A connection that came back.
    Connection(H1Connection),
    /// The right to open one.
    MayOpen(Open),
}

/// A connection that an exchange has taken. Dropped at the end of the exchange, it goes back to its pool.
#[derive(Debug)]
pub(super) struct Lease {
    connection: Option<H1Connection>,
    limits: Limits,
    pool: Rc<EndpointPool>,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    requests: u32,
    duration: Duration,
    idle: Duration,
}

/// How long a request may wait for a connection to come back when the limit of connections is reached and no limit of time is set on its route.
const PENDING_TIMEOUT: Duration = Duration::from_secs(15);

/// Addresses that passthrough clusters keep connections to; beyond, a connection is used once.
const MAX_ADDRESSES: usize = 4096;

/// A connection is not used in the last part of the time after which its server closes it: the request could cross the FIN.
const IDLE_SAFETY: f64 = 0.9;

impl Pools {
    /// The pool of an endpoint.
    pub(crate) fn of(&self, cluster: u32, endpoint: u32) -> Rc<EndpointPool> {
        if let Some(pool) = self.endpoints.borrow().get(&(cluster, endpoint)) {
            return pool.clone();
        }
        self.endpoints.borrow_mut().entry((cluster, endpoint)).or_default().clone()
    }

    /// The pool of an address that a passthrough cluster forwards to.
    pub(crate) fn of_address(&self, cluster: u32, address: SocketAddr) -> Rc<EndpointPool> {
        let mut addresses = self.addresses.borrow_mut();
        if addresses.len() >= MAX_ADDRESSES && !addresses.contains_key(&(cluster, address)) {
            return Self::for_one_request();
        }
        addresses.entry((cluster, address)).or_default().clone()
    }

    /// A pool that keeps nothing: its connection is for one request alone, as one whose PROXY protocol header names the client is.
    pub(crate) fn for_one_request() -> Rc<EndpointPool> {
        Rc::new(EndpointPool { retired: Cell::new(true), ..EndpointPool::default() })
    }

    /// Lets go of the pools whose endpoint `keep` does not know any more: idle connections close, busy ones after their exchange. Of an address,
    /// only the cluster is asked for.
    pub(crate) fn retain(&self, mut keep: impl FnMut(u32, Option<u32>) -> bool) {
        let mut kept = |cluster, endpoint, pool: &EndpointPool| {
            let keep = keep(cluster, endpoint);
            if !keep {
                pool.retire();
            }
            keep
        };
        self.endpoints.borrow_mut().retain(|(cluster, endpoint), pool| kept(*cluster, Some(*endpoint), pool));
        self.addresses.borrow_mut().retain(|(cluster, _), pool| kept(*cluster, None, pool));
    }

    /// Closes what was idle for too long. Called by the worker's clock.
    pub(crate) fn expire(&self, now: Instant, limits: impl Fn(u32) -> Option<Pool>) {
        let expire = |cluster: u32, pool: &EndpointPool| {
            if let Some(limits) = limits(cluster) {
                let limit = pool.idle_limit(limits.idle_timeout);
                pool.idle.borrow_mut().retain(|connection| {
                    !connection.sender.is_closed()
                        && limit.is_none_or(|limit| now - connection.idle_since < limit)
                });
                pool.h2.borrow_mut().retain(|connection| connection.is_usable(now, &limits));
            }
        };
        self.endpoints.borrow().iter().for_each(|((cluster, _), pool)| expire(*cluster, pool));
        self.addresses.borrow_mut().retain(|(cluster, _), pool| {
            expire(*cluster, pool);
            Rc::strong_count(pool) > 1 || !pool.idle.borrow().is_empty() || !pool.h2.borrow().is_empty()
        });
    }

    /// True when no connection is kept.
    pub(crate) fn are_empty(&self) -> bool {
        let empty = |pool: &EndpointPool| pool.idle.borrow().is_empty() && pool.h2.borrow().is_empty();
        self.endpoints.borrow().values().all(|pool| empty(pool))
            && self.addresses.borrow().values().all(|pool| empty(pool))
    }

    /// Idle and open connections, for metrics.
    pub(crate) fn count(&self, cluster: u32) -> (usize, usize) {
        let endpoints = self.endpoints.borrow();
        let addresses = self.addresses.borrow();
        let endpoints = endpoints.iter().filter(|((of, _), _)| *of == cluster).map(|(_, pool)| pool);
        let addresses = addresses.iter().filter(|((of, _), _)| *of == cluster).map(|(_, pool)| pool);
        endpoints.chain(addresses).fold((0, 0), |(idle, open), pool| {
            let h2 = pool.h2.borrow();
            let h2_idle = h2.iter().filter(|connection| connection.active() == 0).count();
            (idle + pool.idle.borrow().len() + h2_idle, open + pool.open.get() as usize + h2.len())
        })
    }
}

impl EndpointPool {
    fn retire(&self) {
        self.retired.set(true);
        self.idle.borrow_mut().clear();
        self.h2.borrow_mut().clear();
    }

    /// The time that an unused connection may stay: the cluster's, or what was learned of the server, whichever is shorter.
    fn idle_limit(&self, configured: Duration) -> Option<Duration> {
        let configured = (!configured.is_zero()).then_some(configured);
        let learned = self.learned_idle.get().map(|learned| learned.mul_f64(IDLE_SAFETY));
        match (configured, learned) {
            (Some(configured), Some(learned)) => Some(configured.min(learned)),
            (one, other) => one.or(other),
        }
    }

    /// Remembers after which idle time the server closes.
    pub(super) fn learn_idle(&self, idle: Duration) {
        // Below that the pool would be of no use; a close so soon is a race like any other, and safe requests are sent again.
        if idle >= Duration::from_millis(100) {
            self.learned_idle.set(Some(self.learned_idle.get().map_or(idle, |known| known.min(idle))));
        }
    }

    /// An idle connection that can take a request now. Last in, first out: the warmest one, and the others can grow old and close.
    pub(super) fn take_idle(&self, limits: &Pool, now: Instant) -> Option<H1Connection> {
        let limit = self.idle_limit(limits.idle_timeout);
        let mut idle = self.idle.borrow_mut();
        let mut at = idle.len();
        while at > 0 {
            at -= 1;
            let connection = &idle[at];
            if connection.sender.is_closed() {
                let connection = idle.swap_remove(at);
                self.learn_idle(now - connection.idle_since);
            } else if limit.is_some_and(|limit| now - connection.idle_since >= limit) {
                idle.swap_remove(at);
            } else if connection.sender.is_ready() {
                return Some(idle.remove(at));
            }
        }
        None
    }

    /// Makes a new connection known.
    pub(super) fn opened(sender: SendRequest<Body>, local: Option<SocketAddr>, open: Open) -> H1Connection {
        let now = Instant::now();
        H1Connection { sender, local, requests: 0, opened: now, idle_since: now, _open: open }
    }

    /// The right to open one more connection. A worker that has none to this endpoint, and opens none, may always do so, whatever the limit.
    pub(super) fn may_open(self: &Rc<Self>, cluster: &Cluster) -> Option<Open> {
        let permit = cluster
            .acquire(Resource::Connections)
            .or_else(|| (self.open.get() == 0).then(|| cluster.acquire_anyway(Resource::Connections)))?;
        self.open.set(self.open.get() + 1);
        Some(Open { pool: self.clone(), _permit: permit })
    }

    /// Waits until a connection comes back, or may be opened since another one was closed.
    pub(super) async fn wait(self: &Rc<Self>, cluster: &Cluster) -> Result<Waited, Error> {
        let overflow = |what: &str| {
            let name = &cluster.mesh.name;
            Error::new(Reason::UpstreamOverflow)
                .retry_safe()
                .detail(format!("{what} of cluster {name} reached"))
        };
        let Some(_pending) = cluster.acquire(Resource::Pending) else {
            return Err(overflow("the limit of pending requests (http1MaxPendingRequests)"));
        };
        let (sender, mut receiver) = oneshot::channel();
        {
            let mut waiting = self.waiting.borrow_mut();
            // Those that gave up while nothing came back.
            while waiting.pop_front_if(|first| first.is_closed()).is_some() {}
            waiting.push_back(sender);
        }
        let late = tokio::time::sleep(PENDING_TIMEOUT);
        let mut late = std::pin::pin!(late);
        loop {
            let mut freed = std::pin::pin!(cluster.state.connection_freed());
            freed.as_mut().enable();
            if let Ok(connection) = receiver.try_recv() {
                return Ok(Waited::Connection(connection));
            }
            if let Some(open) = self.may_open(cluster) {
                return Ok(Waited::MayOpen(open));
            }
            tokio::select! {
                biased;
                Ok(connection) = &mut receiver => return Ok(Waited::Connection(connection)),
                () = freed => {}
                () = &mut late => return Err(overflow("the limit of connections (maxConnections)")),
            }
        }
    }

    /// Takes a connection back, or gives it to the request that has waited longest.
    fn put_back(&self, mut connection: H1Connection) {
        if self.retired.get() {
            return;
        }
        loop {
            let Some(waiting) = self.waiting.borrow_mut().pop_front() else { break };
            match waiting.send(connection) {
                Ok(()) => return,
                Err(back) => connection = back,
            }
        }
        connection.idle_since = Instant::now();
        self.idle.borrow_mut().push(connection);
    }
}

impl H1Connection {
    /// How long it has been unused.
    pub(super) fn idle_for(&self, now: Instant) -> Duration {
        now - self.idle_since
    }
}

impl Lease {
    pub(super) fn new(connection: H1Connection, cluster: &Cluster) -> Self {
        let limits = &cluster.mesh.pool;
        let limits = Limits {
            requests: limits.max_requests_per_connection,
            duration: limits.max_connection_duration,
            idle: limits.idle_timeout,
        };
        Self { pool: connection._open.pool.clone(), connection: Some(connection), limits }
    }

    pub(super) fn connection(&mut self) -> Option<&mut H1Connection> {
        self.connection.as_mut()
    }

    /// Keeps the connection, and what else was picked, until the exchange is over.
    pub(super) fn hold(self, picked: Picked, cx: &Cx) {
        cx.hold(Box::new((self, picked)));
    }

    /// Takes the connection out of the pool's reach: it carries an upgrade, or it is broken.
    pub(super) fn detach(mut self) -> Option<H1Connection> {
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
            self.pool.put_back(connection);
            return;
        }
        // The end of the response has been read, but the connection's own task has not come round to it yet. A body that was given up half
        // way leaves the connection unusable, which `ready` reports.
        let pool = self.pool.clone();
        tokio::task::spawn_local(async move {
            if let Ok(Ok(())) = tokio::time::timeout(Duration::from_secs(5), connection.sender.ready()).await
            {
                pool.put_back(connection);
            }
        });
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.pool.open.set(self.pool.open.get().saturating_sub(1));
    }
}
