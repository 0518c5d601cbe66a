//! The response body, watched to its end.

use super::{Ending, Recorder};
use crate::proxy::connection::Busy;
use bytes::Bytes;
use filter_api::{Body, Error, Observers, Reason};
use http::{HeaderMap, HeaderName, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};

/// A response body that reports when it ends.
pub(crate) struct Recorded {
    body: Body,
    recorder: Option<Recorder>,
    /// The connection is not idle before the last byte.
    busy: Option<Busy>,
    trailers: Trailers,
    /// The length that the head of an answer without a body states, for HTTP/1 to keep it.
    stated: Option<u64>,
    /// HTTP/2: the last byte has only gone once the codec lets go of the body, which waits for the client's window.
    multiplexed: bool,
}

/// Which trailers the codec will send.
#[derive(Debug)]
pub(crate) enum Trailers {
    /// All of them: HTTP/2.
    All,
    /// HTTP/1: those that the head announces.
    Announced(Box<[HeaderName]>),
    /// None: HTTP/1, whose head announces none, or whose client does not want any.
    Lost,
}

impl Trailers {
    /// Whether some of these will not be sent.
    fn lose(&self, trailers: &HeaderMap) -> bool {
        match self {
            Self::All => false,
            Self::Announced(names) => trailers.keys().any(|name| !names.contains(name)),
            Self::Lost => !trailers.is_empty(),
        }
    }
}

impl Recorded {
    pub(super) fn new(body: Body, recorder: Recorder) -> Self {
        Self {
            body,
            recorder: Some(recorder),
            busy: None,
            trailers: Trailers::All,
            stated: None,
            multiplexed: false,
        }
    }

    /// Counts the connection as busy until the body has ended.
    pub(crate) fn keep_busy(&mut self, busy: Busy, http1: bool) {
        self.multiplexed = !http1;
        match &self.recorder {
            Some(recorder) if http1 => {
                recorder.activity.carried_by(busy.conn());
                busy.conn().begin_answer();
            }
            Some(recorder) => busy.conn().answers(recorder.activity.clone()),
            None => {}
        }
        self.busy = Some(busy);
    }

    /// Says which trailers the codec will send: the others are counted as lost.
    pub(crate) fn send_trailers(&mut self, which: Trailers) {
        self.trailers = which;
    }

    /// An HTTP/1 codec writes the length that an answer without a body states (304) only if its body claims to have it, and then asks for none.
    pub(crate) fn state_length(&mut self, length: u64) {
        self.stated = Some(length);
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
        let queue = this.busy.as_ref().filter(|_| !this.multiplexed).map(Busy::conn);
        // hyper would take more, up to its buffer's limit, and pin what each chunk was read into: while the client does not read, one chunk is enough.
        if queue.is_some_and(|conn| conn.waits_for_socket()) {
            return Poll::Pending;
        }
        let polled = Pin::new(&mut this.body).poll_frame(task);
        if let (Some(conn), Poll::Ready(Some(Ok(frame)))) = (queue, &polled) {
            conn.queue(frame.data_ref().map_or(0, Bytes::len));
        }
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
                    if trailers.is_some_and(|trailers| this.trailers.lose(trailers)) {
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
        self.stated.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.stated.map_or_else(|| self.body.size_hint(), SizeHint::with_exact)
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
        } else if self.multiplexed
            && self.busy.as_ref().is_some_and(|busy| busy.conn().take_malformed_stream())
        {
            // Not the client has gone: the codec reset the stream for the faults of the request's body.
            self.end(Ending::Broken(Reason::DownstreamMessage));
        }
    }
}
