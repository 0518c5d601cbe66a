//! Rules, their order, and what cannot be told.

use super::*;
use crate::access::Match;
use filter_api::TraceStep;
use proptest::prelude::*;

fn office() -> Condition {
    let within = Within {
        from: Some("08:00".into()),
        to: Some("18:00".into()),
        zone: Some("Europe/Berlin".into()),
        ..Within::default()
    };
    Condition { key: "request.time".into(), within: Some(within), ..Condition::default() }
}

#[test]
fn office_hours_open_and_close() {
    let staff = is("request.auth.claims[groups]", ["staff"]);
    let compiled = built(vec![named("pay", vec![rule("office", Effect::Allow, vec![staff, office()])])]);
    let asked = Asked::get("/").token(serde_json::json!({"iss": "i", "sub": "a", "groups": ["staff"]}));
    assert_eq!(verdict(&compiled, &asked, noon()), "allow office");
    let evening = noon() + Duration::from_hours(7);
    assert_eq!(
        verdict(&compiled, &asked, evening),
        "deny denied: no rule holds; nearest is AccessPolicy shop/pay rule 0 (office), where when request.time is \
         Fri 20:00 Europe/Berlin, not 08:00-18:00 Europe/Berlin"
    );
    let nobody = verdict(&compiled, &Asked::get("/"), noon());
    assert!(nobody.contains("no verified token, not staff"), "{nobody}");
}

#[test]
fn the_first_rule_that_holds_decides_across_policies_in_their_order() {
    let path = |path: &str| Match { paths: texts([path]), ..Match::default() };
    let allow = |name: &str, at: &str| Rule { matches: vec![path(at)], ..rule(name, Effect::Allow, vec![]) };
    let deny = |name: &str, at: &str| Rule { matches: vec![path(at)], ..rule(name, Effect::Deny, vec![]) };
    let compiled = built(vec![
        named("a", vec![allow("one", "/a/b"), deny("two", "/a/*")]),
        named("b", vec![allow("three", "/a/*"), allow("four", "/b")]),
    ]);
    let ask = |path: &str| verdict(&compiled, &Asked::get(path), noon());
    assert_eq!(ask("/a/b"), "allow one");
    assert_eq!(ask("/a/c"), "deny denied by AccessPolicy shop/a rule 1 (two)");
    assert_eq!(ask("/b"), "allow four");
    assert!(ask("/c").starts_with("deny denied: no rule holds"));
}

#[test]
fn without_a_rule_that_holds_all_policies_have_to_say_that_it_passes() {
    let open = |name: &str| Policy { allows_by_default: true, ..named(name, vec![]) };
    let ask = |policies| verdict(&built(policies), &Asked::get("/"), noon());
    assert_eq!(ask(vec![open("a"), open("b")]), "allow");
    assert_eq!(
        ask(vec![open("a"), named("b", vec![])]),
        "deny denied: AccessPolicy shop/b has no rule that could allow it"
    );
    assert_eq!(ask(vec![]), "allow");
}

#[test]
fn a_policy_that_could_not_be_read_refuses_everything() {
    let all = rule("all", Effect::Allow, vec![]);
    let closed = Policy { closed: Some("spec.rules: no".into()), ..named("b", vec![]) };
    let compiled = built(vec![named("a", vec![all]), closed]);
    let said = verdict(&compiled, &Asked::get("/"), noon());
    assert_eq!(
        said,
        "deny denied: AccessPolicy shop/b does not hold (spec.rules: no), so its scope is closed"
    );
}

