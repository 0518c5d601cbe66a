//! One picture of what all workers counted.

use std::sync::Arc;

use super::bundle::{Buckets, Bundle, Kind, Spec};
use super::registry::{External, Registry, Series, lock};
use super::slab::Slab;

/// Shown for label sets beyond the budget.
const OVERFLOW: Spec = Spec {
    name: "sidegate_metric_series_overflow_total",
    help: "Label sets counted under \"other\" because the series budget was spent.",
    kind: Kind::Counter,
};

/// One moment of all families, in the order of their names.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    /// The families, sorted by name.
    pub families: Vec<FamilyScrape>,
}

/// One family with its series.
#[derive(Clone, Debug)]
pub struct FamilyScrape {
    /// Name, help and kind.
    pub spec: Spec,
    /// The names of the labels.
    pub labels: &'static [&'static str],
    /// The series, sorted by label values.
    pub series: Vec<SeriesScrape>,
}

/// One series and its value.
#[derive(Clone, Debug)]
pub struct SeriesScrape {
    /// One value per label name.
    pub values: Arc<[Box<str>]>,
    /// What was counted.
    pub value: Value,
}

/// A value read from the slabs.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A counter.
    Counter(u64),
    /// A gauge.
    Gauge(i64),
    /// A number that is not counted but read, as seconds of CPU.
    Float(f64),
    /// A histogram: observations per bucket (not cumulative, `+Inf` last) and their sum in recorded units.
    Histogram {
        /// Its bounds.
        buckets: &'static Buckets,
        /// Observations per bucket.
        counts: Vec<u64>,
        /// Sum of the observations, in recorded units.
        sum: u64,
    },
}

impl Registry {
    /// Adds up the slabs of all workers.
    #[must_use]
    pub fn scrape(&self) -> Scrape {
        // The handles copied here keep the cells from being given away while they are read without the lock.
        let (mut listed, external) = self.listed();
        let slabs = lock(&self.slabs).clone();
        listed.sort_by(|a, b| (a.bundle.name(), &a.values).cmp(&(b.bundle.name(), &b.values)));
        let mut families: Vec<FamilyScrape> = Vec::new();
        for same in listed.chunk_by(|a, b| a.bundle.name() == b.bundle.name()) {
            let Some(Listed { bundle, .. }) = same.first() else { continue };
            for (index, spec) in bundle.families.iter().enumerate() {
                let series = same.iter().map(|one| SeriesScrape {
                    values: one.values.clone(),
                    value: read(&slabs, one.series.cell + bundle.offset(index), spec.kind),
                });
                families.push(FamilyScrape { spec: *spec, labels: bundle.labels, series: series.collect() });
            }
        }
        let own = external.into_iter().map(|(spec, read)| (*spec, read()));
        for (spec, value) in own.chain([(OVERFLOW, self.overflowed())]) {
            let value = match spec.kind {
                Kind::Gauge => Value::Gauge(value.cast_signed()),
                _ => Value::Counter(value),
            };
            families.push(FamilyScrape::single(spec, value));
        }
        families.sort_by_key(|family| family.spec.name);
        Scrape { families }
    }

    fn listed(&self) -> (Vec<Listed>, Vec<(&'static Spec, External)>) {
        let state = lock(&self.state);
        let known = state.series.iter().map(|(key, entry)| Listed {
            bundle: entry.bundle,
            values: key.values.clone(),
            series: entry.series.clone(),
        });
        let others = state.others.values().map(|(bundle, series)| Listed {
            bundle,
            values: bundle.labels.iter().map(|_| Box::from("other")).collect(),
            series: series.clone(),
        });
        (known.chain(others).collect(), state.external.clone())
    }
}

impl FamilyScrape {
    /// A family of one series without labels.
    #[must_use]
    pub fn single(spec: Spec, value: Value) -> Self {
        Self { spec, labels: &[], series: vec![SeriesScrape { values: Arc::default(), value }] }
    }
}

impl Value {
    /// Whether nothing was counted yet.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        match self {
            Self::Counter(value) => *value == 0,
            Self::Gauge(value) => *value == 0,
            Self::Float(value) => *value == 0.0,
            Self::Histogram { counts, .. } => counts.iter().all(|count| *count == 0),
        }
    }
}

/// A series to be read, held so that its cells stay its own.
struct Listed {
    bundle: &'static Bundle,
    values: Arc<[Box<str>]>,
    series: Series,
}

fn read(slabs: &[Arc<Slab>], cell: u32, kind: Kind) -> Value {
    let sum = |cell| slabs.iter().fold(0_u64, |sum, slab| sum.wrapping_add(slab.read(cell)));
    match kind {
        Kind::Counter => Value::Counter(sum(cell)),
        Kind::Gauge => Value::Gauge(sum(cell).cast_signed()),
        Kind::Histogram(buckets) => {
            let counts = (0..=buckets.bounds().len() as u32).map(|index| sum(cell + 1 + index)).collect();
            Value::Histogram { buckets, counts, sum: sum(cell) }
        }
    }
}
