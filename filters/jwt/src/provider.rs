//! One issuer, ready to verify.

use crate::Refusal;
use crate::base64::{encode, encode_standard};
use crate::cache::{Cache, Verified};
use crate::jwk::{self, Jwks, Verdict};
use crate::keys::{Held, KeySet, Without};
use crate::places::{Place, output_header};
use crate::settings::{Keys, Rule};
use crate::token::Parsed;
use aws_lc_rs::digest;
use filter_api::{Keep, Origin, Token};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// As Envoy has it.
const LEEWAY: Duration = Duration::from_secs(60);

/// Claims that are lists written as one text, as Istio has it.
const SPACE_DELIMITED: [&str; 2] = ["scope", "permission"];

/// One issuer, ready to verify.
#[derive(Debug)]
pub struct Provider {
    /// Where it was written.
    pub origin: Origin,
    issuer: Box<str>,
    /// Without scheme and final slash.
    audiences: Vec<Box<str>>,
    pub(crate) places: Vec<Place>,
    pub(crate) forward: bool,
    payload_header: Option<HeaderName>,
    claim_headers: Vec<(HeaderName, Vec<Box<str>>)>,
    space_delimited: Vec<Box<str>>,
    leeway: Duration,
    source: Source,
    cache: Arc<Cache>,
}

#[derive(Debug)]
enum Source {
    Inline(Jwks),
    Fetched(Arc<KeySet>),
}

/// Why a provider does not vouch for a token.
#[derive(Clone, Debug)]
pub(crate) enum Unverified {
    Refused(Refusal),
    /// It names a key that is not there; a fetch may bring it.
    UnknownKey(Arc<KeySet>, Box<str>),
    /// There are no keys; the first fetch may bring them.
    NoKeys(Arc<KeySet>, Without),
}

impl Provider {
    pub(crate) fn new(rule: &Rule, keep: &Keep) -> Result<Self, String> {
        if rule.issuer.is_empty() {
            return Err("issuer: is empty; write the `iss` claim of the tokens".to_owned());
        }
        let (source, place) = match &rule.keys {
            Keys::Inline(text) => {
                let keys = Jwks::parse(text.as_bytes(), jwk::Origin::Inline)
                    .map_err(|error| format!("keys: {error}"))?;
                (Source::Inline(keys), format!("inline {}", hex(text)))
            }
            Keys::Fetched { uri, timeout } => {
                let set = keep.share(&format!("{}\n{uri}", rule.issuer), || KeySet::new(&rule.issuer, uri));
                set.set_timeout(*timeout);
                (Source::Fetched(set), uri.clone())
            }
        };
        let mut space_delimited: Vec<Box<str>> = SPACE_DELIMITED.map(Box::from).to_vec();
        space_delimited.extend(rule.space_delimited.iter().map(|name| name.as_str().into()));
        space_delimited.sort_unstable();
        space_delimited.dedup();
        // Everything that what is cached depends on.
        let cache =
            keep.share(&format!("{}\n{place}\n{}", rule.issuer, space_delimited.join("\n")), Cache::default);
        let places = if rule.places.is_empty() {
            Place::defaults()
        } else {
            rule.places.iter().map(Place::new).collect::<Result<_, _>>()?
        };
        let claim_headers = rule.claim_headers.iter().map(|written| {
            let header =
                output_header(&written.header).map_err(|error| format!("claim_headers.header: {error}"))?;
            if written.claim.is_empty() {
                return Err("claim_headers.claim: is empty; write the claim, `sub` for example".to_owned());
            }
            Ok((header, written.claim.split('.').map(Box::from).collect()))
        });
        Ok(Self {
            origin: rule.origin.clone(),
            issuer: rule.issuer.as_str().into(),
            audiences: rule.audiences.iter().map(|audience| plain(audience).into()).collect(),
            places,
            forward: rule.forward,
            payload_header: match &rule.payload_header {
                Some(name) => Some(output_header(name).map_err(|error| format!("payload_header: {error}"))?),
                None => None,
            },
            claim_headers: claim_headers.collect::<Result<_, _>>()?,
            space_delimited,
            leeway: rule.leeway.unwrap_or(LEEWAY),
            source,
            cache,
        })
    }

    /// Whose tokens it verifies.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Where its keys are fetched; `None` for keys that are written inline.
    pub fn keys_at(&self) -> Option<&str> {
        match &self.source {
            Source::Inline(_) => None,
            Source::Fetched(set) => Some(set.uri()),
        }
    }

    /// Verifies one token.
    pub(crate) fn verify(&self, text: &str, now: SystemTime) -> Result<Arc<Verified>, Unverified> {
        let held = match &self.source {
            Source::Inline(_) => None,
            Source::Fetched(set) => set.current(now),
        };
        let keys = self.keys(held.as_deref());
        if let Some((_, generation)) = keys
            && let Some(verified) = self.cache.find(text, generation)
        {
            self.check(&verified.token.audiences, verified.times, now)?;
            return Ok(verified);
        }
        let parsed = Parsed::new(text)?;
        if parsed.issuer.as_deref() != Some(&*self.issuer) {
            return Err(Refusal::UnknownIssuer.into());
        }
        self.check(&parsed.audiences, parsed.times, now)?;
        let Some((keys, generation)) = keys else { return Err(self.no_keys()) };
        let id = parsed.key.as_deref();
        match keys.verify(id, parsed.algorithm, parsed.message.as_bytes(), &parsed.signature) {
            Verdict::Good => {}
            Verdict::Bad => return Err(Refusal::Signature.into()),
            Verdict::NoKey => return Err(self.unknown_key(id)),
        }
        let verified = Arc::new(self.verified(parsed, generation)?);
        self.cache.insert(text, verified.clone());
        Ok(verified)
    }

