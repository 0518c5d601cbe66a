//! What a worker remembers of its decisions: every refusal, and one in so many of what passed.

use super::labels;
use super::worker::Worker;
use crate::snapshot::Listener;
use crate::telemetry::decisions::{Decision, Ring, Subject};
use crate::telemetry::flags::ResponseFlags;
use crate::telemetry::metrics::PolicyMetrics;
use crate::telemetry::redact::Redaction;
use filter_api::{ConnectionFacts, Cx, DecisionId, Effect, Error, Facts, Protocol, Reason, Record};
use http::response::Parts;
use http::{HeaderName, Method, Uri};
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::sync::Arc;

/// How decisions are told, as the Proxy says.
#[derive(Debug)]
pub struct Reporting {
    /// Whether a refusal carries `x-sidegate-decision`.
    pub header: bool,
    /// One of so many requests that pass is remembered; 0: none.
    pub one_in: u32,
    /// What is hidden of what is written down.
    pub redaction: Redaction,
}

/// The header that names the decision to refuse, where the Proxy asks for it.
const HEADER: HeaderName = HeaderName::from_static("x-sidegate-decision");

/// What a worker keeps for it.
#[derive(Debug)]
pub(super) struct Memory {
    ring: Arc<Ring>,
    pub(super) reporting: RefCell<Arc<Reporting>>,
    /// Requests that pass until the next one that is remembered.
    until_sample: Cell<u32>,
    policies: RefCell<PolicyMetrics>,
}

impl Memory {
    pub(super) fn new(ring: Arc<Ring>, reporting: Arc<Reporting>) -> Self {
        Self {
            ring,
            reporting: RefCell::new(reporting),
            until_sample: Cell::new(0),
            policies: RefCell::default(),
        }
    }
}

impl Default for Reporting {
    fn default() -> Self {
        Self { header: false, one_in: 1_000, redaction: Redaction::default() }
    }
}

impl Worker {
    /// Takes the newest settings, and lets go of the counters of policies that may be gone.
    pub(super) fn reconcile_memory(&self, reporting: Arc<Reporting>) {
        *self.memory.reporting.borrow_mut() = reporting;
        self.memory.policies.borrow_mut().clear();
        self.memory.until_sample.set(0);
    }

