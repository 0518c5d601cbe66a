//! The socket of a connection.

use super::conn::Phase;
use super::frames::{Incoming, Outgoing};
use crate::proxy::stream::Stream;
use crate::proxy::worker::Accepted;
use bytes::Bytes;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

/// The socket of a connection, with the bytes that detection has read already.
#[derive(Debug)]
pub(crate) struct Io {
    pub(super) stream: Stream,
    pub(super) first: Bytes,
    pub(super) phase: Arc<Phase>,
    /// HTTP/2: what its frames show.
    pub(super) frames: Option<Box<(Incoming, Outgoing)>>,
    pub(super) _accepted: Accepted,
}

impl Io {
    /// Writes a last word where the codec had none, and ends. Nobody waits for a client that does not take it.
    pub(crate) async fn finish(mut self, word: &[u8]) {
        let saying = async {
            self.stream.write_all(word).await?;
            self.stream.shutdown().await
        };
        // The connection is at its end either way.
        let _ = tokio::time::timeout(PATIENCE, saying).await;
    }

    fn came(&mut self, bytes: &[u8]) {
        if let Some((incoming, _)) = self.frames.as_deref_mut() {
            incoming.read(bytes);
            self.phase.within_head(incoming.is_within_head());
        }
    }

    fn went(&mut self, bufs: &[io::IoSlice<'_>], mut count: usize, task: &Context<'_>) {
        let Some((_, outgoing)) = self.frames.as_deref_mut() else {
            // The codec's task: it may have asked for the next chunk, and has to ask again.
            if self.phase.sent(count) {
                task.waker().wake_by_ref();
            }
            return;
        };
        for buf in bufs {
            let sent = buf.get(..count.min(buf.len())).unwrap_or_default();
            count -= sent.len();
            outgoing.wrote(sent, |refused| self.phase.refused(refused));
        }
    }
}

/// How long a client may take to read a last word.
const PATIENCE: Duration = Duration::from_secs(1);

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.first.is_empty() {
            let amount = this.first.len().min(buf.remaining());
            let bytes = this.first.split_to(amount);
            buf.put_slice(&bytes);
            this.came(&bytes);
            if this.first.is_empty() {
                this.first = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(task, buf);
        if polled.is_ready() {
            this.phase.read();
            this.came(buf.filled().get(before..).unwrap_or_default());
        }
        polled
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, task: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(task, buf);
        if let Poll::Ready(Ok(count)) = polled {
            this.went(&[io::IoSlice::new(buf)], count, task);
        }
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(task, bufs);
        if let Poll::Ready(Ok(count)) = polled {
            this.went(bufs, count, task);
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(task)
    }

    fn poll_shutdown(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(task)
    }
}
