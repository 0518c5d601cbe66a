//! What is known of each host, and which clusters want to hear of it.

use super::resolve::{Answer, Failure, known};
use crate::mesh::{self, Discovery, EndpointAddress, EndpointSet, Name};
use crate::snapshot::Cluster;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeMap;
use std::mem::discriminant;
use std::net::{IpAddr, SocketAddr};
use std::slice;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::AbortHandle;

/// How often in a row a server has to deny a name before its last addresses are given up: a DNS server that has just started denies everything.
pub(super) const DENIALS_BELIEVED: u32 = 3;
/// Nothing is asked for again sooner, whatever its time to live or the cluster's refresh rate.
const MIN_REFRESH: Duration = Duration::from_secs(1);
/// A longer time to live counts as this one.
const MAX_TTL: Duration = Duration::from_secs(300);
/// Pause after the first failure; doubles with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// No pause after a failure is longer.
const MAX_RETRY: Duration = Duration::from_secs(30);

/// All hosts that are asked for, and the clusters that name them.
#[derive(Debug, Default)]
pub(super) struct Book {
    hosts: FxHashMap<Arc<str>, Host>,
    clusters: BTreeMap<Name, Tracked>,
}

/// A cluster with named endpoints.
#[derive(Debug)]
pub(super) struct Tracked {
    pub(super) cluster: Arc<Cluster>,
    /// As written: names and, beside them, addresses.
    pub(super) set: Arc<EndpointSet>,
    /// When to ask again after an answer that does not say.
    pub(super) refresh: Duration,
    /// Of each name, only the first address is an endpoint (LOGICAL_DNS).
    pub(super) only_first: bool,
}

/// A host that is asked for.
#[derive(Debug)]
struct Host {
    task: AbortHandle,
    clusters: Vec<Name>,
    refresh: Duration,
    /// The last good one.
    answer: Option<Answer>,
    /// The last outcome; `None` before the first.
    last: Option<Result<(), Failure>>,
    failures: u32,
    denials: u32,
}

/// A change of a host's state that the log tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notice {
    /// It resolves again.
    Again,
    /// It fails; its last answer stays.
    Kept,
    /// It fails and has no answer.
    Without,
}

impl Book {
    /// Takes over the clusters of a new snapshot, starting a task with `ask` for each new host. Returns the clusters it no longer has.
    pub(super) fn follow(
        &mut self,
        clusters: BTreeMap<Name, Tracked>,
        mut ask: impl FnMut(Arc<str>) -> AbortHandle,
    ) -> Vec<Name> {
        let mut wanted: FxHashMap<Arc<str>, (Vec<Name>, Duration)> = FxHashMap::default();
        for (name, tracked) in &clusters {
            for host in tracked.hosts() {
                let (users, refresh) = wanted.entry(host).or_insert_with(|| (Vec::new(), tracked.refresh));
                // A cluster's own names are visited together.
                if users.last() != Some(name) {
                    users.push(name.clone());
                }
                *refresh = tracked.refresh.min(*refresh);
            }
        }
        self.hosts.retain(|host, _| wanted.contains_key(host));
        for (host, (clusters, refresh)) in wanted {
            if let Some(known) = self.hosts.get_mut(&host) {
                (known.clusters, known.refresh) = (clusters, refresh);
            } else {
                let task = ask(host.clone());
                self.hosts.insert(host, Host::new(task, clusters, refresh));
            }
        }
        let former = std::mem::replace(&mut self.clusters, clusters);
        for tracked in self.clusters.values() {
            tracked.publish(&self.hosts);
        }
        former.into_keys().filter(|name| !self.clusters.contains_key(name)).collect()
    }

    /// Takes note of a lookup's outcome, tells the clusters, and returns the pause before the next; `None` when nobody wants to know.
    pub(super) fn record(&mut self, host: &str, outcome: Result<Answer, Failure>) -> Option<Duration> {
        let entry = self.hosts.get_mut(host)?;
        let pause = entry.record(host, outcome);
        let entry = self.hosts.get(host)?;
        for tracked in entry.clusters.iter().filter_map(|name| self.clusters.get(name)) {
            tracked.publish(&self.hosts);
        }
        Some(pause)
    }

    /// Forgets everything and ends all tasks.
    pub(super) fn clear(&mut self) {
        self.hosts.clear();
        self.clusters.clear();
    }
}

impl Host {
    fn new(task: AbortHandle, clusters: Vec<Name>, refresh: Duration) -> Self {
        Self { task, clusters, refresh, answer: None, last: None, failures: 0, denials: 0 }
    }

