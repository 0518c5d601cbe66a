//! HTTP/1.1 towards an endpoint.

mod open;

use super::pool::Lease;
use super::replay::{Copies, is_idempotent};
use crate::proxy::cluster::Picked;
use crate::proxy::extended_connect::Handshake;
use crate::proxy::headers;
use crate::proxy::worker::Worker;
use crate::snapshot::Resource;
use filter_api::{Body, Error, Reason, Request, Response};
use http::header::HOST;
use http::uri::Uri;
use http::{HeaderName, HeaderValue, Method, StatusCode, Version, request};
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

/// What hyper may buffer of a stream: half of what a reader that stops may cost (the other half is the downstream's).
pub(crate) const MAX_BUFFER: usize = 64 * 1024;

/// Connections that a request of which nothing was written may meet closed. A request that was written is sent again once at most.
const ATTEMPTS: u32 = 4;

pub(super) fn call(
    worker: Rc<Worker>,
    mut request: Request,
    picked: Picked,
) -> impl Future<Output = Result<Response, Error>> {
    let pool = picked.pool.clone();
    let handshake = Handshake::begin(&mut request.head);
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
        let mut copies = Copies::default();
        for attempt in 1.. {
            let now = Instant::now();
            // Where one kept connection was stale, the others may be: the next attempt gets a new one.
            let idle = if attempt == 1 { pool.take_idle(&picked.cluster.mesh.pool, now) } else { None };
            let mut lease = match idle {
                Some(connection) => Lease::new(connection, &picked.cluster, &pool),
                None => Box::pin(open::connection(&worker, &pool, &picked, &cx.connection)).await?,
            };
            let Some(connection) = lease.connection() else { return Err(Reason::Internal.into()) };
            let reused = connection.requests > 0;
            let idle_for = connection.idle_for(now);
            connection.requests += 1;
            {
                let mut facts = cx.facts.borrow_mut();
                facts.upstream_local = connection.local;
                facts.upstream_sent = Some(std::time::Instant::now());
            }
            // An idempotent request can be sent again when the server closed a connection that it had kept open, without answering.
            if reused && !upgrade && is_idempotent(message.method()) {
                copies.keep(&mut message);
            }
            match connection.sender.try_send_request(message).await {
                Ok(response) => {
                    let (mut head, body) = response.into_parts();
                    let seen = headers::inspect_response(&head.headers);
                    if seen.keep_alive()
                        && let Some(limit) = keep_alive_limit(&head.headers)
                    {
                        pool.learn_idle(limit);
                    }
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
                    if let Some(handshake) = &handshake {
                        handshake.check(&head)?;
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
                    let again = match unsent {
                        Some(unsent) if attempt < ATTEMPTS => Ok(unsent),
                        Some(_) => Err(true),
                        None if reused && lost_without_answer(&error) => copies.take().ok_or(false),
                        None => Err(false),
                    };
                    message = match again {
                        Ok(message) => message,
                        Err(unsent) => return Err(failure(error, unsent)),
                    };
                }
            }
        }
        Err(Reason::Internal.into())
    }
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
