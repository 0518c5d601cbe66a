//! One accepted connection: where it wanted to go, what it speaks, which chain takes it.

mod arrival;
mod conn;
mod door;
mod frames;
mod io;
mod look;
mod streams;

pub(crate) use conn::{Busy, Close, Conn};
pub(crate) use door::Door;
pub(crate) use io::Io;
pub(crate) use streams::StreamExecutor;

use super::audit;
use super::http;
use super::record::Recorded;
use super::stream::Stream;
use super::tcp;
use super::tls;
use super::worker::{Accepted, Worker};
use crate::mesh::{DownstreamTls, Name, TransportProtocol};
use crate::snapshot::{Chain, ChainProtocol, Http, Listener};
use arrival::Arrival;
use bytes::{Bytes, BytesMut};
use door::{Transport, asks_the_same};
use filter_api::{ConnectionFacts, Protocol, Reason, Request, TlsFacts};
pub(super) use look::Refusal;
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
    door: Rc<Door>,
    http: RefCell<(u64, Arc<Http>)>,
    /// Why no request of this connection is served any more.
    refusal: RefCell<Option<Name>>,
}

impl Downstream {
    /// The chain's HTTP settings as the newest snapshot has them. A chain that is gone serves its last requests as it was, and closes.
    pub(crate) fn http(&self) -> Arc<Http> {
        self.look();
        self.http.borrow().1.clone()
    }

    /// Why no request is served any more: plain text where mutual TLS is required since, a client that is not believed any more.
    pub(crate) fn refusal(&self) -> Option<Name> {
        self.refusal.borrow().clone()
    }

    fn refuse(&self, why: Name) {
        *self.refusal.borrow_mut() = Some(why);
        self.conn.close(Close::Graceful);
    }

    /// Follows the newest snapshot, and whom we believe. Cheap when neither is new since the last look.
    pub(super) fn look(&self) {
        let snapshot = self.worker.snapshot();
        let mut known = self.http.borrow_mut();
        if known.0 != snapshot.generation {
            known.0 = snapshot.generation;
            let listener = self.door.listener(&snapshot);
            let chain = listener.and_then(|listener| self.door.chain(listener));
            // Who came without TLS, or had to prove something else than today, has to come again.
            let same_door = chain.filter(|chain| self.door.is_as_at(chain));
            same_door.into_iter().for_each(|chain| self.door.follow(chain));
            match chain.map(|chain| &chain.protocol) {
                Some(ChainProtocol::Refuse(why)) => self.refuse(why.clone()),
                Some(_) if same_door.is_none() => {
                    self.refuse("clients have to prove something else since".into());
                }
                Some(ChainProtocol::Http(http) | ChainProtocol::Detect { http, .. }) => {
                    known.1 = http.clone();
                }
                _ => self.conn.close(Close::Graceful),
            }
        }
        if self.refusal.borrow().is_none()
            && let Err(why) = self.door.believes(&self.worker)
        {
            self.refuse(why);
        }
    }
}

