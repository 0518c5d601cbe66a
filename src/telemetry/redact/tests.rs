use super::*;
use proptest::prelude::*;

fn with(sorts: &[Sort]) -> Redaction {
    let masks = sorts.iter().map(|sort| MaskRule { sort: sort.clone(), pseudonym: false }).collect();
    Redaction::new(&Rules { masks, ..Rules::default() }).unwrap()
}

fn all() -> Redaction {
    with(&[Sort::Phone, Sort::Card, Sort::Email])
}

fn name(text: &str) -> HeaderName {
    HeaderName::from_bytes(text.as_bytes()).unwrap()
}

#[test]
fn credentials_in_headers_are_hidden_and_addresses_in_them_redacted() {
    let rules = Rules { headers: vec!["X-Badge".to_owned()], ..Rules::default() };
    let redaction = Redaction::new(&rules).unwrap();
    for hidden in ["authorization", "cookie", "set-cookie", "proxy-authorization", "x-api-key", "x-badge"] {
        assert_eq!(
            redaction.header(&name(hidden), &HeaderValue::from_static("Bearer abc")),
            HIDDEN,
            "{hidden}"
        );
    }
    let agent = HeaderValue::from_static("curl/8");
    let shown = redaction.header(&name("user-agent"), &agent);
    assert!(matches!(shown, Cow::Borrowed("curl/8")));
    let referer = HeaderValue::from_static("https://a/b?token=x&n=1");
    assert_eq!(redaction.header(&name("referer"), &referer), "https://a/b?token=***&n=1");
    let broken = HeaderValue::from_bytes(b"caf\xe9").unwrap();
    assert_eq!(redaction.header(&name("x-place"), &broken), "caf\u{fffd}");
}

#[test]
fn query_values_are_hidden_by_the_names_of_their_parameters() {
    let rules = Rules { query: vec!["ticket_no".to_owned()], ..Rules::default() };
    let redaction = Redaction::new(&rules).unwrap();
    for (target, shown) in [
        ("/a?token=x", "/a?token=***"),
        ("/a?n=1&access_token=x&m=2", "/a?n=1&access_token=***&m=2"),
        ("/a?Password=x;b=2", "/a?Password=***;b=2"),
        ("/a?api-key=x#api_key=y", "/a?api-key=***#api_key=***"),
        ("/a?%74oken=x", "/a?%74oken=***"),
        ("/a?code=x&state=y", "/a?code=***&state=y"),
        ("/a?X-Amz-Signature=x", "/a?X-Amz-Signature=***"),
        ("/a?ticketNo=x&ticket=y", "/a?ticketNo=***&ticket=y"),
        ("/a?next=/b?secret=x", "/a?next=***"),
        ("/a?next=%2Fb%3Fsecret%3Dx&n=1", "/a?next=***&n=1"),
        ("/a?next=%252Fb%253Fsecret%253Dx", "/a?next=***"),
        ("/a?eyJhbGciOiJub25lIn0.e30.", "/a?***"),
        ("/a?q=eyJhbGciOiJub25lIn0.e30.", "/a?q=***"),
        ("/a?token=x&token=y", "/a?token=***&token=***"),
    ] {
        assert_eq!(redaction.target(target), shown, "{target}");
    }
    for plain in ["/", "/token", "/a?", "/a?n=1&q=codes", "/a?token", "/a?token=", "/a?n=100%25", "*", ""] {
        assert!(matches!(redaction.target(plain), Cow::Borrowed(same) if same == plain), "{plain}");
    }
}

#[test]
fn masks_show_no_part_of_a_short_value() {
    let redaction = all();
    for (text, shown) in [
        ("from alice.smith@example.com today", "from al***@example.com today"),
        ("bob@example.com", "***@example.com"),
        ("/users/alice1%40example.com/x", "/users/al***@example.com/x"),
        ("mail jörgen.müller@bücher.example", "mail jö***@bücher.example"),
        ("4111 1111 1111 1111", "***1111"),
        ("pay 12 4111-1111-1111-1111 99", "pay 12 ***1111 99"),
        ("card=4111%201111%201111%201111", "card=***1111"),
        ("378282246310005", "***0005"),
        ("+49 30 1234567", "***67"),
        ("%2B4930123456", "***56"),
        ("call 555-1234", "call ***"),
        ("192.168.100.200", "192.168.100.200"),
        ("rule 12 of 2026", "rule 12 of 2026"),
    ] {
        assert_eq!(redaction.text(text), shown, "{text}");
    }
    // Without masks none of them is touched.
    let plain = Redaction::new(&Rules::default()).unwrap();
    assert_eq!(plain.text("bob@example.com 4111111111111111"), "bob@example.com 4111111111111111");
    assert_eq!(plain.text("Bearer eyJhbGciOiJub25lIn0.e30.c2ln, 1"), "Bearer ***, 1");
}

