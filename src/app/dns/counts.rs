//! `sidegate_dns_lookups_total`.

use super::resolve::{Answer, Failure};
use crate::telemetry::metrics::{Bundle, Kind, Registry, Series, Slot, Spec};

static LOOKUPS: Bundle = Bundle {
    labels: &["result"],
    families: &[Spec {
        name: "sidegate_dns_lookups_total",
        help: "DNS lookups for endpoints, by result.",
        kind: Kind::Counter,
    }],
};

/// Lookups by result: `success`, `not_found`, `no_address`, `timeout`, `error`.
#[derive(Debug)]
pub(super) struct LookupCounts {
    success: Series,
    not_found: Series,
    no_address: Series,
    timeout: Series,
    error: Series,
}

impl LookupCounts {
    const COUNT: Slot = LOOKUPS.scalar(0);

    /// The counts of this registry.
    pub(super) fn new(registry: &Registry) -> Self {
        let result = |result| registry.series(&LOOKUPS, &[result]);
        Self {
            success: result("success"),
            not_found: result("not_found"),
            no_address: result("no_address"),
            timeout: result("timeout"),
            error: result("error"),
        }
    }

    /// A lookup ended.
    pub(super) fn count(&self, registry: &Registry, outcome: &Result<Answer, Failure>) {
        let series = match outcome {
            Ok(_) => &self.success,
            Err(Failure::NotFound) => &self.not_found,
            Err(Failure::NoAddress) => &self.no_address,
            Err(Failure::Timeout) => &self.timeout,
            Err(Failure::Error(_)) => &self.error,
        };
        registry.add(series, Self::COUNT, 1);
    }
}
