//! What a decision does to a request: records, and the answer to one that is refused.

use crate::Authorization;
use crate::custom::{Ask, Verdict};
use crate::decide::{Decision, Denial, Outcome, RuleRef, ShadowOf};
use filter_api::{Cx, Effect, FailedClause, Origin, Record, Response, Ruling, Spec, refusal};
use http::StatusCode;

/// Istio's text, and Envoy's.
const BODY: &str = "RBAC: access denied";
/// `PERMISSION_DENIED`.
const GRPC_STATUS: u16 = 7;

/// Records what holds whatever the outcome.
pub(crate) fn note(decision: &Decision<'_>, cx: &Cx) {
    if let Some(rule) = decision.audited {
        record(cx, rule, Effect::Audited, format!("audited by {rule}"));
    }
    for shadow in &decision.shadows {
        if shadow.of == ShadowOf::Custom {
            if let Some(rule) = shadow.rule {
                let provider = rule.provider().unwrap_or_default();
                let because = format!("on trial: {rule} would ask provider `{provider}`");
                record(cx, rule, Effect::WouldAsk, because);
            }
            continue;
        }
        let of_allow = shadow.of == ShadowOf::Allow;
        // A DENY policy on trial lets pass what no rule of it hits, an ALLOW policy what some rule does.
        let allows = of_allow == shadow.rule.is_some();
        let (effect, would) =
            if allows { (Effect::WouldAllow, "allow") } else { (Effect::WouldDeny, "deny") };
        match shadow.rule {
            Some(rule) => record(cx, rule, effect, format!("on trial: {rule} would {would} it")),
            None => {
                let kind = if of_allow { "ALLOW" } else { "DENY" };
                let ruling = Ruling { policy: "".into(), rule: None, effect, failed: None };
                let because =
                    format!("on trial: no rule of the {kind} policies holds, which would {would} it");
                cx.record_ruling(Authorization::NAME, Origin::BUILT_IN, because, ruling);
            }
        }
    }
}

/// The answer when the request may not pass. One that a provider would have to be asked about may not: who can ask does so before.
pub(crate) fn settle(outcome: &Outcome<'_>, cx: &Cx) -> Option<Response> {
    match outcome {
        Outcome::Allowed(_) => None,
        Outcome::Denied(denial) => Some(deny(denial, cx)),
        Outcome::Ask(ask) => Some(deny(&Denial::Custom(ask.rule, "nobody asks it here"), cx)),
    }
}

/// Records what a provider said; or why it said nothing, and whether the request is refused then.
pub(crate) fn asked(ask: &Ask<'_>, cx: &Cx, said: Result<(&Verdict, bool), (&str, bool)>) {
    let (rule, provider) = (ask.rule, ask.provider());
    let (effect, because) = match said {
        Ok((verdict, kept)) => {
            let lately = if kept { ", which said so lately" } else { "" };
            match verdict {
                Verdict::Allow(_) => {
                    (Effect::Allowed, format!("{rule} asks provider `{provider}`, which allows it{lately}"))
                }
                Verdict::Deny(refusal) => {
                    let status = refusal.status.as_u16();
                    let because =
                        format!("denied by provider `{provider}` with {status}{lately}, as {rule} asks it");
                    (Effect::Denied, because)
                }
            }
        }
        Err((why, true)) => (
            Effect::Denied,
            format!("denied: {rule} asks provider `{provider}`, which gave no verdict: {why}"),
        ),
        Err((why, false)) => {
            let because = format!(
                "{rule} asks provider `{provider}`, which gave no verdict: {why}; requests pass then"
            );
            (Effect::Allowed, because)
        }
    };
    record(cx, rule, effect, because);
}

fn record(cx: &Cx, rule: RuleRef<'_>, effect: Effect, because: String) {
    let ruling = ruling(Some(rule), effect);
    cx.record_ruling(Authorization::NAME, rule.origin().clone(), because, ruling);
}

fn ruling(rule: Option<RuleRef<'_>>, effect: Effect) -> Ruling {
    Ruling {
        policy: rule.map_or("", |rule| rule.policy()).into(),
        rule: rule.and_then(|rule| u32::try_from(rule.number()).ok()),
        effect,
        failed: None,
    }
}

fn deny(denial: &Denial<'_>, cx: &Cx) -> Response {
    {
        let mut facts = cx.facts.borrow_mut();
        facts.records.push(recorded(denial));
        facts.details = Some(denial.details().into());
    }
    refusal(cx, StatusCode::FORBIDDEN, GRPC_STATUS, BODY)
}

/// What is recorded of a refusal.
pub(crate) fn recorded(denial: &Denial<'_>) -> Record {
    let (rule, failed) = match denial {
        Denial::Rule(rule) | Denial::Custom(rule, _) => (Some(*rule), None),
        Denial::NoRule(Some(nearest)) => {
            let failed = FailedClause {
                key: nearest.clause.into(),
                expected: nearest.expected.as_str().into(),
                actual: nearest.actual.as_str().into(),
            };
            (Some(nearest.rule), Some(failed))
        }
        Denial::NoRule(None) | Denial::Unjudged(_) => (None, None),
    };
    let origin = rule.map_or(Origin::BUILT_IN, |rule| rule.origin().clone());
    let ruling = Ruling { failed, ..ruling(rule, Effect::Denied) };
    Record {
        layer: Authorization::NAME,
        origin,
        because: denial.to_string().into(),
        ruling: Some(Box::new(ruling)),
    }
}

impl Denial<'_> {
    /// What is recorded of it.
    pub fn record(&self) -> Record {
        recorded(self)
    }

    /// Envoy's `response_code_details`.
    pub fn details(&self) -> String {
        match self {
            Self::Rule(rule) | Self::Custom(rule, _) => {
                format!("rbac_access_denied_matched_policy[{}]", rule.envoy_name())
            }
            Self::NoRule(_) | Self::Unjudged(_) => "rbac_access_denied_matched_policy[none]".to_owned(),
        }
    }
}

impl std::fmt::Display for Denial<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rule(rule) => match rule.closed() {
                Some(why) => write!(
                    f,
                    "denied: AuthorizationPolicy {} does not hold ({why}), so its scope is closed",
                    rule.policy()
                ),
                None => write!(f, "denied by {rule}"),
            },
            Self::Custom(rule, why) => {
                let provider = rule.provider().unwrap_or_default();
                write!(f, "denied: {rule} asks provider `{provider}`, which cannot be asked: {why}")
            }
            Self::NoRule(None) => f.write_str("denied: there are ALLOW policies, and none has a rule"),
            Self::NoRule(Some(nearest)) => {
                let (rule, clause) = (nearest.rule, nearest.clause);
                let (expected, actual) = (&nearest.expected, &nearest.actual);
                write!(
                    f,
                    "denied: no ALLOW rule holds; nearest is {rule}, where {clause} is {actual}, not {expected}"
                )
            }
            Self::Unjudged(why) => write!(f, "denied: it cannot be judged, {why}"),
        }
    }
}
