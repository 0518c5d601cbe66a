//! Requests without a proxy, bodies without a network.

use bytes::Bytes;
use filter_api::{
    Body, ConnectionFacts, Cx, Error, Matched, Origin, Protocol, Reason, Request, Response, Slots,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

pub(crate) fn cx(port: Slots, route: Slots) -> Cx {
    let any = "127.0.0.1:1".parse().unwrap();
    let facts = ConnectionFacts {
        listener: "l".into(),
        remote: any,
        direct_remote: any,
        local: any,
        original_destination: None,
        protocol: Protocol::Http1,
        server_name: None,
        tls: None,
    };
    let cx = Cx::new(Arc::new(facts), port, Arc::new(()));
    cx.set_matched(Matched {
        slots: route,
        route: "r".into(),
        target: Arc::new(()),
        origin: Origin::BUILT_IN,
    });
    cx
}

pub(crate) fn request(route: Slots) -> Request {
    let (head, ()) = http::Request::new(()).into_parts();
    Request { head, body: Body::empty(), cx: cx(Slots::empty(0), route) }
}

pub(crate) fn ok(body: impl Into<Body>) -> Response {
    Response::new(StatusCode::OK).with_body(body)
}

/// Polls once.
pub(crate) fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

pub(crate) async fn next(body: &mut Body) -> Option<Result<Frame<Bytes>, Error>> {
    poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}

pub(crate) async fn data(body: &mut Body) -> Bytes {
    next(body).await.unwrap().unwrap().into_data().unwrap()
}

/// All of a body, and its trailers.
pub(crate) async fn all(body: &mut Body) -> Result<(Vec<u8>, Option<HeaderMap>), Error> {
    let mut bytes = Vec::new();
    while let Some(frame) = next(body).await {
        match frame?.into_data() {
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => return Ok((bytes, frame.into_trailers().ok())),
        }
    }
    Ok((bytes, None))
}

/// One thing that a scripted body does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    Data(usize),
    Pending,
    Trailers,
    Fail,
}

/// Does as written. `exact`: says its length and its end as a body with Content-Length does.
pub(crate) struct Script {
    acts: VecDeque<Act>,
    exact: bool,
}

impl Script {
    pub(crate) fn body(acts: &[Act], exact: bool) -> Body {
        Body::boxed(Self { acts: acts.iter().copied().collect(), exact })
    }
}

pub(crate) fn trailers() -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static("x-t"), HeaderValue::from_static("1"))])
}

impl HttpBody for Script {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Poll::Ready(match self.acts.pop_front() {
            Some(Act::Data(len)) => Some(Ok(Frame::data(Bytes::from(vec![b'x'; len])))),
            Some(Act::Pending) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(Act::Trailers) => Some(Ok(Frame::trailers(trailers()))),
            Some(Act::Fail) => Some(Err(Error::new(Reason::UpstreamReset))),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.exact && self.acts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        if !self.exact {
            return SizeHint::default();
        }
        let left = self.acts.iter().map(|act| if let Act::Data(len) = act { *len as u64 } else { 0 });
        SizeHint::with_exact(left.sum())
    }
}
