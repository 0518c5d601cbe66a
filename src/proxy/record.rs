//! The outermost layer: what is counted and logged of each exchange, whatever became of it.

use super::connection::{Busy, Close, Conn};
use super::labels;
use super::worker::Worker;
use crate::snapshot::{Destination, Endpoint, Http};
use crate::telemetry::access_log;
use crate::telemetry::flags::ResponseFlags;
use crate::telemetry::metrics::{Measured, Protocol, RequestLabels};
use bytes::Bytes;
use filter_api::{Body, ConnectionFacts, Cx, Error, Facts, Meter, Observers, Reason, Request, Response};
use http::header::{CONTENT_LENGTH, SERVER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;
use smallvec::SmallVec;
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};
use tower::{Layer, Service};

/// See the module's documentation.
#[derive(Clone)]
pub(crate) struct RecordLayer(Rc<Worker>);

/// See [`RecordLayer`].
#[derive(Clone)]
pub(crate) struct RecordService<S> {
    worker: Rc<Worker>,
    inner: S,
}

/// A response body that reports when it ends.
pub(crate) struct Recorded {
    body: Body,
    recorder: Option<Recorder>,
    /// The connection is not idle before the last byte.
    busy: Option<Busy>,
    /// The codec will not send trailers: HTTP/1, and the head announced none.
    trailers_lost: bool,
    /// HTTP/2: the last byte has only gone once the codec lets go of the body, which waits for the client's window.
    multiplexed: bool,
}

/// Watches one exchange from its head to its last byte. Dropped early, it records that the downstream went away.
pub(crate) struct Recorder {
    worker: Rc<Worker>,
    cx: Cx,
    activity: Rc<Activity>,
    version: Version,
    kept: KeptHeaders,
    status: u16,
    grpc_status: Option<u16>,
    bytes_sent: u64,
    bytes_received: u64,
}

/// The response headers that the access logs will want.
type KeptHeaders = SmallVec<[Option<HeaderValue>; 2]>;

/// When an exchange last moved a byte, for the worker's clock to find the ones that stand still.
#[derive(Debug)]
pub(crate) struct Activity {
    /// As far as the clock has seen it: a byte is noted in `moved`, and counts as of the next tick.
    last: Cell<tokio::time::Instant>,
    moved: Cell<bool>,
    limit: Duration,
    meter: Option<Arc<Meter>>,
    metered: Cell<u64>,
    expired: Cell<bool>,
    over: Cell<bool>,
    /// Place in the worker's list.
    pub(super) place: Cell<usize>,
    waker: RefCell<Option<Waker>>,
    /// The HTTP/1 connection that carries it alone, once there is a response.
    conn: RefCell<Option<Rc<Conn>>>,
}

impl RecordLayer {
    pub(crate) fn new(worker: Rc<Worker>) -> Self {
        Self(worker)
    }
}

impl<S> Layer<S> for RecordLayer {
    type Service = RecordService<S>;

    fn layer(&self, inner: S) -> RecordService<S> {
        RecordService { worker: self.0.clone(), inner }
    }
}

impl<S> Service<Request> for RecordService<S>
where
    S: Service<Request, Response = Response, Error = Error>,
{
    type Response = http::Response<Recorded>;
    type Error = Infallible;
    type Future = RecordFuture<S::Future>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let recorder = Recorder::new(&self.worker, &mut request);
        RecordFuture { inner: Some(self.inner.call(request)), recorder: Some(recorder) }
    }
}

pin_project! {
    /// The future of [`RecordService`].
    pub(crate) struct RecordFuture<F> {
        #[pin]
        inner: Option<F>,
        recorder: Option<Recorder>,
    }
}

impl<F: Future<Output = Result<Response, Error>>> Future for RecordFuture<F> {
    type Output = Result<http::Response<Recorded>, Infallible>;

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(recorder) = this.recorder.as_ref() else { return Poll::Pending };
        let result = match this.inner.as_mut().as_pin_mut() {
            Some(inner) => match inner.poll(task) {
                Poll::Ready(result) => result,
                Poll::Pending if recorder.activity.expired.get() => {
                    this.inner.set(None);
                    Err(Error::new(Reason::StreamIdle))
                }
                Poll::Pending => {
                    recorder.activity.watch(task);
                    return Poll::Pending;
                }
            },
            None => Err(Reason::Internal.into()),
        };
        let response = result.unwrap_or_else(|error| super::reply::answer(&error, &recorder.cx));
        let Some(recorder) = this.recorder.take() else { return Poll::Pending };
        Poll::Ready(Ok(recorder.begin(response)))
    }
}

