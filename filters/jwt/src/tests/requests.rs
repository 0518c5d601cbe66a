//! What becomes of requests: places, several rules, outputs, answers.

use super::support::*;
use crate::{ClaimHeader, Compiled, Jwt, KeySet, Keys, Place, Refusal, Rule, Settings};
use filter_api::{Filter, Keep, Origin, Request, Response, Spec, Step};
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderValue, Method};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

/// Requests are judged by the real clock.
fn fresh(claims: &Value) -> String {
    let mut claims = claims.clone();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    claims["exp"] = json!(now + 3600);
    token("ES256", &claims)
}

fn good() -> String {
    fresh(&claims())
}

fn passed(settings: &[Compiled], head: Parts) -> Request {
    match Jwt::on_request(settings, request(head)) {
        Step::Continue(request, ()) => request,
        other => panic!("{other:?}"),
    }
}

fn refused(settings: &[Compiled], head: Parts) -> (Response, Request) {
    let request = request(head);
    let kept =
        Request { head: request.head.clone(), body: filter_api::Body::empty(), cx: request.cx.clone() };
    match Jwt::on_request(settings, request) {
        Step::Reply(response) => (response, kept),
        other => panic!("{other:?}"),
    }
}

fn details(settings: &[Compiled], head: Parts) -> String {
    let (_, request) = refused(settings, head);
    request.cx.facts.borrow().details.clone().unwrap().into_owned()
}

fn principal(request: &Request) -> Option<String> {
    request.cx.facts.borrow().token.as_ref().map(|token| token.principal.to_string())
}

fn header(name: &str, prefix: &str) -> Place {
    Place::Header { name: name.to_owned(), prefix: prefix.to_owned() }
}

#[test]
fn a_request_without_a_token_passes() {
    let settings = compile(&[rule()]);
    for head in [
        head("/p", &[]),
        head("/p?access_token=", &[]),
        head("/p?token=x", &[("authorization", "Basic YTpi")]),
        head("/p", &[("x-jwt", "nonsense"), ("cookie", "access_token=x")]),
    ] {
        assert_eq!(principal(&passed(&settings, head)), None);
    }
}

#[test]
fn a_good_token_is_known_and_does_not_go_on() {
    let settings = compile(&[rule()]);
    for head in [
        head("/p?a=1", &[("authorization", &format!("Bearer {}", good()))]),
        head("/p?a=1", &[("authorization", &format!("bearer   {}", good()))]),
        head(&format!("/p?access_token={}&a=1", good()), &[]),
        head(&format!("/p?a=1&access%5ftoken={}", good()), &[]),
    ] {
        let request = passed(&settings, head);
        assert_eq!(principal(&request).as_deref(), Some("https://issuer.example/alice"));
        assert_eq!(request.head.uri, "/p?a=1");
        assert!(!request.head.headers.contains_key(AUTHORIZATION));
    }
    let request = passed(&settings, head(&format!("/p?access_token={}", good()), &[]));
    assert_eq!(request.head.uri, "/p");
}

#[test]
fn a_token_goes_on_where_the_rule_says_so() {
    let settings = compile(&[Rule { forward: true, ..rule() }]);
    let sent = bearer(&good());
    let request = passed(&settings, sent.clone());
    assert_eq!(request.head.headers, sent.headers);
    assert!(principal(&request).is_some());
}

#[test]
fn http2_targets_stay_whole_without_their_parameter() {
    let settings = compile(&[rule()]);
    let request =
        passed(&settings, head(&format!("http://shop.example/p?access_token={}&b=%20", good()), &[]));
    assert_eq!(request.head.uri, "http://shop.example/p?b=%20");
}

#[test]
fn the_log_shows_the_target_without_the_token() {
    let settings = compile(&[rule()]);
    let request = request(head(&format!("/p?access_token={}", good()), &[]));
    request.cx.facts.borrow_mut().target = Some(request.head.uri.clone());
    let Step::Continue(request, ()) = Jwt::on_request(&settings, request) else { panic!("refused") };
    assert_eq!(request.cx.facts.borrow().target.as_ref().unwrap(), "/p");
}

