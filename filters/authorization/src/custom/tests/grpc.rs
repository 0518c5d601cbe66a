//! The messages by their numbers on the wire, and what answers say.

use super::super::body::Beginning;
use super::super::grpc::{call, key, question as ask, read, verdict};
use super::super::verdict::{Change, Failure, How, Verdict};
use super::{answer, connection, field, framed, head, number, question};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use prost::Message;
use std::time::Duration;

fn varint(bytes: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let (first, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        shift += 7;
        if first & 0x80 == 0 {
            return value;
        }
    }
}

/// All fields of a message: number, and number or bytes.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Result<u64, Vec<u8>>)> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let value = match tag & 7 {
            0 => Ok(varint(&mut bytes)),
            2 => {
                let length = varint(&mut bytes) as usize;
                let (value, rest) = bytes.split_at(length);
                bytes = rest;
                Err(value.to_vec())
            }
            other => panic!("wire type {other}"),
        };
        all.push((tag >> 3, value));
    }
    all
}

/// The bytes at a path of field numbers.
fn at(bytes: &[u8], path: &[u64]) -> Vec<u8> {
    let mut here = bytes.to_vec();
    for number in path {
        let found = fields(&here).into_iter().find(|(found, _)| found == number);
        here = found.unwrap_or_else(|| panic!("no field {number} of {path:?}")).1.unwrap_err();
    }
    here
}

fn text(bytes: &[u8], path: &[u64]) -> String {
    String::from_utf8(at(bytes, path)).unwrap()
}

fn headers(bytes: &[u8]) -> Vec<(String, String)> {
    let http = at(bytes, &[1, 4, 2]);
    let entries = fields(&http).into_iter().filter(|(number, _)| *number == 3);
    entries
        .map(|(_, entry)| entry.unwrap_err())
        .map(|entry| (text(&entry, &[1]), text(&entry, &[2])))
        .collect()
}

#[test]
fn a_check_has_envoys_fields_at_envoys_numbers() {
    let head = head(
        "POST",
        "/pay?card=1",
        &[("x-a", "1"), ("x-a", "2"), ("content-length", "5"), ("x-request-id", "r1")],
    );
    let connection = connection();
    let body = Beginning { bytes: Bytes::from_static(b"hello"), partial: true };
    let bytes = ask(&question(&head, Some(&body), &connection), false).encode_to_vec();
    assert_eq!(
        text(&bytes, &[1, 1, 1, 1, 2]),
        "192.0.2.7",
        "attributes.source.address.socket_address.address"
    );
    assert!(fields(&at(&bytes, &[1, 1, 1, 1])).contains(&(3, Ok(4000))), "port_value");
    assert_eq!(text(&bytes, &[1, 1, 4]), "spiffe://cluster.local/ns/shop/sa/cart", "source.principal");
    assert_eq!(text(&bytes, &[1, 2, 1, 1, 2]), "10.9.9.9", "destination");
    let time = fields(&at(&bytes, &[1, 4, 1]));
    assert_eq!(time, [(1, Ok(1_700_000_000)), (2, Ok(250_000_000))], "request.time");
    for (number, value) in [
        (1, "r1"),
        (2, "POST"),
        (4, "/pay?card=1"),
        (5, "shop.example.com"),
        (6, "https"),
        (10, "HTTP/1.1"),
        (11, "hello"),
    ] {
        assert_eq!(text(&bytes, &[1, 4, 2, number]), value, "request.http.{number}");
    }
    assert!(fields(&at(&bytes, &[1, 4, 2])).contains(&(9, Ok(5))), "size");
    assert_eq!(text(&bytes, &[1, 12, 1]), "outbound_.80_._.shop", "tls_session.sni");
    let headers = headers(&bytes);
    for (name, value) in [
        ("x-a", "1,2"),
        (":method", "POST"),
        (":path", "/pay?card=1"),
        (":authority", "shop.example.com"),
        (":scheme", "https"),
        ("x-envoy-auth-partial-body", "true"),
    ] {
        assert!(headers.contains(&(name.to_owned(), value.to_owned())), "{name} in {headers:?}");
    }
    assert!(headers.iter().all(|(name, _)| name != "host"));
    let raw = ask(&question(&head, Some(&body), &connection), true).encode_to_vec();
    assert_eq!(at(&raw, &[1, 4, 2, 12]), b"hello", "raw_body");
}

