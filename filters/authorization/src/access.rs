//! Zero trust beyond AuthorizationPolicy: `kind: AccessPolicy`. A request has to be allowed by both.
//!
//! The engine is that of AuthorizationPolicy: the same keys, patterns and index, the same care for what cannot be told, which allows nothing. What
//! is added: windows of time, the kind of TLS, the age of tokens and certificates, a risk, roles and permissions, and three effects, of which the
//! first rule that holds decides.
//!
//! - Several policies: their rules are tried in the order of the policies as one list. Limits of sessions and permissions hold for each policy;
//!   without a rule that holds, a request passes only if all policies say so.
//! - Limits are about what is there: who must bring a token or a certificate is for rules to say. `session.age` without a token is longer than any.
//! - A request that permissions cover needs one of them, whatever a rule says. Permissions only restrict; a rule allows by `request.permissions`.
//! - A source (see `memory`) is new until a request of it was allowed: trying again does not make it known.
//! - A connection that is no HTTP is judged by what speaks of connections; a policy with permissions for some requests refuses it.

mod answer;
mod arrival;
mod compile;
mod decide;
mod grants;
mod memory;
mod question;
mod refusal;
mod risk;
mod score;
mod settings;
mod window;

pub use arrival::{Arrival, Compiled as CompiledArrival, needs_arrival};
pub use compile::check;
pub use decide::{Compiled, Decision, Nearest, RuleRef, Verdict, decide};
pub(crate) use question::{Facts, Question};
pub use refusal::{PolicyRef, Refusal};
pub use settings::{
    Condition, Day, Effect, Match, Permission, Policy, Risk, RiskHeader, Role, Rule, Session, Settings,
    Threshold, Within,
};

use crate::attributes::{Attributes, RequestAttributes};
use filter_api::{
    ConnectionFacts, Error, Filter, FilterPlace, Keep, NoTrace, Protocol, Reason, Request, Spec, Step,
    Verdict as Admission,
};
use http::request;
use std::time::SystemTime;

/// The filter. See the module.
#[derive(Debug)]
pub struct Access;

impl Spec for Access {
    const NAME: &'static str = "access";
    type Settings = Settings;
    type Compiled = Compiled;

    fn compile(settings: &Settings, keep: &Keep) -> Result<Compiled, String> {
        Compiled::new(settings, keep)
    }
}

impl Filter for Access {
    const PLACE: FilterPlace = FilterPlace::Port;
    const AFTER: bool = false;
    type State = ();

    /// Judges a connection that is no HTTP by the rules that speak of connections. The requests of HTTP are judged one by one.
    fn on_connection(settings: &[Compiled], connection: &ConnectionFacts) -> Admission<()> {
        if matches!(connection.protocol, Protocol::Http1 | Protocol::Http2) {
            return Admission::Continue(());
        }
        let (attributes, now) = (Attributes::of_connection(connection), SystemTime::now());
        for compiled in settings {
            let decision = decide(compiled, &attributes, now, &mut NoTrace);
            compiled.settle(&decision, now);
            if let Verdict::Refused(refusal) = &decision.verdict {
                compiled.settle_refused(&decision, now);
                let error = Error::new(Reason::AccessDenied).detail(refusal.details());
                return Admission::Refuse(error.record(refusal.record()));
            }
        }
        Admission::Continue(())
    }

    fn on_request(settings: &[Compiled], mut request: Request) -> Step<()> {
        let now = SystemTime::now();
        if settings.iter().any(Compiled::revokes_existing) {
            request.cx.facts.borrow_mut().opening = Some(kept(&request.head));
        }
        for compiled in settings {
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
            let decision = decide(compiled, &attributes, now, &mut NoTrace);
            compiled.settle(&decision, now);
            if let Some(response) = answer::act(&decision, cx, &mut request.head.headers) {
                return Step::Reply(response);
            }
        }
        Step::Continue(request, ())
    }
}

/// What of a head policies judge, to be judged again.
fn kept(head: &request::Parts) -> Box<request::Parts> {
    let (mut kept, ()) = http::Request::new(()).into_parts();
    kept.method.clone_from(&head.method);
    kept.uri.clone_from(&head.uri);
    kept.version = head.version;
    kept.headers.clone_from(&head.headers);
    Box::new(kept)
}
