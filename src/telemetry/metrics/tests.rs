use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::telemetry::flags::ResponseFlags;

static NAMED: Bundle = Bundle {
    labels: &["name"],
    families: &[
        Spec { name: "named_total", help: "Named.", kind: Kind::Counter },
        Spec { name: "named_sizes", help: "Sizes.", kind: Kind::Histogram(&SIZES) },
        Spec { name: "named_level", help: "Level.", kind: Kind::Gauge },
    ],
};
static SIZES: Buckets = Buckets::BYTES;
const COUNT: Slot = NAMED.scalar(0);
const SIZE: HistogramSlot = NAMED.histogram(1);
const LEVEL: Slot = NAMED.scalar(2);

fn registry(label_sets: usize) -> Arc<Registry> {
    Registry::new(RegistryLimits { label_sets, grace: Duration::from_secs(60) })
}

/// Counter values of a family by its first label (or "" without labels).
fn counters(registry: &Registry, family: &str) -> HashMap<String, u64> {
    let scrape = registry.scrape();
    let series = scrape.families.into_iter().filter(|f| f.spec.name == family).flat_map(|f| f.series);
    let named = series.map(|series| {
        let Value::Counter(value) = series.value else { panic!("not a counter: {series:?}") };
        (series.values.first().map(ToString::to_string).unwrap_or_default(), value)
    });
    named.collect()
}

struct Mesh {
    source: Part,
    destination: Part,
    service: Part,
}

impl Mesh {
    fn new(registry: &Registry, source: &str) -> Self {
        Self {
            source: registry.workload(&Workload { name: source, ..Workload::default() }),
            destination: registry.workload(&Workload { name: "cart", ..Workload::default() }),
            service: registry.service(&Service { name: "cart", ..Service::default() }),
        }
    }

    fn request(&self, response_code: u16) -> RequestLabels<'_> {
        let connection = ConnectionLabels {
            reporter: Reporter::Source,
            source: &self.source,
            destination: &self.destination,
            service: &self.service,
            protocol: Protocol::Http,
            flags: ResponseFlags::NONE,
            security: SecurityPolicy::Unknown,
        };
        RequestLabels { connection, response_code, grpc_status: None }
    }
}

/// All requests in the registry by source workload.
fn requests(registry: &Registry) -> HashMap<String, u64> {
    let scrape = registry.scrape();
    let family = scrape.families.iter().find(|family| family.spec.name == REQUESTS);
    let mut sums = HashMap::new();
    for series in family.into_iter().flat_map(|family| &family.series) {
        let Value::Counter(value) = series.value else { panic!("not a counter") };
        *sums.entry(series.values[1].to_string()).or_default() += value;
    }
    sums
}

#[test]
fn a_scrape_adds_the_workers_up() {
    let registry = registry(10);
    let series = registry.series(&NAMED, &["a"]);
    let (one, two) = (registry.worker(), registry.worker());
    one.add(&series, COUNT, 2);
    two.add(&series, COUNT, 3);
    registry.add(&series, COUNT, 5);
    one.shift(&series, LEVEL, 1);
    two.shift(&series, LEVEL, -4);
    one.observe(&series, SIZE, 10);
    two.observe(&series, SIZE, 11);
    assert_eq!(counters(&registry, "named_total"), HashMap::from([("a".to_owned(), 10)]));
    let scrape = registry.scrape();
    let value = |name| scrape.families.iter().find(|f| f.spec.name == name).unwrap().series[0].value.clone();
    assert_eq!(value("named_level"), Value::Gauge(-3));
    let Value::Histogram { counts, sum, .. } = value("named_sizes") else { panic!("not a histogram") };
    assert_eq!((counts, sum), (vec![0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0], 21));
}

#[test]
fn label_sets_beyond_the_budget_are_counted_under_other_and_reported() {
    let registry = registry(2);
    let worker = registry.worker();
    let held: Vec<_> = ["a", "b", "c", "d"].iter().map(|name| registry.series(&NAMED, &[name])).collect();
    held.iter().for_each(|series| worker.add(series, COUNT, 1));
    let expected = [("a", 1), ("b", 1), ("other", 2)].map(|(name, count)| (name.to_owned(), count));
    assert_eq!(counters(&registry, "named_total"), HashMap::from(expected));
    assert_eq!(registry.overflowed(), 2);
    assert_eq!(counters(&registry, "sidegate_metric_series_overflow_total")[""], 2);
}

