//! What a token costs a request: verified for the first time, remembered, and not there; and what the key of the memory costs.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot start may panic")]

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use filter_api::{Keep, NoTrace, Spec};
use filter_jwt::{Compiled, Decision, Jwt, Keys, Rule, Settings, decide};
use http::request::Parts;
use std::collections::HashMap;
use std::hint::black_box;
use std::time::SystemTime;

const ISSUER: &str = "https://issuer.example";

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

/// A rule, and a token of the size that identity providers issue.
fn rule_and_token() -> (Rule, String) {
    let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    // DER: two lengths, then the modulus after its zero; at the end the exponent 65537.
    let der = key.public_key().as_ref();
    let (n, e) = (encode(&der[9..9 + 256]), encode(&der[der.len() - 3..]));
    let jwks = format!(r#"{{"keys":[{{"kty":"RSA","kid":"a","use":"sig","n":"{n}","e":"{e}"}}]}}"#);
    let roles: Vec<_> = (0..10).map(|at| format!("\"role-{at}\"")).collect();
    let claims = format!(
        r#"{{"iss":"{ISSUER}","sub":"0a1b2c3d-1111-2222-3333-444455556666","aud":["shop"],"exp":9000000000,"iat":1700000000,"email":"alice@example.com","realm_access":{{"roles":[{}]}},"scope":"openid profile email"}}"#,
        roles.join(",")
    );
    let message =
        format!("{}.{}", encode(br#"{"alg":"RS256","typ":"JWT","kid":"a"}"#), encode(claims.as_bytes()));
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature).unwrap();
    let rule = Rule { issuer: ISSUER.to_owned(), keys: Keys::Inline(jwks), ..Rule::default() };
    (rule, format!("{message}.{}", encode(&signature)))
}

fn compile(rule: &Rule) -> [Compiled; 1] {
    [Jwt::compile(&Settings { rules: vec![rule.clone()], broken: Vec::new() }, &Keep::default()).unwrap()]
}

fn head(token: Option<&str>) -> Parts {
    let request = http::Request::builder().uri("/api/v1/things?page=2").header("host", "shop.example");
    let request = match token {
        Some(token) => request.header("authorization", format!("Bearer {token}")),
        None => request.header("accept", "*/*"),
    };
    request.body(()).unwrap().into_parts().0
}

fn tokens(criterion: &mut Criterion) {
    let (rule, token) = rule_and_token();
    let (with, without) = (head(Some(&token)), head(None));
    let now = SystemTime::now();
    let mut group = criterion.benchmark_group("jwt");
    group.bench_function("rs256_verified", |bencher| {
        // A provider of its own each time: its memory is empty.
        bencher.iter_batched(
            || compile(&rule),
            |settings| {
                let decision = decide(&settings, &with, now, &mut NoTrace);
                assert!(matches!(decision, Decision::Verified { .. }));
                settings
            },
            BatchSize::SmallInput,
        );
    });
    let settings = compile(&rule);
    group.bench_function("rs256_remembered", |bencher| {
        bencher.iter(|| {
            let decision = decide(&settings, black_box(&with), now, &mut NoTrace);
            assert!(matches!(decision, Decision::Verified { .. }));
        });
    });
    group.bench_function("no_token", |bencher| {
        bencher.iter(|| {
            let decision = decide(&settings, black_box(&without), now, &mut NoTrace);
            assert!(matches!(decision, Decision::Missing));
        });
    });
    group.finish();
    let mut group = criterion.benchmark_group("jwt_key");
    let by_text: HashMap<Box<str>, u32> = HashMap::from([(token.as_str().into(), 1)]);
    group.bench_function("siphash_and_compare", |bencher| {
        bencher.iter(|| assert!(by_text.contains_key(black_box(token.as_str()))));
    });
    group.bench_function("sha256_alone", |bencher| {
        bencher.iter(|| black_box(digest::digest(&digest::SHA256, black_box(token.as_bytes()))));
    });
    group.finish();
}

criterion_group!(benches, tokens);
criterion_main!(benches);
