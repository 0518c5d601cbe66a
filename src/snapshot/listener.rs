//! Listeners, and which of its chains takes a connection.

use super::{Chain, ChainProtocol, Linker, Named, Problem, RouteTable, same};
use crate::mesh::{self, ChainMatch, FilterChain, TransportProtocol};
use ipnet::IpNet;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// A listener with its chains.
#[derive(Debug)]
pub struct Listener {
    /// Its settings.
    pub mesh: Arc<mesh::Listener>,
    chains: Box<[Arc<Chain>]>,
    default_chain: Option<Arc<Chain>>,
    /// Places of chains by the destination port they ask for.
    by_port: FxHashMap<Option<u16>, Box<[u32]>>,
}

/// What must be known of a connection before its chain can be picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needs {
    /// Nothing: the protocol is declared. The peer may be waiting for the other side to speak first.
    Nothing,
    /// Its first bytes: HTTP, TLS or neither.
    FirstBytes,
    /// Those, and what a TLS ClientHello asks for: server name, application protocols.
    Hello,
}

/// What is known of a connection.
#[derive(Clone, Copy, Debug)]
pub struct ChainQuery<'a> {
    /// Where the client wanted to go.
    pub destination: Option<SocketAddr>,
    /// The client.
    pub source: IpAddr,
    /// What the first bytes are.
    pub transport: TransportProtocol,
    /// Server name of the ClientHello, in any case.
    pub server_name: Option<&'a str>,
    /// `http/1.1` or `h2c` as detection found; for TLS what the client offers by ALPN.
    pub application_protocols: &'a [&'a str],
}

type Candidates<'a> = SmallVec<[&'a Arc<Chain>; 8]>;

impl Listener {
    /// What must be known before a chain can be picked for this destination.
    pub fn needs(&self, destination: Option<SocketAddr>) -> Needs {
        let candidates = self.candidates(destination);
        // ALPN stands in the hello, too.
        let hello = |matches: &ChainMatch| {
            !matches.server_names.is_empty()
                || (matches.transport == Some(TransportProtocol::Tls)
                    && !matches.application_protocols.is_empty())
        };
        if candidates.iter().any(|chain| hello(&chain.mesh.matches)) {
            return Needs::Hello;
        }
        let depends =
            |matches: &ChainMatch| matches.transport.is_some() || !matches.application_protocols.is_empty();
        // A connection that no candidate takes falls to the default chain.
        let falls = candidates.iter().all(|chain| !chain.mesh.matches.sources.is_empty());
        let default_chain = self.default_chain.iter().filter(|_| falls);
        let detects = |chain: &Arc<Chain>| matches!(chain.protocol, ChainProtocol::Detect { .. });
        let inspects = candidates.iter().any(|chain| depends(&chain.mesh.matches));
        if inspects || candidates.iter().copied().chain(default_chain).any(detects) {
            Needs::FirstBytes
        } else {
            Needs::Nothing
        }
    }

    /// Whether a connection to this destination may be TLS that is ended here.
    pub fn ends_tls(&self, destination: Option<SocketAddr>) -> bool {
        self.candidates(destination).iter().any(|chain| chain.mesh.tls.is_some())
    }

    /// The chain that takes a connection, or the default chain. `None`: it is closed with `NR`.
    ///
    /// Envoy's order: destination port, destination address, server name, transport protocol, application protocol, source address. At each step only the
    /// most specific chains stay, without a way back: a chain for a port hides those for all ports even if it does not match further on.
    pub fn chain(&self, query: &ChainQuery<'_>) -> Option<&Arc<Chain>> {
        let mut left = self.candidates(query.destination);
        keep_best(&mut left, |matches| match query.server_name {
            Some(name) => best(&matches.server_names, |pattern| server_name_rank(pattern, name)),
            None => matches.server_names.is_empty().then_some(0),
        });
        keep_best(&mut left, |matches| match matches.transport {
            Some(transport) => (transport == query.transport).then_some(1),
            None => Some(0),
        });
        keep_best(&mut left, |matches| {
            best(&matches.application_protocols, |protocol| {
                query.application_protocols.contains(&protocol.as_str()).then_some(1)
            })
        });
        let source = query.source.to_canonical();
        keep_best(&mut left, |matches| best(&matches.sources, |net| net_rank(net, source)));
        left.first().copied().or(self.default_chain.as_ref())
    }

