//! One accepted connection: where it wanted to go, what it speaks, which chain takes it.

mod conn;
mod io;
mod look;

pub(crate) use conn::{Busy, Close, Conn};
pub(crate) use io::Io;

use super::http;
use super::record::Recorded;
use super::socket;
use super::stream::Stream;
use super::tcp;
use super::worker::{Accepted, Worker};
use crate::mesh::{Direction, Interception, Name, TransportProtocol};
use crate::snapshot::{ChainProtocol, ChainQuery, Http};
use bytes::BytesMut;
use filter_api::{ConnectionFacts, Protocol, Reason, Request};
use look::{look, read_proxy_header};
use std::cell::RefCell;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
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
    let unix = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    let direct_remote = peer.unwrap_or(unix);
    let mut local = stream.local_address().unwrap_or(unix);
    let mut remote = direct_remote;
    let mut first = BytesMut::new();
    if let Some(expected) = &bound.mesh.proxy_protocol {
        let believed = expected.from.iter().any(|net| net.contains(&direct_remote.ip().to_canonical()));
        match read_proxy_header(&mut stream, &mut first, believed).await {
            Ok(Some((source, destination))) => (remote, local) = (source, destination),
            Ok(None) => {}
            Err(why) => {
                return worker.refuse_connection(&bound, direct_remote, Reason::DownstreamProtocol, &why);
            }
        }
    }
    let original_destination = match bound.mesh.interception {
        None => None,
        Some(Interception::Tproxy) => Some(local),
        Some(Interception::Redirect) => match &stream {
            Stream::Tcp(stream) => socket::original_dst(stream).ok(),
            Stream::Unix(_) => None,
        },
    };
    if let Some(original) = original_destination {
        local = original;
        if bound.mesh.direction == Direction::Outbound && worker.is_own_address(original) {
            let why = format!("its destination {original} is this proxy itself");
            return worker.refuse_connection(&bound, direct_remote, Reason::Loop, &why);
        }
    }
    let listener = match original_destination {
        Some(original) if bound.mesh.hand_over => {
            worker.snapshot().hand_over(bound.mesh.direction, original).cloned().unwrap_or(bound)
        }
        _ => bound,
    };
    let seen = match look(&worker, &listener, &mut stream, first, original_destination, peer).await {
        Ok(seen) => seen,
        Err(why) => {
            return worker.refuse_connection(&listener, direct_remote, Reason::DownstreamClosed, &why);
        }
    };
    let transport =
        if seen.protocol == Protocol::Tls { TransportProtocol::Tls } else { TransportProtocol::RawBuffer };
    let facts = Arc::new(ConnectionFacts {
        listener: listener.mesh.name.clone(),
        remote,
        direct_remote,
        local,
        original_destination,
        protocol: seen.protocol,
        server_name: seen.server_name,
        tls: None,
    });
    let Some(chain) = listener.chain(&query(&facts, transport)).cloned() else {
        return worker.refuse_connection(
            &listener,
            direct_remote,
            Reason::NoRoute,
            "no filter chain takes it",
        );
    };
    let (conn, phase) = Conn::new(&worker, listener.mesh.direction, facts.protocol);
    let io = Io { stream, first: seen.bytes, phase, _accepted: accepted };
    let http1_or_2 = matches!(facts.protocol, Protocol::Http1 | Protocol::Http2);
    match &chain.protocol {
        ChainProtocol::Http(http) | ChainProtocol::Detect { http, .. } if http1_or_2 => {
            conn.set_limits(&http.mesh);
            let _registered = worker.register(&conn);
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
            tcp::serve(&worker, listener.mesh.direction, &facts, tcp, io).await;
        }
        ChainProtocol::Http(_) => {
            let why = format!("it speaks {}, and the port is declared HTTP", facts.protocol.as_str());
            worker.refuse_connection(&listener, direct_remote, Reason::DownstreamProtocol, &why);
        }
        ChainProtocol::Refuse => worker.refuse_connection(
            &listener,
            direct_remote,
            Reason::NoRoute,
            &format!("nothing is known of {local}, and outboundTrafficPolicy is REGISTRY_ONLY"),
        ),
    }
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
