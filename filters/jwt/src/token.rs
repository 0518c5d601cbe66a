//! Tokens in compact form (RFC 7519), read strictly.

use crate::Refusal;
use crate::base64;
use crate::json::{self, Bounds};
use crate::jwk::Algorithm;
use serde_json::{Map, Value};
use std::time::Duration;

/// Bytes of a token; a longer one is refused.
pub const MAX_TOKEN: usize = 16 * 1024;

/// The last second of the year 9999. A later time is milliseconds taken for seconds, and would hold for ever.
const LAST_TIME: u64 = 253_402_300_799;

const HEADER: Bounds = Bounds { depth: 4, values: 64 };
const CLAIMS: Bounds = Bounds { depth: 16, values: 2048 };

/// A token that was taken apart; nothing of it is verified.
#[derive(Debug)]
pub(crate) struct Parsed<'a> {
    /// Algorithm that it says it was signed with.
    pub(crate) algorithm: Algorithm,
    /// Key that it says it was signed with.
    pub(crate) key: Option<String>,
    /// What was signed: header and payload as written.
    pub(crate) message: &'a str,
    /// The payload as written.
    pub(crate) payload: &'a str,
    pub(crate) signature: Vec<u8>,
    pub(crate) claims: Map<String, Value>,
    pub(crate) issuer: Option<String>,
    pub(crate) subject: String,
    pub(crate) audiences: Vec<Box<str>>,
    pub(crate) times: Times,
}

/// When a token holds, in seconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) expires: Option<u64>,
    /// The later of `nbf` and `iat`.
    pub(crate) begins: Option<u64>,
}

impl<'a> Parsed<'a> {
    pub(crate) fn new(token: &'a str) -> Result<Self, Refusal> {
        if token.len() > MAX_TOKEN {
            return Err(Refusal::Format);
        }
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Refusal::Format);
        };
        if header.is_empty() || payload.is_empty() {
            return Err(Refusal::Format);
        }
        let header = base64::decode(header.as_bytes()).ok_or(Refusal::HeaderBase64)?;
        let header = json::object(&header, HEADER).map_err(|_| Refusal::HeaderJson)?;
        let algorithm = match header.get("alg") {
            Some(Value::String(name)) => Algorithm::parse(name).ok_or(Refusal::Algorithm)?,
            _ => return Err(Refusal::NoAlgorithm),
        };
        // Keys that a token brings along (`jwk`, `jku`, `x5u`, `x5c`) are its sender's word: they are not looked at.
        if header.contains_key("crit") {
            return Err(Refusal::Critical);
        }
        let key = match header.get("kid") {
            None => None,
            Some(Value::String(key)) => Some(key.clone()),
            Some(_) => return Err(Refusal::KeyId),
        };
        let claims = base64::decode(payload.as_bytes()).ok_or(Refusal::PayloadBase64)?;
        let claims = json::object(&claims, CLAIMS).map_err(|_| Refusal::PayloadJson)?;
        let signature = base64::decode(signature.as_bytes())
            .filter(|signature| !signature.is_empty())
            .ok_or(Refusal::SignatureBase64)?;
        let issuer = text(&claims, "iss", Refusal::Issuer)?;
        let subject = text(&claims, "sub", Refusal::Subject)?.unwrap_or_default();
        let audiences = audiences(&claims)?;
        let expires = time(&claims, "exp", Refusal::Expiry)?;
        let not_before = time(&claims, "nbf", Refusal::NotBefore)?;
        let issued = time(&claims, "iat", Refusal::IssuedAt)?;
        let message = token.rsplit_once('.').map_or("", |(message, _)| message);
        Ok(Self {
            algorithm,
            key,
            message,
            payload,
            signature,
            claims,
            issuer,
            subject,
            audiences,
            times: Times { expires, begins: not_before.max(issued) },
        })
    }
}

impl Times {
    /// Checks against the clock, which may differ from that of the issuer by `leeway` in either direction. Both edges still hold.
    pub(crate) fn check(self, now: Duration, leeway: Duration) -> Result<(), Refusal> {
        let (now, leeway) = (now.as_secs(), leeway.as_secs());
        if self.begins.is_some_and(|begins| begins > now.saturating_add(leeway)) {
            return Err(Refusal::NotYetValid);
        }
        if self.expires.is_some_and(|expires| expires.saturating_add(leeway) < now) {
            return Err(Refusal::Expired);
        }
        Ok(())
    }
}

fn text(claims: &Map<String, Value>, name: &str, refusal: Refusal) -> Result<Option<String>, Refusal> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(refusal),
    }
}

fn audiences(claims: &Map<String, Value>) -> Result<Vec<Box<str>>, Refusal> {
    let one = |value: &Value| value.as_str().map(Box::from).ok_or(Refusal::Audience);
    match claims.get("aud") {
        None => Ok(Vec::new()),
        Some(Value::Array(all)) => all.iter().map(one).collect(),
        Some(only) => Ok(vec![one(only)?]),
    }
}

/// A NumericDate (RFC 7519 section 2). Only a number is one: a text that is read as "none" would make a token that never expires.
fn time(claims: &Map<String, Value>, name: &str, refusal: Refusal) -> Result<Option<u64>, Refusal> {
    let seconds = match claims.get(name) {
        None => return Ok(None),
        Some(Value::Number(number)) => match number.as_u64() {
            Some(seconds) => seconds,
            // A fraction of a second is cut off. Above 2^53 no float is exact, and far above the last time.
            None => match number.as_f64() {
                Some(seconds) if (0.0..=LAST_TIME as f64).contains(&seconds) => seconds as u64,
                _ => return Err(refusal),
            },
        },
        Some(_) => return Err(refusal),
    };
    if seconds > LAST_TIME { Err(refusal) } else { Ok(Some(seconds)) }
}
