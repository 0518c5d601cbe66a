//! A provider that speaks gRPC: `envoy.service.auth.v3.Authorization/Check`.

use super::Question;
use super::cache::is_volatile;
use super::http::PARTIAL;
use super::proto::{
    Address, AttributeContext, CHECK, CheckRequest, CheckResponse, DeniedHttpResponse, HeaderValueOption,
    HttpRequest, OkHttpResponse, Peer, RequestAttributes, SocketAddress, Timestamp, TlsSession,
};
use super::verdict::{
    Change, Changes, Failure, How, Refusal, Verdict, apply, is_open_in_request, is_open_in_response,
};
use bytes::{BufMut, Bytes, BytesMut};
use filter_api::{Answer, ConnectionFacts, Protocol};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, TE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, request};
use prost::Message;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

/// Compressed or not, and the length: what stands before a message (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX: usize = 5;

/// The question, as a message.
pub(super) fn question(asked: &Question<'_>, as_bytes: bool) -> CheckRequest {
    let (head, connection) = (asked.head, asked.connection);
    let path = head.uri.path_and_query().map_or("", PathAndQuery::as_str);
    let host = head.headers.get(HOST).map_or_else(String::new, text);
    let scheme = if connection.tls.is_some() { "https" } else { "http" };
    let length = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let mut http = HttpRequest {
        id: head.headers.get("x-request-id").map_or_else(String::new, text),
        method: head.method.as_str().to_owned(),
        headers: headers(&head.headers),
        path: path.to_owned(),
        scheme: scheme.to_owned(),
        size: length.unwrap_or(-1),
        protocol: protocol(connection, head.version).to_owned(),
        ..HttpRequest::default()
    };
    for (name, value) in
        [(":method", &http.method), (":path", &http.path), (":authority", &host), (":scheme", &http.scheme)]
    {
        http.headers.insert(name.to_owned(), value.clone());
    }
    http.host = host;
    if let Some(body) = asked.body {
        http.headers.insert(PARTIAL.as_str().to_owned(), body.partial.to_string());
        if as_bytes {
            http.raw_body = body.bytes.clone();
        } else {
            http.body = readable(&body.bytes);
        }
    }
    let peer = connection.tls.as_ref().and_then(|tls| tls.peer.as_ref());
    let principal = peer.map_or_else(String::new, |peer| {
        let name = peer.uris.first().or_else(|| peer.dns.first());
        name.map_or(&*peer.subject, |name| &**name).to_owned()
    });
    let side = |address, principal| Some(Peer { address: Some(socket(address)), principal });
    let tls_session = connection.server_name.as_ref().map(|name| TlsSession { sni: name.to_string() });
    CheckRequest {
        attributes: Some(AttributeContext {
            source: side(connection.remote, principal),
            destination: side(connection.local, String::new()),
            request: Some(RequestAttributes { time: timestamp(asked.time), http: Some(http) }),
            tls_session,
        }),
    }
}

/// The question as a key for its verdict: without what differs from one request to the next and says nothing of it.
pub(super) fn key(mut question: CheckRequest) -> Vec<u8> {
    if let Some(attributes) = &mut question.attributes {
        let source = attributes.source.as_mut().and_then(|source| source.address.as_mut());
        if let Some(address) = source.and_then(|address| address.socket_address.as_mut()) {
            address.port_value = 0;
        }
        if let Some(request) = &mut attributes.request {
            request.time = None;
            if let Some(http) = &mut request.http {
                http.id.clear();
                // Pseudo headers are no header names, and stay.
                http.headers.retain(|name, _| !name.parse().is_ok_and(|name: HeaderName| is_volatile(&name)));
            }
        }
    }
    question.encode_to_vec()
}

