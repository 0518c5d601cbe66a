#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod flow;
mod grpc;
mod http;

use super::body::Beginning;
use super::{HttpCheck, Protocol, Provider, Question};
use ::http::{HeaderValue, request};
use bytes::Bytes;
use filter_api::{Answer, ConnectionFacts, Peer, TlsFacts};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

fn head(method: &str, uri: &str, headers: &[(&str, &str)]) -> request::Parts {
    let mut request = ::http::Request::builder().method(method).uri(uri).header("host", "shop.example.com");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn text(text: &'static str) -> HeaderValue {
    HeaderValue::from_static(text)
}

fn connection() -> ConnectionFacts {
    let peer = Peer {
        principal: None,
        not_before: SystemTime::UNIX_EPOCH,
        not_after: SystemTime::UNIX_EPOCH,
        subject: "CN=cart".into(),
        uris: Arc::new(["spiffe://cluster.local/ns/shop/sa/cart".into()]),
        dns: Arc::new([]),
        chain: Arc::new([]),
        hash: [0; 32],
    };
    ConnectionFacts {
        listener: "virtualInbound".into(),
        remote: "192.0.2.7:4000".parse().unwrap(),
        direct_remote: "10.1.2.3:5000".parse().unwrap(),
        local: "10.9.9.9:8080".parse().unwrap(),
        original_destination: None,
        protocol: filter_api::Protocol::Http1,
        server_name: Some("outbound_.80_._.shop".into()),
        tls: Some(TlsFacts {
            version: "TLSv1.3",
            cipher: "",
            group: "",
            alpn: None,
            resumed: false,
            peer: Some(Arc::new(peer)),
        }),
    }
}

fn question<'a>(
    head: &'a request::Parts,
    body: Option<&'a Beginning>,
    connection: &'a ConnectionFacts,
) -> Question<'a> {
    Question {
        head,
        body,
        connection,
        time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_250),
    }
}

fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    let mut response = ::http::Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    let head = response.body(()).unwrap().into_parts().0;
    Answer { head, body: body.into(), cut: false, trailers: None }
}

fn provider(protocol: Protocol) -> Provider {
    Provider {
        name: "opa".into(),
        protocol,
        cluster: "outbound|9000||opa.mesh".into(),
        host: "opa.mesh".into(),
        timeout: Duration::from_secs(600),
        status_on_error: 403,
        ..Provider::default()
    }
}

fn over_http() -> HttpCheck {
    HttpCheck {
        path_prefix: "/check".into(),
        request_headers: vec!["Cookie".into(), "x-tenant-*".into(), "*-id".into()],
        added_headers: vec![("x-added".into(), "yes".into())],
        upstream_on_allow: vec!["x-user".into(), "x-role-*".into(), "authorization".into()],
        downstream_on_deny: Vec::new(),
        downstream_on_allow: vec!["x-seen".into(), "set-cookie".into()],
    }
}

/// A field of a protobuf message that has a length, below 128, from its number.
fn field(number: u8, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    assert!(bytes.len() < 128 && number < 16);
    [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
}

/// A field that is a number, below 2^14.
fn number(number: u8, value: u16) -> Vec<u8> {
    match value {
        0..128 => vec![number << 3, value as u8],
        _ => vec![number << 3, (value & 0x7f) as u8 | 0x80, (value >> 7) as u8],
    }
}

/// A message behind its prefix.
fn framed(message: &[u8]) -> Vec<u8> {
    [&[0], &u32::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}
