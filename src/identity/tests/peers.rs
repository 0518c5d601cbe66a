//! Who is let in, who is not, and what is said of it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyPair,
    KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256,
};
use rustls::sign::SingleCertAndKey;
use time::{Duration, OffsetDateTime};

use super::certificates::{CART, Ca, Leaf, REVIEWS, dns, identity, uri};
use super::handshake::{Outcome, client, client_of, name, server, server_of, shake, shake_as};
use crate::identity::{
    ClientSettings, ClientTls, Clients, Hybrid, Identity, NameMatch, Purpose, ServerSettings, Servers, Tls,
    TlsVersion, alpn, client_config,
};

#[tokio::test]
async fn workloads_of_one_mesh_prove_themselves_to_each_other() {
    let root = Ca::new("root");
    let (served, called) = shake(&server(root.workload(REVIEWS)), &client(&root.workload(CART))).await;
    let (served, called) = (served.unwrap(), called.unwrap());
    assert_eq!((served.version, served.group, served.resumed), ("TLSv1.3", "X25519MLKEM768", false));
    assert_eq!((served.cipher, served.alpn.as_deref()), ("TLS_AES_256_GCM_SHA384", Some("h2")));
    let peer = served.peer.unwrap();
    assert_eq!(peer.principal.as_ref().unwrap().as_str(), "cluster.local/ns/shop/sa/cart");
    assert_eq!((&*peer.subject, &*peer.uris[0], peer.chain.len()), ("", CART, 1));
    assert!(peer.not_before < SystemTime::now() && SystemTime::now() < peer.not_after);
    let reviews = called.peer.unwrap().principal.clone().unwrap();
    assert_eq!(reviews.service_account(), "reviews");
}

/// What a server of the mesh says of a client that shows `leaf`.
async fn shown(root: &Ca, leaf: &Leaf) -> (Outcome, Outcome) {
    shown_to(root.workload(REVIEWS), root, leaf).await
}

async fn shown_to(reviews: Identity, root: &Ca, leaf: &Leaf) -> (Outcome, Outcome) {
    let (server, client) = (server(reviews), client(&root.workload(CART)));
    let mut config = (**client.config()).clone();
    config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(leaf.certified()));
    shake_as(&server, &client, Arc::clone(server.config()), Arc::new(config), name()).await
}

