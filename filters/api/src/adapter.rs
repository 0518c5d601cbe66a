//! Turns the hooks of a filter into a tower layer.

use crate::{End, Error, Filter, FilterPlace, Next, Observer, Outcome, Request, Response, Slot, Step};
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tower::{Layer, Service};

/// The layer of a filter whose settings are at `slot`.
pub struct FilterLayer<F>(Slot<F>);

/// See [`FilterLayer`].
pub struct FilterService<F, S> {
    slot: Slot<F>,
    inner: S,
}

impl<F: Filter> FilterLayer<F> {
    /// A layer that reads its settings at `slot`.
    pub const fn new(slot: Slot<F>) -> Self {
        Self(slot)
    }
}

impl<F, S> Layer<S> for FilterLayer<F> {
    type Service = FilterService<F, S>;

    fn layer(&self, inner: S) -> Self::Service {
        FilterService { slot: self.0, inner }
    }
}

impl<F, S> Service<Request> for FilterService<F, S>
where
    F: Filter,
    S: Service<Request, Response = Response, Error = Error> + Clone,
{
    type Response = Response;
    type Error = Error;
    type Future = FilterFuture<F, S>;

    /// Always ready: load is shed by answering, never by making the caller wait.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Request) -> Self::Future {
        let slots = match F::PLACE {
            FilterPlace::Port => Some(&request.cx.port),
            FilterPlace::Route => request.cx.matched().map(|matched| &matched.slots),
        };
        let Some(settings) = slots.and_then(|slots| slots.share(self.slot)) else {
            return FilterFuture { state: State::Pass { inner: self.inner.call(request) } };
        };
        let state = match F::on_request(&settings, request) {
            Step::Continue(request, _) if !F::AFTER => State::Pass { inner: self.inner.call(request) },
            Step::Continue(request, state) => {
                let live = Live(Some((settings, state)));
                State::Live { inner: self.inner.call(request), live }
            }
            Step::Reply(response) => State::Done { result: Some(Ok(response)) },
            Step::Fail(error) => State::Done { result: Some(Err(error)) },
            Step::Wait(next) => State::Wait { next, settings, service: self.inner.clone() },
        };
        FilterFuture { state }
    }
}

pin_project! {
    /// The future of [`FilterService`].
    pub struct FilterFuture<F: Filter, S: Service<Request>> {
        #[pin]
        state: State<F, S>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F: Filter, S: Service<Request>> {
        // Off, or nothing left to do.
        Pass { #[pin] inner: S::Future },
        // The response and the end will be looked at.
        Live { #[pin] inner: S::Future, live: Live<F> },
        // The filter is asking somebody.
        Wait { next: Next<F::State>, settings: Arc<Vec<F::Compiled>>, service: S },
        // It answered at once.
        Done { result: Option<Result<Response, Error>> },
    }
}

impl<F, S> Future for FilterFuture<F, S>
where
    F: Filter,
    S: Service<Request, Response = Response, Error = Error>,
{
    type Output = Result<Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Pass { inner } => return inner.poll(cx),
                StateProj::Live { inner, live } => {
                    let result = ready!(inner.poll(cx));
                    return Poll::Ready(live.finish(result));
                }
                StateProj::Done { result } => match result.take() {
                    Some(result) => return Poll::Ready(result),
                    None => return Poll::Pending,
                },
                StateProj::Wait { next, settings, service } => match ready!(next.as_mut().poll(cx)) {
                    Step::Continue(request, carried) => {
                        let live = Live(Some((settings.clone(), carried)));
                        State::Live { inner: service.call(request), live }
                    }
                    Step::Reply(response) => return Poll::Ready(Ok(response)),
                    Step::Fail(error) => return Poll::Ready(Err(error)),
                    Step::Wait(again) => {
                        *next = again;
                        continue;
                    }
                },
            };
            state.set(next);
        }
    }
}

/// What a live filter carries until the end; tells it on drop.
struct Live<F: Filter>(Option<(Arc<Vec<F::Compiled>>, F::State)>);

impl<F: Filter> Live<F> {
    fn finish(&mut self, result: Result<Response, Error>) -> Result<Response, Error> {
        let Some((settings, mut state)) = self.0.take() else { return result };
        match result {
            Ok(mut response) => {
                F::on_response(&settings, &mut state, &mut response);
                response.body.observe(Box::new(Self(Some((settings, state)))));
                Ok(response)
            }
            Err(error) => {
                F::on_end(
                    &settings,
                    state,
                    &End { outcome: Outcome::Reset(error.reason()), bytes: 0, trailers: None },
                );
                Err(error)
            }
        }
    }
}

impl<F: Filter> Observer for Live<F> {
    fn on_end(mut self: Box<Self>, end: &End<'_>) {
        if let Some((settings, state)) = self.0.take() {
            F::on_end(&settings, state, end);
        }
    }
}

impl<F: Filter> Drop for Live<F> {
    fn drop(&mut self) {
        if let Some((settings, state)) = self.0.take() {
            F::on_end(&settings, state, &End { outcome: Outcome::Cancelled, bytes: 0, trailers: None });
        }
    }
}

impl<F: Filter> std::fmt::Debug for Live<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Live({})", F::NAME)
    }
}

impl<F> Clone for FilterLayer<F> {
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

impl<F, S: Clone> Clone for FilterService<F, S> {
    fn clone(&self) -> Self {
        Self { slot: self.slot, inner: self.inner.clone() }
    }
}

impl<F> std::fmt::Debug for FilterLayer<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FilterLayer({:?})", self.0)
    }
}

impl<F, S> std::fmt::Debug for FilterService<F, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FilterService({:?})", self.slot)
    }
}

impl<F: Filter, S: Service<Request>> std::fmt::Debug for FilterFuture<F, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FilterFuture({})", F::NAME)
    }
}
