//! What Istio has no name for: the `sidegate_*` families.

use super::bundle::{Bundle, Kind, Slot, Spec};
use super::registry::{Registry, Series};
use super::worker::WorkerMetrics;
use crate::telemetry::log_sink::Lost;
use std::collections::HashMap;
use std::time::Duration;

macro_rules! family {
    ($kind:ident, $name:literal, $help:literal) => {
        Spec { name: $name, help: $help, kind: Kind::$kind }
    };
}

static POOL: Bundle = Bundle {
    labels: &["cluster"],
    families: &[
        family!(Gauge, "sidegate_pool_connections_active", "Upstream connections that carry a request."),
        family!(Gauge, "sidegate_pool_connections_idle", "Upstream connections ready to be used."),
        family!(Counter, "sidegate_pool_connections_opened_total", "Upstream connections opened."),
        family!(Gauge, "sidegate_pool_requests_pending", "Requests that wait for an upstream connection."),
        family!(
            Counter,
            "sidegate_pool_overflow_total",
            "Requests refused because a pool's limit was reached."
        ),
    ],
};
static POOL_CLOSED: Bundle = Bundle {
    labels: &["cluster", "reason"],
    families: &[family!(
        Counter,
        "sidegate_pool_connections_closed_total",
        "Upstream connections closed, by reason."
    )],
};
static LIMIT: Bundle = Bundle {
    labels: &["limit"],
    families: &[family!(Counter, "sidegate_limit_hits_total", "Times a limit of /limits was hit.")],
};
static EVENTS: Bundle = Bundle {
    labels: &[],
    families: &[
        family!(
            Counter,
            "sidegate_detection_timeouts_total",
            "Connections whose protocol did not show in time."
        ),
        family!(Counter, "sidegate_accept_errors_total", "Connections that could not be accepted."),
        family!(
            Counter,
            "sidegate_lost_trailers_total",
            "Trailers the other side's protocol could not carry."
        ),
        family!(Counter, "sidegate_panics_total", "Requests that ended in a bug of the proxy."),
        family!(
            Counter,
            "sidegate_revoked_total",
            "Connections, tunnels and requests that were ended because policies allow them no more."
        ),
    ],
};
static CONFIG: Bundle = Bundle {
    labels: &[],
    families: &[
        family!(Gauge, "sidegate_config_generation", "Number of the configuration in force."),
        family!(Gauge, "sidegate_config_last_reload_timestamp_seconds", "When it came into force."),
        family!(
            Gauge,
            "sidegate_config_rejected_objects",
            "Objects, files and parts that the last configuration had refused."
        ),
        family!(
            Gauge,
            "sidegate_config_warnings",
            "Warnings about the configuration in force; see /config_dump."
        ),
        family!(
            Gauge,
            "sidegate_config_closed_scopes",
            "Security objects that are refused and have no earlier version: what they are about is closed."
        ),
        family!(
            Gauge,
            "sidegate_config_unreadable_files",
            "Files and folders that cannot be read to their end."
        ),
    ],
};
static RELOADS: Bundle = Bundle {
    labels: &["result"],
    families: &[family!(Counter, "sidegate_config_reloads_total", "Reloads, by result.")],
};

static JWKS: Bundle = Bundle {
    labels: &["issuer", "uri"],
    families: &[
        family!(Gauge, "sidegate_jwks_keys", "Keys of an issuer that can be used."),
        family!(Gauge, "sidegate_jwks_age_seconds", "Seconds since they were fetched."),
        family!(Counter, "sidegate_jwks_fetches_total", "Fetches of keys."),
        family!(Counter, "sidegate_jwks_fetch_failures_total", "Fetches of keys that failed."),
    ],
};
static TOKENS: Bundle = Bundle {
    labels: &[],
    families: &[
        family!(Counter, "sidegate_jwt_cache_hits_total", "Tokens that had been verified before."),
        family!(Counter, "sidegate_jwt_cache_misses_total", "Tokens that had to be verified."),
    ],
};

static ACCESS_LOG_LOST: Spec = family!(
    Counter,
    "sidegate_access_log_lines_dropped_total",
    "Lines of access logs that were not written, because the file was too slow or refused them."
);
static OWN_LOG_LOST: Spec = family!(
    Counter,
    "sidegate_own_log_lines_dropped_total",
    "Lines of the proxy's own log that were not written, because nobody read standard error."
);

/// Shows how many lines of access logs were lost.
pub(crate) fn show_lost_access_log_lines(registry: &Registry, lost: Lost) {
    registry.external(&ACCESS_LOG_LOST, move || lost.lines());
}