#[tokio::test]
async fn row_8_a_client_that_is_no_workload_of_the_mesh_is_refused_and_the_reason_is_said() {
    type Change = Box<dyn FnOnce(&mut CertificateParams)>;
    fn id(text: &'static str) -> Change {
        Box::new(uri(text))
    }
    fn cart(change: impl FnOnce(&mut CertificateParams) + 'static) -> Change {
        Box::new(|params| {
            uri(CART)(params);
            change(params);
        })
    }
    let now = OffsetDateTime::now_utc();
    let vectors: Vec<(&str, Change, &str)> = vec![
        ("foreign domain", id("spiffe://other/ns/a/sa/b"), "trust domain `other` is not of ours"),
        ("upper case", id("spiffe://Cluster.local/ns/a/sa/b"), "its trust domain is not"),
        ("NUL", id("spiffe://cluster.local/ns/a/sa/b\0.evil"), "\\u{0}"),
        ("dots", id("spiffe://cluster.local/ns/../sa/b"), "is no SPIFFE id"),
        ("percent", id("spiffe://cluster.local/ns/a%2fb/sa/b"), "is no SPIFFE id"),
        ("query", id("spiffe://cluster.local/ns/a/sa/b?c"), "is no SPIFFE id"),
        ("no names", Box::new(|_| ()), "has no SPIFFE id"),
        ("DNS only", Box::new(|params| params.subject_alt_names.push(dns("cart.shop"))), "has no SPIFFE id"),
        (
            "URI as DNS",
            cart(|params| params.subject_alt_names.push(dns(REVIEWS))),
            "a DNS name of its certificate is none",
        ),
        ("two ids", cart(uri(REVIEWS)), "2 URI names"),
        ("same id twice", cart(uri(CART)), "2 URI names"),
        (
            "expired",
            cart(move |params| params.not_after = now - Duration::minutes(1)),
            "has expired: our clock says 2",
        ),
        (
            "not yet",
            cart(move |params| params.not_before = now + Duration::hours(1)),
            "is not valid yet: our clock says 2",
        ),
        (
            "servers only",
            cart(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
            "not for clients",
        ),
        (
            "other use",
            cart(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning]),
            "not for clients",
        ),
        (
            "authority",
            cart(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            "certificate of an authority",
        ),
        (
            "signs",
            cart(|params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign]),
            "certificate of an authority",
        ),
    ];
    let root = Ca::new("root");
    for (what, change, reason) in vectors {
        let (served, called) = shown(&root, &root.leaf(change)).await;
        let said = served.expect_err(what);
        assert!(said.contains(reason), "{what}: {said}");
        assert!(called.is_err(), "{what}");
    }
    let (served, called) = shown(&root, &Ca::new("root").leaf(uri(CART))).await;
    assert!(served.unwrap_err().contains("issued by none of the roots"));
    assert!(called.unwrap_err().contains("none of its roots issued our certificate"));
    let constrained = root.intermediate(|params| {
        let permitted_subtrees = vec![GeneralSubtree::DnsName("shop".to_owned())];
        params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
    });
    let outside = constrained.leaf(cart(|params| params.subject_alt_names.push(dns("cart.bank"))));
    assert!(shown(&root, &outside).await.0.unwrap_err().contains("name constraints"));
    let inside = constrained.leaf(cart(|params| params.subject_alt_names.push(dns("cart.shop"))));
    assert!(shown(&root, &inside).await.0.is_ok());
    let alias = shown(&root, &root.leaf(id("spiffe://old.local/ns/shop/sa/cart"))).await.0.unwrap();
    assert_eq!(alias.peer.unwrap().principal.as_ref().unwrap().trust_domain(), "old.local");
}

#[tokio::test]
async fn row_27_a_client_without_a_certificate_is_refused() {
    let root = Ca::new("root");
    let (server, cart) = (server(root.workload(REVIEWS)), root.workload(CART));
    let settings = ClientSettings::new(Servers::Mesh(Vec::new()), alpn::CLIENT_HTTP2);
    let client = client_config(None, cart.trust(), &settings).unwrap();
    let (served, called) = shake(&server, &client).await;
    assert!(served.unwrap_err().contains("it showed no certificate"));
    assert!(called.unwrap_err().contains("it wants a certificate of ours"));
}

#[tokio::test]
async fn a_revoked_client_is_refused_and_so_is_one_of_whom_no_list_tells() {
    let root = Ca::new("root");
    let reviews = |crl: String| {
        let pem = root.leaf(uri(REVIEWS)).with_roots(&root.pem);
        identity(&crate::identity::Pem { crl: Some(crl.into_bytes()), ..pem }, None)
    };
    let cart = root.leaf(uri(CART));
    let (served, called) = shown_to(reviews(root.crl(&[7], 1)), &root, &cart).await;
    assert!(served.unwrap_err().contains("was revoked"));
    assert!(called.unwrap_err().contains("our certificate was revoked"));
    assert!(shown_to(reviews(root.crl(&[8], 1)), &root, &cart).await.0.is_ok());
    let uncovered = "no valid revocation list covers";
    let expired = shown_to(reviews(root.crl(&[], -1)), &root, &cart).await.0.unwrap_err();
    assert!(expired.contains(uncovered), "{expired}");
    let intermediate = root.intermediate(|_| ());
    let below = intermediate.leaf(uri(CART));
    assert!(shown_to(reviews(root.crl(&[8], 1)), &root, &below).await.0.unwrap_err().contains(uncovered));
    let both = root.crl(&[8], 1) + &intermediate.crl(&[8], 1);
    assert!(shown_to(reviews(both), &root, &below).await.0.is_ok());
}