    /// What a token with these claims is taken for, were its signature good. Never of a request.
    pub(crate) fn assume(
        &self,
        claims: &Map<String, Value>,
        now: SystemTime,
    ) -> Result<Arc<Verified>, Refusal> {
        let mut claims = claims.clone();
        claims.entry("iss").or_insert_with(|| Value::from(&*self.issuer));
        if let Some(audience) = self.audiences.first() {
            claims.entry("aud").or_insert_with(|| Value::from(&**audience));
        }
        let (header, payload) =
            (encode(br#"{"alg":"RS256"}"#), encode(Value::Object(claims).to_string().as_bytes()));
        // The last part stands for the signature, which nobody asks for.
        let text = format!("{header}.{payload}.AA");
        let parsed = Parsed::new(&text)?;
        if parsed.issuer.as_deref() != Some(&*self.issuer) {
            return Err(Refusal::UnknownIssuer);
        }
        self.check(&parsed.audiences, parsed.times, now)?;
        self.verified(parsed, 0).map(Arc::new)
    }

    fn keys<'a>(&'a self, held: Option<&'a Held>) -> Option<(&'a Jwks, u64)> {
        match &self.source {
            // Other keys are another cache.
            Source::Inline(keys) => Some((keys, 0)),
            Source::Fetched(_) => held.map(|held| (&held.jwks, held.generation)),
        }
    }

    /// Time and audience, which a cached token has to pass each time: the clock goes on, and rules that share a cache may differ.
    fn check(
        &self,
        audiences: &[Box<str>],
        times: crate::token::Times,
        now: SystemTime,
    ) -> Result<(), Refusal> {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        times.check(since, self.leeway)?;
        let known = |audience: &str| self.audiences.iter().any(|own| **own == *plain(audience));
        if self.audiences.is_empty() || audiences.iter().any(|audience| known(audience)) {
            Ok(())
        } else {
            Err(Refusal::AudienceNotAllowed)
        }
    }

    fn no_keys(&self) -> Unverified {
        match &self.source {
            Source::Inline(_) => Refusal::NoKeys.into(),
            Source::Fetched(set) => Unverified::NoKeys(set.clone(), set.without()),
        }
    }

    fn unknown_key(&self, id: Option<&str>) -> Unverified {
        match (&self.source, id) {
            (Source::Fetched(set), Some(id)) => Unverified::UnknownKey(set.clone(), id.into()),
            _ => Refusal::NoKey.into(),
        }
    }

    fn verified(&self, parsed: Parsed<'_>, generation: u64) -> Result<Verified, Refusal> {
        let payload = HeaderValue::from_str(parsed.payload).map_err(|_| Refusal::PayloadBase64)?;
        let mut claims = parsed.claims;
        let mut split = Vec::new();
        for name in &self.space_delimited {
            if let Some(claim) = claims.get_mut(&**name)
                && let Value::String(list) = &*claim
            {
                let list = list.split(' ').filter(|item| !item.is_empty()).map(Value::from).collect();
                split.push((name.clone(), std::mem::replace(claim, Value::Array(list))));
            }
        }
        let subject = parsed.subject;
        // Istio knows no principal without both parts: `issuer/` would be somebody.
        let principal = if subject.is_empty() { String::new() } else { format!("{}/{subject}", self.issuer) };
        let token = Token {
            principal: principal.into(),
            issuer: self.issuer.clone(),
            subject: subject.into(),
            audiences: parsed.audiences,
            claims,
        };
        Ok(Verified { token: Arc::new(token), payload, split, times: parsed.times, generation })
    }

    /// The headers that it writes, which nobody else may.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = &HeaderName> {
        self.payload_header.iter().chain(self.claim_headers.iter().map(|(name, _)| name))
    }

    /// Writes payload and claims. A claim that no header can hold is left out, as one that is not there.
    pub(crate) fn write(&self, verified: &Verified, headers: &mut HeaderMap) {
        if let Some(name) = &self.payload_header {
            headers.append(name.clone(), verified.payload.clone());
        }
        for (name, path) in &self.claim_headers {
            // Policies read lists, headers get what the issuer wrote.
            let as_written =
                verified.split.iter().find(|(name, _)| matches!(&path[..], [only] if only == name));
            let value = as_written.map(|(_, value)| value).or_else(|| find(&verified.token.claims, path));
            if let Some(value) = value.and_then(header_value) {
                headers.append(name.clone(), value);
            }
        }
    }
}

/// Envoy: texts, numbers and booleans as they are, everything else as JSON in base64.
fn header_value(value: &Value) -> Option<HeaderValue> {
    let text = match value {
        Value::Null => return None,
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(_) | Value::Object(_) => encode_standard(value.to_string().as_bytes()),
    };
    // Bytes above ASCII go as they are; control characters, which could end a header, do not go at all.
    if text.is_empty() { None } else { HeaderValue::from_bytes(text.as_bytes()).ok() }
}

fn find<'a>(claims: &'a Map<String, Value>, path: &[Box<str>]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(claims.get(&**first)?, |value, name| value.as_object()?.get(&**name))
}

/// An audience as Envoy compares it.
fn plain(audience: &str) -> &str {
    let audience =
        audience.strip_prefix("https://").or_else(|| audience.strip_prefix("http://")).unwrap_or(audience);
    audience.strip_suffix('/').unwrap_or(audience)
}

fn hex(text: &str) -> String {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    digest.as_ref().iter().fold(String::new(), |mut text, byte| {
        // Writing into a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl From<Refusal> for Unverified {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
