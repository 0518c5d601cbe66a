//! What a decision does to a request: records, and the answer to one that is refused.

use crate::Authorization;
use crate::decide::{Decision, Denial, Outcome, RuleRef};
use filter_api::{Cx, Effect, FailedClause, Origin, Record, Response, Ruling, Spec};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};

/// Istio's text, and Envoy's.
const BODY: &str = "RBAC: access denied";
/// `PERMISSION_DENIED`.
const GRPC_STATUS: u16 = 7;

/// Records what there is to record; the answer when the request may not pass.
pub(crate) fn act(decision: &Decision<'_>, cx: &Cx) -> Option<Response> {
    if let Some(rule) = decision.audited {
        record(cx, rule, Effect::Audited, format!("audited by {rule}"));
    }
    for shadow in &decision.shadows {
        // A DENY policy on trial lets pass what no rule of it hits, an ALLOW policy what some rule does.
        let allows = shadow.of_allow == shadow.rule.is_some();
        let (effect, would) =
            if allows { (Effect::WouldAllow, "allow") } else { (Effect::WouldDeny, "deny") };
        match shadow.rule {
            Some(rule) => record(cx, rule, effect, format!("on trial: {rule} would {would} it")),
            None => {
                let kind = if shadow.of_allow { "ALLOW" } else { "DENY" };
                let ruling = Ruling { policy: "".into(), rule: None, effect, failed: None };
                let because =
                    format!("on trial: no rule of the {kind} policies holds, which would {would} it");
                cx.record_ruling(Authorization::NAME, Origin::BUILT_IN, because, ruling);
            }
        }
    }
    match &decision.outcome {
        Outcome::Allowed(_) => None,
        Outcome::Denied(denial) => Some(deny(denial, cx)),
    }
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
    let grpc = {
        let mut facts = cx.facts.borrow_mut();
        facts.records.push(denial.record());
        facts.details = Some(denial.details().into());
        facts.grpc
    };
    if grpc { grpc_answer() } else { http_answer() }
}

fn http_answer() -> Response {
    let mut response = Response::new(StatusCode::FORBIDDEN).with_body(BODY);
    response.head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// Trailers-only (gRPC over HTTP/2): status 200, the outcome in the head.
fn grpc_answer() -> Response {
    let mut response = Response::new(StatusCode::OK);
    let headers = &mut response.head.headers;
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(GRPC_STATUS));
    headers.insert("grpc-message", HeaderValue::from_static(BODY));
    response
}

impl Denial<'_> {
    /// What is recorded of it.
    pub fn record(&self) -> Record {
        let (rule, failed) = match self {
            Self::Rule(rule) | Self::Custom(rule) => (Some(*rule), None),
            Self::NoRule(Some(nearest)) => {
                let failed = FailedClause {
                    key: nearest.clause.into(),
                    expected: nearest.expected.as_str().into(),
                    actual: nearest.actual.as_str().into(),
                };
                (Some(nearest.rule), Some(failed))
            }
            Self::NoRule(None) | Self::Unjudged(_) => (None, None),
        };
        Record {
            layer: Authorization::NAME,
            origin: rule.map_or(Origin::BUILT_IN, |rule| rule.origin().clone()),
            because: self.to_string().into(),
            ruling: Some(Box::new(Ruling { failed, ..ruling(rule, Effect::Denied) })),
        }
    }

    /// Envoy's `response_code_details`.
    pub fn details(&self) -> String {
        match self {
            Self::Rule(rule) | Self::Custom(rule) => {
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
            Self::Custom(rule) => {
                let provider = rule.provider().unwrap_or_default();
                write!(f, "denied: {rule} asks provider `{provider}`, and providers cannot be asked yet")
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
