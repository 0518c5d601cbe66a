//! A tunnel within one HTTP/2 stream: bytes are its DATA, the end of a direction is END_STREAM (RFC 9113 section 8.5, RFC 8441 section 5).

use bytes::{Buf, Bytes};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The upstream's end of a tunnel. Dropped before both directions ended, it resets the stream.
#[derive(Debug)]
pub(crate) struct H2Tunnel {
    send: h2::SendStream<Bytes>,
    receive: h2::RecvStream,
    read: Bytes,
    finished: bool,
}

/// Takes the tunnel through the stack, among the response's extensions, which have to be `Clone`.
#[derive(Clone, Debug)]
pub(crate) struct Handover(Arc<Mutex<Option<H2Tunnel>>>);

impl H2Tunnel {
    pub(super) fn new(send: h2::SendStream<Bytes>, receive: h2::RecvStream) -> Self {
        Self { send, receive, read: Bytes::new(), finished: false }
    }
}

impl Handover {
    pub(super) fn new(tunnel: H2Tunnel) -> Self {
        Self(Arc::new(Mutex::new(Some(tunnel))))
    }

    /// The tunnel, for the first that asks.
    pub(crate) fn take(&self) -> Option<H2Tunnel> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl AsyncRead for H2Tunnel {
    fn poll_read(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.read.is_empty() {
            match ready!(this.receive.poll_data(task)) {
                Some(Ok(data)) => this.read = data,
                Some(Err(error)) if error.reason() == Some(h2::Reason::NO_ERROR) => {
                    return Poll::Ready(Ok(()));
                }
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let amount = this.read.len().min(buf.remaining());
        buf.put_slice(&this.read[..amount]);
        this.read.advance(amount);
        // Credit for what was taken, not for what has come: a reader that stops holds at most one window. Fails only when the stream is gone.
        let _ = this.receive.flow_control().release_capacity(amount);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for H2Tunnel {
    fn poll_write(self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        this.send.reserve_capacity(bytes.len());
        while this.send.capacity() == 0 {
            match ready!(this.send.poll_capacity(task)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let amount = this.send.capacity().min(bytes.len());
        let sent = this.send.send_data(Bytes::copy_from_slice(&bytes[..amount]), false);
        Poll::Ready(sent.map(|()| amount).map_err(io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's own task writes.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.finished {
            this.finished = true;
            this.send.send_data(Bytes::new(), true).map_err(io::Error::other)?;
        }
        Poll::Ready(Ok(()))
    }
}
