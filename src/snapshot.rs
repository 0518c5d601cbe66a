//! Turns the mesh into what a request needs: matchers, indexes, and state that outlives a reload.
//!
//! A snapshot is a tree of shared parts. A compile reuses every part whose input is equal to its predecessor's, so an update costs what it changes.
//! Parts point downwards only (listener -> chain -> route table -> host -> route -> destination -> cluster): a request that keeps its destination
//! keeps its cluster alive and nothing else of the snapshot. When a cluster's settings change, the destinations that point to it are linked again;
//! their matchers and compiled filter settings stay.

mod balance;
mod chain;
mod cluster;
mod endpoint;
mod host;
mod host_index;
mod listener;
mod matcher;
mod named;
mod route;
mod rule_index;
#[cfg(test)]
pub(crate) mod samples;
mod table;

pub use chain::{Chain, ChainProtocol, Http, Tcp};
pub use cluster::{Cluster, ClusterState, Permit, Resource};
pub use endpoint::{Endpoint, EndpointTable, InFlight};
pub use host::VirtualHost;
pub use listener::{ChainQuery, Listener, Needs};
pub use route::{Destination, Route};
pub use table::{Miss, RouteTable};

use crate::filters::RouteSettings;
use crate::mesh::{self, Address, Direction, Mesh, Name, Origin};
use filter_api::{Keep, Slots};
use named::{Beside, Named};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// Everything a request may read, frozen. A new configuration is a new snapshot.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts compiles, from 1.
    pub generation: u64,
    /// The mesh in force: where a part did not compile, its predecessor.
    pub mesh: Arc<Mesh>,
    /// State of filters that outlives reloads.
    pub keep: Arc<Keep>,
    listeners: Named<Listener>,
    tables: Named<RouteTable>,
    clusters: Named<Cluster>,
    unbound: FxHashMap<(Direction, SocketAddr), Arc<Listener>>,
}

/// A part of the mesh that is not in force as written, and why.
#[derive(Clone, Debug)]
pub struct Problem {
    /// Where it was written.
    pub origin: Origin,
    /// What is wrong, what is in force instead, and what to write.
    pub message: String,
}

impl Snapshot {
    /// Compiles a mesh. A part that does not compile keeps its predecessor, or else is closed (a host answers 404, a chain refuses), and is listed.
    ///
    /// Endpoint sets that changed are published at once to the cluster state shared with `previous`; everything else takes effect when the
    /// returned snapshot is swapped in.
    pub fn compile(mut mesh: Mesh, previous: Option<&Arc<Self>>) -> (Arc<Self>, Vec<Problem>) {
        let mut problems = Vec::new();
        let previous = previous.map(Arc::as_ref);
        if let Some(previous) = previous {
            adopt(&mut mesh, &previous.mesh);
        }
        let (clusters, changed) = link_clusters(&mesh, previous);
        let keep = previous.map_or_else(Arc::default, |previous| previous.keep.clone());
        let linker = Linker { clusters: &clusters, changed: &changed, off: filters_off(), keep: &keep };
        let tables = link_tables(&mut mesh, previous, &linker, &mut problems);
        let listeners = Named::collect(mesh.listeners.iter().map(|(name, listener)| {
            let predecessor = previous.and_then(|previous| previous.listeners.find(name));
            (name.clone(), Listener::link(listener, predecessor, &tables, &linker, &mut problems))
        }));
        let unbound = unbound(&listeners, &mut problems);
        let generation = previous.map_or(0, |previous| previous.generation) + 1;
        let mesh = Arc::new(mesh);
        let snapshot = Self { generation, mesh, keep, listeners, tables, clusters, unbound };
        (Arc::new(snapshot), problems)
    }

    /// All listeners, by name.
    pub fn listeners(&self) -> impl Iterator<Item = &Arc<Listener>> {
        self.listeners.iter()
    }

    /// The listener of this name.
    pub fn listener(&self, name: &str) -> Option<&Arc<Listener>> {
        self.listeners.find(name)
    }

    /// The unbound listener that takes over a captured connection: exact address, then the wildcard address of that port (Envoy's
    /// `use_original_dst`). `[::]` takes IPv4 too, after `0.0.0.0`.
    pub fn hand_over(&self, direction: Direction, destination: SocketAddr) -> Option<&Arc<Listener>> {
        let (ip, port) = (destination.ip().to_canonical(), destination.port());
        let any_v4 = ip.is_ipv4().then_some(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        [Some(ip), any_v4, Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED))]
            .into_iter()
            .flatten()
            .find_map(|ip| self.unbound.get(&(direction, SocketAddr::new(ip, port))))
    }

    /// All route tables, by name.
    pub fn route_tables(&self) -> impl Iterator<Item = &Arc<RouteTable>> {
        self.tables.iter()
    }

    /// The route table of this name.
    pub fn route_table(&self, name: &str) -> Option<&Arc<RouteTable>> {
        self.tables.find(name)
    }

    /// All clusters, by name.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        self.clusters.iter()
    }

    /// The cluster of this name. For the control side and `internal::call`; a destination holds its cluster.
    pub fn cluster(&self, name: &str) -> Option<&Arc<Cluster>> {
        self.clusters.find(name)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.message)
    }
}

/// What is needed to point from a route to its clusters.
struct Linker<'a> {
    clusters: &'a Named<Cluster>,
    /// Names that lead somewhere else than in the predecessor: cluster added, removed or with other settings.
    changed: &'a FxHashSet<Name>,
    /// Shared by all destinations without filters.
    off: Slots,
    keep: &'a Keep,
}

