//! Envoy's command operators: what each reads from a record.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use http::{HeaderName, Version};

use super::time_format::TimeFormat;
use super::{Headers, Record};
use crate::telemetry::flags::ResponseFlags;

/// One operator with its arguments.
#[derive(Clone, Debug)]
pub(super) struct Operator {
    pub(super) field: Field,
    /// The `:Z` of `%REQ(X):Z%`.
    pub(super) max_bytes: Option<usize>,
}

#[derive(Clone, Debug)]
pub(super) enum Field {
    Simple(Simple),
    StartTime(Option<TimeFormat>),
    Address(Peer, AddressPart),
    /// A header, and the one to take in its place when it is absent.
    Request(Source, Option<Source>),
    RequestWithoutQuery(Source, Option<Source>),
    Response(Source, Option<Source>),
    Trailer(Source, Option<Source>),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Simple {
    Protocol,
    UpstreamProtocol,
    ResponseCode,
    ResponseCodeDetails,
    ResponseFlags,
    ConnectionTerminationDetails,
    UpstreamTransportFailureReason,
    DownstreamTransportFailureReason,
    BytesReceived,
    BytesSent,
    Duration,
    RequestDuration,
    ResponseDuration,
    ResponseTxDuration,
    UpstreamRequestAttemptCount,
    UpstreamCluster,
    RouteName,
    RequestedServerName,
    GrpcStatus,
    GrpcStatusNumber,
    DownstreamPeerUriSan,
    DownstreamLocalUriSan,
    DownstreamTlsVersion,
    TraceId,
    ConnectionId,
    DecisionId,
    DecisionReason,
}

/// Where a header operator reads.
#[derive(Clone, Debug)]
pub(super) enum Source {
    Method,
    Path,
    Authority,
    Scheme,
    Status,
    /// From the record only: a caller's own header of that name must not stand for the path.
    OriginalPath,
    ServiceTime(HeaderName),
    Header(HeaderName),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Peer {
    UpstreamHost,
    UpstreamLocal,
    DownstreamLocal,
    DownstreamRemote,
    DownstreamDirect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressPart {
    Whole,
    WithoutPort,
    Port,
}

/// What an operator found.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Absent,
    /// Written by somebody else: to be escaped.
    Text(&'a [u8]),
    /// One of our own words.
    Word(&'static [u8]),
    Number(u64),
    Flags(ResponseFlags),
    Address(SocketAddr, AddressPart),
    Time(SystemTime, Option<&'a TimeFormat>),
}

/// Operators without arguments.
pub(super) const SIMPLE: &[(&str, Simple)] = &[
    ("PROTOCOL", Simple::Protocol),
    ("UPSTREAM_PROTOCOL", Simple::UpstreamProtocol),
    ("RESPONSE_CODE", Simple::ResponseCode),
    ("RESPONSE_CODE_DETAILS", Simple::ResponseCodeDetails),
    ("RESPONSE_FLAGS", Simple::ResponseFlags),
    ("CONNECTION_TERMINATION_DETAILS", Simple::ConnectionTerminationDetails),
    ("UPSTREAM_TRANSPORT_FAILURE_REASON", Simple::UpstreamTransportFailureReason),
    ("DOWNSTREAM_TRANSPORT_FAILURE_REASON", Simple::DownstreamTransportFailureReason),
    ("BYTES_RECEIVED", Simple::BytesReceived),
    ("BYTES_SENT", Simple::BytesSent),
    ("DURATION", Simple::Duration),
    ("REQUEST_DURATION", Simple::RequestDuration),
    ("RESPONSE_DURATION", Simple::ResponseDuration),
    ("RESPONSE_TX_DURATION", Simple::ResponseTxDuration),
    ("UPSTREAM_REQUEST_ATTEMPT_COUNT", Simple::UpstreamRequestAttemptCount),
    ("UPSTREAM_CLUSTER", Simple::UpstreamCluster),
    ("UPSTREAM_CLUSTER_RAW", Simple::UpstreamCluster),
    ("ROUTE_NAME", Simple::RouteName),
    ("REQUESTED_SERVER_NAME", Simple::RequestedServerName),
    ("GRPC_STATUS", Simple::GrpcStatus),
    ("GRPC_STATUS_NUMBER", Simple::GrpcStatusNumber),
    ("DOWNSTREAM_PEER_URI_SAN", Simple::DownstreamPeerUriSan),
    ("DOWNSTREAM_LOCAL_URI_SAN", Simple::DownstreamLocalUriSan),
    ("DOWNSTREAM_TLS_VERSION", Simple::DownstreamTlsVersion),
    ("TRACE_ID", Simple::TraceId),
    ("CONNECTION_ID", Simple::ConnectionId),
    // Ours: Envoy has no ids of decisions.
    ("DECISION_ID", Simple::DecisionId),
    ("DECISION_REASON", Simple::DecisionReason),
];

/// Operators that show an address.
pub(super) const ADDRESSES: &[(&str, Peer, AddressPart)] = &[
    ("UPSTREAM_HOST", Peer::UpstreamHost, AddressPart::Whole),
    ("UPSTREAM_REMOTE_ADDRESS", Peer::UpstreamHost, AddressPart::Whole),
    ("UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", Peer::UpstreamHost, AddressPart::WithoutPort),
    ("UPSTREAM_REMOTE_PORT", Peer::UpstreamHost, AddressPart::Port),
    ("UPSTREAM_LOCAL_ADDRESS", Peer::UpstreamLocal, AddressPart::Whole),
    ("UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", Peer::UpstreamLocal, AddressPart::WithoutPort),
    ("UPSTREAM_LOCAL_PORT", Peer::UpstreamLocal, AddressPart::Port),
    ("DOWNSTREAM_LOCAL_ADDRESS", Peer::DownstreamLocal, AddressPart::Whole),
    ("DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", Peer::DownstreamLocal, AddressPart::WithoutPort),
    ("DOWNSTREAM_LOCAL_PORT", Peer::DownstreamLocal, AddressPart::Port),
    ("DOWNSTREAM_REMOTE_ADDRESS", Peer::DownstreamRemote, AddressPart::Whole),
    ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", Peer::DownstreamRemote, AddressPart::WithoutPort),
    ("DOWNSTREAM_REMOTE_PORT", Peer::DownstreamRemote, AddressPart::Port),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", Peer::DownstreamDirect, AddressPart::Whole),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", Peer::DownstreamDirect, AddressPart::WithoutPort),
    ("DOWNSTREAM_DIRECT_REMOTE_PORT", Peer::DownstreamDirect, AddressPart::Port),
];

/// gRPC status names in Envoy's default (camel) spelling, by number.
const GRPC_NAMES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

impl Operator {
    pub(super) fn value<'a>(&'a self, record: &Record<'a>) -> Value<'a> {
        match &self.field {
            Field::Simple(simple) => simple.value(record),
            Field::StartTime(format) => Value::Time(record.start, format.as_ref()),
            Field::Address(peer, part) => peer.address(record).map_or(Value::Absent, |address| match part {
                AddressPart::Port => Value::Number(u64::from(address.port())),
                part => Value::Address(address, *part),
            }),
            Field::Request(first, second) => either(first, second.as_ref(), record.request_headers, record),
            Field::RequestWithoutQuery(first, second) => {
                match either(first, second.as_ref(), record.request_headers, record) {
                    Value::Text(bytes) => {
                        Value::Text(bytes.split(|byte| *byte == b'?').next().unwrap_or_default())
                    }
                    other => other,
                }
            }
            Field::Response(first, second) => either(first, second.as_ref(), record.response_headers, record),
            Field::Trailer(first, second) => {
                either(first, second.as_ref(), record.trailers.map(|trailers| trailers as _), record)
            }
        }
    }

    /// Request headers that the value may come from.
    pub(super) fn request_headers(&self) -> impl Iterator<Item = HeaderName> {
        let (first, second) = match &self.field {
            Field::Request(first, second) | Field::RequestWithoutQuery(first, second) => {
                (Some(first), second.as_ref())
            }
            _ => (None, None),
        };
        first.into_iter().chain(second).filter_map(Source::header)
    }

    /// Response headers that the value may come from.
    pub(super) fn response_headers(&self) -> impl Iterator<Item = HeaderName> {
        let (first, second) = match &self.field {
            Field::Response(first, second) => (Some(first), second.as_ref()),
            _ => (None, None),
        };
        first.into_iter().chain(second).filter_map(Source::header)
    }

    /// The value cut to the operator's length.
    pub(super) fn cut<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        self.max_bytes.and_then(|max| bytes.get(..max)).unwrap_or(bytes)
    }

    /// Whether the value stands without quotes in Istio's text format, so a space in it would shift the columns.
    pub(super) fn is_bare_word(&self) -> bool {
        match &self.field {
            Field::Simple(simple) => !matches!(
                simple,
                Simple::UpstreamTransportFailureReason | Simple::DownstreamTransportFailureReason
            ),
            Field::Response(..) => true,
            _ => false,
        }
    }
}

impl Simple {
    fn value<'a>(self, record: &Record<'a>) -> Value<'a> {
        match self {
            Self::Protocol => protocol(record.protocol),
            Self::UpstreamProtocol => protocol(record.upstream_protocol),
            Self::ResponseCode => number(record.response_code.map(u64::from)),
            Self::ResponseCodeDetails => text(record.details),
            Self::ResponseFlags => Value::Flags(record.flags),
            Self::ConnectionTerminationDetails => text(record.termination_details),
            Self::UpstreamTransportFailureReason => text(record.upstream_transport_failure),
            Self::DownstreamTransportFailureReason => text(record.downstream_transport_failure),
            Self::BytesReceived => Value::Number(record.bytes_received),
            Self::BytesSent => Value::Number(record.bytes_sent),
            Self::Duration => millis(Some(record.duration)),
            Self::RequestDuration => millis(record.request_duration),
            Self::ResponseDuration => millis(record.response_duration),
            Self::ResponseTxDuration => millis(record.response_tx_duration),
            Self::UpstreamRequestAttemptCount => Value::Number(u64::from(record.attempts)),
            Self::UpstreamCluster => text(record.cluster),
            Self::RouteName => text(record.route_name),
            Self::RequestedServerName => text(record.server_name),
            Self::GrpcStatus => match record.grpc_status {
                Some(status) => GRPC_NAMES
                    .get(usize::from(status))
                    .map_or(Value::Number(u64::from(status)), |name| Value::Word(name.as_bytes())),
                None => Value::Absent,
            },
            Self::GrpcStatusNumber => number(record.grpc_status.map(u64::from)),
            Self::DownstreamPeerUriSan => text(record.peer_identity),
            Self::DownstreamLocalUriSan => text(record.local_identity),
            Self::DownstreamTlsVersion => text(record.tls_version),
            Self::TraceId => text(record.trace_id),
            Self::ConnectionId => number(record.connection_id),
            Self::DecisionId => text(record.decision),
            Self::DecisionReason => text(record.decision_reason),
        }
    }
}

impl Source {
    fn header(&self) -> Option<HeaderName> {
        match self {
            Self::Header(name) => Some(name.clone()),
            Self::Authority => Some(http::header::HOST),
            _ => None,
        }
    }

