//! The layer.

use crate::body::Limited;
use crate::{Timeout, parse_grpc_timeout};
use filter_api::{Body, Error, Reason, Request, Response, Slot};
use http::{Method, StatusCode};
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};
use tower::{Layer, Service};

/// Ends a call that takes too long. It wraps the call, so it is a layer of its own and not a filter of hooks.
#[derive(Clone, Copy, Debug)]
pub struct TimeoutLayer(Slot<Timeout>);

/// See [`TimeoutLayer`].
#[derive(Clone, Debug)]
pub struct TimeoutService<S> {
    slot: Slot<Timeout>,
    inner: S,
}

impl TimeoutLayer {
    /// A layer that reads its settings at `slot`.
    pub const fn new(slot: Slot<Timeout>) -> Self {
        Self(slot)
    }
}

impl<S> Layer<S> for TimeoutLayer {
    type Service = TimeoutService<S>;

    fn layer(&self, inner: S) -> TimeoutService<S> {
        TimeoutService { slot: self.0, inner }
    }
}

impl<S> Service<Request> for TimeoutService<S>
where
    S: Service<Request, Response = Response, Error = Error>,
{
    type Response = Response;
    type Error = Error;
    type Future = TimeoutFuture<S::Future>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    // Not inlined, for the reason given in `FilterService`.
    #[inline(never)]
    fn call(&mut self, request: Request) -> Self::Future {
        let deadline = self.limit(&request).and_then(|limit| request.cx.started.checked_add(limit));
        let sleep = deadline.map(|deadline| Box::pin(sleep_until(Instant::from_std(deadline))));
        let connect = request.head.method == Method::CONNECT;
        TimeoutFuture { inner: Some(self.inner.call(request)), sleep, connect }
    }
}

impl<S> TimeoutService<S> {
    fn limit(&self, request: &Request) -> Option<Duration> {
        let route = request.cx.matched().and_then(|matched| matched.slots.read(self.slot));
        let route = route
            .and_then(|settings| settings.last())
            .map(|settings| settings.total)
            .filter(|total| !total.is_zero());
        if !request.cx.facts.borrow().grpc {
            return route;
        }
        // Zero is not the positive number that the protocol asks for; Envoy reads it as no deadline, too.
        let client = request.head.headers.get("grpc-timeout");
        let client = client
            .and_then(|value| parse_grpc_timeout(value.as_bytes()))
            .filter(|deadline| !deadline.is_zero());
        match (route, client) {
            (Some(route), Some(client)) => Some(route.min(client)),
            (one, other) => one.or(other),
        }
    }
}

pin_project! {
    /// The future of [`TimeoutService`]. The sleep is boxed: most routes have no timeout, and it moves on into the body.
    #[derive(Debug)]
    pub struct TimeoutFuture<F> {
        #[pin]
        inner: Option<F>,
        sleep: Option<Pin<Box<Sleep>>>,
        connect: bool,
    }
}

impl<F> Future for TimeoutFuture<F>
where
    F: Future<Output = Result<Response, Error>>,
{
    type Output = Result<Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else { return Poll::Pending };
        if let Poll::Ready(result) = inner.poll(cx) {
            return Poll::Ready(match (result, this.sleep.take()) {
                (Ok(mut response), Some(sleep))
                    if !response.body.is_empty() && !is_tunnel(&response, *this.connect) =>
                {
                    let body = std::mem::take(&mut response.body);
                    response.body = Body::boxed(Limited { body, sleep });
                    Ok(response)
                }
                (result, _) => result,
            });
        }
        let Some(sleep) = this.sleep else { return Poll::Pending };
        sleep.as_mut().poll(cx).map(|()| {
            // Now, not when somebody drops this future: the stream is reset before the caller hears of it.
            this.inner.set(None);
            Err(Error::new(Reason::RequestTimeout).sent(true))
        })
    }
}

/// From here on it is bytes both ways, for as long as they please.
fn is_tunnel(response: &Response, connect: bool) -> bool {
    response.head.status == StatusCode::SWITCHING_PROTOCOLS || connect && response.head.status.is_success()
}
