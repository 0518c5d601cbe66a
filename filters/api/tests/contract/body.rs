//! Lengths, ends, and the flow control of HTTP/2.

use crate::support::{Act, Script, all, data, next};
use bytes::Bytes;
use filter_api::{Body, Meter, Reason};
use http_body::Body as _;
use std::sync::Arc;

const WINDOW: u32 = 1000;

/// A response body that the h2 client reads from a server driven by `serve`, over a pipe in memory. `initial_window_size` is [`WINDOW`].
async fn h2_body<F>(serve: impl FnOnce(h2::SendStream<Bytes>) -> F) -> (Body, h2::SendStream<Bytes>)
where
    F: Future<Output = h2::SendStream<Bytes>>,
{
    let (near, far) = tokio::io::duplex(1 << 20);
    let server = tokio::spawn(async move {
        let mut connection = h2::server::handshake(far).await.unwrap();
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        tokio::spawn(async move { while connection.accept().await.is_some() {} });
        respond.send_response(http::Response::new(()), false).unwrap()
    });
    let (mut client, connection) =
        h2::client::Builder::new().initial_window_size(WINDOW).handshake::<_, Bytes>(near).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    let (response, _) = client.send_request(http::Request::new(()), true).unwrap();
    let (response, stream) = tokio::join!(response, server);
    let stream = serve(stream.unwrap()).await;
    // Keeps the connection open as long as the body lives.
    let body = Body::h2(response.unwrap().into_body());
    std::mem::forget(client);
    (body, stream)
}

/// Lets the tasks of both ends run until nothing moves any more.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn h2_credit_comes_back_only_when_the_reader_returns() {
    let (mut body, mut stream) = h2_body(|stream| async { stream }).await;
    stream.reserve_capacity(5000);
    settle().await;
    assert_eq!(stream.capacity(), WINDOW as usize);
    stream.send_data(Bytes::from(vec![1; WINDOW as usize]), false).unwrap();
    settle().await;
    assert_eq!(data(&mut body).await.len(), WINDOW as usize);
    stream.reserve_capacity(5000);
    settle().await;
    assert_eq!(stream.capacity(), 0, "a reader that has not come back has not made room");
    let mut reading = Box::pin(next(&mut body));
    assert!(crate::support::poll(&mut reading).is_pending());
    settle().await;
    assert_eq!(stream.capacity(), WINDOW as usize);
}

#[tokio::test]
async fn an_h2_body_dropped_early_resets_its_stream() {
    let (mut body, mut stream) = h2_body(|mut stream| async {
        stream.send_data(Bytes::from_static(b"abc"), false).unwrap();
        stream
    })
    .await;
    assert_eq!(data(&mut body).await, "abc");
    drop(body);
    let reset = std::future::poll_fn(|cx| stream.poll_reset(cx)).await.unwrap();
    assert_eq!(reset, h2::Reason::CANCEL);
}

#[tokio::test]
async fn an_h2_body_ends_with_its_last_frame_or_its_trailers() {
    let (mut body, _stream) = h2_body(|mut stream| async {
        stream.send_data(Bytes::new(), false).unwrap();
        stream.send_data(Bytes::from_static(b"abc"), true).unwrap();
        stream
    })
    .await;
    assert!(!body.is_end_stream());
    assert_eq!(data(&mut body).await, "abc");
    assert!(body.is_end_stream());
    assert_eq!(body.size_hint().exact(), Some(0));
    let (mut body, _stream) = h2_body(|mut stream| async {
        stream.send_data(Bytes::from_static(b"abc"), false).unwrap();
        stream.send_trailers(crate::support::trailers()).unwrap();
        stream
    })
    .await;
    let (bytes, end) = all(&mut body).await.unwrap();
    assert_eq!((&bytes[..], end), (&b"abc"[..], Some(crate::support::trailers())));
    assert!(body.is_end_stream() && next(&mut body).await.is_none());
}

#[tokio::test]
async fn an_h2_reset_is_the_upstreams() {
    let (mut body, _stream) = h2_body(|mut stream| async {
        stream.send_reset(h2::Reason::INTERNAL_ERROR);
        stream
    })
    .await;
    let error = next(&mut body).await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Reason::UpstreamReset);
    assert!(error.was_sent());
}

#[tokio::test]
async fn a_body_in_memory_says_its_length_until_it_has_gone() {
    let mut body: Body = "four".into();
    assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(4), false));
    data(&mut body).await;
    assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(0), true));
    let empty: Body = "".into();
    assert_eq!((empty.size_hint().exact(), empty.is_end_stream()), (Some(0), true));
}

#[tokio::test]
async fn a_meter_counts_what_passes_and_a_replay_counts_it_once() {
    let meter = Arc::new(Meter::default());
    let mut body = Script::body(&[Act::Data(3), Act::Data(4)], false);
    body.meter(meter.clone());
    let (mut first, replay) = body.replayable(100);
    data(&mut first).await;
    all(&mut replay.again().unwrap()).await.unwrap();
    assert_eq!(meter.bytes(), 7);
}
