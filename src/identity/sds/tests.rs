//! What becomes of responses, without a server. Streams are tested by `tests/sds.rs`.

use std::time::SystemTime;

use bytes::Bytes;
use prost::Message;

use super::delivered::Delivered;
use super::frames::{Frames, framed};
use super::proto::{
    Any, DataSource, DiscoveryRequest, DiscoveryResponse, Present, SECRET, Secret, TlsCertificate,
    ValidationContext,
};
use super::secrets::Parts;
use super::{Names, check_response};
use crate::identity::tests::certificates::{CART, Ca, Leaf, mesh, uri};
use crate::identity::{Held, Offer};

fn inline(text: &str) -> Option<DataSource> {
    data(|data| data.inline_bytes = Some(text.as_bytes().to_vec()))
}

fn data(change: impl FnOnce(&mut DataSource)) -> Option<DataSource> {
    let mut data = DataSource::default();
    change(&mut data);
    Some(data)
}

fn certificate(leaf: &Leaf) -> Secret {
    let own = TlsCertificate {
        certificate_chain: inline(&leaf.chain),
        private_key: inline(&leaf.key),
        ..TlsCertificate::default()
    };
    Secret { name: "default".to_owned(), tls_certificate: Some(own), validation_context: None }
}

fn context(roots: &str) -> ValidationContext {
    ValidationContext { trusted_ca: inline(roots), ..ValidationContext::default() }
}

fn bundle(context: ValidationContext) -> Secret {
    Secret { name: "ROOTCA".to_owned(), tls_certificate: None, validation_context: Some(context) }
}

fn response(secrets: &[Secret]) -> DiscoveryResponse {
    let any = |secret: &Secret| Any { type_url: SECRET.to_owned(), value: secret.encode_to_vec() };
    DiscoveryResponse {
        version_info: "v".to_owned(),
        resources: secrets.iter().map(any).collect(),
        type_url: SECRET.to_owned(),
        nonce: "n".to_owned(),
    }
}

fn parts(secrets: &[Secret]) -> Result<Parts, String> {
    Parts::read(&response(secrets), &Names::default())
}

#[test]
fn a_response_that_asks_for_more_than_is_done_is_refused_by_the_name_of_the_field() {
    let root = Ca::new("root");
    let leaf = root.leaf(uri(CART));
    let own = |change: fn(&mut TlsCertificate)| {
        let mut secret = certificate(&leaf);
        secret.tls_certificate.as_mut().map(change).unwrap();
        secret
    };
    let roots = |change: fn(&mut ValidationContext)| {
        let mut changed = context(&root.pem);
        change(&mut changed);
        bundle(changed)
    };
    for (secrets, said) in [
        (vec![], "holds no secret"),
        (vec![Secret { name: "other".to_owned(), ..certificate(&leaf) }], "`other` was not asked for"),
        (vec![certificate(&leaf), certificate(&leaf)], "`default` is there twice"),
        (vec![Secret { tls_certificate: None, ..certificate(&leaf) }], "`default` has no `tls_certificate`"),
        (vec![bundle(ValidationContext::default())], "`ROOTCA` has no `trusted_ca`"),
        (vec![own(|own| own.private_key = None)], "has no `private_key`"),
        (vec![own(|own| own.private_key_provider = Some(Present {}))], "`private_key_provider`"),
        (vec![own(|own| own.password = inline("x"))], "`password`"),
        (vec![own(|own| own.pkcs12 = inline("x"))], "`pkcs12`"),
        (vec![own(|own| own.private_key = Some(DataSource::default()))], "not exactly one"),
        (
            vec![own(|own| {
                own.private_key = data(|data| data.environment_variable = Some("KEY".to_owned()));
            })],
            "environment variable",
        ),
        (
            vec![roots(|context| context.custom_validator_config = Some(Present {}))],
            "`custom_validator_config`",
        ),
        (
            vec![roots(|context| context.verify_certificate_spki = vec!["x".to_owned()])],
            "`verify_certificate_spki`",
        ),
        (
            vec![roots(|context| context.verify_certificate_hash = vec!["x".to_owned()])],
            "`verify_certificate_hash`",
        ),
        (
            vec![roots(|context| context.match_typed_subject_alt_names = vec![Present {}])],
            "`match_typed_subject_alt_names`",
        ),
        (
            vec![roots(|context| context.match_subject_alt_names = vec![Present {}])],
            "`match_subject_alt_names`",
        ),
    ] {
        let why = parts(&secrets).unwrap_err();
        assert!(why.contains(said), "{said}: {why}");
        assert!(check_response(&response(&secrets).encode_to_vec()).is_err());
    }
    let other = DiscoveryResponse { type_url: "type.googleapis.com/other".to_owned(), ..response(&[]) };
    assert!(Parts::read(&other, &Names::default()).unwrap_err().contains("`type.googleapis.com/other`"));
    assert!(parts(&[certificate(&leaf), roots(|_| ())]).is_ok());
}

#[test]
fn a_key_is_shown_nowhere() {
    let leaf = Ca::new("root").leaf(uri(CART));
    let secret = leaf.key.lines().nth(1).unwrap();
    let response = response(&[certificate(&leaf)]);
    let read = Parts::read(&response, &Names::default()).unwrap();
    for shown in [format!("{response:?}"), format!("{:?}", certificate(&leaf)), format!("{read:?}")] {
        assert!(!shown.contains(secret) && !shown.contains("45, 45, 45"), "{shown}");
    }
}

