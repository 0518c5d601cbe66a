//! What access policies do before anything else looks at a request: headers that are theirs to write are taken from the client, so that every
//! layer judges what is forwarded. And after everything else: refused attempts are counted.

use super::compile;
use super::memory::{Memory, Source};
use super::risk::TrustedHeader;
use super::settings::{Policy, Settings};
use crate::attributes::{Attributes, View, is_alike};
use crate::settings::DestinationPort;
use filter_api::{ConnectionFacts, Filter, FilterPlace, Keep, Request, Response, Spec, Step};
use http::{HeaderMap, HeaderName, StatusCode};
use std::sync::Arc;
use std::time::SystemTime;

/// The outer half of access policies. See the module.
///
/// An attempt is refused when it is answered by 401 or 403 (gRPC 16 or 7), be it by this proxy (a bad token, a policy) or by the application.
#[derive(Debug)]
pub struct Arrival;

/// What it needs of the policies.
#[derive(Debug, Default)]
pub struct Compiled {
    /// Headers that rules add.
    own: Vec<HeaderName>,
    /// Headers that only some peers are believed.
    trusted: Vec<TrustedHeader>,
    /// Where refused attempts are counted.
    memories: Vec<Arc<Memory>>,
}

impl Compiled {
    /// Takes away what the client may not say.
    pub fn strip(&self, headers: &mut HeaderMap, connection: &ConnectionFacts) {
        let attributes = Attributes::of_connection(connection);
        let view = View::new(&attributes, DestinationPort::Unknown);
        let believed = |name: &HeaderName| {
            self.trusted.iter().any(|header| header.name == *name && header.trusts(&view))
        };
        for name in &self.own {
            remove(headers, name);
        }
        for header in self.trusted.iter().filter(|header| !believed(&header.name)) {
            remove(headers, &header.name);
        }
    }

    fn new(settings: &Settings, keep: &Keep) -> Result<Self, String> {
        let mut compiled = Self::default();
        for policy in &*settings.policies {
            let mut faults = Vec::new();
            let (judge, rules) = compile::judge(policy, 0, keep, &mut faults);
            if let Some(fault) = faults.first() {
                return Err(format!("{} {} {}; {}", judge.name, fault.field, fault.message, fault.hint));
            }
            if policy.risk.failed_attempts > 0.0 {
                compiled.memories.extend(judge.risk.memory);
            }
            if policy.shadow {
                continue;
            }
            compiled.trusted.extend(judge.risk.header);
            let names = rules.into_iter().flat_map(|(_, terms)| terms.headers).map(|(name, _)| name);
            for name in names {
                if !compiled.own.contains(&name) {
                    compiled.own.push(name);
                }
            }
        }
        Ok(compiled)
    }
}

/// Whether policies have anything to do before and after the others.
pub fn needs_arrival(policies: &[Policy]) -> bool {
    policies.iter().any(|policy| {
        let adds = policy.rules.iter().any(|rule| !rule.add_headers.is_empty());
        (!policy.shadow && (adds || policy.risk.header.is_some())) || policy.risk.failed_attempts > 0.0
    })
}

/// Every spelling that an application may take for this header.
fn remove(headers: &mut HeaderMap, name: &HeaderName) {
    headers.remove(name);
    if name.as_str().contains(['-', '_']) {
        let alike: Vec<_> = headers.keys().filter(|other| is_alike(other, name)).cloned().collect();
        for other in alike {
            headers.remove(other);
        }
    }
}

impl Spec for Arrival {
    const NAME: &'static str = "access_arrival";
    type Settings = Settings;
    type Compiled = Compiled;

    fn compile(settings: &Settings, keep: &Keep) -> Result<Compiled, String> {
        Compiled::new(settings, keep)
    }
}

impl Filter for Arrival {
    const PLACE: FilterPlace = FilterPlace::Port;
    const AFTER: bool = true;
    const ENDS: bool = false;
    type State = Option<u64>;

    fn on_request(settings: &[Compiled], mut request: Request) -> Step<Option<u64>> {
        let cx = &request.cx;
        let mut counts = false;
        for compiled in settings {
            compiled.strip(&mut request.head.headers, &cx.connection);
            counts |= !compiled.memories.is_empty();
        }
        let source = counts.then(|| {
            let connection = &cx.connection;
            let client = cx.facts.borrow().client.unwrap_or_else(|| connection.remote.ip());
            let attributes = Attributes { client, ..Attributes::of_connection(connection) };
            let view = View::new(&attributes, DestinationPort::Unknown);
            Source::new(connection, view.principal, view.client).digest()
        });
        Step::Continue(request, source)
    }

    fn on_response(settings: &[Compiled], source: &mut Option<u64>, response: &mut Response) {
        let Some(source) = source.map(Source::from_digest).filter(|_| is_refusal(response)) else { return };
        let now = SystemTime::now();
        for memory in settings.iter().flat_map(|compiled| &compiled.memories) {
            memory.fail(source, now);
        }
    }
}

fn is_refusal(response: &Response) -> bool {
    let grpc = || response.head.headers.get("grpc-status").map(http::HeaderValue::as_bytes);
    matches!(response.head.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
        || matches!(grpc(), Some(b"7" | b"16"))
}
