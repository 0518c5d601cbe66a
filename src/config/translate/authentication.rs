//! Tokens: the RequestAuthentications that hold for a workload, and what they ask of it.
//!
//! All of them hold together: those of the root namespace, then those of its own, the older first. A RequestAuthentication that is not valid and
//! has no valid predecessor says that tokens count here, but not which: until it is mended none does.

use filter_jwt::{ClaimHeader, Keys, Place, Rule, Settings};

use std::time::Duration;

use super::World;
use super::index::{Written, origin};
use super::security::{Workload, targets};
use crate::config::resources::Kind;
use crate::config::resources::istio::security::{ClaimToHeader, JwtRule, RequestAuthentication};
use crate::mesh::Origin;

/// Istio's time for fetching keys.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What is asked of tokens; empty where nothing is.
pub(super) fn settings(world: &World<'_>) -> Vec<Settings> {
    let all = &world.index.request_authentications;
    let root = world.settings.root();
    let workload = Workload { namespace: world.namespace, root, proxy: world.proxy };
    let ours = |one: &&Written<'_, RequestAuthentication>| {
        let targets = targets(one.spec.target_ref.as_ref(), &one.spec.target_refs);
        workload.has(one.object, one.spec.selector.as_ref(), &targets)
    };
    let (of_root, own): (Vec<_>, Vec<_>) =
        all.iter().filter(ours).partition(|one| **one.namespace() == *root);
    let rules: Vec<Rule> = of_root.into_iter().chain(own).flat_map(rules).collect();
    let mut broken = Vec::new();
    for one in world.index.closed.iter().filter(|one| one.object.key.kind == Kind::RequestAuthentication) {
        let targets: Vec<_> = one.spec.target_refs.iter().collect();
        if workload.has(one.object, Some(&one.spec.selector), &targets) {
            let message = format!("is rejected ({}): its scope is closed, no token counts", one.spec.message);
            let hint = "correct it; there is no earlier version that could hold in its place";
            world.index.notes.error(one.object, "spec", "closed-scope", message, hint);
            broken.push(origin(one.object, "spec"));
        }
    }
    if rules.is_empty() && broken.is_empty() { Vec::new() } else { vec![Settings { rules, broken }] }
}

fn rules<'a>(one: &Written<'a, RequestAuthentication>) -> impl Iterator<Item = Rule> + use<'a> {
    let object = one.object;
    one.spec
        .jwt_rules
        .iter()
        .enumerate()
        .map(move |(at, written)| rule(written, origin(object, format!("spec.jwtRules[{at}]"))))
}

fn rule(written: &JwtRule, origin: Origin) -> Rule {
    let headers = written.from_headers.iter().map(|header| Place::Header {
        name: header.name.clone(),
        prefix: header.prefix.clone().unwrap_or_default(),
    });
    let parameters = written.from_params.iter().cloned().map(Place::Parameter);
    let cookies = written.from_cookies.iter().cloned().map(Place::Cookie);
    let header = |one: &ClaimToHeader| ClaimHeader { header: one.header.clone(), claim: one.claim.clone() };
    Rule {
        origin,
        issuer: written.issuer.clone(),
        audiences: written.audiences.clone(),
        keys: keys(written),
        places: headers.chain(parameters).chain(cookies).collect(),
        forward: written.forward_original_token.unwrap_or(false),
        payload_header: written.output_payload_to_header.clone().filter(|name| !name.is_empty()),
        claim_headers: written.output_claim_to_headers.iter().map(header).collect(),
        space_delimited: written.space_delimited_claims.clone(),
        leeway: None,
    }
}

/// Inline keys, else those at the URI, else those that the issuer's own description names (OpenID Connect), as in Istio.
fn keys(written: &JwtRule) -> Keys {
    let some = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if let Some(keys) = some(&written.jwks) {
        return Keys::Inline(keys);
    }
    let uri = some(&written.jwks_uri).unwrap_or_else(|| {
        format!("{}/.well-known/openid-configuration", written.issuer.trim_end_matches('/'))
    });
    Keys::Fetched { uri, timeout: written.timeout.map_or(TIMEOUT, Into::into) }
}
