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
//! - a CUSTOM rule that holds refuses, until providers can be asked.

pub mod access;
mod answer;
mod attributes;
mod clause;
mod compile;
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
pub use decide::{Compiled, Decision, Denial, Nearest, Outcome, RuleRef, Shadow, decide};
pub use fuzz::fuzz_paths;
pub use settings::{Action, Condition, DestinationPort, Operation, Policy, Rule, Settings, Source};

use filter_api::{
    ConnectionFacts, Error, Filter, FilterPlace, NoTrace, Protocol, Reason, Request, Spec, Step, Verdict,
};

/// The filter. See the crate's documentation.
#[derive(Debug)]
pub struct Authorization;

impl Spec for Authorization {
    const NAME: &'static str = "authorization";
    type Settings = Settings;
    type Compiled = Compiled;

    fn compile(settings: &Settings, _: &filter_api::Keep) -> Result<Compiled, String> {
        Compiled::new(settings)
    }
}

impl Filter for Authorization {
    const PLACE: FilterPlace = FilterPlace::Port;
    const AFTER: bool = false;
    type State = ();

    /// Judges a connection that is no HTTP by the rules that speak of connections. The requests of HTTP are judged one by one.
    fn on_connection(settings: &[Compiled], connection: &ConnectionFacts) -> Verdict<()> {
        if matches!(connection.protocol, Protocol::Http1 | Protocol::Http2) {
            return Verdict::Continue(());
        }
        let attributes = Attributes::of_connection(connection);
        for compiled in settings {
            if let Outcome::Denied(denial) = decide(compiled, &attributes, &mut NoTrace).outcome {
                return Verdict::Refuse(Error::new(Reason::AccessDenied).detail(denial.details()));
            }
        }
        Verdict::Continue(())
    }

    /// Several lists of policies have to allow a request, each for itself.
    fn on_request(settings: &[Compiled], request: Request) -> Step<()> {
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
        for compiled in settings {
            let decision = decide(compiled, &attributes, &mut NoTrace);
            if let Some(response) = answer::act(&decision, cx) {
                return Step::Reply(response);
            }
        }
        Step::Continue(request, ())
    }
}