#[test]
fn places_of_a_rule_replace_the_default_ones() {
    let places =
        vec![header("x-jwt", "JWT-"), Place::Parameter("t".to_owned()), Place::Cookie("sid".to_owned())];
    let settings = compile(&[Rule { places, ..rule() }]);
    assert_eq!(principal(&passed(&settings, bearer("nonsense"))), None);
    let from_header = passed(&settings, head("/p", &[("x-jwt", &format!("JWT-{}", good()))]));
    assert!(principal(&from_header).is_some() && !from_header.head.headers.contains_key("x-jwt"));
    let from_query = passed(&settings, head(&format!("/p?x=1&t={}", good()), &[]));
    assert!(principal(&from_query).is_some() && from_query.head.uri == "/p?x=1");
    let from_cookie = passed(&settings, head("/p", &[("cookie", &format!("a=1; sid={}; b=2", good()))]));
    assert!(principal(&from_cookie).is_some());
    assert_eq!(from_cookie.head.headers[COOKIE], "a=1; b=2");
    // Another prefix is no token of ours.
    assert_eq!(principal(&passed(&settings, head("/p", &[("x-jwt", "jwt-x")]))), None);
    assert!(details(&settings, head("/p", &[("x-jwt", "JWT-x")])).contains("two_dots"));
}

#[test]
fn what_is_there_twice_is_refused() {
    let settings = compile(&[Rule {
        places: vec![
            header("authorization", "Bearer "),
            Place::Parameter("t".to_owned()),
            Place::Cookie("c".to_owned()),
        ],
        ..rule()
    }]);
    let bearer = format!("Bearer {}", good());
    let token = good();
    for twice in [
        head("/p", &[("authorization", &bearer), ("authorization", &bearer)]),
        head("/p", &[("authorization", "Basic YTpi"), ("authorization", &bearer)]),
        head("/p", &[("authorization", &bearer), ("authorization", "Basic YTpi")]),
        head(&format!("/p?t={token}&t={token}"), &[]),
        head(&format!("/p?t={token}&%74=x"), &[]),
        head("/p", &[("cookie", &format!("c={token}; c=x"))]),
        head("/p", &[("cookie", "c=x"), ("cookie", &format!("c={token}"))]),
    ] {
        assert_eq!(details(&settings, twice.clone()), Refusal::Several.details(), "{twice:?}");
    }
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let settings = compile(&[rule()]);
    let mut head = head("/p", &[]);
    head.headers.insert(AUTHORIZATION, HeaderValue::from_bytes(b"Bearer \xff\xfe.a.b").unwrap());
    assert_eq!(details(&settings, head), Refusal::Format.details());
    assert_eq!(details(&settings, self::head("/p?access_token=%ff.a.b", &[])), Refusal::Format.details());
    for nothing in ["Bearer", "Bearer ", "bearer \t"] {
        assert_eq!(
            details(&settings, self::head("/p", &[("authorization", nothing)])),
            Refusal::Format.details()
        );
    }
}

#[test]
fn the_answer_is_envoys() {
    let settings = compile(&[Rule { audiences: vec!["cart".to_owned()], ..rule() }]);
    let expired = token("ES256", &json!({"iss": ISSUER, "exp": 1}));
    let (response, request) = refused(&settings, head(&format!("/p/q?access_token={expired}"), &[]));
    assert_eq!(response.head.status, 401);
    assert_eq!(
        response.head.headers[WWW_AUTHENTICATE],
        "Bearer realm=\"http://shop.example/p/q\", error=\"invalid_token\""
    );
    assert_eq!(response.head.headers[CONTENT_TYPE], "text/plain");
    assert_eq!(request.cx.facts.borrow().details.as_deref(), Some("jwt_authn_access_denied{Jwt_is_expired}"));
    assert_eq!(request.cx.facts.borrow().records[0].because, "Jwt is expired");
    let (response, _) = refused(&settings, bearer(&good()));
    assert_eq!(response.head.status, 403, "for somebody else");
}

#[tokio::test]
async fn the_body_of_the_answer_says_why() {
    let (mut response, request) = refused(&compile(&[rule()]), bearer("x"));
    let frame =
        std::future::poll_fn(|cx| http_body::Body::poll_frame(std::pin::Pin::new(&mut response.body), cx));
    let body = frame.await.unwrap().unwrap().into_data().unwrap();
    let id = request.cx.facts.borrow().decision.unwrap();
    assert_eq!(body, format!("{} (decision {id})", Refusal::Format.text()));
}

