//! Fetches the keys of token issuers, on the control runtime: requests never wait for it, but for the very first keys.
//!
//! One task for each key set in use. It ends with the set, for it holds the set only while it fetches. Each has its own timer, so that an issuer
//! which does not answer costs the others nothing.

mod disk;
mod fetch;
mod target;
mod tls;

use crate::config::resources::proxy::Proxy;
use crate::proxy::Shared;
use crate::proxy::internal::Calls;
use crate::snapshot::Snapshot;
use crate::telemetry::metrics::JwksMetrics;
use arc_swap::ArcSwap;
use disk::Disk;
use fetch::Fetcher;
use filter_jwt::{Cache, KeySet};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};
use target::Allowed;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

/// How long keys are good for when their server does not say; Istio's time.
const REFRESH: Duration = Duration::from_secs(300);

/// The bounds of what a server may say by `Cache-Control: max-age`.
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3600);

/// The pause after the first failed fetch in a row; each further one doubles it, up to [`REFRESH`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// How often ages and counts are written into the metrics.
const MEASURE: Duration = Duration::from_secs(5);

/// What the Proxy says of fetching.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// Roots for `https`: a folder or file of PEM.
    pub(crate) roots: PathBuf,
    /// Private targets that are allowed.
    pub(crate) allowed: Allowed,
    /// Where keys outlive the process.
    pub(crate) state: Option<PathBuf>,
}

impl Settings {
    /// What a Proxy says.
    pub(crate) fn new(proxy: &Proxy) -> Self {
        Self {
            roots: PathBuf::from(&proxy.trust.system),
            allowed: Allowed::new(&proxy.trust.private_targets),
            state: proxy.state.directory.as_deref().filter(|folder| !folder.is_empty()).map(PathBuf::from),
        }
    }
}

/// Keeps the keys of all sets in use fresh. Dropping it ends all fetches.
#[derive(Debug)]
pub(crate) struct JwksRefresh {
    shared: Arc<Fetching>,
    runtime: Handle,
    running: Vec<(Weak<KeySet>, AbortHandle)>,
    measuring: AbortHandle,
}

/// What the tasks share.
#[derive(Debug)]
struct Fetching {
    fetcher: Fetcher,
    settings: ArcSwap<Settings>,
}

impl JwksRefresh {
    /// Fetches from tasks of `runtime`, once [`reconcile`](Self::reconcile) says what.
    pub(crate) fn new(shared: &Arc<Shared>, calls: Calls, runtime: Handle) -> Self {
        let measuring = runtime.spawn(measure(shared.clone())).abort_handle();
        let fetching =
            Fetching { fetcher: Fetcher::new(shared.clone(), calls), settings: ArcSwap::default() };
        Self { shared: Arc::new(fetching), runtime, running: Vec::new(), measuring }
    }

    /// Follows a snapshot that was put in force: fetches for new sets, goes on for the others.
    pub(crate) fn reconcile(&mut self, snapshot: &Snapshot, settings: Settings) {
        self.shared.settings.store(Arc::new(settings));
        self.running.retain(|(set, _)| set.strong_count() > 0);
        for set in snapshot.keep.all::<KeySet>() {
            let set = Arc::downgrade(&set);
            if !self.running.iter().any(|(known, _)| known.ptr_eq(&set)) {
                let task = self.runtime.spawn(keep_fresh(self.shared.clone(), set.clone()));
                self.running.push((set, task.abort_handle()));
            }
        }
    }
}

impl Drop for JwksRefresh {
    fn drop(&mut self) {
        self.measuring.abort();
        for (_, task) in &self.running {
            task.abort();
        }
    }
}

/// Fetches the keys of a set until nobody uses it.
async fn keep_fresh(shared: Arc<Fetching>, set: Weak<KeySet>) {
    let Some(asked) = set.upgrade().map(|set| set.asked()) else { return };
    if let Some(set) = set.upgrade() {
        restore(&shared, &set).await;
    }
    let mut failures = 0;
    while let Some(pause) = fetch_once(&shared, &set, &mut failures).await {
        tokio::select! {
            () = tokio::time::sleep(jitter(pause)) => {}
            // Asked for by a request, or the set is gone.
            () = asked.notified() => {}
        }
    }
}

