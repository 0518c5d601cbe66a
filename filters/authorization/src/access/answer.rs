//! What a decision does to a request: records, headers, and the answer to one that is refused.

use super::Access;
use super::decide::{Decision, RuleRef, Verdict};
use super::refusal::Refusal;
use filter_api::{Cx, Effect, Origin, Record, Response, Ruling, Spec, refusal};
use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue, StatusCode};

const DENIED: &str = "access denied";
const STEP_UP: &str = "stronger authentication is needed";
/// `PERMISSION_DENIED`.
const GRPC_DENIED: u16 = 7;
/// `UNAUTHENTICATED`.
const GRPC_STEP_UP: u16 = 16;

/// Records what there is to record, and adds the headers of the rule that allows; the answer when the request may not pass.
pub(super) fn act(decision: &Decision<'_>, cx: &Cx, headers: &mut HeaderMap) -> Option<Response> {
    if let Some(shadow) = &decision.shadow {
        record_shadow(shadow, cx);
    }
    let rule = match &decision.verdict {
        Verdict::Allowed(rule) => *rule,
        Verdict::Refused(Refusal::Rule(rule)) => Some(*rule),
        Verdict::Refused(_) => None,
    };
    if let Some(rule) = rule.filter(|rule| rule.terms.audit) {
        record_rule(cx, rule, Effect::Audited, format!("audited by {rule}"));
    }
    match &decision.verdict {
        Verdict::Allowed(rule) => {
            rule.iter().for_each(|rule| rule.add_headers(headers));
            None
        }
        Verdict::Refused(refusal) => Some(refuse(refusal, cx)),
    }
}

fn record_shadow(verdict: &Verdict<'_>, cx: &Cx) {
    match verdict {
        Verdict::Allowed(Some(rule)) => {
            record_rule(cx, *rule, Effect::WouldAllow, format!("in shadow: {rule} would allow it"));
        }
        Verdict::Allowed(None) => {
            let ruling = Ruling { policy: "".into(), rule: None, effect: Effect::WouldAllow, failed: None };
            let because = "in shadow: no rule of the access policies holds, which would allow it";
            cx.record_ruling(Access::NAME, Origin::BUILT_IN, because, ruling);
        }
        Verdict::Refused(refusal) => {
            let record = recorded(refusal, Effect::WouldDeny, format!("in shadow: {refusal}"));
            cx.facts.borrow_mut().records.push(record);
        }
    }
}

fn record_rule(cx: &Cx, rule: RuleRef<'_>, effect: Effect, because: String) {
    let number = u32::try_from(rule.number()).ok();
    let ruling = Ruling { policy: rule.policy().into(), rule: number, effect, failed: None };
    cx.record_ruling(Access::NAME, rule.origin().clone(), because, ruling);
}

impl Refusal<'_> {
    /// What is recorded of it.
    pub fn record(&self) -> Record {
        recorded(self, Effect::Denied, self.to_string())
    }
}

/// What is recorded of a refusal.
fn recorded(refusal: &Refusal<'_>, effect: Effect, because: String) -> Record {
    let ruling = Ruling {
        policy: refusal.policy().map_or("", |policy| policy.name()).into(),
        rule: refusal.rule().and_then(|rule| u32::try_from(rule.number()).ok()),
        effect,
        failed: refusal.failed(),
    };
    Record {
        layer: Access::NAME,
        origin: refusal.origin(),
        because: because.into(),
        ruling: Some(Box::new(ruling)),
    }
}

fn refuse(why: &Refusal<'_>, cx: &Cx) -> Response {
    {
        let mut facts = cx.facts.borrow_mut();
        facts.records.push(why.record());
        facts.details = Some(why.details().into());
    }
    if !why.is_step_up() {
        return refusal(cx, StatusCode::FORBIDDEN, GRPC_DENIED, DENIED);
    }
    let mut response = refusal(cx, StatusCode::UNAUTHORIZED, GRPC_STEP_UP, STEP_UP);
    response.head.headers.insert(WWW_AUTHENTICATE, challenge(why));
    response
}

/// RFC 9470, section 3; `max_age` in seconds where the age of the token is what is wrong.
fn challenge(refusal: &Refusal<'_>) -> HeaderValue {
    const CHALLENGE: &str = "Bearer error=\"insufficient_user_authentication\"";
    let aged = refusal.max_age().map(|most| format!("{CHALLENGE}, max_age=\"{}\"", most.as_secs()));
    aged.and_then(|text| HeaderValue::try_from(text).ok()).unwrap_or(HeaderValue::from_static(CHALLENGE))
}
