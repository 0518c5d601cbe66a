//! Hygiene of the heads we forward: framing and size checks, hop-by-hop headers, headers only a trusted peer
//! may set.
//!
//! [`inspect`] reads a head once and says, besides whether it is acceptable, which of the headers that need
//! work are there at all; [`Seen::is_clean`] is the usual answer and nothing more happens. It must run before
//! any layer that decides on headers, so that policy and upstream see the same ones.

mod control;
pub mod forwarded;
pub mod grpc;
mod present;

pub use control::{CONTROL, strip_control, strip_control_of_response};
pub(crate) use present::Present;

use http::header::{
    self, CONNECTION, CONTENT_LENGTH, COOKIE, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{StatusCode, Version};
use smallvec::SmallVec;
use thiserror::Error;

use control::is_control;

/// How large a head may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Header lines. Envoy: `common_http_protocol_options.max_headers_count`, 100.
    pub max_count: usize,
    /// Bytes of all names and values, each line counted 32 bytes longer than it is (RFC 9113 section 6.5.2),
    /// so that a crowd of tiny ones is not free (CVE-2026-47774). Envoy: `max_request_headers_kb`, 60.
    pub max_bytes: usize,
    /// Bytes of the request target. Envoy counts it among the headers and has no limit of its own, so neither
    /// has our default; RFC 9112 section 3 wants at least 8000.
    pub max_target: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { max_count: 100, max_bytes: 60 * 1024, max_target: 60 * 1024 }
    }
}

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum HeadRefusal {
    /// More header lines than [`HeadLimits::max_count`].
    #[error("the head has too many headers")]
    TooMany,
    /// More bytes than [`HeadLimits::max_bytes`].
    #[error("the headers are too large")]
    TooLarge,
    /// A target longer than [`HeadLimits::max_target`].
    #[error("the request target is too long")]
    TargetTooLong,
    /// Content-Length and Transfer-Encoding together: request smuggling until proven otherwise (RFC 9112
    /// section 6.1).
    #[error("the request has both Content-Length and Transfer-Encoding")]
    LengthAndCoding,
    /// Several Content-Length lines, or one that is no plain number (RFC 9112 section 6.3).
    #[error("the Content-Length of the request is not one number")]
    BadLength,
    /// Another transfer coding than `chunked` alone (RFC 9112 section 6.1), several lines included.
    #[error("the request has a transfer coding other than `chunked`")]
    UnknownCoding,
    /// Transfer-Encoding in HTTP/1.0, which has none, or in HTTP/2, which forbids it (RFC 9112 section 6.1,
    /// RFC 9113 section 8.2.2).
    #[error("the request has a Transfer-Encoding, which its HTTP version does not know")]
    CodingInVersion,
    /// Connection nominates a header that is meant for everybody, to have it removed on the way.
    #[error("the Connection header nominates a header that is not the connection's")]
    Nomination,
    /// Connection nominates ten headers or more: Envoy's limit.
    #[error("the Connection header nominates too many headers")]
    TooManyNominated,
    /// A value begins or ends with a space or a tab, which HTTP/2 forbids (RFC 9113 section 8.2.1): HTTP/1 reads another value.
    #[error("a header value begins or ends with a blank")]
    Blank,
    /// A CONNECT that announces a body by its length (RFC 9110 section 9.3.6): a server that knows that it has none reads a request.
    #[error("a CONNECT has no body, and this one has a Content-Length")]
    ConnectLength,
    /// The same by Transfer-Encoding.
    #[error("a CONNECT has no body, and this one has a Transfer-Encoding")]
    ConnectCoding,
}

