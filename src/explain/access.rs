//! Asks the access policies of a port, after its authorization policies.

use std::net::IpAddr;
use std::time::SystemTime;

use super::policy::Asked;
use super::{Clause, Decided, Outcome, Verdict, walk};
use crate::filters;
use crate::snapshot::Http;
use filter_api::{ConnectionFacts, Token, TraceStep};
use filter_authorization::access::{Refusal, RuleRef, Verdict as Judged, decide};
use filter_authorization::{Attributes, RequestAttributes};
use http::request::Parts;

/// Takes from the head what access policies do not let a client say.
pub(super) fn strip(http: &Http, head: &mut Parts, connection: &ConnectionFacts) {
    for arrival in http.port.read(filters::port::arrival).into_iter().flatten() {
        arrival.strip(&mut head.headers, connection);
    }
}

/// What the policies say, rule by rule, who decided, and the refusal if it is one. What is remembered of the source stays as it is.
/// The rule that allows adds its headers.
pub(super) fn ask(
    http: &Http,
    (head, token): (&mut Parts, Option<&Token>),
    (connection, client): (&ConnectionFacts, IpAddr),
    now: SystemTime,
) -> Asked {
    let mut steps = Vec::new();
    let mut decided = decided(Verdict::Allow, String::new(), String::new());
    for compiled in http.port.read(filters::port::access).into_iter().flatten() {
        let request = RequestAttributes { head, token };
        let attributes = Attributes { connection, client, request: Some(request) };
        let mut trace: Vec<TraceStep> = Vec::new();
        let decision = decide(compiled, &attributes, now, &mut trace);
        steps.extend(trace.iter().map(walk::step));
        let refusal = match decision.verdict {
            Judged::Allowed(rule) => {
                if let Some(rule) = rule {
                    rule.add_headers(&mut head.headers);
                    decided = self::decided(Verdict::Allow, name(&rule), rule.origin().to_string());
                }
                continue;
            }
            Judged::Refused(refusal) => refusal,
        };
        let (status, verdict, hint) = if refusal.is_step_up() {
            (401, Verdict::StepUp, "the caller has to come back with a fresh or stronger token")
        } else {
            (403, Verdict::Deny, "let a rule with `effect: Allow` hold for it, before any other that does")
        };
        let (why, hint) = (refusal.to_string(), hint.to_owned());
        let decided = Decided {
            clause: clause(&refusal),
            ..self::decided(verdict, by(&refusal), refusal.origin().to_string())
        };
        return Asked { steps, decided, refusal: Some(Outcome::Refused { status, flag: "-", why, hint }) };
    }
    Asked { steps, decided, refusal: None }
}

fn decided(verdict: Verdict, by: String, origin: String) -> Decided {
    Decided { verdict, by, also: Vec::new(), origin, clause: None }
}

/// As tests name a rule: without the name that its author gave it.
fn name(rule: &RuleRef<'_>) -> String {
    format!("AccessPolicy {} rule {}", rule.policy(), rule.number())
}

fn by(refusal: &Refusal<'_>) -> String {
    let part = match refusal {
        Refusal::Rule(rule) => return name(rule),
        Refusal::NoRule(..) => " default",
        Refusal::TokenAge { .. } | Refusal::CertificateAge { .. } => " session",
        Refusal::Permission { .. } => " permissions",
        Refusal::Closed(_) | Refusal::Unjudged(..) => "",
    };
    refusal.policy().map_or_else(
        || "it cannot be judged".to_owned(),
        |policy| format!("AccessPolicy {}{part}", policy.name()),
    )
}

/// The first clause that fails of the rule that came nearest.
fn clause(refusal: &Refusal<'_>) -> Option<Clause> {
    let failed = refusal.failed()?;
    Some(Clause {
        rule: refusal.rule().map(|rule| name(&rule)).unwrap_or_default(),
        key: failed.key.into(),
        expected: failed.expected.into(),
        actual: failed.actual.into(),
        origin: refusal.origin().to_string(),
    })
}