#[test]
fn row_12_what_is_no_text_is_asked_about_all_the_same() {
    let mut head = head("GET", "/", &[]);
    head.headers.insert("x-raw", HeaderValue::from_bytes(b"a\xff\xc3b").unwrap());
    let bytes = ask(&question(&head, None, &connection()), false).encode_to_vec();
    assert!(headers(&bytes).contains(&("x-raw".to_owned(), "a!!b".to_owned())));
    assert_eq!(
        fields(&at(&bytes, &[1, 4, 2])).iter().find(|(number, _)| *number == 9).unwrap().1,
        Ok(u64::MAX),
        "-1"
    );
}

#[test]
fn the_key_of_a_question_leaves_out_what_differs_by_the_way() {
    let connection = connection();
    let of = |headers: &[(&str, &str)], port: u16| {
        let mut connection = connection.clone();
        connection.remote.set_port(port);
        key(ask(&question(&head("GET", "/a", headers), None, &connection), false))
    };
    let one = of(&[("x-request-id", "1"), ("traceparent", "2"), ("x-b3-spanid", "3"), ("x-user", "a")], 1);
    assert_eq!(one, of(&[("x-request-id", "7"), ("x-user", "a")], 2));
    assert_ne!(one, of(&[("x-user", "b")], 1));
    let mut other = connection.clone();
    other.remote = "192.0.2.8:1".parse().unwrap();
    assert_ne!(of(&[], 1), key(ask(&question(&head("GET", "/a", &[]), None, &other), false)));
}

#[test]
fn a_call_is_one_framed_message_with_a_deadline() {
    let question = ask(&question(&head("GET", "/", &[]), None, &connection()), false);
    let (head, body) = call(&question, &HeaderValue::from_static("opa.mesh"), Duration::from_millis(1500));
    assert_eq!(
        (head.method.as_str(), head.uri.path()),
        ("POST", "/envoy.service.auth.v3.Authorization/Check")
    );
    let header = |name: &str| head.headers[name].to_str().unwrap();
    assert_eq!(
        (header("host"), header("content-type"), header("te"), header("grpc-timeout")),
        ("opa.mesh", "application/grpc", "trailers", "1500m")
    );
    assert_eq!(*body, framed(&question.encode_to_vec()));
}

fn header_option(key: &str, value: &str, more: &[u8]) -> Vec<u8> {
    [field(1, [field(1, key), field(2, value)].concat()), more.to_vec()].concat()
}

fn ok(parts: &[Vec<u8>]) -> Vec<u8> {
    framed(&[field(1, number(1, 0)), field(3, parts.concat())].concat())
}

fn denied(parts: &[Vec<u8>]) -> Vec<u8> {
    framed(&[field(1, number(1, 7)), field(2, parts.concat())].concat())
}

#[test]
fn a_denial_has_its_status_headers_and_body() {
    let bytes =
        denied(&[field(1, number(1, 401)), field(2, header_option("x-why", "no", b"")), field(3, "nope")]);
    let Ok(Verdict::Deny(refusal)) = read(&bytes) else { panic!("allowed") };
    assert_eq!((refusal.status, &*refusal.body), (StatusCode::UNAUTHORIZED, &b"nope"[..]));
    assert_eq!(refusal.headers["x-why"], "no");
    for status in [0, 99, 100, 199, 600, 1000] {
        let Ok(Verdict::Deny(refusal)) = read(&denied(&[field(1, number(1, status))])) else {
            panic!("allowed")
        };
        assert_eq!(refusal.status, StatusCode::FORBIDDEN, "{status}");
    }
    let Ok(Verdict::Deny(bare)) = read(&framed(&field(1, number(1, 16)))) else { panic!("allowed") };
    assert_eq!(bare.status, StatusCode::FORBIDDEN);
}