/// Shows how many lines of the proxy's own log were lost.
pub(crate) fn show_lost_own_log_lines(registry: &Registry, lost: Lost) {
    registry.external(&OWN_LOG_LOST, move || lost.lines());
}

/// The connection pools of one cluster. One per worker and cluster, kept as long as the pool.
#[derive(Clone, Debug)]
pub struct PoolMetrics {
    cluster: Box<str>,
    series: Series,
}

impl PoolMetrics {
    const ACTIVE: Slot = POOL.scalar(0);
    const IDLE: Slot = POOL.scalar(1);
    const OPENED: Slot = POOL.scalar(2);
    const PENDING: Slot = POOL.scalar(3);
    const OVERFLOW: Slot = POOL.scalar(4);

    /// The families of `cluster`.
    #[must_use]
    pub fn new(registry: &Registry, cluster: &str) -> Self {
        Self { cluster: cluster.into(), series: registry.series(&POOL, &[cluster]) }
    }

    /// Connections in use became more or fewer.
    pub fn shift_active(&self, worker: &WorkerMetrics, by: i64) {
        worker.shift(&self.series, Self::ACTIVE, by);
    }

    /// Idle connections became more or fewer.
    pub fn shift_idle(&self, worker: &WorkerMetrics, by: i64) {
        worker.shift(&self.series, Self::IDLE, by);
    }

    /// Waiting requests became more or fewer.
    pub fn shift_pending(&self, worker: &WorkerMetrics, by: i64) {
        worker.shift(&self.series, Self::PENDING, by);
    }

    /// A connection was opened.
    pub fn opened(&self, worker: &WorkerMetrics) {
        worker.add(&self.series, Self::OPENED, 1);
    }

    /// A request was refused for want of a connection.
    pub fn overflowed(&self, worker: &WorkerMetrics) {
        worker.add(&self.series, Self::OVERFLOW, 1);
    }

    /// The series counting connections closed for `reason`, a word of a closed set. Resolve once and keep.
    #[must_use]
    pub fn closed(&self, registry: &Registry, reason: &'static str) -> Series {
        registry.series(&POOL_CLOSED, &[&self.cluster, reason])
    }

    /// The slot of [`PoolMetrics::closed`].
    pub const CLOSED: Slot = POOL_CLOSED.scalar(0);
}

/// Hits of one limit.
#[derive(Clone, Debug)]
pub struct LimitMetrics(Series);

impl LimitMetrics {
    const HITS: Slot = LIMIT.scalar(0);

    /// The hits of the limit `name`, as `/limits` calls it.
    #[must_use]
    pub fn new(registry: &Registry, name: &'static str) -> Self {
        Self(registry.series(&LIMIT, &[name]))
    }

    /// The limit was hit.
    pub fn hit(&self, worker: &WorkerMetrics) {
        worker.add(&self.0, Self::HITS, 1);
    }
}

/// Rare events of a worker that belong to no route or cluster.
#[derive(Clone, Debug)]
pub struct WorkerEvents(Series);

impl WorkerEvents {
    const DETECTION_TIMEOUTS: Slot = EVENTS.scalar(0);
    const ACCEPT_ERRORS: Slot = EVENTS.scalar(1);
    const LOST_TRAILERS: Slot = EVENTS.scalar(2);
    const PANICS: Slot = EVENTS.scalar(3);
    const REVOKED: Slot = EVENTS.scalar(4);

    /// The events of this registry.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        Self(registry.series(&EVENTS, &[]))
    }

    /// A connection's protocol did not show in time.
    pub fn detection_timed_out(&self, worker: &WorkerMetrics) {
        worker.add(&self.0, Self::DETECTION_TIMEOUTS, 1);
    }

    /// A connection could not be accepted.
    pub fn accept_failed(&self, worker: &WorkerMetrics) {
        worker.add(&self.0, Self::ACCEPT_ERRORS, 1);
    }

    /// Trailers were lost.
    pub fn trailers_lost(&self, worker: &WorkerMetrics) {
        worker.add(&self.0, Self::LOST_TRAILERS, 1);
    }

    /// Something open was ended because policies allow it no more.
    pub fn revoked(&self, worker: &WorkerMetrics) {
        worker.add(&self.0, Self::REVOKED, 1);
    }

    /// A request panicked.
    pub fn panicked(&self, worker: &WorkerMetrics) {
        worker.add(&self.0, Self::PANICS, 1);
    }
}

/// The configuration in force, told by the control side.
#[derive(Clone, Debug)]
pub struct ConfigMetrics {
    state: Series,
    applied: Series,
    partial: Series,
    refused: Series,
}

