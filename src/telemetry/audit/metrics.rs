//! What metrics say of the audit.

use crate::telemetry::metrics::{Bundle, Kind, Registry, Series, Slot, Spec};
use std::sync::Arc;

static STATE: Bundle = Bundle {
    labels: &[],
    families: &[
        Spec { name: "sidegate_audit_up", help: "Whether the audit can be written.", kind: Kind::Gauge },
        Spec {
            name: "sidegate_audit_missing",
            help: "AuditPolicies that are rejected and have no earlier version: what they ask for is not recorded.",
            kind: Kind::Gauge,
        },
        Spec { name: "sidegate_audit_waiting", help: "Events that are not written yet.", kind: Kind::Gauge },
        Spec { name: "sidegate_audit_sequence", help: "Number of the last record.", kind: Kind::Gauge },
        Spec { name: "sidegate_audit_records_total", help: "Records written.", kind: Kind::Counter },
        Spec {
            name: "sidegate_audit_refused_total",
            help: "Requests refused because they could not be recorded.",
            kind: Kind::Counter,
        },
        Spec {
            name: "sidegate_audit_missed_total",
            help: "Events without a record of their own, as there was no place for them; a Gap record counts them.",
            kind: Kind::Counter,
        },
        Spec {
            name: "sidegate_audit_failures_total",
            help: "Attempts to write that failed.",
            kind: Kind::Counter,
        },
    ],
};

/// The families of the audit.
#[derive(Debug)]
pub(super) struct AuditMetrics {
    registry: Arc<Registry>,
    series: Series,
}

impl AuditMetrics {
    pub(super) const UP: Slot = STATE.scalar(0);
    pub(super) const MISSING: Slot = STATE.scalar(1);
    pub(super) const WAITING: Slot = STATE.scalar(2);
    pub(super) const SEQUENCE: Slot = STATE.scalar(3);
    pub(super) const RECORDS: Slot = STATE.scalar(4);
    pub(super) const REFUSED: Slot = STATE.scalar(5);
    pub(super) const MISSED: Slot = STATE.scalar(6);
    pub(super) const FAILURES: Slot = STATE.scalar(7);

    pub(super) fn new(registry: &Arc<Registry>) -> Self {
        Self { registry: registry.clone(), series: registry.series(&STATE, &[]) }
    }

    pub(super) fn set(&self, slot: Slot, value: u64) {
        self.registry.set(&self.series, slot, value.cast_signed());
    }

    pub(super) fn add(&self, slot: Slot, by: u64) {
        self.registry.add(&self.series, slot, by);
    }
}