#[test]
fn what_cannot_be_told_allows_nothing_and_refuses() {
    let twice = Asked::get("/").header("x-device", "managed").header("x-device", "stolen");
    let device = || is("request.headers[x-device]", ["managed"]);
    for (effect, expected) in [(Effect::Allow, "deny"), (Effect::Deny, "deny"), (Effect::StepUp, "step-up")] {
        let said = verdict(&built(vec![named("p", vec![rule("r", effect, vec![device()])])]), &twice, noon());
        assert!(said.starts_with(expected), "{effect:?}: {said}");
    }
    let target = http::Request::builder().uri("http://a/").body(()).unwrap().into_parts().0.uri;
    let mut odd = Asked::get("/");
    odd.head.uri = http::Uri::from_parts({
        let mut parts = target.into_parts();
        parts.path_and_query = Some("*".parse().unwrap());
        parts
    })
    .unwrap();
    let all = built(vec![named("p", vec![rule("all", Effect::Allow, vec![])])]);
    assert_eq!(verdict(&all, &odd, noon()), "allow all");
}

#[test]
fn the_kind_of_tls_is_a_condition() {
    let holds = |word: &str, asked: &Asked| {
        let one = rule("tls", Effect::Allow, vec![is("connection.tls", [word])]);
        verdict(&built(vec![named("p", vec![one])]), asked, noon()).starts_with("allow")
    };
    let plain = Asked::get("/");
    let mutual = Asked::get("/").by("shop/cart");
    let mut simple = mutual.clone();
    simple.connection.tls = Some(TlsFacts { peer: None, ..simple.connection.tls.take().unwrap() });
    let words = ["none", "simple", "mutual", "TLSv1.3", "TLSv1.2"];
    let of = |asked: &Asked| words.map(|word| holds(word, asked));
    assert_eq!(of(&plain), [true, false, false, false, false]);
    assert_eq!(of(&simple), [false, true, false, true, false]);
    assert_eq!(of(&mutual), [false, false, true, true, false]);
    let not = Condition { not_values: texts(["none"]), ..is("connection.tls", []) };
    let not = built(vec![named("p", vec![rule("r", Effect::Allow, vec![not])])]);
    assert!(verdict(&not, &mutual, noon()).starts_with("allow"));
    let refused = verdict(&not, &plain, noon());
    assert!(refused.contains("when connection.tls (notValues) is none, not none of none"), "{refused}");
}

#[test]
fn a_policy_in_shadow_is_decided_and_changes_nothing() {
    let shadow = Policy { shadow: true, ..named("try", vec![rule("no", Effect::Deny, vec![])]) };
    let compiled = built(vec![named("p", vec![rule("all", Effect::Allow, vec![])]), shadow.clone()]);
    let decision = judged(&compiled, &Asked::get("/").clone(), noon());
    assert_eq!(said(&decision.verdict), "allow all");
    assert_eq!(said(decision.shadow.as_ref().unwrap()), "deny denied by AccessPolicy shop/try rule 0 (no)");
    assert_eq!(verdict(&built(vec![shadow]), &Asked::get("/"), noon()), "allow", "nothing else is in force");
}

#[test]
fn who_listens_hears_of_every_rule_until_one_decides() {
    let rules = vec![
        rule("no", Effect::Deny, vec![is("source.namespace", ["ops"])]),
        rule("yes", Effect::Allow, vec![is("source.namespace", ["shop"])]),
        rule("never", Effect::Deny, vec![]),
    ];
    let compiled = built(vec![named("p", rules)]);
    let asked = Asked::get("/").by("shop/cart");
    let mut trace: Vec<TraceStep> = Vec::new();
    decide(&compiled, &asked.attributes(), noon(), &mut trace);
    let steps: Vec<_> = trace.iter().map(|step| (step.held, &*step.because)).collect();
    assert_eq!(
        steps,
        [
            (true, "1 access policy is in force"),
            (
                false,
                "AccessPolicy shop/p rule 0 (no): when source.namespace is cluster.local/ns/shop/sa/cart, not ops"
            ),
            (true, "AccessPolicy shop/p rule 1 (yes): holds"),
        ]
    );
}

