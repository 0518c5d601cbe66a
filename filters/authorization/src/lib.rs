//! Who may do what: Istio's AuthorizationPolicy, and [AccessPolicy](access) beyond it.
//!
//! Policies are tried in Istio's order: CUSTOM, DENY, ALLOW; once there is an ALLOW policy, what none of them allows is refused. AUDIT is recorded,
//! policies on trial (`istio.io/dry-run`) are decided and recorded and change nothing. The decision is made on what is forwarded: the canonical
//! path without query, the one host, the headers as they are.
//!
//! What cannot be told never opens anything: a rule that refuses acts unless it certainly does not hold, one that allows only when it certainly
//! does. Where that differs from Istio it refuses more:
//!
//! - a header that occurs several times is read each way a receiver might read it; DENY acts on any of them, ALLOW needs all;
//! - a header of nearly that name (`x_user` for `x-user`) can make DENY act, never ALLOW;
//! - a host without a port in a policy means that host at any port;
//! - `{*}` and `{**}` in paths take any byte;
//! - a provider whose answer cannot be followed refuses, whatever its `failOpen` says (see `custom.rs`).
//!
//! CUSTOM rules send a request to a provider, over gRPC or HTTP, and wait for its verdict. Connections that are no HTTP are refused where such a rule
//! holds.

pub mod access;
mod answer;
mod attributes;
mod clause;
mod compile;
mod custom;
mod decide;
mod engine;
mod fuzz;
mod index;
mod key;
mod pattern;
mod rule;
mod settings;
mod template;
#[cfg(test)]
mod tests;
mod truth;
mod user;

pub use attributes::{Attributes, HeadersUnknown, RequestAttributes};
pub use compile::{Fault, check};
pub use custom::{
    Ask, BodyInCheck, Change, Custom, Failures, HttpCheck, OnFailure, Protocol as ProviderProtocol, Provider,
    ProviderCounts, check_provider,
};
pub use decide::{
    Compiled, Decision, Denial, Nearest, Outcome, RuleRef, Shadow, ShadowOf, decide, decide_after,
};
pub use fuzz::{fuzz_check_response, fuzz_paths};
pub use settings::{Action, Condition, DestinationPort, Operation, Policy, Rule, Settings, Source};

use filter_api::{
    ConnectionFacts, Error, Filter, FilterPlace, Keep, NoTrace, Protocol, Reason, Request, Response, Spec,
    Step, Verdict,
};
use std::sync::Arc;

/// The filter. See the crate's documentation.
#[derive(Debug)]
pub struct Authorization;

impl Spec for Authorization {
    const NAME: &'static str = "authorization";
    type Settings = Settings;
    // Shared with the requests that wait for a provider.
    type Compiled = Arc<Compiled>;

    fn compile(settings: &Settings, keep: &Keep) -> Result<Arc<Compiled>, String> {
        Compiled::new(settings, keep).map(Arc::new)
    }
}

impl Filter for Authorization {
    const PLACE: FilterPlace = FilterPlace::Port;
    const AFTER: bool = true;
    const ENDS: bool = false;
    /// What a provider gives to the response.
    type State = Option<Box<[Change]>>;

    /// Judges a connection that is no HTTP by the rules that speak of connections. The requests of HTTP are judged one by one.
    fn on_connection(settings: &[Arc<Compiled>], connection: &ConnectionFacts) -> Verdict<Self::State> {
        if matches!(connection.protocol, Protocol::Http1 | Protocol::Http2) {
            return Verdict::Continue(None);
        }
        let attributes = Attributes::of_connection(connection);
        for compiled in settings {
            let (details, record) = match decide(compiled, &attributes, &mut NoTrace).outcome {
                Outcome::Allowed(_) => continue,
                Outcome::Denied(denial) => (denial.details(), answer::recorded(&denial)),
                Outcome::Ask(ask) => {
                    let denial = Denial::Custom(ask.rule, "it is asked about HTTP alone");
                    (Reason::ExternalFailed.details().to_owned(), answer::recorded(&denial))
                }
            };
            return Verdict::Refuse(Error::new(Reason::AccessDenied).detail(details).record(record));
        }
        Verdict::Continue(None)
    }

    /// Several lists of policies have to allow a request, each for itself.
    fn on_request(settings: &[Arc<Compiled>], request: Request) -> Step<Self::State> {
        let cx = &request.cx;
        let (client, token) = {
            let facts = cx.facts.borrow();
            (facts.client, facts.token.clone())
        };
        let attributes = Attributes {
            connection: &cx.connection,
            client: client.unwrap_or_else(|| cx.connection.remote.ip()),
            request: Some(RequestAttributes { head: &request.head, token: token.as_deref() }),
        };
        for (at, compiled) in settings.iter().enumerate() {
            let decision = decide(compiled, &attributes, &mut NoTrace);
            if matches!(decision.outcome, Outcome::Ask(_)) {
                let lists = settings.iter().skip(at).cloned().collect();
                return Step::Wait(Box::pin(custom::judge(request, lists)));
            }
            answer::note(&decision, cx);
            if let Some(response) = answer::settle(&decision.outcome, cx) {
                return Step::Reply(response);
            }
        }
        Step::Continue(request, None)
    }

    fn stays(changes: &Self::State) -> bool {
        changes.is_some()
    }

    fn on_response(_: &[Arc<Compiled>], changes: &mut Self::State, response: &mut Response) {
        custom::apply(changes.as_deref().unwrap_or_default(), &mut response.head.headers);
    }
}
