#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use super::*;
use crate::base64::encode;
use crate::tests::support::{P256, RSA, ec_jwk, ed_jwk, rsa_jwk, secret, secret_jwk, sign};
use aws_lc_rs::hmac;
use serde_json::json;

fn parse(keys: &[Value]) -> Result<Jwks, String> {
    Jwks::parse(json!({ "keys": keys }).to_string().as_bytes(), Origin::Inline)
}

fn with(mut key: Value, field: &str, value: Value) -> Value {
    key[field] = value;
    key
}

#[test]
fn keys_that_cannot_be_used_are_named_and_the_others_are() {
    let set = parse(&[
        json!({"kty": "EC", "crv": "P-521", "kid": "long", "x": "AA", "y": "AA"}),
        json!({"kty": "EC", "crv": "secp256k1", "kid": "k1", "x": "AA", "y": "AA"}),
        json!({"kty": "OKP", "crv": "X25519", "kid": "x", "x": "AA"}),
        with(rsa_jwk(&RSA, "es512"), "alg", json!("ES512")),
        rsa_jwk(&RSA, "good"),
        json!("text"),
    ])
    .unwrap();
    assert_eq!(set.len(), 1);
    let [long, k1, x, es512, text] = set.refused() else { panic!("{:?}", set.refused()) };
    assert_eq!(long, "keys[0] (kid \"long\"): ES512 (P-521) is not supported; use P-256 or P-384");
    assert!(k1.contains("secp256k1") && x.contains("X25519") && es512.contains("ES512 is not supported"));
    assert_eq!(text, "keys[5]: is no object");
}

#[test]
fn keys_for_something_else_are_left_out_in_silence() {
    let set = parse(&[
        with(rsa_jwk(&RSA, "enc"), "use", json!("enc")),
        with(rsa_jwk(&RSA, "sign"), "key_ops", json!(["sign"])),
        with(with(rsa_jwk(&RSA, "sig"), "use", json!("sig")), "key_ops", json!(["verify"])),
    ])
    .unwrap();
    assert_eq!((set.len(), set.refused().len()), (1, 0));
}

#[test]
fn weak_and_malformed_keys_are_refused() {
    let rsa = rsa_jwk(&RSA, "k");
    let ec = ec_jwk(&P256, "P-256", "k");
    let weak = json!({"kty": "RSA", "n": encode(&[0xff; 128]), "e": "AQAB"});
    let off = with(ec.clone(), "y", json!(encode(&[1; 32])));
    for (key, why) in [
        (weak, "1024 bits"),
        (with(rsa.clone(), "e", json!("AQ")), "exponent"),
        (with(rsa.clone(), "e", json!("AA")), "zero"),
        (with(rsa.clone(), "e", json!("Ag")), "exponent"),
        (with(rsa.clone(), "n", json!("AA==")), "base64url"),
        (with(rsa.clone(), "n", json!(1)), "no text"),
        (with(rsa.clone(), "alg", json!("HS256")), "does not fit"),
        (with(ec.clone(), "alg", json!("ES384")), "does not fit"),
        (with(ec.clone(), "x", json!("AA")), "32 bytes"),
        (with(ec, "crv", json!("P-384")), "48 bytes"),
        (off, "no point"),
        (json!({"kty": "OKP", "crv": "Ed25519", "x": "AA"}), "no point"),
        (json!({"kty": "oct", "k": "c2VjcmV0"}), "too short"),
        (json!({"kty": "oct"}), "`k` is missing"),
        (json!({"n": "AA"}), "`kty` is missing"),
    ] {
        let error = parse(std::slice::from_ref(&key)).unwrap_err();
        assert!(error.contains(why), "{key}: {error}");
    }
    for text in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#, "null"] {
        assert!(Jwks::parse(text.as_bytes(), Origin::Inline).is_err(), "{text}");
    }
}

#[test]
fn a_secret_that_was_fetched_is_refused() {
    let text = json!({ "keys": [secret_jwk("s")] }).to_string();
    assert!(Jwks::parse(text.as_bytes(), Origin::Inline).is_ok());
    let error = Jwks::parse(text.as_bytes(), Origin::Fetched).unwrap_err();
    assert!(error.contains("served is no secret"), "{error}");
}

#[test]
fn a_secret_serves_no_hash_longer_than_itself() {
    let short = json!({"kty": "oct", "k": encode(&[7; 40])});
    let set = parse(&[short]).unwrap();
    let verify = |algorithm, hash| set.verify(None, algorithm, b"m", &secret(hash, &[7; 40], b"m"));
    assert_eq!(verify(Algorithm::Hs256, hmac::HMAC_SHA256), Verdict::Good);
    assert_eq!(verify(Algorithm::Hs384, hmac::HMAC_SHA384), Verdict::NoKey);
}

#[test]
fn during_an_overlap_keys_of_one_name_or_none_are_tried_in_turn_and_in_bounds() {
    let (signed, message) = (sign("ES256", b"m"), b"m");
    let own = ec_jwk(&P256, "P-256", "own");
    let mut same_name = parse(&[ed_jwk("own"), own.clone()]).unwrap();
    assert_eq!(same_name.verify(Some("own"), Algorithm::Es256, message, &signed), Verdict::Good);
    assert_eq!(same_name.verify(None, Algorithm::Es256, message, &signed), Verdict::Good);
    assert_eq!(same_name.verify(Some("none"), Algorithm::Es256, message, &signed), Verdict::NoKey);
    let mut nameless = own.clone();
    nameless.as_object_mut().unwrap().remove("kid");
    same_name = parse(&[nameless]).unwrap();
    assert_eq!(same_name.verify(Some("any"), Algorithm::Es256, message, &signed), Verdict::Good);
    // Behind more keys of others than are tried.
    let others = (0..MAX_TRIES).map(|at| {
        let other = aws_lc_rs::signature::EcdsaKeyPair::generate(
            &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING,
        );
        ec_jwk(&other.unwrap(), "P-256", &at.to_string())
    });
    let keys: Vec<_> = others.chain([own]).collect();
    let many = parse(&keys).unwrap();
    assert_eq!(many.verify(None, Algorithm::Es256, message, &signed), Verdict::Bad);
    assert_eq!(many.verify(Some("own"), Algorithm::Es256, message, &signed), Verdict::Good);
}
