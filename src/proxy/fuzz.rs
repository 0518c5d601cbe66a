//! What each fuzz target does with bytes from outside: no panic, and the invariants of the parser hold.
//!
//! `fuzz/fuzz_targets` holds one file per function here, for `cargo fuzz run <name>`. The ordinary tests
//! replay `fuzz/corpus` and feed random bytes, so that a target cannot rot.

use http::{Method, Uri};

use super::canonical::{self, Canonical};
use super::detect::hello::{self, Hello};
use super::detect::{self, Detected};
use super::proxy_protocol::{self, Addresses, Parsed};
use super::{authority, headers, xfcc};
use crate::mesh::PathNormalization;

const LEVELS: [PathNormalization; 4] = [
    PathNormalization::None,
    PathNormalization::Base,
    PathNormalization::MergeSlashes,
    PathNormalization::DecodeAndMergeSlashes,
];

/// A canonical target is its own canonical form, at every level, and one that both codecs accept.
pub fn canonical(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for level in LEVELS {
        if let Ok(found) = canonical::canonical_target(text, level) {
            let once = found.as_deref().unwrap_or(text);
            assert_eq!(canonical::canonical_target(once, level), Ok(None), "{text:?} at {level:?}");
        }
        if let Ok(uri) = Uri::try_from(text)
            && let Ok(Canonical::Rewritten(new)) = canonical::canonical(&Method::GET, &uri, level)
        {
            let again = Uri::from(new);
            let found = canonical::canonical(&Method::GET, &again, level);
            assert_eq!(found, Ok(Canonical::Unchanged), "{text:?} at {level:?}");
        }
    }
}

/// What is written of an authority reads the same.
pub fn authority(data: &[u8]) {
    if let Ok(found) = authority::Authority::parse(data) {
        let written = found.to_string();
        assert_eq!(authority::Authority::parse(written.as_bytes()), Ok(found));
    }
}

/// More bytes never change a verdict.
pub fn detect(data: &[u8]) {
    let mut verdict = Detected::NeedMore;
    // The first bytes tell nearly always; all ends of a long input would take for ever.
    for end in (0..=data.len().min(128)).chain([data.len()]) {
        let now = detect::classify(&data[..end]);
        assert!(verdict == Detected::NeedMore || verdict == now, "{verdict:?} became {now:?} at {end}");
        verdict = now;
    }
}

/// More bytes never change a verdict, and the name is one that a Host header could hold.
pub fn client_hello(data: &[u8]) {
    let whole = hello::client_hello(data);
    let half = hello::client_hello(&data[..data.len() / 2]);
    assert!(half == Hello::NeedMore || half == whole);
    if let Hello::Parsed(hello::ClientHello { sni: Some(name), .. }) = whole {
        let authority = authority::Authority::parse(name.as_bytes());
        assert_eq!(authority.map(|found| (found.host == *name, found.port)), Ok((true, None)));
    }
}

/// More bytes never change a verdict, and what is read can be written and read again.
pub fn proxy_protocol(data: &[u8]) {
    let Parsed::Done { header, consumed } = proxy_protocol::parse(data) else { return };
    for end in [0, consumed / 2, consumed - 1] {
        assert_eq!(proxy_protocol::parse(&data[..end]), Parsed::NeedMore);
    }
    let mut written = Vec::new();
    proxy_protocol::write_v2(&mut written, &header.addresses);
    match proxy_protocol::parse(&written) {
        Parsed::Done { header: again, consumed } => {
            assert_eq!((again.addresses, consumed), (header.addresses.clone(), written.len()));
        }
        other => assert_eq!(other, Parsed::NeedMore, "what we write is whole"),
    }
    written.clear();
    proxy_protocol::write_v1(&mut written, &header.addresses);
    let expected = match header.addresses {
        Addresses::Unix { .. } => Addresses::Own,
        other => other,
    };
    let again = proxy_protocol::parse(&written);
    assert!(matches!(again, Parsed::Done { header, .. } if header.addresses == expected));
}