#[test]
fn an_allowance_changes_headers_as_it_says() {
    let append = field(2, number(1, 1));
    let bytes = ok(&[
        field(2, header_option("x-user", "ann", b"")),
        field(2, header_option("x-list", "more", &append)),
        field(2, header_option("x-new", "if-absent", &number(3, 1))),
        field(2, header_option("x-gone", "if-there", &number(3, 3))),
        field(5, "x-secret"),
        field(6, header_option("x-seen", "1", b"")),
    ]);
    let Ok(Verdict::Allow(changes)) = read(&bytes) else { panic!("denied") };
    let mut headers = head(
        "GET",
        "/",
        &[("x-user", "mallory"), ("x-user", "eve"), ("x-list", "one"), ("x-new", "old"), ("x-secret", "s")],
    )
    .headers;
    changes.apply(&mut headers);
    let all =
        |name: &str| headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>();
    assert_eq!((all("x-user"), all("x-list"), all("x-new")), (vec!["ann"], vec!["one", "more"], vec!["old"]));
    assert!(all("x-gone").is_empty() && all("x-secret").is_empty());
    let seen =
        Change { name: "x-seen".parse().unwrap(), value: HeaderValue::from_static("1"), how: How::Append };
    assert_eq!(changes.response, [seen]);
    let Ok(Verdict::Allow(nothing)) = read(&framed(b"")) else { panic!("denied") };
    assert_eq!(nothing, Default::default(), "an empty answer has code 0");
}

#[test]
fn what_frames_a_message_or_vouches_for_a_peer_is_no_providers() {
    for name in [
        "Connection",
        "transfer-encoding",
        "content-length",
        "te",
        "upgrade",
        "keep-alive",
        "X-Forwarded-Client-Cert",
    ] {
        let bytes = ok(&[field(2, header_option(name, "x", b"")), field(5, name)]);
        let Ok(Verdict::Allow(changes)) = read(&bytes) else { panic!("{name}") };
        assert!(changes.request.is_empty() && changes.removed.is_empty(), "{name}");
    }
    let removed = ok(&[field(5, "host"), field(5, ":path"), field(5, "bad name")]);
    assert_eq!(read(&removed), Ok(Verdict::Allow(Default::default())));
    let Ok(Verdict::Deny(refusal)) = read(&denied(&[field(2, header_option("content-length", "9", b""))]))
    else {
        panic!("allowed")
    };
    assert!(refusal.headers.is_empty());
}

#[test]
fn an_answer_that_cannot_be_followed_is_no_verdict() {
    let unreadable = [
        (b"".to_vec(), "no message"),
        (vec![1, 0, 0, 0, 0], "compressed"),
        (vec![0, 0, 0, 0, 9], "not one message"),
        ([framed(b""), framed(b"")].concat(), "not one message"),
        (framed(&[0x0a, 0x05]), ""),
        (ok(&[field(2, header_option(":path", "/admin", b""))]), "`:path`"),
        (ok(&[field(2, header_option("Host", "other", b""))]), "`Host`"),
        (ok(&[field(2, header_option("bad name", "x", b""))]), "no header"),
        (ok(&[field(2, header_option("x-a", "line\nbreak", b""))]), "no header"),
        (ok(&[field(7, field(1, "a"))]), "query"),
        (ok(&[field(8, "a")]), "query"),
    ];
    for (bytes, why) in unreadable {
        let Err(Failure::Unreadable(said)) = read(&bytes) else { panic!("{bytes:?}") };
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn the_status_is_in_the_trailers_or_in_the_head_alone() {
    let with_trailers = |status: Option<&'static str>| {
        let mut answer = answer(200, &[], framed(b""));
        let trailers = status.map(|status| {
            HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(status))])
        });
        answer.trailers = trailers;
        verdict(&answer)
    };
    assert!(matches!(with_trailers(Some("0")), Ok(Verdict::Allow(_))));
    assert_eq!(with_trailers(Some("4")), Err(Failure::Timeout), "DEADLINE_EXCEEDED");
    assert_eq!(with_trailers(Some("14")), Err(Failure::Error("grpc-status 14".to_owned())));
    for fault_of_the_question in ["3", "8", "11"] {
        assert!(matches!(with_trailers(Some(fault_of_the_question)), Err(Failure::Unreadable(_))));
    }
    assert!(matches!(with_trailers(None), Err(Failure::Error(_))));
    assert!(matches!(verdict(&answer(200, &[("grpc-status", "13")], "")), Err(Failure::Error(_))));
    assert!(matches!(verdict(&answer(503, &[("grpc-status", "0")], framed(b""))), Err(Failure::Error(_))));
    let mut cut = answer(200, &[("grpc-status", "0")], framed(b""));
    cut.cut = true;
    assert!(matches!(verdict(&cut), Err(Failure::Unreadable(_))));
}
