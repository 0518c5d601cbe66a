//! One write for all that an HTTP/2 connection has to say at a time.
//!
//! The `h2` crate flushes after each DATA frame, which is one system call for each small answer however many streams are ready. Here
//! a flush only marks: what was written is sent once the connection's task has run to its end, frames of all its streams together.

use pin_project_lite::pin_project;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The socket as the codec sees it.
#[derive(Debug)]
pub(crate) struct Collected<S>(Rc<RefCell<Outbox<S>>>);

/// What sends the collected bytes.
#[derive(Debug)]
pub(crate) struct Sender<S>(Rc<RefCell<Outbox<S>>>);

pin_project! {
    /// A connection, and the sending of what each of its polls wrote.
    #[derive(Debug)]
    pub(crate) struct Sending<C, S> {
        #[pin]
        connection: C,
        sender: Sender<S>,
    }
}

#[derive(Debug)]
struct Outbox<S> {
    stream: S,
    pending: Vec<u8>,
    /// How much of `pending` is sent.
    sent: usize,
    /// The socket takes no more: nothing is collected behind what is left, so that a reader that stops costs no more memory.
    full: bool,
    failed: Option<io::Error>,
}

/// Bytes that are collected at most; what would exceed them is sent at once, from where it lies.
const MAX_COLLECTED: usize = 32 * 1024;

/// Slices of one write of the codec, and the collected bytes before them.
const MAX_SLICES: usize = 8;

thread_local! {
    /// The buffer that no connection is using: a worker's connections take turns, so one serves nearly all of them.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Splits a socket into what the codec writes to and what sends.
pub(crate) fn collect<S>(stream: S) -> (Collected<S>, Sender<S>) {
    let outbox = Outbox { stream, pending: Vec::new(), sent: 0, full: false, failed: None };
    let outbox = Rc::new(RefCell::new(outbox));
    (Collected(outbox.clone()), Sender(outbox))
}

impl<S> Sender<S> {
    /// The connection, which sends after each of its polls from now on.
    pub(crate) fn drive<C: Future>(self, connection: C) -> Sending<C, S> {
        Sending { connection, sender: self }
    }
}

impl<C, S> Sending<C, S> {
    /// The connection itself.
    pub(crate) fn connection(self: Pin<&mut Self>) -> Pin<&mut C> {
        self.project().connection
    }
}

impl<C: Future, S: AsyncWrite + Unpin> Future for Sending<C, S> {
    type Output = C::Output;

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<C::Output> {
        let this = self.project();
        let polled = this.connection.poll(task);
        let mut outbox = this.sender.0.borrow_mut();
        match outbox.poll_send(task) {
            Poll::Ready(Ok(())) => {}
            // The socket wakes the task when it takes more.
            Poll::Pending => outbox.full = true,
            Poll::Ready(Err(error)) => {
                outbox.failed = Some(error);
                // For the codec to hear of it.
                task.waker().wake_by_ref();
            }
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> Outbox<S> {
    /// Sends all that was collected.
    fn poll_send(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.pending.len() {
            let rest = self.pending.get(self.sent..).unwrap_or_default();
            match ready!(Pin::new(&mut self.stream).poll_write(task, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        self.clear();
        Poll::Ready(Ok(()))
    }

    /// Collects, or sends together with what was collected before.
    fn poll_take(&mut self, task: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        if self.full {
            ready!(self.poll_send(task))?;
        }
        let more: usize = bufs.iter().map(|buf| buf.len()).sum();
        if self.pending.len() + more <= MAX_COLLECTED {
            if self.pending.capacity() == 0 {
                self.pending = SPARE.take();
                self.pending.reserve_exact(MAX_COLLECTED.saturating_sub(self.pending.capacity()));
            }
            for buf in bufs {
                self.pending.extend_from_slice(buf);
            }
            return Poll::Ready(Ok(more));
        }
        loop {
            let rest = self.pending.get(self.sent..).unwrap_or_default();
            let collected = rest.len();
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let all = std::iter::once(rest).chain(bufs.iter().map(|buf| &**buf));
            let mut count = 0;
            for (slice, bytes) in slices.iter_mut().zip(all.filter(|bytes| !bytes.is_empty())) {
                *slice = IoSlice::new(bytes);
                count += 1;
            }
            let slices = slices.get(..count).unwrap_or_default();
            let sent = ready!(Pin::new(&mut self.stream).poll_write_vectored(task, slices))?;
            if sent > collected {
                self.clear();
                return Poll::Ready(Ok(sent - collected));
            }
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += sent;
        }
    }

    fn clear(&mut self) {
        self.full = false;
        self.sent = 0;
        let mut buffer = std::mem::take(&mut self.pending);
        if buffer.capacity() > 0 {
            buffer.clear();
            SPARE.set(buffer);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Collected<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_read(task, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Collected<S> {
    fn poll_write(self: Pin<&mut Self>, task: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_take(task, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_take(task, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Says that it is done: the end of the poll sends. Waits only for a socket that takes no more.
    fn poll_flush(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut outbox = self.0.borrow_mut();
        match outbox.failed.take() {
            Some(error) => Poll::Ready(Err(error)),
            None if outbox.full => outbox.poll_send(task),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut outbox = self.0.borrow_mut();
        if let Some(error) = outbox.failed.take() {
            return Poll::Ready(Err(error));
        }
        ready!(outbox.poll_send(task))?;
        Pin::new(&mut outbox.stream).poll_shutdown(task)
    }
}

#[cfg(test)]
mod tests;
