//! Bodies that tests send: empty, whole, and frame by frame.

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc;

/// The one type of body that clients and upstreams send.
pub type BoxBody = UnsyncBoxBody<Bytes, BoxError>;

/// The one type of its errors.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// No body.
pub fn empty() -> BoxBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body of known length.
pub fn full(bytes: impl Into<Bytes>) -> BoxBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body that a test writes frame by frame; it ends when the sender is dropped.
#[derive(Debug)]
pub struct ChannelBody(mpsc::Receiver<Frame<Bytes>>);

/// The other end of a [`ChannelBody`].
#[derive(Clone, Debug)]
pub struct Frames(mpsc::Sender<Frame<Bytes>>);

impl ChannelBody {
    /// A body and its sender.
    #[allow(clippy::new_ret_no_self, reason = "both ends come of it, the body boxed")]
    pub fn new() -> (Frames, BoxBody) {
        let (sender, receiver) = mpsc::channel(4);
        (Frames(sender), Self(receiver).boxed_unsync())
    }
}

impl Frames {
    /// Sends bytes.
    pub async fn data(&self, bytes: impl Into<Bytes>) {
        let frame = Frame::data(bytes.into());
        super::in_time("sending a frame", self.0.send(frame)).await.expect("the body was given up");
    }

    /// Sends trailers.
    pub async fn trailers(&self, trailers: HeaderMap) {
        let frame = Frame::trailers(trailers);
        super::in_time("sending trailers", self.0.send(frame)).await.expect("the body was given up");
    }
}

impl Body for ChannelBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(ready!(self.0.poll_recv(task)).map(Ok))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// Trailers of these names and values.
pub fn trailers(of: &[(&'static str, &'static str)]) -> HeaderMap {
    of.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}
