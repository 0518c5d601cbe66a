//! A socket that is read in small portions.
//!
//! A reader that stops leaves what was read for it in our buffers: a portion that the codec writes, one in the body's channel, and the room for another. hyper doubles what it reads at once as long as all of it comes, up to the size of the queue; portions that are one byte short of a power of two keep it
//! there, and its heads may still be as long as the queue.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Portions<S>(S);

/// The most that is read at once.
pub(crate) const PORTION: usize = 32 * 1024 - 1;

impl<S> Portions<S> {
    pub(crate) fn of(stream: S) -> Self {
        Self(stream)
    }

    /// The socket itself.
    pub(crate) fn into_inner(self) -> S {
        self.0
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Portions<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut (&mut self.0).take(PORTION as u64)).poll_read(task, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Portions<S> {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(task, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(task, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(task)
    }
}
