//! Key sets (RFC 7517), and what each key may verify.
//!
//! Which algorithms a key verifies is derived from the key alone. A token says which one it used; it never chooses. Signatures are verified by
//! `jsonwebtoken`, with its provider aws-lc-rs. It takes any bytes for a key, so a key is tried out when it is read.

use crate::base64;
use crate::json::{self, Bounds};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents, VerificationAlgorithm,
};
use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use serde_json::{Map, Value};

/// Keys of one set; more are refused as a whole.
pub const MAX_KEYS: usize = 100;

/// Keys that are tried for one token: those of its `kid`, or, where it names none, those of its algorithm.
pub(crate) const MAX_TRIES: usize = 16;

const BOUNDS: Bounds = Bounds { depth: 8, values: 10_000 };

/// The keys of an issuer.
#[derive(Debug)]
pub struct Jwks {
    keys: Vec<Key>,
    refused: Vec<String>,
}

/// Where keys come from, which decides what they may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Written into the configuration. May hold shared secrets (HS256, HS384, HS512).
    Inline,
    /// Fetched. A secret that is served to everybody is none: such keys are refused.
    Fetched,
}

#[derive(Debug)]
struct Key {
    id: Option<Box<str>>,
    key: DecodingKey,
    /// The only algorithms that it may verify.
    uses: Vec<Algorithm>,
}

/// A signature algorithm (RFC 7518 section 3.1, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

const ALL: [(Algorithm, &str); 12] = [
    (Algorithm::Hs256, "HS256"),
    (Algorithm::Hs384, "HS384"),
    (Algorithm::Hs512, "HS512"),
    (Algorithm::Rs256, "RS256"),
    (Algorithm::Rs384, "RS384"),
    (Algorithm::Rs512, "RS512"),
    (Algorithm::Ps256, "PS256"),
    (Algorithm::Ps384, "PS384"),
    (Algorithm::Ps512, "PS512"),
    (Algorithm::Es256, "ES256"),
    (Algorithm::Es384, "ES384"),
    (Algorithm::EdDsa, "EdDSA"),
];

const RSA: [Algorithm; 6] = [
    Algorithm::Rs256,
    Algorithm::Rs384,
    Algorithm::Rs512,
    Algorithm::Ps256,
    Algorithm::Ps384,
    Algorithm::Ps512,
];

/// What the keys say of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// One of them made it.
    Good,
    /// None of those that could have made it did.
    Bad,
    /// None has this `kid` and algorithm.
    NoKey,
}

impl Algorithm {
    /// The algorithm of this name, as exactly as RFC 7515 section 4.1.1 wants it. `none` is no algorithm.
    pub fn parse(name: &str) -> Option<Self> {
        ALL.iter().find(|(_, known)| *known == name).map(|(algorithm, _)| *algorithm)
    }

    fn of_crate(self) -> jsonwebtoken::Algorithm {
        use jsonwebtoken::Algorithm as Theirs;
        match self {
            Self::Hs256 => Theirs::HS256,
            Self::Hs384 => Theirs::HS384,
            Self::Hs512 => Theirs::HS512,
            Self::Rs256 => Theirs::RS256,
            Self::Rs384 => Theirs::RS384,
            Self::Rs512 => Theirs::RS512,
            Self::Ps256 => Theirs::PS256,
            Self::Ps384 => Theirs::PS384,
            Self::Ps512 => Theirs::PS512,
            Self::Es256 => Theirs::ES256,
            Self::Es384 => Theirs::ES384,
            Self::EdDsa => Theirs::EdDSA,
        }
    }
}

