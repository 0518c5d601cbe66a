//! The layer: answers, details, records.

use super::*;
use filter_api::{Body, Cx, Effect, FilterLayer, Request, Response, Slot, Slots};
use http::StatusCode;
use tower::{Layer, ServiceExt, service_fn};

const SLOT: Slot<Authorization> = Slot::new(0);

async fn send(policies: Vec<Policy>, asked: Asked, grpc: bool) -> (Response, Cx) {
    let slots = Slots::empty(1).with(SLOT, vec![compile(policies)]);
    let cx = Cx::new(Arc::new(asked.connection), slots, Arc::new(()));
    cx.facts.borrow_mut().grpc = grpc;
    cx.facts.borrow_mut().token = asked.token;
    cx.facts.borrow_mut().client = asked.client;
    let upstream = service_fn(async |_: Request| Ok(Response::new(StatusCode::NO_CONTENT)));
    let layer = FilterLayer::<Authorization>::new(SLOT).layer(upstream);
    let request = Request { head: asked.head, body: Body::empty(), cx: cx.clone() };
    (layer.oneshot(request).await.unwrap(), cx)
}

#[tokio::test]
async fn a_refusal_is_403_with_istios_text_and_envoys_details() {
    let deny = policy("deny", Action::Deny, vec![to(paths(["/a"]))]);
    let (response, cx) = send(vec![deny], Asked::get("/a"), false).await;
    assert_eq!(response.head.status, StatusCode::FORBIDDEN);
    assert_eq!(response.head.headers["content-type"], "text/plain");
    let facts = cx.facts.borrow();
    assert_eq!(
        facts.details.as_deref(),
        Some("rbac_access_denied_matched_policy[ns[shop]-policy[deny]-rule[0]]")
    );
    assert!(facts.reasons.is_empty(), "Envoy has no response flag for it");
    let ruling = facts.records[0].ruling.as_deref().unwrap();
    assert_eq!((&*ruling.policy, ruling.rule, ruling.effect), ("shop/deny", Some(0), Effect::Denied));
    assert!(ruling.failed.is_none() && !ruling.effect.is_shadow());
}

#[tokio::test]
async fn a_refused_grpc_call_is_permission_denied_in_the_head() {
    let (response, cx) =
        send(vec![policy("none", Action::Allow, Vec::new())], Asked::get("/a.B/C"), true).await;
    let told = format!("RBAC: access denied (decision {})", cx.facts.borrow().decision.unwrap());
    let headers = &response.head.headers;
    assert_eq!((response.head.status, &headers["grpc-status"]), (StatusCode::OK, &"7".parse().unwrap()));
    assert_eq!(
        (&headers["content-type"], &headers["grpc-message"]),
        (&"application/grpc".parse().unwrap(), &told.parse().unwrap())
    );
    assert!(response.body.is_empty());
}

#[tokio::test]
async fn a_request_that_no_rule_allows_leaves_the_clause_that_failed() {
    let allow = policy(
        "allow",
        Action::Allow,
        vec![from(Source { namespaces: texts(["ops"]), ..Source::default() })],
    );
    let (_, cx) = send(vec![allow], Asked::get("/a").by("shop/cart"), false).await;
    let facts = cx.facts.borrow();
    let failed = facts.records[0].ruling.as_deref().unwrap().failed.as_ref().unwrap();
    let texts = (&*failed.key, &*failed.expected, &*failed.actual);
    assert_eq!(texts, ("from.source.namespaces", "ops", "cluster.local/ns/shop/sa/cart"));
}

#[tokio::test]
async fn the_remote_address_is_that_of_the_client_whom_trusted_hops_name() {
    let policies =
        || vec![policy("p", Action::Allow, vec![when("remote.ip", ["198.51.100.1", "192.0.2.7"])])];
    let status = async |client: Option<&str>| {
        let asked = Asked { client: client.map(|client| client.parse().unwrap()), ..Asked::get("/") };
        send(policies(), asked, false).await.0.head.status
    };
    assert_eq!(status(Some("198.51.100.1")).await, StatusCode::NO_CONTENT);
    assert_eq!(status(Some("203.0.113.9")).await, StatusCode::FORBIDDEN, "the peer alone does not count");
    assert_eq!(status(None).await, StatusCode::NO_CONTENT, "without a word of hops it is the peer");
}

#[tokio::test]
async fn what_passes_leaves_no_record() {
    let (response, cx) =
        send(vec![policy("all", Action::Allow, vec![Rule::default()])], Asked::get("/a"), false).await;
    assert_eq!(response.head.status, StatusCode::NO_CONTENT);
    assert!(cx.facts.borrow().records.is_empty() && cx.facts.borrow().details.is_none());
}

#[tokio::test]
async fn audits_and_policies_on_trial_are_recorded_and_the_request_passes() {
    let policies = vec![
        policy("watch", Action::Audit, vec![Rule::default()]),
        Policy { dry_run: true, ..policy("deny", Action::Deny, vec![to(paths(["/a"]))]) },
        Policy { dry_run: true, ..policy("allow", Action::Allow, vec![to(paths(["/a"]))]) },
    ];
    let effects = async |path: &str| {
        let (response, cx) = send(policies.clone(), Asked::get(path), false).await;
        assert_eq!(response.head.status, StatusCode::NO_CONTENT);
        let facts = cx.facts.borrow();
        facts.records.iter().map(|record| record.ruling.as_ref().unwrap().effect).collect::<Vec<_>>()
    };
    assert_eq!(effects("/a").await, [Effect::Audited, Effect::WouldDeny, Effect::WouldAllow]);
    assert_eq!(effects("/b").await, [Effect::Audited, Effect::WouldAllow, Effect::WouldDeny]);
}
