//! Settings of the Proxy that are read once, at the start: a change of them is said until a restart applies it.

use crate::config::finding::{Finding, Severity};
use crate::config::resources::Resource;
use crate::config::resources::proxy::Proxy;

use super::cpus;

/// What they were at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AtStart {
    workers: usize,
    admin: String,
    health: String,
    metrics: String,
}

impl AtStart {
    /// Those of a Proxy that starts with so many workers.
    pub(super) fn new(proxy: &Proxy, workers: usize) -> Self {
        Self {
            workers,
            admin: proxy.admin.address.clone(),
            health: proxy.health.address.clone(),
            metrics: proxy.metrics.address.clone(),
        }
    }

    /// A warning for each setting that is written otherwise by now.
    pub(super) fn findings(&self, object: &Resource, now: &Proxy) -> Vec<Finding> {
        let now = Self::new(now, now.workers.map_or_else(cpus::available, |workers| workers as usize));
        [
            ("spec.workers", self.workers.to_string(), now.workers.to_string()),
            ("spec.admin.address", self.admin.clone(), now.admin),
            ("spec.health.address", self.health.clone(), now.health),
            ("spec.metrics.address", self.metrics.clone(), now.metrics),
        ]
        .into_iter()
        .filter(|(_, before, now)| before != now)
        .map(|(field, before, now)| Finding {
            severity: Severity::Warning,
            code: "restart-needed",
            object: Some(object.key.clone()),
            field: field.to_owned(),
            place: Some(object.place(field)),
            message: format!("is read at the start only: {before} is in force, {now} is written"),
            hint: "restart to apply".to_owned(),
        })
        .collect()
    }
}
