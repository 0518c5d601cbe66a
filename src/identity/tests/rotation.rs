//! Renewals while traffic goes on, out of volumes as Kubernetes mounts them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::timeout;

use super::certificates::{CART, Ca, Leaf, REVIEWS, dns, identity, mesh, uri};
use super::handshake::{client, server_of, shake};
use crate::identity::watched::secret_name;
use crate::identity::{
    Clients, Epoch, Files, Held, Identity, Offer, Purpose, ServerSettings, Watched, alpn, follow,
};
use crate::telemetry::metrics::{Registry, RegistryLimits};
use crate::telemetry::prometheus;

#[tokio::test]
async fn a_thousand_renewals_under_handshakes_lose_nothing() {
    let root = Ca::new("root");
    let held = Held::new("workload", mesh());
    let now = SystemTime::now();
    let deliveries: Vec<_> = (0..8).map(|_| root.leaf(uri(REVIEWS)).with_roots(&root.pem)).collect();
    held.offer(Ok(deliveries[0].clone()), now);
    let (cart, settings) = (root.workload(CART), ServerSettings::new(Clients::Mesh, alpn::SERVER_HTTP));
    let mut resumed = 0;
    let mut client = client(&cart);
    for round in 1..=1000_usize {
        // A handshake uses what it began with, whatever comes into force meanwhile.
        let server = (round % 5 == 0).then(|| server_of(&held.load().unwrap(), &settings));
        assert_eq!(held.offer(Ok(deliveries[round % 8].clone()), now), Offer::Taken);
        if let Some(server) = server {
            let (served, called) = shake(&server, &client).await;
            let facts = served.unwrap();
            resumed += usize::from(facts.resumed);
            assert!(called.is_ok() && facts.peer.unwrap().principal.is_some(), "{round}");
            if round % 50 == 0 {
                client = super::handshake::client(&cart);
            }
        }
    }
    let current = held.load().unwrap();
    assert_eq!((current.generation(), current.trust().generation()), (1001, 1));
    assert_eq!(resumed, 180, "all but the first of each client");
}

#[tokio::test]
async fn an_old_client_is_judged_by_the_roots_of_today_and_time_alone_is_nothing_against_it() {
    let (root, other) = (Ca::new("root"), Ca::new("root"));
    let settings = ServerSettings::new(Clients::Mesh, alpn::SERVER_HTTP);
    let server = |identity: Identity| server_of(&Arc::new(identity), &settings);
    let (served, _) = shake(&server(root.workload(REVIEWS)), &client(&root.workload(CART))).await;
    let peer = served.unwrap().peer.unwrap();
    let now = SystemTime::now();
    let later = now + Duration::from_secs(48 * 3600);
    assert!(later > peer.not_after);
    for at in [now, later] {
        assert!(server(root.workload(REVIEWS)).still_believes(&peer, at).is_ok());
        let refused = server(other.workload(REVIEWS)).still_believes(&peer, at).unwrap_err();
        assert!(refused.to_string().contains("issued by none of the roots"), "{refused}");
    }
    let both = root.leaf(uri(REVIEWS)).with_roots(&format!("{}{}", other.pem, root.pem));
    assert!(server(identity(&both, None)).still_believes(&peer, later).is_ok(), "roots overlap");
}

#[test]
fn an_epoch_begins_with_other_roots_or_as_somebody_else_and_not_with_a_renewal() {
    let (root, other) = (Ca::new("root"), Ca::new("root"));
    let epoch = Arc::new(Epoch::default());
    let held = Held::within(Arc::clone(&epoch), "workload", mesh());
    let mut changes = epoch.subscribe();
    let mut last = 0;
    let both = format!("{}{}", root.pem, other.pem);
    for (what, leaf, begins) in [
        ("the first", root.leaf(uri(REVIEWS)).with_roots(&root.pem), true),
        ("a renewal", root.leaf(uri(REVIEWS)).with_roots(&root.pem), false),
        ("somebody else", root.leaf(uri(CART)).with_roots(&root.pem), true),
        ("another root beside", root.leaf(uri(CART)).with_roots(&both), true),
        ("a renewal by it", other.leaf(uri(CART)).with_roots(&both), false),
        ("the old root is gone", other.leaf(uri(CART)).with_roots(&other.pem), true),
    ] {
        assert_eq!(held.offer(Ok(leaf), SystemTime::now()), Offer::Taken, "{what}");
        assert_eq!(epoch.number(), last + u64::from(begins), "{what}");
        assert_eq!(changes.has_changed().unwrap(), begins, "{what}");
        changes.mark_unchanged();
        last = epoch.number();
    }
}

