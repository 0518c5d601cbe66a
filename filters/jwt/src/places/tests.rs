use super::*;
use crate::tests::support::head;
use proptest::prelude::*;

#[test]
fn cookies_are_found_with_and_without_quotes_and_removed_alone() {
    let place = Place::Cookie("t".into());
    for (sent, found, left) in [
        ("t=x", Some("x"), None),
        ("a=1;t=\"x\" ; tt=2", Some("x"), Some("a=1; tt=2")),
        ("T=x; t", None, Some("T=x")),
        ("a=t=x", None, Some("a=t=x")),
    ] {
        let mut head = head("/p", &[("cookie", sent)]);
        assert_eq!(place.find(&head).unwrap().as_deref(), found, "{sent}");
        place.remove(&mut head).unwrap();
        assert_eq!(head.headers.get(COOKIE).map(|value| value.to_str().unwrap()), left, "{sent}");
    }
}

proptest! {
    #[test]
    fn a_parameter_that_was_removed_is_gone_and_the_others_are_as_sent(pairs in prop::collection::vec(("[a-c%]{0,3}|%61", "[x-z=%26]{0,4}"), 0..6)) {
        let query: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut head = head(&format!("/p?{}", query.join("&")), &[]);
        let place = Place::Parameter("a".into());
        place.remove(&mut head).unwrap();
        prop_assert_eq!(place.find(&head).unwrap(), None);
        let kept: Vec<_> = query.iter().filter(|pair| !pair.starts_with("a=") && !pair.starts_with("%61=")).cloned().collect();
        prop_assert_eq!(head.uri.query().unwrap_or_default(), kept.join("&"));
    }
}
