//! The contract between Sidegate's stack and its filters.
//!
//! A filter is a crate: its settings (what a source can say), its compiled form (ready to run), its pure decision, its hooks, its tests. It knows
//! neither where settings come from nor any other filter. [`FilterLayer`] turns the four hooks of a [`Filter`] into a tower layer with a named
//! future: a filter that is off costs one branch, and one that answers at once costs no allocation. What has to wrap the call (a timeout, a
//! retry) implements `tower::Layer` itself.

mod adapter;
mod body;
mod calls;
mod context;
mod decision;
mod end;
mod error;
mod filter;
mod identity;
mod keep;
mod origin;
pub mod re2;
mod replay;
mod slots;
mod trace;

pub use adapter::{FilterFuture, FilterLayer, FilterService, admit};
pub use body::{Body, BoxBody, H2Body, trim_values};
pub use calls::{Answer, Answered, Call, Calls};
pub use context::{
    ConnectionFacts, Context, Cx, Effect, Facts, FailedClause, Matched, Meter, Protocol, Record, Ruling,
};
pub use decision::{DecisionId, NoDecisionId, refusal};
pub use end::{End, Observer, Observers, Outcome};
pub use error::{Error, Fault, Reason};
pub use filter::{Filter, Next, Place as FilterPlace, Spec, Step, Verdict};
pub use identity::{Peer, Principal, TlsFacts, Token};
pub use keep::Keep;
pub use origin::{Locate, ObjectName, Origin, Place, Source};
pub use replay::Replay;
pub use slots::{Slot, Slots};
pub use trace::{NoTrace, Trace, TraceStep};

/// A request on its way through the stack.
#[derive(Debug)]
pub struct Request {
    /// Method, target, version, headers.
    pub head: http::request::Parts,
    /// What follows the head.
    pub body: Body,
    /// What the stack knows of it; owned by the outermost layer, shared by the others.
    pub cx: Cx,
}

/// A response on its way back.
#[derive(Debug)]
pub struct Response {
    /// Status, version, headers.
    pub head: http::response::Parts,
    /// What follows the head.
    pub body: Body,
}

impl Response {
    /// An empty response of this status.
    pub fn new(status: http::StatusCode) -> Self {
        let (mut head, ()) = http::Response::new(()).into_parts();
        head.status = status;
        Self { head, body: Body::empty() }
    }

    /// The same with a body; sets no header.
    pub fn with_body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }
}
