//! Requests of our own over the clusters of the mesh: the control side asks a worker, which has the pools; a filter asks the worker it runs on.
//!
//! Such a request begins where the total timeout stands in the stack. Nobody is downstream of it, so there is nothing to authenticate, route or
//! record; the cluster's balancing, limits and pools are those of everybody.

use super::cluster::Picked;
use super::upstream;
use super::worker::{Command, Worker};
use bytes::{Bytes, BytesMut};
use filter_api::{Answer, Answered, Body, ConnectionFacts, Cx, Error, Protocol, Reason, Request, Slots};
use http_body::Body as _;
use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How the control side asks. Does not keep the workers running.
#[derive(Clone, Debug)]
pub(crate) struct Calls(Arc<Asking>);

#[derive(Debug)]
struct Asking {
    workers: Box<[mpsc::WeakSender<Command>]>,
    turn: AtomicUsize,
}

/// A request on its way to a worker.
pub(crate) struct Call {
    cluster: Box<str>,
    request: http::Request<Bytes>,
    bounds: Bounds,
    answer: oneshot::Sender<Result<http::Response<Bytes>, Error>>,
}

/// What an answer may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// From the command to the last byte.
    pub(crate) timeout: Duration,
    /// Bytes of its body.
    pub(crate) body: usize,
}

impl Calls {
    pub(crate) fn new<'a>(workers: impl Iterator<Item = &'a mpsc::Sender<Command>>) -> Self {
        let workers = workers.map(mpsc::Sender::downgrade).collect();
        Self(Arc::new(Asking { workers, turn: AtomicUsize::new(0) }))
    }

    /// Sends a request to a cluster, by a worker in turn. `Host` is the caller's to write.
    ///
    /// # Errors
    ///
    /// As a client of the cluster would see them; [`Reason::Overload`] when no worker takes it.
    pub(crate) async fn call(
        &self,
        cluster: &str,
        request: http::Request<Bytes>,
        bounds: Bounds,
    ) -> Result<http::Response<Bytes>, Error> {
        let gone = || Error::new(Reason::Overload).detail("no worker takes requests of our own");
        let turn = self.0.turn.fetch_add(1, Ordering::Relaxed);
        let worker = turn.checked_rem(self.0.workers.len()).and_then(|turn| self.0.workers.get(turn));
        let worker = worker.and_then(mpsc::WeakSender::upgrade).ok_or_else(gone)?;
        let (answer, answered) = oneshot::channel();
        let call = Call { cluster: cluster.into(), request, bounds, answer };
        worker.try_send(Command::Call(Box::new(call))).map_err(|_| gone())?;
        drop(worker);
        answered.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// Does what was asked for, unless nobody waits for it any more.
pub(super) async fn serve(worker: Rc<Worker>, call: Call) {
    let Call { cluster, request, bounds, mut answer } = call;
    let exchange = async {
        let exchange =
            tokio::time::timeout(bounds.timeout, exchange(worker, &cluster, request, bounds.body, false));
        match exchange.await {
            Ok(Ok(answer)) if answer.cut => {
                let detail = format!("the answer is longer than {} bytes", bounds.body);
                Err(Error::new(Reason::UpstreamOverflow).sent(true).detail(detail))
            }
            Ok(Ok(answer)) => Ok(http::Response::from_parts(answer.head, answer.body)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::new(Reason::RequestTimeout)),
        }
    };
    let result = tokio::select! {
        result = exchange => result,
        () = answer.closed() => return,
    };
    // Gone meanwhile; then nobody wants to know.
    let _ = answer.send(result);
}

/// Filters ask for calls of an exchange on the worker that carries it.
impl filter_api::Calls for Worker {
    fn call(self: Rc<Self>, call: filter_api::Call) -> Answered {
        Box::pin(async move {
            let filter_api::Call { cluster, head, body, timeout, most } = call;
            let request = http::Request::from_parts(head, body);
            let exchange = exchange(self, &cluster, request, most, true);
            let exchange = tokio::time::timeout(timeout, exchange);
            exchange.await.unwrap_or_else(|_| Err(Error::new(Reason::RequestTimeout)))
        })
    }
}

/// One request and its answer; `within` another exchange it may not come back to this proxy, which would ask again for it, and so on.
async fn exchange(
    worker: Rc<Worker>,
    cluster: &str,
    request: http::Request<Bytes>,
    most: usize,
    within: bool,
) -> Result<Answer, Error> {
    let found = worker.snapshot().cluster(cluster).cloned();
    let found = found
        .ok_or_else(|| Error::new(Reason::NoCluster).detail(format!("there is no cluster {cluster}")))?;
    let nobody = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
    let facts = ConnectionFacts {
        listener: "internal".into(),
        remote: nobody,
        direct_remote: nobody,
        local: nobody,
        original_destination: None,
        protocol: Protocol::Http1,
        server_name: None,
        tls: None,
    };
    let cx = Cx::new(Arc::new(facts), Slots::empty(0), Arc::new(()));
    let picked = Picked::new(&worker, &found, &cx.connection, &[])?;
    if within && picked.target.socket().is_some_and(|address| worker.is_own_address(address)) {
        let detail = format!("cluster {cluster} is this proxy itself");
        return Err(Error::new(Reason::Loop).detail(detail));
    }
    let (head, body) = request.into_parts();
    let body = if body.is_empty() { Body::empty() } else { Body::from(body) };
    let response = upstream::call(worker, Request { head, body, cx: cx.clone() }, picked).await?;
    let mut answer = Answer { head: response.head, body: Bytes::new(), cut: false, trailers: None };
    read(response.body, most, &mut answer).await?;
    Ok(answer)
}

async fn read(mut body: Body, most: usize, answer: &mut Answer) -> Result<(), Error> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = poll_fn(|task| Pin::new(&mut body).poll_frame(task)).await {
        match frame?.into_data() {
            Ok(data) if bytes.len() + data.len() > most => {
                bytes.extend_from_slice(data.get(..most - bytes.len()).unwrap_or_default());
                answer.cut = true;
                break;
            }
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => answer.trailers = frame.into_trailers().ok(),
        }
    }
    answer.body = bytes.freeze();
    Ok(())
}
