//! A filter that holds a permit until the exchange is over.

use crate::support::{Act, Script, next, ok, poll, request, trailers};
use filter_api::{
    Body, End, Error, Filter, FilterLayer, FilterPlace, Observer, Outcome, Reason, Request, Response, Slot,
    Slots, Spec, Step,
};
use http_body::Body as _;
use proptest::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use tower::{Layer, Service, service_fn};

/// How often an exchange began, and how each ended.
#[derive(Debug, Default)]
struct Ledger {
    begun: u32,
    ends: Vec<(Outcome, u64, bool)>,
    panics: bool,
}

type Shared = Arc<Mutex<Ledger>>;

struct Permit;

impl Spec for Permit {
    const NAME: &'static str = "permit";
    type Settings = ();
    type Compiled = Shared;

    fn compile((): &(), _: &filter_api::Keep) -> Result<Shared, String> {
        Ok(Shared::default())
    }
}

impl Filter for Permit {
    const PLACE: FilterPlace = FilterPlace::Route;
    const AFTER: bool = true;
    type State = ();

    fn on_request(settings: &[Shared], request: Request) -> Step<()> {
        settings[0].lock().unwrap().begun += 1;
        Step::Continue(request, ())
    }

    fn on_response(settings: &[Shared], (): &mut (), _: &mut Response) {
        let panics = settings[0].lock().unwrap().panics;
        assert!(!panics, "as the test wants");
    }

    fn on_end(settings: &[Shared], (): (), end: &End<'_>) {
        settings[0].lock().unwrap().ends.push((end.outcome, end.bytes, end.trailers.is_some()));
    }
}

const SLOT: Slot<Permit> = Slot::new(0);

fn permit() -> (Shared, Request) {
    let ledger = Shared::default();
    let request = request(Slots::empty(1).with(SLOT, vec![ledger.clone()]));
    (ledger, request)
}

fn ends(ledger: &Shared) -> Vec<(Outcome, u64, bool)> {
    ledger.lock().unwrap().ends.clone()
}

fn answer(body: Body) -> (Shared, Response) {
    let (ledger, request) = permit();
    let mut body = Some(body);
    let mut service = FilterLayer::new(SLOT).layer(service_fn_once(move |_| Ok(ok(body.take().unwrap()))));
    let std::task::Poll::Ready(Ok(response)) = poll(&mut Box::pin(service.call(request))) else {
        panic!("no answer")
    };
    assert!(ends(&ledger).is_empty());
    (ledger, response)
}

/// A service that answers at once, clonable although what it answers is not.
fn service_fn_once(
    answer: impl FnMut(Request) -> Result<Response, Error> + 'static,
) -> impl Service<Request, Response = Response, Error = Error, Future: 'static> + Clone {
    let answer = std::rc::Rc::new(std::cell::RefCell::new(answer));
    service_fn(move |request| std::future::ready((answer.borrow_mut())(request)))
}

#[tokio::test]
async fn the_permit_comes_back_at_the_last_frame() {
    let (ledger, mut response) = answer(Script::body(&[Act::Data(3), Act::Data(4)], false));
    for _ in 0..2 {
        assert!(next(&mut response.body).await.unwrap().is_ok());
    }
    assert!(ends(&ledger).is_empty());
    assert!(next(&mut response.body).await.is_none());
    assert_eq!(ends(&ledger), [(Outcome::Complete, 7, false)]);
    drop(response);
    assert_eq!(ends(&ledger).len(), 1);
}

#[tokio::test]
async fn it_comes_back_with_the_trailers() {
    let (ledger, mut response) = answer(Script::body(&[Act::Data(3), Act::Trailers], false));
    next(&mut response.body).await;
    assert_eq!(next(&mut response.body).await.unwrap().unwrap().into_trailers().unwrap(), trailers());
    assert_eq!(ends(&ledger), [(Outcome::Complete, 3, true)]);
    assert!(response.body.is_end_stream() && next(&mut response.body).await.is_none());
    assert_eq!(ends(&ledger).len(), 1);
}

#[tokio::test]
async fn it_comes_back_when_the_body_breaks() {
    let (ledger, mut response) = answer(Script::body(&[Act::Data(3), Act::Fail, Act::Data(1)], false));
    next(&mut response.body).await;
    assert!(next(&mut response.body).await.unwrap().is_err());
    assert!(next(&mut response.body).await.is_none(), "nothing follows a failure");
    assert_eq!(ends(&ledger), [(Outcome::Reset(Reason::UpstreamReset), 3, false)]);
}

#[tokio::test]
async fn it_comes_back_when_the_body_is_dropped_half_way() {
    let (ledger, mut response) = answer(Script::body(&[Act::Data(3), Act::Data(4)], true));
    next(&mut response.body).await;
    drop(response);
    assert_eq!(ends(&ledger), [(Outcome::Cancelled, 3, false)]);
}

#[tokio::test]
async fn a_codec_that_knows_the_length_need_not_read_to_the_end() {
    let (ledger, mut response) = answer(Script::body(&[Act::Data(3), Act::Data(4)], true));
    next(&mut response.body).await;
    next(&mut response.body).await;
    assert!(response.body.is_end_stream());
    drop(response);
    assert_eq!(ends(&ledger), [(Outcome::Complete, 7, false)]);
    let (ledger, mut response) = answer("seven..".into());
    next(&mut response.body).await;
    drop(response);
    assert_eq!(ends(&ledger), [(Outcome::Complete, 7, false)]);
}

#[test]
fn an_empty_body_is_complete_when_it_is_dropped() {
    let (ledger, response) = answer(Body::empty());
    drop(response);
    assert_eq!(ends(&ledger), [(Outcome::Complete, 0, false)]);
}

