//! One accepted connection: where it wanted to go, what it speaks, which chain takes it.

use super::detect::{self, Detected, hello};
use super::http;
use super::proxy_protocol;
use super::record::Recorded;
use super::socket;
use super::stream::Stream;
use super::tcp;
use super::worker::{Accepted, Worker};
use crate::mesh::{Direction, Interception, Name, TransportProtocol};
use crate::snapshot::{ChainProtocol, ChainQuery, Http, Listener, Needs};
use bytes::{Buf, Bytes, BytesMut};
use filter_api::{ConnectionFacts, Protocol, Reason, Request};
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// A peer that has to send a PROXY protocol header must do so within this time.
const PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// An HTTP/1 connection that has to end waits so long for a last request, which is answered with `Connection: close`: closed at once, it would
/// cost the request that is on its way.
const LAST_CALL: Duration = Duration::from_secs(1);

/// What is known of a downstream connection while it lives.
pub(crate) struct Downstream {
    pub(crate) worker: Rc<Worker>,
    pub(crate) facts: Arc<ConnectionFacts>,
    pub(crate) conn: Rc<Conn>,
    listener: Name,
    transport: TransportProtocol,
    http: RefCell<(u64, Arc<Http>)>,
}

impl Downstream {
    /// The chain's HTTP settings as the newest snapshot has them. A chain that is gone serves its last requests as it was, and closes.
    pub(crate) fn http(&self) -> Arc<Http> {
        self.look();
        self.http.borrow().1.clone()
    }

    /// Follows the newest snapshot. Cheap when there is none since the last look.
    pub(super) fn look(&self) {
        let snapshot = self.worker.snapshot();
        let mut known = self.http.borrow_mut();
        if known.0 != snapshot.generation {
            known.0 = snapshot.generation;
            let listener = snapshot.listener(&self.listener);
            let chain = listener.and_then(|listener| listener.chain(&query(&self.facts, self.transport)));
            match chain.map(|chain| &chain.protocol) {
                Some(ChainProtocol::Http(http) | ChainProtocol::Detect { http, .. }) => {
                    known.1 = http.clone();
                }
                _ => self.conn.close(Close::Graceful),
            }
        }
    }
}

/// Serves an accepted connection until it ends.
pub(super) async fn serve<S>(
    worker: Rc<Worker>,
    listener: Name,
    mut stream: Stream,
    accepted: Accepted,
    peer: Option<SocketAddr>,
    stack: S,
) where
    S: tower::Service<Request, Response = ::http::Response<Recorded>, Error = Infallible, Future: 'static>
        + Clone
        + 'static,
{
    let bound = worker.snapshot().listener(&listener).cloned();
    let Some(bound) = bound else { return };
    let unix = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    let direct_remote = peer.unwrap_or(unix);
    let mut local = stream.local_address().unwrap_or(unix);
    let mut remote = direct_remote;
    let mut first = BytesMut::new();
    if let Some(expected) = &bound.mesh.proxy_protocol {
        let believed = expected.from.iter().any(|net| net.contains(&direct_remote.ip().to_canonical()));
        match read_proxy_header(&mut stream, &mut first, believed).await {
            Ok(Some((source, destination))) => (remote, local) = (source, destination),
            Ok(None) => {}
            Err(why) => {
                return worker.refuse_connection(&bound, direct_remote, Reason::DownstreamProtocol, &why);
            }
        }
    }
    let original_destination = match bound.mesh.interception {
        None => None,
        Some(Interception::Tproxy) => Some(local),
        Some(Interception::Redirect) => match &stream {
            Stream::Tcp(stream) => socket::original_dst(stream).ok(),
            Stream::Unix(_) => None,
        },
    };
    if let Some(original) = original_destination {
        local = original;
        if bound.mesh.direction == Direction::Outbound && worker.is_own_address(original) {
            let why = format!("its destination {original} is this proxy itself");
            return worker.refuse_connection(&bound, direct_remote, Reason::Loop, &why);
        }
    }
    let listener = match original_destination {
        Some(original) if bound.mesh.hand_over => {
            worker.snapshot().hand_over(bound.mesh.direction, original).cloned().unwrap_or(bound)
        }
        _ => bound,
    };
    let seen = match look(&worker, &listener, &mut stream, first, original_destination, peer).await {
        Ok(seen) => seen,
        Err(why) => {
            return worker.refuse_connection(&listener, direct_remote, Reason::DownstreamClosed, &why);
        }
    };
    let transport =
        if seen.protocol == Protocol::Tls { TransportProtocol::Tls } else { TransportProtocol::RawBuffer };
    let facts = Arc::new(ConnectionFacts {
        listener: listener.mesh.name.clone(),
        remote,
        direct_remote,
        local,
        original_destination,
        protocol: seen.protocol,
        server_name: seen.server_name,
        tls: None,
    });
    let Some(chain) = listener.chain(&query(&facts, transport)).cloned() else {
        return worker.refuse_connection(
            &listener,
            direct_remote,
            Reason::NoRoute,
            "no filter chain takes it",
        );
    };
    let (conn, phase) = Conn::new(&worker, listener.mesh.direction, facts.protocol);
    let io = Io { stream, first: seen.bytes, phase, _accepted: accepted };
    let http1_or_2 = matches!(facts.protocol, Protocol::Http1 | Protocol::Http2);
    match &chain.protocol {
        ChainProtocol::Http(http) | ChainProtocol::Detect { http, .. } if http1_or_2 => {
            conn.set_limits(&http.mesh);
            let _registered = worker.register(&conn);
            let generation = worker.snapshot().generation;
            let downstream = Downstream {
                conn,
                facts,
                listener: listener.mesh.name.clone(),
                transport,
                http: RefCell::new((generation, http.clone())),
                worker,
            };
            http::serve(Rc::new(downstream), stack, io).await;
        }
        ChainProtocol::Tcp(tcp) | ChainProtocol::Detect { tcp, .. } => {
            tcp::serve(&worker, listener.mesh.direction, &facts, tcp, io).await;
        }
        ChainProtocol::Http(_) => {
            let why = format!("it speaks {}, and the port is declared HTTP", facts.protocol.as_str());
            worker.refuse_connection(&listener, direct_remote, Reason::DownstreamProtocol, &why);
        }
        ChainProtocol::Refuse(why) => {
            let why = format!("{local}: {why}");
            worker.refuse_connection(&listener, direct_remote, Reason::NoRoute, &why);
        }
    }
}

