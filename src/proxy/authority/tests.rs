use proptest::prelude::*;

use super::AuthorityRefusal::*;
use super::*;

fn parse(text: &str) -> Result<(String, Option<u16>), AuthorityRefusal> {
    Authority::parse(text.as_bytes()).map(|authority| (authority.host.into_owned(), authority.port))
}

#[test]
fn all_spellings_of_a_host_give_one_authority() {
    for text in ["reviews.shop:443", "REVIEWS.shop:443", "reviews.SHOP.:443", "Reviews.Shop.:00443"] {
        assert_eq!(parse(text), Ok(("reviews.shop".into(), Some(443))), "{text}");
    }
    for text in ["reviews", "reviews.", "REVIEWS:", "reviews.:"] {
        assert_eq!(parse(text), Ok(("reviews".into(), None)), "{text}");
    }
    for text in ["[::1]:80", "[0:0::1]:80", "[0000:0::0001]:80"] {
        assert_eq!(parse(text), Ok(("[::1]".into(), Some(80))), "{text}");
    }
    assert_eq!(parse("my_service-1:65535"), Ok(("my_service-1".into(), Some(65535))));
    assert_eq!(parse("10.0.0.1:8080"), Ok(("10.0.0.1".into(), Some(8080))));
}

#[test]
fn a_lower_case_host_is_borrowed() {
    let authority = Authority::parse(b"reviews.shop.svc.cluster.local:9080").unwrap();
    assert!(matches!(authority.host, Cow::Borrowed("reviews.shop.svc.cluster.local")));
}

#[test]
fn what_is_no_host_and_port_is_refused() {
    assert_eq!(parse(""), Err(Empty));
    for text in ["user@host", "user:pw@host:80", "user:secret@host", "a:1@b"] {
        assert_eq!(parse(text), Err(UserInformation), "{text}");
    }
    for text in [
        ":80",
        ".",
        "..",
        ".a",
        "a..b",
        "a..",
        "a b",
        "a/b",
        "a?b",
        "a#b",
        "a\\b",
        "a,b",
        "*",
        "a%2eb",
        "a\0b",
        "a\rb",
        "ä",
        "a:b",
        "a:-1",
        "a:+1",
        "a:0",
        "a:65536",
        "a:123456",
        "a:1:2",
        "::1",
        "[::1",
        "[]",
        "[::1]x",
        "[::1]:x",
        "[fe80::1%25eth0]",
        "[fe80::1%eth0]",
        "[1.2.3.4]",
        "[v1.a]",
        "a]",
        "http://a",
    ] {
        assert_eq!(parse(text), Err(Malformed), "{text}");
    }
    assert_eq!(parse(&"a".repeat(255)), Err(Malformed));
}

#[test]
fn an_address_is_told_from_a_name() {
    let ip = |text: &str| Authority::parse(text.as_bytes()).unwrap().ip().map(|ip| ip.to_string());
    assert_eq!(ip("10.0.0.1:80").as_deref(), Some("10.0.0.1"));
    assert_eq!(ip("[2001:DB8::1]").as_deref(), Some("2001:db8::1"));
    assert_eq!(ip("10.0.0.1.nip.io"), None);
}

fn of(version: Version, method: &str, uri: &str, hosts: &[&str]) -> Result<Option<String>, AuthorityRefusal> {
    let uri: Uri = uri.parse().unwrap();
    let mut headers = HeaderMap::new();
    for host in hosts {
        headers.append(HOST, host.parse().unwrap());
    }
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    request_authority(version, &method, &uri, &headers).map(|found| found.map(|found| found.to_string()))
}

#[test]
fn host_and_target_must_agree() {
    let some = |text: &str| Ok(Some(text.to_owned()));
    for version in [Version::HTTP_11, Version::HTTP_2] {
        assert_eq!(of(version, "GET", "http://a.b/x", &["A.b:80"]), some("a.b"));
        assert_eq!(of(version, "GET", "https://a.b:443/x", &["a.b."]), some("a.b:443"));
        assert_eq!(of(version, "GET", "http://a.b/x", &["evil"]), Err(Disagreement));
        assert_eq!(of(version, "GET", "http://a.b/x", &["a.b:443"]), Err(Disagreement));
        assert_eq!(of(version, "GET", "http://a.b/x", &[""]), Err(Empty));
        assert_eq!(of(version, "GET", "http://a@b/x", &[]), Err(UserInformation));
        assert_eq!(of(version, "GET", "http://a.b/x", &[]), some("a.b"));
        assert_eq!(of(version, "GET", "/x", &[]), Err(Missing));
    }
    assert_eq!(of(Version::HTTP_11, "GET", "/x", &["a:1"]), some("a:1"));
    assert_eq!(of(Version::HTTP_11, "GET", "/x", &["a", "a"]), Err(DuplicateHost));
    assert_eq!(of(Version::HTTP_11, "GET", "/x", &["a", "b"]), Err(DuplicateHost));
    assert_eq!(of(Version::HTTP_11, "GET", "/x", &["a, b"]), Err(Malformed));
    assert_eq!(of(Version::HTTP_10, "GET", "/x", &[]), Ok(None));
}

#[test]
fn a_tunnel_needs_a_port() {
    assert_eq!(of(Version::HTTP_11, "CONNECT", "a.b:443", &["a.b"]), Ok(Some("a.b:443".into())));
    assert_eq!(of(Version::HTTP_11, "CONNECT", "a.b:443", &["a.b:8443"]), Err(Disagreement));
    assert_eq!(of(Version::HTTP_11, "CONNECT", "a.b:443", &["c:443"]), Err(Disagreement));
    assert_eq!(of(Version::HTTP_2, "CONNECT", "a.b", &[]), Err(ConnectWithoutPort));
    assert_eq!(of(Version::HTTP_2, "CONNECT", "https://a.b/chat", &[]), Ok(Some("a.b".into())));
}

proptest! {
    #[test]
    fn what_is_written_reads_the_same(text in "\\[?[a-zA-Z0-9.:~_-]{0,24}\\]?(:[0-9]{0,6})?") {
        if let Ok(first) = Authority::parse(text.as_bytes()) {
            let written = first.to_string();
            prop_assert_eq!(first.to_bytes(), written.as_bytes());
            let second = Authority::parse(written.as_bytes());
            prop_assert_eq!(second.as_ref(), Ok(&first));
            prop_assert!(!first.host.ends_with('.'));
            prop_assert!(!first.host.bytes().any(|byte| byte.is_ascii_uppercase()));
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = Authority::parse(&bytes).map(|authority| authority.ip());
    }
}
