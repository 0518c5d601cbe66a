//! The first bytes of a connection: a PROXY protocol header, and what it speaks.

use crate::mesh::TransportProtocol;
use crate::proxy::detect::{self, Detected, hello};
use crate::proxy::proxy_protocol;
use crate::proxy::stream::Stream;
use crate::proxy::worker::Worker;
use crate::snapshot::{ChainQuery, Listener, Needs};
use bytes::{Buf, Bytes, BytesMut};
use filter_api::Protocol;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// A peer that has to send a PROXY protocol header must do so within this time.
const PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// What the first bytes say.
pub(super) struct Seen {
    pub(super) bytes: Bytes,
    pub(super) protocol: Protocol,
    pub(super) server_name: Option<Arc<str>>,
}

/// Reads as many bytes as it takes to know the protocol, and none where it is declared to be plain TCP or the server speaks first.
pub(super) async fn look(
    worker: &Worker,
    listener: &Listener,
    stream: &mut Stream,
    mut bytes: BytesMut,
    destination: Option<SocketAddr>,
    peer: Option<SocketAddr>,
) -> Result<Seen, String> {
    let local = destination.or_else(|| stream.local_address());
    let needs = listener.needs(local);
    let tcp = |bytes: BytesMut| Seen { bytes: bytes.freeze(), protocol: Protocol::Tcp, server_name: None };
    // A declared HTTP port still says by its first bytes which HTTP; it is waited for as long as for any request.
    let declared = (needs == Needs::Nothing).then(|| {
        let source = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
        let transport = TransportProtocol::RawBuffer;
        let query = ChainQuery {
            destination: local,
            source,
            transport,
            server_name: None,
            application_protocol: None,
        };
        listener.chain(&query).and_then(|chain| chain.protocol.http())
    });
    let limit = match declared {
        Some(Some(http)) => http.mesh.idle_timeout,
        Some(None) => return Ok(tcp(bytes)),
        None if destination.is_some_and(|address| detect::server_first(address.port())) => {
            return Ok(tcp(bytes));
        }
        None => listener.mesh.detection_timeout,
    };
    let reading = async {
        loop {
            let protocol = match detect::classify(&bytes) {
                Detected::Tls if needs == Needs::ServerName => match hello::client_hello(&bytes) {
                    hello::Hello::NeedMore if bytes.len() < hello::MAX_HELLO => None,
                    hello::Hello::Parsed(hello) => {
                        return Ok((Protocol::Tls, hello.sni.map(|name| Arc::from(&*name))));
                    }
                    _ => Some(Protocol::Tls),
                },
                Detected::Tls => Some(Protocol::Tls),
                Detected::Http1 => Some(Protocol::Http1),
                Detected::Http2 => Some(Protocol::Http2),
                Detected::Unknown => Some(Protocol::Tcp),
                Detected::NeedMore => None,
            };
            if let Some(protocol) = protocol {
                return Ok((protocol, None));
            }
            bytes.reserve(1024);
            match stream.read_buf(&mut bytes).await {
                Ok(0) if bytes.is_empty() => return Err("it was closed before its first byte".to_owned()),
                // An end after some bytes of an unknown protocol is that protocol's own business.
                Ok(0) => return Ok((Protocol::Tcp, None)),
                Ok(_) => {}
                Err(error) => return Err(format!("it broke before its protocol was known: {error}")),
            }
        }
    };
    let found = if limit.is_zero() {
        reading.await
    } else {
        tokio::time::timeout(limit, reading).await.unwrap_or_else(|_| {
            worker.count_detection_timeout(&listener.mesh.name);
            Ok((Protocol::Tcp, None))
        })
    };
    let (protocol, server_name) = found?;
    Ok(Seen { bytes: bytes.freeze(), protocol, server_name })
}

/// Reads the header that a PROXY protocol peer sends first. Only peers on the list may send one.
pub(super) async fn read_proxy_header(
    stream: &mut Stream,
    bytes: &mut BytesMut,
    believed: bool,
) -> Result<Option<(SocketAddr, SocketAddr)>, String> {
    if !believed {
        return Err("the listener takes PROXY protocol, and this peer is not on its list".to_owned());
    }
    let reading = async {
        loop {
            match proxy_protocol::parse(bytes) {
                proxy_protocol::Parsed::Done { header, consumed } => {
                    bytes.advance(consumed);
                    return Ok(match header.addresses {
                        proxy_protocol::Addresses::Inet { source, destination } => {
                            Some((source, destination))
                        }
                        _ => None,
                    });
                }
                proxy_protocol::Parsed::Invalid(refusal) => return Err(refusal.to_string()),
                proxy_protocol::Parsed::NeedMore => {
                    bytes.reserve(512);
                    match stream.read_buf(bytes).await {
                        Ok(0) => return Err("it was closed within its PROXY protocol header".to_owned()),
                        Ok(_) => {}
                        Err(error) => return Err(error.to_string()),
                    }
                }
            }
        }
    };
    let late = Err(format!("no PROXY protocol header within {PROXY_HEADER_TIMEOUT:?}"));
    tokio::time::timeout(PROXY_HEADER_TIMEOUT, reading).await.unwrap_or(late)
}
