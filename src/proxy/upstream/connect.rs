//! Opening a connection to an endpoint.

use crate::mesh::{Cluster, EndpointAddress, ProxyProtocolVersion};
use crate::proxy::proxy_protocol::{self, Addresses};
use crate::proxy::socket::{self, ConnectOptions, Keepalive};
use crate::proxy::stream::{Socket, Stream};
use filter_api::{ConnectionFacts, Error, Reason};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

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

/// Connects within the cluster's connect timeout, sets the socket up, and writes the PROXY protocol header if the cluster wants one.
pub(crate) async fn connect(
    target: &Target,
    cluster: &Cluster,
    downstream: Option<&ConnectionFacts>,
) -> Result<Stream, Error> {
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
        Ok::<_, io::Error>(Stream::Plain(stream))
    };
    match tokio::time::timeout(limit, opening).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(Error::new(Reason::ConnectFailure).retry_safe().source(error)),
        Err(_) => Err(Error::new(Reason::ConnectTimeout)
            .retry_safe()
            .source(io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {limit:?}")))),
    }
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
