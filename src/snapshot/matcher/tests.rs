use super::super::samples::head;
use super::*;

fn subject(head: &Parts) -> Subject<'_> {
    Subject { host: "shop", port: Some(8080), head }
}

fn refuses(mesh: &RouteMatch, head: &Parts) -> Option<Failed> {
    Rule::compile(mesh).unwrap().refuses(&subject(head))
}

fn path(path: PathMatch) -> RouteMatch {
    RouteMatch { path, ..RouteMatch::default() }
}

fn takes_path(mesh: &RouteMatch, target: &str) -> bool {
    refuses(mesh, &head(target)).is_none()
}

fn header(name: &str, value: ValueMatch, invert: bool) -> RouteMatch {
    RouteMatch {
        headers: vec![HeaderMatch { name: name.to_owned(), value, invert }],
        ..RouteMatch::default()
    }
}

fn exact(text: &str) -> ValueMatch {
    ValueMatch::Value(StringMatch::Exact(text.to_owned()))
}

fn regex(pattern: &str) -> RouteMatch {
    path(PathMatch::Regex(pattern.to_owned()))
}

fn with_headers(fields: &[(&str, &str)]) -> Parts {
    let mut request = http::Request::get("/");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

#[test]
fn an_empty_match_takes_everything() {
    assert_eq!(refuses(&RouteMatch::default(), &head("/x?y")), None);
    assert_eq!(refuses(&RouteMatch::default(), &head("*")), None);
}

#[test]
fn the_query_is_not_part_of_the_path() {
    assert!(takes_path(&path(PathMatch::Exact("/a".to_owned())), "/a?b=c"));
    assert!(!takes_path(&path(PathMatch::Exact("/a".to_owned())), "/a/"));
}

#[test]
fn a_prefix_is_one_of_bytes_and_a_segment_prefix_one_of_segments() {
    let bytes = path(PathMatch::Prefix("/api".to_owned()));
    assert!(takes_path(&bytes, "/api") && takes_path(&bytes, "/apis") && !takes_path(&bytes, "/ap"));
    for segments in ["/api", "/api/"] {
        let segments = path(PathMatch::SegmentPrefix(segments.to_owned()));
        assert!(takes_path(&segments, "/api") && takes_path(&segments, "/api/x"));
        assert!(!takes_path(&segments, "/apis"));
    }
    assert!(takes_path(&path(PathMatch::SegmentPrefix("/".to_owned())), "/x"));
}

#[test]
fn case_is_ignored_in_paths_alone_and_not_in_regexes() {
    let ignoring = |path| RouteMatch { path, ignore_path_case: true, ..RouteMatch::default() };
    assert!(takes_path(&ignoring(PathMatch::Exact("/Api".to_owned())), "/aPI"));
    assert!(takes_path(&ignoring(PathMatch::Prefix("/Api".to_owned())), "/aPI/x"));
    assert!(takes_path(&ignoring(PathMatch::SegmentPrefix("/Api".to_owned())), "/aPI/x"));
    assert!(!takes_path(&ignoring(PathMatch::Regex("/Api".to_owned())), "/aPI"));
    assert!(!takes_path(&path(PathMatch::Exact("/Api".to_owned())), "/aPI"));
}

#[test]
fn a_regex_matches_the_whole_string() {
    assert!(takes_path(&regex("/a|/ab"), "/ab"));
    assert!(!takes_path(&regex("/a|/ab"), "/abc"));
    assert!(!takes_path(&regex("a"), "/a"));
    assert!(takes_path(&regex("^/a$"), "/a"));
    assert!(takes_path(&regex("(?i)/A"), "/a"));
}

#[test]
fn regex_classes_are_ascii_and_unicode_tables_come_on_demand() {
    let digits = header("x", ValueMatch::Value(StringMatch::Regex(r"\d+".to_owned())), false);
    assert_eq!(refuses(&digits, &with_headers(&[("x", "12")])), None);
    assert_eq!(refuses(&digits, &with_headers(&[("x", "\u{661}")])), Some(Failed::Header(0)));
    let greek = header("x", ValueMatch::Value(StringMatch::Regex(r"\p{Greek}".to_owned())), false);
    assert_eq!(refuses(&greek, &with_headers(&[("x", "\u{3b1}")])), None);
}

#[test]
fn a_regex_that_is_wrong_or_too_large_is_refused_by_name() {
    let error = |pattern: &str| Rule::compile(&regex(pattern)).unwrap_err();
    assert!(error("[").starts_with("path: regex \"[\": "), "{}", error("["));
    assert!(error("a)(?:b").contains("unopened group"), "{}", error("a)(?:b"));
    assert!(error("(a{1000}){1000}").contains("takes more than"), "{}", error("(a{1000}){1000}"));
    let named = header("x", ValueMatch::Value(StringMatch::Regex("(".to_owned())), false);
    assert!(Rule::compile(&named).unwrap_err().starts_with("header \"x\": regex"));
    assert!(
        Rule::compile(&header("a b", ValueMatch::Present, false)).unwrap_err().contains("not a header name")
    );
}

#[test]
fn fields_of_one_name_are_joined_before_they_are_compared() {
    let two = with_headers(&[("x", "a"), ("y", "b"), ("x", "c")]);
    assert_eq!(refuses(&header("x", exact("a,c"), false), &two), None);
    assert_eq!(refuses(&header("x", exact("a"), false), &two), Some(Failed::Header(0)));
    assert_eq!(refuses(&header("x", exact(",a"), false), &with_headers(&[("x", ""), ("x", "a")])), None);
    assert_eq!(refuses(&header("X", exact("a"), false), &with_headers(&[("x", "a")])), None);
}

#[test]
fn an_absent_header_satisfies_only_an_inverted_condition() {
    let (with, without) = (with_headers(&[("x", "a")]), with_headers(&[]));
    for (value, invert, held_with, held_without) in [
        (ValueMatch::Present, false, true, false),
        (ValueMatch::Present, true, false, true),
        (exact("a"), false, true, false),
        (exact("a"), true, false, true),
        (exact("b"), true, true, true),
    ] {
        let rule = header("x", value, invert);
        assert_eq!(refuses(&rule, &with).is_none(), held_with, "{rule:?}");
        assert_eq!(refuses(&rule, &without).is_none(), held_without, "{rule:?}");
    }
}

#[test]
fn the_first_query_parameter_of_a_name_counts_as_it_is_written() {
    let query = |name: &str, value| RouteMatch {
        query: vec![QueryMatch { name: name.to_owned(), value }],
        ..RouteMatch::default()
    };
    assert!(takes_path(&query("a", exact("1")), "/?b=2&a=1&a=2"));
    assert!(!takes_path(&query("a", exact("2")), "/?a=1&a=2"));
    assert!(!takes_path(&query("a", exact(" ")), "/?a=%20"));
    assert!(takes_path(&query("a", exact("")), "/?a"));
    assert!(takes_path(&query("a", ValueMatch::Present), "/?a"));
    assert!(!takes_path(&query("a", ValueMatch::Present), "/?A=1"));
    assert!(!takes_path(&query("a", ValueMatch::Present), "/"));
}

#[test]
fn pseudo_headers_have_conditions_of_their_own() {
    let text = |text: &str| Some(StringMatch::Exact(text.to_owned()));
    let rule = RouteMatch { method: text("POST"), ..RouteMatch::default() };
    assert_eq!(refuses(&rule, &head("/")), Some(Failed::Method));
    let rule = RouteMatch { authority: text("shop:8080"), scheme: text("http"), ..RouteMatch::default() };
    assert_eq!(refuses(&rule, &head("/")), None);
    let rule = RouteMatch { authority: text("shop"), ..RouteMatch::default() };
    assert_eq!(refuses(&rule, &head("/")), Some(Failed::Authority));
    let rule = RouteMatch { scheme: text("https"), ..RouteMatch::default() };
    assert_eq!(refuses(&rule, &head("https://shop/")), None);
    assert_eq!(refuses(&rule, &head("/")), Some(Failed::Scheme));
}

#[test]
fn texts_are_compared_in_five_ways() {
    let holds = |text: StringMatch, value: &str| Text::compile(&text).unwrap().holds(value.as_bytes());
    let of = |text: &str| text.to_owned();
    assert!(holds(StringMatch::Exact(of("ab")), "ab") && !holds(StringMatch::Exact(of("ab")), "abc"));
    assert!(holds(StringMatch::Prefix(of("ab")), "abc") && !holds(StringMatch::Prefix(of("ab")), "ba"));
    assert!(holds(StringMatch::Suffix(of("bc")), "abc") && !holds(StringMatch::Suffix(of("bc")), "cb"));
    assert!(holds(StringMatch::Contains(of("b")), "abc") && !holds(StringMatch::Contains(of("b")), "ac"));
    assert!(holds(StringMatch::Regex(of("a.c")), "abc") && !holds(StringMatch::Regex(of("a.c")), "abcd"));
}

#[test]
fn an_explanation_shows_what_was_expected_but_no_header_value() {
    let explain = |mesh: &RouteMatch, head: &Parts| {
        let rule = Rule::compile(mesh).unwrap();
        let failed = rule.refuses(&subject(head)).unwrap();
        rule.explain(failed, &subject(head))
    };
    assert_eq!(
        explain(&path(PathMatch::Prefix("/api".to_owned())), &head("/x")),
        "path \"/x\" is not beginning with \"/api\""
    );
    assert_eq!(explain(&regex("/[0-9]+"), &head("/x")), "path \"/x\" is not matched by \"/[0-9]+\"");
    let token = header("authorization", exact("Bearer a"), false);
    let said = explain(&token, &with_headers(&[("authorization", "Bearer secret")]));
    assert_eq!(said, "header authorization is not \"Bearer a\"");
    assert_eq!(explain(&token, &head("/")), "header authorization is absent");
}

#[test]
fn parts_of_the_request_line_are_matched_as_headers_by_their_names_of_http2() {
    let mut head = head("/x?y=1");
    head.method = http::Method::PUT;
    for (name, value, holds) in [
        (":method", "PUT", true),
        (":method", "GET", false),
        (":path", "/x?y=1", true),
        (":path", "/x", false),
        (":authority", "shop:8080", true),
        ("Host", "shop:8080", true),
        (":scheme", "http", true),
        (":scheme", "https", false),
    ] {
        let rule = header(name, exact(value), false);
        assert_eq!(refuses(&rule, &head).is_none(), holds, "{name} {value}");
        let inverted = header(name, exact(value), true);
        assert_eq!(refuses(&inverted, &head).is_none(), !holds, "not {name} {value}");
    }
}
