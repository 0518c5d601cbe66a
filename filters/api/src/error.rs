//! Why an exchange failed: whose fault it is, what was sent, whether a retry is safe.

use crate::Record;
use http::StatusCode;
use std::borrow::Cow;
use std::fmt;

/// A failed exchange. Only the outermost layer turns it into an answer.
pub struct Error(Box<Failure>);

#[derive(Debug)]
struct Failure {
    reason: Reason,
    sent: bool,
    retry_safe: bool,
    close: bool,
    detail: Cow<'static, str>,
    details: Option<&'static str>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    record: Option<Box<Record>>,
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The caller's.
    Downstream,
    /// The called one's.
    Upstream,
    /// Ours, or our configuration's.
    Proxy,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident: $flag:literal, $status:ident, $grpc:literal, $fault:ident, $details:literal;)*) => {
        /// Why an exchange failed. Closed: each maps to one Envoy response flag and one `response_code_details`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// All of them, in order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Envoy's response flag; `-` where Envoy has none.
            pub const fn flag(self) -> &'static str { match self { $(Self::$name => $flag,)* } }

            /// Envoy's `response_code_details`.
            pub const fn details(self) -> &'static str { match self { $(Self::$name => $details,)* } }

            /// Status of the HTTP answer.
            pub const fn status(self) -> StatusCode { match self { $(Self::$name => StatusCode::$status,)* } }

            /// `grpc-status` of the gRPC answer.
            pub const fn grpc_status(self) -> u8 { match self { $(Self::$name => $grpc,)* } }

            /// Whose fault.
            pub const fn fault(self) -> Fault { match self { $(Self::$name => Fault::$fault,)* } }
        }
    };
}

reasons! {
    /// No virtual host or rule matches.
    NoRoute: "NR", NOT_FOUND, 12, Downstream, "route_not_found";
    /// The route names a cluster that is not there.
    NoCluster: "NC", SERVICE_UNAVAILABLE, 14, Proxy, "cluster_not_found";
    /// The cluster has no endpoint that takes traffic.
    NoHealthyUpstream: "UH", SERVICE_UNAVAILABLE, 14, Upstream, "no_healthy_upstream";
    /// A connection or request limit of the cluster is reached.
    UpstreamOverflow: "UO", SERVICE_UNAVAILABLE, 14, Proxy, "upstream_reset_before_response_started{overflow}";
    /// The upstream refused the connection or the network failed.
    ConnectFailure: "UF", SERVICE_UNAVAILABLE, 14, Upstream, "upstream_reset_before_response_started{remote_connection_failure}";
    /// The upstream did not accept within the connect timeout.
    ConnectTimeout: "UF", SERVICE_UNAVAILABLE, 14, Upstream, "upstream_reset_before_response_started{connection_timeout}";
    /// The upstream closed the connection before it answered.
    UpstreamClosed: "UC", SERVICE_UNAVAILABLE, 14, Upstream, "upstream_reset_before_response_started{connection_termination}";
    /// The upstream reset the stream.
    UpstreamReset: "UR", SERVICE_UNAVAILABLE, 14, Upstream, "upstream_reset_before_response_started{remote_reset}";
    /// The upstream broke its protocol.
    UpstreamProtocol: "UPE", BAD_GATEWAY, 14, Upstream, "upstream_reset_before_response_started{protocol_error}";
    /// The name of the upstream could not be resolved.
    DnsFailure: "DF", SERVICE_UNAVAILABLE, 14, Upstream, "dns_resolution_failure";
    /// The request took longer than its route allows.
    RequestTimeout: "UT", GATEWAY_TIMEOUT, 4, Upstream, "upstream_response_timeout";
    /// No byte passed in either direction for too long.
    StreamIdle: "SI", REQUEST_TIMEOUT, 14, Downstream, "stream_idle_timeout";
    /// The request head or body took too long to arrive.
    DownstreamTimeout: "DT", REQUEST_TIMEOUT, 14, Downstream, "request_overall_timeout";
    /// The downstream went away.
    DownstreamClosed: "DC", BAD_REQUEST, 1, Downstream, "downstream_remote_disconnect";
    /// The downstream reset its stream.
    DownstreamReset: "DR", BAD_REQUEST, 1, Downstream, "downstream_remote_reset";
    /// The downstream broke its protocol.
    DownstreamProtocol: "DPE", BAD_REQUEST, 13, Downstream, "http1.codec_error";
    /// The downstream broke the rules of HTTP/2.
    DownstreamMessage: "DPE", BAD_REQUEST, 13, Downstream, "http2.violation.of.messaging.rule";
    /// The request target cannot be made canonical.
    BadPath: "DPE", BAD_REQUEST, 13, Downstream, "path_normalization_failed";
    /// The downstream's TLS handshake failed, or its certificate is not believed.
    DownstreamTls: "DPE", BAD_REQUEST, 16, Downstream, "downstream_tls_handshake_failed";
    /// The connection is not one that may be used any more: plain text where mutual TLS is required since.
    ConnectionRefused: "NR", FORBIDDEN, 7, Downstream, "filter_chain_not_found";
    /// The request is for a host that this TLS server does not serve (RFC 9110 section 15.5.20).
    Misdirected: "NR", MISDIRECTED_REQUEST, 5, Downstream, "misdirected_request";
    /// Host and authority are missing, malformed or disagree.
    BadAuthority: "DPE", BAD_REQUEST, 13, Downstream, "invalid_authority";
    /// Framing headers that could be read in two ways.
    BadFraming: "DPE", BAD_REQUEST, 13, Downstream, "http1.unexpected_transfer_encoding";
    /// Too many or too large header fields.
    HeadersTooLarge: "DPE", REQUEST_HEADER_FIELDS_TOO_LARGE, 13, Downstream, "request_headers_too_large";
    /// The request body is longer than the port allows.
    BodyTooLarge: "-", PAYLOAD_TOO_LARGE, 8, Downstream, "request_payload_too_large";
    /// The request target is too long.
    UriTooLong: "DPE", URI_TOO_LONG, 13, Downstream, "uri_too_long";
    /// An upgrade or CONNECT that this listener or route does not carry.
    UpgradeRefused: "-", FORBIDDEN, 7, Downstream, "upgrade_failed";
    /// A policy refuses the connection. Requests are answered 403 where the policy is asked.
    AccessDenied: "-", FORBIDDEN, 7, Downstream, "rbac_access_denied";
    /// A policy that revokes what is open allows it no more (`session.revokeExisting`).
    AccessRevoked: "-", FORBIDDEN, 7, Downstream, "access_revoked";
    /// A provider of external authorization refuses the request.
    ExternalDenied: "UAEX", FORBIDDEN, 7, Downstream, "ext_authz_denied";
    /// A provider of external authorization could not be asked, and the policy refuses then.
    ExternalFailed: "UAEX", FORBIDDEN, 7, Upstream, "ext_authz_error";
    /// The request would come back to this proxy.
    Loop: "NR", LOOP_DETECTED, 14, Downstream, "loop_detected";
    /// We are shutting down or over a limit of our own.
    Overload: "OM", SERVICE_UNAVAILABLE, 14, Proxy, "overload";
    /// The request needs a record in the audit, and that cannot be written. It was not sent: 503, as the caller did nothing wrong and may come again.
    AuditUnavailable: "OM", SERVICE_UNAVAILABLE, 14, Proxy, "audit_unavailable";
    /// What the matched route asks for cannot be done with this request: a rewrite whose outcome is no path.
    BadRewrite: "-", INTERNAL_SERVER_ERROR, 13, Proxy, "route_rewrite_failed";
    /// A defect of ours: the request was lost, the process goes on.
    Internal: "-", INTERNAL_SERVER_ERROR, 13, Proxy, "internal_error";
}

