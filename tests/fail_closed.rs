//! Configuration that is half written, broken or misspelt opens nothing, and the proxy says what it closes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::io::Write as _;
use std::time::Duration;
use support::objects::service;
use support::{Proxy, Upstream, empty, fetch, get, in_time, request};

fn policy(name: &str, app: &str, path: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{selector: {{matchLabels: {{app: {app}}}}}, action: DENY, rules: [{{to: [{{operation: {{paths: ['{path}']}}}}]}}]}}\n"
    )
}

/// A sidecar of `app: b` in front of this application.
async fn sidecar(application: &Upstream, objects: &str) -> Proxy {
    let inbound = format!(
        "workload: {{labels: {{app: b}}}}\ninbound: {{addresses: [\"127.0.0.1:0\"], application: \"{}\"}}",
        application.address
    );
    Proxy::with(&inbound, objects).await
}

async fn status(proxy: &Proxy, path: &str) -> u16 {
    fetch(proxy.inbound(), request("GET", "app", path, &[], empty())).await.status.as_u16()
}

async fn page(proxy: &Proxy, path: &'static str) -> String {
    fetch(proxy.page("admin"), get("localhost", path)).await.text()
}

#[tokio::test]
async fn a_half_written_file_opens_nothing_for_a_moment() {
    let application = Upstream::start().await;
    let both = policy("other", "b", "/other") + &policy("deny", "b", "/admin");
    let proxy = sidecar(&application, "").await;
    proxy.edit("deny.yaml", &both).await;
    assert_eq!(status(&proxy, "/admin").await, 403);
    assert_eq!(status(&proxy, "/").await, 200);
    let generation = proxy.applied().generation;
    let mut file = std::fs::File::create(proxy.folder().join("deny.yaml")).unwrap();
    let watch = async |what: &str| {
        for _ in 0..14 {
            assert_eq!(status(&proxy, "/admin").await, 403, "{what}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    watch("empty").await;
    file.write_all(policy("other", "b", "/new").as_bytes()).unwrap();
    watch("half of it").await;
    file.write_all(policy("deny", "b", "/admin").as_bytes()).unwrap();
    drop(file);
    proxy.reached(generation + 1).await;
    assert_eq!(status(&proxy, "/admin").await, 403);
    assert_eq!(status(&proxy, "/new").await, 403, "the whole of it holds as soon as it is closed");
    assert_eq!(proxy.applied().generation, generation + 1, "it was one change");
}

#[tokio::test]
async fn what_is_renamed_into_its_place_holds_at_once() {
    let application = Upstream::start().await;
    let proxy = sidecar(&application, "").await;
    proxy.edit("deny.yaml", &policy("deny", "b", "/admin")).await;
    let begin = std::time::Instant::now();
    proxy.edit("deny.yaml", "").await;
    assert_eq!(status(&proxy, "/admin").await, 200);
    assert!(begin.elapsed() < Duration::from_millis(1500), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_policy_that_is_removed_in_place_is_gone_after_a_while() {
    let application = Upstream::start().await;
    let proxy = sidecar(&application, "").await;
    let generation = proxy.edit("deny.yaml", &policy("deny", "b", "/admin")).await.generation;
    std::fs::write(proxy.folder().join("deny.yaml"), "").unwrap();
    in_time("the policy to go", proxy.reached(generation + 1)).await;
    assert_eq!(status(&proxy, "/admin").await, 200);
}

#[tokio::test]
async fn a_new_policy_that_cannot_hold_closes_its_scope_and_every_page_says_so() {
    let application = Upstream::start().await;
    let deny = policy("deny", "b", "/admin");
    let first = service("up.shop", "HTTP", &[application.address]);
    for (case, text) in [
        ("another definition", policy("taken", "b", "/admin")),
        ("a version that there is not", deny.replace("istio.io/v1", "istio.io/v1alpha1")),
        ("a name that is none", deny.replace("name: deny", "name: New_One")),
        ("no name", deny.replace("name: deny, ", "")),
        ("no separator", first.trim_start_matches("---\n").to_owned() + deny.trim_start_matches("---\n")),
        ("a syntax error", deny.clone() + "x: [\n"),
        ("a wrong field", deny.replace("action:", "actionn:")),
    ] {
        let proxy = sidecar(&application, &policy("taken", "a", "/admin")).await;
        assert_eq!(status(&proxy, "/admin").await, 200, "{case}");
        assert_eq!(page(&proxy, "/ready").await, "ok\n", "{case}");
        proxy.edit("new.yaml", &text).await;
        assert_eq!(status(&proxy, "/admin").await, 403, "{case}");
        let ready = page(&proxy, "/ready").await;
        let scopes = "1 security objects are rejected and their scopes closed: AuthorizationPolicy shop/";
        assert!(ready.starts_with("ok, but ") && ready.contains(scopes), "{case}: {ready}");
        let stats = page(&proxy, "/stats").await;
        let value = |name: &str| -> i64 {
            let line = stats
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap_or_else(|| panic!("{name}: {stats}"));
            line.trim().parse().unwrap()
        };
        assert_eq!(value("sidegate_config_closed_scopes "), 1, "{case}");
        assert_eq!(value("sidegate_config_unreadable_files "), i64::from(case == "a syntax error"), "{case}");
        assert!(value("sidegate_config_rejected_objects ") >= 1, "{case}");
        assert!(stats.contains("sidegate_config_reloads_total{result=\"partial\"} 1"), "{case}: {stats}");
        let dump: serde_json::Value = serde_json::from_str(&page(&proxy, "/config_dump").await).unwrap();
        let configuration = &dump["configuration"];
        assert_eq!(configuration["closedScopes"].as_array().unwrap().len(), 1, "{case}");
        let rejected = configuration["rejected"].as_array().unwrap();
        assert!(!rejected.is_empty(), "{case}");
        // Of the other definition an old version holds, of all else nothing.
        for rejected in rejected {
            assert_eq!(rejected["keptOld"], case == "another definition", "{case}: {rejected}");
            assert!(rejected["place"].as_str().unwrap().contains("new.yaml:"), "{case}: {rejected}");
        }
        proxy.edit("new.yaml", &deny).await;
        assert_eq!(page(&proxy, "/ready").await, "ok\n", "{case}");
        assert_eq!(status(&proxy, "/").await, 200, "{case}");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn at_first_start_two_definitions_close_both_scopes() {
    let application = Upstream::start().await;
    let both = policy("deny", "a", "/admin") + &policy("deny", "b", "/admin");
    let proxy = sidecar(&application, &both).await;
    assert_eq!(status(&proxy, "/admin").await, 403);
    let dump = page(&proxy, "/config_dump").await;
    assert!(!dump.contains("\"keptOld\":true") && !dump.contains("\"keptOld\": true"), "{dump}");
}

#[tokio::test]
async fn one_bad_object_or_a_foreign_file_does_not_end_the_first_start() {
    let application = Upstream::start().await;
    let objects = service("up.shop", "HTTP", &[application.address])
        + "---\napiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nmetadata: {name: x}\n"
        + "---\nresources: [mesh.yaml]\n"
        + "---\napiVersion: networking.istio.io/v7\nkind: VirtualService\nmetadata: {name: x}\n"
        + "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: X_X}\n"
        + "---\napiVersion: telemetry.istio.io/v1\nkind: Fancy\nmetadata: {name: x}\n";
    let proxy = Proxy::start(&objects).await;
    assert_eq!(fetch(proxy.outbound(), get("up.shop", "/")).await.status, 200);
    assert_eq!(proxy.applied().rejected.len(), 2);
}

#[tokio::test]
async fn an_unreadable_file_ends_the_first_start() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("proxy.yaml"), support::proxy::own("")).unwrap();
    std::fs::write(folder.path().join("broken.yaml"), "a: [\n").unwrap();
    let config = vec![folder.path().to_owned()];
    let options = sidegate::app::Options { config, ..sidegate::app::Options::default() };
    let error = sidegate::app::App::start(options).await.expect_err("it starts").to_string();
    assert!(error.contains("cannot be read") && error.contains("broken.yaml:"), "{error}");
}
