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