impl Recorder {
    fn new(worker: &Rc<Worker>, request: &mut Request) -> Self {
        let meter = (!request.body.is_empty()).then(Arc::<Meter>::default);
        if let Some(meter) = &meter {
            request.body.meter(meter.clone());
            request.cx.facts.borrow_mut().request_meter = Some(meter.clone());
        }
        let limit = request
            .cx
            .chain
            .downcast_ref::<Http>()
            .map_or(Duration::ZERO, |http| http.mesh.stream_idle_timeout);
        let activity = Rc::new(Activity {
            last: Cell::new(request.cx.started.into()),
            moved: Cell::new(false),
            limit,
            meter,
            metered: Cell::new(0),
            expired: Cell::new(false),
            over: Cell::new(false),
            place: Cell::new(usize::MAX),
            waker: RefCell::new(None),
            conn: RefCell::new(None),
        });
        worker.begin_exchange(&activity);
        Self {
            worker: worker.clone(),
            cx: request.cx.clone(),
            activity,
            version: request.head.version,
            kept: KeptHeaders::new(),
            status: 0,
            grpc_status: None,
            bytes_sent: 0,
            bytes_received: 0,
        }
    }

    /// The head of the response is there.
    fn begin(mut self, response: Response) -> http::Response<Recorded> {
        let Response { mut head, mut body } = response;
        if self.cx.facts.borrow().method == Some(Method::HEAD) && !body.is_empty() {
            // A codec drops the body of an answer to HEAD unread, which would look like a downstream that went away. Its length is all it tells.
            if let Some(length) = body.size_hint().exact() {
                head.headers.entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
            }
            body = Body::empty();
        }
        self.status = head.status.as_u16();
        self.grpc_status = grpc_status(&head.headers);
        {
            let facts = self.cx.facts.borrow();
            if let (Some(sent), Some(answered)) = (facts.upstream_sent, facts.upstream_answered) {
                let millis = u64::try_from((answered - sent).as_millis()).unwrap_or(u64::MAX);
                head.headers.insert(SERVICE_TIME, HeaderValue::from(millis));
            }
        }
        if let Some(http) = self.cx.chain.downcast_ref::<Http>()
            && !http.mesh.server_name.is_empty()
            && let Ok(name) = HeaderValue::try_from(&*http.mesh.server_name)
        {
            head.headers.insert(SERVER, name);
        }
        // To a client of HTTP/1.0 hyper answers as such by itself, and only then says that the connection stays open.
        head.version = self.version.max(Version::HTTP_11);
        self.kept =
            self.worker.log_response_headers().iter().map(|name| head.headers.get(name).cloned()).collect();
        http::Response::from_parts(
            head,
            Recorded { body, recorder: Some(self), busy: None, trailers_lost: false, multiplexed: false },
        )
    }