#[test]
fn a_grpc_call_is_answered_by_trailers_alone() {
    let settings = compile(&[Rule { audiences: vec!["cart".to_owned()], ..rule() }]);
    for (token, status, message) in
        [("x.y".to_owned(), "16", Refusal::Format.text()), (good(), "7", "Audiences in Jwt are not allowed")]
    {
        let request = request(bearer(&token));
        let cx = request.cx.clone();
        cx.facts.borrow_mut().grpc = true;
        let Step::Reply(response) = Jwt::on_request(&settings, request) else { panic!("passed") };
        assert_eq!(response.head.status, 200);
        assert_eq!(response.head.headers[CONTENT_TYPE], "application/grpc");
        assert_eq!(response.head.headers["grpc-status"], status);
        let id = cx.facts.borrow().decision.unwrap();
        assert_eq!(response.head.headers["grpc-message"], format!("{message} (decision {id})"));
        assert!(response.body.is_empty());
    }
}

#[test]
fn outputs_are_written_by_us_alone() {
    let claim =
        |header: &str, claim: &str| ClaimHeader { header: header.to_owned(), claim: claim.to_owned() };
    let settings = compile(&[Rule {
        payload_header: Some("x-payload".to_owned()),
        claim_headers: vec![
            claim("x-sub", "sub"),
            claim("x-city", "address.city"),
            claim("x-level", "level"),
            claim("x-admin", "admin"),
            claim("x-roles", "roles"),
            claim("x-scope", "scope"),
            claim("x-evil", "evil"),
            claim("x-gone", "address.gone.deeper"),
        ],
        ..rule()
    }]);
    let spoofed = [
        ("x-payload", "me"),
        ("x-sub", "root"),
        ("x-sub", "root2"),
        ("X-Admin", "true"),
        ("x_sub", "root"),
        ("x-other", "1"),
        ("other_one", "1"),
    ];
    let anonymous = passed(&settings, head("/p", &spoofed));
    let mut left: Vec<_> = anonymous.head.headers.keys().map(http::HeaderName::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["host", "other_one", "x-other"], "also without a token");
    let token = fresh(&json!({
        "iss": ISSUER, "sub": "alice", "address": {"city": "Köln"}, "level": 7, "admin": false, "roles": ["a", "b"],
        "scope": "read  write", "evil": "a\r\nx-admin: true",
    }));
    let mut sent = spoofed.to_vec();
    let authorization = format!("Bearer {token}");
    sent.push(("authorization", &authorization));
    let request = passed(&settings, head("/p", &sent));
    let all = |name: &str| -> Vec<&[u8]> {
        request.head.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect()
    };
    assert_eq!(all("x-payload"), [token.split('.').nth(1).unwrap().as_bytes()]);
    assert_eq!(all("x-sub"), [b"alice"]);
    assert!(all("x_sub").is_empty());
    assert_eq!(all("x-city"), ["Köln".as_bytes()]);
    assert_eq!((all("x-level"), all("x-admin")), (vec![&b"7"[..]], vec![&b"false"[..]]));
    assert_eq!(all("x-roles"), [b"WyJhIiwiYiJd"]);
    assert_eq!(all("x-scope"), [b"read  write"], "as the issuer wrote it");
    assert!(all("x-evil").is_empty() && all("x-gone").is_empty());
    let facts = request.cx.facts.borrow();
    assert_eq!(
        facts.token.as_ref().unwrap().claims["scope"],
        json!(["read", "write"]),
        "a list for policies"
    );
}

#[test]
fn a_token_without_a_subject_has_no_principal() {
    let request = passed(&compile(&[rule()]), bearer(&fresh(&json!({"iss": ISSUER}))));
    assert_eq!(principal(&request).as_deref(), Some(""));
}

#[test]
fn a_preflight_passes_whatever_it_brings() {
    let settings = compile(&[rule()]);
    let mut preflight = head(
        "/p",
        &[("origin", "http://a"), ("access-control-request-method", "PUT"), ("authorization", "Bearer x")],
    );
    preflight.method = Method::OPTIONS;
    passed(&settings, preflight.clone());
    preflight.headers.remove("origin");
    refused(&settings, preflight);
}

fn other_rule() -> Rule {
    let keys = Keys::Inline(json!({ "keys": [ed_jwk("ed")] }).to_string());
    Rule { issuer: "https://other.example".to_owned(), keys, ..Rule::default() }
}

fn other_token() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    token("EdDSA", &json!({"iss": "https://other.example", "sub": "bob", "exp": now + 3600}))
}

