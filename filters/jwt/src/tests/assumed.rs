//! Claims that nobody signed: all but the signature is judged as of a token.

use super::support::*;
use crate::{Decision, Refusal, Rule, assume, decide};
use filter_api::NoTrace;
use serde_json::{Map, Value, json};

fn assumed(rule: Rule, claims: &Value) -> Decision {
    let claims: Map<String, Value> = claims.as_object().unwrap().clone();
    assume(&compile(&[rule]), &claims, at(NOW), &mut NoTrace)
}

fn refused(rule: Rule, claims: &Value) -> Option<Refusal> {
    match assumed(rule, claims) {
        Decision::Refuse { refusal, .. } => Some(refusal),
        _ => None,
    }
}

#[test]
fn claims_say_what_a_token_with_them_would_say() {
    let claims = json!({"iss": ISSUER, "sub": "alice", "exp": NOW + 3600, "scope": "read write"});
    let Decision::Verified { verified: one, .. } = assumed(rule(), &claims) else { panic!() };
    let (settings, head) = (compile(&[rule()]), bearer(&token("ES256", &claims)));
    let Decision::Verified { verified: other, .. } = decide(&settings, &head, at(NOW), &mut NoTrace) else {
        panic!()
    };
    assert_eq!((&one.token.principal, &one.token.claims), (&other.token.principal, &other.token.claims));
}

#[test]
fn all_but_the_signature_is_judged() {
    let of = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        claims
    };
    let for_cart = || Rule { audiences: vec!["cart".to_owned()], ..rule() };
    assert_eq!(refused(rule(), &of("iss", json!("https://other"))), Some(Refusal::UnknownIssuer));
    assert_eq!(refused(rule(), &of("exp", json!(NOW - 3600))), Some(Refusal::Expired));
    assert_eq!(refused(for_cart(), &of("aud", json!("other"))), Some(Refusal::AudienceNotAllowed));
    assert_eq!(refused(rule(), &of("sub", json!(7))), Some(Refusal::Subject));
    // What is not said is as the rule wants it.
    assert_eq!(refused(for_cart(), &json!({"sub": "alice"})), None);
}