impl HeadRefusal {
    /// The status to answer with: 431, 414, 501 (RFC 9112 section 6.1) or 400.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::TooMany | Self::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::UnknownCoding => StatusCode::NOT_IMPLEMENTED,
            Self::LengthAndCoding
            | Self::BadLength
            | Self::CodingInVersion
            | Self::Nomination
            | Self::TooManyNominated
            | Self::Blank
            | Self::ConnectLength
            | Self::ConnectCoding => StatusCode::BAD_REQUEST,
        }
    }

    /// Envoy's `response_code_details`, which depend on the codec; `None` where those of the reason say it.
    #[must_use]
    pub fn details(self, version: Version) -> Option<&'static str> {
        let http2 = version == Version::HTTP_2;
        match self {
            Self::TooMany | Self::TooLarge | Self::TargetTooLong => None,
            Self::LengthAndCoding => Some("http1.content_length_and_chunked_not_allowed"),
            Self::BadLength | Self::CodingInVersion if http2 => Some("http2.violation.of.messaging.rule"),
            Self::BadLength => Some("http1.codec_error"),
            Self::UnknownCoding => Some("http1.invalid_transfer_encoding"),
            Self::CodingInVersion | Self::ConnectCoding => Some("http1.transfer_encoding_not_allowed"),
            Self::Nomination | Self::TooManyNominated => Some("http1.connection_header_rejected"),
            Self::Blank if http2 => Some("http2.invalid.header.field"),
            Self::Blank => Some("http1.invalid_characters"),
            Self::ConnectLength => Some("http1.body_disallowed"),
        }
    }

    /// Whether an HTTP/1 connection must be closed after the answer: always where the end of the request is
    /// in doubt, so that a body is never read as the next request (RFC 9112 section 6.3).
    #[must_use]
    pub fn closes(self) -> bool {
        matches!(
            self,
            Self::LengthAndCoding
                | Self::BadLength
                | Self::UnknownCoding
                | Self::CodingInVersion
                | Self::TooLarge
                | Self::ConnectLength
                | Self::ConnectCoding
        )
    }
}

/// Which headers that need work a head holds: the result of [`inspect`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen(u8);

impl Seen {
    const CONNECTION: u8 = 1;
    /// Keep-Alive, Proxy-Connection, HTTP2-Settings, Transfer-Encoding: removed whatever they say.
    const ALWAYS: u8 = 1 << 1;
    const TE: u8 = 1 << 2;
    const UPGRADE: u8 = 1 << 3;
    const CONTROL: u8 = 1 << 4;
    const CRUMBS: u8 = 1 << 5;
    const HOP_BY_HOP: u8 = Self::CONNECTION | Self::ALWAYS | Self::TE | Self::UPGRADE;

    /// All that hop-by-hop headers can be, where it was not looked at more closely.
    #[must_use]
    pub fn all() -> Self {
        Self(Self::HOP_BY_HOP)
    }

    /// Whether there is nothing to remove, whoever sent it.
    #[must_use]
    pub fn is_clean(self) -> bool {
        self.0 == 0
    }

    /// Whether any header of [`CONTROL`] is there.
    #[must_use]
    pub fn control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }

    /// Whether there may be a Keep-Alive header.
    #[must_use]
    pub fn keep_alive(self) -> bool {
        self.has(Self::ALWAYS)
    }

    fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// Checks the framing and the size of a request's head in one pass over it.
///
/// hyper resolves some faults before we see them: of Content-Length next to Transfer-Encoding it drops the
/// length and closes the connection afterwards, which RFC 9112 section 6.3 allows; differing lengths, and a
/// coding in HTTP/1.0, it refuses by itself. What HTTP/2 brings, and what hyper accepts (`gzip, chunked`), is
/// judged here.
///
/// # Errors
///
/// A [`HeadRefusal`], which knows its status and whether the connection must close.
pub fn inspect(
    version: Version,
    target_len: usize,
    headers: &HeaderMap,
    limits: &HeadLimits,
) -> Result<Seen, HeadRefusal> {
    if target_len > limits.max_target {
        return Err(HeadRefusal::TargetTooLong);
    }
    if headers.len() > limits.max_count {
        return Err(HeadRefusal::TooMany);
    }
    let (mut seen, mut bytes, mut cookies, mut lengths, mut codings) = (0, 0, 0, 0, 0);
    for (name, value) in headers {
        bytes += name.as_str().len() + value.len() + 32;
        if has_blank_end(value) {
            return Err(HeadRefusal::Blank);
        }
        match *name {
            CONNECTION => seen |= Seen::CONNECTION,
            TE => seen |= Seen::TE,
            UPGRADE => seen |= Seen::UPGRADE,
            COOKIE => cookies += 1,
            CONTENT_LENGTH => {
                lengths += 1;
                if lengths > 1 || !is_length(value) {
                    return Err(HeadRefusal::BadLength);
                }
            }
            TRANSFER_ENCODING => {
                codings += 1;
                seen |= Seen::ALWAYS;
                if version != Version::HTTP_11 {
                    return Err(HeadRefusal::CodingInVersion);
                }
                if codings > 1 || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                    return Err(HeadRefusal::UnknownCoding);
                }
            }
            _ if *name == KEEP_ALIVE || *name == PROXY_CONNECTION || *name == HTTP2_SETTINGS => {
                seen |= Seen::ALWAYS;
            }
            _ if is_control(name) => seen |= Seen::CONTROL,
            _ => {}
        }
    }
    if bytes > limits.max_bytes {
        return Err(HeadRefusal::TooLarge);
    }
    if lengths > 0 && codings > 0 {
        return Err(HeadRefusal::LengthAndCoding);
    }
    if cookies > 1 {
        seen |= Seen::CRUMBS;
    }
    Ok(Seen(seen))
}

