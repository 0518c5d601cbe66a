//! HTTP/2 towards an endpoint, with the `h2` crate's client.

use super::connect::connect;
use super::h1::{MAX_BUFFER, is_idempotent, is_upgrade};
use super::pool::OpenFailure;
use crate::mesh::Pool;
use crate::proxy::cluster::Picked;
use crate::proxy::coalesce;
use crate::proxy::upstream::EndpointPool;
use crate::proxy::worker::Worker;
use crate::snapshot::{Permit, Resource};
use bytes::Bytes;
use filter_api::{Body, ConnectionFacts, Error, Reason, Request, Response};
use h2::client::SendRequest;
use http::header::{CONNECTION, HOST, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, Scheme, Uri};
use http::{Method, Version, request};
use http_body::Body as _;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, ready};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// What one stream may have in flight towards us.
const STREAM_WINDOW: u32 = 64 * 1024;

/// Streams on one connection before another is opened: half of what the connection's window can hold if every reader stops.
const STREAMS_PER_CONNECTION: u32 = 100;

/// Room for every stream to be pinned by a reader that stopped, twice over.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS_PER_CONNECTION * 2;

/// Attempts on a connection that was just going away.
const ATTEMPTS: u32 = 3;

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
    _permit: Permit,
}

/// One stream of a connection, until the exchange is over.
#[derive(Debug)]
struct Stream(Rc<H2Connection>);

pub(super) fn call(
    worker: Rc<Worker>,
    request: Request,
    picked: Picked,
) -> impl Future<Output = Result<Response, Error>> {
    let Request { head, body, cx } = request;
    let mut head = Some(head);
    async move {
        let pool = picked.pool.clone();
        if let Some(head) = &mut head {
            if is_upgrade(head) {
                let name = &picked.cluster.mesh.name;
                let detail = format!("cluster {name} speaks HTTP/2, over which no upgrade is carried");
                return Err(Error::new(Reason::UpgradeRefused).detail(detail));
            }
            to_http2(head)?;
        }
        let Some(permit) = picked.cluster.acquire(Resource::Requests) else {
            let name = &picked.cluster.mesh.name;
            let detail = format!("the limit of requests (http2MaxRequests) of cluster {name} reached");
            return Err(Error::new(Reason::UpstreamOverflow).retry_safe().detail(detail));
        };
        let no_body = body.is_end_stream();
        for attempt in 1..=ATTEMPTS {
            let Some(head_now) = head.take() else { break };
            let (connection, reused) = connection(&worker, &pool, &picked, &cx.connection).await?;
            let stream = Stream::new(connection);
            {
                let mut facts = cx.facts.borrow_mut();
                facts.upstream_local = stream.0.local;
                facts.upstream_sent = Some(std::time::Instant::now());
            }
            // The h2 client takes the head with it; an idempotent request without a body keeps a copy for a connection that went away.
            let again = (no_body && reused && is_idempotent(&head_now.method)).then(|| head_now.clone());
            let message = http::Request::from_parts(head_now, ());
            let sender = stream.0.sender.borrow().clone();
            let mut sender = match sender.ready().await {
                Ok(sender) => sender,
                Err(error) => {
                    stream.0.closed.set(true);
                    if attempt < ATTEMPTS {
                        head = Some(message.into_parts().0);
                        continue;
                    }
                    return Err(failure(error, false));
                }
            };
            let (response, send) = match sender.send_request(message, no_body) {
                Ok(sent) => sent,
                Err(error) => {
                    stream.0.closed.set(true);
                    match again {
                        Some(again) if attempt < ATTEMPTS => {
                            head = Some(again);
                            continue;
                        }
                        _ => return Err(failure(error, false)),
                    }
                }
            };
            if no_body {
                match response.await {
                    Ok(response) => return Ok(answer(response, (stream, permit, picked), &cx)),
                    Err(error) if attempt < ATTEMPTS && again.is_some() && never_processed(&error) => {
                        stream.0.closed.set(true);
                        head = again;
                        continue;
                    }
                    Err(error) => return Err(failure(error, true)),
                }
            }
            return Box::pin(with_body(response, send, body, (stream, permit, picked), &cx)).await;
        }
        Err(Reason::Internal.into())
    }
}

/// A request body on its way.
type Moving = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

/// Moves the request body while it waits for the response; what is left of it afterwards (streaming both ways) goes on by itself.
async fn with_body(
    mut response: h2::client::ResponseFuture,
    send: h2::SendStream<Bytes>,
    body: Body,
    held: Held,
    cx: &filter_api::Cx,
) -> Result<Response, Error> {
    let mut moving: Option<Moving> = Some(Box::pin(move_body(body, send)));
    let response = poll_fn(|task| {
        if let Some(future) = &mut moving
            && let Poll::Ready(done) = future.as_mut().poll(task)
        {
            moving = None;
            if let Err(error) = done {
                return Poll::Ready(Err(error));
            }
        }
        Pin::new(&mut response).poll(task).map_err(|error| failure(error, true))
    })
    .await?;
    if let Some(rest) = moving.take() {
        tokio::task::spawn_local(async move {
            // A body that breaks resets its stream, which the response body reports.
            let _ = rest.await;
        });
    }
    Ok(answer(response, held, cx))
}

