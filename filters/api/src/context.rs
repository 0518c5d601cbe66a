//! What the stack knows of a request: facts, the matched route, the decisions so far.

use crate::calls::{Answered, Call, Caller, Calls};
use crate::{DecisionId, Error, Origin, Reason, Slots, TlsFacts, Token};
use smallvec::SmallVec;
use std::any::Any;
use std::borrow::Cow;
use std::cell::{OnceCell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// The shared context of one exchange. Lives on one worker; whatever has to leave the worker is `Send` by itself.
#[derive(Clone, Debug)]
pub struct Cx(Rc<Context>);

/// See [`Cx`].
#[derive(Debug)]
pub struct Context {
    /// When the head of the request had arrived.
    pub started: Instant,
    /// The connection that it came on.
    pub connection: Arc<ConnectionFacts>,
    /// The policy of the port.
    pub port: Slots,
    /// The chain that took the request, compiled; known to the stack's own layers alone.
    pub chain: Arc<dyn Any + Send + Sync>,
    /// What layers found out, read by the record at the end.
    pub facts: RefCell<Facts>,
    caller: Caller,
    matched: OnceCell<Matched>,
    held: RefCell<SmallVec<[Box<dyn Any>; 1]>>,
}

/// What is known of a connection before its first request.
#[derive(Clone, Debug)]
pub struct ConnectionFacts {
    /// The listener that took it.
    pub listener: Arc<str>,
    /// The peer, as PROXY protocol or the kernel says.
    pub remote: SocketAddr,
    /// The peer of the socket itself.
    pub direct_remote: SocketAddr,
    /// Our end, the original destination for captured connections.
    pub local: SocketAddr,
    /// Where the client wanted to go, when the kernel redirected it.
    pub original_destination: Option<SocketAddr>,
    /// What it speaks.
    pub protocol: Protocol,
    /// Server name in its ClientHello.
    pub server_name: Option<Arc<str>>,
    /// What the handshake agreed on, where we ended TLS.
    pub tls: Option<TlsFacts>,
}

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.0 or 1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// TLS that we do not terminate.
    Tls,
    /// Bytes.
    Tcp,
}

/// The route that the request matched, with its destination already chosen.
#[derive(Clone, Debug)]
pub struct Matched {
    /// Settings of the filters after route matching.
    pub slots: Slots,
    /// Route name for logs and metrics; empty when it has none.
    pub route: Arc<str>,
    /// What the upstream layers need; known to them alone.
    pub target: Arc<dyn Any + Send + Sync>,
    /// Where the rule was written.
    pub origin: Origin,
}

/// What layers find out on the way.
#[derive(Debug, Default)]
pub struct Facts {
    /// The client, as far as it can be believed: the peer, or the address that a trusted hop wrote into `x-forwarded-for`. Never an
    /// IPv4 address in the form of IPv6.
    pub client: Option<IpAddr>,
    /// Method, as forwarded.
    pub method: Option<http::Method>,
    /// Canonical target, before any rewrite.
    pub target: Option<http::Uri>,
    /// The host that the request is for, where an audit may want it.
    pub host: Option<http::HeaderValue>,
    /// `x-request-id`, where an audit may want it.
    pub request_id: Option<http::HeaderValue>,
    /// A place in the audit that was taken for this request; known to the audit alone.
    pub audit: Option<Box<dyn Any>>,
    /// The request headers that the record will want: the upstream takes the others with it.
    pub kept_headers: SmallVec<[Option<http::HeaderValue>; 5]>,
    /// The target as it came, when a rewrite changed it.
    pub original_path: Option<Box<str>>,
    /// Cluster that was chosen.
    pub cluster: Option<Arc<str>>,
    /// Endpoint that was called, as text for the log is made from it.
    pub upstream: Option<SocketAddr>,
    /// Our end of the upstream connection.
    pub upstream_local: Option<SocketAddr>,
    /// The endpoint itself; known to the upstream layers and the metrics alone.
    pub endpoint: Option<Arc<dyn Any + Send + Sync>>,
    /// Why the upstream transport failed, in words.
    pub upstream_failure: Option<Box<str>>,
    /// When the response head arrived, for the upstream's service time.
    pub upstream_sent: Option<Instant>,
    /// See [`Facts::upstream_sent`].
    pub upstream_answered: Option<Instant>,
    /// Counts the bytes of the request body, when it has one.
    pub request_meter: Option<Arc<Meter>>,
    /// Trailers of the request would not go upstream: its head does not announce them, and HTTP/1 wants that.
    pub loses_trailers: bool,
    /// What went wrong; the last one names the flag in the log.
    pub reasons: SmallVec<[Reason; 2]>,
    /// Envoy's `response_code_details`, when it is more than the reason's own.
    pub details: Option<Cow<'static, str>>,
    /// Names the decision to refuse, where we did: see [`Facts::refused_by`].
    pub decision: Option<DecisionId>,
    /// Decisions that changed the outcome, for log and `explain`.
    pub records: SmallVec<[Record; 1]>,
    /// Why the connection may not be used any more: it was opened under rules that do not hold now.
    pub refused: Option<Arc<str>>,
    /// The verified token, once the layer that checks tokens has run.
    pub token: Option<Arc<Token>>,
    /// The head as it was judged, where a policy may have to judge it again while it is under way.
    pub opening: Option<Box<http::request::Parts>>,
    /// True when the request is gRPC: failures are answered as trailers-only.
    pub grpc: bool,
}

