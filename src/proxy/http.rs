//! HTTP connections: hyper is the codec, the stack does the work.

use super::coalesce;
use super::connection::{Busy, Downstream, Io, StreamExecutor};
use super::extended_connect;
use super::portions::Portions;
use super::record::{Recorded, Trailers};
use super::refused::{self, Refused};
use super::resets::{Resets, Unanswered};
use super::tunnel;
use super::upstream::MAX_BUFFER;
use super::worker::Worker;
use crate::mesh::Direction;
use filter_api::{Body, Cx, Protocol, Reason, Request};
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TE, TRAILER};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

/// Window of one stream from the downstream.
const STREAM_WINDOW: u32 = 64 * 1024;

/// Header fields that hyper reads without further ado; more of them cost it an allocation.
const CODEC_HEADERS: usize = 100;

/// Streams that a client may have opened and reset before it is told to calm down (rapid reset, CVE-2023-44487).
const MAX_RESETS: usize = 50;

/// Streams that a client may make us reset by its own mistakes (CVE-2025-8671).
const MAX_ERRORS: usize = 1024;

/// What the client of a head that did not come in time is told (RFC 9110 section 15.5.9).
const TOO_LATE: &[u8] = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Serves one HTTP connection until it ends.
pub(super) async fn serve<S>(downstream: Rc<Downstream>, stack: S, io: Io)
where
    S: tower::Service<Request, Response = http::Response<Recorded>, Error = Infallible, Future: 'static>
        + Clone
        + 'static,
{
    let conn = downstream.conn.clone();
    let settings = downstream.http().mesh.clone();
    let version = downstream.facts.protocol;
    let look = || downstream.look();
    let service =
        HttpService { downstream: downstream.clone(), stack: RefCell::new(stack), resets: Rc::default() };
    if version == Protocol::Http2 {
        let (io, sender) = coalesce::collect(io);
        let streams = settings.max_concurrent_streams.max(1);
        let mut builder = http2::Builder::new(StreamExecutor::new(conn.clone()));
        if settings.upgrades {
            builder.enable_connect_protocol();
        }
        let connection = builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(STREAM_WINDOW.saturating_mul(streams.min(256)))
            .max_concurrent_streams(streams)
            .max_send_buf_size(MAX_BUFFER)
            .max_header_list_size(settings.max_header_bytes)
            .max_pending_accept_reset_streams(MAX_RESETS)
            .max_local_error_reset_streams(MAX_ERRORS)
            .serve_connection(TokioIo::new(io), service);
        let connection = sender.drive(connection);
        let graceful = |sending: Pin<&mut coalesce::Sending<_, _>>| {
            http2::Connection::graceful_shutdown(sending.connection());
        };
        let after = || refused::record_resets(&downstream);
        let ended = conn.drive(pin!(connection), false, look, after, graceful).await;
        after();
        if let Some(refused) = ended.and_then(|ended| Refused::by_http2(&ended.err()?)) {
            refused.record(&downstream);
        } else if conn.is_late() {
            Refused::late(false).record(&downstream);
        }
    } else {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_buf_size(MAX_BUFFER.max(settings.max_header_bytes as usize));
        let headers = settings.max_headers as usize;
        if headers > CODEC_HEADERS {
            builder.max_headers(headers);
        }
        let mut connection =
            builder.serve_connection(TokioIo::new(Portions::of(io)), service).with_upgrades();
        let graceful = http1::UpgradeableConnection::graceful_shutdown;
        let ended = conn.drive(Pin::new(&mut connection), true, look, || {}, graceful).await;
        if let Some(refused) = ended.and_then(|ended| Refused::by_http1(&ended.err()?)) {
            refused.record(&downstream);
        } else if conn.is_late() {
            Refused::late(true).record(&downstream);
            if let Some(parts) = connection.into_parts() {
                parts.io.into_inner().into_inner().finish(TOO_LATE).await;
            }
        }
    }
}

/// One request after the other of one connection.
struct HttpService<S> {
    downstream: Rc<Downstream>,
    stack: RefCell<S>,
    resets: Rc<Resets>,
}

// Nothing in it is pinned.
impl<S> Unpin for HttpService<S> {}

/// What a request asks to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opens {
    /// Another protocol on an HTTP/1.1 connection.
    Upgrade,
    /// A tunnel.
    Connect,
    /// Another protocol within an HTTP/2 stream.
    Extended,
}

impl<S> hyper::service::Service<http::Request<Incoming>> for HttpService<S>
where
    S: tower::Service<Request, Response = http::Response<Recorded>, Error = Infallible, Future: 'static>,
{
    type Response = http::Response<Recorded>;
    type Error = Infallible;
    type Future = Exchange<S::Future>;

    fn call(&self, mut message: http::Request<Incoming>) -> Self::Future {
        let downstream = &self.downstream;
        let busy = Busy::new(&downstream.conn);
        let opens = opens(&message).map(|opens| (opens, hyper::upgrade::on(&mut message)));
        let http = downstream.http();
        let cx = Cx::calling(downstream.facts.clone(), http.port.clone(), http, downstream.worker.clone());
        if let Some(why) = downstream.refusal() {
            cx.facts.borrow_mut().refused = Some(why);
        }
        let (mut head, body) = message.into_parts();
        extended_connect::to_upgrade(&mut head);
        let http1 = head.version <= Version::HTTP_11;
        let wants_trailers = head.version == Version::HTTP_11 && wants_trailers(&head.headers);
        let unanswered =
            (!http1).then(|| Unanswered::new(&self.resets, &downstream.worker, &downstream.conn, cx.started));
        let body =
            if hyper::body::Body::is_end_stream(&body) { Body::empty() } else { Body::downstream(body) };
        let inner = self.stack.borrow_mut().call(Request { head, body, cx: cx.clone() });
        Exchange {
            inner,
            cx,
            opens,
            http1,
            wants_trailers,
            unanswered,
            later: !http1 && self.resets.are_suspicious(),
            worker: downstream.worker.clone(),
            direction: downstream.conn.direction(),
            busy: Some(busy),
        }
    }
}

