use proptest::prelude::*;

use super::PathNormalization::{Base, DecodeAndMergeSlashes, MergeSlashes, None as Nothing};
use super::*;

fn run(target: &str, level: PathNormalization) -> Result<String, TargetRefusal> {
    Ok(canonical_target(target, level)?.unwrap_or_else(|| target.to_owned()))
}

const LEVELS: [PathNormalization; 4] = [Nothing, Base, MergeSlashes, DecodeAndMergeSlashes];

/// Target, then what each level of [`LEVELS`] makes of it: the table of Istio's integration test
/// `tests/integration/security/normalization_test.go`.
const ISTIO: &[(&str, [&str; 4])] = &[
    ("/", ["/"; 4]),
    ("/app#foo", ["/app"; 4]),
    ("/app/", ["/app/"; 4]),
    ("/app/../admin", ["/app/../admin", "/admin", "/admin", "/admin"]),
    ("/app", ["/app"; 4]),
    ("/app//", ["/app//", "/app//", "/app/", "/app/"]),
    ("/app/%2f", ["/app/%2f", "/app/%2f", "/app/%2f", "/app/"]),
    ("/app%2f/", ["/app%2f/", "/app%2f/", "/app%2f/", "/app/"]),
    ("/xyz%30..//abc", ["/xyz%30..//abc", "/xyz0..//abc", "/xyz0../abc", "/xyz0../abc"]),
    ("/app/%2E./admin", ["/app/%2E./admin", "/admin", "/admin", "/admin"]),
    (r"/app\admin", [r"/app\admin", "/app/admin", "/app/admin", "/app/admin"]),
    (r"/app/\/\/\admin", [r"/app/\/\/\admin", "/app//////admin", "/app/admin", "/app/admin"]),
    (
        "/%2Fapp%5cadmin%5Cabc",
        ["/%2Fapp%5cadmin%5Cabc", "/%2Fapp%5cadmin%5Cabc", "/%2Fapp%5cadmin%5Cabc", "/app/admin/abc"],
    ),
    (
        r"/%5Capp%2f%5c%2F%2e%2e%2fadmin%5c\abc",
        [
            r"/%5Capp%2f%5c%2F%2e%2e%2fadmin%5c\abc",
            "/%5Capp%2f%5c%2F..%2fadmin%5c/abc",
            "/%5Capp%2f%5c%2F..%2fadmin%5c/abc",
            "/app/admin/abc",
        ],
    ),
    ("/app//../admin", ["/app//../admin", "/app/admin", "/app/admin", "/app/admin"]),
    ("/app//../../admin", ["/app//../../admin", "/admin", "/admin", "/admin"]),
];

#[test]
fn every_level_agrees_with_the_table_of_istio() {
    for (target, expected) in ISTIO {
        for (level, expected) in LEVELS.into_iter().zip(expected) {
            assert_eq!(run(target, level).as_deref(), Ok(*expected), "{target} at {level:?}");
        }
    }
}

#[test]
fn parameters_do_not_hide_a_dot_segment() {
    for (target, canonical) in [
        ("/public/..;/admin", "/admin"),
        ("/public/..;x=1;y/admin?q", "/admin?q"),
        ("/a/.;/b", "/a/b"),
        ("/..;/a", "/a"),
        ("/a/%2e%2e;/b", "/b"),
        ("/a/b/..;", "/a/"),
        ("/a/..x;/b", "/a/..x;/b"),
        ("/a/;..;/b", "/a/;..;/b"),
    ] {
        assert_eq!(run(target, MergeSlashes).as_deref(), Ok(canonical), "{target}");
    }
}

