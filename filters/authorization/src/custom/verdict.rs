//! What a provider says of a request, and what of it may touch the request and its response.

use bytes::Bytes;
use filter_api::Response;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, Entry, HOST, PROXY_AUTHENTICATE, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use std::fmt;

/// What a provider says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The request may go on, changed like this.
    Allow(Changes),
    /// It may not.
    Deny(Refusal),
}

/// What becomes of a request that may go on, and of its response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// To the headers of the request.
    pub(crate) request: Vec<Change>,
    /// Headers that the request loses, after these changes.
    pub(crate) removed: Vec<HeaderName>,
    /// To the headers of the response.
    pub(crate) response: Vec<Change>,
}

/// A change to one header, that a provider asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub(crate) name: HeaderName,
    pub(crate) value: HeaderValue,
    pub(crate) how: How,
}

/// What becomes of the values that a header has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// They are replaced.
    Set,
    /// They stay, and there is one more.
    Append,
    /// They stay; the value is for a header that is not there.
    AddIfAbsent,
    /// They are replaced; a header that is not there stays away.
    OverwriteIfExists,
}

/// The answer to a request that may not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Why there is no verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No answer came in time.
    Timeout,
    /// No connection could be had, or it was closed; why.
    Unreachable(String),
    /// The provider says that it failed; how.
    Error(String),
    /// The answer cannot be followed; why. It might be a refusal, so it always refuses.
    Unreadable(String),
    /// There is no way to put the question; why. Refuses always.
    Unaskable(&'static str),
}

/// Whether a provider may change this header of a request: not what frames the message, not what belongs to the connection, not the host that
/// policies judge, and not what the proxy itself vouches for.
pub(crate) fn is_open_in_request(name: &HeaderName) -> bool {
    *name != HOST && *name != EXPECT && *name != "x-forwarded-client-cert" && !is_of_connection(name)
}

/// Whether a provider may set this header of a response.
pub(crate) fn is_open_in_response(name: &HeaderName) -> bool {
    *name != PROXY_AUTHENTICATE && !is_of_connection(name)
}

/// Hop-by-hop headers (RFC 9110 section 7.6.1), and the length.
pub(crate) fn is_of_connection(name: &HeaderName) -> bool {
    [CONNECTION, TRANSFER_ENCODING, CONTENT_LENGTH, TE, TRAILER, UPGRADE].contains(name)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings")
}

impl Changes {
    /// Changes the head of a request.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        apply(&self.request, headers);
        for name in &self.removed {
            headers.remove(name);
        }
    }
}

/// Changes headers, in order.
pub(crate) fn apply(changes: &[Change], headers: &mut HeaderMap) {
    for Change { name, value, how } in changes {
        match (how, headers.entry(name)) {
            (How::Append, Entry::Occupied(mut there)) if *name == COOKIE => {
                // One line, as everywhere behind the canonical form.
                let joined = [there.get().as_bytes(), value.as_bytes()].join(&b"; "[..]);
                if let Ok(joined) = HeaderValue::from_bytes(&joined) {
                    there.insert(joined);
                }
            }
            (How::Append, Entry::Occupied(mut there)) => there.append(value.clone()),
            (How::AddIfAbsent, Entry::Occupied(_)) | (How::OverwriteIfExists, Entry::Vacant(_)) => {}
            (_, Entry::Occupied(mut there)) => {
                there.insert(value.clone());
            }
            (_, Entry::Vacant(place)) => {
                place.insert(value.clone());
            }
        }
    }
}

impl Refusal {
    /// Nothing but a status.
    pub(crate) fn bare(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// The answer. Of a gRPC call it is trailers-only, its status that of the HTTP status as gRPC maps it and its message the body.
    pub(crate) fn answer(&self, grpc: bool) -> Response {
        let mut response = if grpc {
            let mut response = Response::new(StatusCode::OK);
            response.head.headers = self.headers.clone();
            let headers = &mut response.head.headers;
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert("grpc-status", HeaderValue::from(grpc_status(self.status)));
            if let Some(message) = grpc_message(&self.body) {
                headers.insert("grpc-message", message);
            }
            return response;
        } else {
            Response::new(self.status)
        };
        response.head.headers = self.headers.clone();
        let bodiless = [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::NOT_MODIFIED];
        if !self.body.is_empty() && !bodiless.contains(&self.status) {
            response.body = self.body.clone().into();
            let plain = HeaderValue::from_static("text/plain");
            response.head.headers.entry(CONTENT_TYPE).or_insert(plain);
        }
        response
    }
}

/// The status of gRPC for one of HTTP (`doc/http-grpc-status-mapping.md` of gRPC, as Envoy answers).
fn grpc_status(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

/// A body as `grpc-message`, percent-encoded (gRPC over HTTP/2), its beginning where it is long.
fn grpc_message(body: &[u8]) -> Option<HeaderValue> {
    use fmt::Write;
    const MOST: usize = 1024;
    let mut text = String::with_capacity(body.len().min(MOST));
    for byte in body.iter().take(MOST) {
        match byte {
            b' '..=b'~' if *byte != b'%' => text.push(char::from(*byte)),
            // A String takes whatever is written.
            _ => drop(write!(text, "%{byte:02X}")),
        }
    }
    HeaderValue::try_from(text).ok().filter(|text| !text.is_empty())
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("did not answer in time"),
            Self::Unreachable(why) => write!(f, "is not reachable ({why})"),
            Self::Error(why) => write!(f, "failed ({why})"),
            Self::Unreadable(why) => write!(f, "gave an answer that cannot be followed ({why})"),
            Self::Unaskable(why) => write!(f, "cannot be asked ({why})"),
        }
    }
}
