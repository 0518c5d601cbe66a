//! Asks a provider about a request: `action: CUSTOM`, which is Envoy's `ext_authz` over gRPC or HTTP.
//!
//! A request that a CUSTOM rule holds for waits here for the verdict. What the provider sees is what will be forwarded: the canonical head, and the
//! very bytes of the body. Stricter than Envoy, for a decision may be wrong only towards deny:
//!
//! - an answer that cannot be followed refuses even where failures let pass: too long, garbled, or with changes that would send the request elsewhere
//!   than it was judged for (`:path`, `Host`, query parameters);
//! - of headers that a provider over HTTP gives to the upstream (`headersToUpstreamOnAllow`) those that the client wrote are removed, unless the
//!   provider was shown them: nobody but the provider says who the user is, be it by failing open;
//! - no provider changes what frames a message, what belongs to a connection, or `x-forwarded-client-cert`.
//!
//! DENY and ALLOW policies then judge the request as the provider left it.

mod body;
mod cache;
mod counts;
mod grpc;
mod http;
mod proto;
mod settings;
#[cfg(test)]
mod tests;
mod verdict;

pub use counts::ProviderCounts;
pub use settings::{BodyInCheck, Custom, Failures, HttpCheck, OnFailure, Protocol, Provider};

pub(crate) use grpc::read as read_grpc;
pub use verdict::Change;
pub(crate) use verdict::{Verdict, apply};

use crate::answer;
use crate::attributes::{Attributes, RequestAttributes};
use crate::decide::{Compiled, Outcome, RuleRef, decide, decide_after};
use crate::settings::{Action, Settings};
use ::http::header::{CONTENT_LENGTH, UPGRADE};
use ::http::{HeaderValue, Method, StatusCode, request};
use body::Beginning;
use cache::Cache;
use filter_api::{Call, ConnectionFacts, Cx, Error, Keep, NoTrace, Reason, Request, Step};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use verdict::{Failure, Refusal};

/// Bytes of a provider's answer that are read. A refusal over HTTP whose body is longer goes out without it.
const MOST: usize = 64 * 1024;

/// What a response gets from the provider that let its request pass.
pub(crate) type Onward = Option<Box<[Change]>>;

/// A provider, ready to be asked.
#[derive(Debug)]
pub(crate) struct Asker {
    name: Box<str>,
    cluster: Arc<str>,
    speaks: Speaks,
    timeout: Duration,
    fail_open: bool,
    status_on_error: StatusCode,
    body: Option<BodyInCheck>,
    counts: Arc<ProviderCounts>,
}

/// A question to a provider.
#[derive(Debug)]
pub struct Ask<'c> {
    /// The CUSTOM rule that holds.
    pub rule: RuleRef<'c>,
    pub(crate) asker: &'c Asker,
    pub(crate) terms: &'c Terms,
}

/// What a CUSTOM policy says besides of its provider.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    failures: Failures,
    cache: Option<Arc<Cache>>,
}

#[derive(Debug)]
enum Speaks {
    Grpc { host: HeaderValue, as_bytes: bool },
    Http(Box<http::Http>),
}

impl Terms {
    pub(crate) fn new(action: &Action, settings: &Settings, keep: &Keep) -> Self {
        let Action::Custom { failures, cache, .. } = action else { return Self::default() };
        // Whatever changes the question or the time begins anew. Hashed, as headers that are added may be secrets.
        let shared = |ttl: &Duration| {
            let mut hasher = rustc_hash::FxHasher::default();
            format!("{ttl:?} {:?}", settings.custom).hash(&mut hasher);
            keep.share(&format!("custom {:016x}", hasher.finish()), || Cache::new(*ttl))
        };
        Self { failures: *failures, cache: cache.as_ref().map(shared) }
    }
}

/// What a provider is asked about.
struct Question<'a> {
    head: &'a request::Parts,
    body: Option<&'a Beginning>,
    connection: &'a ConnectionFacts,
    time: SystemTime,
}

impl Asker {
    /// Who is asked where a CUSTOM rule holds; else why nobody can be.
    pub(crate) fn of(settings: &Settings, keep: &Keep) -> Result<Self, Box<str>> {
        match settings.custom.as_deref() {
            None => Err("the mesh has no such provider".into()),
            Some(Custom::Unaskable(why)) => Err(why.as_str().into()),
            Some(Custom::Provider(provider)) => Self::new(provider, keep).map_err(Into::into),
        }
    }

