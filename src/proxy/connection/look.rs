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
use tokio::io::AsyncReadExt;

/// Why a connection is closed unserved.
pub(super) type Refusal = (Reason, String);

/// What the first bytes say.
pub(super) struct Seen {
    pub(super) bytes: Bytes,
    pub(super) protocol: Protocol,
    pub(super) server_name: Option<Arc<str>>,
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
            application_protocol: None,
        };
        listener.chain(&query).is_some_and(|chain| chain.protocol.http().is_some())
    };
    let silent = match needs {
        Needs::Nothing => !declared_http(),
        _ => destination.is_some_and(|address| detect::server_first(address.port())),
    };
    if silent {
        let (bytes, protocol) = (bytes.freeze(), Protocol::Tcp);
        return Ok(Seen { bytes, protocol, server_name: None, late: false });
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
                Ok(0) => return Ok((Protocol::Tcp, None)),
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
    let (protocol, server_name) =
        found.unwrap_or(Ok((Protocol::Tcp, None))).map_err(|why| (Reason::DownstreamClosed, why))?;
    Ok(Seen { bytes: bytes.freeze(), protocol, server_name, late })
}

/// Reads some more of the first bytes.
pub(super) async fn read(stream: &mut Stream, phase: &Phase, bytes: &mut BytesMut) -> io::Result<usize> {
    bytes.reserve(1024);
    let count = stream.read_buf(bytes).await?;
    phase.read();
    Ok(count)
}

/// The protocol and the server name, once the bytes tell what is needed of them.
fn tell(bytes: &[u8], needs: Needs) -> Option<(Protocol, Option<Arc<str>>)> {
    let protocol = match detect::classify(bytes) {
        Detected::Tls if needs == Needs::ServerName => match hello::client_hello(bytes) {
            hello::Hello::NeedMore if bytes.len() < hello::MAX_HELLO => return None,
            hello::Hello::Parsed(hello) => {
                return Some((Protocol::Tls, hello.sni.map(|name| Arc::from(&*name))));
            }
            _ => Protocol::Tls,
        },
        Detected::Tls => Protocol::Tls,
        Detected::Http1 => Protocol::Http1,
        Detected::Http2 => Protocol::Http2,
        Detected::Unknown => Protocol::Tcp,
        Detected::NeedMore => return None,
    };
    Some((protocol, None))
}
