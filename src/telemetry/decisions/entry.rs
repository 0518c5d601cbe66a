//! One decision, bounded in every part and free of secrets.

use crate::telemetry::flags::ResponseFlags;
use crate::telemetry::redact::Redaction;
use crate::telemetry::timestamp::Timestamps;
use filter_api::{ConnectionFacts, DecisionId, FailedClause, Origin, Record, Ruling, Token};
use http::{HeaderName, HeaderValue};
use serde::{Serialize, Serializer};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

/// Records of one decision; further ones are left out.
const RECORDS: usize = 4;
/// Header fields of one decision.
const HEADERS: usize = 6;
/// Bytes of a path and of what a record says.
const LONG: usize = 512;
/// Bytes of any other text.
const SHORT: usize = 192;

/// The texts of one decision, all of them as long as they may be: what it is about, and its records.
pub const MAX_BYTES: usize = SHORT * (5 + HEADERS) + LONG + RECORDS * (LONG + 4 * SHORT);

/// What was decided of one request or connection.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Its name.
    pub id: DecisionId,
    /// When.
    pub time: SystemTime,
    /// False for one of the sample of what passed.
    pub refused: bool,
    /// What it is about.
    pub subject: Subject,
    /// The listener that took it.
    pub listener: Arc<str>,
    /// The peer, as PROXY protocol or the kernel says.
    pub source: SocketAddr,
    /// Where it wanted to go.
    pub destination: SocketAddr,
    /// The client, where a trusted hop names another than the peer.
    pub client: Option<IpAddr>,
    /// The identity that the peer's certificate proves.
    pub peer: Option<Box<str>>,
    /// Issuer and subject of the token that was verified.
    pub token: Option<(Box<str>, Box<str>)>,
    /// HTTP status; `None` for a connection.
    pub status: Option<u16>,
    /// gRPC status, where there is one.
    pub grpc_status: Option<u16>,
    /// Envoy's flags.
    pub flags: ResponseFlags,
    /// Envoy's `response_code_details`.
    pub details: Box<str>,
    /// Who decided what, the last one last.
    pub records: Box<[Record]>,
    /// The route that was matched.
    pub route: Option<Arc<str>>,
    /// The cluster that was chosen.
    pub cluster: Option<Arc<str>>,
}

/// What a decision is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A request.
    Request {
        /// `GET`; `-` where it could not be read.
        method: Box<str>,
        /// Host and port that were asked for; empty where they could not be read.
        host: Box<str>,
        /// Path and query, without secrets.
        path: Box<str>,
        /// Some of its headers, without secrets.
        headers: Box<[(HeaderName, Box<str>)]>,
    },
    /// A connection.
    Connection {
        /// `tcp`, `tls`.
        protocol: &'static str,
        /// Server name of its ClientHello.
        server_name: Option<Arc<str>>,
    },
}

/// `namespace/name` of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named<'a> {
    namespace: &'a str,
    name: &'a str,
}

impl Decision {
    /// A refused connection, so far as the connection itself tells. What else is known is to be filled in.
    #[must_use]
    pub fn of(connection: &ConnectionFacts, id: DecisionId, redaction: &Redaction) -> Self {
        let peer = connection.tls.as_ref().and_then(|tls| tls.peer.as_deref());
        let uri = peer.and_then(|peer| peer.uris.first());
        Self {
            id,
            time: SystemTime::now(),
            refused: true,
            subject: Subject::Connection {
                protocol: connection.protocol.as_str(),
                server_name: connection.server_name.clone(),
            },
            listener: connection.listener.clone(),
            source: connection.remote,
            destination: connection.local,
            client: None,
            peer: uri.map(|uri| bounded(&redaction.text(uri), SHORT)),
            token: None,
            status: None,
            grpc_status: None,
            flags: ResponseFlags::NONE,
            details: Box::default(),
            records: Box::default(),
            route: None,
            cluster: None,
        }
    }

    /// Says what Envoy would.
    pub fn detail(&mut self, details: &str, redaction: &Redaction) {
        self.details = bounded(&redaction.text(details), SHORT);
    }

    /// Says whose token was verified. The token itself stays out.
    pub fn token(&mut self, token: &Token, redaction: &Redaction) {
        let part = |text: &str| bounded(&redaction.text(text), SHORT);
        self.token = Some((part(&token.issuer), part(&token.subject)));
    }

    /// Says who decided what.
    pub fn record<'r>(&mut self, records: impl Iterator<Item = &'r Record>, redaction: &Redaction) {
        let text = |text: &str, max| bounded(&redaction.text(text), max);
        let kept = records.take(RECORDS).map(|record| Record {
            layer: record.layer,
            origin: record.origin.clone(),
            because: String::from(text(&record.because, LONG)).into(),
            ruling: record.ruling.as_deref().map(|ruling| {
                let failed = ruling.failed.as_ref().map(|failed| FailedClause {
                    key: text(&failed.key, SHORT),
                    expected: text(&failed.expected, SHORT),
                    actual: text(&failed.actual, SHORT),
                });
                Box::new(Ruling { policy: bounded(&ruling.policy, SHORT), failed, ..*ruling })
            }),
        });
        self.records = kept.collect();
    }

    /// The objects that had a part in it.
    pub fn objects(&self) -> impl Iterator<Item = Named<'_>> {
        let objects = self.records.iter().filter_map(|record| {
            let name = record.origin.object_name()?;
            Some(Named { namespace: &name.namespace, name: &name.name })
        });
        let policies = self.records.iter().filter_map(|record| {
            let (namespace, name) = record.ruling.as_ref()?.policy.split_once('/')?;
            Some(Named { namespace, name })
        });
        objects.chain(policies)
    }

    /// When it was decided, as in `2026-11-21T06:30:00.000Z`.
    #[must_use]
    pub fn shown_time(&self) -> String {
        shown_time(self.time)
    }
}

