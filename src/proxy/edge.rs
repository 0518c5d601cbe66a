//! What an upstream says to proxies ends where its answer leaves the mesh.

use super::headers::strip_control_of_response;
use crate::snapshot::Http;
use filter_api::{Error, Request, Response};
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tower::{Layer, Service};

/// Removes control headers (`x-envoy-overloaded`, `x-envoy-peer-metadata` and the like) from answers to clients that are not part of the mesh.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EdgeLayer;

/// See [`EdgeLayer`].
#[derive(Clone, Debug)]
pub(crate) struct EdgeService<S>(S);

impl<S> Layer<S> for EdgeLayer {
    type Service = EdgeService<S>;

    fn layer(&self, inner: S) -> EdgeService<S> {
        EdgeService(inner)
    }
}

impl<S> Service<Request> for EdgeService<S>
where
    S: Service<Request, Response = Response, Error = Error>,
{
    type Response = Response;
    type Error = Error;
    type Future = EdgeFuture<S::Future>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let edge = request.cx.chain.downcast_ref::<Http>().is_some_and(|http| http.mesh.edge);
        EdgeFuture { inner: self.0.call(request), edge }
    }
}

pin_project! {
    /// The future of [`EdgeService`].
    pub(crate) struct EdgeFuture<F> {
        #[pin]
        inner: F,
        edge: bool,
    }
}

impl<F: Future<Output = Result<Response, Error>>> Future for EdgeFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut result = ready!(this.inner.poll(task));
        if let (true, Ok(response)) = (*this.edge, &mut result) {
            strip_control_of_response(&mut response.head.headers);
        }
        Poll::Ready(result)
    }
}
