//! What providers of external authorization said.

use super::bundle::{Bundle, Kind, Spec};
use super::registry::{Registry, Series};
use std::collections::HashMap;

const fn counter(name: &'static str, help: &'static str) -> Spec {
    Spec { name, help, kind: Kind::Counter }
}

static PROVIDER: Bundle = Bundle {
    labels: &["provider"],
    families: &[
        counter("sidegate_ext_authz_allowed_total", "Requests that the provider allowed."),
        counter("sidegate_ext_authz_denied_total", "Requests that the provider denied."),
        counter("sidegate_ext_authz_timeouts_total", "Questions that the provider did not answer in time."),
        counter("sidegate_ext_authz_unreachable_total", "Questions that did not reach the provider."),
        counter("sidegate_ext_authz_errors_total", "Questions that the provider answered with a failure."),
        counter(
            "sidegate_ext_authz_unreadable_total",
            "Questions that could not be put, or whose answer could not be followed; all were refused.",
        ),
        counter("sidegate_ext_authz_failure_allowed_total", "Requests that passed without a verdict."),
        counter("sidegate_ext_authz_cached_total", "Verdicts, of those above, that had been given before."),
    ],
};

/// Counts of providers, told by the control side now and then.
#[derive(Debug, Default)]
pub struct ProviderMetrics(HashMap<Box<str>, Told>);

/// A provider's series, and the counts that were told.
type Told = (Series, [u64; 8]);

impl ProviderMetrics {
    /// What a provider came to since it is in use, in the order of the families: allowed, denied, timeouts, unreachable, errors, unreadable, passed
    /// without a verdict, known from before.
    pub fn provider(&mut self, registry: &Registry, name: &str, counts: [u64; 8]) {
        let (series, told) =
            self.0.entry(name.into()).or_insert_with(|| (registry.series(&PROVIDER, &[name]), [0; 8]));
        for (at, (told, now)) in told.iter_mut().zip(counts).enumerate() {
            // A count that fell began anew.
            let by = now.checked_sub(*told).unwrap_or(now);
            *told = now;
            registry.add(series, PROVIDER.scalar(at), by);
        }
    }

    /// Forgets providers that are in use no more.
    pub fn retain(&mut self, in_use: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| in_use(name));
    }
}