    /// Ready to be asked. The error names the field.
    fn new(provider: &Provider, keep: &Keep) -> Result<Self, String> {
        let speaks = match &provider.protocol {
            Protocol::Grpc => {
                let host = HeaderValue::try_from(&provider.host);
                let host = host.map_err(|_| format!("service `{}` is no host", provider.host))?;
                let as_bytes = provider.body.as_ref().is_some_and(|body| body.as_bytes);
                Speaks::Grpc { host, as_bytes }
            }
            Protocol::Http(written) => Speaks::Http(Box::new(http::Http::new(written)?)),
        };
        let status =
            StatusCode::from_u16(provider.status_on_error).ok().filter(|status| status.as_u16() >= 200);
        Ok(Self {
            name: provider.name.as_str().into(),
            cluster: provider.cluster.as_str().into(),
            speaks,
            timeout: provider.timeout,
            fail_open: provider.fail_open,
            status_on_error: status.ok_or("statusOnError is no status of an answer")?,
            body: provider.body.clone(),
            counts: keep.share(&provider.name, || ProviderCounts::new(&provider.name)),
        })
    }

    /// What it says of a request, and whether it said so before.
    async fn verdict(
        &self,
        asked: &Question<'_>,
        cx: &Cx,
        cache: Option<&Cache>,
    ) -> Result<(Arc<Verdict>, bool), Failure> {
        let (head, body, key) = match &self.speaks {
            Speaks::Grpc { host, as_bytes } => {
                let question = grpc::question(asked, *as_bytes);
                let (head, body) = grpc::call(&question, host, self.timeout);
                (head, body, cache.map(|_| grpc::key(question)))
            }
            Speaks::Http(http) => {
                let question = http.question(asked)?;
                let key = cache.map(|_| http.key(&question));
                (question.0, question.1, key)
            }
        };
        let kept = cache.zip(key);
        if let Some(found) = kept.as_ref().and_then(|(cache, key)| cache.find(key, Instant::now())) {
            return Ok((found, true));
        }
        let call = Call { cluster: self.cluster.clone(), head, body, timeout: self.timeout, most: MOST };
        let answer = cx.call(call).await.map_err(|error| failure(&error))?;
        let verdict = Arc::new(match &self.speaks {
            Speaks::Grpc { .. } => grpc::verdict(&answer)?,
            Speaks::Http(http) => http.verdict(&answer)?,
        });
        if let Some((cache, key)) = kept {
            cache.insert(&key, verdict.clone(), Instant::now());
        }
        Ok((verdict, false))
    }

    /// The status of the refusal where there is no verdict; `None`: the request goes on.
    fn without(&self, failure: &Failure, failures: &Failures) -> Option<StatusCode> {
        let said = match failure {
            Failure::Timeout => failures.timeout,
            Failure::Unreachable(_) => failures.unreachable,
            Failure::Error(_) => failures.error,
            Failure::Unreadable(_) | Failure::Unaskable(_) => Some(OnFailure::Deny),
        };
        match said {
            Some(OnFailure::Allow) => None,
            None if self.fail_open => None,
            Some(OnFailure::Status(status)) => {
                StatusCode::from_u16(status).ok().or(Some(self.status_on_error))
            }
            Some(OnFailure::Deny) | None => Some(self.status_on_error),
        }
    }

    /// Reads what the provider is to see of the body; `None` when it is to see nothing, or there is none.
    async fn read_body(&self, request: &mut Request) -> Result<Option<Beginning>, Error> {
        let Some(wanted) = &self.body else { return Ok(None) };
        let tunnel = request.head.method == Method::CONNECT || request.head.headers.contains_key(UPGRADE);
        if tunnel || request.body.is_empty() {
            return Ok(None);
        }
        let most = wanted.most as usize;
        let too_long = || {
            let name = &self.name;
            let detail = format!(
                "its body is longer than the {most} bytes (maxRequestBytes) that provider {name} takes"
            );
            Err(Error::new(Reason::BodyTooLarge).detail(detail).closing())
        };
        let length = request.head.headers.get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if !wanted.partial && length.is_some_and(|length| length > most) {
            return too_long();
        }
        let (beginning, whole) = body::begin(std::mem::take(&mut request.body), most).await?;
        request.body = whole;
        if beginning.partial && !wanted.partial {
            return too_long();
        }
        Ok(Some(beginning))
    }
}

impl Ask<'_> {
    /// The name of the provider.
    pub fn provider(&self) -> &str {
        &self.asker.name
    }
}

/// Whether a provider can be asked as it is written, as far as its own fields tell. The error names the field.
pub fn check_provider(provider: &Provider) -> Result<(), String> {
    Asker::new(provider, &Keep::default()).map(drop)
}

