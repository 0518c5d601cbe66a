//! Turns the hooks of a filter into a tower layer.

use crate::{
    ConnectionFacts, Cx, End, Error, Filter, FilterPlace, Next, Observer, Observers, Outcome, Reason,
    Request, Response, Slot, Slots, Step, Verdict,
};
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

    // Not inlined: as a call of its own, each layer writes its future where the outermost one wants it. Inlined into one another, the branches
    // meet, and every layer copies the futures of all layers inside.
    #[inline(never)]
    fn call(&mut self, request: Request) -> Self::Future {
        if slots::<F>(&request.cx).is_some_and(|slots| slots.holds(self.slot)) {
            return self.judge(request);
        }
        FilterFuture { state: State::Pass { inner: self.inner.call(request) } }
    }
}

impl<F, S> FilterService<F, S>
where
    F: Filter,
    S: Service<Request, Response = Response, Error = Error> + Clone,
{
    // Apart from `call`, so that a filter that is off is one branch and no more code.
    #[inline(never)]
    fn judge(&mut self, request: Request) -> FilterFuture<F, S> {
        let cx = request.cx.clone();
        let Some(settings) = settings(&cx, self.slot) else {
            return FilterFuture { state: State::Done { result: Some(Err(misplaced::<F>())) } };
        };
        let state = match F::on_request(settings, request) {
            Step::Continue(request, state) => State::go_on(&mut self.inner, request, cx, self.slot, state),
            Step::Reply(response) => State::Done { result: Some(Ok(response)) },
            Step::Fail(error) => State::Done { result: Some(Err(error)) },
            Step::Wait(next) => State::Wait { next, cx, slot: self.slot, service: self.inner.clone() },
        };
        FilterFuture { state }
    }
}

/// Asks the filter at `slot` about a connection. If it lets it go on and wants to hear of its end, that is what joins `admitted`.
///
/// # Errors
///
/// The refusal, or that the slot holds the settings of another filter.
pub fn admit<F: Filter>(
    slots: &Slots,
    slot: Slot<F>,
    connection: &ConnectionFacts,
    admitted: &mut Observers,
) -> Result<(), Error>
where
    F::State: Default,
{
    if !slots.holds(slot) {
        return Ok(());
    }
    let Some(settings) = slots.share(slot) else { return Err(misplaced::<F>()) };
    match F::on_connection(&settings, connection) {
        Verdict::Continue(state) if F::AFTER && F::ENDS && F::stays(&state) => {
            admitted.push(Box::new(Ending::<F> { settings, state: Some(state) }));
        }
        Verdict::Continue(_) => {}
        Verdict::Refuse(error) => return Err(error),
    }
    Ok(())
}

fn misplaced<F: Filter>() -> Error {
    let detail = format!("the place of filter {} holds the settings of another filter", F::NAME);
    Error::new(Reason::Internal).detail(detail)
}

/// The slots that hold the settings of `F`.
#[inline]
fn slots<F: Filter>(cx: &Cx) -> Option<&Slots> {
    match F::PLACE {
        FilterPlace::Port => Some(&cx.port),
        FilterPlace::Route => cx.matched().map(|matched| &matched.slots),
    }
}

#[inline]
fn settings<F: Filter>(cx: &Cx, slot: Slot<F>) -> Option<&Vec<F::Compiled>> {
    slots::<F>(cx)?.read(slot)
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
        Wait { next: Next<F::State>, cx: Cx, slot: Slot<F>, service: S },
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

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        if let StateProj::Pass { inner } = state.as_mut().project() {
            return inner.poll(cx);
        }
        state.poll_live(cx)
    }
}

impl<F, S> State<F, S>
where
    F: Filter,
    S: Service<Request, Response = Response, Error = Error>,
{
    #[inline]
    fn go_on(service: &mut S, request: Request, cx: Cx, slot: Slot<F>, state: F::State) -> Self {
        if !F::AFTER || !F::stays(&state) {
            return Self::Pass { inner: service.call(request) };
        }
        // Before the call: if that panics, the end is told all the same.
        let live = Live { cx, slot, state: Some(state) };
        Self::Live { inner: service.call(request), live }
    }

    #[inline(never)]
    fn poll_live(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Response, Error>> {
        loop {
            let next = match self.as_mut().project() {
                StateProj::Pass { inner } => return inner.poll(cx),
                StateProj::Live { inner, live } => {
                    let result = ready!(inner.poll(cx));
                    return Poll::Ready(live.finish(result));
                }
                StateProj::Done { result } => match result.take() {
                    Some(result) => return Poll::Ready(result),
                    None => return Poll::Pending,
                },
                StateProj::Wait { next, cx: exchange, slot, service } => match ready!(next.as_mut().poll(cx))
                {
                    Step::Continue(request, carried) => {
                        Self::go_on(service, request, exchange.clone(), *slot, carried)
                    }
                    Step::Reply(response) => Self::Done { result: Some(Ok(response)) },
                    Step::Fail(error) => Self::Done { result: Some(Err(error)) },
                    Step::Wait(again) => {
                        *next = again;
                        continue;
                    }
                },
            };
            self.set(next);
        }
    }
}

/// What a live filter carries until the head of the response is there; dropped before, it tells the end.
struct Live<F: Filter> {
    cx: Cx,
    slot: Slot<F>,
    state: Option<F::State>,
}

/// What it carries from there to the end of the body. Leaves the worker with the body, so it shares the settings and not the context.
struct Ending<F: Filter> {
    settings: Arc<Vec<F::Compiled>>,
    state: Option<F::State>,
}

impl<F: Filter> Live<F> {
    fn finish(&mut self, result: Result<Response, Error>) -> Result<Response, Error> {
        match result {
            Ok(mut response) => {
                // The state stays here while the hook runs: if that panics, the end is told all the same.
                if let (Some(settings), Some(state)) = (settings(&self.cx, self.slot), &mut self.state) {
                    F::on_response(settings, state, &mut response);
                }
                if !F::ENDS {
                    self.state = None;
                } else if let Some(settings) = slots::<F>(&self.cx).and_then(|slots| slots.share(self.slot)) {
                    let ending = Ending::<F> { settings, state: self.state.take() };
                    response.body.observe(Box::new(ending));
                }
                Ok(response)
            }
            Err(error) => {
                self.end(Outcome::Reset(error.reason()));
                Err(error)
            }
        }
    }

    fn end(&mut self, outcome: Outcome) {
        if !F::ENDS {
            return;
        }
        if let (Some(settings), Some(state)) = (settings(&self.cx, self.slot), self.state.take()) {
            F::on_end(settings, state, &End { outcome, bytes: 0, trailers: None });
        }
    }
}

impl<F: Filter> Drop for Live<F> {
    fn drop(&mut self) {
        self.end(Outcome::Cancelled);
    }
}

impl<F: Filter> Observer for Ending<F> {
    fn on_end(mut self: Box<Self>, end: &End<'_>) {
        if let Some(state) = self.state.take() {
            F::on_end(&self.settings, state, end);
        }
    }
}

impl<F: Filter> Drop for Ending<F> {
    fn drop(&mut self) {
        if let Some(state) = self.state.take() {
            F::on_end(&self.settings, state, &End { outcome: Outcome::Cancelled, bytes: 0, trailers: None });
        }
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
