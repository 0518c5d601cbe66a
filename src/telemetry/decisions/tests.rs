use super::*;
use crate::telemetry::redact::Redaction;
use filter_api::{
    ConnectionFacts, Effect, FailedClause, ObjectName, Origin, Place, Protocol, Record, Ruling,
};
use http::{HeaderName, HeaderValue};
use std::path::Path;
use std::time::Duration;

fn decision(number: u64, refused: bool) -> Decision {
    let address = "127.0.0.1:80".parse().unwrap();
    let connection = ConnectionFacts {
        listener: "inbound".into(),
        remote: address,
        direct_remote: address,
        local: address,
        original_destination: None,
        protocol: Protocol::Tcp,
        server_name: None,
        tls: None,
    };
    let decision = Decision::of(&connection, DecisionId::fresh(), &Redaction::default());
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(number);
    Decision { time, refused, status: Some(if refused { 403 } else { 200 }), ..decision }
}

/// A refusal by a rule of `shop/p`.
fn ruled(because: &str) -> Record {
    let name = ObjectName { kind: "AuthorizationPolicy".into(), namespace: "shop".into(), name: "p".into() };
    let place = Place { file: Path::new("p.yaml").into(), line: 7, column: 3 };
    Record {
        layer: "authorization",
        origin: Origin::object(name, "spec.rules[0]", Some(place)),
        because: because.to_owned().into(),
        ruling: Some(Box::new(Ruling {
            policy: "shop/p".into(),
            rule: Some(0),
            effect: Effect::Denied,
            failed: Some(FailedClause {
                key: "from.source.principals".into(),
                expected: "cluster.local/ns/shop/sa/cart".into(),
                actual: "none".into(),
            }),
        })),
    }
}

#[test]
fn a_ring_holds_the_latest_and_says_since_when_it_holds_all() {
    let decisions = Decisions::new();
    let (one, other) = (decisions.ring(), decisions.ring());
    let empty = decisions.reach();
    assert_eq!((empty.held, empty.total), (0, 0));
    let first = decision(1, true);
    let gone = first.id;
    one.push(first);
    assert!(decisions.find(gone).is_some());
    let start = 10_000_000_000;
    for number in 0..10_000 {
        one.push(decision(start + number, true));
    }
    let last = decision(start + 20_000, true);
    let id = last.id;
    other.push(last);
    assert!(decisions.find(gone).is_none());
    assert_eq!(decisions.find(id).unwrap().id, id);
    let reach = decisions.reach();
    assert_eq!((reach.held, reach.capacity, reach.total), (REFUSALS + 1, 2 * REFUSALS, 10_002));
    let oldest = start + 10_000 - REFUSALS as u64;
    assert_eq!(reach.since, SystemTime::UNIX_EPOCH + Duration::from_secs(oldest));
    let latest = decisions.latest(3, &Filter::default());
    let times: Vec<_> = latest
        .iter()
        .map(|decision| decision.time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
        .collect();
    assert_eq!(times, [start + 20_000, start + 9_999, start + 9_998]);
}

#[test]
fn what_passes_does_not_push_out_what_is_refused() {
    let decisions = Decisions::new();
    let ring = decisions.ring();
    ring.push(decision(1, true));
    (0..1_000).for_each(|number| ring.push(decision(number, false)));
    let held = |refused| decisions.latest(usize::MAX, &Filter { refused, ..Filter::default() }).len();
    assert_eq!((held(Some(true)), held(Some(false)), held(None)), (1, PASSES, PASSES + 1));
}

#[test]
fn decisions_are_found_by_status_and_by_policy() {
    let decisions = Decisions::new();
    let ring = decisions.ring();
    let mut denied = decision(1, true);
    denied.record([ruled("denied")].iter(), &Redaction::default());
    ring.push(denied);
    ring.push(Decision { status: Some(404), ..decision(2, true) });
    let count = |status, policy: Option<&str>| {
        let filter = Filter { status, policy: policy.map(str::to_owned), refused: None };
        decisions.latest(10, &filter).len()
    };
    assert_eq!((count(Some(403), None), count(Some(404), None), count(Some(500), None)), (1, 1, 0));
    assert_eq!(
        (count(None, Some("shop/p")), count(None, Some("p")), count(None, Some("other/p"))),
        (1, 1, 0)
    );
}

#[test]
fn an_entry_is_bounded_whatever_is_said_and_cut_between_characters() {
    let redaction = Redaction::default();
    let long = "é".repeat(100_000);
    let names: Vec<_> = (0..50).map(|n| HeaderName::try_from(format!("x-{n}")).unwrap()).collect();
    let value = HeaderValue::from_bytes(long.as_bytes()).unwrap();
    let headers = names.iter().map(|name| (name, &value));
    let mut decision = decision(1, true);
    decision.subject = Subject::request(&long, &long, headers, &redaction);
    decision.detail(&long, &redaction);
    let record = Record { ruling: ruled("").ruling, ..ruled(&long) };
    let records = vec![record; 100];
    decision.record(records.iter(), &redaction);
    let Subject::Request { method, host, path, headers } = &decision.subject else { panic!("a request") };
    let mut bytes = method.len() + host.len() + path.len() + decision.details.len();
    bytes += headers.iter().map(|(_, value)| value.len()).sum::<usize>();
    bytes += decision.records.iter().map(|record| record.because.len() + 64).sum::<usize>();
    assert!(bytes <= MAX_BYTES, "{bytes}");
    assert!(path.ends_with("é..."), "{path}");
}

#[test]
fn an_entry_is_shown_with_object_rule_clause_and_place_and_without_secrets() {
    let redaction = Redaction::default();
    let mut decision = decision(1, true);
    let (host, secret) = (HeaderValue::from_static("cart"), HeaderValue::from_static("Bearer s3cret"));
    let headers = [(&http::header::HOST, &host), (&http::header::AUTHORIZATION, &secret)];
    decision.subject = Subject::request("GET", "/a?token=s3cret&n=1", headers.into_iter(), &redaction);
    decision.record([ruled("denied by p")].iter(), &redaction);
    let json = serde_json::to_value(&decision).unwrap();
    assert_eq!(json["request"]["path"], "/a?token=***&n=1");
    assert_eq!(json["request"]["headers"]["authorization"], "***");
    let record = &json["records"][0];
    assert_eq!((&record["policy"], &record["rule"]), (&"shop/p".into(), &0.into()));
    assert_eq!(record["place"], "p.yaml:7:3");
    assert_eq!(record["failed"]["clause"], "from.source.principals");
    let text = decision.to_string();
    assert!(text.contains("AuthorizationPolicy shop/p spec.rules[0] (p.yaml:7:3)"), "{text}");
    assert!(
        text.contains("expected cluster.local/ns/shop/sa/cart") && text.contains("actual   none"),
        "{text}"
    );
    assert!(!text.contains("s3cret") && !json.to_string().contains("s3cret"), "{text}");
}

#[test]
fn who_reads_does_not_stop_who_writes() {
    let decisions = Arc::new(Decisions::new());
    let ring = decisions.ring();
    let reading = decisions.clone();
    let reader = std::thread::spawn(move || {
        let mut seen = 0;
        while seen < 20_000 {
            seen = reading.reach().total;
            let held = reading.latest(usize::MAX, &Filter::default());
            assert!(held.len() <= REFUSALS);
            std::thread::yield_now();
        }
    });
    (0..20_000).for_each(|number| ring.push(decision(number, true)));
    reader.join().unwrap();
}
