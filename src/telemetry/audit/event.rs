//! What is recorded, and how a record shows it. The fields of an event come in a fixed order; one that is not known is left out.

use crate::telemetry::access_log::escape;
use crate::telemetry::timestamp::Timestamps;
use filter_api::{ConnectionFacts, Effect, Record, Token};
use http::{HeaderValue, Method};
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The longest text of a field, in bytes; what is longer is cut, and says so.
const TEXT: usize = 1024;
/// The longest item of a list, in bytes.
const ITEM: usize = 256;
/// Items of a list; more of them are counted.
const ITEMS: usize = 32;
/// Decisions of one request.
const DECISIONS: usize = 8;

/// Something that is recorded.
#[derive(Debug)]
pub enum Event {
    /// A request or connection was refused.
    Denied(Box<Access>),
    /// A request or connection was let in.
    Allowed(Box<Access>),
    /// A configuration was read.
    Configuration(Box<Change>),
    /// A certificate or whom we believe.
    Certificate(Box<Certificate>),
    /// A call of the admin interface that changes something.
    Admin(Box<Call>),
    /// The audit begins to write.
    Start(Start),
    /// The audit ends as it should.
    Stop {
        /// Why.
        reason: &'static str,
    },
    /// Another file is begun.
    Rotated {
        /// Why.
        reason: &'static str,
    },
    /// Events that have no record of their own, since there was no place for them.
    Gap {
        /// Requests that were refused for that.
        refused: u64,
        /// Others.
        missed: u64,
    },
}

/// What becomes of a request or connection.
#[derive(Debug)]
pub struct Access {
    /// The id by which others know it.
    pub id: Option<HeaderValue>,
    /// The connection that it came on.
    pub connection: Arc<ConnectionFacts>,
    /// The client, where it is another than the peer.
    pub client: Option<IpAddr>,
    /// The verified token.
    pub token: Option<Arc<Token>>,
    /// Method of the request.
    pub method: Option<Method>,
    /// Host of the request.
    pub host: Option<HeaderValue>,
    /// Path of the request, without its query.
    pub path: Option<Box<str>>,
    /// Status of the answer.
    pub status: Option<u16>,
    /// `grpc-status` of the answer.
    pub grpc_status: Option<u16>,
    /// Envoy's `response_code_details`.
    pub details: Option<Box<str>>,
    /// The decisions that made it so.
    pub decisions: Vec<Record>,
    /// The route.
    pub route: Option<Arc<str>>,
    /// The cluster.
    pub cluster: Option<Arc<str>>,
    /// The endpoint.
    pub upstream: Option<SocketAddr>,
    /// Time until the head of the answer, or until the connection was decided on.
    pub duration: Duration,
}

/// A configuration that was read.
#[derive(Debug, Default)]
pub struct Change {
    /// Whether it is in force.
    pub in_force: bool,
    /// Its number.
    pub generation: u64,
    /// The hash of all that was read.
    pub hash: u64,
    /// Objects that were not there before.
    pub added: Vec<String>,
    /// Objects that say something else.
    pub changed: Vec<String>,
    /// Objects that are there no more.
    pub removed: Vec<String>,
    /// Objects whose newest version does not hold, and why.
    pub rejected: Vec<String>,
    /// Parts that are not in force as written.
    pub problems: Vec<String>,
}

/// A delivery of a certificate or of roots.
#[derive(Debug, Default)]
pub struct Certificate {
    /// The name that it is held under.
    pub name: Arc<str>,
    /// Why it was kept out; `None`: it is in force.
    pub kept_out: Option<String>,
    /// Who we are by it.
    pub principal: Option<String>,
    /// Renewals so far.
    pub generation: u64,
    /// Changes of whom we believe so far.
    pub trust: u64,
    /// This one changes whom we believe.
    pub trust_changed: bool,
    /// When it expires.
    pub expires: Option<String>,
}

/// A call of the admin interface.
#[derive(Debug)]
pub struct Call {
    /// Who called.
    pub by: SocketAddr,
    /// Its method.
    pub method: Method,
    /// What was called, with its query.
    pub target: String,
    /// The status of the answer.
    pub status: u16,
}

