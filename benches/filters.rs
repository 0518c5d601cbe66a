//! What a layer of the stack costs a request: ten filters that are off, one that is on, and the transform filter.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot start may panic")]

use criterion::{Criterion, criterion_group, criterion_main};
use filter_api::{
    Body, ConnectionFacts, Cx, End, Error, Filter, FilterLayer, FilterPlace, Matched, Origin, Protocol,
    Request, Response, Slot, Slots, Spec, Step,
};
use filter_transform::{HeaderChange, HeaderChanges, Settings, Transform};
use http::{HeaderName, HeaderValue, StatusCode};
use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tower::{Layer, Service};

/// A filter that only lets pass; each number is a type and a place of its own, as in the stack.
struct Idle<const N: usize>;

impl<const N: usize> Spec for Idle<N> {
    const NAME: &'static str = "idle";
    type Settings = ();
    type Compiled = ();

    fn compile((): &(), _: &filter_api::Keep) -> Result<(), String> {
        Ok(())
    }
}

impl<const N: usize> Filter for Idle<N> {
    const PLACE: FilterPlace = FilterPlace::Route;
    const AFTER: bool = true;
    type State = u32;

    fn on_request(settings: &[()], request: Request) -> Step<u32> {
        Step::Continue(request, settings.len() as u32)
    }

    fn on_end(_: &[()], state: u32, end: &End<'_>) {
        black_box((state, end.bytes));
    }
}

/// An upstream that has answered before it was asked.
#[derive(Clone)]
struct Upstream;

impl Service<Request> for Upstream {
    type Response = Response;
    type Error = Error;
    type Future = Ready<Result<Response, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    #[inline(never)]
    fn call(&mut self, request: Request) -> Self::Future {
        drop(black_box(request));
        ready(Ok(Response::new(StatusCode::OK)))
    }
}

fn connection() -> Arc<ConnectionFacts> {
    let any = "127.0.0.1:1".parse().unwrap();
    Arc::new(ConnectionFacts {
        listener: "l".into(),
        remote: any,
        direct_remote: any,
        local: any,
        original_destination: None,
        protocol: Protocol::Http1,
        server_name: None,
        tls: None,
    })
}

/// What stays the same from request to request.
struct Route {
    connection: Arc<ConnectionFacts>,
    chain: Arc<()>,
    slots: Slots,
    name: Arc<str>,
}

impl Route {
    fn new(slots: Slots) -> Self {
        Self { connection: connection(), chain: Arc::new(()), slots, name: "r".into() }
    }

    fn request(&self) -> Request {
        let cx = Cx::new(self.connection.clone(), self.slots.clone(), self.chain.clone());
        cx.set_matched(Matched {
            slots: self.slots.clone(),
            route: self.name.clone(),
            target: self.chain.clone(),
            origin: Origin::BUILT_IN,
        });
        let (mut head, ()) = http::Request::new(()).into_parts();
        head.headers.insert(HeaderName::from_static("x-one"), HeaderValue::from_static("1"));
        Request { head, body: Body::empty(), cx }
    }
}

#[inline(never)]
fn exchange<S>(service: &mut S, request: Request) -> StatusCode
where
    S: Service<Request, Response = Response, Error = Error>,
{
    let future = pin!(service.call(request));
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(response)) => response.head.status,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn run<S>(c: &mut Criterion, name: &str, route: &Route, mut service: S)
where
    S: Service<Request, Response = Response, Error = Error>,
{
    assert_eq!(exchange(&mut service, route.request()), StatusCode::OK);
    c.bench_function(name, |b| b.iter(|| exchange(&mut service, route.request())));
}

fn ten(upstream: Upstream) -> impl Service<Request, Response = Response, Error = Error> {
    fn layer<const N: usize>() -> FilterLayer<Idle<N>> {
        FilterLayer::new(Slot::new(N))
    }
    let inner = layer::<5>()
        .layer(layer::<6>().layer(layer::<7>().layer(layer::<8>().layer(layer::<9>().layer(upstream)))));
    layer::<0>().layer(layer::<1>().layer(layer::<2>().layer(layer::<3>().layer(layer::<4>().layer(inner)))))
}

fn filters(c: &mut Criterion) {
    let off = Route::new(Slots::empty(11));
    run(c, "no filter", &off, Upstream);
    run(c, "ten idle filters", &off, ten(Upstream));

    let on = Route::new(Slots::empty(11).with(Slot::<Idle<4>>::new(4), vec![()]));
    run(c, "one live filter, told the end", &on, FilterLayer::<Idle<4>>::new(Slot::new(4)).layer(Upstream));
    run(c, "nine idle filters, one live", &on, ten(Upstream));

    let settings = Settings {
        request_headers: HeaderChanges {
            set: vec![HeaderChange { name: "x-two".into(), value: "2".into() }],
            ..HeaderChanges::default()
        },
        ..Settings::default()
    };
    let place = Slot::<Transform>::new(10);
    let transform = Route::new(
        Slots::empty(11)
            .with(place, vec![Transform::compile(&settings, &filter_api::Keep::default()).unwrap()]),
    );
    run(c, "transform off", &off, FilterLayer::new(place).layer(Upstream));
    run(c, "transform sets a header", &transform, FilterLayer::new(place).layer(Upstream));
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(std::time::Duration::from_millis(500)).measurement_time(std::time::Duration::from_secs(2));
    targets = filters
}
criterion_main!(benches);
