//! What a connection speaks, by its first bytes.

use super::conn::Phase;
use crate::mesh::TransportProtocol;
use crate::proxy::detect::{self, Detected, hello};
use crate::proxy::stream::Stream;
use crate::proxy::worker::Worker;
use crate::snapshot::{ChainQuery, Listener, Needs};
use bytes::{Bytes, BytesMut};
use filter_api::{Protocol, Reason};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// Why a connection is closed unserved.
pub(in crate::proxy) type Refusal = (Reason, String);

/// What the first bytes say.
pub(super) struct Seen {
    pub(super) bytes: Bytes,
    pub(super) protocol: Protocol,
    pub(super) server_name: Option<Arc<str>>,
    /// Application protocols that a ClientHello offers.
    pub(super) offered: Box<[Box<str>]>,
    /// They did not say it in time.
    pub(super) late: bool,
}

/// Reads as many bytes as it takes to know the protocol, and none where it is declared to be plain TCP or the server speaks first.
///
/// The time for that is limited: on a port that is declared HTTP a connection that does not say which HTTP in time is closed, since one that says
/// nothing costs its client nothing (slowloris); elsewhere it counts as bytes, as in Istio.
pub(super) async fn look(
    worker: &Worker,
    listener: &Listener,
    stream: &mut Stream,
    phase: &Phase,
    mut bytes: BytesMut,
    destination: Option<SocketAddr>,
    source: IpAddr,
) -> Result<Seen, Refusal> {
    let local = destination.or_else(|| stream.local_address());
    let needs = listener.needs(local);
    // A declared HTTP port still says by its first bytes which HTTP.
    let declared_http = || {
        let transport = TransportProtocol::RawBuffer;
        let query = ChainQuery {
            destination: local,
            source,
            transport,
            server_name: None,
            application_protocols: &[],
        };
        listener.chain(&query).is_some_and(|chain| chain.protocol.http().is_some())
    };
    let silent = match needs {
        Needs::Nothing => !declared_http(),
        // Where TLS may be ended the client speaks first, as in Istio: a server that does belongs behind STRICT or DISABLE.
        _ => {
            destination.is_some_and(|address| detect::server_first(address.port()))
                && !listener.ends_tls(local)
        }
    };
    if silent {
        let (bytes, protocol) = (bytes.freeze(), Protocol::Tcp);
        return Ok(Seen { bytes, protocol, server_name: None, offered: Box::default(), late: false });
    }
    let limit = match listener.mesh.detection_timeout {
        timeout if needs == Needs::Nothing || timeout.is_zero() => listener.mesh.handshake_timeout,
        timeout => timeout,
    };
    let reading = async {
        loop {
            if let Some(told) = tell(&bytes, needs) {
                return Ok(told);
            }
            match read(stream, phase, &mut bytes).await {
                Ok(0) if bytes.is_empty() => return Err("it was closed before its first byte".to_owned()),
                // An end after some bytes of an unknown protocol is that protocol's own business.
                Ok(0) => return Ok((Protocol::Tcp, None, Box::default())),
                Ok(_) => {}
                Err(error) => return Err(format!("it broke before its protocol was known: {error}")),
            }
        }
    };
    let found = if limit.is_zero() { Ok(reading.await) } else { tokio::time::timeout(limit, reading).await };
    let late = found.is_err();
    if late {
        worker.count_detection_timeout(&listener.mesh.name);
    }
    let (protocol, server_name, offered) = found
        .unwrap_or(Ok((Protocol::Tcp, None, Box::default())))
        .map_err(|why| (Reason::DownstreamClosed, why))?;
    Ok(Seen { bytes: bytes.freeze(), protocol, server_name, offered, late })
}

/// What is spoken within TLS, where no protocol was agreed on: HTTP, or bytes, also when nothing comes in time.
pub(super) async fn sniff(
    stream: &mut Stream,
    phase: &Phase,
    bytes: &mut BytesMut,
    limit: Duration,
) -> Result<Protocol, Refusal> {
    let reading = async {
        loop {
            if let Some((protocol, ..)) = tell(bytes, Needs::FirstBytes) {
                // TLS once more is the application's own.
                return Ok(if protocol == Protocol::Tls { Protocol::Tcp } else { protocol });
            }
            match read(stream, phase, bytes).await {
                Ok(0) => return Ok(Protocol::Tcp),
                Ok(_) => {}
                Err(error) => {
                    return Err((
                        Reason::DownstreamClosed,
                        format!("it broke before its protocol was known: {error}"),
                    ));
                }
            }
        }
    };
    if limit.is_zero() {
        return reading.await;
    }
    tokio::time::timeout(limit, reading).await.unwrap_or(Ok(Protocol::Tcp))
}

/// Reads some more of the first bytes.
pub(super) async fn read(stream: &mut Stream, phase: &Phase, bytes: &mut BytesMut) -> io::Result<usize> {
    bytes.reserve(1024);
    let count = stream.read_buf(bytes).await?;
    phase.read();
    Ok(count)
}

/// Protocol, server name, application protocols.
type Told = (Protocol, Option<Arc<str>>, Box<[Box<str>]>);

/// What is needed of the first bytes, once the bytes tell what is needed of them.
fn tell(bytes: &[u8], needs: Needs) -> Option<Told> {
    let protocol = match detect::classify(bytes) {
        Detected::Tls if needs == Needs::Hello => match hello::client_hello(bytes) {
            hello::Hello::NeedMore if bytes.len() < hello::MAX_HELLO => return None,
            hello::Hello::Parsed(hello) => {
                let offered =
                    hello.alpn.iter().filter_map(|name| std::str::from_utf8(name).ok().map(Box::from));
                return Some((Protocol::Tls, hello.sni.map(|name| Arc::from(&*name)), offered.collect()));
            }
            _ => Protocol::Tls,
        },
        Detected::Tls => Protocol::Tls,
        Detected::Http1 => Protocol::Http1,
        Detected::Http2 => Protocol::Http2,
        Detected::Unknown => Protocol::Tcp,
        Detected::NeedMore => return None,
    };
    Some((protocol, None, Box::default()))
}
