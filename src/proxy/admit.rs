//! Asks the filters of a port about the tunnel that a request wants to open.

use super::check::Early;
use crate::filters;
use filter_api::{Error, Observers, Outcome, Request, Response};
use http::Method;
use http::header::UPGRADE;
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tower::{Layer, Service};

/// See the module's documentation. What the filters keep ends with the tunnel, or with the response where none was opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdmitLayer;

/// See [`AdmitLayer`].
#[derive(Clone, Debug)]
pub(crate) struct AdmitService<S>(S);

impl<S> Layer<S> for AdmitLayer {
    type Service = AdmitService<S>;

    fn layer(&self, inner: S) -> AdmitService<S> {
        AdmitService(inner)
    }
}

impl<S> Service<Request> for AdmitService<S>
where
    S: Service<Request, Response = Response, Error = Error>,
{
    type Response = Response;
    type Error = Error;
    type Future = AdmitFuture<S::Future>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let head = &request.head;
        let mut admitted = Observers::new();
        if head.method == Method::CONNECT || head.headers.contains_key(UPGRADE) {
            match filters::on_connection(&request.cx.port, &request.cx.connection) {
                Ok(kept) => admitted = kept,
                Err(error) => return AdmitFuture { inner: Early::fail(error), admitted },
            }
        }
        AdmitFuture { inner: Early::go_on(self.0.call(request)), admitted }
    }
}

pin_project! {
    /// The future of [`AdmitService`].
    pub(crate) struct AdmitFuture<F> {
        #[pin]
        inner: Early<F>,
        admitted: Observers,
    }
}

impl<F: Future<Output = Result<Response, Error>>> Future for AdmitFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut result = ready!(this.inner.poll(task));
        let admitted = std::mem::take(this.admitted);
        match &mut result {
            Ok(response) => admitted.into_iter().for_each(|observer| response.body.observe(observer)),
            Err(error) => filters::ended(admitted, Outcome::Reset(error.reason()), 0),
        }
        Poll::Ready(result)
    }
}
