//! Clusters, and the state of theirs that outlives a reload.

use super::endpoint::EndpointTable;
use super::{Endpoint, balance, same};
use crate::mesh::{self, Discovery, EndpointAddress, EndpointSet};
use arc_swap::{ArcSwap, ArcSwapOption};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// A cluster of one snapshot: its settings, and the state it shares with its predecessors and successors.
#[derive(Debug)]
pub struct Cluster {
    /// Its settings.
    pub mesh: Arc<mesh::Cluster>,
    /// Kept by name across snapshots.
    pub state: Arc<ClusterState>,
}

/// What all workers know of a cluster, whatever snapshot they read.
#[derive(Debug)]
pub struct ClusterState {
    /// Unique for the life of the process and never given out again: workers key pools and metrics by it.
    pub id: u32,
    pub(super) turn: AtomicUsize,
    endpoints: ArcSwap<EndpointTable>,
    discovery_failure: ArcSwapOption<String>,
    // Discovery and a compile may publish at the same time; both start from the table they found.
    publishing: Mutex<()>,
    connections: AtomicU32,
    // Said once for each connection that is given back, on whatever worker: somebody may wait for it on another one.
    connection_freed: Notify,
    pending: AtomicU32,
    requests: AtomicU32,
    upgraded: AtomicU32,
}

/// What a cluster has a limited number of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// Connections, up to `max_connections`.
    Connections,
    /// Requests that wait for a connection, up to `max_pending`.
    Pending,
    /// Requests at once, up to `max_requests`.
    Requests,
    /// Upgraded and tunnelled connections, up to `max_connections`.
    Upgraded,
}

/// The right to use one of a cluster's resources; given back on drop, on whatever thread.
#[derive(Debug)]
#[must_use = "dropping a permit gives it back"]
pub struct Permit {
    state: Arc<ClusterState>,
    resource: Resource,
}

impl Cluster {
    /// Picks an endpoint as the cluster's `balance` says, or `None` when none takes traffic.
    ///
    /// Never one whose id is in `tried`, unless all are. An endpoint of a lower priority is picked only when no healthy one of a higher priority is
    /// left. A passthrough cluster has no endpoints of its own: its caller uses the original destination.
    #[inline]
    pub fn pick(&self, random: &mut impl FnMut() -> u64, tried: &[u32]) -> Option<Arc<Endpoint>> {
        balance::pick(self.mesh.balance, &self.state.endpoints.load(), &self.state.turn, random, tried)
    }

    /// Replaces the endpoints alone, as discovery finds them. An endpoint whose address stays keeps its id and its count of requests.
    pub fn publish(&self, endpoints: Vec<mesh::Endpoint>) {
        self.state.publish(endpoints);
    }

    /// Takes one of a resource, or `None` when the limit in force now is reached.
    #[inline]
    pub fn acquire(&self, resource: Resource) -> Option<Permit> {
        let limit = self.limit(resource);
        let free = |count: u32| (count < limit).then(|| count.saturating_add(1));
        let taken = self.state.counter(resource).fetch_update(Ordering::AcqRel, Ordering::Relaxed, free);
        taken.ok().map(|_| Permit { state: self.state.clone(), resource })
    }

    /// Takes one of a resource whatever the limit: a worker without a connection to a picked endpoint may always open one.
    pub fn acquire_anyway(&self, resource: Resource) -> Permit {
        self.state.counter(resource).fetch_add(1, Ordering::AcqRel);
        Permit { state: self.state.clone(), resource }
    }

    /// How many of a resource may be taken at once; `u32::MAX`: no limit.
    pub fn limit(&self, resource: Resource) -> u32 {
        let pool = &self.mesh.pool;
        match resource {
            Resource::Connections | Resource::Upgraded => pool.max_connections,
            Resource::Pending => pool.max_pending,
            Resource::Requests => pool.max_requests,
        }
    }

