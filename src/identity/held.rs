//! The identity in force under one name, and what became of the last delivery.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use serde::Serialize;
use tokio::sync::watch;

use super::certificate::sha256;
use super::epoch::Epoch;
use super::error::{Error, written};
use super::material::{Certificate, Identity, Purpose};
use super::pem::Pem;
use crate::config::finding::{Finding, Severity};
use crate::telemetry::audit::{self, Auditor, Event};

/// A renewal is late when less than this part of a certificate's life is left; sources renew when half is.
const LATE: u32 = 5;

/// The identity in force under one name, as the last good delivery of its source made it.
///
/// Readers take it without a lock. It stays in force when a delivery is refused, even beyond its end: [`ready`](Self::ready) says so, and
/// peers refuse it.
#[derive(Debug)]
pub struct Held {
    name: Arc<str>,
    purpose: Purpose,
    current: ArcSwapOption<Identity>,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    epoch: Arc<Epoch>,
    auditor: Option<Arc<Auditor>>,
}

#[derive(Debug, Default)]
struct State {
    /// SHA-256 over the last good delivery: keys are not kept for comparison.
    delivered: Option<[u8; 32]>,
    renewed: Option<SystemTime>,
    failures: u64,
    problem: Option<String>,
    told_expired: bool,
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// It is in force.
    Taken,
    /// It is what is in force already.
    Same,
    /// It is kept out; what was in force stays.
    Refused,
}

/// What is in force, for `/certs` and metrics.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The name it is held under.
    pub name: Arc<str>,
    /// Whether it proves us now.
    pub valid: bool,
    /// Who we are in the mesh.
    pub principal: Option<String>,
    /// Subject of the leaf.
    pub subject: Option<String>,
    /// Renewals so far; 0 is none in force.
    pub generation: u64,
    /// Changes of whom we believe.
    pub trust_generation: u64,
    /// Ends of the certificates, as RFC 3339 writes them: `leaf`, `intermediate`, `root`.
    pub expires: Vec<(&'static str, String)>,
    /// When the one in force came.
    pub renewed: Option<String>,
    /// Deliveries that were kept out.
    pub failures: u64,
    /// Why the last one was; `None` when it was taken.
    pub problem: Option<String>,
}

impl Held {
    /// Nothing is in force yet.
    #[must_use]
    pub fn new(name: &str, purpose: Purpose) -> Self {
        Self::within(Arc::default(), name, purpose)
    }

    /// The same, where a change of whom we believe or of who we are begins a new epoch.
    #[must_use]
    pub fn within(epoch: Arc<Epoch>, name: &str, purpose: Purpose) -> Self {
        Self {
            epoch,
            name: name.into(),
            purpose,
            current: ArcSwapOption::empty(),
            state: Mutex::default(),
            changed: watch::channel(0).0,
            auditor: None,
        }
    }

    /// The same, telling the audit of every delivery.
    #[must_use]
    pub fn audited(self, auditor: Arc<Auditor>) -> Self {
        Self { auditor: Some(auditor), ..self }
    }

    /// The name it is held under.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What is in force; `None` until the first good delivery.
    #[must_use]
    pub fn load(&self) -> Option<Arc<Identity>> {
        self.current.load_full()
    }

