//! Sessions: kept over renewals, not over changes of whom we believe.

use std::sync::Arc;

use super::certificates::{CART, Ca, REVIEWS, identity, uri};
use super::handshake::{client, client_of, name, server_of, shake, shake_as};
use crate::identity::{
    ClientSettings, Clients, Identity, Pem, ServerSettings, Servers, Tls, TlsVersion, alpn,
};

fn settings() -> ServerSettings {
    ServerSettings::new(Clients::Mesh, alpn::SERVER_HTTP)
}

#[tokio::test]
async fn a_session_outlives_the_renewal_of_the_servers_certificate() {
    let root = Ca::new("root");
    let first = Arc::new(root.workload(REVIEWS));
    let cart = root.workload(CART);
    for max in [TlsVersion::V13, TlsVersion::V12] {
        let tls = Tls { max: Some(max), ..Tls::default() };
        let client = client_of(
            &cart,
            &ClientSettings { tls, ..ClientSettings::new(Servers::Mesh(Vec::new()), alpn::CLIENT_HTTP2) },
        );
        let (served, _) = shake(&server_of(&first, &settings()), &client).await;
        assert!(!served.unwrap().resumed);
        let second = Arc::new(identity(&root.leaf(uri(REVIEWS)).with_roots(&root.pem), Some(&first)));
        assert_eq!((second.generation(), second.trust().generation()), (2, 1));
        let (served, called) = shake(&server_of(&second, &settings()), &client).await;
        let served = served.unwrap();
        assert!(served.resumed && called.unwrap().resumed, "{max:?}");
        let principal = served.peer.unwrap().principal.clone().unwrap();
        assert_eq!(principal.as_str(), "cluster.local/ns/shop/sa/cart", "who the client is stays known");
    }
}

#[tokio::test]
async fn no_session_is_resumed_after_a_change_of_whom_we_believe() {
    let root = Ca::new("root");
    let leaf = root.leaf(uri(REVIEWS));
    let first = Arc::new(identity(&leaf.with_roots(&root.pem), None));
    let client = client(&root.workload(CART));
    let pem = leaf.with_roots(&root.pem);
    let crl = Pem { crl: Some(root.crl(&[99], 1).into_bytes()), ..pem.clone() };
    let another = Pem { roots: Some((root.pem.clone() + &Ca::new("next").pem).into_bytes()), ..pem };
    let mut previous = first;
    for (change, pem) in [("a list", crl), ("a root", another)] {
        shake(&server_of(&previous, &settings()), &client).await.0.unwrap();
        let now = Arc::new(identity(&pem, Some(&previous)));
        assert_eq!(now.trust().generation(), previous.trust().generation() + 1, "{change}");
        let (served, _) = shake(&server_of(&now, &settings()), &client).await;
        assert!(!served.unwrap().resumed, "{change}");
        previous = now;
    }
}

#[tokio::test]
async fn sessions_of_one_demand_on_clients_are_not_resumed_under_another() {
    let root = Ca::new("root");
    let reviews = Arc::new(root.workload(REVIEWS));
    let client = client(&root.workload(CART));
    let kinds = [Clients::Mesh, Clients::Required, Clients::Optional, Clients::Unknown];
    for clients in kinds {
        let settings = ServerSettings::new(clients, alpn::SERVER_HTTP);
        let (served, _) = shake(&server_of(&reviews, &settings), &client).await;
        assert!(!served.unwrap().resumed, "{clients:?}");
        let (served, _) = shake(&server_of(&reviews, &settings), &client).await;
        assert!(served.unwrap().resumed, "{clients:?}");
    }
}

#[tokio::test]
async fn a_resumed_client_is_judged_anew() {
    let root = Ca::new("root");
    let reviews = Arc::new(root.workload(REVIEWS));
    let before = server_of(&reviews, &settings());
    let client = client(&root.workload(CART));
    shake(&before, &client).await.0.unwrap();
    // The session is resumed by the configuration that made it, and judged by one that knows of the revocation.
    let pem = root.leaf(uri(REVIEWS)).with_roots(&root.pem);
    let revoked = Pem { crl: Some(root.crl(&[7], 1).into_bytes()), ..pem };
    let after = server_of(&Arc::new(identity(&revoked, None)), &settings());
    let configs = || (Arc::clone(before.config()), Arc::clone(client.config()));
    let (server, config) = configs();
    let (served, _) = shake_as(&after, &client, server, config, name()).await;
    assert!(served.unwrap_err().contains("was revoked"));
    let (server, config) = configs();
    let (served, _) = shake_as(&before, &client, server, config, name()).await;
    assert!(served.unwrap().resumed, "it was a session that was refused, and no full handshake");
}

#[tokio::test]
async fn a_new_identity_of_the_client_starts_anew() {
    let root = Ca::new("root");
    let reviews = server_of(&Arc::new(root.workload(REVIEWS)), &settings());
    let cart: Identity = root.workload(CART);
    shake(&reviews, &client(&cart)).await.0.unwrap();
    let (served, _) = shake(&reviews, &client(&cart)).await;
    assert!(!served.unwrap().resumed);
}
