//! HTTP/2 connections: opened one at a time, shared by exchanges.

use crate::mesh::Pool;
use crate::proxy::cluster::Picked;
use crate::proxy::coalesce;
use crate::proxy::upstream::MAX_BUFFER;
use crate::proxy::upstream::connect::{Target, connect};
use crate::proxy::upstream::pool::{EndpointPool, Open, PENDING_TIMEOUT};
use crate::proxy::worker::Worker;
use crate::snapshot::Cluster;
use bytes::Bytes;
use filter_api::{ConnectionFacts, Error, Reason};
use h2::client::SendRequest;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

/// What one stream may have in flight towards us.
const STREAM_WINDOW: u32 = 64 * 1024;

/// Streams on one connection before another is opened: half of what the connection's window can hold if every reader stops.
const STREAMS_PER_CONNECTION: u32 = 100;

/// Room for every stream to be pinned by a reader that stopped, twice over.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS_PER_CONNECTION * 2;

/// A shared connection of one worker.
#[derive(Debug)]
pub(crate) struct H2Connection {
    sender: RefCell<SendRequest<Bytes>>,
    local: Option<SocketAddr>,
    active: Cell<u32>,
    requests: Cell<u32>,
    opened: Instant,
    idle_since: Cell<Instant>,
    closed: Rc<Cell<bool>>,
    settings: Rc<Settings>,
    ping: RefCell<Option<h2::PingPong>>,
    open: Open,
}

/// Whether the peer's first SETTINGS have arrived: what they do not allow cannot be told from what they have not allowed yet.
#[derive(Debug, Default)]
struct Settings {
    known: Cell<bool>,
    arrived: Notify,
}

/// One stream of a connection, until the exchange is over.
#[derive(Debug)]
pub(super) struct Stream(Rc<H2Connection>);

/// A connection with room for one more stream, once there is one: a new one, or one of whose streams another has ended.
pub(super) async fn wait(
    worker: &Rc<Worker>,
    pool: &Rc<EndpointPool>,
    picked: &Picked,
    downstream: &Arc<ConnectionFacts>,
) -> Result<Rc<H2Connection>, Error> {
    let cluster = &picked.cluster;
    let mut pending = None;
    let mut late = pin!(sleep(PENDING_TIMEOUT));
    loop {
        let mut freed = pin!(cluster.state.connection_freed());
        freed.as_mut().enable();
        if let Some(connection) = pool.with_room(&cluster.mesh.pool, Instant::now()) {
            return Ok(connection);
        }
        let mut news = pool.h2_news();
        let mut limited = false;
        if !pool.opens_h2() {
            match pool.may_open(cluster) {
                Some(open) => {
                    let marker = pool.begin_h2_opening();
                    let opener = Opener {
                        worker: worker.clone(),
                        target: picked.target.clone(),
                        cluster: cluster.clone(),
                        downstream: downstream.clone(),
                    };
                    tokio::task::spawn_local(async move {
                        // A request that gives up leaves the connection to the next one.
                        match opener.open(open).await {
                            Ok(connection) => marker.succeeded(connection),
                            Err(error) => marker.failed(&error),
                        }
                    });
                }
                None => {
                    limited = true;
                    if pending.is_none() {
                        let permit = EndpointPool::may_wait(cluster);
                        if permit.is_err() {
                            worker.count_overflow(cluster);
                        }
                        pending = Some(permit?);
                    }
                }
            }
        }
        tokio::select! {
            biased;
            failure = news.heard() => if let Some((reason, cause)) = failure {
                let failure = Error::new(reason).retry_safe();
                return Err(match cause {
                    Some(cause) => failure.source(cause),
                    None => failure,
                });
            },
            () = freed, if limited => {}
            () = &mut late, if limited => {
                worker.count_overflow(cluster);
                return Err(EndpointPool::waited_too_long(cluster));
            }
        }
    }
}

/// Opens a connection.
struct Opener {
    worker: Rc<Worker>,
    target: Target,
    cluster: Arc<Cluster>,
    downstream: Arc<ConnectionFacts>,
}

