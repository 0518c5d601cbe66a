use std::sync::Arc;
use std::time::SystemTime;

use filter_api::{Peer, Principal};
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

use super::{Details, Element, Malformed, Mode, XFCC, apply, parse};

const BY: &str = "spiffe://cluster.local/ns/shop/sa/reviews";

fn peer(subject: &str, uris: &[&str], dns: &[&str]) -> Peer {
    let names = |names: &[&str]| names.iter().map(|name| Box::from(*name)).collect::<Arc<[Box<str>]>>();
    Peer {
        principal: Some(Principal::new("cluster.local", "shop", "cart")),
        not_before: SystemTime::UNIX_EPOCH,
        not_after: SystemTime::UNIX_EPOCH,
        subject: subject.into(),
        uris: names(uris),
        dns: names(dns),
        chain: Arc::from([Box::from(&b"leaf"[..]), Box::from(&b"issuer"[..])]),
        hash: [0xab; 32],
    }
}

fn cart() -> Peer {
    peer("", &["spiffe://cluster.local/ns/shop/sa/cart"], &["cart.shop"])
}

fn applied(mode: Mode, peer: Option<&Peer>, sent: &[&'static str]) -> Vec<String> {
    let mut headers = HeaderMap::new();
    for line in sent {
        headers.append(XFCC, HeaderValue::from_static(line));
    }
    apply(&mut headers, mode, Details::ISTIO, peer, Some(BY));
    headers.get_all(XFCC).iter().map(|line| line.to_str().unwrap().to_owned()).collect()
}

fn ours() -> String {
    let hash = "ab".repeat(32);
    format!("By={BY};Hash={hash};Subject=\"\";URI=spiffe://cluster.local/ns/shop/sa/cart;DNS=cart.shop")
}

#[test]
fn row_7_each_mode_does_what_envoys_does() {
    let (cart, sent) = (cart(), "By=spiffe://a;Hash=1");
    let (none, kept): (Vec<String>, _) = (Vec::new(), vec![sent.to_owned()]);
    let appended = vec![format!("{sent},{}", ours())];
    let table = [
        (Mode::Sanitize, none.clone(), none.clone()),
        (Mode::ForwardOnly, kept.clone(), none.clone()),
        (Mode::AppendForward, appended, none.clone()),
        (Mode::SanitizeSet, vec![ours()], none),
        (Mode::AlwaysForwardOnly, kept.clone(), kept),
    ];
    for (mode, with_certificate, without) in table {
        assert_eq!(applied(mode, Some(&cart), &[sent]), with_certificate, "{mode:?}");
        assert_eq!(applied(mode, None, &[sent]), without, "{mode:?} without a certificate");
    }
    assert_eq!(applied(Mode::AppendForward, Some(&cart), &[]), [ours()]);
    assert_eq!(
        applied(Mode::AppendForward, Some(&cart), &["Hash=1", "Hash=2"]),
        [format!("Hash=1,Hash=2,{}", ours())]
    );
}

#[test]
fn row_7_a_quote_that_is_left_open_takes_nothing_of_ours_into_its_value() {
    for sent in
        ["Hash=x;URI=spiffe://cluster.local/ns/a/sa/admin;Subject=\"", "Hash=1,Subject=\"a", "nonsense"]
    {
        assert_eq!(applied(Mode::AppendForward, Some(&cart()), &[sent]), [ours()], "{sent}");
    }
}

#[test]
fn what_sidecars_of_istio_write_is_understood() {
    let elements = parse(&format!(
        "{}, By=http://frontend;Hash=9f;Subject=\"/C=US, ST=CA\\\"x\";uri=;DNS=a;dns=b",
        ours()
    ))
    .unwrap();
    assert_eq!(elements.len(), 2);
    assert_eq!(elements[0].uris, ["spiffe://cluster.local/ns/shop/sa/cart"]);
    assert_eq!(elements[0].subject.as_deref(), Some(""));
    assert_eq!(elements[1].subject.as_deref(), Some("/C=US, ST=CA\"x"));
    assert_eq!(
        (elements[1].uris.clone(), elements[1].dns.clone()),
        (vec![String::new()], vec!["a".to_owned(), "b".to_owned()])
    );
    assert_eq!(parse("  "), Ok(Vec::new()));
}

#[test]
fn what_is_no_such_header_is_refused() {
    for (text, reason) in [
        ("By", Malformed::Pair),
        ("Hash=1,", Malformed::Pair),
        ("Hash=1;", Malformed::Pair),
        ("Hash=1;;DNS=a", Malformed::Name),
        ("Color=1", Malformed::Name),
        ("Hash=1;hash=2", Malformed::Twice),
        ("Subject=\"a", Malformed::Quote),
        ("Subject=\"a\\\"", Malformed::Quote),
        ("Subject=\"a\"b", Malformed::Quote),
    ] {
        assert_eq!(parse(text), Err(reason), "{text}");
    }
}

#[test]
fn certificates_are_pem_in_percent_codes() {
    let details = Details { cert: true, chain: true, ..Details::default() };
    let element = Element::of(&cart(), None, details);
    let cert = element.cert.clone().unwrap();
    assert_eq!(
        percent_encoding::percent_decode_str(&cert).decode_utf8().unwrap(),
        "-----BEGIN CERTIFICATE-----\nbGVhZg==\n-----END CERTIFICATE-----\n"
    );
    assert!(element.chain.clone().unwrap().starts_with(&cert) && element.subject.is_none());
    assert_eq!(parse(&element.to_string()), Ok(vec![element]));
}

#[test]
fn row_22_names_of_a_certificate_cannot_start_another_header_or_element() {
    let evil = "x\r\nEvil: 1\0\u{e9},By=spiffe://admin;URI=\"y\\";
    let peer = peer(evil, &[evil], &[evil]);
    let mut headers = HeaderMap::new();
    apply(&mut headers, Mode::SanitizeSet, Details::ISTIO, Some(&peer), Some(evil));
    let text = headers[XFCC].to_str().unwrap();
    let elements = parse(text).unwrap();
    assert_eq!(elements.len(), 1, "{text}");
    let safe = "x%0D%0AEvil:%201%00%C3%A9,By=spiffe://admin;URI=%22y%5C";
    assert_eq!(
        (elements[0].by.as_slice(), elements[0].uris.as_slice()),
        (&[safe.to_owned()][..], &[safe.to_owned()][..])
    );
}

fn text() -> impl Strategy<Value = String> {
    // What is not quoted is trimmed; a written value with a space is quoted.
    "[a-z,;=\"\\\\ /]{0,8}"
}

fn element() -> impl Strategy<Value = Element> {
    let many = || prop::collection::vec(text(), 0..3);
    let once = || prop::option::of(text());
    (many(), once(), once(), once(), once(), many(), many()).prop_map(
        |(by, hash, cert, chain, subject, uris, dns)| Element { by, hash, cert, chain, subject, uris, dns },
    )
}

proptest! {
    #[test]
    fn what_is_written_reads_the_same(elements in prop::collection::vec(element(), 1..4)) {
        let elements: Vec<_> = elements.into_iter().filter(|element| *element != Element::default()).collect();
        let text = elements.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        prop_assert_eq!(parse(&text), Ok(elements), "{}", text);
    }
}
