//! HTTP/2 towards an endpoint, with the `h2` crate's client.

mod body;
mod connection;
mod tunnel;

pub(crate) use connection::H2Connection;
pub(crate) use tunnel::{H2Tunnel, Handover};

use super::replay::{Copies, is_idempotent};
use crate::proxy::cluster::Picked;
use crate::proxy::extended_connect::Opening;
use crate::proxy::worker::Worker;
use crate::snapshot::{Permit, Resource};
use body::Broken;
use bytes::Bytes;
use connection::Stream;
use filter_api::{Body, Cx, Error, Reason, Request, Response, trim_values};
use http::header::{CONNECTION, HOST, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, Scheme, Uri};
use http::{Method, Version, request};
use http_body::Body as _;
use std::rc::Rc;
use tokio::time::Instant;

/// Connections that a request may meet which are just going away. A request that was written is sent again once at most.
const ATTEMPTS: u32 = 5;

/// What an exchange keeps until it is over.
type Held = (Stream, Permit, Picked);

pub(super) fn call(
    worker: Rc<Worker>,
    request: Request,
    picked: Picked,
) -> impl Future<Output = Result<Response, Error>> {
    let Request { mut head, mut body, cx } = request;
    async move {
        let pool = picked.pool.clone();
        let opening = Opening::begin(&mut head, body.is_end_stream())?;
        to_http2(&mut head)?;
        let Some(permit) = picked.cluster.acquire(Resource::Requests) else {
            let name = &picked.cluster.mesh.name;
            let detail = format!("the limit of requests (http2MaxRequests) of cluster {name} reached");
            return Err(Error::new(Reason::UpstreamOverflow).retry_safe().detail(detail));
        };
        let no_body = body.is_end_stream();
        let idempotent = is_idempotent(&head.method);
        let (mut copies, mut replayed) = (Copies::default(), false);
        for attempt in 1.. {
            let connection = match pool.with_room(&picked.cluster.mesh.pool, Instant::now()) {
                Some(connection) => connection,
                None => Box::pin(connection::wait(&worker, &pool, &picked, &cx.connection)).await?,
            };
            let reused = connection.was_used();
            let stream = Stream::new(connection);
            if opening.as_ref().is_some_and(Opening::is_extended) {
                let patience = picked.cluster.mesh.pool.connect_timeout;
                if !Box::pin(stream.connection().takes_extended_connect(patience)).await {
                    return Err(refused(&picked));
                }
            }
            {
                let mut facts = cx.facts.borrow_mut();
                facts.upstream_local = stream.connection().local();
                facts.upstream_sent = Some(std::time::Instant::now());
            }
            // The h2 client takes the head with it.
            let copy = (attempt < ATTEMPTS).then(|| head.clone());
            let message = http::Request::from_parts(head, ());
            let sent = match stream.connection().sender().ready().await {
                Ok(mut sender) => sender.send_request(message, no_body && opening.is_none()),
                Err(error) => Err(error),
            };
            let (response, send) = match sent {
                Ok(sent) => sent,
                Err(error) => {
                    // Nothing was written.
                    stream.connection().give_up();
                    let Some(copy) = copy else { return Err(failure(error, false)) };
                    head = copy;
                    continue;
                }
            };
            let (answered, send) = if no_body {
                (response.await.map_err(Broken::Stream), Some(send))
            } else {
                copies.keep_body(&mut body);
                let moved = std::mem::take(&mut body);
                (Box::pin(body::with_body(response, send, moved)).await, None)
            };
            let error = match answered {
                Ok(response) => {
                    stream.connection().answered();
                    return Ok(answer(response, send, opening, (stream, permit, picked), &cx));
                }
                Err(Broken::Body(error)) => return Err(error),
                Err(Broken::Stream(error)) => error,
            };
            if error.is_io() || error.is_go_away() {
                stream.connection().give_up();
            }
            // What no server looked at may go out again as long as there is an attempt left: under load several connections may be going away at once.
            let untouched = is_untouched(&error);
            let again = untouched || reused && idempotent && error.is_io();
            let kept = if no_body && untouched { Some(Body::empty()) } else { copies.take_body() };
            match (copy, kept) {
                (Some(copy), Some(again_body)) if again && (untouched || !replayed) => {
                    (head, body) = (copy, again_body);
                    replayed |= !untouched;
                }
                _ => return Err(failure(error, true)),
            }
        }
        Err(Reason::Internal.into())
    }
}

/// The response as the stack knows it. Where the request asked for a tunnel and got it, the stream goes along.
fn answer(
    response: http::Response<h2::RecvStream>,
    send: Option<h2::SendStream<Bytes>>,
    opening: Option<Opening>,
    held: Held,
    cx: &Cx,
) -> Response {
    cx.facts.borrow_mut().upstream_answered = Some(std::time::Instant::now());
    cx.hold(Box::new(held));
    let (mut head, body) = response.into_parts();
    trim_values(&mut head.headers);
    match (opening, send) {
        (Some(opening), Some(send)) if head.status.is_success() => {
            opening.opened(&mut head);
            head.extensions.insert(Handover::new(H2Tunnel::new(send, body)));
            Response { head, body: Body::empty() }
        }
        (Some(_), Some(mut send)) => {
            // Refused: nothing follows the request. Fails only when the stream is gone already.
            let _ = send.send_data(Bytes::new(), true);
            Response { head, body: Body::h2(body) }
        }
        _ => Response { head, body: Body::h2(body) },
    }
}

fn refused(picked: &Picked) -> Error {
    let name = &picked.cluster.mesh.name;
    Error::new(Reason::UpgradeRefused).detail(format!(
        "cluster {name} speaks HTTP/2, and its server does not take extended CONNECT (SETTINGS_ENABLE_CONNECT_PROTOCOL, RFC 8441)"
    ))
}

/// The request head as HTTP/2 says it: absolute target, no Host, no connection headers.
fn to_http2(head: &mut request::Parts) -> Result<(), Error> {
    head.version = Version::HTTP_2;
    let host = head.headers.remove(HOST);
    if head.headers.keys().any(|name| matches!(*name, CONNECTION | TRANSFER_ENCODING | UPGRADE)) {
        for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE] {
            head.headers.remove(name);
        }
    }
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    let said = parts.authority.as_ref().map(|authority| authority.as_str().as_bytes());
    // The header is the canonical one, which matching and policy read; the target still says it as the client did.
    if let Some(host) = host.filter(|host| said != Some(host.as_bytes())) {
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

/// The peer says that it did not look at the request. Of GOAWAY only streams above its last one hear, which is what it means.
fn is_untouched(error: &h2::Error) -> bool {
    error.is_remote() && (error.reason() == Some(h2::Reason::REFUSED_STREAM) || error.is_go_away())
}

fn failure(error: h2::Error, sent: bool) -> Error {
    let sent = sent && !is_untouched(&error);
    let reason = if error.is_io() || error.is_go_away() {
        Reason::UpstreamClosed
    } else if error.is_reset() {
        Reason::UpstreamReset
    } else {
        Reason::UpstreamProtocol
    };
    let failure = Error::new(reason).sent(sent).source(error);
    if sent { failure } else { failure.retry_safe() }
}