#[test]
fn a_retired_series_is_shown_for_the_grace_period_and_its_cells_start_at_zero() {
    let registry = registry(1);
    let worker = registry.worker();
    let first = registry.series(&NAMED, &["first"]);
    worker.add(&first, COUNT, 7);
    worker.observe(&first, SIZE, 5);
    drop(first);
    let start = Instant::now();
    registry.sweep(start);
    registry.sweep(start + Duration::from_secs(59));
    assert_eq!(counters(&registry, "named_total")["first"], 7);
    registry.sweep(start + Duration::from_secs(60));
    assert!(counters(&registry, "named_total").is_empty());
    let second = registry.series(&NAMED, &["second"]);
    assert_eq!(counters(&registry, "named_total")["second"], 0);
    worker.add(&second, COUNT, 1);
    assert_eq!(counters(&registry, "named_total")["second"], 1);
}

#[test]
fn a_held_series_is_never_given_away() {
    let registry = registry(1);
    let held = registry.series(&NAMED, &["held"]);
    let start = Instant::now();
    (0..10).for_each(|hour| registry.sweep(start + Duration::from_secs(3_600 * hour)));
    registry.worker().add(&held, COUNT, 1);
    assert_eq!(counters(&registry, "named_total")["held"], 1);
}

#[test]
fn a_series_used_again_within_the_grace_period_goes_on_where_it_was() {
    let registry = registry(1);
    let worker = registry.worker();
    worker.add(&registry.series(&NAMED, &["a"]), COUNT, 7);
    let start = Instant::now();
    registry.sweep(start);
    worker.add(&registry.series(&NAMED, &["a"]), COUNT, 1);
    let again = registry.series(&NAMED, &["a"]);
    registry.sweep(start + Duration::from_secs(600));
    worker.add(&again, COUNT, 1);
    assert_eq!(counters(&registry, "named_total")["a"], 9);
}

#[test]
fn requests_stay_counted_while_their_route_lives_even_when_the_cache_forgot_them() {
    let registry = registry(10_000);
    let worker = registry.worker();
    let mesh = Mesh::new(&registry, "web");
    // More label sets than the cache holds.
    for _ in 0..2 {
        (0..3_000).for_each(|code| worker.request(&mesh.request(code), &Measured::default()));
    }
    let start = Instant::now();
    registry.sweep(start);
    registry.sweep(start + Duration::from_secs(3_600));
    assert_eq!(requests(&registry), HashMap::from([("web".to_owned(), 6_000)]));
}

#[test]
fn the_series_of_a_gone_peer_is_freed_though_workers_had_it_cached() {
    let registry = registry(1);
    let worker = registry.worker();
    let gone = Mesh::new(&registry, "gone");
    worker.request(&gone.request(200), &Measured::default());
    drop(gone);
    let start = Instant::now();
    registry.sweep(start);
    worker.forget_stale();
    registry.sweep(start + Duration::from_secs(60));
    registry.sweep(start + Duration::from_secs(120));
    let new = Mesh::new(&registry, "new");
    worker.request(&new.request(200), &Measured::default());
    assert_eq!(requests(&registry), HashMap::from([("new".to_owned(), 1)]));
    assert_eq!(registry.overflowed(), 0);
}

#[test]
fn a_peer_that_returns_keeps_its_counts() {
    let registry = registry(10);
    let worker = registry.worker();
    let start = Instant::now();
    for round in 0..3 {
        let mesh = Mesh::new(&registry, "web");
        worker.request(&mesh.request(200), &Measured::default());
        drop(mesh);
        registry.sweep(start + Duration::from_secs(round));
    }
    assert_eq!(requests(&registry)["web"], 3);
}

#[test]
fn a_scrape_beside_a_busy_worker_sees_counters_only_grow() {
    let registry = registry(10);
    let series = registry.series(&NAMED, &["busy"]);
    let (worker, done) = (registry.worker(), Arc::new(AtomicBool::new(false)));
    let stop = done.clone();
    let held = series.clone();
    let counting = std::thread::spawn(move || {
        let mut counted = 0;
        while !stop.load(Ordering::Relaxed) {
            worker.add(&held, COUNT, 1);
            counted += 1;
        }
        counted
    });
    let mut last = 0;
    for _ in 0..1_000 {
        let now = counters(&registry, "named_total")["busy"];
        assert!(now >= last, "{now} after {last}");
        last = now;
    }
    done.store(true, Ordering::Relaxed);
    let counted = counting.join().unwrap();
    assert_eq!(counters(&registry, "named_total")["busy"], counted);
}

