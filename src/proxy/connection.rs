//! One accepted connection: where it wanted to go, what it speaks, which chain takes it.

mod arrival;
mod conn;
mod io;
mod look;
mod streams;

pub(crate) use conn::{Busy, Close, Conn};
pub(crate) use io::Io;
pub(crate) use streams::StreamExecutor;

use super::http;
use super::record::Recorded;
use super::stream::Stream;
use super::tcp;
use super::worker::{Accepted, Worker};
use crate::mesh::{Name, TransportProtocol};
use crate::snapshot::{ChainProtocol, ChainQuery, Http, Listener};
use arrival::Arrival;
use bytes::BytesMut;
use filter_api::{ConnectionFacts, Protocol, Reason, Request};
use look::{Seen, look};
use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

/// What is known of a downstream connection while it lives.
pub(crate) struct Downstream {
    pub(crate) worker: Rc<Worker>,
    pub(crate) facts: Arc<ConnectionFacts>,
    pub(crate) conn: Rc<Conn>,
    listener: Name,
    transport: TransportProtocol,
    http: RefCell<(u64, Arc<Http>)>,
}

impl Downstream {
    /// The chain's HTTP settings as the newest snapshot has them. A chain that is gone serves its last requests as it was, and closes.
    pub(crate) fn http(&self) -> Arc<Http> {
        self.look();
        self.http.borrow().1.clone()
    }

    /// Follows the newest snapshot. Cheap when there is none since the last look.
    pub(super) fn look(&self) {
        let snapshot = self.worker.snapshot();
        let mut known = self.http.borrow_mut();
        if known.0 != snapshot.generation {
            known.0 = snapshot.generation;
            let listener = snapshot.listener(&self.listener);
            let chain = listener.and_then(|listener| listener.chain(&query(&self.facts, self.transport)));
            match chain.map(|chain| &chain.protocol) {
                Some(ChainProtocol::Http(http) | ChainProtocol::Detect { http, .. }) => {
                    known.1 = http.clone();
                }
                _ => self.conn.close(Close::Graceful),
            }
        }
    }
}

/// Serves an accepted connection until it ends.
///
/// The worker knows of it from here on, so that a drain ends it and waits for it, whatever it waits for itself.
pub(super) async fn serve<S>(
    worker: Rc<Worker>,
    listener: Name,
    mut stream: Stream,
    accepted: Accepted,
    peer: Option<SocketAddr>,
    stack: S,
) where
    S: tower::Service<Request, Response = ::http::Response<Recorded>, Error = Infallible, Future: 'static>
        + Clone
        + 'static,
{
    let bound = worker.snapshot().listener(&listener).cloned();
    let Some(bound) = bound else { return };
    let conn = Conn::new(&worker, bound.mesh.direction);
    let registered = worker.register(&conn);
    let mut arrival = Arrival::new(&stream, peer);
    let opening = open(&worker, &bound, &mut stream, &conn, &mut arrival);
    let Some(opened) = conn.unless_closed(opening).await else { return };
    let refuse = |listener: &Listener, (reason, why): (Reason, String)| {
        worker.refuse_connection(listener, arrival.direct_remote, reason, &why);
    };
    let (listener, seen) = match opened {
        Ok(opened) => opened,
        Err(refusal) => return refuse(&bound, refusal),
    };
    let transport =
        if seen.protocol == Protocol::Tls { TransportProtocol::Tls } else { TransportProtocol::RawBuffer };
    let facts = Arc::new(ConnectionFacts {
        listener: listener.mesh.name.clone(),
        remote: arrival.remote,
        direct_remote: arrival.direct_remote,
        local: arrival.local,
        original_destination: arrival.original_destination,
        protocol: seen.protocol,
        server_name: seen.server_name,
        tls: None,
    });
    let Some(chain) = listener.chain(&query(&facts, transport)).cloned() else {
        return refuse(&listener, (Reason::NoRoute, "no filter chain takes it".to_owned()));
    };
    let io = Io { stream, first: seen.bytes, phase: conn.phase().clone(), _accepted: accepted };
    let http1_or_2 = matches!(facts.protocol, Protocol::Http1 | Protocol::Http2);
    match &chain.protocol {
        ChainProtocol::Http(http) | ChainProtocol::Detect { http, .. } if http1_or_2 => {
            conn.begin_http(facts.protocol, &http.mesh);
            let generation = worker.snapshot().generation;
            let downstream = Downstream {
                conn,
                facts,
                listener: listener.mesh.name.clone(),
                transport,
                http: RefCell::new((generation, http.clone())),
                worker,
            };
            http::serve(Rc::new(downstream), stack, io).await;
        }
        ChainProtocol::Tcp(tcp) | ChainProtocol::Detect { tcp, .. } => {
            let tunnel = worker.open_tunnel(conn.direction());
            drop(registered);
            let mut facts = facts;
            if http1_or_2 {
                // Bytes that look like HTTP are bytes here: filters leave HTTP to its requests, and there will be none.
                Arc::make_mut(&mut facts).protocol = Protocol::Tcp;
            }
            tcp::serve(&worker, &tunnel, &facts, tcp, io).await;
        }
        ChainProtocol::Http(_) if seen.late => {
            let why = "what it speaks did not show in time, and the port is declared HTTP";
            refuse(&listener, (Reason::DownstreamTimeout, why.to_owned()));
        }
        ChainProtocol::Http(_) => {
            let why = format!("it speaks {}, and the port is declared HTTP", facts.protocol.as_str());
            refuse(&listener, (Reason::DownstreamProtocol, why));
        }
        ChainProtocol::Refuse => {
            let to = arrival.local;
            let why = format!("nothing is known of {to}, and outboundTrafficPolicy is REGISTRY_ONLY");
            refuse(&listener, (Reason::NoRoute, why));
        }
    }
}

/// What comes before a chain can be picked: the addresses, and the first bytes.
async fn open(
    worker: &Worker,
    bound: &Arc<Listener>,
    stream: &mut Stream,
    conn: &Conn,
    arrival: &mut Arrival,
) -> Result<(Arc<Listener>, Seen), (Reason, String)> {
    let phase = conn.phase();
    let mut first = BytesMut::new();
    arrival.complete(worker, bound, stream, phase, &mut first).await?;
    let original = arrival.original_destination;
    // Found again after the first bytes, which take their time: a chain that is gone by then must not take the connection.
    let find = || {
        let snapshot = worker.snapshot();
        match original {
            Some(original) if bound.mesh.hand_over => snapshot.hand_over(bound.mesh.direction, original),
            _ => None,
        }
        .or_else(|| snapshot.listener(&bound.mesh.name))
        .unwrap_or(bound)
        .clone()
    };
    let listener = find();
    let source = arrival.remote.ip();
    let seen = look(worker, &listener, stream, phase, first, original, source).await?;
    Ok((find(), seen))
}

fn query(facts: &ConnectionFacts, transport: TransportProtocol) -> ChainQuery<'_> {
    ChainQuery {
        destination: facts.original_destination.or(Some(facts.local)),
        source: facts.remote.ip(),
        transport,
        server_name: facts.server_name.as_deref(),
        application_protocol: match facts.protocol {
            Protocol::Http1 => Some("http/1.1"),
            Protocol::Http2 => Some("h2c"),
            Protocol::Tls | Protocol::Tcp => None,
        },
    }
}