/// One fetch, and how long to wait for the next; `None` when the set is used no more.
async fn fetch_once(shared: &Fetching, set: &Weak<KeySet>, failures: &mut u32) -> Option<Duration> {
    let set = set.upgrade()?;
    let settings = shared.settings.load_full();
    let fetch = set.begin();
    let fetched = shared.fetcher.fetch(&set, &settings).await;
    let now = SystemTime::now();
    let outcome = match fetched {
        Ok(fetched) => fetch.succeed(&fetched.text, now).map(|()| fetched),
        Err(error) => {
            fetch.fail(error.clone());
            Err(error)
        }
    };
    match outcome {
        Ok(fetched) => {
            *failures = 0;
            for refused in set.status().refused {
                tracing::debug!(issuer = set.issuer(), uri = set.uri(), "a key cannot be used: {refused}");
            }
            if let Some(folder) = &settings.state {
                let disk = Disk::new(folder, &set);
                let kept = super::blocking(move || disk.write(&fetched.text, now)).await;
                if let Err(error) = kept {
                    tracing::warn!(issuer = set.issuer(), %error, "the keys cannot be kept for the next start");
                }
            }
            Some(fetched.fresh_for.unwrap_or(REFRESH).clamp(SHORTEST, LONGEST))
        }
        Err(error) => {
            let status = set.status();
            tracing::warn!(
                issuer = set.issuer(),
                uri = set.uri(),
                keys = status.keys,
                "the keys cannot be fetched, the last good ones stay: {error}"
            );
            let pause = FIRST_PAUSE.saturating_mul(1 << (*failures).min(16)).min(REFRESH);
            *failures = failures.saturating_add(1);
            Some(pause)
        }
    }
}

/// Puts the keys of an earlier process in force, until fresh ones come.
async fn restore(shared: &Fetching, set: &Arc<KeySet>) {
    let Some(folder) = &shared.settings.load().state else { return };
    let disk = Disk::new(folder, set);
    let read = super::blocking(move || disk.read()).await;
    let restored = match read {
        Ok(None) => return,
        Ok(Some((text, fetched))) => set.restore(&text, fetched, SystemTime::now()),
        Err(error) => Err(error.to_string()),
    };
    match restored {
        Ok(true) => tracing::info!(
            issuer = set.issuer(),
            "the keys of the last run are in force until fresh ones come"
        ),
        Ok(false) => {}
        Err(error) => {
            tracing::warn!(issuer = set.issuer(), %error, "the keys of the last run cannot be used");
        }
    }
}

/// A tenth more or less, so that proxies that started together do not ask together.
fn jitter(pause: Duration) -> Duration {
    pause.mul_f64(0.9 + 0.2 * fastrand::f64())
}

/// Ages go on without a fetch, and the caches count for themselves: both are written now and then.
async fn measure(shared: Arc<Shared>) {
    let mut metrics = JwksMetrics::new(shared.registry());
    let mut ticks = tokio::time::interval(MEASURE);
    loop {
        ticks.tick().await;
        let keep = shared.snapshot().keep.clone();
        let now = SystemTime::now();
        let sets = keep.all::<KeySet>();
        metrics.retain(|issuer, uri| sets.iter().any(|set| set.issuer() == issuer && set.uri() == uri));
        for set in sets {
            let status = set.status();
            let age = status.fetched.map(|fetched| now.duration_since(fetched).unwrap_or_default());
            metrics.key_set(
                shared.registry(),
                (set.issuer(), set.uri()),
                status.keys,
                age,
                (status.fetches, status.failures),
            );
        }
        let counts = keep
            .all::<Cache>()
            .iter()
            .map(|cache| cache.counts())
            .fold((0, 0), |(hits, misses), one| (hits + one.hits, misses + one.misses));
        metrics.cache(shared.registry(), counts);
    }
}

#[cfg(test)]
mod tests;