impl Subject {
    /// A request. `headers` are those of it that were kept, by name; that of the host is its host.
    pub fn request<'h>(
        method: &str,
        target: &str,
        headers: impl Iterator<Item = (&'h HeaderName, &'h HeaderValue)>,
        redaction: &Redaction,
    ) -> Self {
        let mut host = Box::default();
        let mut kept = Vec::new();
        for (name, value) in headers.take(HEADERS) {
            let shown = bounded(&redaction.text(&redaction.header(name, value)), SHORT);
            if *name == http::header::HOST {
                host = shown;
            } else {
                kept.push((name.clone(), shown));
            }
        }
        Self::Request {
            method: bounded(method, SHORT),
            host,
            path: bounded(&redaction.text(&redaction.target(target)), LONG),
            headers: kept.into(),
        }
    }
}

impl Named<'_> {
    /// Whether this is how the object is called: `namespace/name`, or its name alone.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        match text.split_once('/') {
            Some((namespace, name)) => self.namespace == namespace && self.name == name,
            None => self.name == text,
        }
    }
}

/// The beginning of a text, of whole characters, that says when there is more.
fn bounded(text: &str, max: usize) -> Box<str> {
    if text.len() <= max {
        return text.into();
    }
    let kept = text.get(..text.floor_char_boundary(max.saturating_sub(3))).unwrap_or_default();
    format!("{kept}...").into()
}

pub(super) fn shown_time(time: SystemTime) -> String {
    let mut text = Vec::with_capacity(24);
    Timestamps::default().write_millis(time, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// As `/explain/ID` shows it. Places of objects are those of this moment.
impl Serialize for Decision {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut flags = Vec::new();
        self.flags.write(&mut flags);
        let shown = Shown {
            id: self.id.as_str(),
            time: self.shown_time(),
            outcome: if self.refused { "refused" } else { "passed" },
            request: match &self.subject {
                Subject::Request { method, host, path, headers } => Some(Request {
                    method,
                    host,
                    path,
                    headers: headers.iter().map(|(name, value)| (name.as_str(), &**value)).collect(),
                }),
                Subject::Connection { .. } => None,
            },
            connection: Connection {
                listener: &self.listener,
                source: self.source,
                destination: self.destination,
                client: self.client,
                peer: self.peer.as_deref(),
                protocol: match &self.subject {
                    Subject::Connection { protocol, .. } => Some(protocol),
                    Subject::Request { .. } => None,
                },
                server_name: match &self.subject {
                    Subject::Connection { server_name, .. } => server_name.as_deref(),
                    Subject::Request { .. } => None,
                },
            },
            token: self.token.as_ref().map(|(issuer, subject)| Issued { issuer, subject }),
            status: self.status,
            grpc_status: self.grpc_status,
            flags: String::from_utf8_lossy(&flags).into_owned(),
            details: &self.details,
            route: self.route.as_deref(),
            cluster: self.cluster.as_deref(),
            records: self.records.iter().map(Recorded::from).collect(),
        };
        shown.serialize(serializer)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    id: &'a str,
    time: String,
    outcome: &'a str,
    status: Option<u16>,
    grpc_status: Option<u16>,
    flags: String,
    details: &'a str,
    request: Option<Request<'a>>,
    connection: Connection<'a>,
    token: Option<Issued<'a>>,
    route: Option<&'a str>,
    cluster: Option<&'a str>,
    records: Vec<Recorded<'a>>,
}

#[derive(Serialize)]
struct Request<'a> {
    method: &'a str,
    host: &'a str,
    path: &'a str,
    headers: std::collections::BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Connection<'a> {
    listener: &'a str,
    source: SocketAddr,
    destination: SocketAddr,
    client: Option<IpAddr>,
    peer: Option<&'a str>,
    protocol: Option<&'a str>,
    server_name: Option<&'a str>,
}

#[derive(Serialize)]
struct Issued<'a> {
    issuer: &'a str,
    subject: &'a str,
}

#[derive(Serialize)]
struct Recorded<'a> {
    layer: &'a str,
    because: &'a str,
    origin: String,
    object: Option<String>,
    place: Option<String>,
    policy: Option<&'a str>,
    rule: Option<u32>,
    effect: Option<&'static str>,
    failed: Option<Failed<'a>>,
}

#[derive(Serialize)]
struct Failed<'a> {
    clause: &'a str,
    expected: &'a str,
    actual: &'a str,
}

impl<'a> From<&'a Record> for Recorded<'a> {
    fn from(record: &'a Record) -> Self {
        let ruling = record.ruling.as_deref();
        let origin: &Origin = &record.origin;
        Self {
            layer: record.layer,
            because: &record.because,
            origin: origin.to_string(),
            object: origin.object_name().map(ToString::to_string),
            place: origin.place().map(|place| place.to_string()),
            policy: ruling.map(|ruling| &*ruling.policy).filter(|policy| !policy.is_empty()),
            rule: ruling.and_then(|ruling| ruling.rule),
            effect: ruling.map(|ruling| ruling.effect.as_str()),
            failed: ruling.and_then(|ruling| ruling.failed.as_ref()).map(|failed| Failed {
                clause: &failed.key,
                expected: &failed.expected,
                actual: &failed.actual,
            }),
        }
    }
}