/// The call that puts the question.
pub(super) fn call(
    question: &CheckRequest,
    host: &HeaderValue,
    timeout: Duration,
) -> (request::Parts, Bytes) {
    let length = question.encoded_len();
    let mut body = BytesMut::with_capacity(PREFIX + length);
    body.put_u8(0);
    // What a request may hold, and of its body 4 GiB at most, was bounded before.
    body.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    body.extend_from_slice(&question.encode_to_vec());
    let mut head = http::Request::new(()).into_parts().0;
    head.method = Method::POST;
    head.uri = Uri::from_static(CHECK);
    head.version = Version::HTTP_2;
    let milliseconds = timeout.as_millis().clamp(1, 99_999_999);
    let timeout = HeaderValue::try_from(format!("{milliseconds}m"));
    let fixed = HeaderValue::from_static;
    head.headers.insert(HOST, host.clone());
    head.headers.insert(CONTENT_TYPE, fixed("application/grpc"));
    head.headers.insert(TE, fixed("trailers"));
    head.headers.insert("grpc-timeout", timeout.unwrap_or(fixed("99999999m")));
    (head, body.freeze())
}

/// What the answer says.
pub(super) fn verdict(answer: &Answer) -> Result<Verdict, Failure> {
    let status = |headers: &HeaderMap| headers.get("grpc-status").map(text);
    if answer.head.status != StatusCode::OK {
        return Err(Failure::Error(format!("it answered {}, which is no gRPC", answer.head.status.as_u16())));
    }
    if answer.cut {
        return Err(Failure::Unreadable("it is too long".to_owned()));
    }
    // Trailers-only answers have the status in their head.
    match answer.trailers.as_ref().and_then(status).or_else(|| status(&answer.head.headers)).as_deref() {
        Some("0") => read(&answer.body),
        Some("4") => Err(Failure::Timeout),
        // INVALID_ARGUMENT, RESOURCE_EXHAUSTED, OUT_OF_RANGE: what servers say to a question that is too long or garbled, which a client could see to.
        Some(status @ ("3" | "8" | "11")) => {
            Err(Failure::Unreadable(format!("grpc-status {status}, which may be about the question itself")))
        }
        Some(other) => {
            let number = other.get(..other.len().min(8)).unwrap_or_default();
            Err(Failure::Error(format!("grpc-status {number}")))
        }
        None => Err(Failure::Error("it broke off without a grpc-status".to_owned())),
    }
}

/// What one framed message says.
pub(crate) fn read(body: &[u8]) -> Result<Verdict, Failure> {
    let unreadable = |why: &str| Failure::Unreadable(why.to_owned());
    let [compressed, length @ ..] =
        body.first_chunk::<PREFIX>().ok_or_else(|| unreadable("it has no message"))?;
    let message = body.get(PREFIX..).unwrap_or_default();
    if *compressed != 0 {
        return Err(unreadable("it is compressed"));
    }
    if u32::from_be_bytes(*length) as usize != message.len() {
        return Err(unreadable("it is not one message"));
    }
    let response = CheckResponse::decode(message).map_err(|error| Failure::Unreadable(error.to_string()))?;
    // As in Envoy, the code decides; a status that is not there is 0.
    match response.status.map_or(0, |status| status.code) {
        0 => allowed(&response.ok_response.unwrap_or_default()).map(Verdict::Allow),
        _ => denied(response.denied_response.unwrap_or_default()).map(Verdict::Deny),
    }
}