    fn value<'a>(&'a self, headers: Option<&'a dyn Headers>, record: &Record<'a>) -> Value<'a> {
        let header = |name| match headers.and_then(|headers| headers.value(name)) {
            Some(value) => Value::Text(value.as_bytes()),
            None => Value::Absent,
        };
        match self {
            Self::Method => text(record.method),
            Self::Path => text(record.path),
            Self::Authority => text(record.authority),
            Self::Scheme => text(record.scheme),
            Self::Status => number(record.response_code.map(u64::from)),
            Self::OriginalPath => text(record.original_path),
            Self::ServiceTime(name) => match record.upstream_service_time {
                Some(time) => millis(Some(time)),
                None => header(name),
            },
            Self::Header(name) => header(name),
        }
    }
}

impl Peer {
    fn address(self, record: &Record<'_>) -> Option<SocketAddr> {
        match self {
            Self::UpstreamHost => record.upstream_host,
            Self::UpstreamLocal => record.upstream_local,
            Self::DownstreamLocal => record.downstream_local,
            Self::DownstreamRemote => record.downstream_remote,
            Self::DownstreamDirect => record.downstream_direct,
        }
    }
}

impl AddressPart {
    /// Appends the address; IPv6 stands in brackets when a port follows.
    pub(super) fn write(self, address: SocketAddr, out: &mut Vec<u8>) {
        match (address.ip(), self) {
            (IpAddr::V4(ip), part) => {
                let mut text = [0; 16];
                let mut length = 0;
                for octet in ip.octets() {
                    let (digits, count) = OCTETS[usize::from(octet)];
                    // Four times at most four bytes, each written behind the last.
                    if let Some(place) = text.get_mut(length..length + 4) {
                        place.copy_from_slice(&digits);
                    }
                    length += count;
                }
                out.extend_from_slice(text.get(..length - 1).unwrap_or_default());
                if part != Self::WithoutPort {
                    out.push(b':');
                    push_number(u64::from(address.port()), out);
                }
            }
            // Writing to a Vec cannot fail.
            (IpAddr::V6(ip), Self::WithoutPort) => drop(write!(out, "{ip}")),
            (IpAddr::V6(_), _) => drop(write!(out, "{address}")),
        }
    }
}

