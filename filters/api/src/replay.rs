//! Sending a body again.

use crate::{Body, Error, Reason};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

/// Hands out a body again, as long as all of it that was read so far is kept.
#[derive(Debug)]
pub struct Replay(Arc<Mutex<Tape>>);

/// What one attempt reads.
#[derive(Debug)]
pub(crate) struct Player {
    tape: Arc<Mutex<Tape>>,
    attempt: u32,
    next: usize,
    /// Everything kept was played: from now on it reads, and keeps, the body itself.
    live: bool,
    trailers_played: bool,
}

#[derive(Debug)]
struct Tape {
    chunks: Vec<Bytes>,
    /// Small chunks run together, after `chunks`: each would pin a whole read buffer otherwise.
    small: BytesMut,
    kept: usize,
    limit: usize,
    lost: bool,
    rest: Body,
    done: bool,
    trailers: Option<HeaderMap>,
    attempt: u32,
}

/// Chunks from this size on are kept as they are, smaller ones copied.
const SHARED_FROM: usize = 4 * 1024;

impl Replay {
    pub(crate) fn new(body: Body, limit: usize) -> (Body, Self) {
        let done = body.is_empty();
        let tape = Tape {
            chunks: Vec::new(),
            small: BytesMut::new(),
            kept: 0,
            limit,
            lost: false,
            rest: body,
            done,
            trailers: None,
            attempt: 0,
        };
        let tape = Arc::new(Mutex::new(tape));
        (Player::new(tape.clone(), 0).into_body(), Self(tape))
    }

    /// The body from its beginning, for another attempt; `None` when more was read than is kept, or when the body itself broke. The body of the
    /// attempt before fails from now on: only one attempt reads at a time.
    pub fn again(&self) -> Option<Body> {
        let mut tape = lock(&self.0);
        if tape.lost {
            return None;
        }
        tape.attempt += 1;
        tape.join_small();
        let attempt = tape.attempt;
        drop(tape);
        Some(Player::new(self.0.clone(), attempt).into_body())
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        // Nobody can ask for it again: what passes from now on need not be kept. What is kept may still have to be played.
        lock(&self.0).limit = 0;
    }
}

impl Player {
    fn new(tape: Arc<Mutex<Tape>>, attempt: u32) -> Self {
        Self { tape, attempt, next: 0, live: false, trailers_played: false }
    }

    fn into_body(self) -> Body {
        Body::replay(self)
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut tape = lock(&self.tape);
        if tape.attempt != self.attempt {
            return Poll::Ready(Some(Err(
                Error::new(Reason::Internal).detail("a newer attempt reads this body")
            )));
        }
        if !self.live {
            if let Some(chunk) = tape.chunks.get(self.next) {
                self.next += 1;
                return Poll::Ready(Some(Ok(Frame::data(chunk.clone()))));
            }
            self.live = true;
        }
        if !tape.done {
            let frame = std::task::ready!(Pin::new(&mut tape.rest).poll_frame(cx));
            match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        tape.keep(&data);
                        tape.done = tape.rest.is_end_stream();
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    Err(frame) => {
                        tape.done = true;
                        tape.trailers = frame.into_trailers().ok();
                    }
                },
                Some(Err(error)) => {
                    tape.lose();
                    return Poll::Ready(Some(Err(error)));
                }
                None => tape.done = true,
            }
        }
        match &tape.trailers {
            Some(trailers) if !self.trailers_played => {
                self.trailers_played = true;
                Poll::Ready(Some(Ok(Frame::trailers(trailers.clone()))))
            }
            _ => Poll::Ready(None),
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        let tape = lock(&self.tape);
        tape.attempt == self.attempt
            && tape.done
            && self.kept(&tape).is_empty()
            && (tape.trailers.is_none() || self.trailers_played)
    }

    /// What is kept and not yet played, and what is still to come.
    pub(crate) fn size_hint(&self) -> SizeHint {
        let tape = lock(&self.tape);
        if tape.attempt != self.attempt {
            return SizeHint::default();
        }
        let kept = self.kept(&tape).iter().map(|chunk| chunk.len() as u64).sum::<u64>();
        let rest = tape.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(kept.saturating_add(rest.lower()));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(kept)) {
            hint.set_upper(upper);
        }
        hint
    }

    fn kept<'a>(&self, tape: &'a Tape) -> &'a [Bytes] {
        if self.live { &[] } else { tape.chunks.get(self.next..).unwrap_or_default() }
    }
}

impl Tape {
    fn keep(&mut self, data: &Bytes) {
        if self.lost {
            return;
        }
        self.kept = self.kept.saturating_add(data.len());
        if self.kept > self.limit {
            self.lose();
        } else if data.len() < SHARED_FROM {
            self.small.extend_from_slice(data);
        } else {
            self.join_small();
            self.chunks.push(data.clone());
        }
    }

    fn join_small(&mut self) {
        if !self.small.is_empty() {
            self.chunks.push(self.small.split().freeze());
        }
    }

    /// It cannot be sent again: what was kept is of no more use.
    fn lose(&mut self) {
        self.lost = true;
        self.chunks = Vec::new();
        self.small = BytesMut::new();
    }
}

// A panic while the lock was held leaves a tape that is at worst incomplete, which `lost` or the codec's length check catches.
fn lock(tape: &Mutex<Tape>) -> MutexGuard<'_, Tape> {
    tape.lock().unwrap_or_else(PoisonError::into_inner)
}
