//! What a provider over HTTP sees, and what its answers do.

use super::super::body::Beginning;
use super::super::http::Http;
use super::super::verdict::{Failure, Verdict};
use super::{HttpCheck, answer, connection, head, over_http, question, text};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};

fn check() -> Http {
    Http::new(&over_http()).unwrap()
}

fn names(headers: &HeaderMap) -> Vec<&str> {
    let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_check_is_the_request_itself_behind_the_prefix_with_the_listed_headers() {
    let head = head(
        "DELETE",
        "/a/b?c=d",
        &[
            ("authorization", "Bearer t"),
            ("cookie", "s=1"),
            ("x-tenant-name", "acme"),
            ("x-request-id", "r"),
            ("x-other", "hidden"),
            ("x-added", "by the client"),
            ("content-length", "3"),
            ("connection", "upgrade"),
        ],
    );
    let (sent, body) = check().question(&question(&head, None, &connection())).unwrap();
    assert_eq!((sent.method.as_str(), sent.uri.to_string().as_str()), ("DELETE", "/check/a/b?c=d"));
    assert_eq!(
        names(&sent.headers),
        ["authorization", "cookie", "host", "x-added", "x-request-id", "x-tenant-name"]
    );
    assert_eq!((&sent.headers["host"], &sent.headers["x-added"]), (&text("shop.example.com"), &text("yes")));
    assert!(body.is_empty());
}

#[test]
fn the_body_goes_along_and_says_whether_it_is_cut() {
    let head = head("POST", "/", &[]);
    let beginning = Beginning { bytes: Bytes::from_static(b"hel"), partial: true };
    let (sent, body) = check().question(&question(&head, Some(&beginning), &connection())).unwrap();
    assert_eq!((&*body, &sent.headers["x-envoy-auth-partial-body"]), (&b"hel"[..], &text("true")));
}

#[test]
fn a_connect_request_is_no_question() {
    let head = http::Request::connect("shop.example.com:443").body(()).unwrap().into_parts().0;
    assert!(matches!(check().question(&question(&head, None, &connection())), Err(Failure::Unaskable(_))));
    let options = http::Request::options("*").body(()).unwrap().into_parts().0;
    let (sent, _) = check().question(&question(&options, None, &connection())).unwrap();
    assert_eq!(sent.uri, "/check");
}

#[test]
fn only_200_allows_and_5xx_is_no_verdict() {
    let says = |status| check().verdict(&answer(status, &[], "text"));
    assert!(matches!(says(200), Ok(Verdict::Allow(_))));
    for status in [201, 204, 302, 401, 403, 404, 429] {
        let Ok(Verdict::Deny(refusal)) = says(status) else { panic!("{status}") };
        assert_eq!((refusal.status.as_u16(), &*refusal.body), (status, &b"text"[..]));
    }
    for status in [500, 503, 599] {
        assert!(matches!(says(status), Err(Failure::Error(_))), "{status}");
    }
    let Ok(Verdict::Deny(refusal)) = says(103) else { panic!("allowed") };
    assert_eq!(refusal.status, StatusCode::FORBIDDEN);
}

#[test]
fn an_allowance_gives_the_listed_headers_to_upstream_and_client() {
    let headers = [
        ("x-user", "ann"),
        ("x-role-a", "1"),
        ("x-role-a", "2"),
        ("x-other", "not listed"),
        ("x-seen", "yes"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("content-length", "0"),
        ("x-envoy-auth-headers-to-remove", "x-secret, host , cookie"),
    ];
    let Ok(Verdict::Allow(changes)) = check().verdict(&answer(200, &headers, "")) else { panic!("denied") };
    let mut request =
        head("GET", "/", &[("x-user", "mallory"), ("x-role-a", "admin"), ("x-secret", "s"), ("cookie", "c")])
            .headers;
    changes.apply(&mut request);
    assert_eq!(names(&request), ["host", "x-role-a", "x-user"]);
    assert_eq!(request["x-user"], "ann");
    assert_eq!(request.get_all("x-role-a").iter().collect::<Vec<_>>(), ["1", "2"]);
    let mut response = HeaderMap::new();
    response.insert("set-cookie", "own=1".parse().unwrap());
    response.insert("x-seen", "no".parse().unwrap());
    super::super::apply(&changes.response, &mut response);
    assert_eq!(response.get_all("set-cookie").iter().collect::<Vec<_>>(), ["own=1", "a=1", "b=2"]);
    assert_eq!(response.get_all("x-seen").iter().collect::<Vec<_>>(), ["yes"]);
}

#[test]
fn what_only_the_provider_may_say_is_taken_from_clients_unless_it_was_shown() {
    let mut headers = head(
        "GET",
        "/",
        &[
            ("x-user", "mallory"),
            ("x_user", "mallory"),
            ("x-role-admin", "1"),
            ("authorization", "Bearer t"),
            ("x-role-id", "shown, for it ends in -id"),
            ("x-plain", "1"),
        ],
    )
    .headers;
    check().strip(&mut headers);
    assert_eq!(names(&headers), ["authorization", "host", "x-plain", "x-role-id"]);
    let mut all = head("GET", "/", &[("x-forwarded-client-cert", "By=a"), ("x-a", "1")]).headers;
    let greedy = HttpCheck { upstream_on_allow: vec!["*".into()], ..HttpCheck::default() };
    Http::new(&greedy).unwrap().strip(&mut all);
    assert_eq!(names(&all), ["host", "x-forwarded-client-cert"], "what the proxy vouches for stays");
}

#[test]
fn a_denial_gives_all_headers_or_the_listed_ones() {
    let headers = [
        ("location", "/login"),
        ("www-authenticate", "Bearer"),
        ("x-why", "no"),
        ("content-type", "text/html"),
        ("transfer-encoding", "chunked"),
        ("x-envoy-upstream-service-time", "3"),
    ];
    let told = |list: &[&str]| {
        let written =
            HttpCheck { downstream_on_deny: list.iter().map(ToString::to_string).collect(), ..over_http() };
        let Ok(Verdict::Deny(refusal)) = Http::new(&written).unwrap().verdict(&answer(302, &headers, ""))
        else {
            panic!("allowed")
        };
        names(&refusal.headers).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(told(&[]), ["content-type", "location", "www-authenticate", "x-why"]);
    assert_eq!(told(&["x-w*"]), ["location", "www-authenticate", "x-why"]);
}

#[test]
fn a_denial_too_long_to_read_is_a_denial_without_its_body() {
    let mut long = answer(403, &[], "beginning");
    long.cut = true;
    let Ok(Verdict::Deny(refusal)) = check().verdict(&long) else { panic!("allowed") };
    assert!(refusal.body.is_empty());
}

#[test]
fn the_key_holds_all_that_the_provider_learns() {
    let of = |method: &str, uri: &str, headers: &[(&str, &str)], body: &'static str| {
        let head = head(method, uri, headers);
        let body = Beginning { bytes: Bytes::from_static(body.as_bytes()), partial: false };
        let check = check();
        check.key(&check.question(&question(&head, Some(&body), &connection())).unwrap())
    };
    let one = of("GET", "/a", &[("cookie", "1")], "b");
    assert_eq!(one, of("GET", "/a", &[("cookie", "1"), ("x-request-id", "9"), ("x-unseen", "2")], "b"));
    for other in [
        of("PUT", "/a", &[("cookie", "1")], "b"),
        of("GET", "/a?", &[("cookie", "1")], "b"),
        of("GET", "/a", &[("cookie", "2")], "b"),
        of("GET", "/a", &[("cookie", "1")], "c"),
        of("GET", "/a", &[], "b"),
    ] {
        assert_ne!(one, other);
    }
}

#[test]
fn what_cannot_be_done_is_said_by_its_field() {
    let wrong = |written: HttpCheck| Http::new(&written).unwrap_err();
    assert!(wrong(HttpCheck { path_prefix: "check".into(), ..HttpCheck::default() }).contains("pathPrefix"));
    for name in ["bad name", "transfer-encoding"] {
        let added_headers = vec![(name.to_owned(), "x".to_owned())];
        let error = wrong(HttpCheck { added_headers, ..HttpCheck::default() });
        assert!(error.contains("includeAdditionalHeadersInCheck"), "{error}");
    }
}
