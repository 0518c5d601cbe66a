//! Accepting connections.

use super::connection;
use super::record::Recorded;
use super::socket::AcceptBackoff;
use super::stream::{Socket as Plain, Stream};
use super::worker::Worker;
use crate::mesh::Name;
use filter_api::Request;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

/// A listening socket that the control side has bound.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Accepts until `stop` says so; then takes what has queued up in the kernel, and closes.
pub(super) async fn accept<S>(
    worker: Rc<Worker>,
    name: Name,
    socket: Socket,
    mut stop: watch::Receiver<bool>,
    stack: S,
) where
    S: tower::Service<Request, Response = ::http::Response<Recorded>, Error = Infallible, Future: 'static>
        + Clone
        + 'static,
{
    let listening = match socket {
        Socket::Tcp(socket) => TcpListener::from_std(socket).map(Listening::Tcp),
        Socket::Unix(socket) => UnixListener::from_std(socket).map(Listening::Unix),
    };
    let listening = match listening {
        Ok(listening) => listening,
        Err(error) => {
            tracing::error!(listener = %name, %error, "the listener's socket cannot be used");
            return;
        }
    };
    let mut backoff = AcceptBackoff::default();
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = listening.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                backoff.reset();
                take(&worker, &name, stream, peer, &stack);
            }
            Err(error) => {
                worker.count_accept_error(&name, &error);
                if let Some(pause) = backoff.after(&error) {
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
    // What the kernel has already accepted for us was promised a server.
    while let Some(Ok((stream, peer))) = now_or_never(listening.accept()).await {
        take(&worker, &name, stream, peer, &stack);
    }
}

fn take<S>(worker: &Rc<Worker>, name: &Name, stream: Stream, peer: Option<SocketAddr>, stack: &S)
where
    S: tower::Service<Request, Response = ::http::Response<Recorded>, Error = Infallible, Future: 'static>
        + Clone
        + 'static,
{
    let Some(accepted) = worker.connection_arrived() else {
        return connection::refuse(worker, name, &stream, peer);
    };
    let serving = connection::serve(worker.clone(), name.clone(), stream, accepted, peer, stack.clone());
    tokio::task::spawn_local(serving);
}

impl Listening {
    async fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => {
                listener.accept().await.map(|(stream, peer)| (Stream::Plain(Plain::Tcp(stream)), Some(peer)))
            }
            Self::Unix(listener) => {
                listener.accept().await.map(|(stream, _)| (Stream::Plain(Plain::Unix(stream)), None))
            }
        }
    }
}

async fn now_or_never<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|task| {
        std::task::Poll::Ready(match future.as_mut().poll(task) {
            std::task::Poll::Ready(done) => Some(done),
            std::task::Poll::Pending => None,
        })
    })
    .await
}