pin_project_lite::pin_project! {
    /// One exchange: the stack's answer, and what HTTP/1 needs besides.
    struct Exchange<F> {
        #[pin]
        inner: F,
        cx: Cx,
        opens: Option<(Opens, hyper::upgrade::OnUpgrade)>,
        http1: bool,
        wants_trailers: bool,
        unanswered: Option<Unanswered>,
        later: bool,
        worker: Rc<Worker>,
        direction: Direction,
        busy: Option<Busy>,
    }

    impl<F> PinnedDrop for Exchange<F> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            // Given up without an answer, since its stream is gone: by the client, or by the codec for the faults of its body.
            if this.busy.as_ref().is_some_and(|busy| busy.conn().take_malformed_stream()) {
                this.cx.facts.borrow_mut().reasons.push(Reason::DownstreamMessage);
            }
        }
    }
}

impl<F> Future for Exchange<F>
where
    F: Future<Output = Result<http::Response<Recorded>, Infallible>>,
{
    type Output = Result<http::Response<Recorded>, Infallible>;

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if std::mem::take(this.later) {
            task.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Ok(mut response) = std::task::ready!(this.inner.poll(task));
        if let Some(unanswered) = this.unanswered.take() {
            unanswered.answered();
        }
        match this.opens.take() {
            Some((opens, downstream)) if tunnel::is_opened(&response) => {
                match opens {
                    Opens::Upgrade => {}
                    Opens::Connect => extended_connect::remove_framing(response.headers_mut()),
                    Opens::Extended => extended_connect::to_connected(&mut response),
                }
                // An HTTP/1 connection is no more; one of HTTP/2 goes on, and is busy with it.
                let door = this.busy.as_ref().and_then(|busy| busy.conn().door().cloned());
                let busy = if *this.http1 { None } else { this.busy.take() };
                tunnel::start(this.worker, *this.direction, downstream, (door, busy), &mut response);
            }
            // An answer of ours. To a CONNECT any success says that there is a tunnel.
            Some((Opens::Connect | Opens::Extended, _)) if response.status().is_success() => {
                *response.status_mut() = StatusCode::FORBIDDEN;
                response.body_mut().restate(StatusCode::FORBIDDEN);
            }
            _ if *this.http1 => {
                announce_trailers(&mut response, *this.wants_trailers);
                state_length(&mut response);
                if this.busy.as_ref().is_some_and(Busy::is_last) {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
            }
            _ => {}
        }
        if let Some(busy) = this.busy.take() {
            response.body_mut().keep_busy(busy, *this.http1);
        }
        Poll::Ready(Ok(response))
    }
}

fn opens(message: &http::Request<Incoming>) -> Option<Opens> {
    if message.method() == Method::CONNECT {
        let extended = message.extensions().get::<hyper::ext::Protocol>().is_some();
        return Some(if extended { Opens::Extended } else { Opens::Connect });
    }
    let upgrade =
        message.version() == Version::HTTP_11 && message.headers().contains_key(http::header::UPGRADE);
    upgrade.then_some(Opens::Upgrade)
}

/// Whether an HTTP/1.1 client takes trailers: hyper sends none to others (RFC 9110 section 6.5.1).
fn wants_trailers(headers: &HeaderMap) -> bool {
    headers.get_all(TE).iter().any(|value| {
        value
            .as_bytes()
            .split(|&byte| byte == b',')
            .any(|one| one.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    })
}

/// hyper sends over HTTP/1 only those trailers that the head announced. gRPC's are known beforehand.
fn announce_trailers(response: &mut http::Response<Recorded>, wanted: bool) {
    let headers = response.headers_mut();
    let grpc = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if grpc && !headers.contains_key(TRAILER) {
        let names = HeaderValue::from_static("grpc-status, grpc-message, grpc-status-details-bin");
        headers.insert(TRAILER, names);
    }
    let which = match headers.contains_key(TRAILER) && !headers.contains_key(CONTENT_LENGTH) {
        true if wanted => {
            let lines = headers.get_all(TRAILER).iter().filter_map(|line| line.to_str().ok());
            let names = lines.flat_map(|line| line.split(','));
            Trailers::Announced(names.filter_map(|name| name.trim().parse().ok()).collect())
        }
        _ => Trailers::Lost,
    };
    response.body_mut().send_trailers(which);
}

/// The length of what a 304 stands for is kept, as in Envoy, and as HTTP/2 keeps it (RFC 9110 section 8.6).
fn state_length(response: &mut http::Response<Recorded>) {
    if response.status() != StatusCode::NOT_MODIFIED {
        return;
    }
    let length = response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if let Some(length) = length {
        response.body_mut().state_length(length);
    }
}
