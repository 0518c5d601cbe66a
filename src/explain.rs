//! Which way a request would take, and why: the same engine as the data path, asked without sending anything.

mod access;
mod arrive;
mod keys;
mod policy;
mod question;
mod text;
mod token;
mod walk;

pub use keys::lend_keys;
pub use question::{Question, QuestionError, Tls};

use crate::mesh::Health;
use crate::snapshot::Snapshot;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The way of one request through one proxy.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The request, `GET http://reviews/`.
    pub request: String,
    /// Where it arrives; `None` when the proxy has no listener for it.
    pub listener: Option<Part>,
    /// What the answer takes for granted, and whoever reads it has to know.
    pub notes: Vec<String>,
    /// What was changed in its head before anything read it.
    pub canonical: Vec<String>,
    /// The rules that were asked about its token, in order.
    pub tokens: Vec<Step>,
    /// The rules of authorization policies that were asked, in order.
    pub policies: Vec<Step>,
    /// Whether it may pass, and who says so; `None` when it was refused before anybody was asked.
    pub decision: Option<Decided>,
    /// The route table that was asked.
    pub table: Option<String>,
    /// What was looked at, in order: virtual host, then rules until one matched.
    pub rules: Vec<Step>,
    /// The rule that matched.
    pub route: Option<Part>,
    /// Where the rule leads to, by weight. Empty when it leads nowhere.
    pub destinations: Vec<Way>,
    /// What becomes of it.
    pub outcome: Outcome,
}

/// A named part of the configuration, and where it was written.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    /// Its name; may be empty.
    pub name: String,
    /// Object, field and place.
    pub origin: String,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Did it hold?
    pub held: bool,
    /// In words: what was expected and what was there.
    pub because: String,
    /// Object, field and place.
    pub origin: String,
}

/// Whether a request may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Verdict {
    /// It may.
    Allow,
    /// It may not.
    Deny,
    /// It may once the caller proves more.
    StepUp,
}

/// Who decided whether a request may pass.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Decided {
    /// What was decided.
    pub verdict: Verdict,
    /// `AuthorizationPolicy shop/cart rule 0`; `no ALLOW rule` when there are ALLOW policies and none of them allows it; empty when nothing had to.
    pub by: String,
    /// The other rules that had to allow it, and do.
    pub also: Vec<String>,
    /// Object, field and place.
    pub origin: String,
    /// Of a refusal because no rule holds: the first clause that fails of the rule that came nearest.
    pub clause: Option<Clause>,
}

/// A clause that does not hold.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Clause {
    /// Its rule, `AuthorizationPolicy shop/cart rule 0`.
    pub rule: String,
    /// Its key, `from.source.principals`.
    pub key: String,
    /// What it asks for.
    pub expected: String,
    /// What was there; of headers and claims no more than their length.
    pub actual: String,
    /// Object, field and place.
    pub origin: String,
}

/// One destination of the rule.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Way {
    /// Its share of the requests, in percent.
    pub percent: f64,
    /// The cluster; empty for a rule that answers by itself.
    pub cluster: String,
    /// Object, field and place.
    pub origin: String,
    /// What filters change or answer on this way.
    pub changes: Vec<Step>,
    /// How an endpoint is chosen.
    pub balance: Option<String>,
    /// Time for the whole exchange and time to connect, as in `total 3s`.
    pub timeouts: Vec<String>,
    /// Who is called, one of them.
    pub endpoints: Vec<Callee>,
    /// What becomes of requests that go this way.
    pub outcome: Outcome,
}

/// An endpoint.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Callee {
    /// Where it is.
    pub address: String,
    /// Its workload and version, as far as they are known.
    pub workload: String,
    /// Its share, relative to the others.
    pub weight: u32,
    /// What discovery says of it.
    pub health: Health,
    /// Object, field and place.
    pub origin: String,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Outcome {
    /// It is sent on.
    Forwarded,
    /// The rule answers it by itself.
    Answered {
        /// HTTP status.
        status: u16,
        /// Where a redirect leads to.
        location: Option<String>,
    },
    /// The proxy refuses it.
    Refused {
        /// HTTP status; 0 when the connection is closed without an answer.
        status: u16,
        /// Envoy's response flag.
        flag: &'static str,
        /// Why.
        why: String,
        /// What to do; may be empty.
        hint: String,
    },
}

impl Outcome {
    /// True when the proxy refuses the request.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

/// Explains what this snapshot would do with a request. Nothing is sent, counted or spent.
#[must_use]
pub fn explain(snapshot: &Snapshot, question: &Question) -> Explanation {
    walk::walk(snapshot, question)
}
