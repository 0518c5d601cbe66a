//! Access-log lines: Istio's default text and JSON formats, and Envoy's command operators.
//!
//! A format is compiled once; a line is written from borrowed fields into a buffer that is used again.

mod compile;
pub(in crate::telemetry) mod escape;
mod operator;
mod time_format;

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};

use self::operator::{Operator, Value};
use super::flags::ResponseFlags;
use super::timestamp::Timestamps;

pub use self::compile::FormatError;

/// Istio's default text format, `meshConfig.accessLogEncoding: TEXT`.
pub const ISTIO_TEXT: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% ",
    "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% ",
    "\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" ",
    "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% ",
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% ",
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n",
);

/// The keys of Istio's default JSON format, in the order of the text format.
const ISTIO_JSON: &[(&str, &str)] = &[
    ("start_time", "%START_TIME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("route_name", "%ROUTE_NAME%"),
];

/// A compiled log format.
#[derive(Clone, Debug)]
pub struct Format {
    encoding: Encoding,
    pieces: Box<[Piece]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Text,
    Json,
}

#[derive(Clone, Debug)]
enum Piece {
    /// Written as it is.
    Literal(Box<[u8]>),
    /// In text, or between the quotes of a JSON string: escaped, and `-` when absent.
    Inline(Operator),
    /// A JSON value of its own: number, string or `null`.
    Typed(Operator),
}

/// What is known of a finished request or connection. Everything is borrowed; what is absent is `None`.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Arrival of the request (TCP: of the connection).
    pub start: SystemTime,
    /// From the start to the last byte sent.
    pub duration: Duration,
    /// To the last byte of the request received.
    pub request_duration: Option<Duration>,
    /// To the first byte of the upstream's response.
    pub response_duration: Option<Duration>,
    /// From the first byte of the upstream's response to the last byte sent.
    pub response_tx_duration: Option<Duration>,
    /// Time between sending the request upstream and the response's head; shown in milliseconds.
    pub upstream_service_time: Option<Duration>,
    /// `GET`.
    pub method: Option<&'a str>,
    /// Path and query as forwarded.
    pub path: Option<&'a str>,
    /// Path and query as received, when they were rewritten.
    pub original_path: Option<&'a str>,
    /// `http` or `https`.
    pub scheme: Option<&'a str>,
    /// Host and port the caller asked for.
    pub authority: Option<&'a str>,
    /// Downstream protocol.
    pub protocol: Option<http::Version>,
    /// Upstream protocol.
    pub upstream_protocol: Option<http::Version>,
    /// HTTP status; `Some(0)` when the response never began, `None` for TCP.
    pub response_code: Option<u16>,
    /// Why the response is not the upstream's.
    pub flags: ResponseFlags,
    /// `via_upstream`, `route_not_found` and the like.
    pub details: Option<&'a str>,
    /// Why the connection was closed by the proxy.
    pub termination_details: Option<&'a str>,
    /// Why TLS or TCP to the upstream failed.
    pub upstream_transport_failure: Option<&'a str>,
    /// Why TLS with the caller failed.
    pub downstream_transport_failure: Option<&'a str>,
    /// Body bytes received from the caller (TCP: all bytes).
    pub bytes_received: u64,
    /// Body bytes sent to the caller (TCP: all bytes).
    pub bytes_sent: u64,
    /// Upstream attempts, retries included.
    pub attempts: u32,
    /// Request headers as forwarded.
    pub request_headers: Option<&'a dyn Headers>,
    /// Response headers.
    pub response_headers: Option<&'a dyn Headers>,
    /// Response trailers.
    pub trailers: Option<&'a HeaderMap>,
    /// gRPC status, from trailers or headers.
    pub grpc_status: Option<u16>,
    /// The endpoint the request went to.
    pub upstream_host: Option<SocketAddr>,
    /// The cluster's name, `outbound|80||cart.shop.svc.cluster.local`.
    pub cluster: Option<&'a str>,
    /// Our end of the upstream connection.
    pub upstream_local: Option<SocketAddr>,
    /// Our end of the downstream connection, or the original destination.
    pub downstream_local: Option<SocketAddr>,
    /// The caller, after trusted forwarding headers.
    pub downstream_remote: Option<SocketAddr>,
    /// The caller's end of the connection itself.
    pub downstream_direct: Option<SocketAddr>,
    /// The TLS server name the caller sent.
    pub server_name: Option<&'a str>,
    /// The matched route.
    pub route_name: Option<&'a str>,
    /// SPIFFE identity of the caller's certificate.
    pub peer_identity: Option<&'a str>,
    /// SPIFFE identity of our certificate towards the caller.
    pub local_identity: Option<&'a str>,
    /// `TLSv1.3`.
    pub tls_version: Option<&'a str>,
    /// Trace id, 32 hexadecimal digits.
    pub trace_id: Option<&'a str>,
    /// Number of the downstream connection.
    pub connection_id: Option<u64>,
    /// Id of the decision to refuse.
    pub decision: Option<&'a str>,
    /// That decision in words: policy, rule, clause.
    pub decision_reason: Option<&'a str>,
}

