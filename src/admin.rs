//! The small HTTP servers beside the traffic: admin, health and metrics.
//!
//! They run on the control runtime, speak HTTP/1.1 only and bound everything a caller can make them do.

mod decisions;
mod guard;
mod limits;
mod pages;
mod routes;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::telemetry::audit::{self, Auditor, Event};
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

pub(crate) use self::decisions::{decision, list};
pub use self::guard::Hosts;
pub use self::limits::limits;
pub use self::pages::{State, health, logging, memory, prometheus, server_info, stats};
pub use self::routes::{Call, Methods, Query, Reply, Routes};

/// Connections at once. A further one takes the place of the oldest that asks nothing; it waits while all of them are being answered.
const CONNECTIONS: usize = 64;
/// For the head of a request, and how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// For a whole request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// For reading an answer.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(3_600);
const HEAD_BYTES: usize = 16 * 1024;
const HEADERS: usize = 64;
const BODY_BYTES: usize = 64 * 1024;
/// How long running requests may take when the server ends.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// Pause after a failed accept: most often no descriptor is free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// One server: a table of routes and the host names it answers to.
#[derive(Debug)]
pub struct Server {
    routes: Routes,
    hosts: Hosts,
    auditor: Option<Arc<Auditor>>,
}

impl Server {
    /// A server of these routes. Give [`Hosts::Any`] only to routes that show and change nothing of value.
    #[must_use]
    pub fn new(routes: Routes, hosts: Hosts) -> Self {
        Self { routes, hosts, auditor: None }
    }

    /// The same, telling the audit of every call that changes something.
    #[must_use]
    pub fn audited(self, auditor: Arc<Auditor>) -> Self {
        Self { auditor: Some(auditor), ..self }
    }

    /// Serves until `shutdown` is done, then lets running requests end for up to five seconds.
    pub async fn run(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let server = Arc::new(self);
        let mut seats = Seats::default();
        let (ending, ended) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let accept = async {
                let accepted = listener.accept().await;
                (accepted, seats.free().await)
            };
            let (accepted, seat) = tokio::select! {
                accepted = accept => accepted,
                () = &mut shutdown => break,
            };
            match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(server.clone().serve(stream, peer, seat, ended.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an admin connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
            while connections.try_join_next().is_some() {}
        }
        drop(listener);
        ending.send_replace(true);
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN_GRACE, all).await.is_err() {
            tracing::warn!("admin requests were cut off at shutdown");
        }
    }

