#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::{Settings, Timeout, TimeoutLayer, parse_grpc_timeout};
use bytes::Bytes;
use filter_api::{
    Body, ConnectionFacts, Cx, End, Error, Matched, Observer, Origin, Outcome, Protocol, Reason, Request,
    Response, Slot, Slots,
};
use http::{HeaderValue, Method, StatusCode};
use http_body::{Body as HttpBody, Frame};
use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, advance, sleep};
use tower::{Layer, Service, service_fn};

const SLOT: Slot<Timeout> = Slot::new(0);
const SECOND: Duration = Duration::from_secs(1);
/// `started` is the real clock's, which runs on while the test sets up; the paused one does not.
const SLACK: Duration = Duration::from_millis(200);

fn request(total: Option<Duration>) -> Request {
    let any = "127.0.0.1:1".parse().unwrap();
    let facts = ConnectionFacts {
        listener: "l".into(),
        remote: any,
        direct_remote: any,
        local: any,
        original_destination: None,
        protocol: Protocol::Http2,
        server_name: None,
        tls: None,
    };
    let cx = Cx::new(Arc::new(facts), Slots::empty(0), Arc::new(()));
    let settings = total.map(|total| Settings { total }).into_iter().collect();
    cx.set_matched(Matched {
        slots: Slots::empty(1).with(SLOT, settings),
        route: "r".into(),
        target: Arc::new(()),
        origin: Origin::BUILT_IN,
    });
    let (head, ()) = http::Request::new(()).into_parts();
    Request { head, body: Body::empty(), cx }
}

fn grpc(total: Option<Duration>, deadline: &'static str) -> Request {
    let mut request = request(total);
    request.cx.facts.borrow_mut().grpc = true;
    request.head.headers.insert("grpc-timeout", HeaderValue::from_static(deadline));
    request
}

/// Calls an upstream that takes `time` until its head.
async fn call(request: Request, time: Duration) -> Result<Response, Error> {
    let mut service = TimeoutLayer::new(SLOT).layer(service_fn(move |_: Request| async move {
        sleep(time).await;
        Ok(Response::new(StatusCode::OK))
    }));
    service.call(request).await
}

/// How long a call that never answers lasts; `None` when it has no end within an hour. Each in a runtime of its own: the paused clock of one
/// runs ahead of the real one, by which requests are stamped.
fn lasts(request: impl FnOnce() -> Request) -> Option<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(async {
        let (request, start) = (request(), Instant::now());
        match call(request, Duration::from_secs(3600)).await {
            Ok(_) => None,
            Err(error) => {
                assert_eq!(error.reason(), Reason::RequestTimeout);
                Some(start.elapsed())
            }
        }
    })
}

fn about(measured: Option<Duration>, expected: Duration) {
    let measured = measured.unwrap();
    assert!(measured <= expected + SLACK && measured + SLACK >= expected, "{measured:?}, not {expected:?}");
}

async fn read(body: &mut Body) -> Option<Result<Frame<Bytes>, Error>> {
    poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}

/// Yields a byte after every pause, for ever.
struct Drip(Duration, Pin<Box<tokio::time::Sleep>>);

impl Drip {
    fn every(pause: Duration) -> Self {
        Self(pause, Box::pin(sleep(pause)))
    }
}

impl HttpBody for Drip {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if !self.0.is_zero() {
            std::task::ready!(self.1.as_mut().poll(cx));
            let pause = self.0;
            self.1.as_mut().reset(Instant::now() + pause);
        }
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b".")))))
    }
}

#[derive(Clone, Default)]
struct Ends(Arc<Mutex<Vec<Outcome>>>);

