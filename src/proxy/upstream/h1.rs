//! HTTP/1.1 towards an endpoint.

use super::connect::connect;
use super::pool::{EndpointPool, H1Connection, Lease, Open, Waited};
use crate::proxy::cluster::Picked;
use crate::proxy::headers;
use crate::proxy::worker::Worker;
use crate::snapshot::Resource;
use filter_api::{Body, Error, Reason, Request, Response};
use http::header::HOST;
use http::uri::Uri;
use http::{HeaderName, HeaderValue, Method, StatusCode, Version, request};
use hyper::client::conn::http1::Builder;
use hyper_util::rt::TokioIo;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

/// What hyper may buffer of a stream: half of what a reader that stops may cost (the other half is the downstream's).
pub(crate) const MAX_BUFFER: usize = 64 * 1024;

/// A request that met a connection which its server was just closing goes to another one. Bounded, though each further connection is younger.
const ATTEMPTS: u32 = 4;

pub(super) fn call(
    worker: Rc<Worker>,
    mut request: Request,
    picked: Picked,
) -> impl Future<Output = Result<Response, Error>> {
    let pool = picked.pool.clone();
    to_http1(&mut request.head);
    let upgrade = is_upgrade(&request.head);
    let connect = request.head.method == Method::CONNECT;
    let cx = request.cx;
    let mut message = http::Request::from_parts(request.head, request.body);
    async move {
        // Held until the tunnel ends, or until the server declines it.
        let mut upgraded = None;
        if upgrade {
            let Some(permit) = picked.cluster.acquire(Resource::Upgraded) else {
                worker.count_overflow(&picked.cluster);
                let name = &picked.cluster.mesh.name;
                let detail =
                    format!("the limit of upgraded connections (maxConnections) of cluster {name} reached");
                return Err(Error::new(Reason::UpstreamOverflow).retry_safe().detail(detail));
            };
            upgraded = Some(permit);
        }
        for attempt in 1.. {
            let now = Instant::now();
            let idle = if attempt < ATTEMPTS { pool.take_idle(&picked.cluster.mesh.pool, now) } else { None };
            let connection = match idle {
                Some(connection) => connection,
                None => Box::pin(open_or_wait(&worker, &pool, &picked, &cx.connection)).await?,
            };
            let reused = connection.requests > 0;
            let idle_for = connection.idle_for(now);
            let mut lease = Lease::new(connection, &picked.cluster);
            let Some(connection) = lease.connection() else { return Err(Reason::Internal.into()) };
            connection.requests += 1;
            {
                let mut facts = cx.facts.borrow_mut();
                facts.upstream_local = connection.local;
                facts.upstream_sent = Some(std::time::Instant::now());
            }
            // A safe request without a body can be sent again when the server closed a connection that it had kept open without answering.
            let again = (reused && is_idempotent(message.method()) && message.body().is_empty())
                .then(|| Box::new(copy(&message)));
            match connection.sender.try_send_request(message).await {
                Ok(response) => {
                    let (mut head, body) = response.into_parts();
                    if let Some(limit) = keep_alive_limit(&head.headers) {
                        pool.learn_idle(limit);
                    }
                    let seen = headers::inspect_response(&head.headers);
                    if headers::strip_hop_by_hop(&mut head.headers, seen, upgrade).is_err() {
                        return Err(Error::new(Reason::UpstreamProtocol)
                            .sent(true)
                            .detail("its Connection header names end-to-end headers"));
                    }
                    cx.facts.borrow_mut().upstream_answered = Some(std::time::Instant::now());
                    let switched = head.status == StatusCode::SWITCHING_PROTOCOLS;
                    if switched && (!upgrade || connect) {
                        return Err(Error::new(Reason::UpstreamProtocol)
                            .sent(true)
                            .detail("it switched protocols without having been asked to"));
                    }
                    if switched || connect && head.status.is_success() {
                        // The connection carries bytes from now on; hyper hands it over through the response.
                        drop(lease.detach());
                        cx.hold(Box::new((upgraded, picked)));
                    } else {
                        lease.hold(picked, &cx);
                    }
                    return Ok(Response { head, body: Body::upstream(body) });
                }
                Err(mut failed) => {
                    drop(lease.detach());
                    let unsent = failed.take_message();
                    let error = failed.into_error();
                    if reused && (unsent.is_some() || error.is_incomplete_message()) {
                        pool.learn_idle(idle_for);
                    }
                    message = match (unsent, again) {
                        (Some(unsent), _) if attempt < ATTEMPTS => unsent,
                        (None, Some(again)) if attempt < ATTEMPTS && lost_without_answer(&error) => *again,
                        (unsent, _) => return Err(failure(error, unsent.is_some())),
                    };
                }
            }
        }
        Err(Reason::Internal.into())
    }
}