/// A decision that changed the outcome, or would have.
#[derive(Clone, Debug)]
pub struct Record {
    /// The layer that decided.
    pub layer: &'static str,
    /// The object and rule.
    pub origin: Origin,
    /// In words.
    pub because: Cow<'static, str>,
    /// The rule of a policy that decided, where one did.
    pub ruling: Option<Box<Ruling>>,
}

/// What a rule of a policy did to a request, or would have done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// `namespace/name` of the policy; empty when no policy holds and that is why.
    pub policy: Box<str>,
    /// Place of the rule in its policy, from 0. Of a refusal because no rule holds: the one that came nearest.
    pub rule: Option<u32>,
    /// What it did.
    pub effect: Effect,
    /// The clause that failed, when a request is refused because no rule holds.
    pub failed: Option<FailedClause>,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// The request was refused.
    Denied,
    /// A provider was asked and let it pass, or its failure did.
    Allowed,
    /// The request was noted, and went on.
    Audited,
    /// A policy on trial would have refused it.
    WouldDeny,
    /// A policy on trial would have let it pass.
    WouldAllow,
    /// A policy on trial would have asked its provider.
    WouldAsk,
}

/// A clause of a rule that did not hold. Bounded, and without secrets: of headers and claims it says how long they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedClause {
    /// Its key, `from.source.principals`.
    pub key: Box<str>,
    /// What it asks for.
    pub expected: Box<str>,
    /// What was there.
    pub actual: Box<str>,
}

impl Effect {
    /// True when it changed nothing.
    pub fn is_shadow(self) -> bool {
        matches!(self, Self::WouldDeny | Self::WouldAllow | Self::WouldAsk)
    }

    /// As in metrics and dumps.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Audited => "audited",
            Self::WouldDeny => "would_deny",
            Self::WouldAllow => "would_allow",
            Self::WouldAsk => "would_ask",
            Self::Allowed => "allowed",
        }
    }
}

/// Counts bytes of a body that is read somewhere else.
#[derive(Debug, Default)]
pub struct Meter {
    bytes: AtomicU64,
    trailers: AtomicBool,
}

impl Cx {
    /// The context of a request that has just arrived.
    pub fn new(connection: Arc<ConnectionFacts>, port: Slots, chain: Arc<dyn Any + Send + Sync>) -> Self {
        Self::of(connection, port, chain, Caller(None))
    }

    /// The same, of a request whose filters may call clusters of the mesh.
    pub fn calling(
        connection: Arc<ConnectionFacts>,
        port: Slots,
        chain: Arc<dyn Any + Send + Sync>,
        calls: Rc<dyn Calls>,
    ) -> Self {
        Self::of(connection, port, chain, Caller(Some(calls)))
    }

    fn of(
        connection: Arc<ConnectionFacts>,
        port: Slots,
        chain: Arc<dyn Any + Send + Sync>,
        caller: Caller,
    ) -> Self {
        Self(Rc::new(Context {
            started: Instant::now(),
            connection,
            port,
            chain,
            facts: RefCell::default(),
            caller,
            matched: OnceCell::new(),
            held: RefCell::default(),
        }))
    }

    /// Keeps something until the exchange is over: a connection that goes back to its pool, a permit.
    pub fn hold(&self, thing: Box<dyn Any>) {
        self.0.held.borrow_mut().push(thing);
    }

    /// Sends a request of our own to a cluster.
    ///
    /// # Errors
    ///
    /// As [`Calls::call`]; [`Reason::Internal`] where the exchange is on no worker.
    pub fn call(&self, call: Call) -> Answered {
        match &self.0.caller.0 {
            Some(calls) => calls.clone().call(call),
            None => Box::pin(std::future::ready(Err(
                Error::new(Reason::Internal).detail("nobody makes calls for this exchange")
            ))),
        }
    }

    /// The matched route, once the route layer has run.
    #[inline]
    pub fn matched(&self) -> Option<&Matched> {
        self.0.matched.get()
    }

    /// Sets the matched route. The first one stays: a request is routed once.
    pub fn set_matched(&self, matched: Matched) -> &Matched {
        self.0.matched.get_or_init(|| matched)
    }

    /// Notes a decision that changed the outcome.
    pub fn record(&self, layer: &'static str, origin: Origin, because: impl Into<Cow<'static, str>>) {
        self.0.facts.borrow_mut().records.push(Record {
            layer,
            origin,
            because: because.into(),
            ruling: None,
        });
    }

    /// Notes what a rule of a policy did.
    pub fn record_ruling(
        &self,
        layer: &'static str,
        origin: Origin,
        because: impl Into<Cow<'static, str>>,
        ruling: Ruling,
    ) {
        self.0.facts.borrow_mut().records.push(Record {
            layer,
            origin,
            because: because.into(),
            ruling: Some(Box::new(ruling)),
        });
    }
}

impl Deref for Cx {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.0
    }
}

impl Meter {
    /// Adds the bytes of one chunk.
    pub fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Notes that trailers ended the body.
    pub fn trailers_came(&self) {
        self.trailers.store(true, Ordering::Relaxed);
    }

    /// Whether trailers ended the body.
    pub fn had_trailers(&self) -> bool {
        self.trailers.load(Ordering::Relaxed)
    }
}

impl Protocol {
    /// As in logs and ALPN.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http/1.1",
            Self::Http2 => "h2c",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
        }
    }
}
