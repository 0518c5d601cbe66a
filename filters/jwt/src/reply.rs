//! The answer to a request whose token is refused.

use crate::Refusal;
use filter_api::{Cx, Response};
use http::header::{CONTENT_TYPE, HOST, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderValue, StatusCode};

/// Envoy's answer: 401 (403 for a token that is for others), the reason as text, and a challenge as in RFC 6750 section 3. A gRPC call gets
/// the same as trailers only.
pub(crate) fn refuse(refusal: Refusal, head: &Parts, cx: &Cx) -> Response {
    cx.facts.borrow_mut().details = Some(refusal.details().into());
    let text = HeaderValue::from_static(refusal.text());
    if cx.facts.borrow().grpc {
        let mut response = Response::new(StatusCode::OK);
        let headers = &mut response.head.headers;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from(refusal.grpc_status()));
        headers.insert("grpc-message", text);
        return response;
    }
    let mut response = Response::new(refusal.status()).with_body(refusal.text());
    let headers = &mut response.head.headers;
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(WWW_AUTHENTICATE, challenge(head, cx));
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
