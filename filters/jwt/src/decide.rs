//! The pure decision: which of the tokens of a request holds.
//!
//! Istio gives Envoy one provider for each rule and asks that any of them vouches for the request, or that no rule finds a token. So the first
//! rule that verifies all tokens in its own places wins and the others are not asked; a token that no rule takes is refused.

use crate::Refusal;
use crate::cache::Verified;
use crate::keys::{KeySet, Without};
use crate::places::Place;
use crate::provider::{Provider, Unverified};
use filter_api::{Origin, Trace, TraceStep};
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};
use http::request::Parts;
use http::{HeaderValue, Method};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

/// The rules of a port, ready to run. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Compiled {
    pub(crate) providers: Arc<[Arc<Provider>]>,
    pub(crate) broken: Arc<[Origin]>,
}

impl Compiled {
    /// The rules, in the order in which they are asked.
    pub fn providers(&self) -> impl Iterator<Item = &Provider> {
        self.providers.iter().map(|provider| &**provider)
    }
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Decision {
    /// It brings no token, and goes on without.
    Missing,
    /// It brings one that holds.
    Verified {
        /// The rule that vouches for it.
        provider: Arc<Provider>,
        /// The token.
        verified: Arc<Verified>,
    },
    /// It is refused.
    Refuse {
        /// Why.
        refusal: Refusal,
        /// The rule that says so.
        origin: Origin,
        /// Keys that should be fetched on this occasion, and the `kid` that is missing.
        ask: Option<(Arc<KeySet>, Option<Box<str>>)>,
    },
    /// The keys are on their way for the first time.
    Wait(Arc<KeySet>),
}

/// What one rule says of a request.
enum Opinion {
    Missing,
    Verified(Arc<Verified>),
    Refused(Refusal, Option<(Arc<KeySet>, Option<Box<str>>)>),
    Wait(Arc<KeySet>),
}

/// Judges a request head. Pure but for the cache of verified tokens: the layer, `explain` and the tests all ask here.
pub fn decide(settings: &[Compiled], head: &Parts, now: SystemTime, trace: &mut impl Trace) -> Decision {
    if is_preflight(head) {
        return Decision::Missing;
    }
    if let Some(decision) = closed(settings, || brings_any(settings, head), trace) {
        return decision;
    }
    judge(settings, |provider| opinion(provider, head, now), trace)
}

/// What would be decided of a token with these claims, were its signature good: for `explain` and policy tests, never for a request. All but the
/// signature is judged as in [`decide`]. An issuer that the claims do not name is that of the first rule, an audience one that the rule asks for.
pub fn assume(
    settings: &[Compiled],
    claims: &Map<String, Value>,
    now: SystemTime,
    trace: &mut impl Trace,
) -> Decision {
    if let Some(decision) = closed(settings, || true, trace) {
        return decision;
    }
    let opinion = |provider: &Provider| match provider.assume(claims, now) {
        Ok(verified) => Opinion::Verified(verified),
        Err(refusal) => Opinion::Refused(refusal, None),
    };
    judge(settings, opinion, trace)
}

fn judge(settings: &[Compiled], opinion: impl Fn(&Provider) -> Opinion, trace: &mut impl Trace) -> Decision {
    let mut worst: Option<(Opinion, &Provider)> = None;
    for provider in settings.iter().flat_map(|compiled| &*compiled.providers) {
        let opinion = opinion(provider);
        trace.step(|| TraceStep {
            origin: provider.origin.clone(),
            held: matches!(opinion, Opinion::Verified(_)),
            because: because(provider, &opinion),
        });
        match opinion {
            Opinion::Missing => {}
            Opinion::Verified(verified) => {
                return Decision::Verified { provider: provider.clone(), verified };
            }
            opinion => {
                if worst.as_ref().is_none_or(|(worst, _)| weight(&opinion) >= weight(worst)) {
                    worst = Some((opinion, provider));
                }
            }
        }
    }
    match worst {
        Some((Opinion::Refused(refusal, ask), provider)) => {
            Decision::Refuse { refusal, origin: provider.origin.clone(), ask }
        }
        Some((Opinion::Wait(keys), _)) => Decision::Wait(keys),
        _ => Decision::Missing,
    }
}

/// Which of several opinions is told: to wait, as it may still come good; else what is wrong with the token rather than that it is another's.
/// Of equals the last, as in Envoy.
fn weight(opinion: &Opinion) -> u8 {
    match opinion {
        Opinion::Missing | Opinion::Verified(_) => 0,
        Opinion::Refused(Refusal::UnknownIssuer, _) => 1,
        Opinion::Refused(..) => 2,
        Opinion::Wait(_) => 3,
    }
}

/// A browser asks without credentials whether it may ask with them (Istio sets Envoy's `bypass_cors_preflight`).
fn is_preflight(head: &Parts) -> bool {
    let there = |value: Option<&HeaderValue>| value.is_some_and(|value| !value.is_empty());
    head.method == Method::OPTIONS
        && there(head.headers.get(ORIGIN))
        && there(head.headers.get(ACCESS_CONTROL_REQUEST_METHOD))
}

/// Where an object is not valid no token is believed, wherever it is found.
fn closed(
    settings: &[Compiled],
    brings_any: impl FnOnce() -> bool,
    trace: &mut impl Trace,
) -> Option<Decision> {
    let broken = settings.iter().find_map(|compiled| compiled.broken.first())?;
    let found = brings_any();
    trace.step(|| TraceStep {
        origin: broken.clone(),
        held: !found,
        because: "the object is not valid, so that no token is believed".to_owned(),
    });
    Some(if found {
        Decision::Refuse { refusal: Refusal::Closed, origin: broken.clone(), ask: None }
    } else {
        Decision::Missing
    })
}

fn brings_any(settings: &[Compiled], head: &Parts) -> bool {
    let places: Vec<Place> = settings
        .iter()
        .flat_map(|compiled| &*compiled.providers)
        .flat_map(|provider| provider.places.iter().cloned())
        .chain(Place::defaults())
        .collect();
    places.iter().any(|place| !matches!(place.find(head), Ok(None)))
}

/// All tokens in the places of a rule have to hold: else the application might read the bad one. That of the first place counts.
fn opinion(provider: &Provider, head: &Parts, now: SystemTime) -> Opinion {
    let mut tokens: Vec<Cow<'_, str>> = Vec::new();
    for place in &provider.places {
        match place.find(head) {
            Ok(found) => tokens.extend(found),
            Err(refusal) => return Opinion::Refused(refusal, None),
        }
    }
    let mut first = None;
    for token in tokens {
        match provider.verify(&token, now) {
            Ok(verified) => {
                first.get_or_insert(verified);
            }
            Err(Unverified::Refused(refusal)) => return Opinion::Refused(refusal, None),
            Err(Unverified::UnknownKey(keys, id)) => {
                return Opinion::Refused(Refusal::NoKey, Some((keys, Some(id))));
            }
            Err(Unverified::NoKeys(keys, Without::Wait)) => return Opinion::Wait(keys),
            Err(Unverified::NoKeys(keys, Without::Refuse)) => {
                return Opinion::Refused(Refusal::NoKeys, Some((keys, None)));
            }
        }
    }
    first.map_or(Opinion::Missing, Opinion::Verified)
}

fn because(provider: &Provider, opinion: &Opinion) -> String {
    match opinion {
        Opinion::Missing => format!("there is no token for issuer {}", provider.issuer()),
        Opinion::Verified(verified) => format!("the token of {} holds", verified.token.principal),
        Opinion::Refused(refusal, _) => refusal.text().to_owned(),
        Opinion::Wait(keys) => format!("the keys at {} are on their way", keys.uri()),
    }
}
