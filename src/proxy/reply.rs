//! Turns failures into answers. The only place that does.

use super::headers::grpc;
use super::worker::Worker;
use filter_api::{Cx, Error, Fault, Reason, Record, Request, Response};
use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use pin_project_lite::pin_project;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tower::{Layer, Service};

/// Turns an `Error` into an HTTP or gRPC answer and a panic into an `Error`: the process and the other exchanges go on.
#[derive(Clone)]
pub(crate) struct ReplyLayer(pub(crate) Rc<Worker>);

/// See [`ReplyLayer`].
#[derive(Clone)]
pub(crate) struct ReplyService<S> {
    worker: Rc<Worker>,
    inner: S,
}

impl<S> Layer<S> for ReplyLayer {
    type Service = ReplyService<S>;

    fn layer(&self, inner: S) -> ReplyService<S> {
        ReplyService { worker: self.0.clone(), inner }
    }
}

impl<S> Service<Request> for ReplyService<S>
where
    S: Service<Request, Response = Response, Error = Error>,
{
    type Response = Response;
    type Error = Error;
    type Future = ReplyFuture<S::Future>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let cx = request.cx.clone();
        let (inner, failed) = match catch_unwind(AssertUnwindSafe(|| self.inner.call(request))) {
            Ok(inner) => (Some(inner), None),
            Err(panic) => (None, Some(panicked(&self.worker, panic.as_ref()))),
        };
        ReplyFuture { inner, failed, cx, worker: self.worker.clone() }
    }
}

pin_project! {
    /// The future of [`ReplyService`].
    pub(crate) struct ReplyFuture<F> {
        #[pin]
        inner: Option<F>,
        failed: Option<Error>,
        cx: Cx,
        worker: Rc<Worker>,
    }
}

impl<F: Future<Output = Result<Response, Error>>> Future for ReplyFuture<F> {
    type Output = Result<Response, Error>;

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let result = match this.inner.as_mut().as_pin_mut() {
            Some(inner) => match catch_unwind(AssertUnwindSafe(|| inner.poll(task))) {
                Ok(Poll::Pending) => return Poll::Pending,
                Ok(Poll::Ready(result)) => result,
                Err(panic) => {
                    this.inner.set(None);
                    Err(panicked(this.worker, panic.as_ref()))
                }
            },
            None => Err(this.failed.take().unwrap_or_else(|| Reason::Internal.into())),
        };
        Poll::Ready(Ok(result.unwrap_or_else(|error| answer(&error, this.cx))))
    }
}

fn panicked(worker: &Worker, panic: &(dyn std::any::Any + Send)) -> Error {
    worker.count_panic();
    let words = panic
        .downcast_ref::<&str>()
        .map(|words| (*words).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    tracing::error!(panic = %words, "an exchange panicked; it is answered 500, the others go on");
    Error::new(Reason::Internal).source(format!("panic: {words}"))
}

/// The answer to a failure, and what the record will say of it.
pub(crate) fn answer(error: &Error, cx: &Cx) -> Response {
    let reason = error.reason();
    let (grpc, id) = {
        let mut facts = cx.facts.borrow_mut();
        facts.reasons.push(reason);
        // What broke on the downstream's side is no failure of the upstream's transport.
        if reason.fault() != Fault::Downstream
            && let Some(cause) = error.cause()
        {
            facts.upstream_failure = Some(cause.into());
        }
        if let Some(details) = error.own_details() {
            facts.details = Some(details.into());
        }
        facts.records.extend(error.decided().cloned());
        let matched = cx.matched().map(|matched| matched.origin.clone());
        facts.records.push(Record {
            layer: "reply",
            origin: matched.unwrap_or_default(),
            because: error.to_string().into(),
            ruling: None,
        });
        (facts.grpc, facts.refused_by())
    };
    let message = format!("{} (decision {id})", message(error));
    let mut response =
        if grpc { grpc_answer(reason, &message) } else { http_answer(reason.status(), message) };
    // What is left of a body that is too long is not read.
    if error.must_close() || reason == Reason::BodyTooLarge {
        response.head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// What the caller reads: the reason in Envoy's words, and what we know beyond it. Causes stay in our log.
fn message(error: &Error) -> String {
    if matches!(error.reason(), Reason::AccessDenied | Reason::AccessRevoked) {
        // As for a request that a policy refuses: which one is not for the caller to know.
        return "RBAC: access denied".to_owned();
    }
    let reason = error.own_details().unwrap_or(error.reason().details());
    let reason = reason.split_once('{').map_or(reason, |(_, inner)| inner.trim_end_matches('}'));
    match error.detail_str() {
        "" => reason.replace('_', " "),
        detail => format!("{}: {detail}", reason.replace('_', " ")),
    }
}

fn http_answer(status: StatusCode, mut message: String) -> Response {
    message.push('\n');
    let mut response = Response::new(status).with_body(message);
    response.head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// Trailers-only (gRPC over HTTP/2): status 200, the outcome in the head.
fn grpc_answer(reason: Reason, message: &str) -> Response {
    let mut response = Response::new(StatusCode::OK);
    let headers = &mut response.head.headers;
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(u16::from(reason.grpc_status())));
    if let Ok(message) = HeaderValue::try_from(&*grpc::encode_grpc_message(message)) {
        headers.insert("grpc-message", message);
    }
    response
}
