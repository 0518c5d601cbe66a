#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use crate::{
    Compiled, Decision, HeaderChange, HeaderChanges, PathRewrite, Redirect, RedirectPath, Reply, Settings,
    Transform, decide,
};
use filter_api::{
    Body, ConnectionFacts, Cx, FilterLayer, Matched, NoTrace, ObjectName, Origin, Protocol, Reason, Request,
    Response, Slot, Slots, Spec, TraceStep,
};
use http::{HeaderValue, StatusCode, request};
use std::sync::Arc;
use tower::{Layer, ServiceExt, service_fn};

fn head(uri: &str) -> request::Parts {
    http::Request::builder().uri(uri).header("host", "shop").body(()).unwrap().into_parts().0
}

fn compile(settings: &[Settings]) -> Vec<Compiled> {
    settings
        .iter()
        .map(|settings| Transform::compile(settings, &filter_api::Keep::default()).unwrap())
        .collect()
}

fn wrong(settings: &Settings) -> String {
    Transform::compile(settings, &filter_api::Keep::default()).unwrap_err()
}

fn forward(settings: &[Settings], mut head: request::Parts) -> request::Parts {
    let compiled = compile(settings);
    match decide(&compiled, &head, &mut NoTrace) {
        Decision::Forward(edit) => edit.apply(&compiled, &mut head).unwrap(),
        other => panic!("{other:?}"),
    }
    head
}

fn change(name: &str, value: &str) -> HeaderChange {
    HeaderChange { name: name.into(), value: value.into() }
}

fn path(path: PathRewrite) -> Settings {
    Settings { path: Some(path), ..Settings::default() }
}

fn prefix(matched: &str, with: &str) -> Settings {
    path(PathRewrite::Prefix { matched: matched.into(), with: with.into() })
}

fn regex(pattern: &str, with: &str) -> Settings {
    path(PathRewrite::Regex { pattern: pattern.into(), with: with.into() })
}

fn rewritten(settings: Settings, uri: &str) -> String {
    forward(&[settings], head(uri)).uri.to_string()
}

fn values(head: &request::Parts, name: &str) -> Vec<String> {
    head.headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
}

fn to(redirect: Redirect) -> Settings {
    Settings { reply: Some(Reply::Redirect(redirect)), ..Settings::default() }
}

fn redirect() -> Redirect {
    Redirect { status: 301, scheme: None, authority: None, port: None, path: None }
}

fn location(redirect: Redirect, head: &request::Parts) -> String {
    match decide(&compile(&[to(redirect)]), head, &mut NoTrace) {
        Decision::Reply(answer) => answer.headers["location"].to_str().unwrap().to_owned(),
        other => panic!("{other:?}"),
    }
}

fn at(host: &'static str, uri: &str) -> request::Parts {
    let mut head = head(uri);
    head.headers.insert("host", HeaderValue::from_static(host));
    head
}

#[test]
fn headers_are_removed_then_set_then_added() {
    let changes = HeaderChanges {
        remove: vec!["X-Old".into(), "x-kept".into()],
        set: vec![change("x-kept", "set"), change("x-one", "1")],
        add: vec![change("x-one", "2"), change("X-New", "3")],
    };
    let settings = Settings { request_headers: changes, ..Settings::default() };
    let mut head = head("/");
    for (name, value) in [("x-old", "a"), ("x-kept", "b"), ("x-one", "c"), ("x-other", "d")] {
        head.headers.append(name, HeaderValue::from_static(value));
    }
    let head = forward(&[settings], head);
    assert_eq!(values(&head, "x-old"), [""; 0]);
    assert_eq!(values(&head, "x-kept"), ["set"]);
    assert_eq!(values(&head, "x-one"), ["1", "2"]);
    assert_eq!(values(&head, "x-new"), ["3"]);
    assert_eq!(values(&head, "x-other"), ["d"]);
}