/// Judges a request by lists of policies, the first of which asks a provider.
pub(crate) async fn judge(mut request: Request, lists: Vec<Arc<Compiled>>) -> Step<Onward> {
    let mut onward = Vec::new();
    for compiled in &lists {
        let decision = with_attributes(&request, |attributes| decide(compiled, attributes, &mut NoTrace));
        answer::note(&decision, &request.cx);
        let outcome = match decision.outcome {
            Outcome::Ask(ask) => {
                match put(&ask, &mut request, &mut onward).await {
                    Ok(None) => {}
                    Ok(Some(refusal)) => {
                        let grpc = {
                            let mut facts = request.cx.facts.borrow_mut();
                            // The words are the provider's; the decision has its id all the same, for log, header and `explain`.
                            facts.refused_by();
                            facts.grpc
                        };
                        return Step::Reply(refusal.answer(grpc));
                    }
                    Err(error) => return Step::Fail(error),
                }
                with_attributes(&request, |attributes| decide_after(compiled, attributes, &mut NoTrace))
            }
            other => other,
        };
        if let Some(response) = answer::settle(&outcome, &request.cx) {
            return Step::Reply(response);
        }
    }
    Step::Continue(request, (!onward.is_empty()).then(|| onward.into_boxed_slice()))
}

/// Asks, and follows the verdict; a refusal when the request may not go on.
async fn put(
    ask: &Ask<'_>,
    request: &mut Request,
    onward: &mut Vec<Change>,
) -> Result<Option<Refusal>, Error> {
    let asker = ask.asker;
    let body = asker.read_body(request).await.inspect_err(|error| {
        if error.reason() == Reason::BodyTooLarge {
            answer::asked(ask, &request.cx, Err((error.detail_str(), true)));
        }
    })?;
    let asked = Question {
        head: &request.head,
        body: body.as_ref(),
        connection: &request.cx.connection,
        time: SystemTime::now(),
    };
    let verdict = asker.verdict(&asked, &request.cx, ask.terms.cache.as_deref()).await;
    if let Speaks::Http(http) = &asker.speaks {
        http.strip(&mut request.head.headers);
    }
    let cx = &request.cx;
    let (reason, refusal) = match verdict {
        Ok((verdict, kept)) => {
            asker.counts.verdict(&verdict, kept);
            answer::asked(ask, cx, Ok((&verdict, kept)));
            match &*verdict {
                Verdict::Allow(changes) => {
                    changes.apply(&mut request.head.headers);
                    onward.extend_from_slice(&changes.response);
                    return Ok(None);
                }
                Verdict::Deny(refusal) => (Reason::ExternalDenied, refusal.clone()),
            }
        }
        Err(failure) => {
            let status = asker.without(&failure, &ask.terms.failures);
            asker.counts.failure(&failure, status.is_none());
            answer::asked(ask, cx, Err((&failure.to_string(), status.is_some())));
            match status {
                None => return Ok(None),
                Some(status) => (Reason::ExternalFailed, Refusal::bare(status)),
            }
        }
    };
    let mut facts = cx.facts.borrow_mut();
    facts.reasons.push(reason);
    facts.details = Some(reason.details().into());
    drop(facts);
    Ok(Some(refusal))
}

fn with_attributes<T>(request: &Request, with: impl FnOnce(&Attributes<'_>) -> T) -> T {
    let cx = &request.cx;
    let (client, token) = {
        let facts = cx.facts.borrow();
        (facts.client, facts.token.clone())
    };
    with(&Attributes {
        connection: &cx.connection,
        client: client.unwrap_or_else(|| cx.connection.remote.ip()),
        request: Some(RequestAttributes { head: &request.head, token: token.as_deref() }),
    })
}

/// Why a call gave no answer. What may be the question's own fault is no failure of the provider: else a client could have its requests pass where
/// failures do (CVE-2024-23324).
fn failure(error: &Error) -> Failure {
    match error.reason() {
        Reason::RequestTimeout => Failure::Timeout,
        Reason::UpstreamReset | Reason::UpstreamProtocol => Failure::Error(error.to_string()),
        Reason::NoCluster
        | Reason::NoHealthyUpstream
        | Reason::UpstreamOverflow
        | Reason::ConnectFailure
        | Reason::ConnectTimeout
        | Reason::UpstreamClosed
        | Reason::DnsFailure
        | Reason::Loop => Failure::Unreachable(error.to_string()),
        _ => Failure::Unaskable("the question has no form that could be sent"),
    }
}
