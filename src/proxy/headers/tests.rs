use http::header::{AUTHORIZATION, HOST};
use proptest::prelude::*;

use super::*;

type Lines = &'static [(&'static str, &'static str)];

fn head(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    headers
}

fn check(version: Version, lines: &[(&str, &str)]) -> Result<Seen, HeadRefusal> {
    inspect(version, 1, &head(lines), &HeadLimits::default())
}

/// The head after the removal of hop-by-hop headers, one `name: value` a line, sorted.
fn stripped(lines: &[(&str, &str)], upgrade: bool) -> Result<Vec<String>, HeadRefusal> {
    let mut headers = head(lines);
    let seen = inspect(Version::HTTP_11, 1, &headers, &HeadLimits::default())?;
    strip_hop_by_hop(&mut headers, seen, upgrade)?;
    let mut left: Vec<_> =
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    left.sort();
    Ok(left)
}

#[test]
fn an_ordinary_head_is_clean() {
    let lines =
        [("host", "a"), ("accept", "*/*"), ("x-user", "1"), ("content-length", "3"), ("cookie", "a=b")];
    assert!(check(Version::HTTP_11, &lines).unwrap().is_clean());
}

#[test]
fn ambiguous_framing_is_refused_and_closes_the_connection() {
    use HeadRefusal::*;
    let (h10, h11, h2) = (Version::HTTP_10, Version::HTTP_11, Version::HTTP_2);
    let cases: &[(Version, Lines, HeadRefusal)] = &[
        (h11, &[("content-length", "1"), ("transfer-encoding", "chunked")], LengthAndCoding),
        (h11, &[("content-length", "1"), ("content-length", "2")], BadLength),
        (h11, &[("content-length", "1"), ("content-length", "1")], BadLength),
        (h2, &[("content-length", "1"), ("content-length", "2")], BadLength),
        (h11, &[("content-length", "1, 1")], BadLength),
        (h11, &[("content-length", "+1")], BadLength),
        (h11, &[("content-length", "-1")], BadLength),
        (h11, &[("content-length", "0x1")], BadLength),
        (h11, &[("content-length", "")], BadLength),
        (h11, &[("content-length", "9223372036854775808")], BadLength),
        (h11, &[("transfer-encoding", "gzip, chunked")], UnknownCoding),
        (h11, &[("transfer-encoding", "chunked, chunked")], UnknownCoding),
        (h11, &[("transfer-encoding", "chunked,")], UnknownCoding),
        (h11, &[("transfer-encoding", "identity")], UnknownCoding),
        (h11, &[("transfer-encoding", "xchunked")], UnknownCoding),
        (h11, &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], UnknownCoding),
        (h10, &[("transfer-encoding", "chunked")], CodingInVersion),
        (h2, &[("transfer-encoding", "chunked")], CodingInVersion),
    ];
    for (version, lines, refusal) in cases {
        assert_eq!(check(*version, lines), Err(*refusal), "{lines:?}");
        assert!(refusal.closes());
        let status = if *refusal == UnknownCoding { 501 } else { 400 };
        assert_eq!(refusal.status().as_u16(), status);
    }
    assert!(check(h11, &[("transfer-encoding", "Chunked")]).is_ok());
    assert!(check(h10, &[("content-length", "9223372036854775807")]).is_ok());
}

#[test]
fn blanks_around_a_value_are_refused_and_those_within_are_not() {
    for value in [" a", "a ", "\ta", "a\t", " ", "\t"] {
        for name in ["x-role", "content-length", "cookie", "te"] {
            assert_eq!(
                check(Version::HTTP_2, &[(name, value)]),
                Err(HeadRefusal::Blank),
                "{name}: {value:?}"
            );
        }
    }
    assert!(check(Version::HTTP_2, &[("x-role", "a b\tc"), ("x-empty", "")]).is_ok());
}

#[test]
fn a_connect_announces_no_body() {
    let check = |lines: Lines| {
        let mut headers = head(lines);
        check_connect(&mut headers).map(|()| headers)
    };
    assert_eq!(check(&[("content-length", "43")]), Err(HeadRefusal::ConnectLength));
    assert_eq!(check(&[("content-length", "00")]), Err(HeadRefusal::ConnectLength));
    assert_eq!(check(&[("transfer-encoding", "chunked")]), Err(HeadRefusal::ConnectCoding));
    let both = &[("content-length", "0"), ("transfer-encoding", "chunked")];
    assert_eq!(check(both), Err(HeadRefusal::ConnectCoding));
    assert_eq!(check(&[("content-length", "0"), ("host", "a")]), Ok(head(&[("host", "a")])));
    assert!(HeadRefusal::ConnectLength.closes() && HeadRefusal::ConnectCoding.closes());
}