#[test]
fn what_istio_leaves_alone_is_left_alone() {
    let alone = [
        "/0x2e0x2e/admin",
        "/0x2e0x2e0x2fadmin",
        "/0x2f0x2fadmin",
        "/%25c0%25ae%25c1%259cadmin",
        "/%25c0%25ae%25c0%25ae/admin",
        "/%252e%252e/admin",
        "/%252e%252e%252fadmin",
        "/%c1%9cadmin",
        "/%c0%ae%c0%ae/admin",
        "/.../admin",
        "/..../admin",
        "/;/admin",
        "/admin;a=b",
        "/admin;a=b/xyz",
        "/admin,a=b/xyz",
        "/Admin",
        "/ADMIN",
        "/.well-known/x",
        "/..a/.b/c.",
        "/100%/%zz/%4",
    ];
    for target in alone {
        assert_eq!(canonical_target(target, DecodeAndMergeSlashes), Ok(None), "{target}");
    }
    assert_eq!(run("/%c0%2e%c0%2e/admin", DecodeAndMergeSlashes).as_deref(), Ok("/%c0.%c0./admin"));
    assert_eq!(run("/%c0%2fadmin", DecodeAndMergeSlashes).as_deref(), Ok("/%c0/admin"));
}

#[test]
fn all_percent_codes_are_decoded_kept_or_refused_as_istio_says() {
    for code in 0..=255u8 {
        for text in [format!("/admin%{code:02x}"), format!("/admin%{code:02X}")] {
            let decoded = match code {
                b'-' | b'.' | b'_' | b'~' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
                    Some(char::from(code).to_string())
                }
                _ => None,
            };
            let slash = matches!(code, b'/' | b'\\').then(|| "/".to_owned());
            for level in LEVELS {
                let expected = match level {
                    _ if code == 0 => Err(TargetRefusal::EncodedNul),
                    Nothing => Ok(text.clone()),
                    Base | MergeSlashes => Ok(decoded.clone().map_or(text.clone(), |d| format!("/admin{d}"))),
                    DecodeAndMergeSlashes => {
                        Ok(decoded.clone().or(slash.clone()).map_or(text.clone(), |d| format!("/admin{d}")))
                    }
                };
                assert_eq!(run(&text, level), expected, "{text} at {level:?}");
            }
        }
    }
}

#[test]
fn every_raw_byte_is_kept_encoded_or_refused() {
    for byte in 0..=127u8 {
        let text = format!("/a{}b", char::from(byte));
        let expected = match byte {
            0..=b' ' | 0x7f => Err(TargetRefusal::ForbiddenByte),
            b'#' => Ok("/a".to_owned()),
            b'\\' => Ok("/a/b".to_owned()),
            b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' => Ok(format!("/a%{byte:02X}b")),
            _ => Ok(text.clone()),
        };
        assert_eq!(run(&text, Base), expected, "{byte:#x}");
    }
    assert_eq!(run("/é", Base).as_deref(), Ok("/%C3%A9"));
}

#[test]
fn dot_segments_end_at_the_query_and_stop_at_the_root() {
    for (target, expected) in [
        ("/..", "/"),
        ("/../../a", "/a"),
        ("/a/..", "/"),
        ("/a/.", "/a/"),
        ("/a/b/%2e%2E?x=/../y", "/a/?x=/../y"),
        ("/a/./b?%41=//", "/a/b?%41=//"),
        ("/a?b#c", "/a?b"),
        ("/a/..#c", "/"),
        ("/a\\..\\b", "/b"),
    ] {
        assert_eq!(run(target, Base).as_deref(), Ok(expected), "{target}");
    }
}

#[test]
fn nothing_is_decoded_twice() {
    for target in ["/%%32%65/admin", "/%%32e", "/%2%65", "/%a%41", "/x/%%34%31"] {
        assert_eq!(run(target, Base), Err(TargetRefusal::AmbiguousEscape), "{target}");
    }
    assert_eq!(run("/%%2e%2e/", Base).as_deref(), Ok("/%../"));
    assert_eq!(run("/%20%41", Base).as_deref(), Ok("/%20A"));
}

