//! Writes the counts of external authorization into the metrics: filters count for themselves.

use crate::proxy::Shared;
use crate::telemetry::metrics::ProviderMetrics;
use filter_authorization::ProviderCounts;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

/// How often.
const MEASURE: Duration = Duration::from_secs(1);

/// Does so until it is dropped.
#[derive(Debug)]
pub(crate) struct ProviderMeasure(AbortHandle);

impl ProviderMeasure {
    /// Measures from a task of `runtime`.
    pub(crate) fn new(shared: &Arc<Shared>, runtime: &Handle) -> Self {
        Self(runtime.spawn(measure(shared.clone())).abort_handle())
    }
}

impl Drop for ProviderMeasure {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn measure(shared: Arc<Shared>) {
    let mut metrics = ProviderMetrics::default();
    let mut ticks = tokio::time::interval(MEASURE);
    loop {
        ticks.tick().await;
        let counts = shared.snapshot().keep.all::<ProviderCounts>();
        metrics.retain(|name| counts.iter().any(|one| one.name() == name));
        for one in counts {
            metrics.provider(shared.registry(), one.name(), one.all());
        }
    }
}
