#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use super::{HALF_LIFE, Memory, REMEMBERED, SETS, Seen, Source, WAYS};
use filter_api::{ConnectionFacts, Principal, Protocol};
use std::time::{Duration, SystemTime};

fn start() -> SystemTime {
    // The beginning of a tick.
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 / 64 * 64)
}

/// Sources of one set.
fn source(number: u64) -> Source {
    Source((number + 1) << 32 | 7)
}

#[test]
fn a_source_is_known_once_it_was_let_in_and_until_it_is_silent_for_long() {
    let memory = Memory::default();
    let (one, other) = (source(1), source(2));
    assert_eq!(memory.look(one, start()), Seen::default());
    memory.allow(one, start());
    assert!(memory.look(one, start()).known && !memory.look(other, start()).known);
    assert!(memory.look(one, start() + REMEMBERED - Duration::from_secs(64)).known);
    assert!(!memory.look(one, start() + REMEMBERED + Duration::from_secs(64)).known);
    memory.allow(one, start() + REMEMBERED - Duration::from_secs(64));
    assert!(memory.look(one, start() + REMEMBERED + Duration::from_secs(64)).known, "heard of again");
    assert!(memory.look(one, start() - Duration::from_hours(1)).known, "a clock that was put back");
}

#[test]
fn refusals_add_up_and_fade() {
    let memory = Memory::default();
    let one = source(1);
    (0..4).for_each(|_| memory.fail(one, start()));
    let failures = |after| memory.look(one, start() + after).failures;
    assert_eq!(failures(Duration::ZERO), 4.0);
    let half = failures(HALF_LIFE);
    assert!((1.9..2.4).contains(&half), "{half}");
    assert!(failures(HALF_LIFE * 12) < 0.01);
    assert!(!memory.look(one, start()).known, "who is refused is not known");
    memory.allow(one, start());
    assert_eq!(
        memory.look(one, start()),
        Seen { known: true, failures: 4.0 },
        "one success forgives nothing"
    );
    (0..100).for_each(|_| memory.fail(one, start()));
    let most = memory.look(one, start()).failures;
    assert!((31.0..32.0).contains(&most), "{most}");
}

#[test]
fn nobody_passes_for_the_client_of_another_peer() {
    let connection = |remote: &str| ConnectionFacts {
        listener: "virtualInbound".into(),
        remote: remote.parse().unwrap(),
        direct_remote: "10.0.0.1:1".parse().unwrap(),
        local: "10.9.9.9:8080".parse().unwrap(),
        original_destination: None,
        protocol: Protocol::Http1,
        server_name: None,
        tls: None,
    };
    let of = |remote: &str, who: Option<&str>, client: &str| {
        let who = who.map(|account| Principal::new("cluster.local", "shop", account));
        Source::new(&connection(remote), who.as_ref(), client.parse().unwrap())
    };
    let edge = of("10.0.0.2:1", Some("edge"), "198.51.100.7");
    assert_eq!(edge, of("10.0.0.3:1", Some("edge"), "198.51.100.7"), "wherever the peer runs");
    assert_ne!(edge, of("10.0.0.2:1", Some("edge"), "198.51.100.8"));
    assert_ne!(edge, of("10.0.0.2:1", Some("cart"), "198.51.100.7"));
    assert_eq!(of("10.0.0.2:1", Some("cart"), "10.0.0.2"), of("10.0.0.3:9", Some("cart"), "10.0.0.3"));
    assert_ne!(of("10.0.0.2:1", None, "10.0.0.2"), of("10.0.0.3:1", None, "10.0.0.3"));
    assert_eq!(
        of("[2001:db8::1]:1", None, "2001:db8::1"),
        of("[2001:db8::2]:1", None, "2001:db8::2"),
        "the same network"
    );
    assert_eq!(of("[::ffff:10.0.0.2]:1", None, "10.0.0.2"), of("10.0.0.2:1", None, "10.0.0.2"));
}

#[test]
fn a_flood_of_sources_takes_no_more_room_and_forgets_the_silent_ones_first() {
    let memory = Memory::default();
    assert_eq!(memory.0.len() * size_of_val(&memory.0[0]), SETS * WAYS * 8);
    let refused = source(0);
    (0..4).for_each(|_| memory.fail(refused, start()));
    let later = |number: u64| start() + Duration::from_secs(64 * number);
    (1..=8).for_each(|number| memory.allow(source(number), later(number)));
    // Nine sources have eight places: the one that was refused stays, the oldest of the others went.
    assert!(memory.look(refused, later(8)).failures > 0.9);
    assert!(!memory.look(source(1), later(8)).known);
    assert!((2..=8).all(|number| memory.look(source(number), later(8)).known));
}

#[test]
fn workers_that_count_at_once_lose_nothing() {
    let memory = Memory::default();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..5).for_each(|_| memory.fail(source(1), start())));
        }
    });
    let failures = memory.look(source(1), start()).failures;
    assert!((12.0..=20.0).contains(&failures), "{failures}");
}
