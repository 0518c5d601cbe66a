//! Connections that are carried as bytes.

use super::audit;
use super::carried::Carried;
use super::cluster::Picked;
use super::connection::Io;
use super::labels;
use super::upstream::{self, Way};
use super::worker::{Tunnel, Worker};
use crate::filters;
use crate::identity::Within;
use crate::snapshot::{Destination, Resource, Tcp};
use crate::telemetry::access_log;
use crate::telemetry::flags::ResponseFlags;
use crate::telemetry::metrics::{Protocol, TCP};
use filter_api::{ConnectionFacts, DecisionId, Error, Observers, Outcome, Reason};
use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::sleep;

/// Bytes that one direction may hold. A reader that stops costs no more than this and the socket buffers.
const BUFFER: usize = 16 * 1024;

/// Attempts to reach different endpoints of one cluster (Envoy's `max_connect_attempts` in Istio is 1; another endpoint costs nothing when no
/// byte was sent).
const CONNECT_ATTEMPTS: usize = 3;

/// Carries one connection to the cluster that its chain names.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    tunnel: &Tunnel,
    facts: &Arc<ConnectionFacts>,
    chain: &Tcp,
    mut io: Io,
) {
    let started = Instant::now();
    let flow = Rc::new(Flow::new(chain.mesh.idle_timeout));
    let mut admitted = Observers::new();
    let mut upstream_host = None;
    let mut upstream_local = None;
    let mut failure = None;
    let mut opened = false;
    let destination = chain.pick(worker.random()).cloned();
    let result = async {
        admitted = filters::on_connection(&chain.port, facts).inspect_err(|error| {
            worker.count_limit(error.reason());
        })?;
        let place = if chain.mesh.audited { audit::admit(worker, tunnel).await? } else { None };
        let found = tokio::select! {
            found = open(worker, destination.as_ref(), facts) => found,
            why = tunnel.ended() => Err(why),
        };
        let reached = found.as_ref().map(|(_, _, picked)| picked.target.socket());
        let cluster = destination.as_ref().map(|destination| &destination.cluster_name);
        audit::admitted(place, (facts, started), cluster, reached);
        let (destination, stream, picked) = found?;
        opened = true;
        upstream_host = picked.target.socket();
        upstream_local = stream.local_address();
        let idle =
            destination.cluster.as_ref().map_or(Duration::ZERO, |cluster| cluster.mesh.pool.tcp_idle_timeout);
        flow.limit(idle);
        let series = worker.labels.connection(
            destination.cluster.as_deref(),
            picked.endpoint.as_deref(),
            Protocol::Tcp,
            ResponseFlags::NONE,
            facts,
            |labels| worker.metrics.connection(&TCP, &labels),
        );
        let _carried = Carried::new(worker, series, flow.clone());
        copy_both(&mut io, stream, &flow, tunnel).await
    }
    .await;
    tunnel.is_over();
    let error = result.err();
    if let Some(error) = &error {
        failure = error.cause();
        tracing::debug!(listener = %facts.listener, remote = %facts.remote, %error, "a TCP connection failed");
    }
    let reason = error.as_ref().map(Error::reason);
    let cluster = destination.as_ref().map(|destination| &destination.cluster_name);
    let by_us = error.as_ref().filter(|error| !opened || error.reason() == Reason::AccessRevoked);
    let refused = by_us.map(|error| worker.note_connection(facts, cluster, error));
    // Only now: whoever sees it closed may ask why.
    drop(io);
    filters::ended(admitted, reason.map_or(Outcome::Complete, Outcome::Reset), flow.received() + flow.sent());
    let decided = error.as_ref().and_then(Error::decided);
    let of_policy = |error: &&Error| matches!(error.reason(), Reason::AccessDenied | Reason::AccessRevoked);
    if let Some(error) = error.as_ref().filter(of_policy)
        && chain.mesh.audited
    {
        audit::refused(worker, tunnel, facts, error, (refused, started)).await;
    }
    if worker.logs() {
        let duration = started.elapsed();
        let record = access_log::Record {
            start: SystemTime::now() - duration,
            duration,
            flags: reason.map_or(ResponseFlags::NONE, labels::flag),
            details: reason.map(Reason::details),
            termination_details: error.as_ref().map(Error::detail_str).filter(|detail| !detail.is_empty()),
            upstream_transport_failure: failure.as_deref(),
            bytes_received: flow.received(),
            bytes_sent: flow.sent(),
            upstream_host,
            cluster: cluster.map(|name| &**name),
            upstream_local,
            downstream_local: Some(facts.local),
            downstream_remote: Some(facts.remote),
            downstream_direct: Some(facts.direct_remote),
            server_name: facts.server_name.as_deref(),
            decision: refused.as_ref().map(DecisionId::as_str),
            decision_reason: decided.map(|record| &*record.because),
            ..access_log::Record::default()
        };
        worker.log(record, &[], &[]);
    }
}

