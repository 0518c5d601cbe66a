//! The filter and a provider of the test's own making.

use super::super::{BodyInCheck, Custom, Failures, OnFailure, Protocol, Provider};
use super::{answer, connection, field, framed, head, number, over_http, provider, text};
use crate::{Action, Authorization, Operation, Policy, Rule, Settings};
use bytes::Bytes;
use filter_api::{
    Answer, Answered, Body, Call, Calls, Cx, Effect, Error, FilterLayer, Keep, Reason, Request, Response,
    Slot, Slots, Spec,
};
use http::StatusCode;
use http_body::Body as _;
use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tower::{Layer, ServiceExt, service_fn};

const SLOT: Slot<Authorization> = Slot::new(0);

type Script = fn(&Call) -> Result<Answer, Error>;

struct Fake {
    script: Script,
    calls: RefCell<Vec<Call>>,
}

impl Calls for Fake {
    fn call(self: Rc<Self>, call: Call) -> Answered {
        let result = (self.script)(&call);
        self.calls.borrow_mut().push(call);
        Box::pin(std::future::ready(result))
    }
}

/// A filter, its provider, and what the upstream got.
struct Setting {
    slots: Slots,
    fake: Rc<Fake>,
    upstream: RefCell<Vec<(http::HeaderMap, Bytes)>>,
}

fn custom(failures: Failures, cache: Option<Duration>) -> Policy {
    let paths = vec!["/asked*".to_owned()];
    let rule = Rule { to: vec![Operation { paths, ..Operation::default() }], ..Rule::default() };
    Policy {
        namespace: "shop".into(),
        name: "ask".into(),
        action: Action::Custom { provider: "opa".into(), failures, cache },
        rules: vec![rule],
        ..Policy::default()
    }
}

fn named(name: &str, action: Action, operation: Operation) -> Policy {
    let rule = Rule { to: vec![operation], ..Rule::default() };
    Policy { namespace: "shop".into(), name: name.into(), action, rules: vec![rule], ..Policy::default() }
}

impl Setting {
    fn new(provider: Provider, policies: Vec<Policy>, script: Script) -> Self {
        let custom = Some(Arc::new(Custom::Provider(Box::new(provider))));
        let settings = Settings { policies: Arc::new(policies), custom, ..Settings::default() };
        let compiled = Authorization::compile(&settings, &Keep::default()).unwrap();
        let fake = Rc::new(Fake { script, calls: RefCell::default() });
        Self { slots: Slots::empty(1).with(SLOT, vec![compiled]), fake, upstream: RefCell::default() }
    }

    async fn send(&self, head: http::request::Parts, body: Body) -> (Result<Response, Error>, Cx) {
        let cx = Cx::calling(Arc::new(connection()), self.slots.clone(), Arc::new(()), self.fake.clone());
        let upstream = service_fn(async |request: Request| {
            let mut body = request.body;
            let mut bytes = Vec::new();
            while let Some(frame) = poll_fn(|task| Pin::new(&mut body).poll_frame(task)).await {
                bytes.extend_from_slice(frame?.data_ref().unwrap());
            }
            self.upstream.borrow_mut().push((request.head.headers, bytes.into()));
            let mut response = Response::new(StatusCode::NO_CONTENT);
            response.head.headers.insert("x-seen", "by the application".parse().unwrap());
            Ok(response)
        });
        let layer = FilterLayer::<Authorization>::new(SLOT).layer(upstream);
        (layer.oneshot(Request { head, body, cx: cx.clone() }).await, cx)
    }

    async fn get(&self, path: &str) -> (Response, Cx) {
        let (response, cx) = self.send(head("GET", path, &[]), Body::empty()).await;
        (response.unwrap(), cx)
    }

    fn asked(&self) -> usize {
        self.fake.calls.borrow().len()
    }
}

fn http() -> Provider {
    provider(Protocol::Http(over_http()))
}

fn allow(_: &Call) -> Result<Answer, Error> {
    Ok(answer(200, &[("x-user", "ann"), ("x-seen", "by the provider")], ""))
}