    /// Tells of every change by the generation in force.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Takes a delivery, if it is sound; any source calls this.
    pub fn offer(&self, delivery: Result<Pem, Error>, now: SystemTime) -> Offer {
        let mut state = self.lock();
        let outcome = delivery.and_then(|pem| {
            let digest = digest(&pem);
            if state.delivered == Some(digest) {
                return Ok(None);
            }
            let previous = self.current.load();
            Identity::new(&pem, &self.purpose, previous.as_deref(), now)
                .map(|identity| Some((identity, digest)))
        });
        match outcome {
            Ok(None) => {
                state.problem = None;
                Offer::Same
            }
            Ok(Some((identity, digest))) => {
                let (generation, trust) = (identity.generation(), identity.trust().generation());
                let expires = identity.certificate().map(|own| written(own.expires())).unwrap_or_default();
                let previous = self.current.load_full();
                // Whoever had nothing to judge by has judged nobody; but from here on we are somebody.
                let turns = previous.map_or(matches!(self.purpose, Purpose::Workload(_)), |previous| {
                    !identity.stands_for_the_same(&previous)
                });
                let before = self.current.load().as_ref().map_or(0, |before| before.trust().generation());
                let principal =
                    identity.certificate().and_then(|own| own.principal()).map(ToString::to_string);
                self.current.store(Some(Arc::new(identity)));
                *state = State {
                    delivered: Some(digest),
                    renewed: Some(now),
                    failures: state.failures,
                    problem: None,
                    told_expired: false,
                };
                drop(state);
                tracing::info!(identity = %self.name, generation, trust, expires, "identity in force");
                if turns {
                    self.epoch.begin();
                }
                self.note(audit::Certificate {
                    principal,
                    generation,
                    trust,
                    trust_changed: trust != before,
                    expires: Some(expires).filter(|expires| !expires.is_empty()),
                    ..audit::Certificate::default()
                });
                self.changed.send_replace(generation);
                Offer::Taken
            }
            Err(error) => {
                let text = error.to_string();
                // Once for each reason: it is tried again and again.
                if !state.problem.as_deref().is_some_and(|known| same_but_for_the_clock(known, &text)) {
                    let kept = self.current.load().is_some();
                    tracing::warn!(identity = %self.name, error = text, kept, "identity refused");
                    state.failures += 1;
                    let current = self.current.load_full();
                    self.note(audit::Certificate {
                        kept_out: Some(text.clone()),
                        generation: current.as_ref().map_or(0, |current| current.generation()),
                        trust: current.as_ref().map_or(0, |current| current.trust().generation()),
                        ..audit::Certificate::default()
                    });
                }
                state.problem = Some(text);
                Offer::Refused
            }
        }
    }