impl Jwks {
    /// Reads a key set. Keys that cannot be used are left out and named by [`refused`](Self::refused).
    ///
    /// # Errors
    ///
    /// When it is no key set, holds more than [`MAX_KEYS`], or no key that can be used; says which, and why.
    pub fn parse(text: &[u8], origin: Origin) -> Result<Self, String> {
        let mut set = json::object(text, BOUNDS).map_err(|error| format!("is no JSON object: {error}"))?;
        let Some(Value::Array(written)) = set.remove("keys") else {
            return Err("has no list `keys` (RFC 7517 section 5)".to_owned());
        };
        if written.len() > MAX_KEYS {
            return Err(format!("holds {} keys, more than {MAX_KEYS}", written.len()));
        }
        let mut found = Self { keys: Vec::new(), refused: Vec::new() };
        for (at, key) in written.iter().enumerate() {
            let named = key.get("kid").and_then(Value::as_str);
            match key
                .as_object()
                .ok_or_else(|| "is no object".to_owned())
                .and_then(|key| Key::new(key, origin))
            {
                Ok(Some(key)) => found.keys.push(key),
                // For encryption, or to sign with: not ours, and no mistake.
                Ok(None) => {}
                Err(why) => {
                    let name = named
                        .map_or_else(|| format!("keys[{at}]"), |kid| format!("keys[{at}] (kid {kid:?})"));
                    found.refused.push(format!("{name}: {why}"));
                }
            }
        }
        if found.keys.is_empty() {
            let why = if found.refused.is_empty() { "it holds none" } else { &*found.refused.join("; ") };
            return Err(format!("holds no key that can verify: {why}"));
        }
        Ok(found)
    }

    /// How many keys can be used.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Never true: a set without a usable key is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys that cannot be used, by place and `kid`, and why.
    pub fn refused(&self) -> &[String] {
        &self.refused
    }

