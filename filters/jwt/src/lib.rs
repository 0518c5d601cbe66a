//! Checks the tokens of requests: Istio's RequestAuthentication.
//!
//! A request without a token passes; who must bring one is authorization's to say. A token that is there has to hold: 401 otherwise, in Envoy's
//! words. What it says goes into `Facts::token`, and into headers where a rule asks for it; those headers are taken from the client first.
//!
//! - What a key verifies is derived from the key (`jwk.rs`): RS, PS, ES and Ed25519, HS for secrets that are written inline. Never `none`.
//! - Tokens are read strictly (`token.rs`, `json.rs`, `base64.rs`): one reading, or none.
//! - Verified tokens are remembered by their whole text (`cache.rs`), until their keys change.
//! - Keys that are fetched live in a [`KeySet`] that outlives reloads (`keys.rs`). Fetching them is the application's, on its own runtime: it finds
//!   the sets in use by `Keep::all`, begins a [`Fetch`] when their time has come or a request asks, and says how it ended.

mod base64;
mod cache;
mod decide;
#[doc(hidden)]
pub mod fuzz;
mod json;
mod jwk;
mod keys;
mod places;
mod provider;
mod refusal;
mod reply;
mod settings;
mod token;

#[cfg(test)]
mod tests;

pub use cache::{Cache, CacheCounts, Verified};
pub use decide::{Compiled, Decision, assume, decide};
pub use jwk::{Algorithm, Jwks, MAX_KEYS, Origin as KeyOrigin};
pub use keys::{
    ASK_INTERVAL, Fetch, Held, KeySet, KeySetStatus, MAX_AGE, MAX_JWKS, MAX_UNKNOWN, MAX_WAITING, UNKNOWN_FOR,
};
pub use places::output_header;
pub use provider::Provider;
pub use refusal::Refusal;
pub use settings::{ClaimHeader, Keys, Place, Rule, Settings};
pub use token::MAX_TOKEN;

use filter_api::{Error, Filter, FilterPlace, Keep, NoTrace, Reason, Request, Spec, Step};
use http::HeaderMap;
use http::request::Parts;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// The filter. See the crate's documentation.
#[derive(Debug)]
pub struct Jwt;

impl Spec for Jwt {
    const NAME: &'static str = "jwt";
    type Settings = Settings;
    type Compiled = Compiled;

    fn compile(settings: &Settings, keep: &Keep) -> Result<Compiled, String> {
        let provider = |(at, rule)| match Provider::new(rule, keep) {
            Ok(provider) => Ok(Arc::new(provider)),
            Err(error) => Err(format!("rules[{at}].{error}")),
        };
        let providers = settings.rules.iter().enumerate().map(provider).collect::<Result<_, String>>()?;
        Ok(Compiled { providers, broken: settings.broken.clone().into() })
    }
}

impl Filter for Jwt {
    const PLACE: FilterPlace = FilterPlace::Port;
    const AFTER: bool = false;
    type State = ();

    fn on_request(settings: &[Compiled], mut request: Request) -> Step<()> {
        // Before anything else, whatever becomes of the request: nobody but us says who a token was for.
        take_outputs(settings, &mut request.head.headers);
        match decide(settings, &request.head, SystemTime::now(), &mut NoTrace) {
            Decision::Wait(keys) => {
                let settings = settings.to_vec();
                Step::Wait(Box::pin(async move {
                    keys.wait(keys.timeout()).await;
                    let decision = decide(&settings, &request.head, SystemTime::now(), &mut NoTrace);
                    conclude(&settings, request, decision)
                }))
            }
            decision => conclude(settings, request, decision),
        }
    }
}

fn conclude(settings: &[Compiled], mut request: Request, decision: Decision) -> Step<()> {
    let (refusal, origin) = match decision {
        Decision::Missing => return Step::Continue(request, ()),
        Decision::Verified { provider, verified } => {
            if let Err(why) = accept(&provider, &verified, &mut request) {
                return Step::Fail(Error::new(Reason::BadPath).detail(why));
            }
            return Step::Continue(request, ());
        }
        Decision::Refuse { refusal, origin, ask } => {
            match ask {
                Some((keys, Some(id))) => {
                    keys.ask_for(&id, Instant::now());
                }
                Some((keys, None)) => keys.ask(Instant::now()),
                None => {}
            }
            (refusal, origin)
        }
        Decision::Wait(_) => {
            let origin = settings.iter().find_map(|compiled| compiled.providers.first());
            (Refusal::NoKeys, origin.map(|provider| provider.origin.clone()).unwrap_or_default())
        }
    };
    request.cx.record(Jwt::NAME, origin, refusal.text());
    Step::Reply(reply::refuse(refusal, &request.head, &request.cx))
}

/// Writes down what a token says, and makes the head what goes on.
fn accept(provider: &Provider, verified: &Verified, request: &mut Request) -> Result<(), String> {
    rewrite(provider, verified, &mut request.head)?;
    let mut facts = request.cx.facts.borrow_mut();
    // The log shows what was forwarded, not the token.
    if !provider.forward && facts.target.is_some() {
        facts.target = Some(request.head.uri.clone());
    }
    facts.token = Some(verified.token.clone());
    Ok(())
}

/// Takes the token out of a head unless it goes on, and writes what it says. The layer and `explain` call the same.
///
/// # Errors
///
/// When the target without the token is none.
pub fn rewrite(provider: &Provider, verified: &Verified, head: &mut Parts) -> Result<(), String> {
    if !provider.forward {
        for place in &provider.places {
            place.remove(head)?;
        }
    }
    provider.write(verified, &mut head.headers);
    Ok(())
}

/// Takes away what a client wrote into headers that are ours to write. Underscores too: many servers read them as hyphens (CGI).
pub fn take_outputs(settings: &[Compiled], headers: &mut HeaderMap) {
    let outputs =
        || settings.iter().flat_map(|compiled| &*compiled.providers).flat_map(|provider| provider.outputs());
    if outputs().next().is_none() {
        return;
    }
    for name in outputs() {
        headers.remove(name);
    }
    let spelled = |name: &str| {
        name.contains('_')
            && outputs().any(|own| {
                own.as_str().len() == name.len()
                    && own
                        .as_str()
                        .bytes()
                        .zip(name.bytes())
                        .all(|(own, byte)| own == byte || own == b'-' && byte == b'_')
            })
    };
    let aliases: Vec<_> = headers.keys().filter(|name| spelled(name.as_str())).cloned().collect();
    for name in aliases {
        headers.remove(name);
    }
}