async fn open<'a>(
    worker: &Rc<Worker>,
    destination: Option<&'a Arc<Destination>>,
    facts: &Arc<ConnectionFacts>,
) -> Result<(&'a Arc<Destination>, super::stream::Stream, Picked), Error> {
    let Some(destination) = destination else { return Err(Reason::NoRoute.into()) };
    let Some(cluster) = &destination.cluster else {
        let detail = format!("cluster {} does not exist", destination.cluster_name);
        return Err(Error::new(Reason::NoCluster).detail(detail));
    };
    let Some(permit) = cluster.acquire(Resource::Connections) else {
        let detail =
            format!("the limit of connections (maxConnections) of cluster {} reached", cluster.mesh.name);
        return Err(Error::new(Reason::UpstreamOverflow).detail(detail));
    };
    let (mut tried, mut permit) = (Vec::new(), Some(permit));
    loop {
        let picked = Picked::new(worker, cluster, facts, &tried)?;
        match upstream::connect(
            worker.keyring(),
            &Way::to(&picked),
            Within::Bytes,
            &cluster.mesh,
            Some(facts),
        )
        .await
        {
            Ok(stream) => return Ok((destination, stream, picked.holding(permit.take()))),
            Err(error) => {
                let Some(endpoint) = &picked.endpoint else { return Err(error) };
                if tried.len() + 1 >= CONNECT_ATTEMPTS || tried.contains(&endpoint.id) {
                    return Err(error);
                }
                tried.push(endpoint.id);
            }
        }
    }
}

/// What moved on a connection, and when.
#[derive(Debug)]
pub(super) struct Flow {
    received: Cell<u64>,
    sent: Cell<u64>,
    idle: Cell<Duration>,
    moved: Cell<u64>,
}

impl Flow {
    /// Nothing so far; `idle` without a byte ends the connection, zero: never.
    pub(super) fn new(idle: Duration) -> Self {
        Self { received: Cell::new(0), sent: Cell::new(0), idle: Cell::new(idle), moved: Cell::new(0) }
    }

    /// Lowers the idle time.
    fn limit(&self, idle: Duration) {
        let now = self.idle.get();
        if !idle.is_zero() && (now.is_zero() || idle < now) {
            self.idle.set(idle);
        }
    }

    /// Bytes from the downstream.
    pub(super) fn received(&self) -> u64 {
        self.received.get()
    }

    /// Bytes to the downstream.
    pub(super) fn sent(&self) -> u64 {
        self.sent.get()
    }
}