    /// The cluster as `mesh` says, with the state of its predecessor. Endpoints are published when they changed.
    pub(super) fn link(
        mesh: &Arc<mesh::Cluster>,
        endpoints: Option<&Arc<EndpointSet>>,
        previous: Option<(&Arc<Self>, Option<&Arc<EndpointSet>>)>,
    ) -> Arc<Self> {
        let cluster = match previous {
            Some((old, _)) if same(&old.mesh, mesh) => old.clone(),
            Some((old, _)) => Arc::new(Self { mesh: mesh.clone(), state: old.state.clone() }),
            None => Arc::new(Self { mesh: mesh.clone(), state: Arc::default() }),
        };
        let from = previous.map(|(old, _)| source(&old.mesh.discovery));
        let kept = match source(&mesh.discovery) {
            // Discovery owns the table from its first answer on; whoever runs it hears of changed names by itself.
            Source::Names => from == Some(Source::Names),
            Source::Nobody => from.is_none_or(|from| from == Source::Nobody),
            Source::Mesh => {
                from == Some(Source::Mesh)
                    && match (previous.and_then(|(_, endpoints)| endpoints), endpoints) {
                        (Some(old), Some(new)) => same(old, new),
                        (old, new) => old.is_none() && new.is_none(),
                    }
            }
        };
        if !kept {
            let known = endpoints.iter().flat_map(|set| &set.endpoints).filter(|endpoint| {
                source(&mesh.discovery) != Source::Nobody
                    && !matches!(endpoint.address, EndpointAddress::Name(..))
            });
            cluster.state.publish(known.cloned().collect());
        }
        cluster
    }
}

impl ClusterState {
    /// How many of a resource are taken now.
    pub fn count(&self, resource: Resource) -> u32 {
        self.counter(resource).load(Ordering::Acquire)
    }

    /// Resolves when a connection is given back. Ask for it before looking whether there is one, so that none is missed.
    pub fn connection_freed(&self) -> Notified<'_> {
        self.connection_freed.notified()
    }

    /// The endpoints as they are now.
    pub fn endpoints(&self) -> Arc<EndpointTable> {
        self.endpoints.load_full()
    }

    /// Which names of its endpoints did not resolve when they were last asked for, and why; `None` when all did.
    pub fn discovery_failure(&self) -> Option<Arc<String>> {
        self.discovery_failure.load_full()
    }

    /// See [`ClusterState::discovery_failure`].
    pub(crate) fn set_discovery_failure(&self, failure: Option<String>) {
        if self.discovery_failure.load().as_deref() != failure.as_ref() {
            self.discovery_failure.store(failure.map(Arc::new));
        }
    }

    fn publish(&self, endpoints: Vec<mesh::Endpoint>) {
        let _publishing = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let table = EndpointTable::new(endpoints, &self.endpoints.load());
        self.endpoints.store(Arc::new(table));
    }

    fn counter(&self, resource: Resource) -> &AtomicU32 {
        match resource {
            Resource::Connections => &self.connections,
            Resource::Pending => &self.pending,
            Resource::Requests => &self.requests,
            Resource::Upgraded => &self.upgraded,
        }
    }
}

impl Default for ClusterState {
    /// A state with an id of its own, without endpoints.
    fn default() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            turn: AtomicUsize::new(0),
            endpoints: ArcSwap::default(),
            discovery_failure: ArcSwapOption::empty(),
            publishing: Mutex::default(),
            connections: AtomicU32::new(0),
            connection_freed: Notify::new(),
            pending: AtomicU32::new(0),
            requests: AtomicU32::new(0),
            upgraded: AtomicU32::new(0),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.state.counter(self.resource).fetch_sub(1, Ordering::AcqRel);
        if self.resource == Resource::Connections {
            self.state.connection_freed.notify_one();
        }
    }
}

/// Who fills the endpoint table.
#[derive(Clone, Copy, PartialEq)]
enum Source {
    Mesh,
    Names,
    Nobody,
}

fn source(discovery: &Discovery) -> Source {
    match discovery {
        Discovery::Endpoints => Source::Mesh,
        Discovery::StrictDns { .. } | Discovery::LogicalDns { .. } => Source::Names,
        Discovery::OriginalDestination => Source::Nobody,
    }
}

#[cfg(test)]
mod tests;