#[test]
fn an_expression_of_the_operator_hides_what_it_finds() {
    let redaction = with(&[Sort::Pattern("CUST-[0-9]+|ß*".to_owned())]);
    assert_eq!(redaction.text("a CUST-1 straße"), "a *** stra***e");
    assert_eq!(redaction.target("/c/CUST-77?x=1"), "/c/***?x=1");
    for (wrong, says) in [("(", "is no usable expression"), ("", "is empty"), ("a{9999999}", "is no usable")]
    {
        let masks = vec![MaskRule { sort: Sort::Pattern(wrong.to_owned()), pseudonym: false }];
        let error = Redaction::new(&Rules { masks, ..Rules::default() }).unwrap_err();
        assert_eq!(error.field, "masks[0].pattern");
        assert!(error.message.contains(says), "{error}");
    }
}

#[test]
fn a_pseudonym_is_the_same_for_the_same_value_and_key_alone() {
    let keyed = |key: Option<&[u8]>| {
        let masks = vec![MaskRule { sort: Sort::Email, pseudonym: true }];
        Redaction::new(&Rules { masks, key: key.map(<[u8]>::to_vec), ..Rules::default() }).unwrap()
    };
    let (one, same, other) = (keyed(Some(&[1; 32])), keyed(Some(&[1; 32])), keyed(Some(&[2; 32])));
    let shown = one.text("by bob@example.com").into_owned();
    assert_eq!(shown, format!("by {}", one.pseudonym("bob@example.com")));
    assert_eq!(shown, same.text("by bob@example.com"));
    assert_ne!(shown, other.text("by bob@example.com"));
    assert_ne!(shown, one.text("by eve@example.com"));
    assert_ne!(keyed(None).pseudonym("x"), keyed(None).pseudonym("x"), "every process has a key of its own");
    assert!(!format!("{one:?}").contains("[1, 1"), "the key is in no dump");
    let error = Redaction::new(&Rules { key: Some(vec![0; 31]), ..Rules::default() }).unwrap_err();
    assert_eq!(error.to_string(), "pseudonymKey.file has 31 bytes; use 32 or more random ones");
}

/// A number with the right check digit.
fn card_of(body: &[u8]) -> String {
    let digits: String = body.iter().map(|digit| char::from(b'0' + digit % 10)).collect();
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(at, digit)| (u32::from(digit - b'0'), at % 2 == 0))
        .map(|(digit, twice)| if twice { digit * 2 / 10 + digit * 2 % 10 } else { digit })
        .sum();
    format!("{digits}{}", (10 - sum % 10) % 10)
}

proptest! {
    #[test]
    fn a_redacted_query_never_holds_the_secret(
        before in "[a-z=&é%?/]{0,12}", secret in "[A-Z0-9ÄßЖ漢]{4}[A-Z0-9ÄßЖ漢_.-]{0,20}", after in "(&[a-z]{1,3}=[a-z]{0,3}){0,2}",
        parameter in prop::sample::select(vec!["token", "ACCESS-TOKEN", "password", "code", "client_secret", "x.apiKey"]),
    ) {
        let target = format!("/p?{before}&{parameter}={secret}{after}");
        let redaction = Redaction::new(&Rules::default()).unwrap();
        let shown = redaction.target(&target);
        prop_assert!(!shown.contains(&secret), "{target} is shown as {shown}");
        prop_assert!(redaction.target(&shown) == shown, "twice is as once");
    }

    #[test]
    fn a_masked_text_never_holds_the_value(
        around in "[ A-Za-zäöüЖ漢,:/]{0,12}", user in "[a-zé]{1,12}(\\.[a-z0-9]{1,6})?", body in prop::collection::vec(0u8..10, 12..=18),
        phone in "\\+[1-9][0-9]{1,2} [0-9]{3,4}[ -]?[0-9]{3,6}",
    ) {
        let redaction = all();
        let card = card_of(&body);
        for value in [format!("{user}@example.com"), card.clone(), phone] {
            let text = format!("{around} {value} {around}");
            let shown = redaction.text(&text);
            prop_assert!(!shown.contains(&value), "{text} is shown as {shown}");
            prop_assert!(shown.starts_with(&around) && shown.ends_with(&around), "{text} is shown as {shown}");
        }
        prop_assert!(!redaction.text(&card).contains(&card[..card.len() - 4]));
    }

    #[test]
    fn no_text_breaks_a_mask(text in any::<String>()) {
        let redaction = all();
        let (text_shown, target_shown) = (redaction.text(&text), redaction.target(&text));
        prop_assert!(text_shown.len() <= text.len() * 4 + 8 && target_shown.len() <= text.len() * 4 + 8);
    }
}