/// Each octet in decimal with a dot behind, and how long that is.
const OCTETS: [([u8; 4], usize); 256] = {
    let mut table = [([b'.'; 4], 0); 256];
    let mut octet = 0_u8;
    loop {
        let [hundreds, tens, ones] = [b'0' + octet / 100, b'0' + octet / 10 % 10, b'0' + octet % 10];
        table[octet as usize] = match octet {
            0..10 => ([ones, b'.', 0, 0], 2),
            10..100 => ([tens, ones, b'.', 0], 3),
            100.. => ([hundreds, tens, ones, b'.'], 4),
        };
        if octet == u8::MAX {
            break;
        }
        octet += 1;
    }
    table
};

/// Appends a number. Nearly all in a line are short, and then are written without a call.
pub(super) fn push_number(number: u64, out: &mut Vec<u8>) {
    let digit = |value: u64| b'0' + (value % 10) as u8;
    match number {
        0..10 => out.push(digit(number)),
        10..100 => out.extend_from_slice(&[digit(number / 10), digit(number)]),
        100..1000 => out.extend_from_slice(&[digit(number / 100), digit(number / 10), digit(number)]),
        1000..10_000 => {
            let digits = [digit(number / 1000), digit(number / 100), digit(number / 10), digit(number)];
            out.extend_from_slice(&digits);
        }
        10_000..100_000 => {
            let high = [digit(number / 10_000), digit(number / 1000), digit(number / 100)];
            out.extend_from_slice(&[high[0], high[1], high[2], digit(number / 10), digit(number)]);
        }
        _ => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
    }
}

fn either<'a>(
    first: &'a Source,
    second: Option<&'a Source>,
    headers: Option<&'a dyn Headers>,
    record: &Record<'a>,
) -> Value<'a> {
    match (first.value(headers, record), second) {
        (Value::Absent, Some(second)) => second.value(headers, record),
        (value, _) => value,
    }
}

fn text(value: Option<&str>) -> Value<'_> {
    value.map_or(Value::Absent, |value| Value::Text(value.as_bytes()))
}

fn number<'a>(value: Option<u64>) -> Value<'a> {
    value.map_or(Value::Absent, Value::Number)
}

fn millis<'a>(duration: Option<Duration>) -> Value<'a> {
    number(duration.map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
}

fn protocol<'a>(version: Option<Version>) -> Value<'a> {
    let name: &'static [u8] = match version {
        Some(Version::HTTP_10) => b"HTTP/1.0",
        Some(Version::HTTP_11) => b"HTTP/1.1",
        Some(Version::HTTP_2) => b"HTTP/2",
        Some(Version::HTTP_3) => b"HTTP/3",
        _ => return Value::Absent,
    };
    Value::Word(name)
}
