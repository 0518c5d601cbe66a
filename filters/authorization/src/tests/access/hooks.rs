//! What becomes of requests and connections.

use super::*;
use crate::access::{Arrival, CompiledArrival, Match, Permission, Risk, RiskHeader, Session};
use filter_api::{Body, Cx, Filter, Reason, Request, Response, Slots, Step, Verdict as Admission};

fn request(asked: &Asked) -> Request {
    let cx = Cx::new(Arc::new(asked.connection.clone()), Slots::empty(0), Arc::new(()));
    cx.facts.borrow_mut().token = asked.token.clone();
    Request { head: asked.head.clone(), body: Body::empty(), cx }
}

fn sent(compiled: Compiled, asked: &Asked) -> (Cx, Result<Request, Response>) {
    let request = request(asked);
    let cx = request.cx.clone();
    match Access::on_request(&[compiled], request) {
        Step::Continue(request, ()) => (cx, Ok(request)),
        Step::Reply(response) => (cx, Err(response)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_refusal_is_answered_and_told() {
    let deny = built(vec![named("p", vec![rule("no", Effect::Deny, vec![])])]);
    let (cx, outcome) = sent(deny, &Asked::get("/"));
    assert_eq!(outcome.unwrap_err().head.status, 403);
    let facts = cx.facts.borrow();
    let [record] = &facts.records[..] else { panic!("{:?}", facts.records) };
    let ruling = record.ruling.as_ref().unwrap();
    assert_eq!(
        (&*ruling.policy, ruling.rule, ruling.effect),
        ("shop/p", Some(0), filter_api::Effect::Denied)
    );
    assert_eq!(record.because, "denied by AccessPolicy shop/p rule 0 (no)");
    assert_eq!(facts.details.as_deref(), Some("access_denied[shop/p-rule[0]]"));
}

#[test]
fn a_step_up_is_a_challenge() {
    let session = Session { max_token_age: Some(Duration::from_mins(15)), ..Session::default() };
    let step_up = || built(vec![named("p", vec![rule("more", Effect::StepUp, vec![])])]);
    let answer = sent(step_up(), &Asked::get("/")).1.unwrap_err().head;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.headers["www-authenticate"], "Bearer error=\"insufficient_user_authentication\"");
    let aged = built(vec![Policy { session, ..named("p", vec![]) }]);
    let old = Asked::get("/").token(serde_json::json!({"iss": "i", "sub": "a", "iat": 1}));
    let answer = sent(aged, &old).1.unwrap_err().head;
    assert_eq!(
        answer.headers["www-authenticate"],
        "Bearer error=\"insufficient_user_authentication\", max_age=\"900\""
    );
    let call = request(&Asked::new("POST", "/a.B/C"));
    call.cx.facts.borrow_mut().grpc = true;
    let Step::Reply(answer) = Access::on_request(&[step_up()], call) else { panic!("it goes on") };
    assert_eq!(
        (answer.head.status.as_u16(), &answer.head.headers["grpc-status"]),
        (200, &"16".parse().unwrap())
    );
}

#[test]
fn a_rule_writes_headers_and_records() {
    let allow = Rule {
        add_headers: vec![("x-access".into(), "office".into())],
        audit: true,
        ..rule("yes", Effect::Allow, vec![])
    };
    let (cx, outcome) =
        sent(built(vec![named("p", vec![allow])]), &Asked::get("/").header("x-access", "root"));
    let headers = outcome.unwrap().head.headers;
    assert_eq!(headers.get_all("x-access").iter().collect::<Vec<_>>(), ["office"]);
    let facts = cx.facts.borrow();
    let ruling = facts.records[0].ruling.as_ref().unwrap();
    assert_eq!((&*ruling.policy, ruling.effect), ("shop/p", filter_api::Effect::Audited));
}

#[test]
fn a_policy_in_shadow_leaves_a_record_and_nothing_else() {
    let deny =
        Rule { add_headers: vec![("x-access".into(), "a".into())], ..rule("no", Effect::Deny, vec![]) };
    let shadow = |rule| Policy { shadow: true, ..named("p", vec![rule]) };
    let (cx, outcome) = sent(built(vec![shadow(deny.clone())]), &Asked::get("/"));
    assert!(outcome.is_ok());
    let effect = |cx: &Cx| cx.facts.borrow().records[0].ruling.as_ref().unwrap().effect;
    assert_eq!(effect(&cx), filter_api::Effect::WouldDeny);
    let (cx, outcome) = sent(built(vec![shadow(Rule { effect: Effect::Allow, ..deny })]), &Asked::get("/"));
    assert!(!outcome.unwrap().head.headers.contains_key("x-access"));
    assert_eq!(effect(&cx), filter_api::Effect::WouldAllow);
}

fn arrival(policies: Vec<Policy>, keep: &Keep) -> CompiledArrival {
    let settings = Settings { policies: Arc::new(policies), ..Settings::default() };
    Arrival::compile(&settings, keep).unwrap()
}

#[test]
fn a_client_cannot_say_what_policies_say() {
    let header = RiskHeader { name: "x-risk".into(), from: texts(["cluster.local/ns/risk/sa/*"]) };
    let risk = Risk { header: Some(header), ..Risk::default() };
    let adds =
        Rule { add_headers: vec![("x-access".into(), "a".into())], ..rule("r", Effect::Allow, vec![]) };
    let compiled = arrival(vec![Policy { risk, ..named("p", vec![adds]) }], &Keep::default());
    let left = |asked: Asked| {
        let mut head = asked.head.clone();
        for name in ["x-access", "x_access", "X-Risk", "x_risk", "x-other"] {
            head.headers.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), "0".parse().unwrap());
        }
        compiled.strip(&mut head.headers, &asked.connection);
        let mut names: Vec<_> =
            head.headers.keys().map(ToString::to_string).filter(|name| name != "host").collect();
        names.sort();
        names
    };
    assert_eq!(left(Asked::get("/").by("shop/cart")), ["x-other"]);
    assert_eq!(left(Asked::get("/")), ["x-other"]);
    assert_eq!(left(Asked::get("/").by("risk/scorer")), ["x-other", "x-risk", "x_risk"]);
}

