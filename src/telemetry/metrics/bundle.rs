//! The shape of metrics: families, buckets, and bundles of families that share their labels.

/// What a family counts.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down; its value is the sum over the workers.
    Gauge,
    /// Observations sorted into fixed buckets.
    Histogram(&'static Buckets),
}

impl Kind {
    /// Cells of a slab that one series of this kind takes: a histogram keeps its sum, its buckets and `+Inf`.
    const fn width(&self) -> u32 {
        match self {
            Self::Counter | Self::Gauge => 1,
            Self::Histogram(buckets) => buckets.bounds.len() as u32 + 2,
        }
    }
}

/// One metric family: its name, help line and kind.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The family's full name, with its unit and `_total`.
    pub name: &'static str,
    /// The text of the `# HELP` line.
    pub help: &'static str,
    /// What it counts.
    pub kind: Kind,
}

/// Families that share their label names, so that one series handle serves all of them.
#[derive(Debug)]
pub struct Bundle {
    /// Label names, in the order in which values are given.
    pub labels: &'static [&'static str],
    /// The families, in the order of their slots.
    pub families: &'static [Spec],
}

/// Where a counter or gauge lies within the cells of a series of its bundle.
#[derive(Clone, Copy, Debug)]
pub struct Slot(pub(super) u32);

/// Where a histogram lies within the cells of a series of its bundle.
#[derive(Clone, Copy, Debug)]
pub struct HistogramSlot {
    pub(super) offset: u32,
    pub(super) buckets: &'static Buckets,
}

impl Bundle {
    /// The slot of the counter or gauge at `index`; a constant of another kind does not compile.
    #[must_use]
    pub const fn scalar(&self, index: usize) -> Slot {
        assert!(matches!(self.families[index].kind, Kind::Counter | Kind::Gauge), "not a counter or gauge");
        Slot(self.offset(index))
    }

    /// The slot of the histogram at `index`; a constant of another kind does not compile.
    #[must_use]
    pub const fn histogram(&self, index: usize) -> HistogramSlot {
        match self.families[index].kind {
            Kind::Histogram(buckets) => HistogramSlot { offset: self.offset(index), buckets },
            Kind::Counter | Kind::Gauge => unreachable!(),
        }
    }

    pub(super) const fn width(&self) -> u32 {
        self.offset(self.families.len())
    }

    /// The bundle's name in the registry: that of its first family.
    pub(super) fn name(&self) -> &'static str {
        self.families.first().map_or("", |family| family.name)
    }

    pub(super) const fn offset(&self, index: usize) -> u32 {
        let (mut at, mut offset) = (0, 0);
        while at < index {
            offset += self.families[at].kind.width();
            at += 1;
        }
        offset
    }
}

/// The upper bounds of a histogram, in the unit in which it is recorded.
#[derive(Debug, PartialEq, Eq)]
pub struct Buckets {
    bounds: &'static [u64],
    /// Recorded units per unit shown: 1000 when microseconds are shown as milliseconds.
    divisor: u64,
    /// The first bucket that can hold a value, by the number of the value's significant bits.
    first: [u8; 65],
}

impl Buckets {
    /// Istio's (Envoy's) default buckets in milliseconds, 0.5 ms to one hour; observations are microseconds.
    pub const DURATION: Self = Self::new(
        &[
            500,
            1_000,
            5_000,
            10_000,
            25_000,
            50_000,
            100_000,
            250_000,
            500_000,
            1_000_000,
            2_500_000,
            5_000_000,
            10_000_000,
            30_000_000,
            60_000_000,
            300_000_000,
            600_000_000,
            1_800_000_000,
            3_600_000_000,
        ],
        1_000,
    );

    /// Powers of ten from one byte to a gigabyte.
    pub const BYTES: Self = Self::new(
        &[1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000],
        1,
    );

    /// Buckets with these ascending, inclusive upper bounds, shown divided by `divisor` (1 or 1000).
    #[must_use]
    pub const fn new(bounds: &'static [u64], divisor: u64) -> Self {
        assert!(bounds.len() < 255, "too many buckets");
        assert!(divisor == 1 || divisor == 1_000, "bounds are shown as they are or in thousands");
        let mut first = [0; 65];
        let mut bits = 0;
        while bits < 65 {
            let least = if bits == 0 { 0 } else { 1_u64 << (bits - 1) };
            let mut index = 0;
            while index < bounds.len() && bounds[index] < least {
                index += 1;
            }
            first[bits] = index as u8;
            bits += 1;
        }
        Self { bounds, divisor, first }
    }

    /// The bucket of `value`: the first whose bound is not below it; one past the last bound is `+Inf`.
    #[must_use]
    pub fn index(&self, value: u64) -> usize {
        let bits = (u64::BITS - value.leading_zeros()) as usize;
        let mut index = self.first.get(bits).map_or(0, |first| usize::from(*first));
        while self.bounds.get(index).is_some_and(|bound| *bound < value) {
            index += 1;
        }
        index
    }

    /// The upper bounds in recorded units, without `+Inf`.
    #[must_use]
    pub fn bounds(&self) -> &'static [u64] {
        self.bounds
    }

    /// Recorded units per unit shown.
    #[must_use]
    pub fn divisor(&self) -> u64 {
        self.divisor
    }
}