/// Equal, decided by the pointer where possible. (`Arc`'s own `==` compares deeply first for types that are not `Eq`.)
fn same<T: PartialEq>(a: &Arc<T>, b: &Arc<T>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

fn filters_off() -> Slots {
    let none = RouteSettings::default();
    none.compile(&none, &Keep::default()).unwrap_or_else(|_| Slots::empty(0))
}

/// Replaces parts equal to the predecessor's by the predecessor's own: the next comparison is one of pointers, and memory is held once.
fn adopt(mesh: &mut Mesh, previous: &Mesh) {
    fn adopt_all<T: PartialEq>(parts: &mut BTreeMap<Name, Arc<T>>, previous: &BTreeMap<Name, Arc<T>>) {
        let mut previous = Beside::walk(previous);
        for (name, part) in parts {
            if let Some(old) = previous.find(name)
                && !Arc::ptr_eq(part, old)
                && part == old
            {
                *part = old.clone();
            }
        }
    }
    adopt_all(&mut mesh.listeners, &previous.listeners);
    adopt_all(&mut mesh.clusters, &previous.clusters);
    adopt_all(&mut mesh.endpoints, &previous.endpoints);
}

/// The clusters of a mesh, and the names that lead somewhere else than in the predecessor.
fn link_clusters(mesh: &Mesh, previous: Option<&Snapshot>) -> (Named<Cluster>, FxHashSet<Name>) {
    let Some(previous) = previous else {
        let mut endpoints = Beside::walk(&mesh.endpoints);
        let new = mesh
            .clusters
            .iter()
            .map(|(name, cluster)| (name.clone(), Cluster::link(cluster, endpoints.find(name), None)));
        return (Named::collect(new), FxHashSet::default());
    };
    let mut changed = FxHashSet::default();
    let mut endpoints = Beside::walk(&mesh.endpoints);
    let mut old_endpoints = Beside::walk(&previous.mesh.endpoints);
    let mut old_clusters = Beside::walk(previous.clusters.by_name());
    let clusters = Named::collect(mesh.clusters.iter().map(|(name, cluster)| {
        let old = old_clusters.find(name).map(|old| (old, old_endpoints.find(name)));
        let linked = Cluster::link(cluster, endpoints.find(name), old);
        if old.is_none_or(|(old, _)| !Arc::ptr_eq(old, &linked)) {
            changed.insert(name.clone());
        }
        (name.clone(), linked)
    }));
    let mut kept = Beside::walk(&mesh.clusters);
    let removed = previous.clusters.by_name().filter(|(name, _)| kept.find(name).is_none());
    changed.extend(removed.map(|(name, _)| name.clone()));
    (clusters, changed)
}

fn link_tables(
    mesh: &mut Mesh,
    previous: Option<&Snapshot>,
    linker: &Linker<'_>,
    problems: &mut Vec<Problem>,
) -> Named<RouteTable> {
    for (name, origin) in missing_tables(mesh) {
        let old = previous.and_then(|previous| previous.tables.find(&name));
        problems.push(Problem {
            origin: origin.clone(),
            message: format!(
                "there is no route table {name:?}; {}",
                if old.is_some() {
                    "the last one of that name stays"
                } else {
                    "requests are answered 404 until it comes"
                }
            ),
        });
        mesh.routes.entry(name.clone()).or_insert_with(|| match old {
            Some(old) => old.mesh.clone(),
            None => Arc::new(mesh::RouteTable { name, origin, ..mesh::RouteTable::default() }),
        });
    }
    let tables = Named::collect(mesh.routes.iter().map(|(name, table)| {
        let predecessor = previous.and_then(|previous| previous.tables.find(name));
        (name.clone(), RouteTable::link(table, predecessor, linker, problems))
    }));
    for (name, table) in tables.by_name() {
        if let Some(written) = mesh.routes.get_mut(name) {
            *written = table.mesh.clone();
        }
    }
    tables
}

/// Route tables that a chain names and nobody wrote.
fn missing_tables(mesh: &Mesh) -> Vec<(Name, Origin)> {
    let chains =
        mesh.listeners.values().flat_map(|listener| listener.chains.iter().chain(&listener.default_chain));
    chains
        .filter_map(|chain| match &chain.protocol {
            mesh::ChainProtocol::Http(http) | mesh::ChainProtocol::Detect { http, .. } => Some((http, chain)),
            _ => None,
        })
        .filter(|(http, _)| !mesh.routes.contains_key(&http.routes))
        .map(|(http, chain)| (http.routes.clone(), chain.origin.clone()))
        .collect()
}

fn unbound(
    listeners: &Named<Listener>,
    problems: &mut Vec<Problem>,
) -> FxHashMap<(Direction, SocketAddr), Arc<Listener>> {
    let mut index: FxHashMap<(Direction, SocketAddr), Arc<Listener>> = FxHashMap::default();
    for listener in listeners.iter().filter(|listener| !listener.mesh.bound) {
        for address in &listener.mesh.addresses {
            let Address::Socket(address) = address else { continue };
            let address = SocketAddr::new(address.ip().to_canonical(), address.port());
            let taken = index.entry((listener.mesh.direction, address)).or_insert_with(|| listener.clone());
            if !Arc::ptr_eq(taken, listener) {
                problems.push(Problem {
                    origin: listener.mesh.origin.clone(),
                    message: format!(
                        "listener {:?}: {address} is already taken over by listener {:?}, which keeps it; give one of them another address",
                        listener.mesh.name, taken.mesh.name
                    ),
                });
            }
        }
    }
    index
}

#[cfg(test)]
mod tests;