#[test]
fn settings_apply_one_after_the_other() {
    let level = |remove: &str, set: &str| Settings {
        request_headers: HeaderChanges {
            remove: vec![remove.into()],
            set: vec![change("x-both", set)],
            add: vec![change("x-all", set)],
        },
        ..Settings::default()
    };
    let mut head = head("/");
    head.headers.insert("x-came", HeaderValue::from_static("a"));
    let head = forward(&[level("x-none", "route"), level("x-came", "destination")], head);
    assert_eq!(values(&head, "x-both"), ["destination"]);
    assert_eq!(values(&head, "x-all"), ["route", "destination"]);
    assert!(values(&head, "x-came").is_empty());
    let kept = Settings {
        request_headers: HeaderChanges { remove: vec!["x-both".into()], ..HeaderChanges::default() },
        ..Settings::default()
    };
    let head = forward(&[level("x-none", "route"), kept], self::head("/"));
    assert!(values(&head, "x-both").is_empty(), "what came before is removed as well");
}

#[test]
fn a_full_rewrite_keeps_the_query() {
    let full = || path(PathRewrite::Full("/new".into()));
    assert_eq!(rewritten(full(), "/old/deep?a=1&b=2"), "/new?a=1&b=2");
    assert_eq!(rewritten(full(), "/"), "/new");
}

#[test]
fn a_prefix_is_replaced_text_by_text_as_envoy_does() {
    assert_eq!(rewritten(prefix("/api/", "/"), "/api/x?q"), "/x?q");
    assert_eq!(rewritten(prefix("/api", "/v2"), "/api/x"), "/v2/x");
    assert_eq!(rewritten(prefix("/api", "/v2"), "/api"), "/v2");
    assert_eq!(rewritten(prefix("/api", "/v2"), "/apix"), "/v2x");
    assert_eq!(rewritten(prefix("/api", "/"), "/api?q"), "/?q");
    // Istio leaves a VirtualService's double slash to its author.
    assert_eq!(rewritten(prefix("/api", "/"), "/api/x"), "//x");
}

#[test]
fn a_prefix_that_matched_without_regard_to_case_is_replaced_too() {
    assert_eq!(rewritten(prefix("/api", "/v2"), "/API/x"), "/v2/x");
}

#[test]
fn istio_turns_a_gateway_prefix_by_a_slash_into_this_pattern() {
    let strip = || regex("^/api(/?)(.*)", "/\\2");
    assert_eq!(rewritten(strip(), "/api/x?q"), "/x?q");
    assert_eq!(rewritten(strip(), "/api"), "/");
    assert_eq!(rewritten(strip(), "/api/"), "/");
}

#[test]
fn a_regex_replaces_every_match_in_the_path_and_leaves_the_query() {
    assert_eq!(rewritten(regex("o", "0"), "/foo/o?o=o"), "/f00/0?o=o");
    assert_eq!(rewritten(regex("^/u/([^/]+)/(.*)$", "/\\2/of/\\1"), "/u/ann/cart?x"), "/cart/of/ann?x");
    assert_eq!(rewritten(regex("b+", r"-\0-"), "/abb"), "/a-bb-");
    assert_eq!(rewritten(regex("nothing", "x"), "/abc?q"), "/abc?q");
    assert_eq!(rewritten(regex(".*", ""), "/abc?q"), "/?q");
}

#[test]
fn in_a_replacement_a_dollar_is_literal_and_a_double_backslash_is_one() {
    assert_eq!(rewritten(regex("a(.)", "$1$${x}"), "/ab"), "/$1$${x}");
    assert_eq!(rewritten(regex("a", r"x\\1"), "/a"), r"/x\1");
}

#[test]
fn a_rewrite_that_makes_no_path_fails_and_says_what_came_out() {
    let mut trace = Vec::new();
    let Decision::Fail(why) = decide(&compile(&[regex("^/", "")]), &head("/a"), &mut trace) else {
        panic!("went on")
    };
    assert!(why.contains("\"a\""), "{why}");
    assert!(matches!(&trace[..], [TraceStep { held: false, .. }]));
}

#[test]
fn rewrites_of_both_levels_follow_each_other() {
    let head = forward(&[prefix("/a", "/b"), regex("b", "c")], head("/a/x"));
    assert_eq!(head.uri, "/c/x");
}

#[test]
fn a_target_without_a_path_is_left_alone() {
    let full = || path(PathRewrite::Full("/new".into()));
    let connect = || http::Request::connect("shop:80").body(()).unwrap().into_parts().0;
    assert_eq!(forward(&[full()], connect()).uri, "shop:80");
    assert_eq!(forward(&[full()], head("*")).uri, "*");
}

