//! A filter that asks somebody first, as external authorization does.

use crate::support::{cx, ok, poll, request};
use filter_api::{
    Body, End, Error, Filter, FilterLayer, FilterPlace, Outcome, Reason, Request, Response, Slot, Slots,
    Spec, Step,
};
use http::StatusCode;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use tower::{Layer, Service, service_fn};

/// What the one who is asked says.
#[derive(Clone, Copy, Debug)]
enum Says {
    Yes,
    Answer,
    Fail,
    AskAgain,
    Nothing,
}

#[derive(Debug)]
struct Asking {
    says: Says,
    ends: Mutex<Vec<Outcome>>,
}

struct Ask;

impl Spec for Ask {
    const NAME: &'static str = "ask";
    type Settings = ();
    type Compiled = Arc<Asking>;

    fn compile((): &(), _: &filter_api::Keep) -> Result<Arc<Asking>, String> {
        Ok(asking(Says::Yes))
    }
}

impl Filter for Ask {
    const PLACE: FilterPlace = FilterPlace::Port;
    const AFTER: bool = true;
    type State = &'static str;

    fn on_request(settings: &[Arc<Asking>], request: Request) -> Step<&'static str> {
        Step::Wait(ask(settings[0].says, request))
    }

    fn on_response(_: &[Arc<Asking>], state: &mut &'static str, response: &mut Response) {
        assert_eq!(*state, "asked");
        response.head.status = StatusCode::ACCEPTED;
    }

    fn on_end(settings: &[Arc<Asking>], _: &'static str, end: &End<'_>) {
        settings[0].ends.lock().unwrap().push(end.outcome);
    }
}

fn ask(says: Says, request: Request) -> Pin<Box<dyn Future<Output = Step<&'static str>>>> {
    Box::pin(async move {
        let mut asked = false;
        poll_fn(|task| {
            task.waker().wake_by_ref();
            if matches!(says, Says::Nothing) || !std::mem::replace(&mut asked, true) {
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
        match says {
            Says::Yes => Step::Continue(request, "asked"),
            Says::Answer => Step::Reply(Response::new(StatusCode::FORBIDDEN)),
            Says::Fail => Step::Fail(Error::new(Reason::Overload)),
            Says::AskAgain => Step::Wait(ask(Says::Yes, request)),
            Says::Nothing => panic!("it never says anything"),
        }
    })
}

fn asking(says: Says) -> Arc<Asking> {
    Arc::new(Asking { says, ends: Mutex::default() })
}

const SLOT: Slot<Ask> = Slot::new(1);

/// The future of a call, the calls of the upstream, the filter's settings, and a thing that lives as long as the request body.
#[allow(clippy::type_complexity, reason = "the parts of one test")]
fn call(says: Says) -> (Pin<Box<dyn Future<Output = Result<Response, Error>>>>, Arc<AtomicU32>, Arc<Asking>) {
    let asking = asking(says);
    let mut request = request(Slots::empty(0));
    request.cx = cx(Slots::empty(2).with(SLOT, vec![asking.clone()]), Slots::empty(0));
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let mut service = FilterLayer::new(SLOT).layer(service_fn(move |_: Request| {
        counted.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Ok(ok("body")))
    }));
    (Box::pin(service.call(request)), calls, asking)
}

fn ends(asking: &Asking) -> Vec<Outcome> {
    asking.ends.lock().unwrap().clone()
}

#[tokio::test]
async fn a_request_goes_on_after_a_yes_and_all_later_hooks_run() {
    for says in [Says::Yes, Says::AskAgain] {
        let (future, calls, asking) = call(says);
        let response = future.await.unwrap();
        assert_eq!(response.head.status, StatusCode::ACCEPTED);
        assert_eq!((calls.load(Ordering::Relaxed), ends(&asking).len()), (1, 0));
        drop(response);
        assert_eq!(ends(&asking), [Outcome::Cancelled]);
    }
}

#[tokio::test]
async fn an_answer_or_a_failure_ends_it_here_and_no_later_hook_runs() {
    let (future, calls, asking) = call(Says::Answer);
    assert_eq!(future.await.unwrap().head.status, StatusCode::FORBIDDEN);
    assert_eq!((calls.load(Ordering::Relaxed), ends(&asking).len()), (0, 0));
    let (future, calls, asking) = call(Says::Fail);
    assert_eq!(future.await.unwrap_err().reason(), Reason::Overload);
    assert_eq!((calls.load(Ordering::Relaxed), ends(&asking).len()), (0, 0));
}

#[test]
fn dropped_while_it_waits_it_calls_nobody_and_lets_the_request_go() {
    let (mut future, calls, asking) = call(Says::Nothing);
    for _ in 0..3 {
        assert!(poll(&mut future).is_pending());
    }
    drop(future);
    assert_eq!((calls.load(Ordering::Relaxed), ends(&asking).len()), (0, 0));
    // The settings of the slot and ours: the waiting future held the context, which is gone.
    assert_eq!(Arc::strong_count(&asking), 1);
}

#[test]
fn dropped_while_the_upstream_works_it_is_cancelled_once() {
    let asking = asking(Says::Yes);
    let mut request = request(Slots::empty(0));
    request.cx = cx(Slots::empty(2).with(SLOT, vec![asking.clone()]), Slots::empty(0));
    let mut service = FilterLayer::new(SLOT)
        .layer(service_fn(|_: Request| std::future::pending::<Result<Response, Error>>()));
    let mut future = Box::pin(service.call(request));
    for _ in 0..4 {
        assert!(poll(&mut future).is_pending());
    }
    assert!(ends(&asking).is_empty());
    drop(future);
    assert_eq!(ends(&asking), [Outcome::Cancelled]);
}

#[tokio::test]
async fn an_empty_place_lets_pass_without_asking() {
    let mut service =
        FilterLayer::new(SLOT).layer(service_fn(|_: Request| std::future::ready(Ok(ok(Body::empty())))));
    let response = service.call(request(Slots::empty(0))).await.unwrap();
    assert_eq!(response.head.status, StatusCode::OK);
}

#[tokio::test]
async fn the_settings_of_another_filter_at_its_place_are_a_failure_and_not_off() {
    struct Other;
    impl Spec for Other {
        const NAME: &'static str = "other";
        type Settings = ();
        type Compiled = u8;

        fn compile((): &(), _: &filter_api::Keep) -> Result<u8, String> {
            Ok(1)
        }
    }
    let slots = Slots::empty(2).with(Slot::<Other>::new(1), vec![1]);
    assert!(slots.read(SLOT).is_none() && slots.share(SLOT).is_none() && slots.holds(SLOT));
    let mut request = request(Slots::empty(0));
    request.cx = cx(slots, Slots::empty(0));
    let mut service =
        FilterLayer::new(SLOT).layer(service_fn(|_: Request| std::future::ready(Ok(ok(Body::empty())))));
    let error = service.call(request).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Internal);
    assert!(error.detail_str().contains("ask"), "{error}");
}

#[test]
fn a_place_beyond_the_count_is_made_and_an_empty_list_is_off() {
    let slots = Slots::empty(0).with(SLOT, vec![asking(Says::Yes)]);
    assert_eq!(slots.read(SLOT).map(Vec::len), Some(1));
    assert!(Slots::empty(2).with(SLOT, Vec::new()).is_empty());
}
