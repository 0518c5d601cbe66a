//! What a chain shows, and what it does not.

use super::super::verify::{Report, Verifier, Wrong};
use super::*;
use crate::telemetry::timestamp::Timestamps;
use proptest::prelude::*;

fn records(count: usize) -> Vec<Vec<u8>> {
    let (mut head, mut stamps, mut all) = (Head::default(), Timestamps::default(), Vec::new());
    for number in 0..count {
        let mut line = Vec::new();
        head = head.append(&mut line, |out| event(number).write(SystemTime::UNIX_EPOCH, &mut stamps, out));
        all.push(line);
    }
    all
}

fn read(mut bytes: &[u8]) -> Report {
    let mut verifier = Verifier::default();
    verifier.read(Path::new("a"), &mut bytes).unwrap();
    verifier.report()
}

#[test]
fn a_record_is_json_with_fields_in_a_fixed_order() {
    let lines = records(2);
    let text = String::from_utf8(lines[1].clone()).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let names: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = ["v", "seq", "time", "event", "address", "method", "target", "status", "prev", "hash"];
    assert_eq!(names, expected);
    assert_eq!(value["time"], "1970-01-01T00:00:00.000000000Z");
    assert_eq!(value["seq"], 2);
    let first: serde_json::Value = serde_json::from_slice(&lines[0]).unwrap();
    assert_eq!(value["prev"], first["hash"]);
}

#[test]
fn a_long_text_is_cut_within_no_character_and_says_so() {
    let target = format!("/{}", "\u{e9}".repeat(1000));
    let event = Event::Admin(Box::new(Call {
        by: ([127, 0, 0, 1], 9).into(),
        method: Method::POST,
        target,
        status: 200,
    }));
    let mut line = Vec::new();
    let _ = Head::default()
        .append(&mut line, |out| event.write(SystemTime::now(), &mut Timestamps::default(), out));
    let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
    let shown = value["target"].as_str().unwrap();
    assert!(shown.ends_with("\u{e9}... (978 bytes more)"), "{shown}");
}

#[test]
fn a_head_that_was_noted_shows_that_the_end_was_cut_off() {
    let lines = records(5);
    let noted = Link::read(lines[3].strip_suffix(b"\n").unwrap()).unwrap().hash;
    let look = |count: usize| {
        let mut verifier = Verifier::new(Some(noted));
        verifier.read(Path::new("a"), &mut lines[..count].concat().as_slice()).unwrap();
        verifier.report()
    };
    assert_eq!((look(5).is_intact(), look(5).expected), (true, Some(4)));
    assert!(look(4).is_intact());
    assert!(!look(3).is_intact() && look(3).cut_off);
}

#[test]
fn findings_name_the_line_and_what_happened_to_it() {
    let lines = records(6);
    let without = read(&[&lines[0], &lines[1], &lines[4], &lines[5]].map(Vec::as_slice).concat());
    assert_eq!(without.findings.len(), 1);
    assert_eq!((without.findings[0].line, &without.findings[0].what), (3, &Wrong::Missing(3, 4)));
    assert_eq!(without.findings[0].to_string(), "a:3: records 3 to 4 are missing before it");
    let swapped = read(&[&lines[0], &lines[2], &lines[1], &lines[3]].map(Vec::as_slice).concat());
    let lines_of: Vec<_> = swapped.findings.iter().map(|finding| finding.line).collect();
    assert_eq!(lines_of, [2, 3, 4]);
    let mut edited = lines.concat();
    let at = lines[0].len() + 60;
    edited[at] ^= 1;
    let report = read(&edited);
    assert_eq!(report.findings.len(), 1, "the records behind it are as they were: {:?}", report.findings);
    assert!(
        matches!(report.findings[0].what, Wrong::Record(Flaw::Hash { .. })) && report.findings[0].line == 2
    );
    let torn = read(&lines.concat()[..lines.concat().len() - 3]);
    assert_eq!(torn.findings.last().map(|finding| finding.what.clone()), Some(Wrong::Torn));
}

#[test]
fn a_chain_that_was_made_anew_from_a_record_on_is_another_one() {
    let lines = records(4);
    let head = Link::read(lines[1].strip_suffix(b"\n").unwrap()).unwrap().head();
    let forged = Head { hash: Hash::of(b"other"), ..head };
    let mut line = Vec::new();
    let _ =
        forged.append(&mut line, |out| event(9).write(SystemTime::now(), &mut Timestamps::default(), out));
    let report = read(&[lines[0].clone(), lines[1].clone(), line].concat());
    assert!(matches!(report.findings[..], [ref one] if matches!(one.what, Wrong::Broken { .. })));
}