/// Checks that a CONNECT announces no body, so that no byte of the client goes upstream before the tunnel is open. A length of zero, which some clients
/// send, is removed, as by Envoy.
///
/// # Errors
///
/// [`HeadRefusal::ConnectLength`] and [`HeadRefusal::ConnectCoding`].
pub fn check_connect(headers: &mut HeaderMap) -> Result<(), HeadRefusal> {
    if headers.contains_key(TRANSFER_ENCODING) {
        return Err(HeadRefusal::ConnectCoding);
    }
    match headers.get(CONTENT_LENGTH) {
        None => Ok(()),
        Some(length) if length == "0" => {
            headers.remove(CONTENT_LENGTH);
            Ok(())
        }
        Some(_) => Err(HeadRefusal::ConnectLength),
    }
}

/// Which hop-by-hop headers the head of an HTTP/1 response holds, for [`strip_hop_by_hop`].
///
/// # Errors
///
/// What is wrong with its framing, in words: where its body ends could be read in two ways (RFC 9112 section 6.3), or no further than by undoing a transfer
/// coding that we do not know.
pub fn inspect_response(headers: &HeaderMap) -> Result<Seen, &'static str> {
    let (mut seen, mut length, mut codings) = (0, None, 0);
    for (name, value) in headers {
        match *name {
            CONNECTION => seen |= Seen::CONNECTION,
            TE => seen |= Seen::TE,
            UPGRADE => seen |= Seen::UPGRADE,
            CONTENT_LENGTH if !is_length(value) || length.is_some_and(|known| known != value) => {
                return Err("its Content-Length is not one number");
            }
            CONTENT_LENGTH => length = Some(value),
            TRANSFER_ENCODING => {
                codings += 1;
                seen |= Seen::ALWAYS;
                if codings > 1 || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                    return Err("its Transfer-Encoding is another than `chunked`");
                }
            }
            _ if *name == KEEP_ALIVE || *name == PROXY_CONNECTION => seen |= Seen::ALWAYS,
            _ => {}
        }
    }
    match (length, codings) {
        (Some(_), 1..) => Err("it has both Content-Length and Transfer-Encoding"),
        _ => Ok(Seen(seen)),
    }
}

/// Whether a value begins or ends with a space or a tab.
fn has_blank_end(value: &HeaderValue) -> bool {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let bytes = value.as_bytes();
    blank(bytes.first()) || blank(bytes.last())
}

/// `1*DIGIT` that fits 63 bits: no sign, no list, no space.
fn is_length(value: &HeaderValue) -> bool {
    let digits = value.as_bytes();
    let plain = !digits.is_empty() && digits.len() <= 19 && digits.iter().all(u8::is_ascii_digit);
    plain && value.to_str().is_ok_and(|text| text.parse::<i64>().is_ok())
}

