//! Which policy decides.

use super::*;
use crate::{Failures, ShadowOf};
use filter_api::TraceStep;

fn all() -> Vec<Rule> {
    vec![Rule::default()]
}

#[test]
fn without_policies_everything_passes() {
    assert!(passes(&compile(Vec::new()), &Asked::get("/")));
}

#[test]
fn an_allow_policy_without_rules_allows_nothing() {
    let compiled = compile(vec![policy("nothing", Action::Allow, Vec::new())]);
    let denial = denial(&compiled, &Asked::get("/"));
    assert!(matches!(denial, Denial::NoRule(None)), "{denial:?}");
    assert_eq!(denial.details(), "rbac_access_denied_matched_policy[none]");
}

#[test]
fn an_empty_rule_holds_always() {
    assert!(allows(Rule::default(), &Asked::get("/")) && denies(Rule::default(), &Asked::get("/")));
}

#[test]
fn a_deny_policy_without_rules_denies_nothing() {
    assert!(passes(&compile(vec![policy("idle", Action::Deny, Vec::new())]), &Asked::get("/")));
}

#[test]
fn deny_comes_before_allow_whatever_the_order_of_the_policies() {
    let deny = policy("deny", Action::Deny, vec![to(paths(["/admin"]))]);
    let allow = policy("allow", Action::Allow, all());
    for policies in [vec![deny.clone(), allow.clone()], vec![allow, deny]] {
        let compiled = compile(policies);
        assert!(passes(&compiled, &Asked::get("/")));
        let details = denial(&compiled, &Asked::get("/admin")).details();
        assert_eq!(details, "rbac_access_denied_matched_policy[ns[shop]-policy[deny]-rule[0]]");
    }
}

#[test]
fn one_allow_policy_of_several_is_enough() {
    let compiled = compile(vec![
        policy("a", Action::Allow, vec![to(paths(["/a"]))]),
        policy("b", Action::Allow, vec![to(paths(["/b"])), to(paths(["/c"]))]),
    ]);
    let Outcome::Allowed(Some(rule)) = ask(&compiled, &Asked::get("/c")).outcome else { panic!("refused") };
    assert_eq!((rule.policy(), rule.number()), ("shop/b", 1));
    assert!(!passes(&compiled, &Asked::get("/d")));
}

#[test]
fn a_custom_rule_that_holds_refuses_where_no_provider_can_be_asked() {
    let custom = Action::Custom { provider: "opa".into(), failures: Failures::default(), cache: None };
    let compiled =
        compile(vec![policy("ask", custom, vec![to(paths(["/x*"]))]), policy("all", Action::Allow, all())]);
    assert!(passes(&compiled, &Asked::get("/y")));
    let denial = denial(&compiled, &Asked::get("/xy"));
    assert!(denial.to_string().contains("provider `opa`"), "{denial}");
    assert!(denial.details().ends_with("-rule[0]-deny-due-to-bad-CUSTOM-action]"), "{}", denial.details());
}

#[test]
fn audit_never_changes_the_outcome() {
    let audit = policy("watch", Action::Audit, vec![to(paths(["/a"]))]);
    let compiled = compile(vec![audit.clone()]);
    let decision = ask(&compiled, &Asked::get("/a"));
    assert!(matches!(decision.outcome, Outcome::Allowed(None)), "an AUDIT policy is no ALLOW policy");
    assert_eq!(decision.audited.map(|rule| rule.policy()), Some("shop/watch"));
    let compiled = compile(vec![audit, policy("none", Action::Allow, Vec::new())]);
    let decision = ask(&compiled, &Asked::get("/a"));
    assert!(matches!(decision.outcome, Outcome::Denied(_)) && decision.audited.is_some());
}

#[test]
fn a_policy_on_trial_is_decided_and_changes_nothing() {
    let trial =
        |name, action, path| Policy { dry_run: true, ..policy(name, action, vec![to(paths([path]))]) };
    let compiled = compile(vec![trial("deny", Action::Deny, "/a"), trial("allow", Action::Allow, "/b")]);
    let shadows = |path: &str| {
        let decision = ask(&compiled, &Asked::get(path));
        assert!(matches!(decision.outcome, Outcome::Allowed(None)));
        decision.shadows.iter().map(|one| (one.of, one.rule.is_some())).collect::<Vec<_>>()
    };
    assert_eq!(shadows("/a"), [(ShadowOf::Deny, true), (ShadowOf::Allow, false)], "both would deny");
    assert_eq!(shadows("/b"), [(ShadowOf::Deny, false), (ShadowOf::Allow, true)], "both would allow");
}

#[test]
fn a_closed_policy_refuses_everything_and_says_why() {
    let closed =
        Policy { closed: Some("spec.rules: is no list".into()), ..policy("bad", Action::Deny, all()) };
    let compiled = compile(vec![closed, policy("all", Action::Allow, all())]);
    let words = denial(&compiled, &Asked::get("/")).to_string();
    assert_eq!(
        words,
        "denied: AuthorizationPolicy shop/bad does not hold (spec.rules: is no list), so its scope is closed"
    );
}

#[test]
fn a_refusal_names_the_first_clause_of_the_nearest_rule() {
    let rule = |account: &str, method: &str| Rule {
        from: vec![Source {
            principals: vec![format!("cluster.local/ns/shop/sa/{account}")],
            ..Source::default()
        }],
        to: vec![Operation { methods: texts([method]), ..paths(["/pay"]) }],
        ..Rule::default()
    };
    let compiled =
        compile(vec![policy("pay", Action::Allow, vec![rule("audit", "GET"), rule("order", "POST")])]);
    let Denial::NoRule(Some(nearest)) = denial(&compiled, &Asked::new("POST", "/pay").by("shop/cart")) else {
        panic!("no rule is named")
    };
    assert_eq!((nearest.rule.number(), nearest.clause), (1, "from.source.principals"));
    assert_eq!(nearest.expected, "cluster.local/ns/shop/sa/order");
    assert_eq!(nearest.actual, "cluster.local/ns/shop/sa/cart");
}

#[test]
fn who_listens_hears_every_rule_and_the_same_outcome() {
    let deny = policy("deny", Action::Deny, vec![to(paths(["/admin"])), to(paths(["/secret"]))]);
    let compiled = compile(vec![deny, policy("allow", Action::Allow, vec![to(paths(["/a"]))])]);
    let mut steps: Vec<TraceStep> = Vec::new();
    let asked = Asked::get("/b");
    let decision = decide(&compiled, &asked.attributes(), &mut steps);
    assert!(matches!(decision.outcome, Outcome::Denied(_)));
    let words: Vec<_> = steps.iter().map(|step| (step.held, step.because.as_str())).collect();
    assert_eq!(
        words,
        [
            (true, "2 authorization policies are in force"),
            (false, "DENY AuthorizationPolicy shop/deny rule 0: to.operation.paths is /b, not /admin"),
            (false, "DENY AuthorizationPolicy shop/deny rule 1: to.operation.paths is /b, not /secret"),
            (false, "ALLOW AuthorizationPolicy shop/allow rule 0: to.operation.paths is /b, not /a"),
        ]
    );
}
