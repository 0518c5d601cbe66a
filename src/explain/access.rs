//! Asks the access policies of a port, after its authorization policies.

use std::net::IpAddr;
use std::time::SystemTime;

use super::{Outcome, Step, walk};
use crate::filters;
use crate::snapshot::Http;
use filter_api::{ConnectionFacts, Token, TraceStep};
use filter_authorization::access::{Verdict, decide};
use filter_authorization::{Attributes, RequestAttributes};
use http::request::Parts;

/// Takes from the head what access policies do not let a client say.
pub(super) fn strip(http: &Http, head: &mut Parts, connection: &ConnectionFacts) {
    for arrival in http.port.read(filters::port::arrival).into_iter().flatten() {
        arrival.strip(&mut head.headers, connection);
    }
}

/// What the policies say, rule by rule, and the refusal if it is one. Asked is for now; what is remembered of the source stays as it is.
/// The rule that allows adds its headers.
pub(super) fn ask(
    http: &Http,
    head: &mut Parts,
    token: Option<&Token>,
    (connection, client): (&ConnectionFacts, IpAddr),
) -> (Vec<Step>, Option<Outcome>) {
    let mut steps = Vec::new();
    let Some(settings) = http.port.read(filters::port::access) else { return (steps, None) };
    for compiled in settings {
        let request = RequestAttributes { head, token };
        let attributes = Attributes { connection, client, request: Some(request) };
        let mut trace: Vec<TraceStep> = Vec::new();
        let decision = decide(compiled, &attributes, SystemTime::now(), &mut trace);
        steps.extend(trace.iter().map(walk::step));
        let refusal = match decision.verdict {
            Verdict::Allowed(rule) => {
                rule.iter().for_each(|rule| rule.add_headers(&mut head.headers));
                continue;
            }
            Verdict::Refused(refusal) => refusal,
        };
        let (status, hint) = if refusal.is_step_up() {
            (401, "the caller has to come back with a fresh or stronger token")
        } else {
            (403, "let a rule with `effect: Allow` hold for it, before any other that does")
        };
        let (why, hint) = (refusal.to_string(), hint.to_owned());
        return (steps, Some(Outcome::Refused { status, flag: "-", why, hint }));
    }
    (steps, None)
}