    /// Whether a delivery would be taken.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn check(&self, pem: &Pem, now: SystemTime) -> Result<(), Error> {
        Identity::new(pem, &self.purpose, self.current.load().as_deref(), now).map(|_| ())
    }

    /// Whether peers would believe us at `now`.
    ///
    /// # Errors
    /// Why not, for `/ready`: traffic that needs the identity has to be refused.
    pub fn ready(&self, now: SystemTime) -> Result<(), String> {
        let problem = || self.lock().problem.clone();
        let Some(current) = self.current.load_full() else {
            let why = problem().unwrap_or_else(|| "its source has delivered nothing yet".to_owned());
            return Err(format!("identity `{}`: none is in force: {why}", self.name));
        };
        if current.valid(now) {
            return Ok(());
        }
        let end = current.certificate().map(|own| written(own.expires())).unwrap_or_default();
        let why = problem().unwrap_or_else(|| "its source has delivered no other".to_owned());
        let clock = written(now);
        Err(format!("identity `{}`: it expired at {end}, our clock says {clock}: {why}", self.name))
    }

    /// What is in force at `now`.
    #[must_use]
    pub fn status(&self, now: SystemTime) -> Status {
        let current = self.current.load_full();
        let own = current.as_ref().and_then(|identity| identity.certificate());
        let ends = self.ends(now).into_iter().map(|(part, end)| (part, written(end))).collect();
        let state = self.lock();
        Status {
            name: Arc::clone(&self.name),
            valid: current.as_ref().is_some_and(|identity| identity.valid(now)),
            principal: own.and_then(|own| own.principal()).map(ToString::to_string),
            subject: own.map(|own| own.subject().to_owned()),
            generation: current.as_ref().map_or(0, |identity| identity.generation()),
            trust_generation: current.as_ref().map_or(0, |identity| identity.trust().generation()),
            expires: ends,
            renewed: state.renewed.map(written),
            failures: state.failures,
            problem: state.problem.clone(),
        }
    }

    /// What is wrong or will be.
    #[must_use]
    pub fn findings(&self, now: SystemTime) -> Vec<Finding> {
        let finding = |severity, code, message: String, hint: &str| Finding {
            severity,
            code,
            object: None,
            field: String::new(),
            place: None,
            message,
            hint: hint.to_owned(),
        };
        let mut findings = Vec::new();
        if let Err(why) = self.ready(now) {
            let hint = "mend its source; until then what needs it is refused";
            findings.push(finding(Severity::Error, "identity-missing", why, hint));
        } else if let Some(problem) = self.lock().problem.clone() {
            let message = format!("identity `{}`: the last renewal is kept out: {problem}", self.name);
            let hint = "the one before stays in force until it expires";
            findings.push(finding(Severity::Warning, "identity-renewal-refused", message, hint));
        }
        let current = self.current.load_full();
        if let Some(own) =
            current.as_ref().and_then(|identity| identity.certificate()).filter(|_| findings.is_empty())
        {
            let life = own.expires().duration_since(own.not_before()).unwrap_or_default();
            if own.expires().duration_since(now).unwrap_or_default() < life / LATE {
                let message = format!(
                    "identity `{}`: it expires at {} and was not renewed",
                    self.name,
                    written(own.expires())
                );
                findings.push(finding(
                    Severity::Warning,
                    "identity-expires-soon",
                    message,
                    "look at its source",
                ));
            }
        }
        if let Some(identity) = &current {
            for (subject, end) in identity.trust().ends().filter(|(_, end)| *end < now).take(16) {
                let message =
                    format!("identity `{}`: the root `{subject}` expired at {}", self.name, written(end));
                let hint = "nothing that it issued is believed; take it out of the trust bundle";
                findings.push(finding(Severity::Warning, "identity-root-expired", message, hint));
            }
        }
        findings
    }

    /// Ends of what is in force.
    pub(super) fn ends(&self, now: SystemTime) -> Vec<(&'static str, SystemTime)> {
        let Some(current) = self.current.load_full() else { return Vec::new() };
        let own = current.certificate();
        let parts = [
            ("leaf", own.map(Certificate::leaf_expires)),
            ("intermediate", own.and_then(Certificate::intermediate_expires)),
            ("root", current.trust().expires(now)),
        ];
        parts.into_iter().filter_map(|(part, end)| Some((part, end?))).collect()
    }

    /// Time since the one in force came.
    pub(super) fn age(&self, now: SystemTime) -> Option<Duration> {
        self.lock().renewed.map(|renewed| now.duration_since(renewed).unwrap_or_default())
    }

    /// Deliveries that were kept out.
    pub(super) fn failures(&self) -> u64 {
        self.lock().failures
    }

    /// Whether the last delivery was kept out.
    pub(super) fn refused(&self) -> bool {
        self.lock().problem.is_some()
    }

    /// Says once that what is in force has expired.
    pub(super) fn say_when_expired(&self, now: SystemTime) {
        let expired = self.current.load().as_ref().is_some_and(|identity| !identity.valid(now));
        let mut state = self.lock();
        if expired && !std::mem::replace(&mut state.told_expired, true) {
            drop(state);
            if let Err(why) = self.ready(now) {
                tracing::error!("{why}");
            }
        }
    }

    fn note(&self, certificate: audit::Certificate) {
        if let Some(auditor) = &self.auditor {
            let certificate = audit::Certificate { name: Arc::clone(&self.name), ..certificate };
            auditor.note(Event::Certificate(Box::new(certificate)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn digest(pem: &Pem) -> [u8; 32] {
    let parts = [
        pem.certificate.as_deref(),
        pem.key.as_ref().map(|key| &key.0[..]),
        pem.roots.as_deref(),
        pem.crl.as_deref(),
    ];
    let all: Vec<u8> = parts
        .into_iter()
        .flat_map(|part| {
            let mut one = [0; 33];
            if let Some(bytes) = part {
                one[0] = 1;
                one[1..].copy_from_slice(&sha256(bytes));
            }
            one
        })
        .collect();
    sha256(&all)
}

/// The text of a validity holds our clock, which is another one each time.
fn same_but_for_the_clock(one: &str, other: &str) -> bool {
    let before = |text: &str| text.split("our clock says").next().map(ToOwned::to_owned);
    before(one) == before(other)
}
