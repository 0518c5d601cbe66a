//! Sockets as the data path needs them: listening, connecting, and asking where a connection was going before
//! it was intercepted.

mod accept;
mod address;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpSocket, TcpStream};

pub use accept::AcceptBackoff;
pub use address::{Address, AddressError};

/// When a silent connection is probed: `tcpKeepalive` of Istio's `ConnectionPoolSettings`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Keepalive {
    /// How long a connection is silent before the first probe; whole seconds count.
    pub time: Duration,
    /// How long to wait between probes; whole seconds count.
    pub interval: Duration,
    /// After how many unanswered probes a connection is dead.
    pub probes: u32,
}

/// How to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenOptions {
    /// Connections that may wait to be accepted. The kernel lowers it to `net.core.somaxconn`.
    pub backlog: i32,
    /// `SO_REUSEPORT`: each worker has a socket of its own on the one port, and the kernel shares out.
    pub reuse_port: bool,
    /// `IP_TRANSPARENT`: accept connections to foreign addresses, as TPROXY delivers them. Needs
    /// `CAP_NET_ADMIN`.
    pub transparent: bool,
    /// For the accepted connections, which inherit it.
    pub keepalive: Option<Keepalive>,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self { backlog: 4096, reuse_port: true, transparent: false, keepalive: None }
    }
}

/// How to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConnectOptions {
    /// The address to come from; port 0 lets the kernel pick one.
    pub source: Option<SocketAddr>,
    /// Whether `source` is foreign: under TPROXY the application sees its client's address. Needs
    /// `CAP_NET_ADMIN`.
    pub transparent: bool,
    /// `SO_MARK`, by which interception rules let our own connections pass (Istio's TPROXY mode: 1337). Needs
    /// `CAP_NET_ADMIN`.
    pub mark: Option<u32>,
    /// When to probe the connection.
    pub keepalive: Option<Keepalive>,
}

/// The source of our connections to the local application, as Istio's (`InboundPassthroughBindIpv4` and
/// `...Ipv6`): an address by which interception rules know them and let them pass.
#[must_use]
pub fn application_source(to: IpAddr) -> SocketAddr {
    let source = match to {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(6)),
    };
    SocketAddr::new(source, 0)
}

/// Opens a listening TCP socket, non-blocking and with `TCP_NODELAY` for what it accepts. An IPv6 one takes no
/// IPv4 connections, so that `0.0.0.0` and `[::]` can be had on one port.
///
/// # Errors
///
/// Those of the system calls: the address in use, no permission for the port or for `IP_TRANSPARENT`.
pub fn listen(address: SocketAddr, options: &ListenOptions) -> io::Result<std::net::TcpListener> {
    let socket = tcp(address)?;
    // A restarted proxy must not wait for the old one's connections to be forgotten.
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if options.transparent {
        set_transparent(&socket, address)?;
    }
    set_keepalive(&socket, options.keepalive)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(options.backlog)?;
    Ok(socket.into())
}

/// Makes sure that nobody listens at an address: with `SO_REUSEPORT` another process of the same user would share its connections with us, and
/// neither of the two would know.
///
/// # Errors
///
/// `AddrInUse` when somebody does; else those of opening a socket.
pub fn ensure_free(address: SocketAddr) -> io::Result<()> {
    let socket = tcp(address)?;
    // Connections of a process that is gone do not count, its listening socket would.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    match socket.bind(&SockAddr::from(address)) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Err(io::Error::new(error.kind(), "another process listens there"))
        }
        // Whatever else is wrong, the socket itself will say, which has more options.
        _ => Ok(()),
    }
}