fn ruling(cx: &Cx) -> (Effect, String) {
    let facts = cx.facts.borrow();
    let record = facts.records.last().unwrap();
    let ruling = record.ruling.as_deref().unwrap();
    assert_eq!((&*ruling.policy, ruling.rule), ("shop/ask", Some(0)));
    (ruling.effect, record.because.to_string())
}

#[tokio::test]
async fn only_what_a_rule_holds_for_is_asked_about() {
    let setting = Setting::new(http(), vec![custom(Failures::default(), None)], allow);
    let (response, cx) = setting.get("/free").await;
    assert_eq!((response.head.status, setting.asked()), (StatusCode::NO_CONTENT, 0));
    assert!(cx.facts.borrow().records.is_empty());
    assert_eq!(response.head.headers["x-seen"], "by the application");
    let (response, cx) = setting.get("/asked").await;
    assert_eq!((response.head.status, setting.asked()), (StatusCode::NO_CONTENT, 1));
    assert_eq!(response.head.headers["x-seen"], "by the provider");
    assert_eq!(setting.upstream.borrow()[1].0["x-user"], "ann");
    assert_eq!(ruling(&cx).0, Effect::Allowed);
    let call = &setting.fake.calls.borrow()[0];
    assert_eq!((&*call.cluster, call.timeout), ("outbound|9000||opa.mesh", Duration::from_secs(600)));
}

#[tokio::test]
async fn a_denial_is_the_providers_answer_with_envoys_flag() {
    let setting = Setting::new(http(), vec![custom(Failures::default(), None)], |_| {
        Ok(answer(302, &[("location", "/login")], "come in"))
    });
    let (response, cx) = setting.get("/asked").await;
    assert_eq!(
        (response.head.status, &response.head.headers["location"]),
        (StatusCode::FOUND, &text("/login"))
    );
    assert_eq!(response.head.headers["content-type"], "text/plain");
    let (effect, because) = ruling(&cx);
    assert_eq!(effect, Effect::Denied);
    assert_eq!(because, "denied by provider `opa` with 302, as AuthorizationPolicy shop/ask rule 0 asks it");
    let facts = cx.facts.borrow();
    assert_eq!((facts.reasons[0].flag(), facts.details.as_deref()), ("UAEX", Some("ext_authz_denied")));
    assert!(setting.upstream.borrow().is_empty());
}

#[tokio::test]
async fn a_grpc_call_is_denied_in_trailers_only() {
    let setting = Setting::new(provider(Protocol::Grpc), vec![custom(Failures::default(), None)], |_| {
        let denied = field(2, [field(1, number(1, 401)), field(3, "who 1% \u{e9}?")].concat());
        let message = framed(&[field(1, number(1, 16)), denied].concat());
        Ok(answer(200, &[("grpc-status", "0")], message))
    });
    let cx = Cx::calling(Arc::new(connection()), setting.slots.clone(), Arc::new(()), setting.fake.clone());
    cx.facts.borrow_mut().grpc = true;
    let upstream = service_fn(async |_: Request| Ok(Response::new(StatusCode::OK)));
    let layer = FilterLayer::<Authorization>::new(SLOT).layer(upstream);
    let request = Request { head: head("POST", "/asked.A/B", &[]), body: Body::empty(), cx };
    let response = layer.oneshot(request).await.unwrap();
    let headers = &response.head.headers;
    assert_eq!((response.head.status, &headers["grpc-status"]), (StatusCode::OK, &text("16")));
    assert_eq!(headers["grpc-message"], "who 1%25 %C3%A9?");
    assert!(response.body.is_empty());
}