async fn wait(worker: &Rc<Worker>, pool: &Rc<EndpointPool>, picked: &Picked) -> Result<Waited, Error> {
    let waited = pool.wait(&picked.cluster).await;
    if waited.is_err() {
        worker.count_overflow(&picked.cluster);
    }
    waited
}

async fn open_or_wait(
    worker: &Rc<Worker>,
    pool: &Rc<EndpointPool>,
    picked: &Picked,
    downstream: &filter_api::ConnectionFacts,
) -> Result<H1Connection, Error> {
    let open: Open = match pool.may_open(&picked.cluster) {
        Some(open) => open,
        None => match wait(worker, pool, picked).await? {
            Waited::Connection(connection) => return Ok(connection),
            Waited::MayOpen(open) => open,
        },
    };
    let stream = connect(&picked.target, &picked.cluster.mesh, Some(downstream)).await?;
    let local = stream.local_address();
    let handshake = Builder::new().max_buf_size(MAX_BUFFER).handshake(TokioIo::new(stream)).await;
    let (sender, connection) =
        handshake.map_err(|error| Error::new(Reason::ConnectFailure).retry_safe().source(error))?;
    worker.count_upstream_connection(&picked.cluster);
    tokio::task::spawn_local(async move {
        // How it ends is reported to whoever is using it.
        let _ = connection.with_upgrades().await;
    });
    Ok(EndpointPool::opened(sender, local, open))
}

/// The request head as HTTP/1.1 says it: origin-form target, Host from the authority.
fn to_http1(head: &mut request::Parts) {
    head.version = Version::HTTP_11;
    if head.method == Method::CONNECT || (head.uri.authority().is_none() && head.uri.scheme().is_none()) {
        return;
    }
    if let Some(authority) = head.uri.authority()
        && !head.headers.contains_key(HOST)
        && let Ok(host) = HeaderValue::try_from(authority.as_str())
    {
        head.headers.insert(HOST, host);
    }
    let path = head.uri.path_and_query().cloned();
    head.uri = path.map_or_else(|| Uri::from_static("/"), Uri::from);
}

fn copy(message: &http::Request<Body>) -> http::Request<Body> {
    let mut copy = http::Request::new(Body::empty());
    *copy.method_mut() = message.method().clone();
    *copy.uri_mut() = message.uri().clone();
    *copy.version_mut() = message.version();
    *copy.headers_mut() = message.headers().clone();
    *copy.extensions_mut() = message.extensions().clone();
    copy
}

/// RFC 9110 9.2.2.
pub(super) fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

pub(super) fn is_upgrade(head: &request::Parts) -> bool {
    head.method == Method::CONNECT || head.headers.contains_key(http::header::UPGRADE)
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// `Keep-Alive: timeout=5`: what the server says of its own patience.
fn keep_alive_limit(headers: &http::HeaderMap) -> Option<Duration> {
    let value = headers.get(KEEP_ALIVE)?.to_str().ok()?;
    let timeout = value.split(',').find_map(|part| part.trim().strip_prefix("timeout="))?;
    timeout.parse().ok().map(Duration::from_secs)
}

/// The server closed the connection before a single byte of a response.
fn lost_without_answer(error: &hyper::Error) -> bool {
    use std::error::Error as _;
    let reset =
        error.source().and_then(|source| source.downcast_ref::<std::io::Error>()).is_some_and(|source| {
            matches!(source.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe)
        });
    error.is_incomplete_message() || error.is_canceled() || error.is_closed() || reset
}

fn failure(error: hyper::Error, unsent: bool) -> Error {
    if let Some(cause) = own_failure(&error) {
        return Error::new(cause).sent(!unsent).source(error);
    }
    let reason = if error.is_parse() || error.is_parse_too_large() {
        Reason::UpstreamProtocol
    } else {
        Reason::UpstreamClosed
    };
    let failure = Error::new(reason).sent(!unsent).source(error);
    if unsent { failure.retry_safe() } else { failure }
}

/// When the request body broke, the fault is that of the downstream, whose reason the body's own error holds.
fn own_failure(error: &hyper::Error) -> Option<Reason> {
    use std::error::Error as _;
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(own) = cause.downcast_ref::<Error>() {
            return Some(own.reason());
        }
        source = cause.source();
    }
    None
}
