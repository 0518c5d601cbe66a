//! Somebody who issues tokens.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use std::time::{SystemTime, UNIX_EPOCH};

/// Who signs, and what it shows of its keys.
pub struct Issuer {
    key: Ed25519KeyPair,
    kid: &'static str,
}

impl Issuer {
    /// One with a new key.
    pub fn new(kid: &'static str) -> Self {
        Self { key: Ed25519KeyPair::generate().unwrap(), kid }
    }

    /// Its keys.
    pub fn jwks(&self) -> String {
        let (kid, x) = (self.kid, encode(self.key.public_key().as_ref()));
        format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"{kid}","x":"{x}"}}]}}"#)
    }

    /// A token for ten minutes.
    pub fn token(&self, subject: &str) -> String {
        self.token_with(subject, "")
    }

    /// The same with further claims, `,"name":"value"`.
    pub fn token_with(&self, subject: &str, claims: &str) -> String {
        let expires = now() + 600;
        let header = format!(r#"{{"alg":"EdDSA","kid":"{}"}}"#, self.kid);
        let claims = format!(r#"{{"iss":"http://issuer.mesh","sub":"{subject}","exp":{expires}{claims}}}"#);
        let message = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
        format!("{message}.{}", encode(self.key.sign(message.as_bytes()).as_ref()))
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Base64url without padding.
fn encode(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | usize::from(chunk.get(at).copied().unwrap_or(0)));
        text.extend((0..=chunk.len()).map(|at| char::from(LETTERS[bits >> (18 - 6 * at) & 63])));
    }
    text
}