impl Error {
    /// A failure with its reason's own words.
    pub fn new(reason: Reason) -> Self {
        Self(Box::new(Failure {
            reason,
            sent: false,
            retry_safe: false,
            close: false,
            detail: Cow::Borrowed(""),
            details: None,
            source: None,
            record: None,
        }))
    }

    /// Says what to tell the caller.
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.0.detail = detail.into();
        self
    }

    /// Says it in Envoy's `response_code_details`, more exactly than the reason's own.
    pub fn details(mut self, details: &'static str) -> Self {
        self.0.details = Some(details);
        self
    }

    /// Keeps the cause for the log.
    pub fn source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Says which rule of a policy refuses a connection. The caller does not hear of it.
    pub fn record(mut self, record: Record) -> Self {
        self.0.record = Some(Box::new(record));
        self
    }

    /// Some byte of the request may have reached the upstream.
    pub fn sent(mut self, sent: bool) -> Self {
        self.0.sent = sent;
        self
    }

    /// The upstream cannot have acted on the request: repeating it is safe whatever its method.
    pub fn retry_safe(mut self) -> Self {
        self.0.retry_safe = true;
        self
    }

    /// The downstream connection cannot be trusted to be in step: close it after the answer.
    pub fn closing(mut self) -> Self {
        self.0.close = true;
        self
    }

    /// Envoy's `response_code_details`, where they say more than the reason's own.
    pub fn own_details(&self) -> Option<&'static str> {
        self.0.details
    }

    /// Why.
    pub fn reason(&self) -> Reason {
        self.0.reason
    }

    /// Some byte of the request may have reached the upstream.
    pub fn was_sent(&self) -> bool {
        self.0.sent
    }

    /// The upstream cannot have acted on the request.
    pub fn is_retry_safe(&self) -> bool {
        self.0.retry_safe
    }

    /// The downstream connection has to be closed.
    pub fn must_close(&self) -> bool {
        self.0.close
    }

    /// What to tell the caller; empty when the reason says it all.
    pub fn detail_str(&self) -> &str {
        &self.0.detail
    }

    /// Which rule of a policy refuses.
    pub fn decided(&self) -> Option<&Record> {
        self.0.record.as_deref()
    }

    /// The cause in words, for the log's transport failure field.
    pub fn cause(&self) -> Option<String> {
        let mut cause: &(dyn std::error::Error + 'static) = self.0.source.as_deref()?;
        let mut words = cause.to_string();
        while let Some(deeper) = cause.source() {
            let more = deeper.to_string();
            if !words.contains(&more) {
                words.push_str(": ");
                words.push_str(&more);
            }
            cause = deeper;
        }
        Some(words)
    }
}

impl From<Reason> for Error {
    fn from(reason: Reason) -> Self {
        Self::new(reason)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.details.unwrap_or(self.0.reason.details()))?;
        if !self.0.detail.is_empty() {
            write!(f, ": {}", self.0.detail)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