#[test]
fn a_layer_that_breaks_the_body_off_says_why() {
    let (ledger, mut response) = answer(Script::body(&[Act::Data(3)], false));
    response.body.reset(Reason::RequestTimeout);
    assert_eq!(ends(&ledger), [(Outcome::Reset(Reason::RequestTimeout), 0, false)]);
    assert!(response.body.is_empty());
    drop(response);
    assert_eq!(ends(&ledger).len(), 1);
}

#[test]
fn it_comes_back_when_the_upstream_fails() {
    let (ledger, request) = permit();
    let mut service =
        FilterLayer::new(SLOT).layer(service_fn_once(|_| Err(Error::new(Reason::ConnectFailure))));
    assert!(poll(&mut Box::pin(service.call(request))).is_ready());
    assert_eq!(ends(&ledger), [(Outcome::Reset(Reason::ConnectFailure), 0, false)]);
}

#[test]
fn it_comes_back_when_the_call_is_dropped_polled_or_not() {
    for polls in 0..3 {
        let (ledger, request) = permit();
        let mut service = FilterLayer::new(SLOT)
            .layer(service_fn(|_: Request| std::future::pending::<Result<Response, Error>>()));
        let mut future = Box::pin(service.call(request));
        for _ in 0..polls {
            assert!(poll(&mut future).is_pending());
        }
        drop(future);
        assert_eq!(ends(&ledger), [(Outcome::Cancelled, 0, false)]);
    }
}

#[test]
fn it_comes_back_when_something_panics() {
    fn panicking(_: Request) -> std::future::Ready<Result<Response, Error>> {
        panic!("as the test wants")
    }
    let (ledger, request) = permit();
    let mut service = FilterLayer::new(SLOT).layer(service_fn(panicking));
    assert!(catch_unwind(AssertUnwindSafe(|| drop(service.call(request)))).is_err());
    assert_eq!(ends(&ledger), [(Outcome::Cancelled, 0, false)]);

    let (ledger, request) = permit();
    ledger.lock().unwrap().panics = true;
    let mut service = FilterLayer::new(SLOT).layer(service_fn_once(|_| Ok(ok("x"))));
    let mut future = Box::pin(service.call(request));
    assert!(catch_unwind(AssertUnwindSafe(|| drop(poll(&mut future)))).is_err());
    drop(future);
    assert_eq!(ends(&ledger).len(), 1);
}

#[test]
fn observers_that_a_tunnel_took_are_told_by_the_tunnel_or_on_drop() {
    let (ledger, mut response) = answer(Body::empty());
    let observers = response.body.take_observers();
    drop(response);
    assert!(ends(&ledger).is_empty());
    for observer in observers {
        observer.on_end(&End { outcome: Outcome::Complete, bytes: 9, trailers: None });
    }
    assert_eq!(ends(&ledger), [(Outcome::Complete, 9, false)]);
    let (ledger, mut response) = answer(Body::empty());
    drop(response.body.take_observers());
    assert_eq!(ends(&ledger), [(Outcome::Cancelled, 0, false)]);
}

#[test]
fn an_observer_that_panics_does_not_cost_the_others_their_call() {
    struct Bad;
    impl Observer for Bad {
        fn on_end(self: Box<Self>, _: &End<'_>) {
            panic!("as the test wants")
        }
    }
    let (ledger, request) = permit();
    let mut service = FilterLayer::new(SLOT).layer(service_fn_once(|_| {
        let mut body: Body = "x".into();
        body.observe(Box::new(Bad));
        Ok(ok(body))
    }));
    let std::task::Poll::Ready(Ok(response)) = poll(&mut Box::pin(service.call(request))) else {
        panic!("no answer")
    };
    assert!(catch_unwind(AssertUnwindSafe(|| drop(response))).is_err());
    assert_eq!(ends(&ledger).len(), 1);
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => (0..5000usize).prop_map(Act::Data),
        2 => Just(Act::Pending),
        1 => Just(Act::Trailers),
        1 => Just(Act::Fail),
    ];
    prop::collection::vec(act, 0..8)
}

proptest! {
    #[test]
    fn whatever_happens_the_end_is_told_exactly_once(
        acts in acts(),
        exact: bool,
        replayed: bool,
        after_head: bool,
        polls in 0..12usize,
        fails: bool,
    ) {
        let (ledger, request) = permit();
        let script = acts.clone();
        let mut waits = usize::from(after_head);
        let mut service = FilterLayer::new(SLOT).layer(service_fn(move |_: Request| {
            let script = script.clone();
            let mut body = Some(Script::body(&script, exact));
            if replayed {
                body = body.map(|body| body.replayable(6000).0);
            }
            std::future::poll_fn(move |_| {
                if std::mem::take(&mut waits) > 0 {
                    return std::task::Poll::Pending;
                }
                std::task::Poll::Ready(if fails { Err(Reason::UpstreamClosed.into()) } else { Ok(ok(body.take().unwrap())) })
            })
        }));
        let mut future = Box::pin(service.call(request));
        let mut response = None;
        let mut told = 0;
        for _ in 0..polls {
            match &mut response {
                None => if let std::task::Poll::Ready(result) = poll(&mut future) {
                    let Ok(answer) = result else { break };
                    response = Some(answer);
                },
                Some(response) => {
                    let end = matches!(
                        poll(&mut Box::pin(next(&mut response.body))),
                        std::task::Poll::Ready(None | Some(Err(_)))
                    );
                    if end {
                        prop_assert_eq!(ends(&ledger).len(), 1);
                    }
                }
            }
            let now = ends(&ledger).len();
            prop_assert!(now >= told && now <= 1);
            told = now;
        }
        drop((future, response));
        prop_assert_eq!(ends(&ledger).len(), 1);
        prop_assert_eq!(ledger.lock().unwrap().begun, 1);
    }
}