    /// Another byte went to the downstream.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.bytes_sent += bytes as u64;
        self.activity.moved.set(true);
    }

    /// How long the tunnel that the exchange opens may carry nothing: as long as any connection of the port. Zero: for ever.
    pub(crate) fn connection_idle_timeout(&self) -> Duration {
        self.cx.chain.downcast_ref::<Http>().map_or(Duration::ZERO, |http| http.mesh.idle_timeout)
    }

    /// The bytes of the tunnel that the exchange opened.
    pub(crate) fn tunnelled(&mut self, received: u64, sent: u64) {
        self.bytes_sent = sent;
        self.bytes_received = received;
    }

    /// Counts and logs the exchange. Only the first call does anything.
    pub(crate) fn finish(&mut self, ending: Ending<'_>) {
        if self.activity.over.replace(true) {
            return;
        }
        let duration = self.cx.started.elapsed();
        let mut facts = self.cx.facts.borrow_mut();
        if let Ending::Broken(reason) = ending {
            facts.reasons.push(reason);
            // The codec only says that the request's body broke.
            if reason != Reason::BodyTooLarge && self.is_body_too_large(&facts) {
                facts.reasons.push(Reason::BodyTooLarge);
            }
        }
        if facts.reasons.contains(&Reason::BodyTooLarge) {
            self.worker.count_limit(Reason::BodyTooLarge);
        }
        if let Ending::Complete(Some(trailers)) = ending {
            self.grpc_status = grpc_status(trailers).or(self.grpc_status);
        }
        let facts = &*facts;
        let flags =
            facts.reasons.iter().fold(ResponseFlags::NONE, |flags, reason| flags.with(labels::flag(*reason)));
        self.count(facts, flags, duration);
        self.log(facts, flags, duration, &ending);
        self.worker.end_exchange(&self.activity);
    }

    fn is_body_too_large(&self, facts: &Facts) -> bool {
        let limit = self.cx.chain.downcast_ref::<Http>().map_or(0, |http| http.mesh.max_body_bytes);
        limit != 0 && facts.request_meter.as_ref().is_some_and(|meter| meter.bytes() > limit)
    }

    fn received(&self, facts: &Facts) -> u64 {
        self.bytes_received + facts.request_meter.as_ref().map_or(0, |meter| meter.bytes())
    }

    fn count(&self, facts: &Facts, flags: ResponseFlags, duration: Duration) {
        let destination = self.cx.matched().and_then(|matched| matched.target.downcast_ref::<Destination>());
        let cluster = destination.and_then(|destination| destination.cluster.as_deref());
        let endpoint = facts.endpoint.as_ref().and_then(|endpoint| endpoint.downcast_ref::<Endpoint>());
        let protocol = if facts.grpc { Protocol::Grpc } else { Protocol::Http };
        let measured =
            Measured { duration, request_bytes: self.received(facts), response_bytes: self.bytes_sent };
        self.worker.labels.connection(cluster, endpoint, protocol, flags, |connection| {
            let labels = RequestLabels {
                connection,
                response_code: self.status,
                grpc_status: if facts.grpc { Some(self.grpc_status.unwrap_or(0)) } else { None },
            };
            self.worker.metrics.request(&labels, &measured);
        });
    }

    fn log(&self, facts: &Facts, flags: ResponseFlags, duration: Duration, ending: &Ending<'_>) {
        if !self.worker.logs() {
            return;
        }
        let details = match (&facts.details, facts.reasons.last()) {
            (Some(details), _) => details,
            (None, Some(reason)) => reason.details(),
            (None, None) => "via_upstream",
        };
        let connection: &ConnectionFacts = &self.cx.connection;
        let record = access_log::Record {
            start: SystemTime::now() - duration,
            duration,
            upstream_service_time: match (facts.upstream_sent, facts.upstream_answered) {
                (Some(sent), Some(answered)) => Some(answered - sent),
                _ => None,
            },
            method: facts.method.as_ref().map(Method::as_str),
            path: facts.target.as_ref().and_then(Uri::path_and_query).map(http::uri::PathAndQuery::as_str),
            original_path: facts.original_path.as_deref(),
            scheme: Some("http"),
            authority: self.worker.logged_authority(facts),
            protocol: Some(self.version),
            response_code: Some(self.status),
            flags,
            details: Some(details),
            upstream_transport_failure: facts.upstream_failure.as_deref(),
            bytes_received: self.received(facts),
            bytes_sent: self.bytes_sent,
            trailers: match ending {
                Ending::Complete(trailers) => *trailers,
                Ending::Broken(_) => None,
            },
            grpc_status: self.grpc_status,
            upstream_host: facts.upstream,
            cluster: facts.cluster.as_deref(),
            upstream_local: facts.upstream_local,
            downstream_local: Some(connection.local),
            downstream_remote: Some(downstream_remote(facts, connection)),
            downstream_direct: Some(connection.direct_remote),
            server_name: connection.server_name.as_deref(),
            route_name: self.cx.matched().map(|matched| &*matched.route).filter(|name| !name.is_empty()),
            ..access_log::Record::default()
        };
        self.worker.log(&record, &facts.kept_headers, &self.kept);
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if !self.activity.over.get() {
            let expired = self.activity.expired.get();
            let reason = if expired { Reason::StreamIdle } else { Reason::DownstreamClosed };
            self.finish(Ending::Broken(reason));
        }
    }
}

/// How an exchange ended, from the downstream's side.
#[derive(Clone, Copy)]
pub(crate) enum Ending<'a> {
    Complete(Option<&'a HeaderMap>),
    Broken(Reason),
}