/// Sends a body frame by frame, no faster than the peer's flow control allows.
async fn move_body(mut body: Body, mut send: h2::SendStream<Bytes>) -> Result<(), Error> {
    loop {
        let frame = poll_fn(|task| {
            // The peer may lose interest before the body ends.
            if let Poll::Ready(reset) = send.poll_reset(task) {
                return Poll::Ready(Err(reset));
            }
            Poll::Ready(Ok(ready!(Pin::new(&mut body).poll_frame(task))))
        })
        .await;
        match frame {
            Err(_) => return Ok(()),
            Ok(Some(Err(error))) => {
                send.send_reset(h2::Reason::CANCEL);
                return Err(error);
            }
            Ok(None) => {
                // Fails only when the stream is gone already.
                let _ = send.send_data(Bytes::new(), true);
                return Ok(());
            }
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => {
                    let end = body.is_end_stream();
                    if !send_data(&mut send, data, end).await || end {
                        return Ok(());
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        let _ = send.send_trailers(trailers);
                    }
                    return Ok(());
                }
            },
        }
    }
}

/// Sends one chunk as the window allows. False when the stream is gone.
async fn send_data(send: &mut h2::SendStream<Bytes>, mut data: Bytes, end: bool) -> bool {
    if data.is_empty() {
        return !end || send.send_data(data, true).is_ok();
    }
    while !data.is_empty() {
        send.reserve_capacity(data.len());
        let mut room = send.capacity();
        while room == 0 {
            match poll_fn(|task| send.poll_capacity(task)).await {
                Some(Ok(capacity)) => room = capacity,
                Some(Err(_)) | None => return false,
            }
        }
        let chunk = data.split_to(room.min(data.len()));
        if send.send_data(chunk, end && data.is_empty()).is_err() {
            return false;
        }
    }
    true
}

/// What an exchange keeps until it is over.
type Held = (Stream, Permit, Picked);

fn answer(response: http::Response<h2::RecvStream>, held: Held, cx: &filter_api::Cx) -> Response {
    cx.facts.borrow_mut().upstream_answered = Some(std::time::Instant::now());
    cx.hold(Box::new(held));
    let (head, body) = response.into_parts();
    Response { head, body: Body::h2(body) }
}

/// A connection with room for one more stream, and whether it had been used before.
async fn connection(
    worker: &Rc<Worker>,
    pool: &Rc<EndpointPool>,
    picked: &Picked,
    downstream: &ConnectionFacts,
) -> Result<(Rc<H2Connection>, bool), Error> {
    loop {
        let now = Instant::now();
        pool.h2.borrow_mut().retain(|connection| connection.is_usable(now, &picked.cluster.mesh.pool));
        let free = pool
            .h2
            .borrow()
            .iter()
            .find(|connection| connection.has_room(&picked.cluster.mesh.pool))
            .cloned();
        if let Some(connection) = free {
            return Ok((connection, true));
        }
        if let Some(permit) = may_open(pool, picked) {
            return Box::pin(open(worker, pool, picked, downstream, permit))
                .await
                .map(|connection| (connection, false));
        }
        // Somebody else is opening one: wait for it, then look again.
        let waiting = {
            let (sender, receiver) = oneshot::channel();
            pool.h2_opening.borrow_mut().push(sender);
            receiver
        };
        // All who wait share the outcome: one after the other, each would spend the time to connect again.
        if let Ok(Some((reason, cause))) = waiting.await {
            let failure = Error::new(reason).retry_safe();
            return Err(match cause {
                Some(cause) => failure.source(cause),
                None => failure,
            });
        }
    }
}

/// `None` while another request is already opening a connection: a burst must not open one connection each.
fn may_open(pool: &EndpointPool, picked: &Picked) -> Option<Permit> {
    let first = pool.h2_opening.borrow().is_empty();
    if !first {
        return None;
    }
    // A placeholder marks that an opening is under way.
    pool.h2_opening.borrow_mut().push(oneshot::channel().0);
    let cluster = &picked.cluster;
    // More streams than one connection takes go on a further one whatever the limit: it is one of HTTP/1 and TCP connections (Envoy).
    Some(
        cluster
            .acquire(Resource::Connections)
            .unwrap_or_else(|| cluster.acquire_anyway(Resource::Connections)),
    )
}