#[test]
fn an_authority_goes_into_host_and_into_the_target_that_has_one() {
    let settings = || Settings { authority: Some("cart:9080".into()), ..Settings::default() };
    let origin_form = forward(&[settings()], head("/x?q"));
    assert_eq!(
        (origin_form.uri.to_string().as_str(), &origin_form.headers["host"]),
        ("/x?q", &HeaderValue::from_static("cart:9080"))
    );
    let absolute = forward(&[settings()], head("http://shop/x"));
    assert_eq!(absolute.uri, "http://cart:9080/x");
    assert_eq!(values(&absolute, "host"), ["cart:9080"]);
}

#[test]
fn the_authority_of_a_route_wins_over_that_of_a_destination() {
    let settings = |host: &str| Settings { authority: Some(host.into()), ..Settings::default() };
    assert_eq!(values(&forward(&[settings("a"), settings("b")], head("/")), "host"), ["a"]);
    assert_eq!(values(&forward(&[Settings::default(), settings("b")], head("/")), "host"), ["b"]);
}

#[test]
fn a_redirect_keeps_what_it_does_not_name() {
    assert_eq!(location(redirect(), &at("shop:8080", "/a?b=c")), "http://shop:8080/a?b=c");
    let full = Redirect { path: Some(RedirectPath::Full("/new".into())), ..redirect() };
    assert_eq!(location(full, &at("shop", "/a?b=c")), "http://shop/new?b=c");
    let own_query = Redirect { path: Some(RedirectPath::Full("/new?x=y".into())), ..redirect() };
    assert_eq!(location(own_query, &at("shop", "/a?b=c")), "http://shop/new?x=y");
    let prefix = RedirectPath::Prefix { matched: "/a".into(), with: "/z".into() };
    let prefix = Redirect { path: Some(prefix), ..redirect() };
    assert_eq!(location(prefix, &at("shop", "/A/b?c")), "http://shop/z/b?c");
}

#[test]
fn a_redirect_takes_scheme_and_host_from_the_target_when_it_has_them() {
    assert_eq!(location(redirect(), &at("other", "https://shop:8443/a")), "https://shop:8443/a");
}

#[test]
fn the_default_port_of_the_old_or_the_new_scheme_goes_and_any_other_stays() {
    let https = || Redirect { scheme: Some("https".into()), ..redirect() };
    assert_eq!(location(https(), &at("shop", "/")), "https://shop/");
    assert_eq!(location(https(), &at("shop:80", "/")), "https://shop/");
    assert_eq!(location(https(), &at("shop:443", "/")), "https://shop/");
    assert_eq!(location(https(), &at("shop:8443", "/")), "https://shop:8443/");
    assert_eq!(location(https(), &at("shop:8080", "/")), "https://shop:8080/");
    let port = |port| Redirect { port: Some(port), ..https() };
    assert_eq!(location(port(443), &at("shop:8080", "/")), "https://shop/");
    assert_eq!(location(port(80), &at("shop", "/")), "https://shop:80/");
    assert_eq!(location(port(8443), &at("shop:8080", "/")), "https://shop:8443/");
}

#[test]
fn another_authority_brings_its_own_port_and_not_the_requests() {
    let other = |text: &str| Redirect { authority: Some(text.into()), ..redirect() };
    assert_eq!(location(other("new"), &at("shop:8080", "/")), "http://new/");
    assert_eq!(location(other("new:9090"), &at("shop:8080", "/")), "http://new:9090/");
    assert_eq!(location(Redirect { port: Some(1), ..other("new") }, &at("shop", "/")), "http://new:1/");
}

#[test]
fn the_colons_of_an_ipv6_address_are_not_a_port() {
    let https = || Redirect { scheme: Some("https".into()), ..redirect() };
    assert_eq!(location(https(), &at("[::1]", "/")), "https://[::1]/");
    assert_eq!(location(https(), &at("[::1]:80", "/")), "https://[::1]/");
    assert_eq!(location(https(), &at("[::1]:8443", "/")), "https://[::1]:8443/");
    let other = Redirect { authority: Some("[fe80::2]".into()), port: Some(444), ..https() };
    assert_eq!(location(other, &at("shop", "/")), "https://[fe80::2]:444/");
}