/// Where a line finds header values: the whole head, or the few values that were kept of it.
pub trait Headers: std::fmt::Debug {
    /// The first value of a header.
    fn value(&self, name: &HeaderName) -> Option<&HeaderValue>;
}

/// The values of some headers, kept because the head itself has gone on to the upstream.
#[derive(Clone, Copy, Debug)]
pub struct Kept<'a> {
    names: &'a [HeaderName],
    values: &'a [Option<HeaderValue>],
}

impl<'a> Kept<'a> {
    /// `values` are those of `names`, in their order.
    #[must_use]
    pub fn new(names: &'a [HeaderName], values: &'a [Option<HeaderValue>]) -> Self {
        Self { names, values }
    }
}

impl Headers for HeaderMap {
    fn value(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.get(name)
    }
}

impl Headers for Kept<'_> {
    fn value(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.values.get(self.names.iter().position(|kept| kept == name)?)?.as_ref()
    }
}

/// Writes lines. One per worker: it keeps the current second's text.
#[derive(Debug, Default)]
pub struct Formatter {
    timestamps: Timestamps,
}

impl Format {
    /// Istio's default text format.
    ///
    /// # Errors
    /// None in practice: a test compiles it.
    pub fn istio_text() -> Result<Self, FormatError> {
        Self::text(ISTIO_TEXT)
    }

    /// Istio's default JSON format.
    ///
    /// # Errors
    /// None in practice: a test compiles it.
    pub fn istio_json() -> Result<Self, FormatError> {
        let fields = ISTIO_JSON.iter().map(|(key, value)| ((*key).to_owned(), (*value).into()));
        Self::json(&serde_json::Value::Object(fields.collect()))
    }

    /// A custom `accessLogFormat` in text encoding. As in Istio, a missing newline at the end is added, and an
    /// empty format is the default one.
    ///
    /// # Errors
    /// Names an unknown or malformed operator and where it stands.
    pub fn text(format: &str) -> Result<Self, FormatError> {
        if format.is_empty() {
            return Self::istio_text();
        }
        let mut pieces = compile::pieces(format)?;
        if !format.ends_with('\n') {
            pieces.push(Piece::Literal(Box::from(*b"\n")));
        }
        Ok(Self { encoding: Encoding::Text, pieces: pieces.into() })
    }

    /// A custom format in JSON encoding: an object whose strings hold operators, as Envoy's `json_format`. A string
    /// that is one operator becomes a number, string or `null`; any other becomes a string.
    ///
    /// # Errors
    /// Names an unknown or malformed operator, its key and where it stands.
    pub fn json(format: &serde_json::Value) -> Result<Self, FormatError> {
        Ok(Self { encoding: Encoding::Json, pieces: compile::json(format)?.into() })
    }

    /// [`Format::json`] from the text of `accessLogFormat`.
    ///
    /// # Errors
    /// As [`Format::json`], and for text that is not a JSON object.
    pub fn json_text(format: &str) -> Result<Self, FormatError> {
        if format.is_empty() {
            return Self::istio_json();
        }
        let object = serde_json::from_str(format).map_err(|error| FormatError::json(&error))?;
        Self::json(&object)
    }
}

