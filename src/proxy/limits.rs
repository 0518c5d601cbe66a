//! Every limit of the data path, in one table: what `/limits` and the documentation show.

use crate::telemetry::decisions;
use serde::Serialize;

/// One limit, as `/limits` lists it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Limit {
    /// Its name. `sidegate_limit_hits_total` counts by what the refused are told, Envoy's `response_code_details`.
    pub name: &'static str,
    /// The value without configuration.
    pub default: u64,
    /// `bytes`, `ms`, `connections` ...
    pub unit: &'static str,
    /// What it holds for: `process`, `worker`, `cluster`, `connection`, `request`.
    pub scope: &'static str,
    /// What happens when it is reached.
    pub doc: &'static str,
}

/// See the module's documentation.
pub const LIMITS: &[Limit] = &[
    limit("max_headers", 100, "fields", "request", "More header fields: 431 (Envoy max_headers_count)."),
    limit(
        "max_header_bytes",
        60 * 1024,
        "bytes",
        "request",
        "A larger head: 431 (Envoy max_request_headers_kb).",
    ),
    limit("max_target_bytes", 60 * 1024, "bytes", "request", "A longer request target: 414."),
    limit(
        "max_body_bytes",
        0,
        "bytes",
        "request",
        "A longer request body: 413, gRPC RESOURCE_EXHAUSTED; reset when the answer has begun. 0: no limit.",
    ),
    limit(
        "max_connections",
        65_536,
        "connections",
        "process",
        "Downstream connections at once, all listeners together; a further one is closed (OM).",
    ),
    limit(
        "request_headers_timeout",
        10,
        "seconds",
        "request",
        "A head that takes longer ends its connection: HTTP/1 is told 408; of HTTP/2 its preface, SETTINGS and header blocks count.",
    ),
    limit(
        "stream_idle_timeout",
        300,
        "seconds",
        "request",
        "No byte either way for so long, also because the client stopped reading: 408 SI, or the stream is reset.",
    ),
    limit(
        "idle_timeout",
        3600,
        "seconds",
        "downstream connection",
        "A connection without requests is closed.",
    ),
    limit("max_concurrent_streams", 100, "streams", "downstream connection", "HTTP/2 streams at once."),
    limit(
        "max_reset_streams",
        50,
        "streams",
        "downstream connection",
        "Streams opened and reset before the connection is ended (rapid reset).",
    ),
    limit(
        "premature_resets",
        250,
        "streams",
        "downstream connection",
        "Streams reset within a second and before their answer, half of all from 500 on, before the connection is closed (Envoy).",
    ),
    limit(
        "replay_body",
        64 * 1024,
        "bytes",
        "request",
        "A longer request body is not sent again on another connection.",
    ),
    limit(
        "stream_window",
        64 * 1024,
        "bytes",
        "stream",
        "What a stream may have in flight towards us, upstream and downstream.",
    ),
    limit(
        "stream_buffer",
        64 * 1024,
        "bytes",
        "stream",
        "What a codec may hold back of a body. An HTTP/1 reader that stops pins one portion of 32 KiB in it, one before it, and the room for another.",
    ),
    limit(
        "handshake_timeout",
        10,
        "seconds",
        "downstream connection",
        "Time for a PROXY protocol header, and for the first bytes to show the protocol: then a connection is closed where HTTP is declared, else plain TCP.",
    ),
    limit(
        "client_hello",
        16 * 1024,
        "bytes",
        "downstream connection",
        "The longest ClientHello that is searched for a server name.",
    ),
    limit(
        "streams_per_connection",
        100,
        "streams",
        "upstream connection",
        "HTTP/2 streams before another connection is opened.",
    ),
    limit(
        "pending_timeout",
        15,
        "seconds",
        "request",
        "Longest wait for a connection when maxConnections is reached.",
    ),
    limit(
        "passthrough_addresses",
        4096,
        "addresses",
        "worker",
        "Original destinations whose connections are kept for reuse; and as many clients that PROXY protocol names.",
    ),
    limit(
        "tcp_buffer",
        16 * 1024,
        "bytes",
        "direction",
        "What a TCP connection may hold each way; none while it is idle.",
    ),
    limit(
        "audit_places",
        crate::telemetry::audit::PLACES as u64,
        "requests",
        "process",
        "Requests and connections whose record is not written yet; a further one that needs a record waits or is refused (AuditPolicy whenFull).",
    ),
    limit(
        "audit_hold",
        60,
        "seconds",
        "connection",
        "The longest wait of a TCP connection for its place in the audit; a request's is its stream_idle_timeout.",
    ),
    limit(
        "tcp_connect_attempts",
        3,
        "attempts",
        "connection",
        "Endpoints that are tried for a TCP connection.",
    ),
    limit(
        "decisions",
        decisions::REFUSALS as u64,
        "refusals",
        "worker",
        "The latest refusals that `explain ID` can tell of; an older one gives way.",
    ),
    limit(
        "decision_samples",
        decisions::PASSES as u64,
        "decisions",
        "worker",
        "The same of what passed: one in so many, and all that a policy on trial would have refused.",
    ),
    limit(
        "decision_bytes",
        decisions::MAX_BYTES as u64,
        "bytes",
        "decision",
        "The texts of one decision; what is longer is cut.",
    ),
];

const fn limit(
    name: &'static str,
    default: u64,
    unit: &'static str,
    scope: &'static str,
    doc: &'static str,
) -> Limit {
    Limit { name, default, unit, scope, doc }
}