impl Activity {
    /// True when nothing moved for longer than the limit. Wakes the exchange, which then ends itself.
    pub(crate) fn expire(&self, now: tokio::time::Instant) {
        if self.limit.is_zero() || self.over.get() {
            return;
        }
        let metered = self.meter.as_ref().map_or(0, |meter| meter.bytes());
        if self.moved.take() | (self.metered.replace(metered) != metered) {
            self.last.set(now);
        }
        if now - self.last.get() >= self.limit {
            // A codec does not ask for a body while its client does not read, so nobody hears the waker: then the connection ends.
            if self.expired.replace(true)
                && let Some(conn) = self.conn.borrow_mut().take()
            {
                conn.close(Close::Now);
            }
            if let Some(waker) = self.waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }

    /// True once nothing has moved for longer than the limit.
    pub(crate) fn is_expired(&self) -> bool {
        self.expired.get() && !self.over.get()
    }

    /// Wakes this task when the limit is reached.
    pub(crate) fn watch(&self, task: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        match &*waker {
            Some(waker) if waker.will_wake(task.waker()) => {}
            _ => *waker = Some(task.waker().clone()),
        }
    }
}

impl Recorded {
    /// Counts the connection as busy until the body has ended.
    pub(crate) fn keep_busy(&mut self, busy: Busy, http1: bool) {
        self.multiplexed = !http1;
        match &self.recorder {
            Some(recorder) if http1 => *recorder.activity.conn.borrow_mut() = Some(busy.conn().clone()),
            Some(recorder) => busy.conn().answers(recorder.activity.clone()),
            None => {}
        }
        self.busy = Some(busy);
    }

    /// The head announces no trailers to an HTTP/1 downstream: any that come are lost, and counted.
    pub(crate) fn lose_trailers(&mut self) {
        self.trailers_lost = true;
    }

    /// The codec answers otherwise than the stack did.
    pub(crate) fn restate(&mut self, status: StatusCode) {
        if let Some(recorder) = &mut self.recorder {
            recorder.status = status.as_u16();
        }
    }

    /// Takes the body apart for a tunnel: its observers and its record outlive the HTTP exchange.
    pub(crate) fn take_for_tunnel(&mut self) -> (Option<Recorder>, Observers) {
        (self.recorder.take(), self.body.take_observers())
    }
}

impl HttpBody for Recorded {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(task);
        let Some(recorder) = &mut this.recorder else { return polled };
        let ending = match &polled {
            Poll::Pending if recorder.activity.expired.get() => {
                let error = Error::new(Reason::StreamIdle).sent(true);
                this.body.reset(Reason::StreamIdle);
                this.end(Ending::Broken(Reason::StreamIdle));
                return Poll::Ready(Some(Err(error)));
            }
            Poll::Pending => {
                recorder.activity.watch(task);
                None
            }
            Poll::Ready(Some(Ok(frame))) => match (frame.data_ref(), frame.trailers_ref()) {
                (Some(data), _) => {
                    recorder.sent(data.len());
                    (!this.multiplexed && this.body.is_end_stream()).then_some(Ending::Complete(None))
                }
                (None, trailers) => {
                    if this.trailers_lost && trailers.is_some_and(|trailers| !trailers.is_empty()) {
                        recorder.worker.count_lost_trailers();
                    }
                    Some(Ending::Complete(trailers))
                }
            },
            Poll::Ready(Some(Err(error))) => Some(Ending::Broken(error.reason())),
            Poll::Ready(None) => Some(Ending::Complete(None)),
        };
        if let Some(ending) = ending {
            this.end(ending);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Recorded {
    fn end(&mut self, ending: Ending<'_>) {
        if let Some(mut recorder) = self.recorder.take() {
            recorder.finish(ending);
        }
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        let Some(recorder) = &self.recorder else { return };
        if recorder.activity.expired.get() {
            self.body.reset(Reason::StreamIdle);
            self.end(Ending::Broken(Reason::StreamIdle));
        } else if self.body.is_end_stream() {
            // A codec that knows the length, or that there is no body, stops asking once it has it all.
            self.end(Ending::Complete(None));
        }
    }
}

/// The client, as Envoy's `DOWNSTREAM_REMOTE_ADDRESS`: an address that a header named has port 0.
fn downstream_remote(facts: &Facts, connection: &ConnectionFacts) -> SocketAddr {
    match facts.client {
        Some(client) if client != connection.remote.ip().to_canonical() => SocketAddr::new(client, 0),
        _ => connection.remote,
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
