//! A layer that looks at the request, changes it in place or fails it, and has nothing to do afterwards.

use super::worker::Worker;
use filter_api::{Error, Request, Response};
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tower::{Layer, Service};

/// What such a layer does.
pub(crate) type Check = fn(&Worker, &mut Request) -> Result<(), Error>;

/// See the module's documentation.
#[derive(Clone)]
pub(crate) struct CheckLayer(Rc<Worker>, Check);

/// See [`CheckLayer`].
#[derive(Clone)]
pub(crate) struct CheckService<S> {
    worker: Rc<Worker>,
    check: Check,
    inner: S,
}

impl CheckLayer {
    pub(crate) fn new(worker: Rc<Worker>, check: Check) -> Self {
        Self(worker, check)
    }
}

impl<S> Layer<S> for CheckLayer {
    type Service = CheckService<S>;

    fn layer(&self, inner: S) -> CheckService<S> {
        CheckService { worker: self.0.clone(), check: self.1, inner }
    }
}

impl<S> Service<Request> for CheckService<S>
where
    S: Service<Request, Response = Response, Error = Error>,
{
    type Response = Response;
    type Error = Error;
    type Future = Early<S::Future>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    // Not inlined: where calls meet in one function, each branch copies the inner future once more.
    #[inline(never)]
    fn call(&mut self, mut request: Request) -> Self::Future {
        match (self.check)(&self.worker, &mut request) {
            Ok(()) => Early::go_on(self.inner.call(request)),
            Err(error) => Early::fail(error),
        }
    }
}

pin_project! {
    /// The call, or a failure that was clear at once.
    #[project = EarlyProj]
    pub(crate) enum Early<F> {
        Call { #[pin] inner: F },
        Fail { error: Option<Error> },
    }
}

impl<F> Early<F> {
    pub(crate) fn go_on(inner: F) -> Self {
        Self::Call { inner }
    }

    pub(crate) fn fail(error: Error) -> Self {
        Self::Fail { error: Some(error) }
    }
}

impl<F: Future<Output = Result<Response, Error>>> Future for Early<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project() {
            EarlyProj::Call { inner } => inner.poll(cx),
            EarlyProj::Fail { error } => error.take().map_or(Poll::Pending, |error| Poll::Ready(Err(error))),
        }
    }
}