#[test]
fn a_refused_request_shows_who_asked_and_what_decided() {
    use filter_api::{ConnectionFacts, Effect, FailedClause, Protocol, Record, Ruling, Token};
    let address = |port| ([127, 0, 0, 1], port).into();
    let connection = ConnectionFacts {
        listener: "inbound".into(),
        remote: address(4),
        direct_remote: address(4),
        local: address(5),
        original_destination: None,
        protocol: Protocol::Http2,
        server_name: None,
        tls: None,
    };
    let failed =
        FailedClause { key: "to.operation.paths".into(), expected: "/a".into(), actual: "/b".into() };
    let ruling =
        Ruling { policy: "shop/p".into(), rule: Some(2), effect: Effect::Denied, failed: Some(failed) };
    let record = Record {
        layer: "authorization",
        origin: Origin::BUILT_IN,
        because: "no rule \"holds\"\n".into(),
        ruling: Some(Box::new(ruling)),
    };
    let token = Token {
        principal: "https://issuer/alice".into(),
        issuer: "https://issuer".into(),
        subject: "alice".into(),
        audiences: Vec::new(),
        claims: serde_json::Map::new(),
    };
    let access = Access {
        id: Some("7".parse().unwrap()),
        connection: connection.into(),
        client: Some([198, 51, 100, 7].into()),
        token: Some(token.into()),
        method: Some(Method::POST),
        host: Some("app".parse().unwrap()),
        path: Some("/b".into()),
        status: Some(200),
        grpc_status: Some(7),
        details: Some("rbac".into()),
        decisions: vec![record],
        route: Some("".into()),
        cluster: None,
        upstream: None,
        duration: Duration::from_micros(12),
    };
    let mut line = Vec::new();
    let event = Event::Denied(Box::new(access));
    let _ = Head::default()
        .append(&mut line, |out| event.write(SystemTime::UNIX_EPOCH, &mut Timestamps::default(), out));
    let text = String::from_utf8(line).unwrap();
    let expected = r#"{"v":1,"seq":1,"time":"1970-01-01T00:00:00.000000000Z","event":"Denied","id":"7","address":"127.0.0.1:4","client":"198.51.100.7","issuer":"https://issuer","subject":"alice","protocol":"h2c","listener":"inbound","method":"POST","host":"app","path":"/b","status":200,"grpcStatus":7,"details":"rbac","decisions":[{"layer":"authorization","effect":"Denied","policy":"shop/p","rule":2,"clause":"to.operation.paths","expected":"/a","actual":"/b","because":"no rule \"holds\"\u000a"}],"durationMicros":12,"prev":""#;
    assert!(text.starts_with(expected), "{text}");
    assert!(read(text.as_bytes()).is_intact());
}

proptest! {
    #[test]
    fn any_byte_that_is_another_one_is_found(count in 1_usize..6, at: prop::sample::Index, by in 1_u8..) {
        let mut bytes = records(count).concat();
        prop_assert!(read(&bytes).is_intact());
        let at = at.index(bytes.len());
        bytes[at] = bytes[at].wrapping_add(by);
        prop_assert!(!read(&bytes).is_intact());
    }

    #[test]
    fn any_record_between_two_others_that_is_removed_is_found(count in 3_usize..8, at: prop::sample::Index) {
        let mut lines = records(count);
        lines.remove(1 + at.index(count - 2));
        prop_assert!(!read(&lines.concat()).is_intact());
    }

    #[test]
    fn any_two_records_that_change_places_are_found(count in 2_usize..8, one: prop::sample::Index, other: prop::sample::Index) {
        let mut lines = records(count);
        let (one, other) = (one.index(count), other.index(count));
        prop_assume!(one != other);
        lines.swap(one, other);
        prop_assert!(!read(&lines.concat()).is_intact());
    }

    #[test]
    fn any_end_within_a_record_is_found(count in 1_usize..4, at: prop::sample::Index) {
        let bytes = records(count).concat();
        let end = 1 + at.index(bytes.len() - 1);
        prop_assume!(bytes[end - 1] != b'\n');
        prop_assert!(!read(&bytes[..end]).is_intact());
    }
}
