//! What gRPC says in HTTP headers: its content type, its deadline, its message.

use std::borrow::Cow;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// `grpc-timeout`.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// `grpc-status`.
pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// `grpc-message`.
pub const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Whether a head is that of a gRPC call: `content-type: application/grpc`, alone or followed by `+proto` and
/// the like, or by a parameter. gRPC-Web (`application/grpc-web`) is another protocol.
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    const TYPE: &[u8] = b"application/grpc";
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        value.as_bytes().split_at_checked(TYPE.len()).is_some_and(|(start, rest)| {
            start.eq_ignore_ascii_case(TYPE) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
        })
    })
}

/// The `grpc-status` that an answer without one stands for, by its HTTP status ("HTTP to gRPC Status Code Mapping" of gRPC's own documents, as Envoy and so
/// Istio's metrics have it). A 200 stands for UNKNOWN (2): a call that went well says so itself.
#[must_use]
pub fn status_of_http(status: u16) -> u16 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

/// Writes a deadline as `grpc-timeout`, rounded down to the finest unit that eight digits can hold, so that
/// the next hop never waits longer than we do.
#[must_use]
pub fn format_grpc_timeout(timeout: Duration) -> HeaderValue {
    const MOST: u128 = 99_999_999;
    let units = [
        (timeout.as_nanos(), 'n'),
        (timeout.as_micros(), 'u'),
        (timeout.as_millis(), 'm'),
        (u128::from(timeout.as_secs()), 'S'),
        (u128::from(timeout.as_secs() / 60), 'M'),
    ];
    let (amount, unit) = units
        .into_iter()
        .find(|(amount, _)| *amount <= MOST)
        .unwrap_or((u128::from(timeout.as_secs() / 3600).min(MOST), 'H'));
    // Digits and a letter are a header value; the longest deadline is the harmless answer if they were not.
    HeaderValue::from_str(&format!("{amount}{unit}")).unwrap_or(HeaderValue::from_static("99999999H"))
}

/// Percent-encodes a `grpc-message`: all but the visible ASCII bytes and the space, and `%` itself (gRPC over
/// HTTP/2, "Status-Message"). Borrowed when there is nothing to encode.
#[must_use]
pub fn encode_grpc_message(message: &str) -> Cow<'_, str> {
    const ENCODED: &AsciiSet = &CONTROLS.add(b'%');
    utf8_percent_encode(message, ENCODED).into()
}

#[cfg(test)]
mod tests {
    use filter_timeout::parse_grpc_timeout;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_grpc_call_is_told_by_its_content_type() {
        let is = |text: &str| is_grpc(&[(CONTENT_TYPE, text.parse().unwrap())].into_iter().collect());
        for yes in ["application/grpc", "application/grpc+proto", "Application/GRPC;charset=x"] {
            assert!(is(yes), "{yes}");
        }
        for no in ["application/grpc-web", "application/grpcx", "application/json", "", "application/grp"] {
            assert!(!is(no), "{no}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn a_message_is_encoded_as_the_protocol_says() {
        assert!(matches!(encode_grpc_message("no healthy upstream"), Cow::Borrowed("no healthy upstream")));
        assert_eq!(encode_grpc_message("100%\r\né~"), "100%25%0D%0A%C3%A9~");
    }

    proptest! {
        #[test]
        fn a_written_timeout_is_never_longer(secs in 0..10_000_000_000u64, nanos in 0..1_000_000_000u32) {
            let timeout = Duration::new(secs, nanos);
            let back = parse_grpc_timeout(format_grpc_timeout(timeout).as_bytes()).unwrap();
            prop_assert!(back <= timeout);
            prop_assert!(timeout - back <= timeout / 100_000 || secs / 3600 > 99_999_999);
        }

        #[test]
        fn an_encoded_message_is_a_header_value(message in "\\PC{0,40}") {
            let encoded = encode_grpc_message(&message).into_owned();
            prop_assert!(HeaderValue::from_str(&encoded).is_ok());
            let back = percent_encoding::percent_decode_str(&encoded).decode_utf8().unwrap();
            prop_assert_eq!(back, message);
        }
    }
}