/// A volume with its files behind `..data`, as the kubelet makes it.
fn publish(volume: &Path, version: &str, files: &[(&str, &str)]) {
    let folder = volume.join(format!("..{version}"));
    fs::create_dir_all(&folder).unwrap();
    for (name, text) in files {
        fs::write(folder.join(name), text).unwrap();
        if !volume.join(name).exists() {
            symlink(Path::new("..data").join(name), volume.join(name)).unwrap();
        }
    }
    symlink(format!("..{version}"), volume.join("..data_tmp")).unwrap();
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
}

async fn reaches(changes: &mut watch::Receiver<u64>, generation: u64) {
    let reached = changes.wait_for(|now| *now >= generation);
    timeout(Duration::from_secs(20), reached).await.expect("a renewal in time").unwrap();
}

#[tokio::test]
async fn a_volume_that_is_swapped_is_read_again_and_shown_in_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let root = Ca::new("root");
    let volume = folder.path();
    let put = |version: &str, leaf: &Leaf| {
        publish(
            volume,
            version,
            &[("cert-chain.pem", &leaf.chain), ("key.pem", &leaf.key), ("root-cert.pem", &root.pem)],
        );
    };
    put("1", &root.leaf(uri(CART)));
    let held = Arc::new(Held::new("workload", mesh()));
    let registry = Registry::new(RegistryLimits::default());
    let files = Files::new(volume.join("cert-chain.pem"), volume.join("key.pem"))
        .with_roots(volume.join("root-cert.pem"));
    let mut changes = held.subscribe();
    let task = tokio::spawn(follow(Arc::clone(&held), files, Arc::clone(&registry)));
    reaches(&mut changes, 1).await;
    put("2", &root.leaf(uri(CART)));
    reaches(&mut changes, 2).await;
    assert!(held.ready(SystemTime::now()).is_ok());
    let shown = || prometheus::render(&registry.scrape());
    let text = timeout(Duration::from_secs(20), async {
        loop {
            let text = shown();
            if text.contains("sidegate_identity_generation{identity=\"workload\"} 2") {
                return text;
            }
            tokio::task::yield_now().await;
        }
    });
    let text = text.await.expect("metrics in time");
    assert!(text.contains("sidegate_identity_valid{identity=\"workload\"} 1"), "{text}");
    assert!(
        text.contains("sidegate_identity_expiry_seconds{identity=\"workload\",part=\"leaf\"} 86"),
        "{text}"
    );
    task.abort();
}

#[tokio::test]
async fn a_secret_may_come_later_and_its_name_leads_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let (root, clients) = (Ca::new("public"), Ca::new("partners"));
    let leaf = root.leaf(|params| params.subject_alt_names.push(dns("shop.example.com")));
    let registry = Registry::new(RegistryLimits::default());
    let shop = folder.path().join("shop-tls");
    fs::create_dir(&shop).unwrap();
    let held = Arc::new(Held::new("shop-tls", Purpose::Credential));
    let watched = Watched::start(held, Files::secret(folder.path(), "shop-tls", None).into(), &registry);
    let mut changes = watched.held().subscribe();
    publish(&shop, "1", &[("tls.crt", &leaf.chain), ("tls.key", &leaf.key)]);
    reaches(&mut changes, 1).await;
    assert_eq!(watched.held().load().unwrap().trust().roots(), 0);
    publish(&shop, "2", &[("tls.crt", &leaf.chain), ("tls.key", &leaf.key), ("ca.crt", &clients.pem)]);
    reaches(&mut changes, 2).await;
    let current = watched.held().load().unwrap();
    assert_eq!((current.trust().roots(), current.trust().generation()), (1, 2));
    for name in ["", "..", "a/b", "../shop-tls", "/etc", "Shop", "-a", "a."] {
        assert!(secret_name(name).is_err(), "{name}");
    }
}
