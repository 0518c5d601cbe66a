//! The one body type of the stack.

use crate::{End, Error, Observer, Observers, Outcome, Reason, Replay};
use crate::{Meter, replay};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A body, and who is told how it ends.
///
/// One concrete type, so that layers are not generic over bodies. `Send`, so that a body may leave its worker. Dropped before its end, it tells
/// its observers that the exchange was cancelled.
#[derive(Default)]
pub struct Body {
    kind: Kind,
    observers: Observers,
    meter: Option<Arc<Meter>>,
    bytes: u64,
    /// The most bytes that may pass; 0 is no limit.
    most: u64,
}

/// Any other body. The one kind that costs an allocation.
pub type BoxBody = Pin<Box<dyn HttpBody<Data = Bytes, Error = Error> + Send>>;

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    Bytes(Bytes),
    Hyper(hyper::body::Incoming, Side),
    H2(H2Body),
    Replay(Box<replay::Player>),
    Boxed(BoxBody),
}

/// Who is to blame when a hyper body breaks.
#[derive(Clone, Copy)]
enum Side {
    Downstream,
    Upstream,
}

/// The body of a response that the `h2` client received.
///
/// Gives flow-control credit back only when the reader comes for more: a reader that stops holds at most one stream window.
pub struct H2Body {
    stream: h2::RecvStream,
    owed: usize,
    data_done: bool,
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The body of a request that hyper is reading from the downstream.
    pub fn downstream(body: hyper::body::Incoming) -> Self {
        Self::of(Kind::Hyper(body, Side::Downstream))
    }

    /// The body of a response that hyper is reading from the upstream.
    pub fn upstream(body: hyper::body::Incoming) -> Self {
        Self::of(Kind::Hyper(body, Side::Upstream))
    }

    /// The body of a response that the `h2` client is reading.
    pub fn h2(stream: h2::RecvStream) -> Self {
        Self::of(Kind::H2(H2Body { stream, owed: 0, data_done: false }))
    }

    /// Any other body.
    pub fn boxed(body: impl HttpBody<Data = Bytes, Error = Error> + Send + 'static) -> Self {
        Self::of(Kind::Boxed(Box::pin(body)))
    }

    pub(crate) fn replay(player: replay::Player) -> Self {
        Self::of(Kind::Replay(Box::new(player)))
    }

    fn of(kind: Kind) -> Self {
        Self { kind, observers: Observers::new(), meter: None, bytes: 0, most: 0 }
    }

    /// Tells `observer` how this body ends, on drop too.
    pub fn observe(&mut self, observer: Box<dyn Observer>) {
        self.observers.push(observer);
    }

    /// Counts the bytes that pass.
    pub fn meter(&mut self, meter: Arc<Meter>) {
        self.meter = Some(meter);
    }

    /// Breaks the body off with [`Reason::BodyTooLarge`] once more than `most` bytes of it have come. Zero is no limit.
    pub fn limit(&mut self, most: u64) {
        self.most = most;
    }

    /// Takes the observers away, for a tunnel that outlives the HTTP exchange.
    pub fn take_observers(&mut self) -> Observers {
        std::mem::take(&mut self.observers)
    }

    /// Breaks the body off: its observers are told why, and whoever reads on finds its end. For layers that stop an exchange half way; dropping
    /// the body would say that the downstream went away.
    pub fn reset(&mut self, reason: Reason) {
        self.kind = Kind::Empty;
        self.finish(Outcome::Reset(reason), None);
    }

    /// Keeps the first `limit` bytes while they pass, so that the body can be sent again.
    pub fn replayable(self, limit: usize) -> (Self, Replay) {
        Replay::new(self, limit)
    }

    /// True when there is nothing to read: no data and no trailers.
    pub fn is_empty(&self) -> bool {
        HttpBody::is_end_stream(self)
    }