/// Copies both ways until both ends have closed. An end that closes its writing half is told on to the other, which may go on (half-close).
pub(super) async fn copy_both(
    downstream: impl AsyncRead + AsyncWrite + Unpin,
    upstream: impl AsyncRead + AsyncWrite + Unpin,
    flow: &Flow,
    tunnel: &Tunnel,
) -> Result<(), Error> {
    let (mut downstream, mut upstream) = (downstream, upstream);
    let mut up = Half::default();
    let mut down = Half::default();
    let copy = poll_fn(|task| {
        let up_result = up.poll(task, &mut downstream, &mut upstream, &flow.received, &flow.moved);
        let down_result = down.poll(task, &mut upstream, &mut downstream, &flow.sent, &flow.moved);
        match (up_result, down_result) {
            (Poll::Ready(Err(side)), _) => {
                Poll::Ready(Err(side.blame(Reason::DownstreamClosed, Reason::UpstreamClosed)))
            }
            (_, Poll::Ready(Err(side))) => {
                Poll::Ready(Err(side.blame(Reason::UpstreamClosed, Reason::DownstreamClosed)))
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    });
    let watch = async {
        loop {
            let idle = flow.idle.get();
            if idle.is_zero() {
                return std::future::pending::<Reason>().await;
            }
            let before = flow.moved.get();
            sleep(idle).await;
            if flow.moved.get() == before {
                return Reason::StreamIdle;
            }
        }
    };
    tokio::select! {
        result = copy => result.map_err(Error::new),
        reason = watch => Err(reason.into()),
        why = tunnel.ended() => Err(why),
    }
}

/// One direction. The buffer exists only while there is something in it, so that an idle connection costs none.
#[derive(Debug, Default)]
struct Half {
    buffer: Vec<u8>,
    start: usize,
    eof: bool,
    flushed: bool,
    done: bool,
}

/// Which side of a direction failed.
enum Side {
    Reader,
    Writer,
}

impl Side {
    fn blame(&self, reader: Reason, writer: Reason) -> Reason {
        match self {
            Self::Reader => reader,
            Self::Writer => writer,
        }
    }
}

impl Half {
    fn poll(
        &mut self,
        task: &mut Context<'_>,
        reader: &mut (impl AsyncRead + Unpin),
        writer: &mut (impl AsyncWrite + Unpin),
        count: &Cell<u64>,
        moved: &Cell<u64>,
    ) -> Poll<Result<(), Side>> {
        loop {
            if self.done {
                return Poll::Ready(Ok(()));
            }
            if self.start < self.buffer.len() {
                match Pin::new(&mut *writer).poll_write(task, &self.buffer[self.start..]) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(Side::Writer)),
                    Poll::Ready(Ok(written)) => {
                        self.start += written;
                        self.flushed = false;
                        count.set(count.get() + written as u64);
                        moved.set(moved.get() + 1);
                        continue;
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Side::Writer)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            self.start = 0;
            if self.eof {
                match Pin::new(&mut *writer).poll_shutdown(task) {
                    Poll::Ready(Ok(())) => self.done = true,
                    Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::NotConnected => {
                        self.done = true;
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Side::Writer)),
                    Poll::Pending => return Poll::Pending,
                }
                continue;
            }
            match self.fill(task, reader) {
                Poll::Ready(Ok(())) => self.eof = self.buffer.is_empty(),
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Side::Reader)),
                Poll::Pending => {
                    self.buffer = Vec::new();
                    if !self.flushed {
                        match Pin::new(&mut *writer).poll_flush(task) {
                            Poll::Ready(Ok(())) => self.flushed = true,
                            Poll::Ready(Err(_)) => return Poll::Ready(Err(Side::Writer)),
                            Poll::Pending => {}
                        }
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn fill(
        &mut self,
        task: &mut Context<'_>,
        reader: &mut (impl AsyncRead + Unpin),
    ) -> Poll<io::Result<()>> {
        self.buffer.resize(BUFFER, 0);
        let mut space = ReadBuf::new(&mut self.buffer);
        let polled = Pin::new(reader).poll_read(task, &mut space);
        let filled = space.filled().len();
        self.buffer.truncate(if polled.is_ready() { filled } else { 0 });
        polled
    }
}