#[test]
fn what_is_in_files_is_read_and_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let root = Ca::new("root");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        data(|data| data.filename = Some(path.display().to_string()))
    };
    let write = || {
        let leaf = root.leaf(uri(CART));
        let (chain, key) = (file("cert.pem", &leaf.chain), file("key.pem", &leaf.key));
        TlsCertificate { certificate_chain: chain, private_key: key, ..TlsCertificate::default() }
    };
    let mut secret = certificate(&root.leaf(uri(CART)));
    secret.tls_certificate = Some(write());
    let (held, now, names) = (Held::new("workload", mesh()), SystemTime::now(), Names::default());
    let mut delivered = Delivered::default();
    let parts = parts(&[secret, bundle(context(&root.pem))]).unwrap();
    assert_eq!(delivered.take(&held, &parts, &names, now), Ok(()));
    delivered.again(&held, now);
    assert_eq!(held.load().unwrap().generation(), 1);
    write();
    delivered.again(&held, now);
    assert_eq!(held.load().unwrap().generation(), 2);
}

#[test]
fn certificate_and_roots_come_apart_and_a_broken_one_does_not_keep_out_the_other() {
    let (old, new) = (Ca::new("old"), Ca::new("new"));
    let (held, now, names) = (Held::new("workload", mesh()), SystemTime::now(), Names::default());
    let mut delivered = Delivered::default();
    assert_eq!(delivered.missing(&names), Some("default"));
    let mut take = |secret: Secret| delivered.take(&held, &parts(&[secret]).unwrap(), &names, now);
    let generation = || held.load().map_or(0, |identity| identity.generation());
    let roots = |pem: &str| bundle(context(pem));

    assert_eq!(take(certificate(&old.leaf(uri(CART)))), Ok(()));
    assert_eq!(generation(), 0, "the roots are missing");
    assert_eq!(take(roots(&old.pem)), Ok(()));
    assert_eq!(generation(), 1);

    // The certificate of a new root comes before the root: it waits for it.
    let why = take(certificate(&new.leaf(uri(CART)))).unwrap_err();
    assert!(why.contains("none of the roots"), "{why}");
    assert_eq!((generation(), held.status(now).failures), (1, 1));
    assert_eq!(take(roots(&new.pem)), Ok(()));
    assert_eq!((generation(), held.status(now).problem), (2, None));

    // A broken certificate does not keep out new roots, and stays said.
    let mixed = Leaf { key: old.leaf(uri(CART)).key, ..new.leaf(uri(CART)) };
    assert!(take(certificate(&mixed)).unwrap_err().contains("does not belong"));
    assert_eq!(take(roots(&(old.pem.clone() + &new.pem))), Ok(()));
    let status = held.status(now);
    assert_eq!((status.generation, status.trust_generation), (3, 3));
    assert!(status.problem.unwrap().contains("does not belong"));
    assert_eq!(take(certificate(&old.leaf(uri(CART)))), Ok(()));
    assert_eq!((generation(), held.status(now).problem), (4, None));

    // Neither do broken roots keep out a certificate.
    assert!(take(roots("none")).unwrap_err().contains("trust bundle"));
    assert_eq!(take(certificate(&new.leaf(uri(CART)))), Ok(()));
    assert_eq!(generation(), 5);
}

#[test]
fn a_revocation_list_comes_with_the_roots() {
    let root = Ca::new("root");
    let (held, now) = (Held::new("workload", mesh()), SystemTime::now());
    let with = ValidationContext { crl: inline(&root.crl(&[], 30)), ..context(&root.pem) };
    let read = parts(&[certificate(&root.leaf(uri(CART))), bundle(with)]).unwrap();
    let pem = read.pem().unwrap();
    assert!(pem.crl.as_ref().is_some_and(|crl| crl.starts_with(b"-----BEGIN X509 CRL")));
    assert_eq!(held.offer(Ok(pem), now), Offer::Taken);
}

#[test]
fn messages_are_cut_out_of_whatever_pieces_they_arrive_in() {
    let request = |name: &str| DiscoveryRequest {
        resource_names: vec![name.to_owned()],
        ..DiscoveryRequest::default()
    };
    let all =
        [framed(&request("one")), framed(&DiscoveryRequest::default()), framed(&request("two"))].concat();
    for size in 1..=all.len() {
        let (mut frames, mut names) = (Frames::default(), Vec::new());
        for piece in all.chunks(size) {
            frames.push(Bytes::copy_from_slice(piece));
            while let Some(message) = frames.next().unwrap() {
                names.extend(DiscoveryRequest::decode(message.as_slice()).unwrap().resource_names);
            }
        }
        assert_eq!(names, ["one", "two"]);
        assert!(frames.is_between());
    }
    for (start, said) in [([1, 0, 0, 0, 1], "compressed"), ([0, 0x7f, 0, 0, 0], "bytes; at most")] {
        let mut frames = Frames::default();
        frames.push(Bytes::copy_from_slice(&start));
        assert!(frames.next().unwrap_err().contains(said));
    }
}
