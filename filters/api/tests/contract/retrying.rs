//! A layer that wraps the call and sends the body again, as a retry does.

use crate::support::{Act, Script, all, data, next, ok, poll, request, trailers};
use bytes::Bytes;
use filter_api::{Body, Error, Reason, Replay, Request, Response, Slots};
use http_body::Body as _;
use std::cell::RefCell;
use std::rc::Rc;
use tower::{Layer, Service, service_fn};

/// Tries a second time when the first one fails, if the body can be had again.
struct TwiceLayer;

#[derive(Clone)]
struct Twice<S>(S);

impl<S> Layer<S> for TwiceLayer {
    type Service = Twice<S>;

    fn layer(&self, inner: S) -> Twice<S> {
        Twice(inner)
    }
}

impl<S> Twice<S>
where
    S: Service<Request, Response = Response, Error = Error>,
{
    async fn call(&mut self, request: Request, limit: usize) -> Result<Response, Error> {
        let (body, replay) = request.body.replayable(limit);
        let again = (request.head.clone(), request.cx.clone());
        match self.0.call(Request { body, ..request }).await {
            Err(error) => match replay.again() {
                Some(body) => self.0.call(Request { head: again.0, body, cx: again.1 }).await,
                None => Err(error),
            },
            answered => answered,
        }
    }
}

const FOUR: &[Act] =
    &[Act::Data(10), Act::Pending, Act::Data(5000), Act::Data(20), Act::Data(30), Act::Trailers];

async fn first_fails_after(frames: usize, limit: usize) -> (Result<Response, Error>, Vec<usize>) {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let attempts = seen.clone();
    let mut service = TwiceLayer.layer(service_fn(move |mut request: Request| {
        let attempts = attempts.clone();
        async move {
            let first = attempts.borrow().is_empty();
            if first {
                let mut read = 0;
                for _ in 0..frames {
                    read += data(&mut request.body).await.len();
                }
                attempts.borrow_mut().push(read);
                return Err(Error::new(Reason::UpstreamReset));
            }
            let (read, end) = all(&mut request.body).await?;
            attempts.borrow_mut().push(read.len());
            assert_eq!(end, Some(trailers()));
            Ok(ok("done"))
        }
    }));
    let mut request = request(Slots::empty(0));
    request.body = Script::body(FOUR, false);
    let result = service.call(request, limit).await;
    let seen = seen.borrow().clone();
    (result, seen)
}

#[tokio::test]
async fn a_body_of_which_half_was_read_is_sent_again_from_its_beginning() {
    for frames in 0..=4 {
        let (result, seen) = first_fails_after(frames, 65536).await;
        assert!(result.is_ok());
        assert_eq!(seen[1], 5060, "after {frames} frames");
    }
}

#[tokio::test]
async fn a_body_of_which_more_was_read_than_is_kept_is_not_sent_again() {
    let (result, seen) = first_fails_after(2, 5009).await;
    assert_eq!((result.unwrap_err().reason(), seen), (Reason::UpstreamReset, vec![5010]));
    let (result, seen) = first_fails_after(2, 5010).await;
    assert!(result.is_ok());
    assert_eq!(seen, [5010, 5060]);
}

#[tokio::test]
async fn an_attempt_that_outgrows_what_is_kept_still_gets_everything() {
    let (mut first, replay) = Script::body(FOUR, false).replayable(20);
    assert_eq!(data(&mut first).await.len(), 10);
    let mut second = replay.again().unwrap();
    let (read, end) = all(&mut second).await.unwrap();
    assert_eq!((read.len(), end), (5060, Some(trailers())));
    assert!(replay.again().is_none());
}

#[tokio::test]
async fn only_the_newest_attempt_reads() {
    let (mut first, replay) = Script::body(&[Act::Data(1), Act::Data(2)], true).replayable(100);
    assert_eq!(data(&mut first).await.len(), 1);
    let mut second = replay.again().unwrap();
    assert!(!first.is_end_stream());
    assert_eq!(next(&mut first).await.unwrap().unwrap_err().reason(), Reason::Internal);
    let mut third = replay.again().unwrap();
    assert!(next(&mut second).await.unwrap().is_err());
    assert_eq!(all(&mut third).await.unwrap().0.len(), 3);
    drop((first, second, third));
    assert_eq!(all(&mut replay.again().unwrap()).await.unwrap().0.len(), 3);
}

#[tokio::test]
async fn a_body_that_broke_is_not_sent_again() {
    let (mut first, replay) = Script::body(&[Act::Data(1), Act::Fail, Act::Data(1)], false).replayable(100);
    assert_eq!(data(&mut first).await.len(), 1);
    assert_eq!(next(&mut first).await.unwrap().unwrap_err().reason(), Reason::UpstreamReset);
    assert!(next(&mut first).await.is_none());
    assert!(replay.again().is_none());
}

#[tokio::test]
async fn a_replayed_body_says_its_length_and_its_end_like_the_original() {
    async fn check(mut body: Body, replay: &Replay) {
        let mut left = 6030;
        while left > 0 {
            assert_eq!(body.size_hint().exact(), Some(left));
            assert!(!body.is_end_stream());
            left -= data(&mut body).await.len() as u64;
        }
        assert_eq!(body.size_hint().exact(), Some(0));
        assert!(body.is_end_stream(), "a codec that knows the length need not ask again");
        drop(body);
        assert!(replay.again().is_some());
    }
    let acts = [Act::Data(10), Act::Data(20), Act::Data(6000)];
    let (first, replay) = Script::body(&acts, true).replayable(65536);
    check(first, &replay).await;
    check(replay.again().unwrap(), &replay).await;
    let (mut half, replay) = Script::body(&acts, true).replayable(65536);
    data(&mut half).await;
    check(replay.again().unwrap(), &replay).await;
}

#[tokio::test]
async fn many_small_chunks_are_kept_as_few() {
    let source = Bytes::from(vec![b'a'; 1 << 20]);
    let tiny: Vec<Bytes> = (0..1000).map(|at| source.slice(at..=at)).collect();
    struct Tiny(std::vec::IntoIter<Bytes>);
    impl http_body::Body for Tiny {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Error>>> {
            std::task::Poll::Ready(self.0.next().map(|bytes| Ok(http_body::Frame::data(bytes))))
        }
    }
    let (mut first, replay) = Body::boxed(Tiny(tiny.into_iter())).replayable(65536);
    assert_eq!(all(&mut first).await.unwrap().0.len(), 1000);
    drop(first);
    assert!(source.is_unique(), "a kept byte must not pin the buffer it was read into");
    let mut again = replay.again().unwrap();
    assert_eq!(data(&mut again).await.len(), 1000);
}

#[test]
fn an_empty_body_stays_empty() {
    let (body, replay) = Body::empty().replayable(10);
    assert!(body.is_empty() && replay.again().unwrap().is_empty());
}

#[test]
fn a_waiting_attempt_does_not_hinder_the_next() {
    let (mut first, replay) = Script::body(&[Act::Pending, Act::Pending, Act::Data(3)], false).replayable(10);
    assert!(poll(&mut Box::pin(next(&mut first))).is_pending());
    let mut second = replay.again().unwrap();
    assert!(poll(&mut Box::pin(next(&mut second))).is_pending());
    assert!(poll(&mut Box::pin(next(&mut second))).is_ready());
}
