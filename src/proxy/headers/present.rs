//! Which of the headers that the data path asks for are there at all.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderMap, UPGRADE};

use super::forwarded::X_FORWARDED_FOR;
use crate::proxy::xfcc::XFCC;

/// Headers that most heads do not hold, found in one pass: a pass costs less than two look-ups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Present {
    /// `content-length`.
    pub(crate) content_length: bool,
    /// `content-type`.
    pub(crate) content_type: bool,
    /// `expect`.
    pub(crate) expect: bool,
    /// `upgrade`.
    pub(crate) upgrade: bool,
    /// `x-forwarded-client-cert`.
    pub(crate) client_cert: bool,
    /// `x-forwarded-for`.
    pub(crate) forwarded_for: bool,
}

impl Present {
    /// Looks at the name of each header.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut present = Self::default();
        for name in headers.keys() {
            match *name {
                CONTENT_LENGTH => present.content_length = true,
                CONTENT_TYPE => present.content_type = true,
                EXPECT => present.expect = true,
                UPGRADE => present.upgrade = true,
                _ if *name == X_FORWARDED_FOR => present.forwarded_for = true,
                _ if *name == XFCC => present.client_cert = true,
                _ => {}
            }
        }
        present
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    #[test]
    fn each_header_is_found_and_no_other() {
        let of = |name: HeaderName| {
            let head =
                [(http::header::HOST, HeaderValue::from_static("a")), (name, HeaderValue::from_static("b"))];
            Present::of(&head.into_iter().collect())
        };
        let none = Present::default();
        assert_eq!(of(http::header::ACCEPT), none);
        assert_eq!(of(CONTENT_LENGTH), Present { content_length: true, ..none });
        assert_eq!(of(CONTENT_TYPE), Present { content_type: true, ..none });
        assert_eq!(of(EXPECT), Present { expect: true, ..none });
        assert_eq!(of(UPGRADE), Present { upgrade: true, ..none });
        assert_eq!(of(XFCC), Present { client_cert: true, ..none });
        assert_eq!(of(X_FORWARDED_FOR), Present { forwarded_for: true, ..none });
    }
}