/// What was found when a file was opened.
#[derive(Debug, Default)]
pub struct Start {
    /// The release that writes.
    pub version: &'static str,
    /// The process.
    pub process: u32,
    /// What the file ended with: `Stop`, `Crash`, `Nothing`, `Damage`.
    pub after: &'static str,
    /// Bytes of a record that was not written to its end and their hash. They were cut off.
    pub torn: Option<(u64, super::Hash)>,
}

impl Event {
    /// Its kind, as records and metrics show it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Denied(_) => "Denied",
            Self::Allowed(_) => "Allowed",
            Self::Configuration(_) => "Configuration",
            Self::Certificate(_) => "Certificate",
            Self::Admin(_) => "Admin",
            Self::Start(_) => "Start",
            Self::Stop { .. } => "Stop",
            Self::Rotated { .. } => "Rotated",
            Self::Gap { .. } => "Gap",
        }
    }

    /// Appends its fields.
    pub(super) fn write(&self, time: SystemTime, stamps: &mut Timestamps, out: &mut Vec<u8>) {
        out.extend_from_slice(b",\"time\":\"");
        stamps.write_nanos(time, out);
        out.extend_from_slice(b"\",\"event\":\"");
        out.extend_from_slice(self.kind().as_bytes());
        out.push(b'"');
        match self {
            Self::Denied(access) | Self::Allowed(access) => access.write(out),
            Self::Configuration(change) => change.write(out),
            Self::Certificate(certificate) => certificate.write(out),
            Self::Admin(call) => call.write(out),
            Self::Start(start) => {
                text(out, "version", start.version);
                number(out, "process", u64::from(start.process));
                text(out, "after", start.after);
                if let Some((bytes, hash)) = &start.torn {
                    number(out, "tornBytes", *bytes);
                    shown(out, "tornHash", hash);
                }
            }
            Self::Stop { reason } | Self::Rotated { reason } => text(out, "reason", reason),
            Self::Gap { refused, missed } => {
                number(out, "refused", *refused);
                number(out, "missed", *missed);
            }
        }
    }
}

impl Access {
    fn write(&self, out: &mut Vec<u8>) {
        let connection = &*self.connection;
        bytes(out, "id", self.id.as_ref().map(HeaderValue::as_bytes));
        let peer = connection.tls.as_ref().and_then(|tls| tls.peer.as_deref());
        let uri = peer.and_then(|peer| peer.uris.first()).map(|uri| uri.as_bytes());
        bytes(out, "peer", uri.or_else(|| peer.map(|peer| peer.subject.as_bytes())));
        shown(out, "address", connection.remote);
        if let Some(client) = self.client.filter(|client| *client != connection.remote.ip().to_canonical()) {
            shown(out, "client", client);
        }
        if let Some(token) = &self.token {
            text(out, "issuer", &token.issuer);
            text(out, "subject", &token.subject);
        }
        text(out, "protocol", connection.protocol.as_str());
        text(out, "listener", &connection.listener);
        bytes(out, "serverName", connection.server_name.as_ref().map(|name| name.as_bytes()));
        bytes(out, "method", self.method.as_ref().map(|method| method.as_str().as_bytes()));
        bytes(out, "host", self.host.as_ref().map(HeaderValue::as_bytes));
        bytes(out, "path", self.path.as_ref().map(|path| path.as_bytes()));
        for (name, status) in [("status", self.status), ("grpcStatus", self.grpc_status)] {
            if let Some(status) = status {
                number(out, name, u64::from(status));
            }
        }
        bytes(out, "details", self.details.as_ref().map(|details| details.as_bytes()));
        out.extend_from_slice(b",\"decisions\":[");
        for (at, record) in self.decisions.iter().take(DECISIONS).enumerate() {
            if at > 0 {
                out.push(b',');
            }
            decision(out, record);
        }
        out.push(b']');
        bytes(
            out,
            "route",
            self.route.as_ref().map(|route| route.as_bytes()).filter(|route| !route.is_empty()),
        );
        bytes(out, "cluster", self.cluster.as_ref().map(|cluster| cluster.as_bytes()));
        if let Some(upstream) = self.upstream {
            shown(out, "upstream", upstream);
        }
        number(out, "durationMicros", u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX));
    }
}

