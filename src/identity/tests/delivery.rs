//! What becomes of what a source delivers.

use std::time::{Duration, SystemTime};

use rcgen::{ExtendedKeyUsagePurpose, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256};
use time::OffsetDateTime;

use super::certificates::{CART, Ca, Leaf, REVIEWS, dns, identity, mesh, uri};
use crate::config::resources::scalar::Base64;
use crate::identity::{Held, Identity, Offer, Pem, Purpose, SecretBytes};

fn refused(pem: &Pem) -> String {
    Identity::new(pem, &mesh(), None, SystemTime::now()).unwrap_err().to_string()
}

#[test]
fn an_identity_that_peers_would_refuse_is_kept_out_and_the_remedy_is_said() {
    let root = Ca::new("root");
    let intermediate = root.intermediate(|_| ());
    let good = intermediate.leaf(uri(CART));
    let other = root.leaf(uri(CART));
    let now = OffsetDateTime::now_utc();
    let with = |leaf: &Leaf| leaf.with_roots(&root.pem);
    let split =
        |pem: &str| pem.split_inclusive("-----END CERTIFICATE-----\n").map(str::to_owned).collect::<Vec<_>>();
    let (leaf, issuer) = (split(&good.chain)[0].clone(), split(&good.chain)[1].clone());
    let chain = |text: String| Pem { certificate: Some(text.into_bytes()), ..with(&good) };
    let expired = root.leaf(|params| {
        uri(CART)(params);
        params.not_after = now - time::Duration::minutes(1);
    });
    let early = root.leaf(|params| {
        uri(CART)(params);
        params.not_before = now + time::Duration::minutes(30);
    });
    let server_only = root.leaf(|params| {
        uri(CART)(params);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let late =
        root.intermediate(|params| params.not_after = now - time::Duration::minutes(1)).leaf(uri(CART));
    for (pem, reasons) in [
        (
            Pem { key: Some(SecretBytes::new(other.key.clone().into_bytes())), ..with(&good) },
            ["does not belong", "replace both"],
        ),
        (chain(issuer.clone() + &leaf), ["certificate 1 of the chain", "leaf first"]),
        (chain(leaf.clone() + &root.pem), ["certificate 1 of the chain", "CN=intermediate"]),
        (chain(leaf), ["refused by our peers", "none of the roots"]),
        (chain(String::new()), ["the certificate has no PEM section", "BEGIN CERTIFICATE"]),
        (
            chain("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n".to_owned()),
            ["the certificate cannot be read", "not base64"],
        ),
        (
            chain("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned()),
            ["the certificate cannot be read", "X.509"],
        ),
        (Pem { key: None, ..with(&good) }, ["the private key has no PEM section", "BEGIN PRIVATE KEY"]),
        (Pem { roots: None, ..with(&good) }, ["the trust bundle has no PEM section", "BEGIN CERTIFICATE"]),
        (
            Pem { crl: Some(b"x".to_vec()), ..with(&good) },
            ["the revocation list has no PEM section", "X509 CRL"],
        ),
        (with(&expired), ["leaf certificate", "has expired: our clock says"]),
        (with(&late), ["intermediate certificate `CN=intermediate`", "has expired: our clock says"]),
        (with(&early), ["its issuer's said", "it is valid from"]),
        (with(&server_only), ["refused by our peers", "not for clients"]),
        (
            with(&root.leaf(uri("spiffe://other/ns/a/sa/b"))),
            ["`other` is not of ours (cluster.local, old.local)", "alias"],
        ),
        (
            with(&root.leaf(|params| params.subject_alt_names.push(dns("a.b")))),
            ["refused by our peers", "no SPIFFE id"],
        ),
        (
            Ca::new("other").leaf(uri(CART)).with_roots(&root.pem),
            ["refused by our peers", "none of the roots"],
        ),
    ] {
        let said = refused(&pem);
        assert!(reasons.iter().all(|reason| said.contains(reason)), "{reasons:?}: {said}");
    }
    let loaded = identity(&with(&good), None);
    let own = loaded.certificate().unwrap();
    assert_eq!(own.principal().unwrap().service_account(), "cart");
    assert!(own.intermediate_expires().is_some() && own.chain().len() == 2);
}

fn pem(section: &str, der: &[u8]) -> String {
    format!("-----BEGIN {section}-----\n{}\n-----END {section}-----\n", Base64(der.to_vec()))
}

/// The part of `der` that ends it and begins `before` bytes before `mark`.
fn tail<'a>(der: &'a [u8], mark: &[u8], before: usize) -> &'a [u8] {
    let at = der.windows(mark.len()).rposition(|window| window == mark).unwrap();
    &der[at - before..]
}

#[test]
fn keys_of_every_usual_form_are_read() {
    let root = Ca::new("root");
    let p256 = KeyPair::generate().unwrap();
    let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    // ECPrivateKey { version 1, 32 bytes of key, ... } and RSAPrivateKey { version 0, modulus of 257 bytes, ... } end their PKCS#8 forms.
    let sec1 = pem("EC PRIVATE KEY", tail(p256.serialized_der(), &[2, 1, 1, 4, 32], 2));
    let pkcs1 = pem("RSA PRIVATE KEY", tail(rsa.serialized_der(), &[2, 1, 0, 2, 0x82, 1, 1], 4));
    let forms = [(p256, Some(sec1)), (p384, None), (rsa, Some(pkcs1))];
    for (key, other) in forms {
        let leaf = root.leaf_of(&key, uri(CART));
        identity(&leaf.with_roots(&root.pem), None);
        if let Some(text) = other {
            identity(
                &Pem { key: Some(SecretBytes::new(text.into_bytes())), ..leaf.with_roots(&root.pem) },
                None,
            );
        }
    }
}

#[test]
fn keys_are_never_shown() {
    let root = Ca::new("root");
    let leaf = root.leaf(uri(CART));
    let delivery = leaf.with_roots(&root.pem);
    let loaded = identity(&delivery, None);
    let secret = leaf.key.lines().nth(1).unwrap();
    for shown in [format!("{delivery:?}"), format!("{loaded:?}"), format!("{:?}", loaded.certificate())] {
        assert!(shown.contains("(secret)") && !shown.contains(secret), "{shown}");
    }
    let broken = Pem { key: Some(SecretBytes::new(leaf.key.replace("KEY", "KEX").into_bytes())), ..delivery };
    assert!(!refused(&broken).contains(secret));
}

#[test]
fn a_broken_renewal_is_kept_out_and_said_and_the_last_good_one_stays() {
    let root = Ca::new("root");
    let held = Held::new("workload", mesh());
    let now = SystemTime::now();
    assert!(held.load().is_none() && held.ready(now).unwrap_err().contains("delivered nothing yet"));
    assert_eq!(held.findings(now)[0].code, "identity-missing");
    let good = root.leaf(uri(CART)).with_roots(&root.pem);
    assert_eq!(held.offer(Ok(good.clone()), now), Offer::Taken);
    assert_eq!(held.offer(Ok(good.clone()), now), Offer::Same);
    assert!(held.ready(now).is_ok() && held.findings(now).is_empty());
    let mixed = Pem { key: root.leaf(uri(CART)).alone().key, ..good.clone() };
    assert_eq!(held.offer(Ok(mixed.clone()), now), Offer::Refused);
    assert_eq!(held.offer(Ok(mixed), now), Offer::Refused);
    assert_eq!(held.load().unwrap().generation(), 1);
    let status = held.status(now);
    assert_eq!((status.failures, status.valid), (1, true), "once for one reason");
    assert!(status.problem.unwrap().contains("does not belong"));
    let finding = &held.findings(now)[0];
    assert!(
        finding.code == "identity-renewal-refused" && finding.message.contains("does not belong"),
        "{finding}"
    );
    assert!(held.ready(now).is_ok());
    let later = now + Duration::from_secs(25 * 3600);
    let why = held.ready(later).unwrap_err();
    assert!(why.contains("it expired at") && why.contains("does not belong"), "{why}");
    assert_eq!(held.findings(later)[0].code, "identity-missing");
    assert_eq!(held.offer(Ok(good), now), Offer::Same, "mended by going back");
    assert!(held.findings(now).is_empty());
    let late = now + Duration::from_secs(20 * 3600);
    assert_eq!(held.findings(late)[0].code, "identity-expires-soon");
    assert_eq!(held.offer(Ok(root.leaf(uri(CART)).with_roots(&root.pem)), now), Offer::Taken);
    assert_eq!(held.load().unwrap().generation(), 2);
}

#[test]
fn odd_roots_of_an_operating_system_are_left_out() {
    let root = Ca::new("root");
    let odd = pem("CERTIFICATE", b"no certificate");
    let bundle = |text: String| Pem { roots: Some(text.into_bytes()), ..Pem::default() };
    let loaded =
        Identity::new(&bundle(odd.clone() + &root.pem + &root.pem), &Purpose::Roots, None, SystemTime::now());
    assert_eq!(loaded.unwrap().trust().roots(), 1);
    assert!(Identity::new(&bundle(odd.clone()), &Purpose::Roots, None, SystemTime::now()).is_err());
    let strict = root.leaf(uri(REVIEWS)).with_roots(&(odd + &root.pem));
    assert!(
        refused(&strict).contains("trust bundle cannot be read"),
        "that of the mesh is taken whole or not at all"
    );
}