    fn record(&mut self, host: &str, outcome: Result<Answer, Failure>) -> Duration {
        let (last, pause) = match outcome {
            Ok(answer) => {
                (self.failures, self.denials) = (0, 0);
                // Envoy's `respect_dns_ttl`: the answer's time to live, else the cluster's refresh rate.
                let wish = if answer.ttl.is_zero() { self.refresh } else { answer.ttl.min(MAX_TTL) };
                self.answer = Some(answer);
                (Ok(()), wish.max(MIN_REFRESH))
            }
            Err(failure) => {
                let pause = backoff(self.failures);
                self.failures = self.failures.saturating_add(1);
                self.denials = if failure.is_denial() { self.denials.saturating_add(1) } else { 0 };
                if self.denials >= DENIALS_BELIEVED && self.answer.take().is_some() {
                    tracing::warn!(
                        host, times = self.denials, %failure,
                        "DNS: the name stays denied; its last addresses take no more traffic"
                    );
                }
                (Err(failure), pause)
            }
        };
        match (self.notice(&last), &last) {
            (Some(Notice::Again), _) => tracing::info!(host, "DNS: the name resolves again"),
            (Some(Notice::Kept), Err(failure)) => {
                tracing::warn!(host, %failure, "DNS: lookup failed; its last addresses stay in use");
            }
            (Some(Notice::Without), Err(failure)) => {
                tracing::warn!(host, %failure, "DNS: lookup failed; it has no endpoint until one succeeds");
            }
            _ => {}
        }
        self.last = Some(last);
        pause
    }

    /// What there is to say of an outcome, once for each change: it failed, fails otherwise, or is well again.
    fn notice(&self, now: &Result<(), Failure>) -> Option<Notice> {
        match (&self.last, now) {
            (Some(Err(_)), Ok(())) => Some(Notice::Again),
            (None | Some(Ok(())), Ok(())) => None,
            (Some(Err(before)), Err(failure)) if discriminant(before) == discriminant(failure) => None,
            (_, Err(_)) if self.answer.is_some() => Some(Notice::Kept),
            (_, Err(_)) => Some(Notice::Without),
        }
    }

    fn addresses(&self, only_first: bool) -> &[IpAddr] {
        match &self.answer {
            Some(answer) if only_first => slice::from_ref(&answer.first),
            Some(answer) => &answer.addresses,
            None => &[],
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Tracked {
    /// The names that have to be asked for.
    fn hosts(&self) -> impl Iterator<Item = Arc<str>> {
        self.set.endpoints.iter().filter_map(|endpoint| match &endpoint.address {
            EndpointAddress::Name(host, _) if known(host).is_none() => Some(key(host)),
            _ => None,
        })
    }

    /// Puts what is known into the cluster's table, unless that is there already. Until each name was asked for once, addresses are only added: a
    /// renamed host serves from its old addresses while the new ones are on their way.
    fn publish(&self, hosts: &FxHashMap<Arc<str>, Host>) {
        let mut settled = true;
        let mut endpoints = Vec::new();
        let mut seen = FxHashSet::default();
        let mut add = |address: EndpointAddress, written: &mesh::Endpoint| {
            if seen.insert(address.clone()) {
                endpoints.push(mesh::Endpoint { address, ..written.clone() });
            }
        };
        for written in &self.set.endpoints {
            let EndpointAddress::Name(name, port) = &written.address else {
                add(written.address.clone(), written);
                continue;
            };
            let literal = known(name);
            let addresses = match (&literal, hosts.get(&key(name))) {
                (Some(literal), _) => slice::from_ref(literal),
                (None, Some(host)) => {
                    settled &= host.last.is_some();
                    host.addresses(self.only_first)
                }
                (None, None) => &[],
            };
            for address in addresses {
                add(EndpointAddress::Socket(SocketAddr::new(*address, *port)), written);
            }
        }
        self.cluster.state.set_discovery_failure(self.failures(hosts));
        let table = self.cluster.state.endpoints();
        let current = table.endpoints();
        let loses = || current.iter().any(|endpoint| !seen.contains(&endpoint.address));
        if current.iter().map(|endpoint| &endpoint.mesh).eq(&endpoints) || (!settled && loses()) {
            return;
        }
        self.cluster.publish(endpoints);
    }
}

impl Tracked {
    /// The names whose last look-up failed, and why, in the order of the endpoints.
    fn failures(&self, hosts: &FxHashMap<Arc<str>, Host>) -> Option<String> {
        let mut said: Vec<String> = Vec::new();
        for host in self.hosts() {
            if let Some(Err(failure)) = hosts.get(&host).and_then(|known| known.last.as_ref()) {
                let words = format!("{host}: {failure}");
                if !said.contains(&words) {
                    said.push(words);
                }
            }
        }
        (!said.is_empty()).then(|| said.join("; "))
    }
}

/// Fills the table of a cluster that has no names any more as a compile does, with what the mesh says.
pub(super) fn give_back(cluster: &Cluster, set: Option<&Arc<EndpointSet>>) {
    cluster.state.set_discovery_failure(None);
    let written = match cluster.mesh.discovery {
        Discovery::Endpoints => set.map(|set| set.endpoints.as_slice()).unwrap_or_default(),
        Discovery::StrictDns { .. } | Discovery::LogicalDns { .. } | Discovery::OriginalDestination => &[],
    };
    let addressed = |endpoint: &&mesh::Endpoint| !matches!(endpoint.address, EndpointAddress::Name(..));
    cluster.publish(written.iter().filter(addressed).cloned().collect());
}

/// Names differ by more than case. A trailing dot counts: it keeps the search list out.
fn key(host: &Name) -> Arc<str> {
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        host.to_ascii_lowercase().into()
    } else {
        host.clone()
    }
}

/// The pause after one more failure: exponential, bounded, and shortened by chance by up to a half, so that the proxies of a mesh do not return to
/// a recovered server all at once.
fn backoff(failures: u32) -> Duration {
    let longest = FIRST_RETRY.saturating_mul(1 << failures.min(16)).min(MAX_RETRY);
    longest.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests;
