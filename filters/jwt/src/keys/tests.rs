#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use super::*;
use crate::jwk::MAX_KEYS;
use crate::tests::support::{NOW, RSA, at, ed_jwk, rsa_jwk};
use serde_json::json;

fn one() -> String {
    json!({ "keys": [ed_jwk("ed")] }).to_string()
}

fn two() -> String {
    json!({ "keys": [ed_jwk("ed"), rsa_jwk(&RSA, "rsa")] }).to_string()
}

fn set() -> Arc<KeySet> {
    Arc::new(KeySet::new("i", "http://i/k"))
}

#[test]
fn a_failed_fetch_keeps_the_last_good_keys() {
    let set = set();
    set.begin().succeed(two().as_bytes(), at(NOW)).unwrap();
    let failures: [&[u8]; 5] =
        [b"", b"<html>502</html>", br#"{"keys":[]}"#, br#"{"keys":[{"kty":"EC","crv":"P-521"}]}"#, b"\xff"];
    for text in failures {
        assert!(set.begin().succeed(text, at(NOW + 10)).is_err());
        assert_eq!(set.current(at(NOW + 10)).unwrap().jwks.len(), 2);
    }
    set.begin().fail("connection refused");
    drop(set.begin());
    let status = set.status();
    assert_eq!((status.keys, status.fetches, status.failures, status.generation), (2, 8, 7, 1));
    assert_eq!(status.last_error.as_deref(), Some("the fetch was broken off"));
    assert_eq!(status.fetched, Some(at(NOW)));
}

#[test]
fn a_flood_of_keys_or_bytes_is_a_failed_fetch() {
    let set = set();
    set.begin().succeed(one().as_bytes(), at(NOW)).unwrap();
    let many: Vec<_> = (0..10_000).map(|number| ed_jwk(&number.to_string())).collect();
    let error = set.begin().succeed(json!({ "keys": many }).to_string().as_bytes(), at(NOW)).unwrap_err();
    assert!(error.contains("1048576") || error.contains("10000") || error.contains("too many"), "{error}");
    let hundred: Vec<_> = (0..=MAX_KEYS).map(|number| ed_jwk(&number.to_string())).collect();
    let error = set.begin().succeed(json!({ "keys": hundred }).to_string().as_bytes(), at(NOW)).unwrap_err();
    assert_eq!(error, "holds 101 keys, more than 100");
    let long = format!("{}{}", one(), " ".repeat(MAX_JWKS));
    assert!(set.begin().succeed(long.as_bytes(), at(NOW)).unwrap_err().contains("longer"));
    assert_eq!(set.status().keys, 1);
}

#[test]
fn keys_hold_until_their_hard_maximum_age() {
    let set = set();
    set.begin().succeed(one().as_bytes(), at(NOW)).unwrap();
    let last = NOW + MAX_AGE.as_secs();
    assert!(set.current(at(last)).is_some());
    assert!(set.current(at(last + 1)).is_none());
    assert!(set.current(at(NOW - 1000)).is_some(), "a clock that was set back");
    set.begin().succeed(one().as_bytes(), at(last + 1)).unwrap();
    assert_eq!(set.current(at(last + 1)).unwrap().generation, 1, "the same keys are the same generation");
    set.begin().succeed(two().as_bytes(), at(last + 2)).unwrap();
    assert_eq!(set.current(at(last + 2)).unwrap().generation, 2);
}

#[test]
fn a_flood_of_unknown_keys_asks_seldom_and_is_remembered_in_bounds() {
    let set = set();
    let start = Instant::now();
    let mut asked = 0;
    for number in 0..100_000_u64 {
        let now = start + Duration::from_millis(number * 10);
        asked += u64::from(set.ask_for(&number.to_string(), now));
        assert!(set.state().unknown.len() <= MAX_UNKNOWN);
    }
    assert_eq!(asked, 1000 / ASK_INTERVAL.as_secs());
}

#[test]
fn a_key_that_a_fetch_did_not_bring_is_not_asked_for_again_for_a_while() {
    let set = set();
    let start = Instant::now();
    assert!(set.ask_for("gone", start));
    assert!(!set.ask_for("gone", start + ASK_INTERVAL));
    assert!(set.ask_for("other", start + ASK_INTERVAL));
    assert!(!set.ask_for("gone", start + UNKNOWN_FOR - Duration::from_secs(1)));
    assert!(set.ask_for("gone", start + UNKNOWN_FOR));
    let fetch = set.begin();
    assert!(!set.ask_for("third", start + UNKNOWN_FOR * 2), "one is under way");
    fetch.fail("x");
}

#[test]
fn kept_keys_are_restored_unless_they_are_too_old_or_older() {
    let set = set();
    assert_eq!(set.restore(one().as_bytes(), at(NOW), at(NOW + MAX_AGE.as_secs() + 1)), Ok(false));
    assert_eq!(set.restore(one().as_bytes(), at(NOW + 5), at(NOW)), Ok(false), "from the future");
    assert!(set.restore(b"{}", at(NOW), at(NOW)).is_err());
    assert_eq!(set.restore(one().as_bytes(), at(NOW), at(NOW + 60)), Ok(true));
    assert_eq!(set.restore(two().as_bytes(), at(NOW - 5), at(NOW + 60)), Ok(false));
    assert_eq!(set.status().keys, 1);
}

#[tokio::test(start_paused = true)]
async fn as_many_may_wait_as_there_is_room_for() {
    let set = set();
    let mut waiting = Vec::new();
    for _ in 0..MAX_WAITING {
        assert_eq!(set.without(), Without::Wait);
        let set = set.clone();
        waiting.push(tokio::spawn(async move { set.wait(Duration::from_secs(5)).await }));
        tokio::task::yield_now().await;
    }
    assert_eq!(set.without(), Without::Refuse);
    set.begin().succeed(one().as_bytes(), at(NOW)).unwrap();
    for one in waiting {
        one.await.unwrap();
    }
    assert_eq!(set.waiting.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn whoever_fetches_is_told_when_a_set_is_used_no_more() {
    let set = set();
    let (asked, weak) = (set.asked(), Arc::downgrade(&set));
    drop(set);
    asked.notified().await;
    assert!(weak.upgrade().is_none());
}
