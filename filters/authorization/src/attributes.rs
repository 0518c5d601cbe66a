//! What a decision may look at.

use crate::access::Facts;
use crate::settings::DestinationPort;
use filter_api::{ConnectionFacts, Principal, Token};
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, request};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::net::IpAddr;
use std::time::SystemTime;

/// What is known of a request, or of a connection that is no HTTP. Nothing of it is taken from a header that a caller may set freely, except what
/// policies ask of headers.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// The connection.
    pub connection: &'a ConnectionFacts,
    /// The address of the client: the peer, or what PROXY protocol or `x-forwarded-for` of trusted hops say.
    pub client: IpAddr,
    /// The request; `None` for a connection that is judged as such.
    pub request: Option<RequestAttributes<'a>>,
}

/// What is known of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestAttributes<'a> {
    /// Its head, canonical: as it is forwarded.
    pub head: &'a request::Parts,
    /// Its token, if it has one that was verified.
    pub token: Option<&'a Token>,
}

/// Marks a head (among its extensions) whose headers were not kept: whatever a policy asks of headers or the host cannot be told then.
#[derive(Clone, Copy, Debug)]
pub struct HeadersUnknown;

impl RequestAttributes<'_> {
    pub(crate) fn has_headers(&self) -> bool {
        self.head.extensions.get::<HeadersUnknown>().is_none()
    }
}

impl<'a> Attributes<'a> {
    /// Those of a connection that is no HTTP.
    pub fn of_connection(connection: &'a ConnectionFacts) -> Self {
        Self { connection, client: connection.remote.ip(), request: None }
    }
}

/// The attributes, resolved once per decision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) request: Option<RequestAttributes<'a>>,
    pub(crate) principal: Option<&'a Principal>,
    /// A peer proved who it is, be it by a name that is no workload's.
    pub(crate) authenticated: bool,
    /// Since when the certificate of the peer is valid.
    pub(crate) valid_since: Option<SystemTime>,
    pub(crate) source: IpAddr,
    pub(crate) client: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) port: Option<u16>,
    pub(crate) server_name: &'a str,
    /// What only access policies ask, where one does.
    pub(crate) access: Option<&'a Facts<'a>>,
}

/// The values of a header that a policy asks about.
#[derive(Debug, Default)]
pub(crate) struct HeaderValues<'a> {
    /// Fields of that very name.
    pub(crate) own: SmallVec<[&'a [u8]; 2]>,
    /// Fields that an application which takes `-` for `_` (CGI, WSGI) reads as the same.
    pub(crate) alike: SmallVec<[&'a [u8]; 2]>,
    /// All fields of that very name in one, when there are several: what others may read instead of the single ones.
    pub(crate) joined: Option<Box<[u8]>>,
}

impl<'a> View<'a> {
    pub(crate) fn new(attributes: &Attributes<'a>, port: DestinationPort) -> Self {
        let connection = attributes.connection;
        let peer = connection.tls.as_ref().and_then(|tls| tls.peer.as_deref());
        Self {
            request: attributes.request,
            principal: peer.and_then(|peer| peer.principal.as_ref()),
            authenticated: peer.is_some(),
            valid_since: peer.map(|peer| peer.not_before),
            // `::ffff:10.0.0.1` is 10.0.0.1, whichever socket it came in by.
            source: connection.direct_remote.ip().to_canonical(),
            client: attributes.client.to_canonical(),
            destination: connection.local.ip().to_canonical(),
            port: match port {
                DestinationPort::Connection => Some(connection.local.port()),
                DestinationPort::Fixed(port) => Some(port),
                DestinationPort::Unknown => None,
            },
            server_name: connection.server_name.as_deref().unwrap_or_default(),
            access: None,
        }
    }

    pub(crate) fn token(&self) -> Option<&'a Token> {
        self.request.and_then(|request| request.token)
    }

    /// The path without query; empty where there is none, as of CONNECT.
    pub(crate) fn path(&self) -> &'a str {
        self.request.map_or("", |request| request.head.uri.path())
    }

    pub(crate) fn method(&self) -> &'a str {
        self.request.map_or("", |request| request.head.method.as_str())
    }

    /// The host as the request writes it, with its port.
    pub(crate) fn authority(&self) -> Option<&'a [u8]> {
        let head = self.request?.head;
        let header = head.headers.get(HOST).map(HeaderValue::as_bytes);
        header.or_else(|| head.uri.authority().map(|authority| authority.as_str().as_bytes()))
    }
}

impl<'a> HeaderValues<'a> {
    pub(crate) fn of(headers: &'a HeaderMap, name: &HeaderName) -> Self {
        let own: SmallVec<[_; 2]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        let joined = (own.len() > 1).then(|| own.join(&b","[..]).into());
        let mut alike = SmallVec::new();
        if name.as_str().contains(['-', '_']) {
            let others = headers.iter().filter(|(other, _)| *other != name && is_alike(other, name));
            alike.extend(others.map(|(_, value)| value.as_bytes()));
        }
        Self { own, alike, joined }
    }

    /// Each way to read the header.
    pub(crate) fn readings(&self) -> impl Iterator<Item = &[u8]> {
        self.own.iter().chain(&self.alike).copied().chain(self.joined.as_deref())
    }
}

/// Whether an application that takes `-` for `_` reads both as one.
pub(crate) fn is_alike(one: &HeaderName, other: &HeaderName) -> bool {
    let (one, other) = (one.as_str().as_bytes(), other.as_str().as_bytes());
    let fold = |byte: u8| if byte == b'_' { b'-' } else { byte };
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| fold(*one) == fold(*other))
}

/// Host and port of an authority: the host in lower case and without a final dot.
pub(crate) fn split_authority(text: &[u8]) -> (Cow<'_, [u8]>, Option<&[u8]>) {
    // The colons of an IPv6 address stand within brackets.
    let after_address = text.iter().rposition(|byte| *byte == b']').map_or(0, |at| at + 1);
    let colon = text.iter().rposition(|byte| *byte == b':').filter(|at| *at >= after_address);
    let (host, port) = match colon {
        Some(at) => {
            let (host, rest) = text.split_at(at);
            (host, rest.strip_prefix(b":").map(|port| port.strip_suffix(b".").unwrap_or(port)))
        }
        None => (text, None),
    };
    (lower_case(host.strip_suffix(b".").unwrap_or(host)), port.filter(|port| !port.is_empty()))
}

/// The text in lower case, borrowed where it is so already.
pub(crate) fn lower_case(text: &[u8]) -> Cow<'_, [u8]> {
    if text.iter().any(u8::is_ascii_uppercase) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}