#[test]
fn what_cannot_be_enforced_is_named() {
    let of = |condition| faults(&named("p", vec![rule("r", Effect::Allow, vec![condition])]));
    let age = |threshold| Condition { above: Some(threshold), ..is("session.age", []) };
    assert_eq!(of(is("request.tine", ["x"])), ["rules[0].when[0].key `request.tine` is no attribute"]);
    assert_eq!(
        of(is("request.time", ["x"])),
        ["rules[0].when[0] does not say what `request.time` is compared with"]
    );
    assert_eq!(
        of(above("source.ip", 0.5)),
        ["rules[0].when[0] does not say what `source.ip` is compared with"]
    );
    assert_eq!(of(is("connection.tls", ["yes"])), ["rules[0].when[0].values[0] `yes` is no kind of TLS"]);
    assert_eq!(of(age(Threshold::Number(5.0))), ["rules[0].when[0].above `5` has no unit of time"]);
    assert_eq!(of(above("risk.score", 1.5)), ["rules[0].when[0].above is no score"]);
    assert_eq!(of(is("source.ip", ["x"])), ["rules[0].when[0].values[0] `x` is no address or block"]);
    let taken = Rule { add_headers: vec![("host".into(), "x".into())], ..rule("r", Effect::Allow, vec![]) };
    assert_eq!(
        faults(&named("p", vec![taken])),
        ["rules[0].actions `host` is no header that a policy may write"]
    );
    let empty = Rule { matches: vec![Match::default()], ..rule("r", Effect::Allow, vec![]) };
    assert_eq!(faults(&named("p", vec![empty])), ["rules[0].match[0] is empty"]);
    let unheard = access::check(&named("p", vec![rule("r", Effect::Allow, vec![is("user", ["x"])])]));
    assert!(unheard[0].hint.contains("`risk.score`"), "{}", unheard[0].hint);
}

fn effects() -> impl Strategy<Value = Effect> {
    prop::sample::select(vec![Effect::Allow, Effect::StepUp, Effect::Deny])
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let paths = prop::collection::vec(prop::sample::select(vec!["/a", "/a/*", "/b", "*"]), 0..2);
    let who = prop::option::of(prop::sample::select(vec!["shop", "ops", "*"]));
    (effects(), paths, who, any::<bool>()).prop_map(|(effect, paths, who, header)| {
        let paths: Vec<String> = paths.into_iter().map(str::to_owned).collect();
        let matches = if paths.is_empty() { vec![] } else { vec![Match { paths, ..Match::default() }] };
        let mut when: Vec<_> = who.into_iter().map(|who| is("source.namespace", [who])).collect();
        when.extend(header.then(|| is("request.headers[x]", ["1"])));
        Rule { matches, ..rule("r", effect, when) }
    })
}

proptest! {
    /// With the index the same rule decides as without, and it is the first that certainly holds, or that refuses and may hold.
    #[test]
    fn the_first_rule_that_acts_decides(
        rules in prop::collection::vec(any_rule(), 0..12),
        path in prop::sample::select(vec!["/a", "/a/b", "/b", "/c"]),
        who in prop::option::of(prop::sample::select(vec!["shop/cart", "ops/bot"])),
        headers in 0..3_usize,
    ) {
        let mut asked = Asked::get(path);
        if let Some(who) = who { asked = asked.by(who); }
        for value in ["1", "2"].into_iter().take(headers) { asked = asked.header("x", value); }
        let compiled = built(vec![named("p", rules.clone())]);
        let decided = match judged(&compiled, &asked, noon()).verdict {
            Verdict::Allowed(Some(rule)) | Verdict::Refused(Refusal::Rule(rule)) => Some(rule.number()),
            Verdict::Allowed(None) => panic!("nothing is allowed by default"),
            Verdict::Refused(_) => None,
        };
        // Each rule alone says whether it acts.
        let acts = |rule: &Rule| {
            let alone = built(vec![named("p", vec![rule.clone()])]);
            let decision = judged(&alone, &asked, noon());
            matches!(decision.verdict, Verdict::Allowed(Some(_)) | Verdict::Refused(Refusal::Rule(_)))
        };
        prop_assert_eq!(decided, rules.iter().position(acts));
    }
}
