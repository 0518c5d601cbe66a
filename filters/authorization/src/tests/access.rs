//! AccessPolicy: rules, sessions, risk, permissions, shadow, connections.

mod hooks;
mod permissions;
mod risk;
mod rules;
mod sessions;

use super::*;
use crate::access::{
    self, Access, Compiled, Condition, Decision, Effect, Policy, Refusal, Rule, Settings, Threshold, Verdict,
    Within, decide,
};
use std::time::Duration;

/// A Friday, 12:00 UTC.
pub(super) fn noon() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_176_000)
}

fn seconds_of(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

fn rule(name: &str, effect: Effect, when: Vec<Condition>) -> Rule {
    Rule { name: name.into(), effect, when, ..Rule::default() }
}

fn is<const N: usize>(key: &str, values: [&str; N]) -> Condition {
    Condition { key: key.into(), values: texts(values), ..Condition::default() }
}

fn above(key: &str, score: f64) -> Condition {
    Condition { key: key.into(), above: Some(Threshold::Number(score)), ..Condition::default() }
}

fn named(name: &str, rules: Vec<Rule>) -> Policy {
    Policy { namespace: "shop".into(), name: name.into(), rules, ..Policy::default() }
}

fn built(policies: Vec<Policy>) -> Compiled {
    let settings = Settings { policies: Arc::new(policies), ..Settings::default() };
    Access::compile(&settings, &Keep::default()).unwrap()
}

fn faults(policy: &Policy) -> Vec<String> {
    access::check(policy).into_iter().map(|fault| format!("{} {}", fault.field, fault.message)).collect()
}

fn judged<'c>(compiled: &'c Compiled, asked: &Asked, now: SystemTime) -> Decision<'c> {
    let attributes = asked.attributes();
    assert!(compiled.is_consistent(&attributes, now), "the index finds another rule");
    decide(compiled, &attributes, now, &mut NoTrace)
}

/// `allow`, `allow RULE`, `deny WHY` or `step-up WHY`.
fn verdict(compiled: &Compiled, asked: &Asked, now: SystemTime) -> String {
    said(&judged(compiled, asked, now).verdict)
}

fn said(verdict: &Verdict<'_>) -> String {
    match verdict {
        Verdict::Allowed(None) => "allow".to_owned(),
        Verdict::Allowed(Some(rule)) => format!("allow {}", rule.name()),
        Verdict::Refused(refusal) if refusal.is_step_up() => format!("step-up {refusal}"),
        Verdict::Refused(refusal) => format!("deny {refusal}"),
    }
}
