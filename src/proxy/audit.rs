//! No request or connection that needs a record goes on without a place for it in the audit.
//!
//! What was let in takes its place between the policies and the route, before an upstream hears of it; what was refused takes it before it is answered.
//! The event itself is written when the answer begins, so that streams and tunnels keep no place for as long as they live: of a request that is
//! under way when the process is killed there is no record. Without a free place the policy decides: wait, bounded by the timeouts of the
//! stream, or 503. That is what it is, a failure of ours that passes; 403 would tell the caller that it may not do what it may.

mod connection;

pub(super) use connection::{admit, admitted, refused, turned_away};

use super::check::Early;
use super::reply;
use super::worker::Worker;
use crate::snapshot::Http;
use crate::telemetry::audit::{Access, AuditLog, Event, Place};
use filter_api::{ConnectionFacts, Cx, Effect, Error, Facts, Reason, Record, Request, Response, Spec};
use filter_jwt::Jwt;
use http::Uri;
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tower::{Layer, Service};

/// The layer between the policies and the route. See the module's documentation.
#[derive(Clone)]
pub(crate) struct PassLayer(Rc<Worker>);

/// See [`PassLayer`].
#[derive(Clone)]
pub(crate) struct PassService<S> {
    worker: Rc<Worker>,
    inner: S,
}

/// The answer to a request that was refused, until there is a place for its record.
pub(super) struct Held {
    response: Option<Response>,
    cx: Cx,
    log: Arc<AuditLog>,
    taking: Taking,
}

type Taking = Pin<Box<dyn Future<Output = Place>>>;

/// What there is for an event.
enum Room {
    /// It needs no record.
    Unneeded,
    Free(Place),
    Full(Arc<AuditLog>),
}

impl PassLayer {
    pub(crate) fn new(worker: Rc<Worker>) -> Self {
        Self(worker)
    }
}

impl<S> Layer<S> for PassLayer {
    type Service = PassService<S>;

    fn layer(&self, inner: S) -> PassService<S> {
        PassService { worker: self.0.clone(), inner }
    }
}

impl<S> Service<Request> for PassService<S>
where
    S: Service<Request, Response = Response, Error = Error> + Clone,
{
    type Response = Response;
    type Error = Error;
    type Future = PassFuture<S>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    // Not inlined: where calls meet in one function, each branch copies the inner future once more.
    #[inline(never)]
    fn call(&mut self, request: Request) -> PassFuture<S> {
        if is_audited(&request.cx) {
            return self.judge(request);
        }
        PassFuture { state: State::Go { inner: Early::go_on(self.inner.call(request)) } }
    }
}

impl<S> PassService<S>
where
    S: Service<Request, Response = Response, Error = Error> + Clone,
{
    // Apart from `call`, so that without an audit it is one branch and no more code.
    #[inline(never)]
    fn judge(&mut self, request: Request) -> PassFuture<S> {
        let asked =
            request.cx.facts.borrow().records.iter().any(|record| effect(record) == Some(Effect::Audited));
        let random = self.worker.random();
        let state = match room(&self.worker, |log| asked || log.samples(random)) {
            Room::Unneeded => State::Go { inner: Early::go_on(self.inner.call(request)) },
            Room::Free(place) => {
                keep(&request.cx, place);
                State::Go { inner: Early::go_on(self.inner.call(request)) }
            }
            Room::Full(log) if log.denies_when_full() => {
                log.count_refused();
                State::Go { inner: Early::fail(unavailable()) }
            }
            Room::Full(log) => {
                let waiting = Waiting { log: log.clone(), request: Some(request) };
                State::Wait { taking: Box::pin(log.take()), waiting, service: self.inner.clone() }
            }
        };
        PassFuture { state }
    }
}

pin_project! {
    /// The future of [`PassService`].
    pub(crate) struct PassFuture<S: Service<Request>> {
        #[pin]
        state: State<S>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S: Service<Request>> {
        Go { #[pin] inner: Early<S::Future> },
        Wait { taking: Taking, waiting: Waiting, service: S },
    }
}

/// A request that waits. One that goes away meanwhile is counted: it was let in, and not served.
struct Waiting {
    log: Arc<AuditLog>,
    request: Option<Request>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.request.is_some() {
            self.log.count_refused();
        }
    }
}

impl<S> Future for PassFuture<S>
where
    S: Service<Request, Response = Response, Error = Error>,
{
    type Output = Result<Response, Error>;

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Go { inner } => return inner.poll(task),
                StateProj::Wait { taking, waiting, service } => {
                    let place = ready!(taking.as_mut().poll(task));
                    let Some(request) = waiting.request.take() else { return Poll::Pending };
                    keep(&request.cx, place);
                    Early::go_on(service.call(request))
                }
            };
            state.set(State::Go { inner: next });
        }
    }
}

/// Whether a request was refused and has no place for its record yet.
#[inline]
pub(super) fn is_owed(cx: &Cx) -> bool {
    is_audited(cx) && {
        let facts = cx.facts.borrow();
        facts.audit.is_none() && is_refused(&facts)
    }
}