    fn poll_kind(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.kind {
            Kind::Empty => Poll::Ready(None),
            Kind::Bytes(bytes) => {
                let bytes = std::mem::take(bytes);
                self.kind = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Kind::Hyper(body, side) => {
                let side = *side;
                Pin::new(body).poll_frame(cx).map_ok(without_blanks).map_err(|error| side.blame(error))
            }
            Kind::H2(body) => body.poll_frame(cx),
            Kind::Replay(player) => player.poll_frame(cx),
            Kind::Boxed(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn finish(&mut self, outcome: Outcome, trailers: Option<&HeaderMap>) {
        if self.observers.is_empty() {
            return;
        }
        let end = End { outcome, bytes: self.bytes, trailers };
        for observer in std::mem::take(&mut self.observers) {
            observer.on_end(&end);
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = self.poll_kind(cx);
        match &polled {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.bytes += data.len() as u64;
                    if let Some(meter) = &self.meter {
                        meter.add(data.len());
                    }
                    if self.most != 0 && self.bytes > self.most {
                        self.reset(Reason::BodyTooLarge);
                        return Poll::Ready(Some(Err(Error::new(Reason::BodyTooLarge).sent(true).closing())));
                    }
                } else if let Some(trailers) = frame.trailers_ref() {
                    if let Some(meter) = self.meter.as_ref().filter(|_| !trailers.is_empty()) {
                        meter.trailers_came();
                    }
                    self.kind = Kind::Empty;
                    self.finish(Outcome::Complete, Some(trailers));
                }
            }
            Poll::Ready(Some(Err(error))) => self.reset(error.reason()),
            Poll::Ready(None) => {
                self.kind = Kind::Empty;
                self.finish(Outcome::Complete, None);
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Bytes(bytes) => bytes.is_empty(),
            Kind::Hyper(body, _) => body.is_end_stream(),
            Kind::H2(body) => body.stream.is_end_stream(),
            Kind::Replay(player) => player.is_end_stream(),
            Kind::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Hyper(body, _) => body.size_hint(),
            Kind::H2(body) if body.stream.is_end_stream() => SizeHint::with_exact(0),
            Kind::H2(_) => SizeHint::default(),
            Kind::Replay(player) => player.size_hint(),
            Kind::Boxed(body) => body.size_hint(),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if !self.observers.is_empty() {
            // A codec that knows the length stops asking once it has it all.
            let outcome = if self.is_empty() { Outcome::Complete } else { Outcome::Cancelled };
            self.finish(outcome, None);
        }
    }
}

impl H2Body {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.owed > 0 {
            // Fails only when the stream is already gone, which the next poll reports.
            let _ = self.stream.flow_control().release_capacity(std::mem::take(&mut self.owed));
        }
        while !self.data_done {
            match std::task::ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) if data.is_empty() && !self.stream.is_end_stream() => {}
                Some(Ok(data)) => {
                    self.owed = data.len();
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(h2_failure(error)))),
                None => self.data_done = true,
            }
        }
        match std::task::ready!(self.stream.poll_trailers(cx)) {
            Ok(Some(trailers)) => Poll::Ready(Some(Ok(without_blanks(Frame::trailers(trailers))))),
            Ok(None) => Poll::Ready(None),
            Err(error) => Poll::Ready(Some(Err(h2_failure(error)))),
        }
    }
}

fn h2_failure(error: h2::Error) -> Error {
    let reason = if error.is_io() || error.is_go_away() {
        Reason::UpstreamClosed
    } else if error.is_reset() {
        Reason::UpstreamReset
    } else {
        Reason::UpstreamProtocol
    };
    Error::new(reason).sent(true).source(error)
}

impl Side {
    fn blame(self, error: hyper::Error) -> Error {
        let reason = match (self, malformed(&error)) {
            (Self::Downstream, Some(reason)) => reason,
            (Self::Downstream, None) => Reason::DownstreamClosed,
            (Self::Upstream, Some(_)) => Reason::UpstreamProtocol,
            (Self::Upstream, None) => Reason::UpstreamClosed,
        };
        let failure = Error::new(reason).sent(true);
        match reason {
            // Where its next request would begin is unknown.
            Reason::DownstreamProtocol => {
                let what = std::error::Error::source(&error).map_or_else(String::new, ToString::to_string);
                failure.detail(what).closing().source(error)
            }
            _ => failure.source(error),
        }
    }
}

/// Whether a body broke by its own framing, not by the end of its connection, and of which protocol. hyper says so of chunks by the kind of an I/O error, h2
/// by the reason of a reset of its own.
fn malformed(error: &hyper::Error) -> Option<Reason> {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<std::io::Error>() {
            let framing = matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::InvalidInput);
            return framing.then_some(Reason::DownstreamProtocol);
        }
        if let Some(error) = cause.downcast_ref::<h2::Error>() {
            let framing = !error.is_remote() && error.reason() == Some(h2::Reason::PROTOCOL_ERROR);
            return framing.then_some(Reason::DownstreamMessage);
        }
        source = cause.source();
    }
    error.is_parse().then_some(Reason::DownstreamProtocol)
}

/// Trailers without the blanks around their values, which HTTP/2 forbids (RFC 9113 section 8.2.1) and HTTP/1 would not read as part of them.
fn without_blanks(mut frame: Frame<Bytes>) -> Frame<Bytes> {
    if let Some(trailers) = frame.trailers_mut() {
        trim_values(trailers);
    }
    frame
}

/// Removes spaces and tabs around header values, which HTTP/2 forbids (RFC 9113 section 8.2.1) and HTTP/1 does not read as part of them.
pub fn trim_values(headers: &mut HeaderMap) {
    for value in headers.values_mut() {
        let bytes = value.as_bytes();
        let trimmed = bytes.trim_ascii();
        // What is left of a value is one.
        if trimmed.len() < bytes.len()
            && let Ok(trimmed) = HeaderValue::from_bytes(trimmed)
        {
            *value = trimmed;
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::empty() } else { Self::of(Kind::Bytes(bytes)) }
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match &self.kind {
            Kind::Empty => "empty",
            Kind::Bytes(_) => "bytes",
            Kind::Hyper(..) => "hyper",
            Kind::H2(_) => "h2",
            Kind::Replay(_) => "replay",
            Kind::Boxed(_) => "boxed",
        };
        write!(f, "Body({kind}, {} observers, {} bytes so far)", self.observers.len(), self.bytes)
    }
}

impl std::fmt::Debug for H2Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "H2Body({} owed)", self.owed)
    }
}
