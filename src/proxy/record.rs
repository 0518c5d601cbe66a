//! The outermost layer: what is counted and logged of each exchange, whatever became of it.

mod activity;
mod body;
mod report;

pub(crate) use activity::Activity;
pub(crate) use body::{Recorded, Trailers};

use super::audit;
use super::connection::Door;
use super::headers::grpc::GRPC_STATUS;
use super::labels;
use super::worker::Worker;
use crate::snapshot::Http;
use crate::telemetry::flags::ResponseFlags;
use filter_api::{Body, Cx, Error, Facts, Meter, Reason, Request, Response};
use http::header::{CONTENT_LENGTH, SERVER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use http_body::Body as _;
use pin_project_lite::pin_project;
use smallvec::SmallVec;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
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
        RecordFuture { inner: Some(self.inner.call(request)), recorder: Some(recorder), held: None }
    }
}

pin_project! {
    /// The future of [`RecordService`].
    pub(crate) struct RecordFuture<F> {
        #[pin]
        inner: Option<F>,
        recorder: Option<Recorder>,
        // A refusal that waits for its place in the audit.
        held: Option<Box<audit::Held>>,
    }
}

impl<F: Future<Output = Result<Response, Error>>> Future for RecordFuture<F> {
    type Output = Result<http::Response<Recorded>, Infallible>;

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(recorder) = this.recorder.as_ref() else { return Poll::Pending };
        if this.held.is_some() {
            return settle(this.recorder, this.held, None, task).map(Ok);
        }
        let result = match this.inner.as_mut().as_pin_mut() {
            Some(inner) => match inner.poll(task) {
                Poll::Ready(result) => result,
                Poll::Pending => match recorder.activity.take_end() {
                    Some(reason) => {
                        this.inner.set(None);
                        Err(Error::new(reason))
                    }
                    None => {
                        recorder.activity.watch(task);
                        return Poll::Pending;
                    }
                },
            },
            None => Err(Reason::Internal.into()),
        };
        let response = result.unwrap_or_else(|error| super::reply::answer(&error, &recorder.cx));
        if audit::is_owed(&recorder.cx) {
            return settle(this.recorder, this.held, Some(response), task).map(Ok);
        }
        let Some(recorder) = this.recorder.take() else { return Poll::Pending };
        Poll::Ready(Ok(recorder.begin(response)))
    }
}

/// Holds the answer to a request that was refused until there is a place for its record.
#[cold]
fn settle(
    recorder: &mut Option<Recorder>,
    held: &mut Option<Box<audit::Held>>,
    response: Option<Response>,
    task: &mut Context<'_>,
) -> Poll<http::Response<Recorded>> {
    let Some(known) = recorder.as_ref() else { return Poll::Pending };
    let mut settled = None;
    match response.map(|response| audit::settle(&known.worker, &known.cx, response)) {
        Some(Ok(response)) => settled = Some(response),
        Some(Err(waiting)) => *held = Some(waiting),
        None => {}
    }
    if let (None, Some(waiting)) = (&settled, held) {
        settled = match waiting.poll(task) {
            Poll::Ready(response) => Some(response),
            Poll::Pending => match known.activity.take_end() {
                Some(reason) => Some(super::reply::answer(&Error::new(reason), &known.cx)),
                None => {
                    known.activity.watch(task);
                    None
                }
            },
        };
    }
    match settled.and_then(|response| Some((recorder.take()?, response))) {
        Some((recorder, response)) => Poll::Ready(recorder.begin(response)),
        None => Poll::Pending,
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
        let activity = Rc::new(Activity::new(&request.cx, limit, meter));
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

    /// Counts and logs what the codec refused, as the context says: no exchange came of it.
    pub(crate) fn refused(worker: &Rc<Worker>, cx: Cx, version: Version, status: u16) {
        let activity = Rc::new(Activity::new(&cx, Duration::ZERO, None));
        worker.begin_exchange(&activity);
        let mut recorder = Self {
            worker: worker.clone(),
            cx,
            activity,
            version,
            kept: KeptHeaders::new(),
            status,
            grpc_status: None,
            bytes_sent: 0,
            bytes_received: 0,
        };
        recorder.finish(Ending::Complete(None));
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
                head.headers.insert(SERVICE_TIME, small_number(millis));
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
        self.worker.note_answer(&self.cx, &mut head, self.grpc_status);
        self.audit();
        self.kept =
            self.worker.log_response_headers().iter().map(|name| head.headers.get(name).cloned()).collect();
        http::Response::from_parts(head, Recorded::new(body, self))
    }

    /// Another byte went to the downstream.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.bytes_sent += bytes as u64;
        self.activity.moved();
    }

    /// How long the tunnel that the exchange opens may carry nothing: as long as any connection of the port. Zero: for ever.
    pub(crate) fn connection_idle_timeout(&self) -> Duration {
        self.cx.chain.downcast_ref::<Http>().map_or(Duration::ZERO, |http| http.mesh.idle_timeout)
    }

    /// Resolves when the tunnel that the exchange opened has to end before its time, with the reason.
    pub(crate) async fn ended_early(&self) -> Reason {
        poll_fn(|task| match self.activity.must_end() {
            Some(reason) => Poll::Ready(reason),
            None => {
                self.activity.watch(task);
                Poll::Pending
            }
        })
        .await
    }

    /// The exchange has opened a tunnel on a connection that came in by this door; it may be one of HTTP no more.
    pub(crate) fn opened_tunnel(&self, door: Option<&Rc<Door>>) {
        self.activity.becomes_tunnel(door);
    }

    /// The bytes of the tunnel that the exchange opened.
    pub(crate) fn tunnelled(&mut self, received: u64, sent: u64) {
        self.bytes_sent = sent;
        self.bytes_received = received;
    }

    /// Counts and logs the exchange. Only the first call does anything.
    pub(crate) fn finish(&mut self, ending: Ending<'_>) {
        if self.activity.end() {
            return;
        }
        // Of an exchange that was dropped before its answer.
        self.audit();
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
        if facts.loses_trailers && facts.request_meter.as_ref().is_some_and(|meter| meter.had_trailers()) {
            self.worker.count_lost_trailers();
        }
        let broken = match ending {
            Ending::Broken(reason) => Some(reason),
            Ending::Complete(_) => None,
        };
        self.worker.note_end(&self.cx, &mut facts, broken, self.status, self.grpc_status);
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
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if !self.activity.is_over() {
            let malformed = self.cx.facts.borrow().reasons.last() == Some(&Reason::DownstreamMessage);
            let reason = match self.activity.must_end() {
                Some(reason) => reason,
                None if malformed => Reason::DownstreamMessage,
                None => Reason::DownstreamClosed,
            };
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

/// A number as a header value; nearly all are small, and then cost no allocation.
fn small_number(number: u64) -> HeaderValue {
    const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    let digit = usize::try_from(number).ok().and_then(|number| DIGITS.get(number));
    digit.map_or_else(|| HeaderValue::from(number), |digit| HeaderValue::from_static(digit))
}

fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
