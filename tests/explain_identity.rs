//! `sidegate explain`: who asks, over which connection, with which token, and when.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use data_encoding::BASE64URL_NOPAD;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const ORDER: [&str; 2] = ["--principal", "cluster.local/ns/ecommerce/sa/order-service"];
const ISSUER: &str = "https://auth.ecommerce.example.com";

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/demo")
}

/// A payment of the demo, asked about with further arguments.
fn payment(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidegate"));
    command.arg("explain").arg("--config").arg(demo());
    command.args([
        "--as",
        "payment-service",
        "--inbound",
        "POST",
        "http://payment-service/api/payments/process",
    ]);
    command.args(arguments).output().unwrap()
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_slice(&payment(&[arguments, &["--output", "json"]].concat()).stdout).unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_refusal_names_rule_clause_expected_actual_and_place() {
    let told = json(&["--principal", "cluster.local/ns/ecommerce/sa/user-service"]);
    let decision = &told["decision"];
    assert_eq!(
        (&decision["verdict"], &decision["by"]),
        (&Value::from("Deny"), &Value::from("no ALLOW rule"))
    );
    let clause = &decision["clause"];
    assert_eq!(clause["rule"], "AuthorizationPolicy ecommerce/payment-service-authz rule 0");
    assert_eq!(clause["key"], "from.source.principals");
    assert_eq!(clause["expected"], "cluster.local/ns/ecommerce/sa/order-service");
    assert_eq!(clause["actual"], "cluster.local/ns/ecommerce/sa/user-service");
    assert!(clause["origin"].as_str().unwrap().contains("istio.yaml:252:5"), "{clause}");
    assert_eq!(told["outcome"]["status"], 403);
}

#[test]
fn plain_text_and_tls_without_a_certificate_do_not_get_through_strict() {
    for (tls, why) in [
        ("none", "plain text, and mutual TLS is required"),
        ("simple", "a certificate of the client is required"),
    ] {
        let output = payment(&["--tls", tls]);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            text(&output).contains("refused: closed NR") && text(&output).contains(why),
            "{}",
            text(&output)
        );
    }
    let told = json(&["--tls", "none"]);
    assert_eq!(told["decision"]["by"], "PeerAuthentication ecommerce/default");
    assert_eq!(payment(&ORDER).status.code(), Some(0));
}

#[test]
fn claims_are_believed_loudly_and_only_of_an_issuer_that_is_known() {
    let alice = payment(&[&ORDER[..], &["--claims", r#"{"sub": "alice"}"#]].concat());
    assert_eq!(alice.status.code(), Some(0));
    assert!(text(&alice).contains("NOTE        THE CLAIMS ARE TAKEN AS IF VERIFIED"), "{}", text(&alice));
    let other = json(&[&ORDER[..], &["--claims", r#"{"iss": "https://other", "sub": "alice"}"#]].concat());
    assert_eq!(other["outcome"]["status"], 401);
    assert_eq!(other["decision"]["by"], "RequestAuthentication ecommerce/jwt-auth rule 0");
    assert!(other["tokens"][0]["origin"].as_str().unwrap().contains("istio.yaml:239:5"), "{other}");
    let expired =
        json(&[&ORDER[..], &["--claims", r#"{"exp": 1767322800}"#, "--at", "2026-01-02T03:04:05Z"]].concat());
    assert_eq!(expired["outcome"]["why"], "the token is refused: Jwt is expired");
}

#[test]
fn a_token_is_believed_only_with_its_keys_and_in_its_time() {
    let key = Ed25519KeyPair::generate().unwrap();
    let x = BASE64URL_NOPAD.encode(key.public_key().as_ref());
    let jwks = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"k","x":"{x}"}}]}}"#);
    // 2026-01-02T03:00:00Z
    let claims = format!(r#"{{"iss":"{ISSUER}","sub":"alice","exp":1767322800}}"#);
    let message = [r#"{"alg":"EdDSA","kid":"k"}"#, &claims]
        .map(|part| BASE64URL_NOPAD.encode(part.as_bytes()))
        .join(".");
    let token = format!("{message}.{}", BASE64URL_NOPAD.encode(key.sign(message.as_bytes()).as_ref()));
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let uri = format!("{ISSUER}/.well-known/jwks.json");
    let (bare, file) = (write("keys.json", &jwks), write("token", &format!("{token}\n")));
    let kept = write("kept", &format!("{{\"issuer\":\"{ISSUER}\",\"uri\":\"{uri}\",\"fetched\":1}}\n{jwks}"));
    let other = write("other", &jwks.replace(&x, &BASE64URL_NOPAD.encode(&[9; 32])));
    let elsewhere = write("elsewhere", &format!("{{\"issuer\":\"i\",\"uri\":\"u\",\"fetched\":1}}\n{jwks}"));
    let ask = |rest: &[&str]| json(&[&ORDER[..], rest].concat());

    let unbelieved = ask(&["--token", &token, "--at", "2026-01-02T02:00:00Z"]);
    let why = unbelieved["outcome"]["why"].as_str().unwrap();
    assert!(
        why.starts_with("the token is not believed: the keys at") && unbelieved["outcome"]["status"] == 401,
        "{why}"
    );
    for (shown, keys) in [(&token, &bare), (&file, &bare), (&token, &kept)] {
        let told = ask(&["--token", shown, "--jwks", keys, "--at", "2026-01-02T02:00:00Z"]);
        assert_eq!(told["outcome"]["kind"], "forwarded", "{told}");
        assert_eq!(told["tokens"][0]["because"], format!("the token of {ISSUER}/alice holds"));
    }
    let late = ask(&["--token", &token, "--jwks", &bare, "--at", "2026-01-02T03:04:05Z"]);
    assert_eq!(late["outcome"]["why"], "the token is refused: Jwt is expired");
    let forged = ask(&["--token", &token, "--jwks", &other, "--at", "2026-01-02T02:00:00Z"]);
    assert_eq!(forged["outcome"]["status"], 401, "{forged}");
    let output = payment(&["--token", &token, "--jwks", &elsewhere]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
}

#[test]
fn what_cannot_be_asked_is_wrong_usage() {
    for (arguments, hint) in [
        (&["--claims", "sub=alice"][..], "write them as in"),
        (&["--at", "noon"], "write it in RFC 3339"),
        (&["--token", "none"], "the token is none"),
        (&["--claims", "{}", "--token", "a.b.c"], "cannot be used with"),
        (&[ORDER[0], ORDER[1], "--tls", "simple"], "a principal is proved by a certificate"),
        (&["--jwks", "/nowhere"], "there is no such file"),
    ] {
        let output = payment(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output).contains(hint), "{}", text(&output));
    }
}

#[test]
fn addresses_of_clients_are_asked_of_policies() {
    let folder = tempfile::tempdir().unwrap();
    let yaml = "apiVersion: sidegate.io/v1alpha1\nkind: Proxy\nmetadata: {name: a, namespace: shop}\nspec: {inbound: {application: \"127.0.0.1:9\"}}\n\
        ---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\n\
        spec: {rules: [{from: [{source: {ipBlocks: [10.1.0.0/16]}}]}]}\n";
    std::fs::write(folder.path().join("a.yaml"), yaml).unwrap();
    for (client, code) in [("10.1.2.3", 0), ("10.2.2.3", 1)] {
        let output = Command::new(env!("CARGO_BIN_EXE_sidegate"))
            .args(["explain", "--inbound", "GET", "http://a/", "--client-ip", client, "--config"])
            .arg(folder.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
    }
}