fn allowed(ok: &OkHttpResponse) -> Result<Changes, Failure> {
    if !ok.query_parameters_to_set.is_empty() || !ok.query_parameters_to_remove.is_empty() {
        let why = "it changes query parameters, and a request goes where it was judged for";
        return Err(Failure::Unreadable(why.to_owned()));
    }
    let mut changes = Changes::default();
    for option in &ok.headers {
        // `append` is false where nothing is said, other than the action.
        let how = match (option.append, option.append_action) {
            (Some(append), _) => {
                if append.value {
                    How::Append
                } else {
                    How::Set
                }
            }
            (None, 1) => How::AddIfAbsent,
            (None, 3) => How::OverwriteIfExists,
            (None, _) => How::Set,
        };
        changes.request.extend(change(option, how)?.filter(|change| is_open_in_request(&change.name)));
    }
    for name in &ok.headers_to_remove {
        // Envoy ignores those that make the request what it is, too.
        let name = HeaderName::try_from(name).ok().filter(is_open_in_request);
        changes.removed.extend(name);
    }
    for option in &ok.response_headers_to_add {
        let how = match (option.append, option.append_action) {
            (Some(append), _) => {
                if append.value {
                    How::Append
                } else {
                    How::Set
                }
            }
            (None, 1) => How::AddIfAbsent,
            (None, 2) => How::Set,
            (None, 3) => How::OverwriteIfExists,
            (None, _) => How::Append,
        };
        changes.response.extend(change(option, how)?.filter(|change| is_open_in_response(&change.name)));
    }
    Ok(changes)
}

fn denied(denied: DeniedHttpResponse) -> Result<Refusal, Failure> {
    let code = denied.status.map_or(0, |status| status.code);
    let status = u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok());
    // 0 is "not said".
    let status =
        status.filter(|status| (200..600).contains(&status.as_u16())).unwrap_or(StatusCode::FORBIDDEN);
    let mut refusal = Refusal { body: denied.body.into(), ..Refusal::bare(status) };
    for option in &denied.headers {
        let how = if option.append.is_some_and(|append| append.value) { How::Append } else { How::Set };
        let change = change(option, how)?.filter(|change| is_open_in_response(&change.name));
        apply(change.as_slice(), &mut refusal.headers);
    }
    Ok(refusal)
}

/// A change that can be made; `None` when it names no header.
fn change(option: &HeaderValueOption, how: How) -> Result<Option<Change>, Failure> {
    let Some(header) = &option.header else { return Ok(None) };
    if header.key.starts_with(':') || header.key.eq_ignore_ascii_case("host") {
        let why = format!("it sets `{}`, and a request goes where it was judged for", short(&header.key));
        return Err(Failure::Unreadable(why));
    }
    let value = if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
    match (HeaderName::try_from(&header.key), HeaderValue::from_bytes(value)) {
        (Ok(name), Ok(value)) => Ok(Some(Change { name, value, how })),
        _ => Err(Failure::Unreadable(format!("`{}` is no header", short(&header.key)))),
    }
}

fn short(text: &str) -> String {
    text.chars().take(64).filter(|letter| !letter.is_control()).collect()
}

/// Every header, the values of one joined by commas.
fn headers(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| **name != HOST) {
        let joined: &mut String = all.entry(name.as_str().to_owned()).or_default();
        if !joined.is_empty() {
            joined.push(',');
        }
        joined.push_str(&text(value));
    }
    all
}

fn text(value: &HeaderValue) -> String {
    readable(value.as_bytes())
}

/// Text for a field that has to be UTF-8, each byte that is none as `!`: as Envoy writes it, so that such a request is asked about, too.
fn readable(bytes: &[u8]) -> String {
    let mut all = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        all.push_str(chunk.valid());
        all.extend(chunk.invalid().iter().map(|_| '!'));
    }
    all
}

fn protocol(connection: &ConnectionFacts, version: Version) -> &'static str {
    match (connection.protocol, version) {
        (Protocol::Http2, _) | (_, Version::HTTP_2) => "HTTP/2",
        (_, Version::HTTP_10) => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

fn socket(address: SocketAddr) -> Address {
    let (ip, port_value) = (address.ip().to_canonical(), u32::from(address.port()));
    Address { socket_address: Some(SocketAddress { address: ip.to_string(), port_value }) }
}

fn timestamp(time: SystemTime) -> Option<Timestamp> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let seconds = i64::try_from(since.as_secs()).ok()?;
    Some(Timestamp { seconds, nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0) })
}