    /// The chains that connections to this destination may fall to, whatever else they are.
    pub fn chains_for(&self, destination: Option<SocketAddr>) -> impl Iterator<Item = &Arc<Chain>> {
        self.candidates(destination).into_iter().chain(&self.default_chain)
    }

    /// Its chains in the order in which they were written, then the default chain.
    pub fn chains(&self) -> impl Iterator<Item = &Arc<Chain>> {
        self.chains.iter().chain(&self.default_chain)
    }

    /// The chains that are left when only the destination is known.
    fn candidates(&self, destination: Option<SocketAddr>) -> Candidates<'_> {
        let port = destination.and_then(|destination| self.by_port.get(&Some(destination.port())));
        let places = port.or_else(|| self.by_port.get(&None));
        let mut left: Candidates<'_> =
            places.into_iter().flatten().filter_map(|place| self.chains.get(*place as usize)).collect();
        let ip = destination.map(|destination| destination.ip().to_canonical());
        keep_best(&mut left, |matches| match ip {
            Some(ip) => best(&matches.destinations, |net| net_rank(net, ip)),
            None => matches.destinations.is_empty().then_some(0),
        });
        left
    }

    /// Compiles a listener, reusing what it can of the one of that name before it.
    pub(super) fn link(
        mesh: &Arc<mesh::Listener>,
        old: Option<&Arc<Self>>,
        tables: &Named<RouteTable>,
        linker: &Linker<'_>,
        problems: &mut Vec<Problem>,
    ) -> Arc<Self> {
        let by_name: FxHashMap<&str, &Arc<Chain>> =
            old.iter().flat_map(|old| old.chains()).map(|chain| (&*chain.mesh.name, chain)).collect();
        let mut link = |chain: &Arc<FilterChain>| {
            Chain::link(chain, by_name.get(&*chain.name).copied(), tables, linker, problems)
        };
        let chains: Box<[_]> = mesh.chains.iter().map(&mut link).collect();
        let default_chain = mesh.default_chain.as_ref().map(link);
        if let Some(old) = old
            && same(&old.mesh, mesh)
            && old.chains().map(Arc::as_ptr).eq(chains.iter().chain(&default_chain).map(Arc::as_ptr))
        {
            return old.clone();
        }
        let mut by_port: FxHashMap<Option<u16>, Vec<u32>> = FxHashMap::default();
        for (place, chain) in (0..).zip(&chains) {
            by_port.entry(chain.mesh.matches.destination_port).or_default().push(place);
        }
        let by_port = by_port.into_iter().map(|(port, places)| (port, places.into())).collect();
        Arc::new(Self { mesh: mesh.clone(), chains, default_chain, by_port })
    }
}

/// Keeps the chains of the highest rank; those without rank do not match.
fn keep_best(left: &mut Candidates<'_>, rank: impl Fn(&ChainMatch) -> Option<usize>) {
    let best = left.iter().filter_map(|chain| rank(&chain.mesh.matches)).max();
    left.retain(|chain| best.is_some() && rank(&chain.mesh.matches) == best);
}

/// The best rank that any of these conditions gives; no condition: 0.
fn best<T>(conditions: &[T], rank: impl Fn(&T) -> Option<usize>) -> Option<usize> {
    if conditions.is_empty() { Some(0) } else { conditions.iter().filter_map(rank).max() }
}

fn net_rank(net: &IpNet, ip: IpAddr) -> Option<usize> {
    net.contains(&ip).then(|| usize::from(net.prefix_len()))
}

/// Exact beats a wildcard, a longer wildcard a shorter one. The `*` stands for one label at least.
fn server_name_rank(pattern: &str, name: &str) -> Option<usize> {
    let Some(suffix) = pattern.strip_prefix('*') else {
        return pattern.eq_ignore_ascii_case(name).then_some(usize::MAX);
    };
    let (head, tail) = name.as_bytes().split_at_checked(name.len().checked_sub(suffix.len())?)?;
    (!head.is_empty() && tail.eq_ignore_ascii_case(suffix.as_bytes())).then_some(suffix.len() + 1)
}

#[cfg(test)]
mod tests;