/// Finds a place for the record of a request that is ended after it was let in. It is not held up: without one, the record is missed.
pub(super) fn revoked(worker: &Worker, cx: &Cx) {
    if !is_audited(cx) || cx.facts.borrow().audit.is_some() {
        return;
    }
    match room(worker, |_| true) {
        Room::Unneeded => {}
        Room::Free(place) => keep(cx, place),
        Room::Full(log) => log.count_missed(),
    }
}

/// Finds a place for the record of a request that was refused; until there is one, its answer is held.
pub(super) fn settle(worker: &Worker, cx: &Cx, response: Response) -> Result<Response, Box<Held>> {
    match room(worker, |_| true) {
        Room::Unneeded => Ok(response),
        Room::Free(place) => {
            keep(cx, place);
            Ok(response)
        }
        Room::Full(log) if log.denies_when_full() => {
            log.count_refused();
            Ok(reply::answer(&unavailable(), cx))
        }
        Room::Full(log) => Err(Box::new(Held {
            response: Some(response),
            cx: cx.clone(),
            taking: Box::pin(log.clone().take()),
            log,
        })),
    }
}

impl Held {
    pub(super) fn poll(&mut self, task: &mut Context<'_>) -> Poll<Response> {
        let place = ready!(self.taking.as_mut().poll(task));
        keep(&self.cx, place);
        self.response.take().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.response.is_some() {
            self.log.count_refused();
        }
    }
}

/// What a request was answered.
pub(super) struct Answered<'a> {
    pub(super) status: u16,
    pub(super) grpc_status: Option<u16>,
    pub(super) details: &'a str,
}

/// Writes the event of a request that has a place.
pub(super) fn write(cx: &Cx, answered: &Answered<'_>) {
    let place = cx.facts.borrow_mut().audit.take();
    let Some(place) = place.and_then(|place| place.downcast::<Place>().ok()) else { return };
    let facts = cx.facts.borrow();
    let access = Box::new(Access {
        id: id(&facts),
        client: facts.client,
        token: facts.token.clone(),
        method: facts.method.clone(),
        host: facts.host.clone(),
        path: facts.target.as_ref().map(Uri::path).map(Into::into),
        status: Some(answered.status).filter(|status| *status > 0),
        grpc_status: answered.grpc_status,
        details: Some(answered.details.into()),
        decisions: facts.records.to_vec(),
        route: cx.matched().map(|matched| matched.route.clone()),
        cluster: facts.cluster.clone(),
        upstream: facts.upstream,
        ..of_connection(&cx.connection, cx.started)
    });
    place.write(if is_refused(&facts) { Event::Denied(access) } else { Event::Allowed(access) });
}

/// The id by which answer, access log and audit know a request: that of the decision to refuse it, else its own.
fn id(facts: &Facts) -> Option<http::HeaderValue> {
    let decision = facts.decision.and_then(|id| http::HeaderValue::try_from(id.as_str()).ok());
    decision.or_else(|| facts.request_id.clone())
}

#[inline]
fn is_audited(cx: &Cx) -> bool {
    cx.chain.downcast_ref::<Http>().is_some_and(|http| http.mesh.audited)
}

/// Whether a request was refused for who it comes from or what it asks for; not for how it is written.
fn is_refused(facts: &Facts) -> bool {
    let by_token = |record: &Record| record.layer == Jwt::NAME && record.ruling.is_none();
    let by_door = |reason: &Reason| {
        matches!(reason, Reason::AccessDenied | Reason::ConnectionRefused | Reason::Misdirected)
    };
    facts.records.iter().any(|record| effect(record) == Some(Effect::Denied) || by_token(record))
        || facts.reasons.iter().any(by_door)
}

fn effect(record: &Record) -> Option<Effect> {
    record.ruling.as_ref().map(|ruling| ruling.effect)
}

fn room(worker: &Worker, needed: impl FnOnce(&AuditLog) -> bool) -> Room {
    let log = worker.auditor().log();
    match &*log {
        Some(log) if needed(log) => log.try_take().map_or_else(|| Room::Full(log.clone()), Room::Free),
        _ => Room::Unneeded,
    }
}

fn keep(cx: &Cx, place: Place) {
    cx.facts.borrow_mut().audit = Some(Box::new(place));
}

fn unavailable() -> Error {
    Error::new(Reason::AuditUnavailable)
        .detail("what is asked for here is recorded, and that cannot be done now")
        .retry_safe()
}

/// What is known of a connection alone.
fn of_connection(facts: &Arc<ConnectionFacts>, started: Instant) -> Access {
    Access {
        id: None,
        connection: facts.clone(),
        client: None,
        token: None,
        method: None,
        host: None,
        path: None,
        status: None,
        grpc_status: None,
        details: None,
        decisions: Vec::new(),
        route: None,
        cluster: None,
        upstream: None,
        duration: started.elapsed(),
    }
}