#[test]
fn any_of_several_rules_may_vouch() {
    let settings = compile(&[rule(), other_rule()]);
    assert_eq!(
        principal(&passed(&settings, bearer(&good()))).as_deref(),
        Some("https://issuer.example/alice")
    );
    assert_eq!(
        principal(&passed(&settings, bearer(&other_token()))).as_deref(),
        Some("https://other.example/bob")
    );
    passed(&settings, head("/p", &[]));
    let stranger = fresh(&json!({"iss": "https://stranger.example"}));
    assert_eq!(details(&settings, bearer(&stranger)), Refusal::UnknownIssuer.details());
    let expired = token("ES256", &json!({"iss": ISSUER, "exp": 1}));
    assert_eq!(
        details(&settings, bearer(&expired)),
        Refusal::Expired.details(),
        "not that it is unknown to the other"
    );
    // The key of one issuer makes no token of another.
    let crossed =
        token("EdDSA", &json!({"iss": "https://other.example", "sub": "eve", "exp": 9_000_000_000_u64}));
    let only_first = compile(&[Rule {
        issuer: "https://other.example".to_owned(),
        keys: Keys::Inline(json!({"keys": [rsa_jwk(&RSA, "ed")]}).to_string()),
        ..rule()
    }]);
    assert_eq!(details(&only_first, bearer(&crossed)), Refusal::NoKey.details());
}

#[test]
fn two_tokens_in_the_places_of_one_rule_both_have_to_hold() {
    let settings = compile(&[rule()]);
    let (good, other) = (good(), other_token());
    let both = |header: &str, query: &str| {
        head(&format!("/p?access_token={query}"), &[("authorization", &format!("Bearer {header}"))])
    };
    assert!(principal(&passed(&settings, both(&good, &good))).is_some());
    assert_eq!(details(&settings, both(&good, "x.y.z")), Refusal::HeaderBase64.details());
    assert_eq!(details(&settings, both("x.y.z", &good)), Refusal::HeaderBase64.details());
    assert_eq!(details(&settings, both(&good, &other)), Refusal::UnknownIssuer.details());
    // With a rule for each, neither vouches for both.
    let settings = compile(&[rule(), other_rule()]);
    assert_eq!(details(&settings, both(&good, &other)), Refusal::UnknownIssuer.details());
}

#[test]
fn rules_with_places_of_their_own_do_not_disturb_each_other() {
    let second = Rule { places: vec![header("x-other", "")], ..other_rule() };
    let settings = compile(&[rule(), second]);
    let both = |first: &str, second: &str| {
        head("/p", &[("authorization", &format!("Bearer {first}")), ("x-other", second)])
    };
    let request = passed(&settings, both(&good(), &other_token()));
    assert_eq!(
        principal(&request).as_deref(),
        Some("https://issuer.example/alice"),
        "the first that vouches"
    );
    let request = passed(&settings, both("x.y.z", &other_token()));
    assert_eq!(
        principal(&request).as_deref(),
        Some("https://other.example/bob"),
        "any is enough, as Istio asks Envoy"
    );
    assert_eq!(details(&settings, head("/p", &[("x-other", "x.y.z")])), Refusal::HeaderBase64.details());
}

#[test]
fn where_an_object_is_broken_no_token_is_believed() {
    let settings = Settings { rules: vec![rule()], broken: vec![Origin::BUILT_IN] };
    let settings = [Jwt::compile(&settings, &Keep::default()).unwrap()];
    assert_eq!(details(&settings, bearer(&good())), Refusal::Closed.details());
    assert_eq!(details(&settings, head("/p?access_token=x", &[])), Refusal::Closed.details());
    passed(&settings, head("/p", &[]));
}

#[test]
fn a_rule_that_cannot_be_compiled_is_named() {
    let compile = |rule: Rule| {
        Jwt::compile(
            &Settings { rules: vec![super::support::rule(), rule], broken: Vec::new() },
            &Keep::default(),
        )
        .unwrap_err()
    };
    assert!(compile(Rule { issuer: String::new(), ..rule() }).starts_with("rules[1].issuer: is empty"));
    assert!(
        compile(Rule { keys: Keys::Inline("{}".to_owned()), ..rule() })
            .contains("rules[1].keys: has no list `keys`")
    );
    assert!(
        compile(Rule { payload_header: Some("a b".to_owned()), ..rule() })
            .contains("\"a b\" is no header name")
    );
    for framing in ["Host", "content-length", "Transfer-Encoding", "connection"] {
        let error = compile(Rule { payload_header: Some(framing.to_owned()), ..rule() });
        assert!(error.contains("where a request ends"), "{error}");
    }
}

