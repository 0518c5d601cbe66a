//! Sending a body again.

use crate::{Body, Error, Reason};
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame};
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
    trailers_played: bool,
}

#[derive(Debug)]
struct Tape {
    chunks: Vec<Bytes>,
    kept: usize,
    limit: usize,
    overflow: bool,
    rest: Body,
    done: bool,
    trailers: Option<HeaderMap>,
    attempt: u32,
}

impl Replay {
    pub(crate) fn new(body: Body, limit: usize) -> (Body, Self) {
        let done = body.is_empty();
        let tape = Tape {
            chunks: Vec::new(),
            kept: 0,
            limit,
            overflow: false,
            rest: body,
            done,
            trailers: None,
            attempt: 0,
        };
        let tape = Arc::new(Mutex::new(tape));
        let player = Player { tape: tape.clone(), attempt: 0, next: 0, trailers_played: false };
        (Body::replay(player), Self(tape))
    }

    /// The body from its beginning, for another attempt; `None` when more was read than is kept. The body of the attempt before fails from now
    /// on: only one attempt reads at a time.
    pub fn again(&self) -> Option<Body> {
        let mut tape = lock(&self.0);
        if tape.overflow {
            return None;
        }
        tape.attempt += 1;
        let attempt = tape.attempt;
        drop(tape);
        Some(Body::replay(Player { tape: self.0.clone(), attempt, next: 0, trailers_played: false }))
    }
}

impl Player {
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut tape = lock(&self.tape);
        if tape.attempt != self.attempt {
            return Poll::Ready(Some(Err(
                Error::new(Reason::Internal).detail("a newer attempt reads this body")
            )));
        }
        if let Some(chunk) = tape.chunks.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(chunk.clone()))));
        }
        if !tape.done {
            let frame = std::task::ready!(Pin::new(&mut tape.rest).poll_frame(cx));
            match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        tape.keep(&data);
                        self.next = tape.chunks.len();
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    Err(frame) => {
                        tape.done = true;
                        tape.trailers = frame.into_trailers().ok();
                    }
                },
                Some(Err(error)) => {
                    tape.overflow = true;
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
        tape.done && self.next >= tape.chunks.len() && (tape.trailers.is_none() || self.trailers_played)
    }
}

impl Tape {
    fn keep(&mut self, data: &Bytes) {
        if self.overflow {
            return;
        }
        self.kept += data.len();
        if self.kept > self.limit {
            // Too long to be sent again: what was kept is of no more use.
            self.overflow = true;
            self.chunks = Vec::new();
        } else {
            self.chunks.push(data.clone());
        }
    }
}

// A panic while the lock was held leaves a tape that is at worst incomplete, which `overflow` or the codec's length check catches.
fn lock(tape: &Mutex<Tape>) -> MutexGuard<'_, Tape> {
    tape.lock().unwrap_or_else(PoisonError::into_inner)
}