impl Format {
    /// The request headers that a line shows, for the caller to keep.
    pub fn request_headers(&self) -> impl Iterator<Item = HeaderName> {
        self.operators().flat_map(Operator::request_headers)
    }

    /// The response headers that a line shows.
    pub fn response_headers(&self) -> impl Iterator<Item = HeaderName> {
        self.operators().flat_map(Operator::response_headers)
    }

    fn operators(&self) -> impl Iterator<Item = &Operator> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Literal(_) => None,
            Piece::Inline(operator) | Piece::Typed(operator) => Some(operator),
        })
    }
}

impl Formatter {
    /// Appends one line, newline included. Bytes of the caller can neither end the line nor a quoted field.
    pub fn write(&mut self, format: &Format, record: &Record<'_>, out: &mut Vec<u8>) {
        for piece in &format.pieces {
            match piece {
                Piece::Literal(bytes) => match **bytes {
                    [one] => out.push(one),
                    _ => out.extend_from_slice(bytes),
                },
                Piece::Inline(operator) => self.write_inline(format.encoding, operator, record, out),
                Piece::Typed(operator) => self.write_typed(operator, record, out),
            }
        }
    }

    fn write_inline(
        &mut self,
        encoding: Encoding,
        operator: &Operator,
        record: &Record<'_>,
        out: &mut Vec<u8>,
    ) {
        match operator.value(record) {
            Value::Absent => out.push(b'-'),
            Value::Text(bytes) if encoding == Encoding::Text => {
                escape::text(operator.cut(bytes), operator.is_bare_word(), out);
            }
            Value::Text(bytes) => escape::json(operator.cut(bytes), out),
            other => self.write_own(operator, other, out),
        }
    }

    fn write_typed(&mut self, operator: &Operator, record: &Record<'_>, out: &mut Vec<u8>) {
        match operator.value(record) {
            Value::Absent => out.extend_from_slice(b"null"),
            number @ Value::Number(_) => self.write_own(operator, number, out),
            value => {
                out.push(b'"');
                match value {
                    Value::Text(bytes) => escape::json(operator.cut(bytes), out),
                    other => self.write_own(operator, other, out),
                }
                out.push(b'"');
            }
        }
    }

    /// Writes a value that we made ourselves and that needs no escaping, cut to the operator's length.
    fn write_own(&mut self, operator: &Operator, value: Value<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        match value {
            Value::Absent | Value::Text(_) => {}
            Value::Word(word) => out.extend_from_slice(word),
            Value::Number(number) => operator::push_number(number, out),
            Value::Flags(flags) => flags.write(out),
            Value::Address(address, part) => part.write(address, out),
            Value::Time(time, None) => self.timestamps.write_millis(time, out),
            Value::Time(time, Some(format)) => format.write(time, out),
        }
        if let Some(max) = operator.max_bytes {
            out.truncate(start.saturating_add(max).min(out.len()));
        }
    }
}

impl Default for Record<'_> {
    fn default() -> Self {
        Self {
            start: SystemTime::UNIX_EPOCH,
            duration: Duration::ZERO,
            request_duration: None,
            response_duration: None,
            response_tx_duration: None,
            upstream_service_time: None,
            method: None,
            path: None,
            original_path: None,
            scheme: None,
            authority: None,
            protocol: None,
            upstream_protocol: None,
            response_code: None,
            flags: ResponseFlags::NONE,
            details: None,
            termination_details: None,
            upstream_transport_failure: None,
            downstream_transport_failure: None,
            bytes_received: 0,
            bytes_sent: 0,
            attempts: 0,
            request_headers: None,
            response_headers: None,
            trailers: None,
            grpc_status: None,
            upstream_host: None,
            cluster: None,
            upstream_local: None,
            downstream_local: None,
            downstream_remote: None,
            downstream_direct: None,
            server_name: None,
            route_name: None,
            peer_identity: None,
            local_identity: None,
            tls_version: None,
            trace_id: None,
            connection_id: None,
            decision: None,
            decision_reason: None,
        }
    }
}

#[cfg(test)]
mod tests;
