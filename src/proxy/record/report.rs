//! What is counted and logged of an exchange.

use super::{Ending, Recorder};
use crate::proxy::audit::{self, Answered};
use crate::proxy::headers::grpc;
use crate::snapshot::{Destination, Endpoint};
use crate::telemetry::access_log;
use crate::telemetry::flags::ResponseFlags;
use crate::telemetry::metrics::{Measured, Protocol, RequestLabels};
use filter_api::{ConnectionFacts, DecisionId, Facts};
use http::{Method, Uri};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

impl Recorder {
    pub(super) fn count(&self, facts: &Facts, flags: ResponseFlags, duration: Duration) {
        let destination = self.cx.matched().and_then(|matched| matched.target.downcast_ref::<Destination>());
        let cluster = destination.and_then(|destination| destination.cluster.as_deref());
        let endpoint = facts.endpoint.as_ref().and_then(|endpoint| endpoint.downcast_ref::<Endpoint>());
        let protocol = if facts.grpc { Protocol::Grpc } else { Protocol::Http };
        let measured =
            Measured { duration, request_bytes: self.received(facts), response_bytes: self.bytes_sent };
        self.worker.labels.connection(
            cluster,
            endpoint,
            protocol,
            flags,
            &self.cx.connection,
            |connection| {
                let labels = RequestLabels {
                    connection,
                    response_code: self.status,
                    grpc_status: self.grpc_outcome(facts),
                };
                self.worker.metrics.request(&labels, &measured);
            },
        );
    }

    /// The status of a gRPC call as Envoy and Istio's metrics have it: its own, else what the HTTP status stands for; none where there was no answer.
    fn grpc_outcome(&self, facts: &Facts) -> Option<u16> {
        let answered = facts.grpc && self.status != 0;
        answered.then(|| self.grpc_status.unwrap_or_else(|| grpc::status_of_http(self.status)))
    }

    /// Writes the event of a request that has a place in the audit.
    pub(super) fn audit(&self) {
        if self.cx.facts.borrow().audit.is_none() {
            return;
        }
        let details = details(&self.cx.facts.borrow()).to_owned();
        audit::write(
            &self.cx,
            &Answered { status: self.status, grpc_status: self.grpc_status, details: &details },
        );
    }

    pub(super) fn log(&self, facts: &Facts, flags: ResponseFlags, duration: Duration, ending: &Ending<'_>) {
        if !self.worker.logs() {
            return;
        }
        let details = details(facts);
        let connection: &ConnectionFacts = &self.cx.connection;
        let redaction = self.worker.redaction();
        let target = facts.target.as_ref().and_then(Uri::path_and_query);
        let target = target.map(|target| redaction.target(target.as_str()));
        let original = facts.original_path.as_deref().map(|path| redaction.target(path));
        let record = access_log::Record {
            start: SystemTime::now() - duration,
            duration,
            upstream_service_time: match (facts.upstream_sent, facts.upstream_answered) {
                (Some(sent), Some(answered)) => Some(answered - sent),
                _ => None,
            },
            method: facts.method.as_ref().map(Method::as_str),
            path: target.as_deref(),
            original_path: original.as_deref(),
            scheme: Some(if connection.tls.is_some() { "https" } else { "http" }),
            authority: self.worker.logged_authority(facts),
            protocol: Some(self.version),
            response_code: Some(self.status),
            flags,
            details: Some(details),
            upstream_transport_failure: facts.upstream_failure.as_deref(),
            bytes_received: self.received(facts),
            bytes_sent: self.bytes_sent,
            trailers: match ending {
                Ending::Complete(trailers) => *trailers,
                Ending::Broken(_) => None,
            },
            grpc_status: self.grpc_outcome(facts).or(self.grpc_status),
            upstream_host: facts.upstream,
            cluster: facts.cluster.as_deref(),
            upstream_local: facts.upstream_local,
            downstream_local: Some(connection.local),
            downstream_remote: Some(downstream_remote(facts, connection)),
            downstream_direct: Some(connection.direct_remote),
            server_name: connection.server_name.as_deref(),
            peer_identity: peer_identity(connection),
            tls_version: connection.tls.as_ref().map(|tls| tls.version),
            route_name: self.cx.matched().map(|matched| &*matched.route).filter(|name| !name.is_empty()),
            decision: facts.decision.as_ref().map(DecisionId::as_str),
            decision_reason: facts.decision.and(facts.records.last()).map(|record| &*record.because),
            ..access_log::Record::default()
        };
        self.worker.log(record, &facts.kept_headers, &self.kept);
    }
}

/// Envoy's `response_code_details`.
fn details(facts: &Facts) -> &str {
    match (&facts.details, facts.reasons.last()) {
        (Some(details), _) => details,
        (None, Some(reason)) => reason.details(),
        (None, None) => "via_upstream",
    }
}

/// The URI by which the caller has proven itself.
fn peer_identity(connection: &ConnectionFacts) -> Option<&str> {
    let peer = connection.tls.as_ref()?.peer.as_ref()?;
    peer.uris.first().map(|uri| &**uri)
}

/// The client, as Envoy's `DOWNSTREAM_REMOTE_ADDRESS`: an address that a header named has port 0.
fn downstream_remote(facts: &Facts, connection: &ConnectionFacts) -> SocketAddr {
    match facts.client {
        Some(client) if client != connection.remote.ip().to_canonical() => SocketAddr::new(client, 0),
        _ => connection.remote,
    }
}