#[tokio::test]
async fn deny_and_allow_policies_judge_what_the_provider_leaves() {
    let user = |name: &str, value: &str| crate::Condition {
        key: format!("request.headers[{name}]"),
        values: vec![value.to_owned()],
        not_values: Vec::new(),
    };
    let mut only_ann = named("only-ann", Action::Allow, Operation::default());
    only_ann.rules[0].to.clear();
    only_ann.rules[0].when.push(user("x-user", "ann"));
    let policies = vec![custom(Failures::default(), None), only_ann];
    let setting = Setting::new(http(), policies, allow);
    let forged = head("GET", "/asked", &[("x-user", "bob")]);
    assert_eq!(setting.send(forged, Body::empty()).await.0.unwrap().head.status, StatusCode::NO_CONTENT);
    let deny = named("deny", Action::Deny, Operation { methods: vec!["GET".into()], ..Operation::default() });
    let setting = Setting::new(http(), vec![custom(Failures::default(), None), deny], allow);
    let (response, cx) = setting.get("/asked").await;
    assert_eq!((response.head.status, setting.asked()), (StatusCode::FORBIDDEN, 1));
    assert!(cx.facts.borrow().details.as_deref().unwrap().starts_with("rbac_access_denied_matched_policy"));
}

#[tokio::test]
async fn each_kind_of_failure_has_its_own_outcome() {
    const TIMEOUT: Script = |_| Err(Error::new(Reason::RequestTimeout));
    const UNREACHABLE: Script = |_| Err(Error::new(Reason::ConnectFailure));
    const ERROR: Script = |_| Ok(answer(503, &[], ""));
    let outcome = async |fail_open: bool, failures: Failures, script: Script| {
        let provider = Provider { fail_open, status_on_error: 418, ..http() };
        let setting = Setting::new(provider, vec![custom(failures, None)], script);
        let (response, cx) = setting.get("/asked").await;
        let effect = ruling(&cx).0;
        let facts = cx.facts.borrow();
        let denied = effect == Effect::Denied;
        assert_eq!(facts.details.as_deref(), denied.then_some("ext_authz_error"));
        assert_eq!(facts.reasons.as_slice(), if denied { &[Reason::ExternalFailed][..] } else { &[] });
        response.head.status.as_u16()
    };
    for script in [TIMEOUT, UNREACHABLE, ERROR] {
        assert_eq!(outcome(false, Failures::default(), script).await, 418);
        assert_eq!(outcome(true, Failures::default(), script).await, 204);
    }
    let each = Failures {
        timeout: Some(OnFailure::Status(504)),
        unreachable: Some(OnFailure::Allow),
        error: Some(OnFailure::Deny),
    };
    for fail_open in [false, true] {
        assert_eq!(outcome(fail_open, each, TIMEOUT).await, 504);
        assert_eq!(outcome(fail_open, each, UNREACHABLE).await, 204);
        assert_eq!(outcome(fail_open, each, ERROR).await, 418);
    }
}