#[test]
fn own_families_are_scraped_under_their_names() {
    let registry = registry(100);
    let worker = registry.worker();
    let pool = PoolMetrics::new(&registry, "outbound|80||cart");
    pool.opened(&worker);
    let closed = pool.closed(&registry, "idle");
    worker.add(&closed, PoolMetrics::CLOSED, 1);
    let config = ConfigMetrics::new(&registry);
    config.applied(&registry, 4, 1_795_255_200, 0, 0);
    config.applied(&registry, 5, 1_795_255_300, 2, 1);
    config.refused(&registry);
    let events = WorkerEvents::new(&registry);
    events.panicked(&worker);
    let limit = LimitMetrics::new(&registry, "header_bytes");
    limit.hit(&worker);
    assert_eq!(counters(&registry, "sidegate_pool_connections_opened_total")["outbound|80||cart"], 1);
    assert_eq!(counters(&registry, "sidegate_pool_connections_closed_total")["outbound|80||cart"], 1);
    assert_eq!(counters(&registry, "sidegate_panics_total")[""], 1);
    assert_eq!(counters(&registry, "sidegate_limit_hits_total")["header_bytes"], 1);
    let reloads = ["applied", "partial", "refused"].map(|result| (result.to_owned(), 1));
    assert_eq!(counters(&registry, "sidegate_config_reloads_total"), HashMap::from(reloads));
}

#[test]
fn a_bundle_without_cells_left_counts_nowhere_but_never_elsewhere() {
    let registry = registry(1_000_000);
    let worker = registry.worker();
    let mesh = Mesh::new(&registry, "web");
    let requested = 30_000;
    (0..requested).for_each(|code| worker.request(&mesh.request(code), &Measured::default()));
    let lost = registry.overflowed();
    assert!(lost > 0, "the slabs were meant to fill");
    assert_eq!(requests(&registry)["web"], u64::from(requested) - lost);
}

proptest! {
    #[test]
    fn every_value_falls_into_the_first_bucket_that_holds_it(value in any::<u64>(), shift in 0_u32..64) {
        for buckets in [&Buckets::DURATION, &Buckets::BYTES] {
            for value in [value >> shift, (value >> shift).saturating_add(1)] {
                let expected = buckets.bounds().iter().position(|bound| value <= *bound);
                prop_assert_eq!(buckets.index(value), expected.unwrap_or(buckets.bounds().len()));
            }
        }
    }

    #[test]
    fn no_count_is_lost_or_misplaced_while_series_come_and_go(steps in prop::collection::vec((0_u8..6, 0_u8..3), 1..200)) {
        let registry = registry(4);
        let worker = registry.worker();
        let (mut held, mut expected): (HashMap<u8, Series>, HashMap<u8, u64>) = (HashMap::new(), HashMap::new());
        let mut now = Instant::now();
        let mut other = 0;
        for (name, step) in steps {
            match step {
                0 if held.len() < 4 || held.contains_key(&name) => {
                    let overflowed = registry.overflowed();
                    let series = registry.series(&NAMED, &[&name.to_string()]);
                    worker.add(&series, COUNT, 1);
                    if registry.overflowed() == overflowed {
                        held.insert(name, series);
                        *expected.entry(name).or_default() += 1;
                    } else {
                        other += 1;
                    }
                }
                1 => {
                    held.remove(&name);
                }
                _ => {
                    registry.sweep(now);
                    now += Duration::from_secs(61);
                    registry.sweep(now);
                    expected.retain(|name, _| held.contains_key(name));
                }
            }
        }
        let mut seen = counters(&registry, "named_total");
        prop_assert_eq!(seen.remove("other").unwrap_or_default(), other);
        let expected: HashMap<_, _> = expected.into_iter().map(|(name, count)| (name.to_string(), count)).collect();
        prop_assert_eq!(seen, expected);
    }
}