fn fetched() -> (Rule, Vec<Compiled>, Keep) {
    let keys =
        Keys::Fetched { uri: "http://issuer.example/keys".to_owned(), timeout: Duration::from_secs(5) };
    let rule = Rule { keys, ..rule() };
    let keep = Keep::default();
    let settings = Settings { rules: vec![rule.clone()], broken: Vec::new() };
    let compiled = Jwt::compile(&settings, &keep).unwrap();
    (rule, vec![compiled], keep)
}

fn public() -> String {
    json!({ "keys": [ec_jwk(&P256, "P-256", "p256")] }).to_string()
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_the_first_keys_and_no_longer_than_the_bound() {
    let (_, settings, keep) = fetched();
    let [set] = &keep.all::<KeySet>()[..] else { panic!("one set") };
    let Step::Wait(waiting) = Jwt::on_request(&settings, request(bearer(&good()))) else {
        panic!("did not wait")
    };
    let fetch = set.begin();
    let came = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        fetch.succeed(public().as_bytes(), SystemTime::now()).unwrap();
    };
    let (step, ()) = tokio::join!(waiting, came);
    assert!(matches!(step, Step::Continue(..)));

    let (_, settings, _keep) = fetched();
    let Step::Wait(waiting) = Jwt::on_request(&settings, request(bearer(&good()))) else {
        panic!("did not wait")
    };
    let began = tokio::time::Instant::now();
    let Step::Reply(response) = waiting.await else { panic!("passed") };
    assert_eq!((response.head.status.as_u16(), began.elapsed()), (401, Duration::from_secs(5)));
    passed(&settings, head("/p", &[]));
}

#[test]
fn once_the_first_fetch_has_failed_nobody_waits() {
    let (_, settings, keep) = fetched();
    keep.all::<KeySet>()[0].begin().fail("connection refused");
    assert_eq!(details(&settings, bearer(&good())), Refusal::NoKeys.details());
    let (_, request) = refused(&settings, bearer(&fresh(&json!({"iss": "https://stranger.example"}))));
    assert_eq!(
        request.cx.facts.borrow().details.as_deref(),
        Some(Refusal::UnknownIssuer.details()),
        "whose it is not, needs no keys"
    );
}

#[test]
fn new_keys_end_what_was_verified_with_old_ones() {
    let (_, settings, keep) = fetched();
    let set = &keep.all::<KeySet>()[0];
    let token = good();
    set.begin().succeed(public().as_bytes(), SystemTime::now()).unwrap();
    passed(&settings, bearer(&token));
    passed(&settings, bearer(&token));
    assert_eq!(keep.all::<crate::Cache>()[0].counts().hits, 1);
    set.begin().succeed(public().as_bytes(), SystemTime::now()).unwrap();
    passed(&settings, bearer(&token));
    assert_eq!(keep.all::<crate::Cache>()[0].counts().hits, 2, "the same keys once more change nothing");
    let without = json!({ "keys": [ed_jwk("ed")] }).to_string();
    set.begin().succeed(without.as_bytes(), SystemTime::now()).unwrap();
    assert_eq!(details(&settings, bearer(&token)), Refusal::NoKey.details());
}

#[test]
fn an_unknown_key_asks_for_a_fetch_once() {
    let (_, settings, keep) = fetched();
    let set = keep.all::<KeySet>()[0].clone();
    set.begin().succeed(public().as_bytes(), SystemTime::now()).unwrap();
    let unknown = |kid: &str| {
        raw("ES256", &json!({"alg": "ES256", "kid": kid}).to_string(), &json!({"iss": ISSUER}).to_string())
    };
    let asked = set.asked();
    for number in 0..50 {
        assert_eq!(details(&settings, bearer(&unknown(&number.to_string()))), Refusal::NoKey.details());
    }
    let mut asked = std::pin::pin!(asked.notified());
    let mut poll = || asked.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    assert!(poll().is_ready(), "asked");
    assert!(!set.ask_for("another", std::time::Instant::now()), "not again so soon");
}

#[test]
fn keys_and_remembered_tokens_outlive_a_reload() {
    let (rule, settings, keep) = fetched();
    let set = keep.all::<KeySet>()[0].clone();
    set.begin().succeed(public().as_bytes(), SystemTime::now()).unwrap();
    let token = good();
    passed(&settings, bearer(&token));
    let reloaded =
        [Jwt::compile(&Settings { rules: vec![Rule { forward: true, ..rule }], broken: Vec::new() }, &keep)
            .unwrap()];
    drop(settings);
    passed(&reloaded, bearer(&token));
    assert_eq!(keep.all::<crate::Cache>()[0].counts().hits, 1);
}