/// Lines of `name:value` make a head; cleaning it twice is cleaning it once.
pub fn head(data: &[u8]) {
    let mut map = http::HeaderMap::new();
    for line in data.split(|&byte| byte == b'\n').take(200) {
        let (name, value) = line.split_at(line.iter().position(|&byte| byte == b':').unwrap_or(line.len()));
        if let (Ok(name), Ok(value)) = (
            http::HeaderName::from_bytes(name),
            http::HeaderValue::from_bytes(value.strip_prefix(b":").unwrap_or(value)),
        ) {
            map.append(name, value);
        }
    }
    let limits = headers::HeadLimits::default();
    let Ok(seen) = headers::inspect(http::Version::HTTP_11, data.len(), &map, &limits) else { return };
    if headers::strip_hop_by_hop(&mut map, seen, false).is_err() {
        return;
    }
    headers::strip_control(&mut map, seen);
    headers::join_cookies(&mut map, seen);
    let Ok(again) = headers::inspect_response(&map) else { return };
    let once = map.clone();
    assert!(headers::strip_hop_by_hop(&mut map, again, false).is_ok());
    assert_eq!(map, once);
}

/// What is read can be written and read again.
pub fn xfcc(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(elements) = xfcc::parse(text) else { return };
    let written: Vec<_> = elements.iter().map(ToString::to_string).collect();
    assert_eq!(xfcc::parse(&written.join(",")), Ok(elements), "{text:?}");
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    type Target = (&'static str, fn(&[u8]));

    const TARGETS: [Target; 10] = [
        ("canonical", canonical),
        ("authority", authority),
        ("detect", detect),
        ("client_hello", client_hello),
        ("proxy_protocol", proxy_protocol),
        ("head", head),
        ("xfcc", xfcc),
        ("spiffe_id", crate::identity::fuzz::spiffe_id),
        ("certificate", crate::identity::fuzz::certificate),
        ("audit", crate::telemetry::audit::fuzz::audit),
    ];

    #[test]
    fn the_corpus_of_every_target_passes() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        for (name, body) in TARGETS {
            let source = std::fs::read_to_string(fuzz.join(format!("fuzz_targets/{name}.rs"))).unwrap();
            assert!(source.contains(&format!("fuzz::{name}")), "{name} calls another body");
            let mut seeds = 0;
            for entry in std::fs::read_dir(fuzz.join("corpus").join(name)).unwrap() {
                body(&std::fs::read(entry.unwrap().path()).unwrap());
                seeds += 1;
            }
            assert!(seeds >= 3, "{name} has {seeds} seeds");
        }
    }

    #[test]
    fn the_good_seeds_are_understood() {
        let seed = |path: &str| {
            std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(path)).unwrap()
        };
        assert!(matches!(hello::client_hello(&seed("client_hello/tls13")), Hello::Parsed(hello)
            if hello.sni.as_deref() == Some("reviews.shop") && hello.alpn.len() == 2));
        assert!(matches!(proxy_protocol::parse(&seed("proxy_protocol/v2")), Parsed::Done { .. }));
        assert!(matches!(proxy_protocol::parse(&seed("proxy_protocol/v1")), Parsed::Done { .. }));
        assert_eq!(detect::classify(&seed("detect/http2")), Detected::Http2);
    }

    proptest! {
        #[test]
        fn random_bytes_pass(data in prop::collection::vec(any::<u8>(), 0..200)) {
            for (_, body) in TARGETS {
                body(&data);
            }
        }

        #[test]
        fn seeds_with_a_changed_byte_pass(target in 0..TARGETS.len(), seed in any::<prop::sample::Index>(), at: usize, byte: u8) {
            let (name, body) = TARGETS[target];
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
            let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
            paths.sort();
            let mut data = std::fs::read(seed.get(&paths)).unwrap();
            if !data.is_empty() {
                let at = at % data.len();
                data[at] = byte;
            }
            body(&data);
        }
    }
}