#[tokio::test]
async fn row_12_a_question_that_cannot_be_sent_refuses_even_where_failures_pass() {
    for reason in [Reason::BadAuthority, Reason::BadPath, Reason::HeadersTooLarge, Reason::Internal] {
        // What the failure is depends on the call alone, so one script for each would say no more.
        let failure = super::super::failure(&Error::new(reason));
        assert!(matches!(failure, super::super::Failure::Unaskable(_)), "{reason:?}");
    }
    let failing = Provider { fail_open: true, ..http() };
    let setting = Setting::new(failing, vec![custom(Failures::default(), None)], |_| {
        Err(Error::new(Reason::BadAuthority))
    });
    assert_eq!(setting.get("/asked").await.0.head.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_denial_without_content_has_no_body() {
    let setting =
        Setting::new(http(), vec![custom(Failures::default(), None)], |_| Ok(answer(204, &[], "x")));
    let (response, _) = setting.get("/asked").await;
    assert!(response.body.is_empty() && response.head.status == StatusCode::NO_CONTENT);
    assert!(setting.upstream.borrow().is_empty());
}

#[tokio::test]
async fn an_answer_that_cannot_be_followed_refuses_even_where_failures_pass() {
    let failing = Provider { fail_open: true, ..provider(Protocol::Grpc) };
    let setting = Setting::new(failing, vec![custom(Failures::default(), None)], |_| {
        Ok(answer(200, &[("grpc-status", "0")], "no message"))
    });
    assert_eq!(setting.get("/asked").await.0.head.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn nobody_speaks_for_the_provider_when_it_fails_open() {
    let failing = Provider { fail_open: true, ..http() };
    let setting = Setting::new(failing, vec![custom(Failures::default(), None)], |_| {
        Err(Error::new(Reason::ConnectFailure))
    });
    let forged = head("GET", "/asked", &[("x-user", "root"), ("x-other", "1")]);
    setting.send(forged, Body::empty()).await.0.unwrap();
    let upstream = setting.upstream.borrow();
    assert!(!upstream[0].0.contains_key("x-user") && upstream[0].0.contains_key("x-other"));
}

#[tokio::test]
async fn a_verdict_is_kept_when_the_policy_says_so_and_failures_never() {
    let kept = |script| {
        Setting::new(http(), vec![custom(Failures::default(), Some(Duration::from_secs(60)))], script)
    };
    let setting = kept(allow);
    for _ in 0..3 {
        assert_eq!(setting.get("/asked").await.0.head.status, StatusCode::NO_CONTENT);
    }
    assert_eq!(setting.asked(), 1);
    assert_eq!(setting.upstream.borrow()[2].0["x-user"], "ann");
    let (_, cx) = setting.get("/asked").await;
    assert!(ruling(&cx).1.ends_with("which said so lately"));
    setting.get("/asked/other").await;
    assert_eq!(setting.asked(), 2);
    let failing = kept(|_| Ok(answer(500, &[], "")));
    failing.get("/asked").await;
    failing.get("/asked").await;
    assert_eq!(failing.asked(), 2);
    let each_time = Setting::new(http(), vec![custom(Failures::default(), None)], allow);
    each_time.get("/asked").await;
    each_time.get("/asked").await;
    assert_eq!(each_time.asked(), 2);
}

#[tokio::test]
async fn a_body_is_shown_as_far_as_asked_for_and_forwarded_as_it_is() {
    let with_body = |partial| {
        let body = Some(BodyInCheck { most: 4, partial, as_bytes: false });
        Setting::new(Provider { body, ..http() }, vec![custom(Failures::default(), None)], allow)
    };
    let post = |length: Option<&str>| {
        let length = length.map(|length| ("content-length", length));
        head("POST", "/asked", length.as_slice())
    };
    let setting = with_body(true);
    setting.send(post(None), Body::from("hello")).await.0.unwrap();
    assert_eq!(*setting.fake.calls.borrow()[0].body, *b"hell");
    assert_eq!(*setting.upstream.borrow()[0].1, *b"hello");
    let setting = with_body(false);
    setting.send(post(None), Body::from("four")).await.0.unwrap();
    assert_eq!((&*setting.fake.calls.borrow()[0].body, setting.asked()), (&b"four"[..], 1));
    for length in [None, Some("5")] {
        let (result, cx) = setting.send(post(length), Body::from("hello")).await;
        assert_eq!(result.unwrap_err().reason(), Reason::BodyTooLarge);
        assert_eq!(ruling(&cx).0, Effect::Denied);
    }
    assert_eq!((setting.asked(), setting.upstream.borrow().len()), (1, 1));
}

#[tokio::test]
async fn a_policy_on_trial_asks_nobody_and_says_that_it_would() {
    let trial = Policy { dry_run: true, ..custom(Failures::default(), None) };
    let setting = Setting::new(http(), vec![trial], allow);
    let (response, cx) = setting.get("/asked").await;
    assert_eq!((response.head.status, setting.asked()), (StatusCode::NO_CONTENT, 0));
    let (effect, because) = ruling(&cx);
    assert!(effect == Effect::WouldAsk && effect.is_shadow());
    assert_eq!(because, "on trial: AuthorizationPolicy shop/ask rule 0 would ask provider `opa`");
}