impl Change {
    fn write(&self, out: &mut Vec<u8>) {
        text(out, "outcome", if self.in_force { "InForce" } else { "Refused" });
        number(out, "generation", self.generation);
        text(out, "configHash", &format!("{:016x}", self.hash));
        let lists = [
            ("added", &self.added),
            ("changed", &self.changed),
            ("removed", &self.removed),
            ("rejected", &self.rejected),
            ("problems", &self.problems),
        ];
        for (name, items) in lists {
            list(out, name, items);
        }
    }
}

impl Certificate {
    fn write(&self, out: &mut Vec<u8>) {
        text(out, "identity", &self.name);
        text(out, "outcome", if self.kept_out.is_some() { "KeptOut" } else { "InForce" });
        bytes(out, "reason", self.kept_out.as_ref().map(String::as_bytes));
        bytes(out, "principal", self.principal.as_ref().map(String::as_bytes));
        number(out, "generation", self.generation);
        number(out, "trustGeneration", self.trust);
        out.extend_from_slice(if self.trust_changed {
            b",\"trustChanged\":true"
        } else {
            b",\"trustChanged\":false"
        });
        bytes(out, "expires", self.expires.as_ref().map(String::as_bytes));
    }
}

impl Call {
    fn write(&self, out: &mut Vec<u8>) {
        shown(out, "address", self.by);
        text(out, "method", self.method.as_str());
        text(out, "target", &self.target);
        number(out, "status", u64::from(self.status));
    }
}

fn decision(out: &mut Vec<u8>, record: &Record) {
    out.extend_from_slice(b"{\"layer\":\"");
    out.extend_from_slice(record.layer.as_bytes());
    out.push(b'"');
    if let Some(ruling) = &record.ruling {
        let effect = match ruling.effect {
            Effect::Denied => "Denied",
            Effect::Allowed => "Allowed",
            Effect::WouldAsk => "WouldAsk",
            Effect::Audited => "Audited",
            Effect::WouldDeny => "WouldDeny",
            Effect::WouldAllow => "WouldAllow",
        };
        text(out, "effect", effect);
        bytes(out, "policy", Some(ruling.policy.as_bytes()).filter(|policy| !policy.is_empty()));
        if let Some(rule) = ruling.rule {
            number(out, "rule", u64::from(rule));
        }
        if let Some(failed) = &ruling.failed {
            text(out, "clause", &failed.key);
            text(out, "expected", &failed.expected);
            text(out, "actual", &failed.actual);
        }
    }
    text(out, "because", &record.because);
    if let Some(place) = record.origin.place() {
        shown(out, "at", place);
    }
    out.push(b'}');
}

fn name(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn bytes(out: &mut Vec<u8>, field: &str, value: Option<&[u8]>) {
    if let Some(value) = value {
        name(out, field);
        quoted(out, value, TEXT);
    }
}

fn text(out: &mut Vec<u8>, field: &str, value: &str) {
    bytes(out, field, Some(value.as_bytes()));
}

fn shown(out: &mut Vec<u8>, field: &str, value: impl Display) {
    text(out, field, &value.to_string());
}

fn number(out: &mut Vec<u8>, field: &str, value: u64) {
    name(out, field);
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn list(out: &mut Vec<u8>, field: &str, items: &[String]) {
    name(out, field);
    out.push(b'[');
    for (at, item) in items.iter().take(ITEMS).enumerate() {
        if at > 0 {
            out.push(b',');
        }
        quoted(out, item.as_bytes(), ITEM);
    }
    if items.len() > ITEMS {
        out.push(b',');
        quoted(out, format!("... and {} more", items.len() - ITEMS).as_bytes(), ITEM);
    }
    out.push(b']');
}

/// A text between quotes. One that is too long is cut, and how much is missing stands at its end.
fn quoted(out: &mut Vec<u8>, value: &[u8], limit: usize) {
    out.push(b'"');
    if value.len() <= limit {
        escape::json(value, out);
    } else {
        // Not within a character.
        let end =
            (0..=limit).rev().find(|at| value.get(*at).is_some_and(|byte| byte & 0xc0 != 0x80)).unwrap_or(0);
        escape::json(value.get(..end).unwrap_or_default(), out);
        escape::json(format!("... ({} bytes more)", value.len() - end).as_bytes(), out);
    }
    out.push(b'"');
}
