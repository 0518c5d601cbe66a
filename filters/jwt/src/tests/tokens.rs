//! Which tokens hold: algorithm confusion, weak and malformed tokens, time.

use super::support::*;
use crate::base64::{decode, encode};
use crate::{Keys, Refusal, Rule};
use aws_lc_rs::hmac;
use serde_json::{Value, json};
use std::time::Duration;

fn judged(token: &str) -> Result<(), Refusal> {
    judge(&compile(&[rule()]), token, NOW)
}

fn with(name: &str, value: Value) -> String {
    let mut claims = claims();
    claims[name] = value;
    token("ES256", &claims)
}

fn header(header: &Value) -> String {
    raw("RS256", &header.to_string(), &claims().to_string())
}

#[test]
fn every_algorithm_verifies_with_its_key() {
    for alg in [
        "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA", "HS256", "HS384",
        "HS512",
    ] {
        assert_eq!(judged(&token(alg, &claims())), Ok(()), "{alg}");
        let without_kid = raw(alg, &json!({ "alg": alg }).to_string(), &claims().to_string());
        assert_eq!(judged(&without_kid), Ok(()), "{alg} without kid");
    }
}

#[test]
fn none_is_no_algorithm_in_any_case() {
    for alg in ["none", "None", "NONE", "nOnE", "", "rs256", "ES512", "RS1"] {
        for signature in ["", ".", ".AA"] {
            let parts = [json!({ "alg": alg }).to_string(), claims().to_string()];
            let unsigned =
                format!("{}.{}{signature}", encode(parts[0].as_bytes()), encode(parts[1].as_bytes()));
            let refusal = judged(&unsigned).unwrap_err();
            assert!(
                matches!(refusal, Refusal::Algorithm | Refusal::Format),
                "{alg:?} {signature:?} {refusal:?}"
            );
        }
    }
    for alg in [json!(null), json!(["RS256"]), json!({}), json!(1)] {
        assert_eq!(judged(&header(&json!({"alg": alg, "kid": "rsa"}))), Err(Refusal::NoAlgorithm));
    }
    assert_eq!(judged(&header(&json!({"kid": "rsa"}))), Err(Refusal::NoAlgorithm));
}

#[test]
fn a_public_key_is_no_secret() {
    let jwk = rsa_jwk(&RSA, "rsa");
    let rule = Rule { keys: Keys::Inline(json!({ "keys": [jwk.clone()] }).to_string()), ..rule() };
    let message = format!(
        "{}.{}",
        encode(json!({"alg": "HS256", "kid": "rsa"}).to_string().as_bytes()),
        encode(claims().to_string().as_bytes())
    );
    let modulus = decode(jwk["n"].as_str().unwrap().as_bytes()).unwrap();
    for key in [&modulus[..], jwk["n"].as_str().unwrap().as_bytes(), jwk.to_string().as_bytes()] {
        let forged = format!("{message}.{}", encode(&secret(hmac::HMAC_SHA256, key, message.as_bytes())));
        assert_eq!(judge(&compile(std::slice::from_ref(&rule)), &forged, NOW), Err(Refusal::NoKey));
    }
}

#[test]
fn the_algorithm_has_to_be_one_of_the_key() {
    for (alg, kid) in
        [("ES256", "rsa"), ("RS256", "p256"), ("EdDSA", "p256"), ("ES384", "p256"), ("HS256", "ed")]
    {
        let token = raw(alg, &json!({"alg": alg, "kid": kid}).to_string(), &claims().to_string());
        assert_eq!(judged(&token), Err(Refusal::NoKey), "{alg} by {kid}");
    }
    // The header says one thing, the signature is another.
    let token = raw("RS256", &json!({"alg": "PS256", "kid": "rsa"}).to_string(), &claims().to_string());
    assert_eq!(judged(&token), Err(Refusal::Signature));
    let mut narrow = rsa_jwk(&RSA, "rsa");
    narrow["alg"] = json!("RS256");
    let rule = Rule { keys: Keys::Inline(json!({ "keys": [narrow] }).to_string()), ..rule() };
    let settings = compile(&[rule]);
    assert_eq!(judge(&settings, &good(), NOW), Ok(()));
    assert_eq!(judge(&settings, &self::token("RS512", &claims()), NOW), Err(Refusal::NoKey));
}

#[test]
fn unknown_critical_extensions_are_refused() {
    for crit in [json!(["exp"]), json!(["b64"]), json!([]), json!("x")] {
        let header = header(&json!({"alg": "RS256", "kid": "rsa", "crit": crit, "b64": false}));
        assert_eq!(judged(&header), Err(Refusal::Critical));
    }
}

