//! Endpoints that are named, not numbered: ServiceEntry `DNS` and `DNS_ROUND_ROBIN`, ExternalName.
//!
//! One task asks for each distinct host, however many clusters name it; each answer goes into the tables of all of them. A failure keeps the last
//! good answer. Only a server that says [`DENIALS_BELIEVED`](book::DENIALS_BELIEVED) times in a row that the name is gone is believed, so that
//! addresses which now belong to somebody else are not called for ever.

mod book;
mod counts;
mod resolve;
mod system;

use crate::mesh::Discovery;
use crate::snapshot::Snapshot;
use crate::telemetry::metrics::Registry;
use book::{Book, Tracked};
use counts::LookupCounts;
use resolve::{Failure, Resolve};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use system::SystemResolver;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// Lookups under way at once; further ones wait in turn.
const LOOKUPS_AT_ONCE: usize = 64;
/// A lookup that takes longer has failed, whatever the resolver's own times.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// Resolves the named endpoints of the snapshot in force, on the control runtime. Dropping it ends all lookups.
pub(crate) struct DnsDiscovery {
    shared: Arc<Shared>,
    runtime: Handle,
}

/// What the tasks share.
struct Shared {
    resolver: Arc<dyn Resolve>,
    book: Mutex<Book>,
    permits: Semaphore,
    registry: Arc<Registry>,
    counts: LookupCounts,
}

impl DnsDiscovery {
    /// Asks as the system is configured to, from tasks of `runtime`, once [`reconcile`](Self::reconcile) says for what.
    pub(crate) fn new(registry: &Arc<Registry>, runtime: Handle) -> Self {
        Self::asking(Arc::new(SystemResolver::new()), registry, runtime)
    }

    fn asking(resolver: Arc<dyn Resolve>, registry: &Arc<Registry>, runtime: Handle) -> Self {
        let shared = Shared {
            resolver,
            book: Mutex::default(),
            permits: Semaphore::new(LOOKUPS_AT_ONCE),
            counts: LookupCounts::new(registry),
            registry: registry.clone(),
        };
        Self { shared: Arc::new(shared), runtime }
    }

    /// Follows a snapshot that was put in force: asks for new names, stops asking for names nobody uses any more, keeps the rest.
    ///
    /// What is already known of a host reaches a new cluster at once.
    pub(crate) fn reconcile(&mut self, snapshot: &Snapshot) {
        let clusters = snapshot.clusters().filter_map(|cluster| {
            let (refresh, only_first) = match cluster.mesh.discovery {
                Discovery::StrictDns { refresh } => (refresh, false),
                Discovery::LogicalDns { refresh } => (refresh, true),
                Discovery::Endpoints | Discovery::OriginalDestination => return None,
            };
            let set = snapshot.mesh.endpoints.get(&cluster.mesh.name).cloned().unwrap_or_default();
            let tracked = Tracked { cluster: cluster.clone(), set, refresh, only_first };
            Some((cluster.mesh.name.clone(), tracked))
        });
        let clusters = clusters.collect();
        let mut book = self.shared.book();
        let former = book.follow(clusters, |host| {
            self.runtime.spawn(keep_asking(self.shared.clone(), host)).abort_handle()
        });
        // A last answer may have come between the compile that gave the table back to the mesh and now.
        for name in &former {
            if let Some(cluster) = snapshot.cluster(name) {
                book::give_back(cluster, snapshot.mesh.endpoints.get(name));
            }
        }
    }
}

impl Drop for DnsDiscovery {
    fn drop(&mut self) {
        self.shared.book().clear();
    }
}

impl std::fmt::Debug for DnsDiscovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DnsDiscovery").finish_non_exhaustive()
    }
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks for a host until it is aborted, or the book knows it no more.
async fn keep_asking(shared: Arc<Shared>, host: Arc<str>) {
    loop {
        let asked = async {
            // The semaphore is never closed; if it were, the lookup would go on without a bound of ours.
            let _permit = shared.permits.acquire().await;
            let lookup = shared.resolver.lookup(&host);
            tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await.unwrap_or(Err(Failure::Timeout))
        };
        let outcome = asked.await;
        shared.counts.count(&shared.registry, &outcome);
        let Some(pause) = shared.book().record(&host, outcome) else { return };
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests;
