//! How old tokens and certificates may be.

use super::*;
use crate::access::Session;

fn token(issued: Option<u64>) -> Asked {
    let mut claims = serde_json::json!({"iss": "i", "sub": "a"});
    if let Some(issued) = issued {
        claims["iat"] = issued.into();
    }
    Asked::get("/").token(claims)
}

fn limited(session: Session) -> Compiled {
    built(vec![Policy { session, ..named("p", vec![rule("all", Effect::Allow, vec![])]) }])
}

#[test]
fn a_token_that_is_too_old_or_says_nothing_asks_for_a_fresh_one() {
    let most = Duration::from_mins(15);
    let compiled = limited(Session { max_token_age: Some(most), ..Session::default() });
    let now = seconds_of(noon());
    assert_eq!(verdict(&compiled, &token(Some(now - 900)), noon()), "allow all");
    assert_eq!(
        verdict(&compiled, &token(Some(now - 901)), noon()),
        "step-up denied: AccessPolicy shop/p wants tokens of at most 15m; there is 15m1s"
    );
    let silent = verdict(&compiled, &token(None), noon());
    assert!(silent.ends_with("there is a token that does not say when it was issued"), "{silent}");
    assert_eq!(verdict(&compiled, &token(Some(now + 60)), noon()), "allow all", "clocks differ");
    assert!(verdict(&compiled, &token(Some(now + 120)), noon()).starts_with("step-up"), "from the future");
    assert_eq!(verdict(&compiled, &Asked::get("/"), noon()), "allow all", "rules say who has to bring one");
    let decision = judged(&compiled, &token(None), noon());
    let Verdict::Refused(refusal) = decision.verdict else { panic!("it passes") };
    assert_eq!(
        (refusal.max_age(), refusal.failed().unwrap().key),
        (Some(most), "session.maxTokenAge".into())
    );
}

#[test]
fn an_odd_time_of_issue_is_too_old() {
    let compiled = limited(Session { max_token_age: Some(Duration::from_mins(15)), ..Session::default() });
    for odd in [serde_json::json!("1795176000"), serde_json::json!(-1), serde_json::json!(1e300)] {
        let asked = Asked::get("/").token(serde_json::json!({"iss": "i", "sub": "a", "iat": odd}));
        assert!(verdict(&compiled, &asked, noon()).starts_with("step-up"), "{asked:?}");
    }
}

#[test]
fn the_age_of_a_session_is_a_condition_and_without_a_token_longer_than_any() {
    let age = |above: Option<u64>, below: Option<u64>| {
        let minutes = |minutes: u64| Threshold::Age(Duration::from_mins(minutes));
        Condition { above: above.map(minutes), below: below.map(minutes), ..is("session.age", []) }
    };
    let now = seconds_of(noon());
    let bands = built(vec![named(
        "p",
        vec![
            rule("fresh", Effect::Allow, vec![age(None, Some(5))]),
            rule("stale", Effect::StepUp, vec![age(Some(5), Some(60))]),
            rule("old", Effect::Deny, vec![age(Some(5), None)]),
        ],
    )]);
    let ask = |asked: &Asked| verdict(&bands, asked, noon());
    assert_eq!(ask(&token(Some(now - 60))), "allow fresh");
    assert!(ask(&token(Some(now - 600))).starts_with("step-up denied: AccessPolicy shop/p rule 1 (stale)"));
    assert_eq!(ask(&token(Some(now - 7200))), "deny denied by AccessPolicy shop/p rule 2 (old)");
    for unknown in [token(None), Asked::get("/")] {
        assert_eq!(ask(&unknown), "deny denied by AccessPolicy shop/p rule 2 (old)");
    }
}

#[test]
fn a_certificate_that_is_too_old_is_refused() {
    let most = Duration::from_hours(24);
    let compiled = limited(Session { max_certificate_age: Some(most), ..Session::default() });
    let since = |since: SystemTime| {
        let mut asked = Asked::get("/").by("shop/cart");
        let tls = asked.connection.tls.as_mut().unwrap();
        let peer = Peer { not_before: since, ..(**tls.peer.as_ref().unwrap()).clone() };
        tls.peer = Some(Arc::new(peer));
        asked
    };
    assert_eq!(verdict(&compiled, &since(noon() - most), noon()), "allow all");
    let old = verdict(&compiled, &since(noon() - most - Duration::from_mins(90)), noon());
    assert_eq!(
        old,
        "deny denied: AccessPolicy shop/p wants certificates of at most 24h; there is one of 25h30m"
    );
    assert_eq!(verdict(&compiled, &Asked::get("/"), noon()), "allow all", "plain text shows none");
}

#[test]
fn whether_connections_are_to_be_closed_is_told() {
    let session = Session { revoke_existing: true, ..Session::default() };
    assert!(limited(session.clone()).revokes_existing() && !limited(Session::default()).revokes_existing());
    let shadow = Policy { shadow: true, session, ..named("p", vec![]) };
    assert!(!built(vec![shadow]).revokes_existing(), "one in shadow closes nothing");
}
