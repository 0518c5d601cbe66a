//! Endpoints, and the table of them that workers pick from.

use crate::mesh::{self, EndpointAddress, Health};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// One place that can be called.
#[derive(Debug)]
pub struct Endpoint {
    /// Where it is; within its cluster, its identity.
    pub address: EndpointAddress,
    /// As discovery describes it now.
    pub mesh: mesh::Endpoint,
    /// Unique for the life of the process. Stays as long as the cluster has this address, whatever else changes.
    pub id: u32,
    /// Requests in flight on all workers. Stays with the id; counted by [`Endpoint::begin`].
    pub active: Arc<AtomicU32>,
}

/// A request in flight; counted out on drop.
#[derive(Debug)]
#[must_use = "dropping it counts the request out"]
pub struct InFlight(Arc<AtomicU32>);

/// The endpoints of a cluster at one moment, ready to pick from.
#[derive(Debug, Default)]
pub struct EndpointTable {
    all: Box<[Arc<Endpoint>]>,
    levels: Box<[Level]>,
}

/// The endpoints of one priority that take traffic. Never empty.
#[derive(Debug)]
pub(super) struct Level {
    pub(super) endpoints: Box<[Arc<Endpoint>]>,
    /// Running sums of weights; empty when all weights are equal.
    until: Box<[u64]>,
    /// The last of them, or the number of endpoints.
    pub(super) total: u64,
    /// Steps through `0..total` for round robin: coprime to it, so that each point is met once a round.
    pub(super) stride: u64,
}

impl Endpoint {
    /// Counts a request in.
    #[inline]
    pub fn begin(&self) -> InFlight {
        self.active.fetch_add(1, Ordering::Relaxed);
        InFlight(self.active.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl EndpointTable {
    /// All endpoints, whatever their health.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.all
    }

    /// Those that are picked from first: healthy, of the best priority that has any.
    pub fn preferred(&self) -> &[Arc<Endpoint>] {
        self.levels.first().map_or(&[], |level| &level.endpoints)
    }

    /// Priorities that have an endpoint which takes traffic, best first.
    pub(super) fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// A table of these endpoints; of two with one address the first counts. What `previous` knows of an address stays.
    pub(super) fn new(endpoints: Vec<mesh::Endpoint>, previous: &Self) -> Self {
        let known: FxHashMap<&EndpointAddress, &Arc<Endpoint>> =
            previous.all.iter().map(|endpoint| (&endpoint.address, endpoint)).collect();
        let mut seen = FxHashSet::with_capacity_and_hasher(endpoints.len(), rustc_hash::FxBuildHasher);
        let mut all = Vec::with_capacity(endpoints.len());
        for mesh in endpoints {
            if seen.insert(mesh.address.clone()) {
                all.push(Endpoint::adopt(mesh, &known));
            }
        }
        Self { levels: levels(&all), all: all.into() }
    }
}

impl Endpoint {
    fn adopt(mesh: mesh::Endpoint, known: &FxHashMap<&EndpointAddress, &Arc<Self>>) -> Arc<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        match known.get(&mesh.address) {
            Some(old) if old.mesh == mesh => (*old).clone(),
            Some(old) => {
                let (id, active) = (old.id, old.active.clone());
                Arc::new(Self { address: mesh.address.clone(), mesh, id, active })
            }
            None => {
                let (id, active) = (NEXT.fetch_add(1, Ordering::Relaxed), Arc::default());
                Arc::new(Self { address: mesh.address.clone(), mesh, id, active })
            }
        }
    }
}

impl Level {
    fn new(endpoints: Vec<Arc<Endpoint>>) -> Self {
        let weight = |endpoint: &Arc<Endpoint>| u64::from(endpoint.mesh.weight);
        let equal = endpoints.windows(2).all(|pair| pair.first().map(weight) == pair.last().map(weight));
        if equal {
            let total = endpoints.len() as u64;
            return Self { endpoints: endpoints.into(), until: Box::default(), total, stride: 1 };
        }
        let mut total = 0;
        let until: Box<[u64]> =
            endpoints.iter().map(|endpoint| (total += weight(endpoint), total).1).collect();
        Self { endpoints: endpoints.into(), until, total, stride: golden_stride(total) }
    }

    /// The endpoint that owns a point of `0..total`.
    pub(super) fn owner(&self, point: u64) -> usize {
        if self.until.is_empty() {
            return usize::try_from(point).unwrap_or(0);
        }
        self.until.partition_point(|until| *until <= point)
    }

    /// The first point that an endpoint owns, and how many it owns.
    pub(super) fn span(&self, index: usize) -> (u64, u64) {
        if self.until.is_empty() {
            return (index as u64, 1);
        }
        let until = |index: usize| self.until.get(index).copied().unwrap_or(0);
        let start = index.checked_sub(1).map_or(0, until);
        (start, until(index) - start)
    }
}

fn levels(all: &[Arc<Endpoint>]) -> Box<[Level]> {
    let mut usable: Vec<_> = all
        .iter()
        .filter(|endpoint| endpoint.mesh.health == Health::Healthy && endpoint.mesh.weight > 0)
        .cloned()
        .collect();
    usable.sort_by_key(|endpoint| endpoint.mesh.priority);
    usable
        .chunk_by(|a, b| a.mesh.priority == b.mesh.priority)
        .map(|level| Level::new(level.to_vec()))
        .collect()
}

/// A step near `total / golden ratio` that is coprime to it: successive points lie far apart, so a heavy endpoint's turns are spread over the round.
fn golden_stride(total: u64) -> u64 {
    const INVERSE_GOLDEN: u128 = 11_400_714_819_323_198_485; // 2^64 / 1.618...
    let start = ((u128::from(total) * INVERSE_GOLDEN) >> 64) as u64;
    (start.max(1)..total).find(|step| gcd(*step, total) == 1).unwrap_or(1)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