/// Removes what belongs to the connection and not to the message (RFC 9110 section 7.6.1): Connection and the
/// headers it nominates, Keep-Alive, Proxy-Connection, HTTP2-Settings, Transfer-Encoding, and of TE all but
/// `trailers`. With `upgrade`, Upgrade stays and `Connection: upgrade` with it.
///
/// Proxy-Authenticate and Proxy-Authorization stay: they belong to the first proxy that asks for credentials
/// (RFC 9110 section 11.7), which a sidecar never does, and an egress proxy behind it may. Envoy keeps them
/// too.
///
/// # Errors
///
/// [`HeadRefusal::Nomination`] and [`HeadRefusal::TooManyNominated`]; the headers are then untouched.
pub fn strip_hop_by_hop(headers: &mut HeaderMap, seen: Seen, upgrade: bool) -> Result<(), HeadRefusal> {
    if !seen.has(Seen::HOP_BY_HOP) {
        return Ok(());
    }
    if seen.has(Seen::CONNECTION) {
        let (nominated, named_upgrade) = nominated(headers)?;
        headers.remove(CONNECTION);
        for name in &nominated {
            headers.remove(name);
        }
        match seen.has(Seen::UPGRADE) {
            true if upgrade && named_upgrade => {
                headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            }
            true => {
                headers.remove(UPGRADE);
            }
            false => {}
        }
    } else if seen.has(Seen::UPGRADE) {
        // Upgrade without `Connection: upgrade` asks for nothing (RFC 9110 section 7.8).
        headers.remove(UPGRADE);
    }
    if seen.has(Seen::ALWAYS) {
        for name in [&KEEP_ALIVE, &PROXY_CONNECTION, &HTTP2_SETTINGS, &TRANSFER_ENCODING] {
            headers.remove(name);
        }
    }
    if seen.has(Seen::TE) {
        // gRPC depends on `te: trailers`; other codings were offered to us, not to the next hop.
        let trailers = headers.get_all(TE).iter().any(|value| {
            value
                .as_bytes()
                .split(|&b| b == b',')
                .any(|one| one.trim_ascii().eq_ignore_ascii_case(b"trailers"))
        });
        if trailers {
            headers.insert(TE, TRAILERS);
        } else {
            headers.remove(TE);
        }
    }
    Ok(())
}

/// The headers that Connection nominates, and whether `upgrade` is among its options.
///
/// Envoy fails a request that nominates ten headers or more, a pseudo-header, or one of `x-forwarded-for`,
/// `-host` and `-proto`, for to have them removed "may mask the origin of the request". The same holds for
/// credentials, framing and every header by which one proxy speaks to the next.
fn nominated(headers: &HeaderMap) -> Result<(SmallVec<[HeaderName; 4]>, bool), HeadRefusal> {
    const MAX: usize = 10;
    let mut names = SmallVec::new();
    let (mut options, mut upgrade) = (0, false);
    for value in headers.get_all(CONNECTION) {
        for token in value.as_bytes().split(|&byte| byte == b',') {
            let token = token.trim_ascii();
            if token.is_empty() {
                continue;
            }
            options += 1;
            if options >= MAX {
                return Err(HeadRefusal::TooManyNominated);
            }
            if token.eq_ignore_ascii_case(b"upgrade") {
                upgrade = true;
                continue;
            }
            let known = [&b"close"[..], b"keep-alive", b"te", b"connection", b"http2-settings"];
            if known.iter().any(|known| token.eq_ignore_ascii_case(known)) {
                continue;
            }
            // No header name, `:path` for one: nobody honest nominates that.
            let name = HeaderName::from_bytes(token).map_err(|_| HeadRefusal::Nomination)?;
            if is_end_to_end(&name) {
                return Err(HeadRefusal::Nomination);
            }
            names.push(name);
        }
    }
    Ok((names, upgrade))
}

/// Whether a header is for all recipients, so that nominating it is an attack: "a sender MUST NOT send a
/// connection option corresponding to a field that is intended for all recipients" (RFC 9110 section 7.6.1).
fn is_end_to_end(name: &HeaderName) -> bool {
    const EXACT: &[HeaderName] = &[
        header::HOST,
        header::AUTHORIZATION,
        header::PROXY_AUTHORIZATION,
        COOKIE,
        header::SET_COOKIE,
        CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        header::CACHE_CONTROL,
        header::EXPECT,
        header::FORWARDED,
        header::ORIGIN,
    ];
    const PREFIXES: &[&str] =
        &["x-forwarded-", "x-real-ip", "x-request-id", "x-b3-", "b3", "trace", "baggage", "grpc-"];
    EXACT.contains(name)
        || is_control(name)
        || PREFIXES.iter().any(|prefix| name.as_str().starts_with(prefix))
}

/// Joins the cookie lines into which HTTP/2 may split one: HTTP/1 has a single one (RFC 9113 section 8.2.3),
/// and a policy must see what the application will.
pub fn join_cookies(headers: &mut HeaderMap, seen: Seen) {
    if !seen.has(Seen::CRUMBS) {
        return;
    }
    let mut joined = Vec::new();
    for crumb in headers.get_all(COOKIE) {
        if !joined.is_empty() {
            joined.extend_from_slice(b"; ");
        }
        joined.extend_from_slice(crumb.as_bytes());
    }
    // Bytes of header values, joined by two more of them, are one.
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)) {
        headers.insert(COOKIE, value);
    }
}

#[cfg(test)]
mod tests;
