//! Opening a connection to an endpoint.

use crate::identity::{self, ClientTls, Keyring, Within};
use crate::mesh::{Cluster, EndpointAddress, ProxyProtocolVersion, UpstreamTls};
use crate::proxy::cluster::Picked;
use crate::proxy::proxy_protocol::{self, Addresses};
use crate::proxy::socket::{self, ConnectOptions, Keepalive};
use crate::proxy::stream::{Socket, Stream};
use filter_api::{ConnectionFacts, Error, Reason};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;

/// Where a connection goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    Socket(SocketAddr),
    Unix(Box<Path>),
}

impl Target {
    /// The target of a resolved endpoint. `None` for a name: its cluster's discovery has to resolve it first.
    pub(crate) fn of(address: &EndpointAddress) -> Option<Self> {
        match address {
            EndpointAddress::Socket(address) => Some(Self::Socket(*address)),
            EndpointAddress::Unix(path) => Some(Self::Unix(path.as_path().into())),
            EndpointAddress::Name(..) => None,
        }
    }

    /// The address for logs; `None` for a Unix socket.
    pub(crate) fn socket(&self) -> Option<SocketAddr> {
        match self {
            Self::Socket(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

/// Where a connection goes, and in which way.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) target: Target,
    /// TLS towards it.
    pub(crate) tls: Option<Arc<UpstreamTls>>,
}

impl Way {
    /// The way to what was picked.
    pub(crate) fn to(picked: &Picked) -> Self {
        Self { target: picked.target.clone(), tls: picked.tls.clone() }
    }
}

/// Connects within the cluster's connect timeout, sets the socket up, writes the PROXY protocol header if the cluster wants one, and speaks TLS as
/// it asks for.
pub(crate) async fn connect(
    keyring: &Keyring,
    way: &Way,
    within: Within,
    cluster: &Cluster,
    downstream: Option<&ConnectionFacts>,
) -> Result<Stream, Error> {
    let target = &way.target;
    let limit = cluster.pool.connect_timeout;
    let opening = async {
        let mut stream = match target {
            Target::Socket(address) => {
                let stream = socket::connect(*address, &options(cluster)).await?;
                Socket::Tcp(stream)
            }
            Target::Unix(path) => Socket::Unix(UnixStream::connect(path).await?),
        };
        if let (Some(version), Some(downstream)) = (cluster.proxy_protocol, downstream) {
            let addresses = Addresses::Inet { source: downstream.remote, destination: downstream.local };
            let mut header = Vec::with_capacity(128);
            match version {
                ProxyProtocolVersion::V1 => proxy_protocol::write_v1(&mut header, &addresses),
                ProxyProtocolVersion::V2 => proxy_protocol::write_v2(&mut header, &addresses),
            }
            stream.write_all(&header).await?;
        }
        match &way.tls {
            Some(settings) => begin_tls(keyring, settings, within, cluster, target, stream).await,
            None => Ok(Stream::Plain(stream)),
        }
    };
    match tokio::time::timeout(limit, opening).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(Error::new(Reason::ConnectFailure).retry_safe().source(error)),
        Err(_) => Err(Error::new(Reason::ConnectTimeout)
            .retry_safe()
            .source(io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {limit:?}")))),
    }
}

async fn begin_tls(
    keyring: &Keyring,
    settings: &UpstreamTls,
    within: Within,
    cluster: &Cluster,
    target: &Target,
    socket: Socket,
) -> io::Result<Stream> {
    let failed = |why: String| io::Error::other(format!("TLS: {why}"));
    let client = keyring.client(settings, within).map_err(|error| failed(error.to_string()))?;
    let address = target.socket().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip());
    // Without a name of its own, a server outside of the mesh is asked for as its clients do: by the host of the service.
    let host = || Some(&*cluster.service.host).filter(|host| !host.is_empty() && !host.starts_with('*'));
    let asked = ClientTls::server_name(settings.sni.as_deref().or_else(host), address)
        .map_err(|error| failed(error.to_string()))?;
    let connector = TlsConnector::from(client.config().clone());
    let handshake = connector.connect(asked.clone(), socket).await;
    let tls = handshake.map_err(|error| failed(identity::explain(&error)))?;
    client.facts(tls.get_ref().1, &asked).map_err(|why| failed(format!("the server was refused: {why}")))?;
    Ok(Stream::Begun(Box::new(tls)))
}

fn options(cluster: &Cluster) -> ConnectOptions {
    // What the kernel's own defaults are, where the author names only one of the three (tcp(7)).
    let keepalive = cluster.pool.keepalive.as_ref().map(|keepalive| Keepalive {
        time: keepalive.time.unwrap_or(Duration::from_secs(7200)),
        interval: keepalive.interval.unwrap_or(Duration::from_secs(75)),
        probes: keepalive.probes.unwrap_or(9),
    });
    let source = cluster.source_address.map(|address| SocketAddr::new(address, 0));
    ConnectOptions { source, keepalive, ..ConnectOptions::default() }
}