async fn open(
    worker: &Rc<Worker>,
    pool: &Rc<EndpointPool>,
    picked: &Picked,
    downstream: &ConnectionFacts,
    permit: Permit,
) -> Result<Rc<H2Connection>, Error> {
    /// Wakes who waits, also when the opening failed or was given up.
    struct Opened(Rc<EndpointPool>, Option<OpenFailure>);
    impl Drop for Opened {
        fn drop(&mut self) {
            for waiting in self.0.h2_opening.take() {
                let _ = waiting.send(self.1.clone());
            }
        }
    }
    let mut opened = Opened(pool.clone(), None);
    let result = establish(worker, pool, picked, downstream, permit).await;
    if let Err(error) = &result {
        opened.1 = Some((error.reason(), error.cause()));
    }
    result
}

async fn establish(
    worker: &Rc<Worker>,
    pool: &EndpointPool,
    picked: &Picked,
    downstream: &ConnectionFacts,
    permit: Permit,
) -> Result<Rc<H2Connection>, Error> {
    let stream = connect(&picked.target, &picked.cluster.mesh, Some(downstream)).await?;
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
    let (sender, running) =
        handshake.map_err(|error| Error::new(Reason::ConnectFailure).retry_safe().source(error))?;
    let closed = Rc::new(Cell::new(false));
    worker.count_upstream_connection(&picked.cluster);
    tokio::task::spawn_local({
        let closed = closed.clone();
        async move {
            // How it ends is reported to its streams.
            let _ = to_send.drive(running).await;
            closed.set(true);
        }
    });
    let now = Instant::now();
    let connection = Rc::new(H2Connection {
        sender: RefCell::new(sender),
        local,
        active: Cell::new(0),
        requests: Cell::new(0),
        opened: now,
        idle_since: Cell::new(now),
        closed,
        _permit: permit,
    });
    pool.h2.borrow_mut().push(connection.clone());
    Ok(connection)
}

impl H2Connection {
    /// Streams now.
    pub(super) fn active(&self) -> u32 {
        self.active.get()
    }

    /// False when it is closed, too old, used up, or was idle for too long.
    pub(super) fn is_usable(&self, now: Instant, limits: &Pool) -> bool {
        let old =
            !limits.max_connection_duration.is_zero() && now - self.opened >= limits.max_connection_duration;
        let used_up = limits.max_requests_per_connection != 0
            && self.requests.get() >= limits.max_requests_per_connection;
        let idle = self.active.get() == 0
            && !limits.idle_timeout.is_zero()
            && now - self.idle_since.get() >= limits.idle_timeout;
        !(self.closed.get() || old || used_up || idle)
    }

    fn has_room(&self, limits: &Pool) -> bool {
        let configured =
            if limits.max_concurrent_streams == 0 { u32::MAX } else { limits.max_concurrent_streams };
        let peer = u32::try_from(self.sender.borrow().current_max_send_streams()).unwrap_or(u32::MAX);
        self.active.get() < configured.min(peer).min(STREAMS_PER_CONNECTION)
    }
}

impl Stream {
    fn new(connection: Rc<H2Connection>) -> Self {
        connection.active.set(connection.active.get() + 1);
        connection.requests.set(connection.requests.get().saturating_add(1));
        Self(connection)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get().saturating_sub(1));
        if self.0.active.get() == 0 {
            self.0.idle_since.set(Instant::now());
        }
    }
}

/// The request head as HTTP/2 says it: absolute target, no Host, no connection headers.
fn to_http2(head: &mut request::Parts) -> Result<(), Error> {
    head.version = Version::HTTP_2;
    let host = head.headers.remove(HOST);
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        head.headers.remove(name);
    }
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    // The header is the canonical one, which matching and policy read; the target still says it as the client did.
    if let Some(host) = host {
        let authority = Authority::try_from(host.as_bytes())
            .map_err(|error| Error::new(Reason::BadAuthority).detail(error.to_string()))?;
        parts.authority = Some(authority);
    } else if parts.authority.is_none() {
        return Err(Error::new(Reason::BadAuthority).detail("the request has no authority"));
    }
    if head.method != Method::CONNECT || parts.path_and_query.is_some() {
        parts.scheme.get_or_insert(Scheme::HTTP);
    }
    head.uri =
        Uri::from_parts(parts).map_err(|error| Error::new(Reason::BadPath).detail(error.to_string()))?;
    Ok(())
}

/// The peer says that it did not touch the request.
fn never_processed(error: &h2::Error) -> bool {
    error.reason() == Some(h2::Reason::REFUSED_STREAM) || error.is_go_away() || error.is_io()
}

fn failure(error: h2::Error, sent: bool) -> Error {
    let untouched = error.reason() == Some(h2::Reason::REFUSED_STREAM);
    let reason = if error.is_io() || error.is_go_away() {
        Reason::UpstreamClosed
    } else if error.is_reset() {
        Reason::UpstreamReset
    } else {
        Reason::UpstreamProtocol
    };
    let failure = Error::new(reason).sent(sent && !untouched).source(error);
    if untouched || !sent { failure.retry_safe() } else { failure }
}