#[test]
fn a_reply_wins_over_a_rewrite_wherever_it_is_written() {
    let direct = Reply::Direct { status: 418, body: b"no".to_vec() };
    let direct = Settings { reply: Some(direct), ..Settings::default() };
    let compiled = compile(&[prefix("/a", "/b"), direct]);
    let Decision::Reply(answer) = decide(&compiled, &head("/a"), &mut NoTrace) else { panic!("went on") };
    assert_eq!((answer.status, &answer.body[..]), (StatusCode::IM_A_TEAPOT, &b"no"[..]));
    assert!(answer.headers.is_empty());
}

#[test]
fn what_cannot_be_is_refused_with_its_field_and_what_to_write() {
    let header = |changes| Settings { request_headers: changes, ..Settings::default() };
    let response = |changes| Settings { response_headers: changes, ..Settings::default() };
    let direct =
        |status| Settings { reply: Some(Reply::Direct { status, body: vec![] }), ..Settings::default() };
    let none = HeaderChanges::default;
    let full = |text: &str| RedirectPath::Full(text.into());
    for (settings, says) in [
        (header(HeaderChanges { remove: vec!["a b".into()], ..none() }), "request_headers.remove: \"a b\""),
        (
            header(HeaderChanges { set: vec![change(":path", "x")], ..none() }),
            "request_headers.set: \":path\"",
        ),
        (
            response(HeaderChanges { add: vec![change("x", "a\nb")], ..none() }),
            "response_headers.add: the value of x",
        ),
        (Settings { authority: Some("a/b".into()), ..Settings::default() }, "authority: \"a/b\""),
        (Settings { authority: Some("me@b".into()), ..Settings::default() }, "write host or host:port"),
        (Settings { authority: Some(String::new()), ..Settings::default() }, "authority: \"\""),
        (path(PathRewrite::Full("new".into())), "path: \"new\" is not a path; write it with a slash"),
        (path(PathRewrite::Full("/a b".into())), "path: \"/a b\""),
        (prefix("/a", ""), "path: \"\""),
        (regex("(", "x"), "path: regex \"(\""),
        (regex("a(b)", r"\2"), "names group 2, but the regex has 1"),
        (regex("a", r"\x"), "a backslash takes a group number"),
        (regex("a", "\\"), "a backslash takes a group number"),
        (direct(99), "reply.status: 99"),
        (direct(101), "reply.status: 101"),
        (direct(600), "write 200 to 599"),
        (to(Redirect { status: 200, ..redirect() }), "reply.status: 200 does not redirect; write 301"),
        (to(Redirect { status: 304, ..redirect() }), "reply.status: 304"),
        (to(Redirect { scheme: Some("a b".into()), ..redirect() }), "reply.scheme: \"a b\""),
        (to(Redirect { authority: Some("a b".into()), ..redirect() }), "reply.authority: \"a b\""),
        (to(Redirect { authority: Some("a:1".into()), port: Some(2), ..redirect() }), "holds a port besides"),
        (to(Redirect { port: Some(0), ..redirect() }), "reply.port: 0"),
        (to(Redirect { path: Some(full("new")), ..redirect() }), "reply.path: \"new\""),
        (to(Redirect { path: Some(full("/a\r\nset-cookie: x")), ..redirect() }), "reply.path:"),
    ] {
        let error = wrong(&settings);
        assert!(error.contains(says), "{error}\nnot {says}");
    }
}

#[test]
fn explain_reads_every_change_with_its_origin_and_no_value() {
    let origin = |name: &str| {
        let object =
            ObjectName { kind: "VirtualService".into(), namespace: "shop".into(), name: name.into() };
        Origin::object(object, "spec.http[0]", None)
    };
    let changes = |name: &str| HeaderChanges {
        remove: vec!["x-a".into()],
        set: vec![change(name, "secret")],
        add: vec![],
    };
    let settings = [
        Settings {
            origin: origin("route"),
            request_headers: changes("x-b"),
            authority: Some("cart".into()),
            ..prefix("/a", "/b")
        },
        Settings { origin: origin("destination"), response_headers: changes("x-c"), ..Settings::default() },
    ];
    let mut trace: Vec<TraceStep> = Vec::new();
    decide(&compile(&settings), &head("/a/x"), &mut trace);
    let lines: Vec<String> =
        trace.iter().map(|step| format!("{} {}: {}", step.held, step.origin, step.because)).collect();
    assert_eq!(
        lines,
        [
            "true VirtualService shop/route spec.http[0]: request headers: remove x-a, set x-b",
            "true VirtualService shop/route spec.http[0]: path /a/x becomes /b/x",
            "true VirtualService shop/route spec.http[0]: authority becomes cart",
            "true VirtualService shop/destination spec.http[0]: response headers: remove x-a, set x-c",
        ]
    );
}

