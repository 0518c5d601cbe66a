//! A body that breaks off at a deadline.

use bytes::Bytes;
use filter_api::{Body, Error, Reason};
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::time::Sleep;

/// Passes frames on until the sleep is over.
pub(crate) struct Limited {
    pub(crate) body: Body,
    pub(crate) sleep: Pin<Box<Sleep>>,
}

impl HttpBody for Limited {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        // The time first: a body that always has the next frame ready would never be stopped.
        if self.sleep.as_mut().poll(cx).is_ready() {
            self.body.reset(Reason::RequestTimeout);
            let error =
                Error::new(Reason::RequestTimeout).sent(true).detail("the response body took too long");
            return Poll::Ready(Some(Err(error)));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