    /// Asks the keys that may have signed: those of this `kid` and those without one; of them those for this algorithm. As many as
    /// [`MAX_TRIES`].
    pub(crate) fn verify(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Verdict {
        let may = |key: &&Key| match (id, &key.id) {
            (Some(id), Some(own)) => **own == *id,
            _ => true,
        };
        let fitting = self.keys.iter().filter(may).filter(|key| key.uses.contains(&algorithm));
        let signature = signature.to_vec();
        let mut verdict = Verdict::NoKey;
        for key in fitting.take(MAX_TRIES) {
            // What `jsonwebtoken::crypto::verify` does with a signature that is still text, by this provider and no other.
            let verifier = (DEFAULT_PROVIDER.verifier_factory)(&algorithm.of_crate(), &key.key);
            if verifier.is_ok_and(|verifier| verifier.verify(message, &signature).is_ok()) {
                return Verdict::Good;
            }
            verdict = Verdict::Bad;
        }
        verdict
    }
}

impl Key {
    /// `None`: it is not there to verify with.
    fn new(key: &Map<String, Value>, origin: Origin) -> Result<Option<Self>, String> {
        let text = |field: &str| match key.get(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(format!("`{field}` is no text")),
        };
        if text("use")?.is_some_and(|of| of != "sig") {
            return Ok(None);
        }
        if let Some(operations) = key.get("key_ops") {
            let operations = operations.as_array().ok_or("`key_ops` is no list")?;
            if !operations.iter().any(|operation| operation == "verify") {
                return Ok(None);
            }
        }
        let id = text("kid")?.map(Box::from);
        let bytes = |field: &str| -> Result<Vec<u8>, String> {
            let written = text(field)?.ok_or_else(|| format!("`{field}` is missing"))?;
            base64::decode(written.as_bytes())
                .ok_or_else(|| format!("`{field}` is no base64url without padding"))
        };
        let curve = || text("crv")?.ok_or_else(|| "`crv` is missing".to_owned());
        let algorithm = text("alg")?;
        if let Some(unsupported @ ("ES512" | "ES256K" | "Ed448")) = algorithm {
            return Err(format!("{unsupported} is not supported; use ES256, ES384 or EdDSA with Ed25519"));
        }
        let (key, mut uses) = match text("kty")? {
            Some("RSA") => rsa(&bytes("n")?, &bytes("e")?)?,
            Some("EC") => {
                let (algorithm, own, size): (_, &'static dyn VerificationAlgorithm, _) = match curve()? {
                    "P-256" => (Algorithm::Es256, &ECDSA_P256_SHA256_FIXED, 32),
                    "P-384" => (Algorithm::Es384, &ECDSA_P384_SHA384_FIXED, 48),
                    "P-521" => return Err("ES512 (P-521) is not supported; use P-256 or P-384".to_owned()),
                    other => return Err(format!("curve {other:?} is not supported; use P-256 or P-384")),
                };
                let (x, y) = (bytes("x")?, bytes("y")?);
                if x.len() != size || y.len() != size {
                    return Err(format!("`x` and `y` have to be {size} bytes each"));
                }
                let point = [&[4], &x[..], &y[..]].concat();
                on_curve(own, &point)?;
                (DecodingKey::from_ec_der(&point), vec![algorithm])
            }
            Some("OKP") => {
                let curve = curve()?;
                if curve != "Ed25519" {
                    return Err(format!("curve {curve:?} is not supported; use Ed25519"));
                }
                let point = bytes("x")?;
                on_curve(&ED25519, &point)?;
                (DecodingKey::from_ed_der(&point), vec![Algorithm::EdDsa])
            }
            Some("oct") if origin == Origin::Fetched => {
                return Err(
                    "a shared secret that is served is no secret; write it inline, or use a key pair"
                        .to_owned(),
                );
            }
            Some("oct") => secret(&bytes("k")?)?,
            Some(other) => return Err(format!("`kty` {other:?} is not supported; use RSA, EC or OKP")),
            None => return Err("`kty` is missing".to_owned()),
        };
        if let Some(written) = algorithm {
            uses.retain(|algorithm| Algorithm::parse(written) == Some(*algorithm));
            if uses.is_empty() {
                return Err(format!("`alg` {written:?} does not fit the key"));
            }
        }
        Ok(Some(Self { id, key, uses }))
    }
}

/// A key and what it may verify.
type Uses = (DecodingKey, Vec<Algorithm>);

fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Uses, String> {
    // Some write the zero that ASN.1 puts before a set first bit.
    let trim = |bytes: &[u8]| bytes.iter().position(|byte| *byte != 0).map(|start| bytes[start..].to_vec());
    let (Some(n), Some(e)) = (trim(modulus), trim(exponent)) else {
        return Err("`n` or `e` is zero".to_owned());
    };
    let bits = n.len() * 8 - n.first().map_or(0, |first| first.leading_zeros() as usize);
    if !(2048..=8192).contains(&bits) {
        return Err(format!("an RSA key of {bits} bits is not supported; use 2048 to 8192"));
    }
    let odd = e.last().is_some_and(|last| last & 1 == 1);
    if !odd || e == [1] || e.len() > 4 {
        return Err("`e` is no exponent for signatures; use 65537".to_owned());
    }
    let key = DecodingKey::from_rsa_raw_components(&n, &e);
    RsaPublicKeyComponents { n, e }
        .to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)
        .map_err(|error| format!("is no RSA key: {error}"))?;
    Ok((key, RSA.to_vec()))
}

/// What is no point of its curve would refuse every token later.
fn on_curve(algorithm: &'static dyn VerificationAlgorithm, point: &[u8]) -> Result<(), String> {
    let key = ParsedPublicKey::new(algorithm, point);
    key.map(|_| ()).map_err(|error| format!("is no point of its curve: {error}"))
}

/// A secret serves the hashes that are no longer than itself (RFC 7518 section 3.2).
fn secret(bytes: &[u8]) -> Result<Uses, String> {
    let all = [(Algorithm::Hs256, 32), (Algorithm::Hs384, 48), (Algorithm::Hs512, 64)];
    if bytes.len() < 32 {
        return Err(format!("a secret of {} bytes is too short; use 32 or more random ones", bytes.len()));
    }
    let fitting = all.into_iter().filter(|(_, length)| bytes.len() >= *length);
    Ok((DecodingKey::from_secret(bytes), fitting.map(|(algorithm, _)| algorithm).collect()))
}

#[cfg(test)]
mod tests;