    /// What is hidden of what is written down.
    pub(super) fn redaction(&self) -> impl std::ops::Deref<Target = Redaction> + '_ {
        std::cell::Ref::map(self.memory.reporting.borrow(), |reporting| &reporting.redaction)
    }

    /// The head of an answer is there. If it refuses, that is remembered before anybody can ask about it.
    pub(super) fn note_answer(&self, cx: &Cx, head: &mut Parts, grpc_status: Option<u16>) {
        let mut facts = cx.facts.borrow_mut();
        // A policy that lets somebody else answer has refused all the same.
        if facts.records.iter().any(refuses) {
            facts.refused_by();
        }
        let Some(id) = facts.decision else { return };
        let reporting = self.memory.reporting.borrow();
        if reporting.header
            && let Ok(value) = http::HeaderValue::try_from(id.as_str())
        {
            head.headers.insert(HEADER, value);
        }
        self.remember(self.request(id, cx, &facts, head.status.as_u16(), grpc_status, &reporting.redaction));
    }

    /// An exchange has ended, after an answer with this status.
    pub(super) fn note_end(
        &self,
        cx: &Cx,
        facts: &mut Facts,
        broken: Option<Reason>,
        status: u16,
        grpc_status: Option<u16>,
    ) {
        let refused = facts.decision.is_some();
        let of_policies =
            facts.records.iter().filter(|record| record.ruling.is_some() || refused && refuses(record));
        self.count_rules(of_policies);
        if refused {
            return;
        }
        // What a policy noted, or on trial would have refused.
        let noted = facts.records.iter().any(|record| record.ruling.is_some());
        // We cut it off in the middle of an answer that was somebody else's.
        let cut_off = broken.is_some_and(|reason| !is_downstreams(reason));
        if !cut_off && !noted && !self.is_sample() {
            return;
        }
        let id = if cut_off { facts.refused_by() } else { DecisionId::fresh() };
        let reporting = self.memory.reporting.borrow();
        let decision = self.request(id, cx, facts, status, grpc_status, &reporting.redaction);
        self.remember(Decision { refused: cut_off, ..decision });
    }

    /// A connection of bytes is refused, or nobody could be found to take it. The id of that decision.
    pub(super) fn note_connection(
        &self,
        connection: &ConnectionFacts,
        cluster: Option<&Arc<str>>,
        error: &Error,
    ) -> DecisionId {
        let id = DecisionId::fresh();
        let reporting = self.memory.reporting.borrow();
        let redaction = &reporting.redaction;
        let mut decision = Decision::of(connection, id, redaction);
        decision.flags = labels::flag(error.reason());
        decision.detail(error.reason().details(), redaction);
        decision.cluster = cluster.cloned();
        let own = Record {
            layer: "connection",
            origin: Default::default(),
            because: error.to_string().into(),
            ruling: None,
        };
        let decided = error.decided();
        decision.record(decided.into_iter().chain(decided.is_none().then_some(&own)), redaction);
        self.count_rules(decided.into_iter().filter(|record| refuses(record)));
        self.remember(decision);
        id
    }

    /// A connection is closed before it was served. The id of that decision; clients that went away by themselves are none.
    pub(super) fn note_unserved(
        &self,
        listener: &Listener,
        (peer, local): (SocketAddr, SocketAddr),
        reason: Reason,
        why: &str,
    ) -> Option<DecisionId> {
        if is_downstreams(reason) {
            return None;
        }
        let connection = ConnectionFacts {
            listener: listener.mesh.name.clone(),
            remote: peer,
            direct_remote: peer,
            local,
            original_destination: None,
            protocol: Protocol::Tcp,
            server_name: None,
            tls: None,
        };
        let origin = listener.mesh.origin.clone();
        let error = Error::new(reason).record(Record {
            layer: "listener",
            origin,
            because: why.to_owned().into(),
            ruling: None,
        });
        Some(self.note_connection(&connection, None, &error))
    }

    /// True for one in so many. Costs a number that is counted down.
    #[inline]
    fn is_sample(&self) -> bool {
        let until = self.memory.until_sample.get();
        if until > 0 {
            self.memory.until_sample.set(until - 1);
            return false;
        }
        let one_in = self.memory.reporting.borrow().one_in;
        if one_in == 0 {
            self.memory.until_sample.set(u32::MAX);
            return false;
        }
        // Not every thousandth, which may always be the same of several callers: as many as that on average.
        let gap = self.random() % (2 * u64::from(one_in) - 1);
        self.memory.until_sample.set(u32::try_from(gap).unwrap_or(u32::MAX));
        true
    }

    fn request(
        &self,
        id: DecisionId,
        cx: &Cx,
        facts: &Facts,
        status: u16,
        grpc_status: Option<u16>,
        redaction: &Redaction,
    ) -> Decision {
        let connection = &*cx.connection;
        let mut decision = Decision::of(connection, id, redaction);
        let names = self.log_request_headers();
        let kept = names.iter().zip(&facts.kept_headers);
        decision.subject = Subject::request(
            facts.method.as_ref().map_or("-", Method::as_str),
            facts.target.as_ref().and_then(Uri::path_and_query).map_or("-", |target| target.as_str()),
            kept.filter_map(|(name, value)| Some((name, value.as_ref()?))),
            redaction,
        );
        decision.client = facts.client.filter(|client| *client != connection.remote.ip().to_canonical());
        decision.status = Some(status);
        decision.grpc_status = grpc_status;
        decision.flags =
            facts.reasons.iter().fold(ResponseFlags::NONE, |flags, reason| flags.with(labels::flag(*reason)));
        let details = match (&facts.details, facts.reasons.last()) {
            (Some(details), _) => details,
            (None, Some(reason)) => reason.details(),
            (None, None) => "via_upstream",
        };
        decision.detail(details, redaction);
        if let Some(token) = &facts.token {
            decision.token(token, redaction);
        }
        decision.record(facts.records.iter(), redaction);
        decision.route = cx.matched().map(|matched| matched.route.clone());
        decision.cluster = facts.cluster.clone();
        decision
    }

    fn remember(&self, decision: Decision) {
        self.memory.ring.push(decision);
    }

    fn count_rules<'r>(&self, records: impl Iterator<Item = &'r Record>) {
        for record in records {
            self.memory.policies.borrow_mut().count(&self.metrics, record);
        }
    }
}

/// A policy refuses, or what it says of tokens.
fn refuses(record: &Record) -> bool {
    match &record.ruling {
        Some(ruling) => ruling.effect == Effect::Denied,
        None => record.layer == <filter_jwt::Jwt as filter_api::Spec>::NAME,
    }
}

/// The downstream ended it by itself: nobody refused anything.
fn is_downstreams(reason: Reason) -> bool {
    matches!(reason, Reason::DownstreamClosed | Reason::DownstreamReset)
}