#[tokio::test]
async fn a_root_that_has_expired_proves_nobody() {
    let root = Ca::with("root", |params| params.not_after = OffsetDateTime::now_utc() - Duration::hours(1));
    let leaf = root.leaf(uri(CART)).with_roots(&root.pem);
    let error = Identity::new(&leaf, &super::certificates::mesh(), None, SystemTime::now()).unwrap_err();
    assert!(
        error.to_string().contains("would be refused by our peers") && error.to_string().contains("expired"),
        "{error}"
    );
}

#[tokio::test]
async fn the_server_has_to_be_the_one_that_is_expected() {
    let root = Ca::new("root");
    let (server, cart) = (server(root.workload(REVIEWS)), root.workload(CART));
    let exact = |id: &str| NameMatch::Exact(id.into());
    let prefix = |id: &str| NameMatch::Prefix(id.into());
    for (names, expected) in [
        (vec![], true),
        (vec![exact(REVIEWS)], true),
        (vec![exact(CART), exact(REVIEWS)], true),
        (vec![prefix("spiffe://cluster.local/ns/shop/")], true),
        (vec![exact(CART)], false),
        (vec![exact("spiffe://cluster.local/ns/shop/sa/review")], false),
        (vec![prefix("spiffe://cluster.local/ns/bank/")], false),
    ] {
        let client = client_of(&cart, &ClientSettings::new(Servers::Mesh(names.clone()), alpn::CLIENT_HTTP1));
        let (served, called) = shake(&server, &client).await;
        assert_eq!((served.is_ok(), called.is_ok()), (expected, expected), "{names:?}");
        if let Err(said) = called {
            assert!(said.contains(REVIEWS) && said.contains("is expected"), "{said}");
        }
    }
    let client_only = root.leaf(|params| {
        uri(REVIEWS)(params);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    let mut config = (**server.config()).clone();
    config.cert_resolver = Arc::new(SingleCertAndKey::from(client_only.certified()));
    let client = client(&cart);
    let (_, called) = shake_as(&server, &client, Arc::new(config), Arc::clone(client.config()), name()).await;
    assert!(called.unwrap_err().contains("not for servers"));
}

#[tokio::test]
async fn servers_outside_of_the_mesh_prove_the_name_that_was_asked_for_or_one_that_is_listed() {
    let root = Ca::new("public");
    let leaf = root.leaf(|params| params.subject_alt_names.push(dns("api.example.com")));
    let credential = |pem| Identity::new(&pem, &Purpose::Credential, None, SystemTime::now());
    let server = server_of(
        &Arc::new(credential(leaf.alone()).unwrap()),
        &ServerSettings::new(Clients::Unknown, &[b"h2", b"http/1.1"]),
    );
    let roots = crate::identity::Pem { roots: Some(root.pem.clone().into_bytes()), ..Default::default() };
    let roots = Identity::new(&roots, &Purpose::Roots, None, SystemTime::now()).unwrap();
    let endpoint = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let listed = |name: &str| Servers::Names(vec![NameMatch::Exact(name.into())]);
    for (sni, servers, expected) in [
        (Some("api.example.com"), Servers::Asked, true),
        (Some("other.example.com"), Servers::Asked, false),
        (None, Servers::Asked, false),
        (None, Servers::Unverified, true),
        (Some("other.example.com"), listed("api.example.com"), true),
        (Some("api.example.com"), listed("other.example.com"), false),
    ] {
        let client =
            client_config(None, roots.trust(), &ClientSettings::new(servers.clone(), &[b"h2"])).unwrap();
        let name = ClientTls::server_name(sni, endpoint).unwrap();
        let (_, called) =
            shake_as(&server, &client, Arc::clone(server.config()), Arc::clone(client.config()), name).await;
        assert_eq!(called.is_ok(), expected, "{sni:?} {servers:?}: {called:?}");
    }
    assert!(ClientTls::server_name(Some("not a name"), endpoint).is_err());
}

#[tokio::test]
async fn a_gateway_asks_clients_for_what_its_settings_say() {
    let (root, clients) = (Ca::new("public"), Ca::new("partners"));
    let leaf = root.leaf(|params| params.subject_alt_names.push(dns("shop.example.com")));
    let pem = leaf.with_roots(&clients.pem);
    let gateway = Arc::new(Identity::new(&pem, &Purpose::Credential, None, SystemTime::now()).unwrap());
    let partner = clients.leaf(uri("spiffe://cluster.local/ns/istio-system/sa/admin"));
    let stranger = Ca::new("partners").leaf(uri(CART));
    let hash = crate::identity::certificate::sha256(&partner.certified().cert[0]);
    let hash: Vec<_> = hash.iter().map(|byte| format!("{byte:02X}")).collect();
    let settings = |clients, hashes: &[String]| ServerSettings {
        certificate_hashes: hashes.to_vec(),
        ..ServerSettings::new(clients, &[b"h2"])
    };
    let client =
        client_config(None, gateway.trust(), &ClientSettings::new(Servers::Unverified, &[b"h2"])).unwrap();
    let right = [hash.join(":")];
    let wrong = ["00".repeat(32)];
    for (settings, shown, expected) in [
        (settings(Clients::Unknown, &[]), Some(&stranger), true),
        (settings(Clients::Required, &[]), Some(&partner), true),
        (settings(Clients::Required, &[]), Some(&stranger), false),
        (settings(Clients::Required, &[]), None, false),
        (settings(Clients::Optional, &[]), None, true),
        (settings(Clients::Optional, &[]), Some(&partner), true),
        (settings(Clients::Optional, &[]), Some(&stranger), false),
        (settings(Clients::Required, &right), Some(&partner), true),
        (settings(Clients::Required, &wrong), Some(&partner), false),
    ] {
        let server = server_of(&gateway, &settings);
        let mut config = (**client.config()).clone();
        config.resumption = rustls::client::Resumption::disabled();
        if let Some(leaf) = shown {
            config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(leaf.certified()));
        }
        let config = Arc::new(config);
        let (served, _) = shake_as(&server, &client, Arc::clone(server.config()), config, name()).await;
        assert_eq!(served.is_ok(), expected, "{settings:?}: {served:?}");
        if let Some(peer) = served.ok().and_then(|facts| facts.peer) {
            assert!(peer.principal.is_none(), "a partner's authority cannot name a workload of ours");
        }
    }
}

#[tokio::test]
async fn tls_1_2_is_spoken_with_those_who_know_no_better() {
    let root = Ca::new("root");
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let keys = [("ECDHE_RSA", rsa), ("ECDHE_ECDSA", p384)];
    for (kind, key) in keys {
        let reviews = identity(&root.leaf_of(&key, uri(REVIEWS)).with_roots(&root.pem), None);
        let old = Tls { max: Some(TlsVersion::V12), ..Tls::default() };
        let settings =
            ClientSettings { tls: old, ..ClientSettings::new(Servers::Mesh(Vec::new()), alpn::CLIENT_TCP) };
        let (served, called) = shake(&server(reviews), &client_of(&root.workload(CART), &settings)).await;
        let (served, called) = (served.unwrap(), called.unwrap());
        assert_eq!(
            (served.version, called.version, served.alpn.as_deref()),
            ("TLSv1.2", "TLSv1.2", Some("istio"))
        );
        assert!(served.cipher.starts_with(&format!("TLS_{kind}_WITH_")), "{}", served.cipher);
        assert!(served.peer.unwrap().principal.is_some());
    }
}

#[tokio::test]
async fn the_hybrid_key_exchange_is_preferred_required_or_off() {
    let root = Ca::new("root");
    let (reviews, cart) = (Arc::new(root.workload(REVIEWS)), root.workload(CART));
    use Hybrid::{Off, Prefer, Require};
    for (ours, theirs, group) in [
        (Prefer, Prefer, Some("X25519MLKEM768")),
        (Prefer, Off, Some("x25519")),
        (Off, Prefer, Some("x25519")),
        (Require, Prefer, Some("X25519MLKEM768")),
        (Prefer, Require, Some("X25519MLKEM768")),
        (Require, Off, None),
        (Off, Require, None),
    ] {
        let tls = |hybrid| Tls { hybrid, ..Tls::default() };
        let server = server_of(
            &reviews,
            &ServerSettings { tls: tls(ours), ..ServerSettings::new(Clients::Mesh, alpn::SERVER_HTTP) },
        );
        let settings = ClientSettings {
            tls: tls(theirs),
            ..ClientSettings::new(Servers::Mesh(Vec::new()), alpn::CLIENT_HTTP2)
        };
        let (served, called) = shake(&server, &client_of(&cart, &settings)).await;
        assert_eq!(served.as_ref().ok().map(|facts| facts.group), group, "{ours:?} {theirs:?}: {served:?}");
        assert_eq!(called.is_ok(), group.is_some(), "{called:?}");
    }
}

#[test]
fn settings_that_cannot_be_followed_are_refused_by_name() {
    let root = Ca::new("root");
    let reviews = Arc::new(root.workload(REVIEWS));
    let of = |tls: Tls| {
        let settings = ServerSettings { tls, ..ServerSettings::new(Clients::Mesh, alpn::SERVER_HTTP) };
        crate::identity::server_config(std::slice::from_ref(&reviews), &settings).map(drop)
    };
    let ciphers =
        |names: &[&str]| Tls { ciphers: names.iter().map(ToString::to_string).collect(), ..Tls::default() };
    of(ciphers(&["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-CHACHA20-POLY1305"])).unwrap();
    let error = of(ciphers(&["ECDHE-ECDSA-AES128-GCM-SHA256", "DES-CBC3-SHA"])).unwrap_err().to_string();
    assert!(error.contains("`DES-CBC3-SHA`") && error.contains("ECDHE-RSA-AES256-GCM-SHA384"), "{error}");
    let swapped = Tls { min: Some(TlsVersion::V13), max: Some(TlsVersion::V12), ..Tls::default() };
    assert!(of(swapped).unwrap_err().to_string().contains("swap them"));
    let old = Tls { hybrid: Hybrid::Require, max: Some(TlsVersion::V12), ..Tls::default() };
    assert!(of(old).unwrap_err().to_string().contains("allow TLS 1.3"));
    let hashed =
        ServerSettings { key_hashes: vec!["abc".to_owned()], ..ServerSettings::new(Clients::Required, &[]) };
    let error = crate::identity::server_config(std::slice::from_ref(&reviews), &hashed).unwrap_err();
    assert!(error.to_string().contains("`abc` is no SHA-256"), "{error}");
    let alone = root.leaf(uri(CART)).alone();
    let alone = Arc::new(Identity::new(&alone, &Purpose::Credential, None, SystemTime::now()).unwrap());
    let error =
        crate::identity::server_config(&[alone], &ServerSettings::new(Clients::Required, &[])).unwrap_err();
    assert!(error.to_string().contains("`ca.crt`"), "{error}");
}

#[tokio::test]
async fn what_sidecars_of_istio_offer_is_answered_with_a_plain_protocol() {
    let root = Ca::new("root");
    let (server, cart) = (server(root.workload(REVIEWS)), root.workload(CART));
    let offers: [(&[&[u8]], Option<&str>); 6] = [
        (alpn::CLIENT_HTTP2, Some("h2")),
        (alpn::CLIENT_HTTP1, Some("http/1.1")),
        (&[b"istio-http/1.0", b"istio", b"http/1.0"], Some("http/1.0")),
        (&[b"istio-peer-exchange", b"istio"], Some("istio")),
        (&[b"h2", b"http/1.1"], Some("h2")),
        (&[], None),
    ];
    for (offer, chosen) in offers {
        let client = client_of(&cart, &ClientSettings::new(Servers::Mesh(Vec::new()), offer));
        let facts = shake(&server, &client).await.0.unwrap();
        assert_eq!(facts.alpn.as_deref(), chosen, "{offer:?}");
    }
    let odd = client_of(&cart, &ClientSettings::new(Servers::Mesh(Vec::new()), &[b"acme-tls/1"]));
    assert!(shake(&server, &odd).await.1.unwrap_err().contains("no application protocol in common"));
}
