//! No token that differs from a good one holds.

use super::support::*;
use proptest::prelude::*;
use std::sync::LazyLock;

const ALGORITHMS: [&str; 5] = ["RS256", "PS256", "ES256", "EdDSA", "HS256"];

static GOOD: LazyLock<Vec<String>> =
    LazyLock::new(|| ALGORITHMS.iter().map(|alg| token(alg, &claims())).collect());

fn holds(token: &str) -> bool {
    // Nothing remembered of the good one may help.
    let settings = compile(&[rule()]);
    for good in &*GOOD {
        assert_eq!(judge(&settings, good, NOW), Ok(()));
    }
    judge(&settings, token, NOW).is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_letter_changed_inserted_or_left_out_verifies_nothing(which in 0..ALGORITHMS.len(), at: prop::sample::Index, letter in "[A-Za-z0-9._=+/-]", how in 0..3) {
        let good = &GOOD[which];
        let at = at.index(good.len());
        let mut changed = good.clone();
        match how {
            0 => changed.replace_range(at..=at, &letter),
            1 => changed.insert_str(at, &letter),
            _ => { changed.remove(at); }
        }
        prop_assume!(changed != *good);
        prop_assert!(!holds(&changed), "{changed}");
    }

    #[test]
    fn parts_of_different_tokens_do_not_fit(one in 0..ALGORITHMS.len(), two in 0..ALGORITHMS.len(), part in 0..3_usize) {
        prop_assume!(one != two);
        let mut parts: Vec<&str> = GOOD[one].split('.').collect();
        let other: Vec<&str> = GOOD[two].split('.').collect();
        prop_assume!(parts[part] != other[part]);
        parts[part] = other[part];
        prop_assert!(!holds(&parts.join(".")));
    }
}

#[test]
fn every_last_letter_but_one_is_refused() {
    // The last letter of a signature of 64 or 256 bytes has bits that mean nothing: no other letter may pass for it.
    for good in &*GOOD {
        let (start, last) = good.split_at(good.len() - 1);
        let settings = compile(&[rule()]);
        for letter in ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['-', '_']) {
            let changed = format!("{start}{letter}");
            assert_eq!(judge(&settings, &changed, NOW).is_ok(), last == letter.to_string(), "{changed}");
        }
    }
}