/// Opens a listening UNIX socket, non-blocking. A socket that nobody listens on any more is replaced; a file
/// that is no socket is not.
///
/// # Errors
///
/// `AddrInUse` when another process listens there, or when the path is no socket; else those of the system
/// calls.
pub fn listen_unix(path: &Path, backlog: i32) -> io::Result<std::os::unix::net::UnixListener> {
    let address = SockAddr::unix(path)?;
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            // A full backlog must not block us: it, too, means that somebody listens.
            probe.set_nonblocking(true)?;
            match probe.connect(&address) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
                _ => return Err(in_use(path, "another process listens there")),
            }
        }
        Ok(_) => return Err(in_use(path, "the path exists and is no socket")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address)?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

fn in_use(path: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::AddrInUse, format!("unix:{}: {why}", path.display()))
}

/// Connects to `to`, with `TCP_NODELAY`. How long that may take is the caller's to say.
///
/// # Errors
///
/// `InvalidInput` when the source is of another family than `to`; else those of the system calls.
pub async fn connect(to: SocketAddr, options: &ConnectOptions) -> io::Result<TcpStream> {
    let socket = tcp(to)?;
    if let Some(mark) = options.mark {
        set_mark(&socket, mark)?;
    }
    set_keepalive(&socket, options.keepalive)?;
    if let Some(source) = options.source {
        if source.is_ipv4() != to.is_ipv4() {
            let why = format!("cannot connect from {} to {}: one is IPv4, one IPv6", source.ip(), to.ip());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        if options.transparent {
            set_transparent(&socket, source)?;
        }
        if source.port() != 0 {
            // The client's own port may still be known from its last connection.
            socket.set_reuse_address(true)?;
        }
        socket.bind(&SockAddr::from(source))?;
    }
    TcpSocket::from_std_stream(socket.into()).connect(to).await
}

/// Where a connection was going before an iptables REDIRECT brought it here (`SO_ORIGINAL_DST`). Under TPROXY
/// the local address is that destination, and this is not needed.
///
/// # Errors
///
/// Those of `getsockopt`: for a connection that came here on its own, `NotFound`; without connection tracking
/// in the kernel, an unsupported option.
pub fn original_dst(stream: &TcpStream) -> io::Result<SocketAddr> {
    let local = stream.local_addr()?;
    let destination = original_destination(&SockRef::from(stream), local.ip().to_canonical().is_ipv4())?;
    destination.as_socket().ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "the original destination is no IP address")
    })
}

fn tcp(address: SocketAddr) -> io::Result<Socket> {
    // Close-on-exec is set by `new`.
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

fn set_keepalive(socket: &Socket, keepalive: Option<Keepalive>) -> io::Result<()> {
    let Some(Keepalive { time, interval, probes }) = keepalive else { return Ok(()) };
    let settings = TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(probes);
    socket.set_tcp_keepalive(&settings)
}

#[cfg(target_os = "linux")]
fn set_transparent(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv4() { socket.set_ip_transparent_v4(true) } else { socket.set_ip_transparent_v6(true) }
}

#[cfg(target_os = "linux")]
fn set_mark(socket: &Socket, mark: u32) -> io::Result<()> {
    socket.set_mark(mark)
}

#[cfg(target_os = "linux")]
fn original_destination(socket: &Socket, v4: bool) -> io::Result<SockAddr> {
    if v4 { socket.original_dst_v4() } else { socket.original_dst_v6() }
}

#[cfg(not(target_os = "linux"))]
fn set_transparent(_: &Socket, _: SocketAddr) -> io::Result<()> {
    Err(linux_only("TPROXY"))
}

#[cfg(not(target_os = "linux"))]
fn set_mark(_: &Socket, _: u32) -> io::Result<()> {
    Err(linux_only("SO_MARK"))
}

#[cfg(not(target_os = "linux"))]
fn original_destination(_: &Socket, _: bool) -> io::Result<SockAddr> {
    Err(linux_only("REDIRECT"))
}

#[cfg(not(target_os = "linux"))]
fn linux_only(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("{what} needs Linux; use `interception: EXPLICIT`"))
}

#[cfg(test)]
mod tests;