impl Observer for Ends {
    fn on_end(self: Box<Self>, end: &End<'_>) {
        self.0.lock().unwrap().push(end.outcome);
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_comes_in_time_passes() {
    let response = call(request(Some(5 * SECOND)), SECOND).await.unwrap();
    assert_eq!(response.head.status, StatusCode::OK);
    assert!(response.body.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_head_that_comes_too_late_is_a_timeout_and_the_call_is_dropped_at_once() {
    let alive = Arc::new(());
    let held = alive.clone();
    let mut service = TimeoutLayer::new(SLOT).layer(service_fn(move |_: Request| {
        let held = held.clone();
        async move {
            let _held = held;
            pending::<Result<Response, Error>>().await
        }
    }));
    let mut future = Box::pin(service.call(request(Some(5 * SECOND))));
    let error = future.as_mut().await.unwrap_err();
    assert_eq!(error.reason(), Reason::RequestTimeout);
    assert!(error.was_sent() && !error.is_retry_safe());
    // The service itself holds one, the call none, although its future is still there.
    assert_eq!(Arc::strong_count(&alive), 2);
    drop(future);
}

#[tokio::test(start_paused = true)]
async fn time_counts_from_the_arrival_of_the_head() {
    let request = request(Some(5 * SECOND));
    advance(3 * SECOND).await;
    let start = Instant::now();
    assert!(call(request, 60 * SECOND).await.is_err());
    about(Some(start.elapsed()), 2 * SECOND);
}

#[test]
fn without_a_timeout_there_is_no_timer() {
    assert_eq!(lasts(|| request(None)), None);
    assert_eq!(lasts(|| request(Some(Duration::ZERO))), None);
    assert_eq!(lasts(|| request(Some(Duration::MAX))), None);
    // Outside of a runtime a timer could not even be made.
    let mut service = TimeoutLayer::new(SLOT)
        .layer(service_fn(|_: Request| std::future::ready(Ok(Response::new(StatusCode::OK)))));
    let future = std::pin::pin!(service.call(request(None)));
    assert!(future.poll(&mut Context::from_waker(std::task::Waker::noop())).is_ready());
}

#[test]
fn the_earlier_of_route_and_grpc_deadline_holds() {
    about(lasts(|| grpc(Some(5 * SECOND), "2S")), 2 * SECOND);
    about(lasts(|| grpc(Some(5 * SECOND), "9S")), 5 * SECOND);
    about(lasts(|| grpc(None, "3S")), 3 * SECOND);
    about(lasts(|| grpc(Some(Duration::ZERO), "3S")), 3 * SECOND);
}

#[test]
fn a_malformed_or_zero_grpc_deadline_is_ignored() {
    for wrong in ["", "5", "S", "1h", "123456789S", "-1S", "0S"] {
        about(lasts(|| grpc(Some(4 * SECOND), wrong)), 4 * SECOND);
        assert_eq!(lasts(|| grpc(None, wrong)), None, "{wrong}");
    }
}

#[test]
fn a_grpc_deadline_counts_for_grpc_only() {
    let mut request = grpc(Some(4 * SECOND), "1S");
    request.cx.facts.borrow_mut().grpc = false;
    request.head.method = Method::POST;
    about(lasts(|| request), 4 * SECOND);
}

#[test]
fn the_last_setting_holds() {
    let mut request = request(None);
    let any = request.cx.connection.clone();
    request.cx = Cx::new(any, Slots::empty(0), Arc::new(()));
    let settings = vec![Settings { total: 9 * SECOND }, Settings { total: 2 * SECOND }];
    request.cx.set_matched(Matched {
        slots: Slots::empty(1).with(SLOT, settings),
        route: "r".into(),
        target: Arc::new(()),
        origin: Origin::BUILT_IN,
    });
    about(lasts(|| request), 2 * SECOND);
}

async fn response(request: Request, status: StatusCode, body: impl Fn() -> Body) -> Response {
    let mut service = TimeoutLayer::new(SLOT).layer(service_fn(move |_: Request| {
        let response = Response { body: body(), ..Response::new(status) };
        std::future::ready(Ok(response))
    }));
    service.call(request).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_body_that_lasts_too_long_breaks_off_with_the_same_reason_for_everyone() {
    let ends = Ends::default();
    let observed = ends.clone();
    let mut response = response(request(Some(5 * SECOND)), StatusCode::OK, move || {
        let mut body = Body::boxed(Drip::every(2 * SECOND));
        body.observe(Box::new(observed.clone()));
        body
    })
    .await;
    let start = Instant::now();
    for _ in 0..2 {
        assert!(read(&mut response.body).await.unwrap().is_ok());
    }
    let error = read(&mut response.body).await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Reason::RequestTimeout);
    about(Some(start.elapsed()), 5 * SECOND);
    assert_eq!(*ends.0.lock().unwrap(), [Outcome::Reset(Reason::RequestTimeout)]);
    assert!(read(&mut response.body).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_always_ready_breaks_off_too() {
    let mut response =
        response(request(Some(SECOND)), StatusCode::OK, || Body::boxed(Drip::every(Duration::ZERO))).await;
    assert!(read(&mut response.body).await.unwrap().is_ok());
    advance(2 * SECOND).await;
    assert!(read(&mut response.body).await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_is_not_covered() {
    let endless = || Body::boxed(Drip::every(2 * SECOND));
    let upgraded = response(request(Some(SECOND)), StatusCode::SWITCHING_PROTOCOLS, endless).await;
    let mut connect = request(Some(SECOND));
    connect.head.method = Method::CONNECT;
    let connected = response(connect, StatusCode::OK, endless).await;
    for mut response in [upgraded, connected] {
        for _ in 0..3 {
            assert!(read(&mut response.body).await.unwrap().is_ok());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_limited_body_keeps_length_and_content() {
    let mut response = response(request(Some(SECOND)), StatusCode::OK, || "four".into()).await;
    assert_eq!(response.body.size_hint().exact(), Some(4));
    assert_eq!(read(&mut response.body).await.unwrap().unwrap().into_data().unwrap(), "four");
    assert!(response.body.is_end_stream());
}

#[test]
fn a_grpc_timeout_has_at_most_eight_digits_and_a_unit() {
    let parse = |text: &str| parse_grpc_timeout(text.as_bytes());
    assert_eq!(parse("1H"), Some(Duration::from_secs(3600)));
    assert_eq!(parse("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
    assert_eq!(parse("2M"), Some(Duration::from_secs(120)));
    assert_eq!(parse("3S"), Some(Duration::from_secs(3)));
    assert_eq!(parse("0004m"), Some(Duration::from_millis(4)));
    assert_eq!(parse("5u"), Some(Duration::from_micros(5)));
    assert_eq!(parse("6n"), Some(Duration::from_nanos(6)));
    assert_eq!(parse("0n"), Some(Duration::ZERO));
    for bad in ["", "H", "1", "1h", "123456789S", "-1S", "+1S", "1.5S", " 1S", "1S ", "1\u{e9}"] {
        assert_eq!(parse(bad), None, "{bad}");
    }
}
