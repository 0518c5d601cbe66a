//! The audit follows the configuration, and is told of it.

use super::{App, blocking};
use crate::config::files::{Rejected, Update};
use crate::config::resources::Resource;
use crate::mesh::TelemetrySettings;
use crate::snapshot::Problem;
use crate::telemetry::audit::{Change, Event};
use std::sync::Arc;

impl App {
    /// Lets the audit follow its policy.
    pub(super) async fn follow_audit(&self, telemetry: &Arc<TelemetrySettings>) -> Option<Problem> {
        let (auditor, telemetry) = (self.workers.shared().auditor().clone(), telemetry.clone());
        let followed = blocking(move || {
            let followed = auditor.follow(telemetry.audit.as_ref(), telemetry.audit_missing.len());
            followed.map_err(|error| (telemetry, error))
        });
        let (telemetry, error) = followed.await.err()?;
        let origin = telemetry.audit.as_ref().map(|audit| audit.origin.clone()).unwrap_or_default();
        Some(Problem { origin, message: format!("the audit cannot be started: {error}") })
    }
}

/// A configuration that came into force after `before`.
pub(super) fn in_force(before: Option<&Update>, update: &Update, problems: &[Problem]) -> Event {
    let before = before.map_or(&[][..], |before| &before.resources);
    let mut change = Change { in_force: true, ..of(update) };
    for resource in &update.resources {
        match find(before, resource) {
            None => change.added.push(resource.key.to_string()),
            Some(old) if !Arc::ptr_eq(old, resource) && **old != **resource => {
                change.changed.push(resource.key.to_string());
            }
            Some(_) => {}
        }
    }
    let gone = before.iter().filter(|old| find(&update.resources, old).is_none());
    change.removed = gone.map(|old| old.key.to_string()).collect();
    change.problems = problems.iter().map(ToString::to_string).collect();
    Event::Configuration(Box::new(change))
}

/// A configuration of which nothing came into force.
pub(super) fn refused(update: &Update, why: &Rejected) -> Event {
    let mut change = of(update);
    change.rejected.insert(0, rejected(why));
    Event::Configuration(Box::new(change))
}

fn of(update: &Update) -> Change {
    Change {
        generation: update.generation,
        hash: update.hash,
        rejected: update.rejected.iter().map(rejected).collect(),
        ..Change::default()
    }
}

fn rejected(rejected: &Rejected) -> String {
    format!("{} ({}): {}", rejected.subject(), rejected.place, rejected.message)
}

/// Both are sorted by key.
fn find<'r>(resources: &'r [Arc<Resource>], like: &Resource) -> Option<&'r Arc<Resource>> {
    let at = resources.binary_search_by(|resource| resource.key.cmp(&like.key)).ok()?;
    resources.get(at)
}