impl Opener {
    async fn open(self, open: Open) -> Result<Rc<H2Connection>, Error> {
        let stream = connect(&self.target, &self.cluster.mesh, Some(&self.downstream)).await?;
        let local = stream.local_address();
        let (stream, to_send) = coalesce::collect(stream);
        let handshake = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(MAX_BUFFER)
            .max_header_list_size(MAX_BUFFER as u32)
            .enable_push(false)
            .handshake::<_, Bytes>(stream)
            .await;
        let (sender, mut running) =
            handshake.map_err(|error| Error::new(Reason::ConnectFailure).retry_safe().source(error))?;
        let ping = RefCell::new(running.ping_pong());
        let closed = Rc::new(Cell::new(false));
        let settings = Rc::<Settings>::default();
        self.worker.count_upstream_connection(&self.cluster);
        let pool = open.pool().map(|pool| Rc::downgrade(&pool)).unwrap_or_default();
        tokio::task::spawn_local({
            let (closed, settings) = (closed.clone(), settings.clone());
            async move {
                // How it ends is reported to its streams.
                let _ = to_send.drive(running).await;
                closed.set(true);
                settings.arrived();
                if let Some(pool) = pool.upgrade() {
                    pool.forget_closed();
                }
            }
        });
        let now = Instant::now();
        Ok(Rc::new(H2Connection {
            sender: RefCell::new(sender),
            local,
            active: Cell::new(0),
            requests: Cell::new(0),
            opened: now,
            idle_since: Cell::new(now),
            closed,
            settings,
            ping,
            open,
        }))
    }
}

impl H2Connection {
    /// Streams now.
    pub(in crate::proxy::upstream) fn active(&self) -> u32 {
        self.active.get()
    }

    pub(in crate::proxy::upstream) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// False when it is closed, too old, used up, or was idle for too long.
    pub(in crate::proxy::upstream) fn is_usable(&self, now: Instant, limits: &Pool) -> bool {
        let old =
            !limits.max_connection_duration.is_zero() && now - self.opened >= limits.max_connection_duration;
        let used_up = limits.max_requests_per_connection != 0
            && self.requests.get() >= limits.max_requests_per_connection;
        let idle = self.active.get() == 0
            && !limits.idle_timeout.is_zero()
            && now - self.idle_since.get() >= limits.idle_timeout;
        !(self.closed.get() || old || used_up || idle)
    }

    pub(in crate::proxy::upstream) fn has_room(&self, limits: &Pool) -> bool {
        let configured =
            if limits.max_concurrent_streams == 0 { u32::MAX } else { limits.max_concurrent_streams };
        let peer = u32::try_from(self.sender.borrow().current_max_send_streams()).unwrap_or(u32::MAX);
        self.active.get() < configured.min(peer).min(STREAMS_PER_CONNECTION)
    }

    /// No request may use it any more.
    pub(super) fn give_up(&self) {
        self.closed.set(true);
    }

    pub(super) fn sender(&self) -> SendRequest<Bytes> {
        self.sender.borrow().clone()
    }

    pub(super) fn local(&self) -> Option<SocketAddr> {
        self.local
    }

    /// Whether requests have been sent on it.
    pub(super) fn was_used(&self) -> bool {
        self.requests.get() > 0
    }

    /// An answer has come, and the peer's SETTINGS came before it.
    pub(super) fn answered(&self) {
        self.settings.known.set(true);
    }

    /// Whether the peer takes extended CONNECT (RFC 8441 section 3). It says so in its first SETTINGS, which may still be on their way.
    pub(super) async fn takes_extended_connect(&self, patience: Duration) -> bool {
        let taken = || self.sender.borrow().is_extended_connect_protocol_enabled();
        if taken() || self.settings.known.get() {
            return taken();
        }
        let mut arrived = pin!(self.settings.arrived.notified());
        arrived.as_mut().enable();
        // SETTINGS is the first frame of a server: it has come when the answer to a PING has.
        if let Some(mut ping) = self.ping.borrow_mut().take() {
            let settings = self.settings.clone();
            tokio::task::spawn_local(async move {
                // Fails only when the connection is gone, which is as much of an answer.
                let _ = ping.ping(h2::Ping::opaque()).await;
                settings.arrived();
            });
        }
        // Late, it takes none as far as we know.
        let _ = tokio::time::timeout(patience, arrived).await;
        taken()
    }
}

impl Settings {
    fn arrived(&self) {
        self.known.set(true);
        self.arrived.notify_waiters();
    }
}

impl Stream {
    pub(super) fn new(connection: Rc<H2Connection>) -> Self {
        connection.active.set(connection.active.get() + 1);
        connection.requests.set(connection.requests.get().saturating_add(1));
        Self(connection)
    }

    pub(super) fn connection(&self) -> &H2Connection {
        &self.0
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get().saturating_sub(1));
        if self.0.active.get() == 0 {
            self.0.idle_since.set(Instant::now());
        }
        if let Some(pool) = self.0.open.pool() {
            pool.stream_ended();
        }
    }
}