#[test]
fn an_answer_whose_end_is_in_doubt_is_refused() {
    for lines in [
        &[("content-length", "3"), ("transfer-encoding", "chunked")][..],
        &[("transfer-encoding", "gzip")],
        &[("transfer-encoding", "gzip, chunked")],
        &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
        &[("content-length", "3"), ("content-length", "4")],
        &[("content-length", "3, 3")],
        &[("content-length", "+3")],
    ] {
        assert!(inspect_response(&head(lines)).is_err(), "{lines:?}");
    }
    for lines in [
        &[("content-length", "3")][..],
        &[("transfer-encoding", "Chunked")],
        &[("content-length", "3"), ("content-length", "3")],
        &[],
    ] {
        assert!(inspect_response(&head(lines)).is_ok(), "{lines:?}");
    }
}

#[test]
fn a_head_over_a_limit_is_refused() {
    let limits = HeadLimits { max_count: 2, max_bytes: 100, max_target: 5 };
    let check =
        |target: usize, lines: &[(&str, &str)]| inspect(Version::HTTP_11, target, &head(lines), &limits);
    assert_eq!(check(6, &[]).map_err(HeadRefusal::status), Err(StatusCode::URI_TOO_LONG));
    let refused = Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    assert_eq!(check(5, &[("a", ""), ("a", ""), ("b", "")]).map_err(HeadRefusal::status), refused);
    assert_eq!(check(5, &[("a", &"x".repeat(68))]).map_err(HeadRefusal::status), refused);
    assert!(check(5, &[("a", &"x".repeat(67))]).unwrap().is_clean());
    assert!(check(5, &[("a", ""), ("a", "")]).is_ok());
}