#[test]
fn keys_that_a_token_brings_along_are_not_looked_at() {
    let message = |header: &Value| {
        format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims().to_string().as_bytes()))
    };
    let brought = rsa_jwk(&OTHER_RSA, "rsa");
    let header = json!({"alg": "RS256", "kid": "rsa", "jwk": brought, "jku": "http://evil.example/k", "x5u": "http://evil.example/c", "x5c": ["AA=="]});
    let message = message(&header);
    let mut signature = vec![0; OTHER_RSA.public_modulus_len()];
    let random = aws_lc_rs::rand::SystemRandom::new();
    let encoding = &aws_lc_rs::signature::RSA_PKCS1_SHA256;
    OTHER_RSA.sign(encoding, &random, message.as_bytes(), &mut signature).unwrap();
    assert_eq!(judged(&format!("{message}.{}", encode(&signature))), Err(Refusal::Signature));
    // Signed by the issuer, they do no harm either.
    let honest = raw("RS256", &header.to_string(), &claims().to_string());
    assert_eq!(judged(&honest), Ok(()));
}

#[test]
fn signatures_that_are_none_are_refused() {
    let good = token("ES256", &claims());
    let (message, _) = good.rsplit_once('.').unwrap();
    assert_eq!(judged(&format!("{message}.")), Err(Refusal::SignatureBase64));
    assert_eq!(judged(message), Err(Refusal::Format));
    // r = 0 and s = 0, r = 1, all ones, too short, too long, ASN.1.
    let mut one = [0; 64];
    one[31] = 1;
    let shapes: [&[u8]; 7] =
        [&[0; 64], &one, &[0xff; 64], &[0; 63], &[0; 65], &[0], &[0x30, 6, 2, 1, 0, 2, 1, 0]];
    for signature in shapes {
        assert_eq!(
            judged(&format!("{message}.{}", encode(signature))),
            Err(Refusal::Signature),
            "{signature:?}"
        );
    }
    for padded in [format!("{good}="), format!(" {good} x"), format!("{good}.x"), format!("a.{good}")] {
        assert!(judged(&padded).is_err(), "{padded:?}");
    }
}

