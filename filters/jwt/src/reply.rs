//! The answer to a request whose token is refused.

use crate::Refusal;
use filter_api::{Cx, Response, refusal};
use http::HeaderValue;
use http::header::{HOST, WWW_AUTHENTICATE};
use http::request::Parts;

/// Envoy's answer: 401 (403 for a token that is for others), the reason as text, and a challenge as in RFC 6750 section 3. A gRPC call gets
/// the same as trailers only.
pub(crate) fn refuse(why: Refusal, head: &Parts, cx: &Cx) -> Response {
    cx.facts.borrow_mut().details = Some(why.details().into());
    let mut response = refusal(cx, why.status(), why.grpc_status(), why.text());
    if !cx.facts.borrow().grpc {
        response.head.headers.insert(WWW_AUTHENTICATE, challenge(head, cx));
    }
    response
}

/// The realm is what was asked for, as in Envoy; but without its query, which may hold the token.
fn challenge(head: &Parts, cx: &Cx) -> HeaderValue {
    let scheme = if cx.connection.tls.is_some() { "https" } else { "http" };
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let path = head.uri.path();
    let path = path.get(..path.len().min(256)).unwrap_or_default();
    let realm = format!("{scheme}://{host}{path}");
    let plain = !realm.contains(['"', '\\']);
    let challenge = format!("Bearer realm=\"{}\", error=\"invalid_token\"", if plain { &realm } else { "" });
    HeaderValue::try_from(challenge).unwrap_or(HeaderValue::from_static("Bearer error=\"invalid_token\""))
}
