//! Issuers that sign, requests that carry tokens.

use crate::base64::encode;
use crate::{Compiled, Decision, Jwt, Keys, Refusal, Rule, Settings, decide};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512,
    RsaKeyPair,
};
use filter_api::{Body, ConnectionFacts, Cx, Keep, NoTrace, Protocol, Request, Slots, Spec};
use http::request::Parts;
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

pub(crate) const ISSUER: &str = "https://issuer.example";

/// The time in which all tests play, in seconds since 1970.
pub(crate) const NOW: u64 = 1_800_000_000;

pub(crate) static RSA: LazyLock<RsaKeyPair> =
    LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
pub(crate) static OTHER_RSA: LazyLock<RsaKeyPair> =
    LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
pub(crate) static P256: LazyLock<EcdsaKeyPair> =
    LazyLock::new(|| EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap());
pub(crate) static P384: LazyLock<EcdsaKeyPair> =
    LazyLock::new(|| EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap());
pub(crate) static ED25519: LazyLock<Ed25519KeyPair> = LazyLock::new(|| Ed25519KeyPair::generate().unwrap());
pub(crate) const SECRET: &[u8; 64] = &[7; 64];

pub(crate) fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

pub(crate) fn rsa_jwk(key: &RsaKeyPair, kid: &str) -> Value {
    // DER: two lengths, then the modulus after its zero; at the end the exponent 65537.
    let der = key.public_key().as_ref();
    json!({"kty": "RSA", "kid": kid, "n": encode(&der[9..9 + 256]), "e": encode(&der[der.len() - 3..])})
}

pub(crate) fn ec_jwk(key: &EcdsaKeyPair, curve: &str, kid: &str) -> Value {
    let point = &key.public_key().as_ref()[1..];
    let (x, y) = point.split_at(point.len() / 2);
    json!({"kty": "EC", "crv": curve, "kid": kid, "x": encode(x), "y": encode(y)})
}

pub(crate) fn ed_jwk(kid: &str) -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": encode(ED25519.public_key().as_ref())})
}

pub(crate) fn secret_jwk(kid: &str) -> Value {
    json!({"kty": "oct", "kid": kid, "k": encode(SECRET)})
}

/// One key of each kind.
pub(crate) fn jwks() -> String {
    let keys = [
        rsa_jwk(&RSA, "rsa"),
        ec_jwk(&P256, "P-256", "p256"),
        ec_jwk(&P384, "P-384", "p384"),
        ed_jwk("ed"),
        secret_jwk("secret"),
    ];
    json!({ "keys": keys }).to_string()
}

pub(crate) fn claims() -> Value {
    json!({"iss": ISSUER, "sub": "alice", "exp": NOW + 3600})
}

/// Signs as `alg` says, with the key that fits.
pub(crate) fn sign(alg: &str, message: &[u8]) -> Vec<u8> {
    let random = SystemRandom::new();
    let rsa = |encoding| {
        let mut signature = vec![0; RSA.public_modulus_len()];
        RSA.sign(encoding, &random, message, &mut signature).unwrap();
        signature
    };
    match alg {
        "RS256" => rsa(&RSA_PKCS1_SHA256),
        "RS384" => rsa(&RSA_PKCS1_SHA384),
        "RS512" => rsa(&RSA_PKCS1_SHA512),
        "PS256" => rsa(&RSA_PSS_SHA256),
        "PS384" => rsa(&RSA_PSS_SHA384),
        "PS512" => rsa(&RSA_PSS_SHA512),
        "ES256" => P256.sign(&random, message).unwrap().as_ref().to_vec(),
        "ES384" => P384.sign(&random, message).unwrap().as_ref().to_vec(),
        "EdDSA" => ED25519.sign(message).as_ref().to_vec(),
        "HS256" => secret(hmac::HMAC_SHA256, SECRET, message),
        "HS384" => secret(hmac::HMAC_SHA384, SECRET, message),
        "HS512" => secret(hmac::HMAC_SHA512, SECRET, message),
        other => panic!("no key for {other}"),
    }
}

pub(crate) fn secret(hash: hmac::Algorithm, secret: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hash, secret), message).as_ref().to_vec()
}

pub(crate) fn kid(alg: &str) -> &'static str {
    match alg {
        "ES256" => "p256",
        "ES384" => "p384",
        "EdDSA" => "ed",
        _ if alg.starts_with("HS") => "secret",
        _ => "rsa",
    }
}

/// A token with exactly this header and these claims as text.
pub(crate) fn raw(alg: &str, header: &str, claims: &str) -> String {
    let message = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
    let signature = sign(alg, message.as_bytes());
    format!("{message}.{}", encode(&signature))
}

pub(crate) fn token(alg: &str, claims: &Value) -> String {
    raw(alg, &json!({"alg": alg, "kid": kid(alg)}).to_string(), &claims.to_string())
}

/// A good token.
pub(crate) fn good() -> String {
    token("RS256", &claims())
}

pub(crate) fn rule() -> Rule {
    Rule { issuer: ISSUER.to_owned(), keys: Keys::Inline(jwks()), ..Rule::default() }
}

pub(crate) fn compile(rules: &[Rule]) -> Vec<Compiled> {
    let settings = Settings { rules: rules.to_vec(), broken: Vec::new() };
    vec![Jwt::compile(&settings, &Keep::default()).unwrap()]
}

pub(crate) fn head(uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = http::Request::builder().uri(uri).header("host", "shop.example");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

pub(crate) fn bearer(token: &str) -> Parts {
    head("/p", &[("authorization", &format!("Bearer {token}"))])
}

/// What becomes of a bearer token under these rules, at this time.
pub(crate) fn judge(settings: &[Compiled], token: &str, now: u64) -> Result<(), Refusal> {
    verdict(decide(settings, &bearer(token), at(now), &mut NoTrace))
}

pub(crate) fn verdict(decision: Decision) -> Result<(), Refusal> {
    match decision {
        Decision::Verified { .. } => Ok(()),
        Decision::Refuse { refusal, .. } => Err(refusal),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn request(head: Parts) -> Request {
    let any = "127.0.0.1:1".parse().unwrap();
    let facts = ConnectionFacts {
        listener: "l".into(),
        remote: any,
        direct_remote: any,
        local: any,
        original_destination: None,
        protocol: Protocol::Http1,
        server_name: None,
        tls: None,
    };
    let cx = Cx::new(Arc::new(facts), Slots::empty(1), Arc::new(()));
    Request { head, body: Body::empty(), cx }
}