/// Remembers that a connection is one too many.
pub(super) fn refuse(worker: &Worker, listener: &Name, stream: &Stream, peer: Option<SocketAddr>) {
    let arrival = Arrival::new(stream, peer);
    if let Some(listener) = worker.snapshot().listener(listener) {
        let why = "there are as many connections as limits.maxConnections allows";
        worker.note_unserved(listener, (arrival.direct_remote, arrival.local), Reason::Overload, why);
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
        worker.refuse_connection(listener, (arrival.direct_remote, arrival.local), reason, &why);
        audit::turned_away(&worker, listener, (reason, &why), || ConnectionFacts {
            listener: listener.mesh.name.clone(),
            remote: arrival.remote,
            direct_remote: arrival.direct_remote,
            local: arrival.local,
            original_destination: arrival.original_destination,
            protocol: Protocol::Tcp,
            server_name: None,
            tls: None,
        });
    };
    let (listener, seen) = match opened {
        Ok(opened) => opened,
        Err(refusal) => return refuse(&bound, refusal),
    };
    let encrypted = seen.protocol == Protocol::Tls;
    let protocol = if encrypted { TransportProtocol::Tls } else { TransportProtocol::RawBuffer };
    let transport = Transport { protocol, offered: seen.offered, first: seen.protocol };
    let mut facts = ConnectionFacts {
        listener: listener.mesh.name.clone(),
        remote: arrival.remote,
        direct_remote: arrival.direct_remote,
        local: arrival.local,
        original_destination: arrival.original_destination,
        protocol: seen.protocol,
        server_name: seen.server_name,
        tls: None,
    };
    // Read before the chain is picked: whatever changes from here on is noticed, also while the handshake takes its time.
    let generation = worker.snapshot().generation;
    let epoch = worker.keyring().epoch().number();
    let Some(mut chain) = transport.chain(&listener, &facts).cloned() else {
        return refuse(&listener, (Reason::NoRoute, "no filter chain takes it".to_owned()));
    };
    let mut first = seen.bytes;
    let ended_by = chain.mesh.tls.clone();
    if let (Some(settings), Stream::Plain(_)) = (&ended_by, &stream) {
        let ending = end_tls(&worker, &listener, &chain, settings, (stream, first), &conn);
        let Some(ended) = conn.unless_closed(ending).await else { return };
        let within = match ended {
            Ok(ended) => ended,
            Err(refusal) => return refuse(&listener, refusal),
        };
        (stream, first) = (within.stream, within.first);
        (facts.protocol, facts.tls) = (within.protocol, Some(within.tls));
        facts.server_name = facts.server_name.or(within.server_name);
        if worker.snapshot().generation != generation {
            let now = worker.snapshot().listener(&listener.mesh.name).cloned();
            let found = now.as_ref().and_then(|listener| transport.chain(listener, &facts)).cloned();
            match found {
                Some(found) if asks_the_same(found.mesh.tls.as_deref(), Some(settings)) => chain = found,
                _ => {
                    let why = "the configuration changed during its TLS handshake";
                    return refuse(&listener, (Reason::ConnectionRefused, why.to_owned()));
                }
            }
        }
    }
    let http1_or_2 = matches!(facts.protocol, Protocol::Http1 | Protocol::Http2);
    if http1_or_2 && chain.protocol.http().is_none() {
        // Bytes that look like HTTP are bytes here: filters leave HTTP to its requests, and there will be none.
        facts.protocol = Protocol::Tcp;
    }
    let facts = Arc::new(facts);
    let door = Door::new(listener.mesh.name.clone(), facts.clone(), transport, chain.mesh.tls.clone(), epoch);
    if let Err(why) = door.believes(&worker) {
        return refuse(&listener, (Reason::DownstreamTls, why.to_string()));
    }
    let door = Rc::new(door);
    let frames = (facts.protocol == Protocol::Http2).then(Box::default);
    let io = Io { stream, first, phase: conn.phase().clone(), frames, _accepted: accepted };
    match &chain.protocol {
        ChainProtocol::Http(http) | ChainProtocol::Detect { http, .. } if http1_or_2 => {
            conn.begin_http(facts.protocol, &http.mesh);
            conn.came_by(&door);
            let downstream = Downstream {
                conn,
                facts,
                door,
                http: RefCell::new((generation, http.clone())),
                refusal: RefCell::default(),
                worker,
            };
            http::serve(Rc::new(downstream), stack, io).await;
        }
        ChainProtocol::Tcp(tcp) | ChainProtocol::Detect { tcp, .. } => {
            let tunnel = worker.open_tunnel(conn.direction(), Some(door));
            drop(registered);
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
        ChainProtocol::Refuse(why) => {
            refuse(&listener, (Reason::NoRoute, format!("{}: {why}", arrival.local)));
        }
    }
}

/// What is known once TLS was ended.
struct Within {
    stream: Stream,
    first: Bytes,
    protocol: Protocol,
    tls: TlsFacts,
    server_name: Option<Arc<str>>,
}

/// Ends TLS, and learns what is spoken within: by the protocol that was agreed on, else by the first bytes, where the chain speaks HTTP.
async fn end_tls(
    worker: &Worker,
    listener: &Listener,
    chain: &Chain,
    settings: &DownstreamTls,
    (stream, first): (Stream, Bytes),
    conn: &Conn,
) -> Result<Within, Refusal> {
    let Stream::Plain(socket) = stream else {
        return Err((Reason::Internal, "TLS within TLS".to_owned()));
    };
    let limit = listener.mesh.handshake_timeout;
    let (mut stream, tls, server_name) =
        tls::accept(worker.keyring(), settings, socket, first, limit).await?;
    let mut bytes = BytesMut::new();
    let protocol = match tls.alpn.as_deref() {
        _ if chain.protocol.http().is_none() => Protocol::Tcp,
        Some("h2") => Protocol::Http2,
        Some("http/1.1" | "http/1.0") => Protocol::Http1,
        _ => {
            // A server that speaks first is not waited for longer than the port says.
            let patience =
                Some(listener.mesh.detection_timeout).filter(|time| !time.is_zero()).unwrap_or(limit);
            look::sniff(&mut stream, conn.phase(), &mut bytes, patience).await?
        }
    };
    Ok(Within { stream, first: bytes.freeze(), protocol, tls, server_name })
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
