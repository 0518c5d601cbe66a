//! Bands of risk, by a header of a trusted peer and by what was observed.

use super::*;
use crate::access::{Risk, RiskHeader};

const SCORER: &str = "risk/scorer";

fn header() -> RiskHeader {
    RiskHeader { name: "x-risk-score".into(), from: texts(["cluster.local/ns/risk/sa/scorer"]) }
}

fn banded(risk: Risk) -> Policy {
    let rules = vec![
        rule("high", Effect::Deny, vec![above("risk.score", 0.7)]),
        rule("middle", Effect::StepUp, vec![above("risk.score", 0.3)]),
        rule("low", Effect::Allow, vec![]),
    ];
    Policy { risk, ..named("bands", rules) }
}

fn band(compiled: &Compiled, asked: &Asked, now: SystemTime) -> &'static str {
    match verdict(compiled, asked, now) {
        said if said == "allow low" => "low",
        said if said.contains("rule 1 (middle)") && said.starts_with("step-up") => "middle",
        said if said.contains("rule 0 (high)") && said.starts_with("deny") => "high",
        said => panic!("{said}"),
    }
}

#[test]
fn the_header_counts_from_peers_that_are_named() {
    let compiled = built(vec![banded(Risk { header: Some(header()), ..Risk::default() })]);
    let scored = |who: &str, score: &str| Asked::get("/").by(who).header("x-risk-score", score);
    for (score, expected) in
        [("0", "low"), ("0.3", "low"), ("0.31", "middle"), ("0.7", "middle"), ("0.71", "high"), ("1", "high")]
    {
        assert_eq!(band(&compiled, &scored(SCORER, score), noon()), expected, "{score}");
        assert_eq!(band(&compiled, &scored("shop/cart", score), noon()), "low", "ignored from others");
    }
    let plain = Asked::get("/").header("x-risk-score", "0.9");
    assert_eq!(band(&compiled, &plain, noon()), "low", "and from nobody");
    for odd in ["", "NaN", "2", "-1", "low"] {
        let said = verdict(&compiled, &scored(SCORER, odd), noon());
        assert_eq!(
            said,
            "deny denied: AccessPolicy shop/bands cannot judge it, the risk header is no number from 0 to 1"
        );
    }
    let twice = verdict(&compiled, &scored(SCORER, "0").header("x-risk-score", "1"), noon());
    assert!(twice.ends_with("the risk header is there more than once"), "{twice}");
}

#[test]
fn signals_add_up_to_one() {
    let risk = |new_source, no_client_certificate| Risk {
        header: Some(header()),
        new_source,
        no_client_certificate,
        ..Risk::default()
    };
    let ask = |risk, asked: &Asked| band(&built(vec![banded(risk)]), asked, noon());
    assert_eq!(ask(risk(0.0, 0.4), &Asked::get("/")), "middle");
    assert_eq!(ask(risk(0.0, 0.4), &Asked::get("/").by("shop/cart")), "low");
    assert_eq!(ask(risk(0.4, 0.4), &Asked::get("/")), "high");
    let scored = Asked::get("/").by(SCORER).header("x-risk-score", "0.9");
    assert_eq!(ask(risk(0.9, 0.0), &scored), "high");
}

#[test]
fn a_source_is_new_until_it_was_let_in() {
    let compiled =
        built(vec![banded(Risk { new_source: 0.2, no_client_certificate: 0.2, ..Risk::default() })]);
    let asked = Asked::get("/");
    for _ in 0..3 {
        let decision = judged(&compiled, &asked, noon());
        compiled.settle(&decision, noon());
        assert_eq!(band(&compiled, &asked, noon()), "middle", "trying again does not help");
    }
    let proved = asked.clone().by("shop/cart");
    let decision = judged(&compiled, &proved, noon());
    assert_eq!(said(&decision.verdict), "allow low");
    compiled.settle(&decision, noon());
    assert_eq!(band(&compiled, &asked, noon()), "middle", "another source: it is known by its address");
    let open = built(vec![Policy {
        risk: Risk { new_source: 0.4, ..Risk::default() },
        ..named(
            "p",
            vec![rule(
                "new",
                Effect::StepUp,
                vec![above("risk.score", 0.3), is("source.ip", ["10.0.0.0/8"])],
            )],
        )
    }]);
    assert!(verdict(&open, &asked, noon()).starts_with("step-up"));
}

#[test]
fn refused_attempts_raise_the_risk_for_a_while() {
    let risk = Risk { failed_attempts: 0.8, ..Risk::default() };
    let compiled = built(vec![banded(risk)]);
    let asked = Asked::get("/");
    assert_eq!(band(&compiled, &asked, noon()), "low");
    let fail = |times: usize| {
        let decision = judged(&compiled, &asked, noon());
        (0..times).for_each(|_| compiled.settle_refused(&decision, noon()));
    };
    fail(2);
    assert_eq!(band(&compiled, &asked, noon()), "middle");
    fail(3);
    assert_eq!(band(&compiled, &asked, noon()), "high");
    assert_eq!(band(&compiled, &asked.clone().by("shop/cart"), noon()), "low", "another source");
    assert_eq!(band(&compiled, &asked, noon() + Duration::from_hours(1)), "low");
}

#[test]
fn what_is_remembered_outlives_a_reload() {
    let keep = Keep::default();
    let settings = |policy: Policy| Settings { policies: Arc::new(vec![policy]), ..Settings::default() };
    let policy = banded(Risk { new_source: 0.4, ..Risk::default() });
    let before = Access::compile(&settings(policy.clone()), &keep).unwrap();
    let mut open = policy.clone();
    open.rules = vec![rule("low", Effect::Allow, vec![])];
    let between = Access::compile(&settings(open), &keep).unwrap();
    assert_eq!(band(&before, &Asked::get("/"), noon()), "middle");
    between.settle(&judged(&between, &Asked::get("/"), noon()), noon());
    drop(before);
    let after = Access::compile(&settings(policy), &keep).unwrap();
    assert_eq!(band(&after, &Asked::get("/"), noon()), "low");
}
