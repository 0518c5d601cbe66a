//! What metrics say of an identity.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use super::held::Held;
use crate::telemetry::metrics::{Bundle, Kind, Registry, Series, Slot, Spec};

static EXPIRY: Bundle = Bundle {
    labels: &["identity", "part"],
    families: &[Spec {
        name: "sidegate_identity_expiry_seconds",
        help: "Time until a certificate expires: leaf, the first intermediate, the first root. Negative when it has.",
        kind: Kind::Gauge,
    }],
};
static STATE: Bundle = Bundle {
    labels: &["identity"],
    families: &[
        Spec {
            name: "sidegate_identity_valid",
            help: "Whether an identity is in force and valid now.",
            kind: Kind::Gauge,
        },
        Spec {
            name: "sidegate_identity_age_seconds",
            help: "Time since the identity in force came.",
            kind: Kind::Gauge,
        },
        Spec {
            name: "sidegate_identity_generation",
            help: "Renewals of the identity so far.",
            kind: Kind::Gauge,
        },
        Spec {
            name: "sidegate_identity_trust_generation",
            help: "Changes of roots, revocation lists and trust domains so far.",
            kind: Kind::Gauge,
        },
        Spec {
            name: "sidegate_identity_refused_total",
            help: "Deliveries of the source that were kept out, counted once for each new reason.",
            kind: Kind::Counter,
        },
    ],
};

/// The families of one identity, set by whoever keeps it.
#[derive(Debug)]
pub struct IdentityMetrics {
    state: Series,
    ends: [(&'static str, Series); 3],
    refused: AtomicU64,
}

impl IdentityMetrics {
    const END: Slot = EXPIRY.scalar(0);
    const VALID: Slot = STATE.scalar(0);
    const AGE: Slot = STATE.scalar(1);
    const GENERATION: Slot = STATE.scalar(2);
    const TRUST: Slot = STATE.scalar(3);
    const REFUSED: Slot = STATE.scalar(4);

    /// The families of the identity `name`.
    #[must_use]
    pub fn new(registry: &Registry, name: &str) -> Self {
        let end = |part| (part, registry.series(&EXPIRY, &[name, part]));
        let ends = ["leaf", "intermediate", "root"].map(end);
        Self { state: registry.series(&STATE, &[name]), ends, refused: AtomicU64::new(0) }
    }

    /// Shows `held` as it is at `now`.
    pub fn show(&self, registry: &Registry, held: &Held, now: SystemTime) {
        let current = held.load();
        let generation = current.as_ref().map_or(0, |identity| identity.generation());
        let trust = current.as_ref().map_or(0, |identity| identity.trust().generation());
        let valid = current.as_ref().is_some_and(|identity| identity.valid(now));
        registry.set(&self.state, Self::VALID, i64::from(valid));
        registry.set(&self.state, Self::AGE, held.age(now).map_or(0, |age| age.as_secs().cast_signed()));
        registry.set(&self.state, Self::GENERATION, generation.cast_signed());
        registry.set(&self.state, Self::TRUST, trust.cast_signed());
        let failures = held.failures();
        let counted = self.refused.swap(failures, Ordering::Relaxed);
        registry.add(&self.state, Self::REFUSED, failures.saturating_sub(counted));
        for (part, end) in held.ends(now) {
            let left = match end.duration_since(now) {
                Ok(left) => left.as_secs().cast_signed(),
                Err(past) => -past.duration().as_secs().cast_signed(),
            };
            if let Some((_, series)) = self.ends.iter().find(|(known, _)| *known == part) {
                registry.set(series, Self::END, left);
            }
        }
    }
}