impl ConfigMetrics {
    const GENERATION: Slot = CONFIG.scalar(0);
    const LAST_RELOAD: Slot = CONFIG.scalar(1);
    const REJECTED: Slot = CONFIG.scalar(2);
    const WARNINGS: Slot = CONFIG.scalar(3);
    const CLOSED: Slot = CONFIG.scalar(4);
    const UNREADABLE: Slot = CONFIG.scalar(5);
    const RELOADS: Slot = RELOADS.scalar(0);

    /// The families of this registry.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let result = |result| registry.series(&RELOADS, &[result]);
        let (applied, partial, refused) = (result("applied"), result("partial"), result("refused"));
        Self { state: registry.series(&CONFIG, &[]), applied, partial, refused }
    }

    /// A configuration came into force at `seconds` since the epoch, without `rejected` of its objects and with so many warnings.
    pub fn applied(
        &self,
        registry: &Registry,
        generation: u64,
        seconds: u64,
        rejected: usize,
        warnings: usize,
    ) {
        registry.set(&self.state, Self::GENERATION, generation.cast_signed());
        registry.set(&self.state, Self::LAST_RELOAD, seconds.cast_signed());
        registry.set(&self.state, Self::REJECTED, i64::try_from(rejected).unwrap_or(i64::MAX));
        registry.set(&self.state, Self::WARNINGS, i64::try_from(warnings).unwrap_or(i64::MAX));
        registry.add(if rejected == 0 { &self.applied } else { &self.partial }, Self::RELOADS, 1);
    }

    /// What the configuration in force closes for want of a valid object, and how many files are not known whole.
    pub fn lacking(&self, registry: &Registry, closed: usize, unreadable: usize) {
        registry.set(&self.state, Self::CLOSED, i64::try_from(closed).unwrap_or(i64::MAX));
        registry.set(&self.state, Self::UNREADABLE, i64::try_from(unreadable).unwrap_or(i64::MAX));
    }

    /// Nothing of a new configuration could be used.
    pub fn refused(&self, registry: &Registry) {
        registry.add(&self.refused, Self::RELOADS, 1);
    }
}

/// Keys of token issuers, told by the control side now and then.
#[derive(Debug)]
pub struct JwksMetrics {
    tokens: Series,
    cache: (u64, u64),
    sets: HashMap<(Box<str>, Box<str>), Told>,
}

/// A key set, and the fetches and failures of it that were told.
type Told = (Series, (u64, u64));

impl JwksMetrics {
    const KEYS: Slot = JWKS.scalar(0);
    const AGE: Slot = JWKS.scalar(1);
    const FETCHES: Slot = JWKS.scalar(2);
    const FAILURES: Slot = JWKS.scalar(3);
    const HITS: Slot = TOKENS.scalar(0);
    const MISSES: Slot = TOKENS.scalar(1);

    /// The families of this registry.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        Self { tokens: registry.series(&TOKENS, &[]), cache: (0, 0), sets: HashMap::new() }
    }

    /// What is known of the keys of `(issuer, uri)`; `fetches` are all and those that failed since they are in use.
    pub fn key_set(
        &mut self,
        registry: &Registry,
        (issuer, uri): (&str, &str),
        keys: usize,
        age: Option<Duration>,
        fetches: (u64, u64),
    ) {
        let (series, told) = self
            .sets
            .entry((issuer.into(), uri.into()))
            .or_insert_with(|| (registry.series(&JWKS, &[issuer, uri]), (0, 0)));
        registry.set(series, Self::KEYS, i64::try_from(keys).unwrap_or(i64::MAX));
        let age = age.map_or(0, |age| age.as_secs());
        registry.set(series, Self::AGE, age.cast_signed());
        registry.add(series, Self::FETCHES, risen(&mut told.0, fetches.0));
        registry.add(series, Self::FAILURES, risen(&mut told.1, fetches.1));
    }

    /// Forgets key sets that are in use no more.
    pub fn retain(&mut self, in_use: impl Fn(&str, &str) -> bool) {
        self.sets.retain(|(issuer, uri), _| in_use(issuer, uri));
    }

    /// Hits and misses of all caches of verified tokens that are in use.
    pub fn cache(&mut self, registry: &Registry, (hits, misses): (u64, u64)) {
        // A cache that is gone takes its counts with it: then nothing has risen.
        let (told_hits, told_misses) = std::mem::replace(&mut self.cache, (hits, misses));
        registry.add(&self.tokens, Self::HITS, hits.saturating_sub(told_hits));
        registry.add(&self.tokens, Self::MISSES, misses.saturating_sub(told_misses));
    }
}

/// By how much a count has risen; one that fell began anew.
fn risen(told: &mut u64, now: u64) -> u64 {
    let by = now.checked_sub(*told).unwrap_or(now);
    *told = now;
    by
}