#[test]
fn duplicate_names_are_refused_in_header_and_claims() {
    let twice = r#"{"alg":"RS256","kid":"rsa","alg":"RS256"}"#;
    assert_eq!(judged(&raw("RS256", twice, &claims().to_string())), Err(Refusal::HeaderJson));
    let header = json!({"alg": "RS256", "kid": "rsa"}).to_string();
    for claims in [
        format!(r#"{{"iss":"{ISSUER}","sub":"alice","sub":"root"}}"#),
        format!(r#"{{"iss":"evil","iss":"{ISSUER}"}}"#),
        format!(r#"{{"iss":"{ISSUER}","realm":{{"roles":1,"roles":2}}}}"#),
    ] {
        assert_eq!(judged(&raw("RS256", &header, &claims)), Err(Refusal::PayloadJson), "{claims}");
    }
}

#[test]
fn only_numbers_are_times() {
    for (name, refusal) in [("exp", Refusal::Expiry), ("nbf", Refusal::NotBefore), ("iat", Refusal::IssuedAt)]
    {
        let wrong = [
            json!("1800003600"),
            json!("0"),
            json!(null),
            json!(true),
            json!([NOW]),
            json!({}),
            json!(-1),
            json!(-1.5),
            json!(1e300),
            json!(u64::MAX),
            // Milliseconds.
            json!((NOW + 3600) * 1000),
        ];
        for value in wrong {
            assert_eq!(judged(&with(name, value.clone())), Err(refusal), "{name} {value}");
        }
    }
    let header = json!({"alg": "RS256", "kid": "rsa"}).to_string();
    let beyond = format!(r#"{{"iss":"{ISSUER}","exp":1e999}}"#);
    assert_eq!(judged(&raw("RS256", &header, &beyond)), Err(Refusal::PayloadJson));
    assert_eq!(judged(&with("exp", json!(NOW as f64 + 0.5))), Ok(()));
    assert_eq!(judged(&with("exp", json!(253_402_300_799_u64))), Ok(()));
}

#[test]
fn both_edges_of_the_leeway_hold_and_no_more() {
    let settings = compile(&[rule()]);
    let expires = token("ES256", &json!({"iss": ISSUER, "exp": NOW}));
    for (name, refusal) in [("nbf", Refusal::NotYetValid), ("iat", Refusal::NotYetValid)] {
        let begins = token("ES256", &json!({"iss": ISSUER, name: NOW}));
        assert_eq!(judge(&settings, &begins, NOW - 61), Err(refusal), "{name}");
        assert_eq!(judge(&settings, &begins, NOW - 60), Ok(()), "{name}");
        // Also when it is remembered.
        assert_eq!(judge(&settings, &begins, NOW - 61), Err(refusal), "{name}");
    }
    assert_eq!(judge(&settings, &expires, NOW + 60), Ok(()));
    assert_eq!(judge(&settings, &expires, NOW + 61), Err(Refusal::Expired));
    let strict = compile(&[Rule { leeway: Some(Duration::ZERO), ..rule() }]);
    assert_eq!(judge(&strict, &expires, NOW), Ok(()));
    assert_eq!(judge(&strict, &expires, NOW + 1), Err(Refusal::Expired));
}

#[test]
fn a_token_that_was_verified_before_expires_all_the_same() {
    let settings = compile(&[rule()]);
    let token = good();
    assert_eq!(judge(&settings, &token, NOW), Ok(()));
    assert_eq!(judge(&settings, &token, NOW + 3600 + 61), Err(Refusal::Expired));
}

#[test]
fn the_audience_has_to_be_one_of_the_rule() {
    let rule = Rule { audiences: vec!["https://shop.example/".to_owned(), "cart".to_owned()], ..rule() };
    let settings = compile(&[rule]);
    let judged = |audience: Value| {
        let mut claims = claims();
        claims["aud"] = audience;
        judge(&settings, &token("ES256", &claims), NOW)
    };
    for fits in [json!("cart"), json!(["other", "cart"]), json!("shop.example"), json!("http://shop.example")]
    {
        assert_eq!(judged(fits.clone()), Ok(()), "{fits}");
    }
    for no in [json!("other"), json!([]), json!("Cart"), json!("cart2"), json!("")] {
        assert_eq!(judged(no.clone()), Err(Refusal::AudienceNotAllowed), "{no}");
    }
    for malformed in [json!(1), json!([1]), json!({"a": "cart"}), json!(null), json!(["cart", null])] {
        assert_eq!(judged(malformed.clone()), Err(Refusal::Audience), "{malformed}");
    }
    let missing = token("ES256", &claims());
    assert_eq!(judge(&settings, &missing, NOW), Err(Refusal::AudienceNotAllowed));
}

#[test]
fn issuer_and_subject_are_texts_and_the_issuer_is_that_of_the_rule() {
    for value in [json!(1), json!(null), json!([ISSUER])] {
        assert_eq!(judged(&with("iss", value.clone())), Err(Refusal::Issuer));
        assert_eq!(judged(&with("sub", value)), Err(Refusal::Subject));
    }
    for other in ["", "https://issuer.example/", "HTTPS://issuer.example", "https://issuer.example\u{0}"] {
        assert_eq!(judged(&with("iss", json!(other))), Err(Refusal::UnknownIssuer), "{other:?}");
    }
    assert_eq!(judged(&token("ES256", &json!({"sub": "x"}))), Err(Refusal::UnknownIssuer));
}

#[test]
fn a_key_of_another_name_is_not_tried() {
    assert_eq!(judged(&header(&json!({"alg": "RS256", "kid": "gone"}))), Err(Refusal::NoKey));
    for kid in [json!(1), json!(null), json!(["rsa"])] {
        assert_eq!(judged(&header(&json!({"alg": "RS256", "kid": kid}))), Err(Refusal::KeyId));
    }
}

#[test]
fn malformed_tokens_are_refused_in_envoys_words() {
    let header = encode(br#"{"alg":"RS256"}"#);
    for (token, refusal) in [
        (String::new(), Refusal::Format),
        ("a".to_owned(), Refusal::Format),
        ("..".to_owned(), Refusal::Format),
        ("a.b.c.d.e".to_owned(), Refusal::Format),
        ("!!.e30.AA".to_owned(), Refusal::HeaderBase64),
        ("e30=.e30.AA".to_owned(), Refusal::HeaderBase64),
        ("AAAA.e30.AA".to_owned(), Refusal::HeaderJson),
        (format!("{header}.!.AA"), Refusal::PayloadBase64),
        (format!("{header}.AAAA.AA"), Refusal::PayloadJson),
        (format!("{header}.{}.AA", encode(b"[]")), Refusal::PayloadJson),
        (format!("{header}.e30.!"), Refusal::SignatureBase64),
        ("a".repeat(17 * 1024), Refusal::Format),
        (format!("{header}.{}.AA", encode("[".repeat(9000).as_bytes())), Refusal::PayloadJson),
    ] {
        assert_eq!(judged(&token), Err(refusal), "{token:.60}");
    }
}
