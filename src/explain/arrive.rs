//! Where a question arrives: the listener, and the chain that takes the connection.

use super::question::{Question, Tls};
use crate::mesh::{Address, ClientCertificate, Direction, Origin, TransportProtocol};
use crate::proxy::authority::{Authority, request_authority};
use crate::proxy::canonicalise;
use crate::snapshot::{Chain, ChainProtocol, ChainQuery, Http, Listener, Miss, Snapshot};
use filter_api::NoTrace;
use http::request::Parts;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// What becomes of the connection.
pub(super) enum Arrival {
    /// It speaks HTTP; whether TLS is ended here, so that the client may have proved who it is.
    Taken(Arc<Listener>, Arc<Http>, bool),
    /// It is closed.
    Refused { listener: Arc<Listener>, why: String, hint: &'static str, origin: Origin },
    /// It is passed on unopened: nobody sees a request.
    Passed(Arc<Listener>),
    /// There is no listener for it.
    Nowhere,
}

/// The listener and chain that a client of this question meets: of those of the right direction the one that knows the host, and of these the
/// one of the port.
pub(super) fn arrive(snapshot: &Snapshot, question: &Question, head: &Parts) -> Arrival {
    let mut best: Option<(u8, Arrival)> = None;
    for listener in snapshot.listeners() {
        let wanted = match listener.mesh.direction {
            Direction::Inbound => question.is_inbound(),
            Direction::Outbound | Direction::Gateway => !question.is_inbound(),
        };
        let own_port = ports(listener).any(|port| port == question.port());
        // One that is not bound takes over the connections to its own port alone.
        if !wanted || (!listener.mesh.bound && !own_port) {
            continue;
        }
        let Some(arrival) = at(listener, question) else { continue };
        let rank = match &arrival {
            Arrival::Taken(_, http, _) => u8::from(!knows(http, question, head)) * 2 + u8::from(!own_port),
            _ => 4 + u8::from(!own_port),
        };
        if best.as_ref().is_none_or(|(other, _)| rank < *other) {
            best = Some((rank, arrival));
        }
    }
    best.map_or(Arrival::Nowhere, |(_, arrival)| arrival)
}

/// The authority of a head that is canonical.
pub(super) fn authority(head: &Parts) -> Option<Authority<'_>> {
    request_authority(head.version, &head.method, &head.uri, &head.headers).ok().flatten()
}

/// Where the client connects to.
pub(super) fn destination(question: &Question) -> SocketAddr {
    SocketAddr::new(question.ip().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), question.port())
}

/// What a listener does with the connection.
fn at(listener: &Arc<Listener>, question: &Question) -> Option<Arrival> {
    let captured = listener.mesh.interception.is_some() || !listener.mesh.bound;
    let plain = ChainQuery {
        destination: captured.then(|| destination(question)).or_else(|| first_address(listener)),
        source: question.peer(),
        transport: TransportProtocol::RawBuffer,
        server_name: None,
        application_protocols: &["http/1.1"],
    };
    // A client of a gateway asks for its host; sidecars ask each other by application protocol.
    let gateway = listener.mesh.direction == Direction::Gateway;
    let server_name = gateway.then(|| question.host());
    let secure = ChainQuery { transport: TransportProtocol::Tls, server_name, ..plain };
    let mutual = if gateway { secure } else { ChainQuery { application_protocols: &["istio"], ..secure } };
    let chain = match question.tls() {
        Some(Tls::None) => listener.chain(&plain),
        Some(Tls::Simple) => listener.chain(&secure),
        // The local application, and whoever calls a port that takes no TLS.
        Some(Tls::Mutual) | None => {
            let ended = listener.chain(&mutual).filter(|chain| chain.mesh.tls.is_some());
            ended.or_else(|| listener.chain(&plain))
        }
    }?;
    Some(taken(listener, chain, question))
}

fn taken(listener: &Arc<Listener>, chain: &Chain, question: &Question) -> Arrival {
    let listener = listener.clone();
    let refused = |why: String, hint, origin: &Origin| Arrival::Refused {
        listener: listener.clone(),
        why,
        hint,
        origin: origin.clone(),
    };
    if let ChainProtocol::Refuse(why) = &chain.protocol {
        let hint = "call through a sidecar with a certificate, or relax the PeerAuthentication";
        return refused(why.to_string(), hint, &chain.origin);
    }
    let asks = chain.mesh.tls.as_ref().map(|tls| &tls.client);
    if question.tls() == Some(Tls::Simple) && matches!(asks, Some(ClientCertificate::Required(_))) {
        let why = "the handshake fails: a certificate of the client is required, and it has none";
        return refused(why.to_owned(), "ask with `--principal`, as a workload of the mesh", &chain.origin);
    }
    match chain.protocol.http() {
        // TLS that is not ended here is bytes, whatever is in it.
        Some(_) if question.tls() == Some(Tls::Simple) && asks.is_none() => Arrival::Passed(listener),
        Some(http) => Arrival::Taken(listener, http.clone(), asks.is_some()),
        None if chain.protocol.tcp().is_some() => Arrival::Passed(listener),
        None => Arrival::Nowhere,
    }
}

/// Whether the routes know the host of the question.
fn knows(http: &Http, question: &Question, head: &Parts) -> bool {
    let mut canonical = head.clone();
    canonicalise(&http.mesh, &mut canonical, question.peer()).is_ok()
        && authority(&canonical).is_some_and(|authority| {
            let found = http.routes.select(&authority.host, authority.port, &canonical, &mut NoTrace);
            !matches!(found, Err(Miss::Host))
        })
}

fn ports(listener: &Listener) -> impl Iterator<Item = u16> {
    listener.mesh.addresses.iter().filter_map(|address| match address {
        Address::Socket(address) => Some(address.port()),
        Address::Unix(_) => None,
    })
}

fn first_address(listener: &Listener) -> Option<SocketAddr> {
    listener.mesh.addresses.iter().find_map(|address| match address {
        Address::Socket(address) => Some(*address),
        Address::Unix(_) => None,
    })
}
