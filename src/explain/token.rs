//! Asks the rules about tokens of a port.

use super::question::Question;
use super::{Decided, Outcome, Step, Verdict, walk};
use crate::filters;
use crate::snapshot::Http;
use filter_api::{Origin, Token, TraceStep};
use filter_jwt::{Compiled, Decision, Provider, Refusal, Verified, assume, decide, rewrite, take_outputs};
use http::request::Parts;
use std::sync::Arc;

/// What the rules about tokens make of a request.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) steps: Vec<Step>,
    pub(super) notes: Vec<String>,
    pub(super) token: Option<Arc<Token>>,
    pub(super) refusal: Option<(Decided, Outcome)>,
}

/// Asks the rules, and makes the head what goes on.
pub(super) fn ask(question: &Question, http: &Http, head: &mut Parts) -> Asked {
    let mut asked = Asked::default();
    let Some(settings) = http.port.read(filters::port::jwt) else {
        if question.claims().is_some() || question.has_token() {
            asked.notes.push(
                "no RequestAuthentication holds here: nobody verifies a token, so policies see no claims"
                    .to_owned(),
            );
        }
        return asked;
    };
    take_outputs(settings, &mut head.headers);
    let mut trace: Vec<TraceStep> = Vec::new();
    let decision = match question.claims() {
        Some(claims) => {
            asked.notes.push(
                "THE CLAIMS ARE TAKEN AS IF VERIFIED: no token was shown, and no signature was checked"
                    .to_owned(),
            );
            assume(settings, claims, question.time(), &mut trace)
        }
        None => decide(settings, head, question.time(), &mut trace),
    };
    asked.steps = trace.iter().map(walk::step).collect();
    match decision {
        Decision::Missing if question.has_token() => asked.notes.push(
            "no rule looks for a token in `authorization: Bearer`: it is verified by nobody, and policies see no claims; \
             give it with -H where the rules look"
                .to_owned(),
        ),
        Decision::Missing => {}
        Decision::Verified { provider, verified } => asked.accept(&provider, &verified, head),
        Decision::Refuse { refusal: Refusal::NoKeys, origin, ask: Some((keys, _)) } => {
            asked.disbelieve(keys.uri(), &origin);
        }
        Decision::Refuse { refusal, origin, .. } => asked.refuse(refusal, &origin),
        // A live proxy would wait for them; nothing is fetched here.
        Decision::Wait(keys) => asked.disbelieve(keys.uri(), &origin_of(settings, keys.uri())),
    }
    asked
}

impl Asked {
    fn accept(&mut self, provider: &Provider, verified: &Verified, head: &mut Parts) {
        match rewrite(provider, verified, head) {
            Ok(()) => self.token = Some(verified.token.clone()),
            Err(why) => {
                let decided = decided(&provider.origin);
                let outcome = Outcome::Refused { status: 400, flag: "DPE", why, hint: String::new() };
                self.refusal = Some((decided, outcome));
            }
        }
    }

    fn refuse(&mut self, refusal: Refusal, origin: &Origin) {
        let why = format!("the token is refused: {}", refusal.text());
        self.end(refusal, origin, why, hint(refusal));
    }

    fn disbelieve(&mut self, uri: &str, origin: &Origin) {
        let why = format!("the token is not believed: the keys at {uri} that could tell are not here");
        let hint = "give the keys with `--jwks FILE`, or say what the token claims with `--claims`";
        self.end(Refusal::NoKeys, origin, why, hint);
    }

    fn end(&mut self, refusal: Refusal, origin: &Origin, why: String, hint: &str) {
        let (status, hint) = (refusal.status().as_u16(), hint.to_owned());
        self.refusal = Some((decided(origin), Outcome::Refused { status, flag: "-", why, hint }));
    }
}

fn decided(origin: &Origin) -> Decided {
    Decided {
        verdict: Verdict::Deny,
        by: rule_name(origin),
        also: Vec::new(),
        origin: origin.to_string(),
        clause: None,
    }
}

/// `RequestAuthentication shop/tokens rule 0`.
fn rule_name(origin: &Origin) -> String {
    let Some(object) = origin.object_name() else { return origin.to_string() };
    let number = origin.field().strip_prefix("spec.jwtRules[").and_then(|rest| rest.strip_suffix(']'));
    number.map_or_else(|| object.to_string(), |number| format!("{object} rule {number}"))
}

/// The rule whose keys these are.
fn origin_of(settings: &[Compiled], uri: &str) -> Origin {
    let rules = || settings.iter().flat_map(Compiled::providers);
    let found = rules().find(|rule| rule.keys_at() == Some(uri)).or_else(|| rules().next());
    found.map(|rule| rule.origin.clone()).unwrap_or_default()
}

fn hint(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::UnknownIssuer => "its `iss` has to be the issuer of a rule, letter by letter",
        Refusal::AudienceNotAllowed => "its `aud` has to name one of the rule's `audiences`",
        Refusal::Expired | Refusal::NotYetValid => "ask with `--at TIME` about another moment",
        Refusal::Closed => "correct the RequestAuthentication, see `sidegate check`",
        _ => "",
    }
}