    async fn serve(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        seat: Taken,
        mut ended: watch::Receiver<bool>,
    ) {
        let answering = seat.0.clone();
        let service = service_fn(move |request| {
            let (server, busy) = (self.clone(), Busy::new(&answering));
            async move {
                let _busy = busy;
                Ok::<_, Infallible>(server.answer(request, peer).await)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES)
            .max_headers(HEADERS)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ending = async {
            // An error means that the server is gone, which is an end as well.
            let _ = tokio::time::timeout(CONNECTION_LIFETIME, ended.wait_for(|ended| *ended)).await;
        };
        let result = tokio::select! {
            result = &mut connection => result,
            () = seat.0.leave.notified() => {
                if !seat.0.busy.load(Ordering::Relaxed) {
                    return;
                }
                // A request came in between.
                connection.as_mut().graceful_shutdown();
                tokio::time::timeout(REQUEST_TIMEOUT, connection).await.unwrap_or(Ok(()))
            }
            () = ending => {
                connection.as_mut().graceful_shutdown();
                tokio::time::timeout(REQUEST_TIMEOUT, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, "an admin connection failed");
        }
    }

    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Full<Bytes>> {
        let changing = !matches!(*request.method(), Method::GET | Method::HEAD);
        let called = self.auditor.as_ref().filter(|_| changing).map(|auditor| {
            let target = request.uri().path_and_query().map_or("", PathAndQuery::as_str).to_owned();
            (auditor.clone(), request.method().clone(), target)
        });
        let answer = tokio::time::timeout(REQUEST_TIMEOUT, self.dispatch(request)).await;
        let reply = answer.unwrap_or_else(|_| {
            Reply::error(StatusCode::SERVICE_UNAVAILABLE, format!("not answered within {REQUEST_TIMEOUT:?}"))
        });
        if let Some((auditor, method, target)) = called {
            let status = reply.status.as_u16();
            auditor.note(Event::Admin(Box::new(audit::Call { by: peer, method, target, status })));
        }
        reply.into_response()
    }

    async fn dispatch(&self, request: Request<Incoming>) -> Reply {
        let (head, body) = request.into_parts();
        if let Err(refused) = guard::check(&self.hosts, &head) {
            return refused;
        }
        let path = head.uri.path();
        let Some((route, rest)) = self.routes.find(path) else {
            return self.routes.built_in(path, &head.method).unwrap_or_else(|| {
                Reply::error(StatusCode::NOT_FOUND, format!("nothing is at {path}; see /help"))
            });
        };
        let method = if head.method == Method::HEAD { Method::GET } else { head.method };
        if !route.methods.allow(&method) {
            let text = format!("{path} takes {}", route.methods);
            return Reply::error(StatusCode::METHOD_NOT_ALLOWED, text).allowing(route.methods);
        }
        let too_large = || {
            let text = format!("the body has more than {BODY_BYTES} bytes");
            Reply::error(StatusCode::PAYLOAD_TOO_LARGE, text)
        };
        // A declared length is refused before its bytes are waited for.
        if body.size_hint().lower() > BODY_BYTES as u64 {
            return too_large();
        }
        let body = match Limited::new(body, BODY_BYTES).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => return too_large(),
            Err(error) => {
                return Reply::error(StatusCode::BAD_REQUEST, format!("cannot read the body: {error}"));
            }
        };
        let query = Query::parse(head.uri.query().unwrap_or_default());
        let rest = rest.to_owned();
        route.call(Call { method, rest, query, body }).await
    }
}

/// The connections of a server, oldest first. Whoever holds some open and asks nothing must not keep a probe out.
#[derive(Debug, Default)]
struct Seats {
    taken: VecDeque<Arc<Seat>>,
    /// Rings when a connection asks nothing any more.
    freed: Arc<Notify>,
}

/// A connection, as the others see it.
#[derive(Debug)]
struct Seat {
    busy: AtomicBool,
    leave: Notify,
    freed: Arc<Notify>,
}

/// A place of a connection, until it ends.
#[derive(Debug)]
struct Taken(Arc<Seat>);

/// A request of a connection is being answered.
#[derive(Debug)]
struct Busy(Arc<Seat>);

impl Seats {
    /// A place for one more.
    async fn free(&mut self) -> Taken {
        loop {
            // Who has left holds no share of its seat.
            self.taken.retain(|seat| Arc::strong_count(seat) > 1);
            if self.taken.len() < CONNECTIONS {
                break;
            }
            if let Some(idle) = self.taken.iter().position(|seat| !seat.busy.load(Ordering::Relaxed)) {
                if let Some(seat) = self.taken.remove(idle) {
                    seat.leave.notify_one();
                }
                break;
            }
            self.freed.notified().await;
        }
        let (busy, leave) = (AtomicBool::new(false), Notify::new());
        let seat = Arc::new(Seat { busy, leave, freed: self.freed.clone() });
        self.taken.push_back(seat.clone());
        Taken(seat)
    }
}

impl Busy {
    fn new(seat: &Arc<Seat>) -> Self {
        seat.busy.store(true, Ordering::Relaxed);
        Self(seat.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Relaxed);
        self.0.freed.notify_one();
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.freed.notify_one();
    }
}

/// Binds `host:port`; a name is resolved, and port 0 takes a free one.
///
/// # Errors
/// When the address does not resolve or cannot be bound; the error names it.
pub async fn bind(address: &str) -> io::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
}

impl Reply {
    fn into_response(self) -> Response<Full<Bytes>> {
        let allow = self.allow.and_then(|methods| HeaderValue::try_from(methods.to_string()).ok());
        let mut response = Response::new(Full::new(self.bytes));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(allow) = allow {
            headers.insert(header::ALLOW, allow);
        }
        response
    }
}

#[cfg(test)]
mod tests;
