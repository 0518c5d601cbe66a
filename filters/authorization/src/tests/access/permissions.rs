//! Roles and permissions.

use super::*;
use crate::access::{Match, Permission, Role};

fn orders() -> Policy {
    let of =
        |methods: &str| Match { methods: texts([methods]), paths: texts(["/orders/*"]), ..Match::default() };
    let permission = |name: &str, methods: &str| Permission { name: name.into(), matches: vec![of(methods)] };
    let role = |claim: &str, value: &str, permissions: &[&str]| Role {
        claim: claim.into(),
        value: value.into(),
        permissions: permissions.iter().map(|&name| name.to_owned()).collect(),
    };
    Policy {
        permissions: vec![permission("orders:write", "POST"), permission("orders:read", "GET")],
        roles: vec![
            role("roles", "manager", &["orders:write", "orders:read"]),
            role("[realm][roles]", "clerk", &["orders:read"]),
        ],
        ..named("orders", vec![rule("all", Effect::Allow, vec![])])
    }
}

fn by(claims: serde_json::Value, method: &str, path: &str) -> Asked {
    Asked::new(method, path).token(claims)
}

#[test]
fn a_request_that_permissions_cover_needs_one_of_them() {
    let compiled = built(vec![orders()]);
    let manager = || serde_json::json!({"roles": ["manager"]});
    let clerk = || serde_json::json!({"realm": {"roles": ["clerk"]}});
    let ask = |asked: &Asked| verdict(&compiled, asked, noon());
    assert_eq!(ask(&by(manager(), "POST", "/orders/1")), "allow all");
    assert_eq!(ask(&by(clerk(), "GET", "/orders/1")), "allow all");
    assert_eq!(
        ask(&by(clerk(), "POST", "/orders/1")),
        "deny denied: AccessPolicy shop/orders wants permission orders:write, and no role of the caller gives it"
    );
    assert!(ask(&Asked::get("/orders/1")).starts_with("deny"), "nobody has no role");
    assert_eq!(ask(&Asked::get("/other")), "allow all", "no permission covers it");
}

#[test]
fn a_rule_can_allow_by_permission() {
    let mut policy = orders();
    policy.rules = vec![rule("granted", Effect::Allow, vec![is("request.permissions", ["orders:*"])])];
    let compiled = built(vec![policy]);
    let manager = serde_json::json!({"roles": ["manager"]});
    assert_eq!(verdict(&compiled, &by(manager.clone(), "POST", "/orders/1"), noon()), "allow granted");
    let other = verdict(&compiled, &by(manager, "GET", "/other"), noon());
    assert!(other.contains("when request.permissions is no permission, not orders:*"), "{other}");
}

#[test]
fn what_may_be_covered_needs_the_permission() {
    let mut policy = orders();
    let debug = Match { headers: vec![("x-debug".into(), "1".into())], ..Match::default() };
    policy.permissions[0].matches = vec![debug];
    let compiled = built(vec![policy]);
    let twice = by(serde_json::json!({"roles": ["manager"]}), "GET", "/x").header("x-debug", "1");
    assert_eq!(verdict(&compiled, &twice, noon()), "allow all");
    let twice = twice.header("x-debug", "0");
    assert!(verdict(&compiled, &twice, noon()).starts_with("deny"), "it says two things");
}

#[test]
fn tables_that_do_not_fit_together_are_refused() {
    let mut policy = orders();
    policy.permissions[1].name = "orders".into();
    policy.roles[1].claim = "[realm".into();
    assert_eq!(
        faults(&policy),
        [
            "permissions[1].name `orders` is no permission",
            "roles[0].permissions[1] `orders:read` is no permission of this policy",
            "roles[1].permissions[0] `orders:read` is no permission of this policy",
            "roles[1].claim `[realm` is no claim",
        ]
    );
}
