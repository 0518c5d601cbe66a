//! The response body, watched to its end.

use super::{Ending, Recorder};
use crate::proxy::connection::Busy;
use bytes::Bytes;
use filter_api::{Body, Error, Observers};
use http::StatusCode;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};

/// A response body that reports when it ends.
pub(crate) struct Recorded {
    body: Body,
    recorder: Option<Recorder>,
    /// The connection is not idle before the last byte.
    busy: Option<Busy>,
    /// The codec will not send trailers: HTTP/1, and the head announced none.
    trailers_lost: bool,
    /// HTTP/2: the last byte has only gone once the codec lets go of the body, which waits for the client's window.
    multiplexed: bool,
}

impl Recorded {
    pub(super) fn new(body: Body, recorder: Recorder) -> Self {
        Self { body, recorder: Some(recorder), busy: None, trailers_lost: false, multiplexed: false }
    }

    /// Counts the connection as busy until the body has ended.
    pub(crate) fn keep_busy(&mut self, busy: Busy, http1: bool) {
        self.multiplexed = !http1;
        match &self.recorder {
            Some(recorder) if http1 => recorder.activity.carried_by(busy.conn()),
            Some(recorder) => busy.conn().answers(recorder.activity.clone()),
            None => {}
        }
        self.busy = Some(busy);
    }

    /// The head announces no trailers to an HTTP/1 downstream: any that come are lost, and counted.
    pub(crate) fn lose_trailers(&mut self) {
        self.trailers_lost = true;
    }

    /// The codec answers otherwise than the stack did.
    pub(crate) fn restate(&mut self, status: StatusCode) {
        if let Some(recorder) = &mut self.recorder {
            recorder.status = status.as_u16();
        }
    }

    /// Takes the body apart for a tunnel: its observers and its record outlive the HTTP exchange.
    pub(crate) fn take_for_tunnel(&mut self) -> (Option<Recorder>, Observers) {
        (self.recorder.take(), self.body.take_observers())
    }
}

impl HttpBody for Recorded {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        if let Some(reason) = this.recorder.as_ref().and_then(|recorder| recorder.activity.must_end()) {
            this.body.reset(reason);
            this.end(Ending::Broken(reason));
            return Poll::Ready(Some(Err(Error::new(reason).sent(true))));
        }
        let polled = Pin::new(&mut this.body).poll_frame(task);
        let Some(recorder) = &mut this.recorder else { return polled };
        let ending = match &polled {
            Poll::Pending => {
                recorder.activity.watch(task);
                None
            }
            Poll::Ready(Some(Ok(frame))) => match (frame.data_ref(), frame.trailers_ref()) {
                (Some(data), _) => {
                    recorder.sent(data.len());
                    (!this.multiplexed && this.body.is_end_stream()).then_some(Ending::Complete(None))
                }
                (None, trailers) => {
                    if this.trailers_lost && trailers.is_some_and(|trailers| !trailers.is_empty()) {
                        recorder.worker.count_lost_trailers();
                    }
                    Some(Ending::Complete(trailers))
                }
            },
            Poll::Ready(Some(Err(error))) => Some(Ending::Broken(error.reason())),
            Poll::Ready(None) => Some(Ending::Complete(None)),
        };
        if let Some(ending) = ending {
            this.end(ending);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Recorded {
    fn end(&mut self, ending: Ending<'_>) {
        if let Some(mut recorder) = self.recorder.take() {
            recorder.finish(ending);
        }
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        let Some(recorder) = &self.recorder else { return };
        if let Some(reason) = recorder.activity.must_end() {
            self.body.reset(reason);
            self.end(Ending::Broken(reason));
        } else if self.body.is_end_stream() {
            // A codec that knows the length, or that there is no body, stops asking once it has it all.
            self.end(Ending::Complete(None));
        }
    }
}