fn query(facts: &ConnectionFacts, transport: TransportProtocol) -> ChainQuery<'_> {
    ChainQuery {
        destination: facts.original_destination.or(Some(facts.local)),
        source: facts.remote.ip(),
        transport,
        server_name: facts.server_name.as_deref(),
        application_protocol: match facts.protocol {
            Protocol::Http1 => Some("http/1.1"),
            Protocol::Http2 => Some("h2c"),
            Protocol::Tls | Protocol::Tcp => None,
        },
    }
}

/// What the first bytes say.
struct Seen {
    bytes: Bytes,
    protocol: Protocol,
    server_name: Option<Arc<str>>,
}

/// Reads as many bytes as it takes to know the protocol, and none where it is declared to be plain TCP or the server speaks first.
async fn look(
    worker: &Worker,
    listener: &Listener,
    stream: &mut Stream,
    mut bytes: BytesMut,
    destination: Option<SocketAddr>,
    peer: Option<SocketAddr>,
) -> Result<Seen, String> {
    let local = destination.or_else(|| stream.local_address());
    let needs = listener.needs(local);
    let tcp = |bytes: BytesMut| Seen { bytes: bytes.freeze(), protocol: Protocol::Tcp, server_name: None };
    // A declared HTTP port still says by its first bytes which HTTP; it is waited for as long as for any request.
    let declared = (needs == Needs::Nothing).then(|| {
        let source = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
        let transport = TransportProtocol::RawBuffer;
        let query = ChainQuery {
            destination: local,
            source,
            transport,
            server_name: None,
            application_protocol: None,
        };
        listener.chain(&query).and_then(|chain| chain.protocol.http())
    });
    let limit = match declared {
        Some(Some(http)) => http.mesh.idle_timeout,
        Some(None) => return Ok(tcp(bytes)),
        None if destination.is_some_and(|address| detect::server_first(address.port())) => {
            return Ok(tcp(bytes));
        }
        None => listener.mesh.detection_timeout,
    };
    let reading = async {
        loop {
            let protocol = match detect::classify(&bytes) {
                Detected::Tls if needs == Needs::ServerName => match hello::client_hello(&bytes) {
                    hello::Hello::NeedMore if bytes.len() < hello::MAX_HELLO => None,
                    hello::Hello::Parsed(hello) => {
                        return Ok((Protocol::Tls, hello.sni.map(|name| Arc::from(&*name))));
                    }
                    _ => Some(Protocol::Tls),
                },
                Detected::Tls => Some(Protocol::Tls),
                Detected::Http1 => Some(Protocol::Http1),
                Detected::Http2 => Some(Protocol::Http2),
                Detected::Unknown => Some(Protocol::Tcp),
                Detected::NeedMore => None,
            };
            if let Some(protocol) = protocol {
                return Ok((protocol, None));
            }
            bytes.reserve(1024);
            match stream.read_buf(&mut bytes).await {
                Ok(0) if bytes.is_empty() => return Err("it was closed before its first byte".to_owned()),
                // An end after some bytes of an unknown protocol is that protocol's own business.
                Ok(0) => return Ok((Protocol::Tcp, None)),
                Ok(_) => {}
                Err(error) => return Err(format!("it broke before its protocol was known: {error}")),
            }
        }
    };
    let found = if limit.is_zero() {
        reading.await
    } else {
        tokio::time::timeout(limit, reading).await.unwrap_or_else(|_| {
            worker.count_detection_timeout(&listener.mesh.name);
            Ok((Protocol::Tcp, None))
        })
    };
    let (protocol, server_name) = found?;
    Ok(Seen { bytes: bytes.freeze(), protocol, server_name })
}

