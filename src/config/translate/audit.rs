//! AuditPolicy: the one that holds for the workload of a proxy.
//!
//! One wins: that with a selector over that of the whole namespace, both over those of the root namespace; of equals the older. One that is not
//! valid and has no valid predecessor closes nothing: it says what is to be recorded, not who is let in, and what would be refused without a record
//! is said in it alone. That it is missing is an error here, and stands in `/ready`, log and metrics for as long as it lasts.

use super::index::{Index, Written, origin};
use super::security::Workload;
use super::settings::Settings;
use crate::config::resources::Kind;
use crate::config::resources::own::audit_policy::{AuditEvent, AuditPolicy, AuditSync, WhenFull};
use crate::config::resources::proxy::Proxy;
use crate::mesh::Audit;

/// What an audit of a workload can be.
#[derive(Debug, Default)]
pub(super) struct Audits {
    /// The policy that holds.
    pub(super) audit: Option<Audit>,
    /// Those that should and cannot.
    pub(super) missing: Vec<String>,
}

/// What holds for the workload of a proxy.
pub(super) fn audits(index: &Index<'_>, settings: &Settings<'_>, proxy: &Proxy, namespace: &str) -> Audits {
    let root = settings.root();
    let workload = Workload { namespace, root, proxy };
    let notes = &index.notes;
    let rank = |one: &Written<'_, AuditPolicy>| {
        let selects = one.spec.selector.as_ref().is_some_and(|selector| !selector.match_labels.is_empty());
        (**one.namespace() != *root || namespace == root, selects)
    };
    let mut ours: Vec<_> = index.audit_policies.clone();
    ours.retain(|one| workload.has(one.object, one.spec.selector.as_ref(), &[]));
    // The order of the index, the older first, stays among equals.
    ours.sort_by_key(|one| std::cmp::Reverse(rank(one)));
    let mut all = ours.iter();
    let winner = all.next();
    if let Some(winner) = winner {
        for loser in all {
            let name = &winner.object.key;
            if rank(loser) == rank(winner) {
                let message =
                    format!("does not hold where {name} does: it is for the same workloads, and older");
                notes.warn(loser.object, "spec", "audit-shadowed", message, "keep one of the two");
            } else {
                let message = format!("does not hold where {name} does, which is more specific");
                notes.remark(loser.object, "spec", "audit-shadowed", message);
            }
        }
    }
    let mut missing = Vec::new();
    for one in index.closed.iter().filter(|one| one.object.key.kind == Kind::AuditPolicy) {
        if workload.has(one.object, Some(&one.spec.selector), &[]) {
            let message = format!("is rejected ({}): what it asks for is NOT recorded", one.spec.message);
            let hint = "correct it; there is no earlier version that could hold in its place";
            notes.error(one.object, "spec", "audit-missing", message, hint);
            missing.push(one.object.key.to_string());
        }
    }
    Audits { audit: winner.map(audit), missing }
}

fn audit(written: &Written<'_, AuditPolicy>) -> Audit {
    let spec = written.spec;
    let records = |event| spec.events.contains(&event);
    Audit {
        allowed_percent: if records(AuditEvent::Allowed) {
            spec.allowed_percent.unwrap_or(100.0)
        } else {
            0.0
        },
        configuration: records(AuditEvent::Configuration),
        certificate: records(AuditEvent::Certificate),
        admin: records(AuditEvent::Admin),
        path: spec.file.path.as_str().into(),
        max_size: spec.file.max_size.0,
        keep: spec.file.keep,
        sync_always: spec.file.sync == AuditSync::Always,
        deny_when_full: spec.when_full == WhenFull::Deny,
        origin: origin(written.object, "spec"),
    }
}