#[test]
fn forms_other_than_a_path_are_refused_for_ordinary_methods() {
    let of = |method: &str, uri: &str| {
        let uri: Uri = uri.parse().unwrap();
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        canonical(&method, &uri, Base).map(|done| done.path_and_query(&uri).map(|path| path.to_string()))
    };
    let path = |text: &str| Ok(Some(text.to_owned()));
    assert_eq!(of("GET", "*"), Err(TargetRefusal::Asterisk));
    assert_eq!(of("OPTIONS", "*"), path("*"));
    assert_eq!(of("GET", "example.com:80"), Err(TargetRefusal::NotOriginForm));
    assert_eq!(of("CONNECT", "example.com:80"), Ok(None));
    assert_eq!(of("GET", "http://example.com/a/../b?c"), path("/b?c"));
    assert_eq!(of("GET", "http://example.com/b?c"), path("/b?c"));
    assert_eq!(of("GET", "http://example.com"), path("/"));
    assert_eq!(of("GET", "http://example.com?x=1"), path("/?x=1"));
    assert_eq!(of("CONNECT", "http://example.com/chat/../echo"), path("/echo"));
    for target in ["", "pkg.Svc/Method", "http://x/y", "*", "?a", "#"] {
        assert_eq!(run(target, Base), Err(TargetRefusal::NotOriginForm), "{target}");
    }
}

#[test]
fn a_target_too_long_for_its_encoding_is_refused() {
    let uri: Uri = format!("/{}", "\"".repeat(40_000)).parse().unwrap();
    assert_eq!(canonical(&Method::GET, &uri, Base), Err(TargetRefusal::TooLong));
    assert_eq!(canonical(&Method::GET, &uri, Nothing), Ok(Canonical::Unchanged));
}

/// Paths made of what normalisation cares about, far denser than random text.
fn tricky() -> impl Strategy<Value = String> {
    let parts = vec![
        "/", "//", ".", "..", "%2e", "%2E", "%2f", "%2F", "%5c", "%5C", "\\", "%", "%%", "2", "e", "5",
        "%32", "%65", "%41", "%20", "%00", "%25", "a", ";", "?", "#", "\"", "é", " ", "*", "%c0", "%c", "~",
        "|",
    ];
    prop::collection::vec(prop::sample::select(parts), 0..14).prop_map(|parts| format!("/{}", parts.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_canonical_target_stays_as_it_is(target in tricky(), level in prop::sample::select(LEVELS.to_vec())) {
        if let Ok(once) = run(&target, level) {
            prop_assert_eq!(canonical_target(&once, level), Ok(None), "{} -> {}", target, once);
            let path = once.split('?').next().unwrap();
            if level > Nothing {
                prop_assert!(path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\'), "{}", path);
                for segment in path.split('/') {
                    let plain = segment.replace("%2e", ".").replace("%2E", ".");
                    prop_assert!(plain != "." && plain != "..", "{}", path);
                }
            }
            if level >= MergeSlashes {
                prop_assert!(!path.contains("//"), "{}", path);
            }
            if level == DecodeAndMergeSlashes {
                let lower = path.to_ascii_lowercase();
                prop_assert!(!lower.contains("%2f") && !lower.contains("%5c"), "{}", path);
            }
        }
    }

    #[test]
    fn the_query_is_untouched(target in tricky(), query in "[ -~&&[^#\\x20]]{0,20}") {
        let path = target.split(['?', '#']).next().unwrap().to_owned();
        if let Ok(new) = run(&format!("{path}?{query}"), DecodeAndMergeSlashes) {
            prop_assert!(new.ends_with(&format!("?{query}")), "{}", new);
        }
    }

    #[test]
    fn any_uri_the_codecs_accept_is_handled(target in tricky(), text in "/\\PC{0,30}") {
        for target in [target, text] {
            if let Ok(uri) = target.parse::<Uri>() {
                for level in LEVELS {
                    if let Ok(Canonical::Rewritten(new)) = canonical(&Method::GET, &uri, level) {
                        prop_assert!(new.as_str().starts_with('/'));
                    }
                }
            }
        }
    }
}