/// Reads the header that a PROXY protocol peer sends first. Only peers on the list may send one.
async fn read_proxy_header(
    stream: &mut Stream,
    bytes: &mut BytesMut,
    believed: bool,
) -> Result<Option<(SocketAddr, SocketAddr)>, String> {
    if !believed {
        return Err("the listener takes PROXY protocol, and this peer is not on its list".to_owned());
    }
    let reading = async {
        loop {
            match proxy_protocol::parse(bytes) {
                proxy_protocol::Parsed::Done { header, consumed } => {
                    bytes.advance(consumed);
                    return Ok(match header.addresses {
                        proxy_protocol::Addresses::Inet { source, destination } => {
                            Some((source, destination))
                        }
                        _ => None,
                    });
                }
                proxy_protocol::Parsed::Invalid(refusal) => return Err(refusal.to_string()),
                proxy_protocol::Parsed::NeedMore => {
                    bytes.reserve(512);
                    match stream.read_buf(bytes).await {
                        Ok(0) => return Err("it was closed within its PROXY protocol header".to_owned()),
                        Ok(_) => {}
                        Err(error) => return Err(error.to_string()),
                    }
                }
            }
        }
    };
    let late = Err(format!("no PROXY protocol header within {PROXY_HEADER_TIMEOUT:?}"));
    tokio::time::timeout(PROXY_HEADER_TIMEOUT, reading).await.unwrap_or(late)
}

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
    pub(super) place: Cell<usize>,
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
struct Phase {
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
    fn enter(&self, state: u8) {
        self.state.store(state, Ordering::Relaxed);
        self.since.store(self.clock.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Conn {
    fn new(worker: &Worker, direction: Direction, protocol: Protocol) -> (Rc<Self>, Arc<Phase>) {
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

    fn set_limits(&self, settings: &crate::mesh::HttpChain) {
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
    pub(super) async fn drive<C: Future>(
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
    pub(super) fn new(conn: &Rc<Conn>) -> Self {
        conn.active.set(conn.active.get() + 1);
        conn.exchanges.set(conn.exchanges.get() + 1);
        conn.phase.enter(BUSY);
        Self(conn.clone())
    }

    /// True when this exchange should be the connection's last.
    pub(super) fn is_last(&self) -> bool {
        self.0.close.get() != Close::Open
    }

    /// Its connection.
    pub(super) fn conn(&self) -> &Rc<Conn> {
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

/// The socket of a connection, with the bytes that detection has read already.
#[derive(Debug)]
pub(crate) struct Io {
    stream: Stream,
    first: Bytes,
    phase: Arc<Phase>,
    _accepted: Accepted,
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.first.is_empty() {
            let amount = this.first.len().min(buf.remaining());
            buf.put_slice(&this.first.split_to(amount));
            if this.first.is_empty() {
                this.first = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        let polled = Pin::new(&mut this.stream).poll_read(task, buf);
        if polled.is_ready() && !this.phase.multiplexed && this.phase.state.load(Ordering::Relaxed) == IDLE {
            this.phase.enter(HEAD);
        }
        polled
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, task: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(task, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(task, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(task)
    }

    fn poll_shutdown(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(task)
    }
}