#[test]
fn headers_of_the_connection_do_not_go_further() {
    let left = stripped(
        &[
            ("connection", "close, X-Private"),
            ("connection", "keep-alive"),
            ("x-private", "1"),
            ("x-public", "2"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("http2-settings", "AAMA"),
            ("upgrade", "h2c"),
            ("transfer-encoding", "chunked"),
            ("proxy-authorization", "Basic x"),
            ("te", "gzip"),
        ],
        false,
    );
    assert_eq!(left.unwrap(), ["proxy-authorization: Basic x", "x-public: 2"]);
}

#[test]
fn trailers_is_all_that_stays_of_te() {
    assert_eq!(stripped(&[("te", "gzip;q=1, Trailers")], false).unwrap(), ["te: trailers"]);
    assert_eq!(stripped(&[("te", "gzip"), ("te", "trailers")], false).unwrap(), ["te: trailers"]);
    assert_eq!(stripped(&[("connection", "te"), ("te", "trailers")], false).unwrap(), ["te: trailers"]);
    assert!(stripped(&[("te", "xtrailers")], false).unwrap().is_empty());
}

#[test]
fn an_upgrade_stays_only_where_one_is_forwarded() {
    let lines = [("connection", "Keep-Alive, Upgrade"), ("upgrade", "websocket")];
    assert_eq!(stripped(&lines, true).unwrap(), ["connection: upgrade", "upgrade: websocket"]);
    assert!(stripped(&lines, false).unwrap().is_empty());
    assert!(stripped(&[("upgrade", "websocket")], true).unwrap().is_empty());
    assert!(stripped(&[("connection", "upgrade")], true).unwrap().is_empty());
}

#[test]
fn headers_meant_for_everybody_cannot_be_nominated_away() {
    for name in [
        "Authorization",
        "cookie",
        "host",
        "content-length",
        "x-forwarded-for",
        "X-Forwarded-Proto",
        "forwarded",
        "x-forwarded-client-cert",
        "x-request-id",
        "x-envoy-peer-metadata",
        "traceparent",
        "b3",
        "cache-control",
        "grpc-timeout",
        ":path",
        "bad name",
    ] {
        let lines = [("connection", name), ("authorization", "Bearer x")];
        assert_eq!(stripped(&lines, false), Err(HeadRefusal::Nomination), "{name}");
    }
    let many = ["a"; 10].join(",");
    assert_eq!(stripped(&[("connection", &many)], false), Err(HeadRefusal::TooManyNominated));
    assert!(stripped(&[("connection", &many[2..])], false).unwrap().is_empty());
}

#[test]
fn a_refused_head_is_left_untouched() {
    let mut headers = head(&[("connection", "x-a, authorization"), ("x-a", "1"), ("authorization", "x")]);
    let seen = inspect(Version::HTTP_11, 1, &headers, &HeadLimits::default()).unwrap();
    assert!(strip_hop_by_hop(&mut headers, seen, false).is_err());
    assert!(headers.contains_key("x-a") && headers.contains_key(AUTHORIZATION));
}

#[test]
fn a_response_loses_the_headers_of_its_connection() {
    let mut headers =
        head(&[("connection", "close, x-a"), ("x-a", "1"), ("keep-alive", "1"), ("server", "s")]);
    let seen = inspect_response(&headers).unwrap();
    strip_hop_by_hop(&mut headers, seen, false).unwrap();
    assert_eq!(headers, head(&[("server", "s")]));
    assert!(inspect_response(&headers).unwrap().is_clean());
}

#[test]
fn every_control_header_of_the_conventions_is_removed() {
    let names = [
        "x-envoy-retry-on",
        "x-envoy-retry-grpc-on",
        "x-envoy-max-retries",
        "x-envoy-retriable-status-codes",
        "x-envoy-upstream-rq-timeout-ms",
        "x-envoy-upstream-rq-per-try-timeout-ms",
        "x-envoy-upstream-alt-stat-name",
        "x-envoy-original-dst-host",
        "x-envoy-hedge-on-per-try-timeout",
        "x-envoy-auth-failure-mode-allowed",
        "x-envoy-original-path",
        "x-envoy-original-host",
        "x-envoy-internal",
        "x-envoy-external-address",
        "x-envoy-expected-rq-timeout-ms",
        "x-envoy-attempt-count",
        "x-envoy-decorator-operation",
        "x-envoy-force-trace",
        "x-envoy-peer-metadata",
        "x-envoy-peer-metadata-id",
        "x-envoy-downstream-service-cluster",
        "x-istio-source",
        "x-istio-attributes",
        "l5d-client-id",
        "l5d-require-id",
        "l5d-dst-override",
        "l5d-retry-http",
        "l5d-request-timeout",
        "l5d-orig-proto",
        "x-forwarded-client-cert",
    ];
    for name in names {
        let mut headers = head(&[(name, "1"), (name, "2"), ("host", "a"), ("x-forwarded-for", "b")]);
        let seen = inspect(Version::HTTP_2, 1, &headers, &HeadLimits::default()).unwrap();
        assert!(seen.control(), "{name}");
        strip_control(&mut headers, seen);
        assert_eq!(headers, head(&[("host", "a"), ("x-forwarded-for", "b")]), "{name}");
    }
    for name in ["x-forwarded-client-certs", "x-envoy", "l5", "x-user"] {
        assert!(check(Version::HTTP_2, &[(name, "1")]).unwrap().is_clean(), "{name}");
    }
}

#[test]
fn cookie_crumbs_are_joined() {
    let mut headers = head(&[("cookie", "a=1"), ("host", "x"), ("cookie", "b=2; c=3")]);
    let seen = inspect(Version::HTTP_2, 1, &headers, &HeadLimits::default()).unwrap();
    join_cookies(&mut headers, seen);
    assert_eq!(headers, head(&[("cookie", "a=1; b=2; c=3"), ("host", "x")]));
}

proptest! {
    #[test]
    fn nothing_of_the_connection_survives(
        lines in prop::collection::vec((
            prop::sample::select(vec![
                "connection", "keep-alive", "te", "upgrade", "proxy-connection", "x-a", "x-b", "host", "accept",
            ]),
            prop::sample::select(vec![
                "close", "x-a", "X-B, te", "upgrade", "trailers", "keep-alive,,", "host", ",", "websocket", "é",
            ]),
        ), 0..8),
        upgrade: bool,
    ) {
        let mut headers = HeaderMap::new();
        for (name, value) in &lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let nominated = |headers: &HeaderMap, name: &str| headers.get_all(CONNECTION).iter().any(|value| {
            String::from_utf8_lossy(value.as_bytes()).split(',').any(|one| one.trim().eq_ignore_ascii_case(name))
        });
        let (a, b) = (nominated(&headers, "x-a"), nominated(&headers, "x-b"));
        let hosts = headers.get_all(HOST).iter().count();
        let seen = inspect(Version::HTTP_11, 1, &headers, &HeadLimits::default()).unwrap();
        if strip_hop_by_hop(&mut headers, seen, upgrade).is_ok() {
            prop_assert!(!headers.contains_key("keep-alive") && !headers.contains_key("proxy-connection"));
            prop_assert!(!a || !headers.contains_key("x-a"));
            prop_assert!(!b || !headers.contains_key("x-b"));
            prop_assert!(headers.get(TE).is_none_or(|te| te == "trailers"));
            prop_assert_eq!(headers.contains_key(CONNECTION), headers.contains_key(UPGRADE));
            prop_assert!(upgrade || !headers.contains_key(UPGRADE));
            prop_assert_eq!(headers.get_all(HOST).iter().count(), hosts);
        }
    }
}
