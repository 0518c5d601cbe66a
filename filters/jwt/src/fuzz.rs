//! What each fuzz target does with bytes from outside: no panic, and the invariants of the parser hold.

use crate::jwk::{Jwks, MAX_KEYS, Origin};
use crate::places::Place;
use crate::token::Parsed;
use http::HeaderValue;

/// A token that can be read has exactly one spelling of each of its parts.
pub fn token(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(parsed) = Parsed::new(text)
    {
        assert!(text.starts_with(parsed.message) && text.len() > parsed.message.len() + 1);
        assert!(!parsed.signature.is_empty());
        assert!(parsed.message.ends_with(parsed.payload));
        assert!(HeaderValue::from_str(parsed.payload).is_ok());
    }
}

/// A key set is bounded, and asking it with any signature does no harm.
pub fn jwks(data: &[u8]) {
    for origin in [Origin::Inline, Origin::Fetched] {
        if let Ok(set) = Jwks::parse(data, origin) {
            assert!(!set.is_empty() && set.len() <= MAX_KEYS);
        }
    }
}

/// A query or cookies that may hold tokens: what was taken out is not found again, and what is left is a head.
pub fn places(data: &[u8]) {
    let (cookies, query) = data.split_at(data.len() / 2);
    let Ok(mut head) = http::Request::builder().uri("/p").body(()).map(|request| request.into_parts().0)
    else {
        return;
    };
    if let Ok(query) = std::str::from_utf8(query)
        && let Ok(uri) = format!("/p?{query}").parse()
    {
        head.uri = uri;
    }
    if let Ok(value) = HeaderValue::from_bytes(cookies) {
        head.headers.insert(http::header::COOKIE, value);
    }
    for place in [Place::Parameter("a".into()), Place::Cookie("a".into())] {
        if place.find(&head).is_ok() {
            assert_eq!(place.remove(&mut head), Ok(()));
            assert_eq!(place.find(&head), Ok(None));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::{Path, PathBuf};

    type Target = (&'static str, &'static str, fn(&[u8]));

    const TARGETS: [Target; 3] = [
        ("jwt_token", "fuzz::token(", token),
        ("jwks", "fuzz::jwks(", jwks),
        ("jwt_places", "fuzz::places(", places),
    ];

    fn seeds(name: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
    }

    #[test]
    fn the_corpus_of_every_target_passes() {
        let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/fuzz_targets");
        for (name, call, body) in TARGETS {
            let source = std::fs::read_to_string(targets.join(format!("{name}.rs"))).unwrap();
            assert!(source.contains(call), "{name} calls another body");
            let seeds = seeds(name);
            assert!(seeds.len() >= 3, "{name} has {} seeds", seeds.len());
            seeds.iter().for_each(|seed| body(seed));
        }
    }

    #[test]
    fn the_good_seeds_are_understood() {
        let good = seeds("jwt_token")
            .iter()
            .filter(|seed| Parsed::new(std::str::from_utf8(seed).unwrap()).is_ok())
            .count();
        assert_eq!(good, 1);
        let sets: Vec<_> =
            seeds("jwks").iter().filter_map(|seed| Jwks::parse(seed, Origin::Inline).ok()).collect();
        assert_eq!(sets.iter().map(Jwks::len).collect::<Vec<_>>(), [4]);
    }

    proptest! {
        #[test]
        fn random_bytes_pass(data in prop::collection::vec(any::<u8>(), 0..200)) {
            for (_, _, body) in TARGETS {
                body(&data);
            }
        }

        #[test]
        fn seeds_with_a_changed_byte_pass(target in 0..TARGETS.len(), seed in any::<prop::sample::Index>(), at: usize, byte: u8) {
            let (name, _, body) = TARGETS[target];
            let mut data = seed.get(&seeds(name)).clone();
            let at = at % data.len();
            data[at] = byte;
            body(&data);
        }
    }
}