#[test]
fn settings_survive_being_written_and_read() {
    let settings = Settings { authority: Some("a:1".into()), ..to(redirect()) };
    let text = serde_json::to_string(&settings).unwrap();
    assert_eq!(serde_json::from_str::<Settings>(&text).unwrap(), settings);
    assert_eq!(serde_json::from_str::<Settings>("{}").unwrap(), Settings::default());
}

async fn through(settings: Vec<Settings>, uri: &str) -> (Result<Response, filter_api::Error>, Cx) {
    const SLOT: Slot<Transform> = Slot::new(0);
    let any = "127.0.0.1:1".parse().unwrap();
    let facts = ConnectionFacts {
        listener: "l".into(),
        remote: any,
        direct_remote: any,
        local: any,
        original_destination: None,
        protocol: Protocol::Http1,
        server_name: None,
        tls: None,
    };
    let cx = Cx::new(Arc::new(facts), Slots::empty(0), Arc::new(()));
    let slots = Slots::empty(1).with(SLOT, compile(&settings));
    cx.set_matched(Matched { slots, route: "r".into(), target: Arc::new(()), origin: Origin::BUILT_IN });
    let service = FilterLayer::new(SLOT).layer(service_fn(|request: Request| async move {
        let mut response = Response::new(StatusCode::OK);
        let seen = HeaderValue::try_from(request.head.uri.to_string()).unwrap();
        response.head.headers.insert("x-seen", seen);
        Ok(response)
    }));
    let request = Request { head: head(uri), body: Body::empty(), cx: cx.clone() };
    (service.oneshot(request).await, cx)
}

#[tokio::test]
async fn the_layer_forwards_what_was_decided_and_changes_the_response() {
    let response = HeaderChanges { set: vec![change("x-by", "us")], ..HeaderChanges::default() };
    let settings = Settings { response_headers: response, ..prefix("/a", "/b") };
    let (result, cx) = through(vec![settings], "/a/x?q").await;
    let headers = result.unwrap().head.headers;
    assert_eq!(
        (&headers["x-seen"], &headers["x-by"]),
        (&HeaderValue::from_static("/b/x?q"), &HeaderValue::from_static("us"))
    );
    assert_eq!(cx.facts.borrow().original_path.as_deref(), Some("/a/x?q"));
    assert!(cx.facts.borrow().records.is_empty());
}

#[tokio::test]
async fn the_layer_answers_leaves_a_record_and_changes_its_own_answer_too() {
    let response = HeaderChanges { set: vec![change("x-by", "us")], ..HeaderChanges::default() };
    let settings = Settings { response_headers: response, ..to(redirect()) };
    let (result, cx) = through(vec![settings], "/a").await;
    let response = result.unwrap();
    assert_eq!(response.head.status, StatusCode::MOVED_PERMANENTLY);
    assert_eq!(response.head.headers["location"], "http://shop/a");
    assert_eq!(response.head.headers["x-by"], "us");
    assert!(!response.head.headers.contains_key("x-seen"));
    let facts = cx.facts.borrow();
    assert_eq!(facts.details.as_deref(), Some("direct_response"));
    assert_eq!((facts.records[0].layer, &*facts.records[0].because), ("transform", "redirect"));
}

#[tokio::test]
async fn the_layer_refuses_a_rewrite_that_makes_no_path() {
    let (result, _) = through(vec![regex("^/", "")], "/a").await;
    assert_eq!(result.unwrap_err().reason(), Reason::BadRewrite);
}

#[test]
fn nobody_writes_what_frames_a_message_or_speaks_of_a_connection() {
    for name in
        ["Content-Length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "keep-alive"]
    {
        let changes = HeaderChanges { set: vec![change(name, "1")], ..HeaderChanges::default() };
        let settings = Settings { response_headers: changes, ..Settings::default() };
        let error = Transform::compile(&settings, &filter_api::Keep::default()).unwrap_err();
        assert!(error.contains(&name.to_ascii_lowercase()) && error.ends_with("remove it"), "{error}");
    }
}
