//! Who connected, and where to: the addresses of a connection, before anything is known of what it speaks.

use super::conn::Phase;
use super::look::{self, Refusal};
use crate::mesh::{Direction, Interception};
use crate::proxy::proxy_protocol::{self, Addresses, Parsed};
use crate::proxy::socket;
use crate::proxy::stream::Stream;
use crate::proxy::worker::Worker;
use crate::snapshot::Listener;
use bytes::{Buf, BytesMut};
use filter_api::Reason;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// The addresses of a connection.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    /// The peer, as PROXY protocol or the kernel says.
    pub(super) remote: SocketAddr,
    /// The peer of the socket itself.
    pub(super) direct_remote: SocketAddr,
    /// Our end, the original destination for captured connections.
    pub(super) local: SocketAddr,
    pub(super) original_destination: Option<SocketAddr>,
}

impl Arrival {
    /// As far as the socket itself tells. A Unix socket's peer has no address; it is on this machine.
    pub(super) fn new(stream: &Stream, peer: Option<SocketAddr>) -> Self {
        let unix = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        let remote = peer.unwrap_or(unix);
        let local = stream.local_address().unwrap_or(unix);
        Self { remote, direct_remote: remote, local, original_destination: None }
    }

    /// Reads the PROXY protocol header that the listener asks for, and the original destination of a captured connection.
    pub(super) async fn complete(
        &mut self,
        worker: &Worker,
        listener: &Listener,
        stream: &mut Stream,
        phase: &Phase,
        first: &mut BytesMut,
    ) -> Result<(), Refusal> {
        if let Some(expected) = &listener.mesh.proxy_protocol {
            let peer = self.direct_remote.ip().to_canonical();
            if !expected.from.iter().any(|net| net.contains(&peer)) {
                let why = "the listener takes PROXY protocol, and this peer is not on its list";
                return Err((Reason::DownstreamProtocol, why.to_owned()));
            }
            if let Some((source, destination)) =
                read_proxy_header(stream, phase, first, listener.mesh.handshake_timeout).await?
            {
                (self.remote, self.local) = (source, destination);
            }
        }
        self.original_destination = match listener.mesh.interception {
            None => None,
            Some(Interception::Tproxy) => Some(self.local),
            Some(Interception::Redirect) => match stream {
                Stream::Tcp(stream) => socket::original_dst(stream).ok(),
                Stream::Unix(_) => None,
            },
        };
        if let Some(original) = self.original_destination {
            self.local = original;
            if listener.mesh.direction == Direction::Outbound && worker.is_own_address(original) {
                return Err((Reason::Loop, format!("its destination {original} is this proxy itself")));
            }
        }
        Ok(())
    }
}

/// Reads the header that a PROXY protocol peer sends first, within `limit`; zero: for ever.
async fn read_proxy_header(
    stream: &mut Stream,
    phase: &Phase,
    bytes: &mut BytesMut,
    limit: Duration,
) -> Result<Option<(SocketAddr, SocketAddr)>, Refusal> {
    let broken = |why: String| (Reason::DownstreamProtocol, why);
    let reading = async {
        loop {
            match proxy_protocol::parse(bytes) {
                Parsed::Done { header, consumed } => {
                    bytes.advance(consumed);
                    return Ok(match header.addresses {
                        Addresses::Inet { source, destination } => Some((source, destination)),
                        _ => None,
                    });
                }
                Parsed::Invalid(refusal) => return Err(broken(refusal.to_string())),
                Parsed::NeedMore => match look::read(stream, phase, bytes).await {
                    Ok(0) => return Err(broken("it was closed within its PROXY protocol header".to_owned())),
                    Ok(_) => {}
                    Err(error) => return Err(broken(error.to_string())),
                },
            }
        }
    };
    if limit.is_zero() {
        return reading.await;
    }
    let late = || (Reason::DownstreamTimeout, format!("no PROXY protocol header within {limit:?}"));
    tokio::time::timeout(limit, reading).await.unwrap_or_else(|_| Err(late()))
}
