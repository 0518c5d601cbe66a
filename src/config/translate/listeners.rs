//! Parts of listeners that all kinds of listener share.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::World;
use super::tcp::Flow;
use crate::config::resources::Resource;
use crate::config::resources::proxy::Interception as Written;
use crate::mesh::{
    Address, ChainMatch, ChainProtocol, Direction, FilterChain, HttpChain, Interception, Listener, Mesh,
    Origin, RouteTable, TransportProtocol,
};

/// An unbound outbound listener without chains.
pub(super) fn listener(world: &World<'_>, name: &str, direction: Direction, origin: Origin) -> Listener {
    Listener {
        name: name.into(),
        addresses: Vec::new(),
        bound: false,
        direction,
        interception: interception(world),
        hand_over: false,
        proxy_protocol: None,
        detection_timeout: world.settings.detection_timeout(),
        handshake_timeout: world.proxy.limits.handshake_timeout.into(),
        chains: Vec::new(),
        default_chain: None,
        origin,
    }
}

/// How captured connections come to us.
pub(super) fn interception(world: &World<'_>) -> Option<Interception> {
    match world.proxy.interception {
        _ if world.is_gateway() => None,
        Written::Explicit => None,
        Written::Redirect => Some(Interception::Redirect),
        Written::Tproxy => Some(Interception::Tproxy),
    }
}

/// The HTTP settings of a chain, with the limits of the proxy.
pub(super) fn http(world: &World<'_>, routes: &str) -> HttpChain {
    let limits = &world.proxy.limits;
    HttpChain {
        path_normalization: world.settings.normalization(),
        idle_timeout: limits.idle_timeout.into(),
        stream_idle_timeout: limits.stream_idle_timeout.into(),
        request_headers_timeout: limits.header_timeout.into(),
        max_concurrent_streams: limits.max_concurrent_streams,
        max_headers: limits.max_headers,
        max_header_bytes: u32::try_from(limits.max_header_bytes.0).unwrap_or(u32::MAX),
        max_body_bytes: limits.max_body_bytes.map_or(0, |limit| limit.0),
        ..HttpChain::new(routes.into())
    }
}

/// A chain.
pub(super) fn chain(
    name: &str,
    matches: ChainMatch,
    protocol: ChainProtocol,
    origin: Origin,
) -> Arc<FilterChain> {
    Arc::new(FilterChain { name: name.into(), matches, protocol, origin })
}

/// The chain of a flow; with server names it takes TLS alone.
pub(super) fn flow_chain(name: &str, flow: Flow) -> Arc<FilterChain> {
    let transport = (!flow.server_names.is_empty()).then_some(TransportProtocol::Tls);
    let matches = ChainMatch {
        destinations: flow.destinations,
        server_names: flow.server_names,
        sources: flow.sources,
        transport,
        ..ChainMatch::default()
    };
    chain(name, matches, ChainProtocol::Tcp(Arc::new(flow.chain)), flow.origin)
}

/// Adds a listener, and its addresses to those in use.
pub(super) fn add(mesh: &mut Mesh, listener: Listener) {
    mesh.listeners.insert(listener.name.clone(), Arc::new(listener));
}

/// Adds a table.
pub(super) fn add_table(mesh: &mut Mesh, table: RouteTable) {
    mesh.routes.insert(table.name.clone(), Arc::new(table));
}

/// Addresses that are written as `host:port` or `unix:/path`; what is neither is reported.
pub(super) fn addresses(
    world: &World<'_>,
    object: &Resource,
    field: &str,
    written: &[String],
) -> Vec<Address> {
    let mut found = Vec::with_capacity(written.len());
    for (at, text) in written.iter().enumerate() {
        match address(text) {
            Some(address) => found.push(address),
            None => {
                let field = format!("{field}[{at}]");
                let message = format!("`{text}` is no address to listen on");
                let hint = "write `IP:PORT`, as in `127.0.0.1:15001`, or `unix:/path`";
                world.index.notes.error(object, &field, "address", message, hint);
            }
        }
    }
    found
}

/// `host:port`, `localhost:port` or `unix:/path`.
pub(super) fn address(text: &str) -> Option<Address> {
    if let Some(path) = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:")) {
        return (!path.is_empty()).then(|| Address::Unix(path.into()));
    }
    let text =
        text.strip_prefix("localhost:").map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
    text.parse::<SocketAddr>().ok().map(Address::Socket)
}

/// An address of a `bind` field and a port.
pub(super) fn bind(bind: &str, port: u16) -> Option<Address> {
    if bind.starts_with("unix:") {
        return address(bind);
    }
    bind.parse::<IpAddr>().ok().map(|ip| Address::Socket(SocketAddr::new(ip, port)))
}
