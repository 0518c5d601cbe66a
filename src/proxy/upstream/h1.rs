//! HTTP/1.1 towards an endpoint.

mod open;

use super::pool::Lease;
use super::replay::{Copies, is_idempotent};
use crate::proxy::cluster::Picked;
use crate::proxy::extended_connect::Handshake;
use crate::proxy::headers;
use crate::proxy::portions::PORTION;
use crate::proxy::worker::Worker;
use crate::snapshot::Resource;
use filter_api::{Body, Error, Reason, Request, Response};
use http::header::{CONTENT_LENGTH, Entry, HOST, TRAILER, TRANSFER_ENCODING};
use http::uri::Uri;
use http::{HeaderName, HeaderValue, Method, StatusCode, Version, request, response};
use http_body::Body as _;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

/// What a codec may buffer: a head, or what it queues of a request's body before it asks for no more.
pub(crate) const MAX_BUFFER: usize = 2 * PORTION;

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
    if !request.body.is_empty() {
        let headers = &mut request.head.headers;
        // hyper leaves out a body of unknown length where it expects none, unless the head insists.
        if matches!(request.head.method, Method::GET | Method::HEAD)
            && !headers.contains_key(CONTENT_LENGTH)
            && request.body.size_hint().exact().is_none()
        {
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        // hyper sends those that the head announces, and none where it has a length.
        cx.facts.borrow_mut().loses_trailers =
            !headers.contains_key(TRAILER) || headers.contains_key(CONTENT_LENGTH);
    }
    // What follows a CONNECT belongs to the tunnel, and goes out once there is one.
    let body = if connect { Body::empty() } else { request.body };
    let mut message = http::Request::from_parts(request.head, body);
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
                    pool.answered(keep_alive_limit(&head.headers), reused.then_some(idle_for));
                    let switched = head.status == StatusCode::SWITCHING_PROTOCOLS;
                    let opened = switched || connect && head.status.is_success();
                    let checked = match &handshake {
                        _ if switched && (!upgrade || connect) => {
                            Err(broken("it switched protocols without having been asked to"))
                        }
                        Some(handshake) => handshake.check(&head),
                        None => Ok(()),
                    };
                    if let Err(error) = to_canonical(&mut head, upgrade, opened).and(checked) {
                        // Where its answer ends is unknown, or not worth knowing.
                        drop(lease.detach());
                        return Err(error);
                    }
                    cx.facts.borrow_mut().upstream_answered = Some(std::time::Instant::now());
                    if opened {
                        // The connection carries bytes from now on; hyper hands it over through the response.
                        drop(lease.detach());
                        cx.hold(Box::new((upgraded, picked)));
                    } else if upgrade {
                        // What the server took for the tunnel's first bytes, or for a request, is unknown: nobody uses the connection after this.
                        cx.hold(Box::new((lease.detach(), picked)));
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
                        pool.closed_idle(idle_for, now);
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

/// Checks the head of an answer and removes what belongs to the connection; `opened`: a tunnel follows it, and no body.
fn to_canonical(head: &mut response::Parts, upgrade: bool, opened: bool) -> Result<(), Error> {
    let seen = headers::inspect_response(&head.headers);
    let seen = if opened { seen.or_else(|_| Ok(headers::Seen::all())) } else { seen };
    let seen = seen.map_err(broken)?;
    headers::strip_hop_by_hop(&mut head.headers, seen, upgrade)
        .map_err(|_| broken("its Connection header names end-to-end headers"))?;
    // Several lengths that agree are one.
    if let Entry::Occupied(mut length) = head.headers.entry(CONTENT_LENGTH)
        && length.iter().nth(1).is_some()
    {
        let one = length.get().clone();
        length.insert(one);
    }
    Ok(())
}

/// An answer that breaks the protocol.
fn broken(what: &'static str) -> Error {
    Error::new(Reason::UpstreamProtocol).sent(true).detail(what)
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
    if let Some(own) = own_failure(&error) {
        return own.sent(!unsent).source(error);
    }
    let reason = if error.is_parse() || error.is_parse_too_large() {
        Reason::UpstreamProtocol
    } else {
        Reason::UpstreamClosed
    };
    let failure = Error::new(reason).sent(!unsent).source(error);
    if unsent { failure.retry_safe() } else { failure }
}

/// When the request body broke, the fault is that of the downstream, as the body's own error says.
fn own_failure(error: &hyper::Error) -> Option<Error> {
    use std::error::Error as _;
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(own) = cause.downcast_ref::<Error>() {
            let failure = Error::new(own.reason()).detail(own.detail_str().to_owned());
            return Some(if own.must_close() { failure.closing() } else { failure });
        }
        source = cause.source();
    }
    None
}
