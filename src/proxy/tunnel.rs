//! After an upgrade or a CONNECT: bytes both ways, under the record and the permits of the exchange that opened it.

use super::connection::{Busy, Door};
use super::record::{Ending, Recorded, Recorder};
use super::tcp::{self, Flow};
use super::upstream::{H2Tunnel, Handover};
use super::worker::{Tunnel, Worker};
use crate::mesh::Direction;
use filter_api::{End, Outcome, Reason};
use http::StatusCode;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The upstream's end.
enum Upstream {
    /// An HTTP/1 connection, once hyper hands it over.
    Connection(OnUpgrade),
    /// A stream of an HTTP/2 connection.
    Stream(H2Tunnel),
}

/// Whether this response opens a tunnel: the upstream has agreed, and its end of it is there.
pub(super) fn is_opened(response: &http::Response<Recorded>) -> bool {
    let agreed = response.status().is_success() || response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let extensions = response.extensions();
    agreed && (extensions.get::<OnUpgrade>().is_some() || extensions.get::<Handover>().is_some())
}

/// Starts the tunnel that `response` opens. Nothing the client sends goes upstream before: hyper hands its end over only once the response head
/// is written. `busy` keeps an HTTP/2 connection from being idle while it carries the tunnel.
pub(super) fn start(
    worker: &Rc<Worker>,
    direction: Direction,
    downstream: OnUpgrade,
    (door, busy): (Option<Rc<Door>>, Option<Busy>),
    response: &mut http::Response<Recorded>,
) {
    let extensions = response.extensions_mut();
    let stream = extensions.remove::<Handover>().and_then(|handover| handover.take());
    let upstream = match (stream, extensions.remove::<OnUpgrade>()) {
        (Some(stream), _) => Upstream::Stream(stream),
        (None, Some(connection)) => Upstream::Connection(connection),
        (None, None) => return,
    };
    let (recorder, observers) = response.body_mut().take_for_tunnel();
    if let Some(recorder) = &recorder {
        recorder.opened_tunnel(door.as_ref());
    }
    let tunnel = worker.open_tunnel(direction, None);
    tokio::task::spawn_local(async move {
        let (mut recorder, observers) = (recorder, observers);
        let (_tunnel, _busy) = (tunnel.clone(), busy);
        let idle = recorder.as_ref().map_or(Duration::ZERO, Recorder::connection_idle_timeout);
        let flow = Flow::new(idle);
        let carried = carry(downstream, upstream, &flow, &tunnel);
        let result = match &recorder {
            Some(recorder) => tokio::select! {
                result = carried => result,
                reason = recorder.ended_early() => Err(reason),
            },
            None => carried.await,
        };
        let bytes = flow.received() + flow.sent();
        if let Some(recorder) = &mut recorder {
            recorder.tunnelled(flow.received(), flow.sent());
        }
        let (outcome, ending) = match result {
            Ok(()) => (Outcome::Complete, Ending::Complete(None)),
            Err(reason) => (Outcome::Reset(reason), Ending::Broken(reason)),
        };
        for observer in observers {
            observer.on_end(&End { outcome, bytes, trailers: None });
        }
        if let Some(recorder) = &mut recorder {
            recorder.finish(ending);
        }
    });
}

async fn carry(
    downstream: OnUpgrade,
    upstream: Upstream,
    flow: &Flow,
    tunnel: &Tunnel,
) -> Result<(), Reason> {
    match upstream {
        Upstream::Connection(upstream) => {
            let (downstream, upstream) = tokio::join!(downstream, upstream);
            let downstream = TokioIo::new(downstream.map_err(|_| Reason::DownstreamClosed)?);
            let upstream = TokioIo::new(upstream.map_err(|_| Reason::UpstreamClosed)?);
            copy(downstream, upstream, flow, tunnel).await
        }
        Upstream::Stream(upstream) => {
            let downstream = TokioIo::new(downstream.await.map_err(|_| Reason::DownstreamClosed)?);
            copy(downstream, upstream, flow, tunnel).await
        }
    }
}

async fn copy(
    downstream: impl AsyncRead + AsyncWrite + Unpin,
    upstream: impl AsyncRead + AsyncWrite + Unpin,
    flow: &Flow,
    tunnel: &Tunnel,
) -> Result<(), Reason> {
    let copied = tcp::copy_both(Ends::new(downstream), upstream, flow, tunnel).await;
    copied.map_err(|error| error.reason())
}

/// Tells the reset of an HTTP/2 stream from its end. hyper reads both as the end; but of a stream that was reset nothing can be written any more,
/// which its writing task knows one turn later.
struct Ends<T> {
    io: T,
    ended: bool,
}

impl<T> Ends<T> {
    fn new(io: T) -> Self {
        Self { io, ended: false }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Ends<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ended {
            return match Pin::new(&mut this.io).poll_flush(task) {
                Poll::Ready(Err(reset)) => Poll::Ready(Err(reset)),
                _ => Poll::Ready(Ok(())),
            };
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(task, buf))?;
        if buf.filled().len() > before || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        this.ended = true;
        task.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Ends<T> {
    fn poll_write(self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(task, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(task)
    }

    fn poll_shutdown(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(task)
    }
}