#[test]
fn refused_answers_are_counted_for_their_source() {
    let keep = Keep::default();
    let risk = Risk { failed_attempts: 0.5, ..Risk::default() };
    let rules =
        vec![rule("tried", Effect::Deny, vec![above("risk.score", 0.3)]), rule("all", Effect::Allow, vec![])];
    let policy = Policy { risk, ..named("p", rules) };
    let settings = Settings { policies: Arc::new(vec![policy.clone()]), ..Settings::default() };
    let compiled = Access::compile(&settings, &keep).unwrap();
    let outer = [arrival(vec![policy], &keep)];
    let answer = |status: u16| {
        let Step::Continue(_, mut state) = Arrival::on_request(&outer, request(&Asked::get("/"))) else {
            panic!("it does not go on")
        };
        let mut response = Response::new(http::StatusCode::from_u16(status).unwrap());
        Arrival::on_response(&outer, &mut state, &mut response);
    };
    let ask = || verdict(&compiled, &Asked::get("/"), SystemTime::now());
    (0..10).for_each(|_| answer(200));
    assert_eq!(ask(), "allow all");
    (0..5).for_each(|at| answer(if at % 2 == 0 { 401 } else { 403 }));
    assert!(ask().starts_with("deny denied by AccessPolicy shop/p rule 0"), "{}", ask());
}

#[test]
fn connections_are_judged_by_what_speaks_of_them() {
    let tcp = |workload: &str| ConnectionFacts {
        protocol: Protocol::Tcp,
        ..Asked::get("/").by(workload).connection
    };
    let passes = |policy: Policy, connection: &ConnectionFacts| match Access::on_connection(
        &[built(vec![policy])],
        connection,
    ) {
        Admission::Continue(()) => true,
        Admission::Refuse(error) => {
            assert_eq!(error.reason(), Reason::AccessDenied);
            false
        }
    };
    let shop = || is("source.namespace", ["shop"]);
    let one = |effect, when| named("p", vec![rule("r", effect, when)]);
    assert!(passes(one(Effect::Allow, vec![shop()]), &tcp("shop/cart")));
    assert!(!passes(one(Effect::Allow, vec![shop()]), &tcp("ops/bot")));
    assert!(passes(one(Effect::Allow, vec![is("connection.tls", ["mutual"])]), &tcp("ops/bot")));
    let speaks_of_requests = [
        is("request.headers[x]", ["y"]),
        is("request.auth.claims[x]", ["y"]),
        is("request.permissions", ["a:b"]),
        Condition { below: Some(Threshold::Age(Duration::from_mins(1))), ..is("session.age", []) },
    ];
    for condition in speaks_of_requests {
        assert!(
            !passes(one(Effect::Allow, vec![shop(), condition.clone()]), &tcp("shop/cart")),
            "{condition:?}"
        );
        let deny = Policy { allows_by_default: true, ..one(Effect::Deny, vec![shop(), condition.clone()]) };
        assert!(!passes(deny.clone(), &tcp("shop/cart")), "by what it says of connections");
        assert!(passes(deny, &tcp("ops/bot")));
    }
    let covered = |matches| Policy {
        permissions: vec![Permission { name: "a:b".into(), matches }],
        ..one(Effect::Allow, vec![shop()])
    };
    let get = Match { methods: texts(["GET"]), ..Match::default() };
    assert!(!passes(covered(vec![get]), &tcp("shop/cart")) && !passes(covered(vec![]), &tcp("shop/cart")));
    for protocol in [Protocol::Http1, Protocol::Http2] {
        assert!(passes(one(Effect::Deny, vec![]), &connection(protocol)), "requests are judged one by one");
    }
}
