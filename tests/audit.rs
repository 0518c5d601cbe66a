//! AuditPolicy with the running proxy: what is recorded, what a file that cannot be written does to traffic, and what a file shows later.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use sidegate::identity::issue::Authority;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::Duration;
use support::{
    Client1, Proxy, Raw, Upstream, certificates, empty, eventually, fetch, free_port, get, request, settled,
};
use tempfile::TempDir;

const OPEN: &str = "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: open, namespace: shop}
spec: {rules: [{to: [{operation: {paths: [/open]}}]}]}
";

/// An AuditPolicy of `shop`.
fn audit(path: &Path, further: &str) -> String {
    format!(
        "---
apiVersion: sidegate.io/v1alpha1
kind: AuditPolicy
metadata: {{name: all, namespace: shop}}
spec: {{file: {{path: {}, sync: Always}}, {further}}}
",
        path.display()
    )
}

const EVERYTHING: &str = "events: [Denied, Allowed, Configuration, Certificate, Admin]";

fn inbound(application: SocketAddr) -> String {
    format!("inbound: {{addresses: [\"127.0.0.1:0\"], application: \"{application}\"}}")
}

/// The records of a file, so far.
fn records(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn of(path: &Path, event: &str) -> Vec<Value> {
    records(path).into_iter().filter(|record| record["event"] == event).collect()
}

/// Waits for so many records of an event, and returns them.
async fn recorded(path: &Path, event: &str, count: usize) -> Vec<Value> {
    eventually(&format!("{count} records of {event}"), || of(path, event).len() >= count).await;
    let found = of(path, event);
    assert_eq!(found.len(), count, "{found:#?}");
    found
}

fn sidegate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sidegate")).args(arguments).env_remove("RUST_LOG").output().unwrap()
}

/// What `sidegate audit verify` says, with its exit code.
fn verify(path: &Path, further: &[&str]) -> (i32, String) {
    let output = sidegate(&[&["audit", "verify"], further, &[path.to_str().unwrap()]].concat());
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    (output.status.code().unwrap(), text)
}

fn file() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    (folder, path)
}

async fn status(proxy: &Proxy, path: &str) -> u16 {
    let headers = [("x-request-id", "11111111-2222-4333-8444-555555555555"), ("cookie", "session=secret")];
    fetch(proxy.inbound(), request("GET", "app", path, &headers, empty())).await.status.as_u16()
}

#[tokio::test]
async fn a_refusal_and_what_was_let_in_are_recorded_once_each() {
    let (application, (_folder, path)) = (Upstream::start().await, file());
    let proxy =
        Proxy::with(&inbound(application.address), &(OPEN.to_owned() + &audit(&path, EVERYTHING))).await;
    proxy.assert_no_complaints();
    assert_eq!(status(&proxy, "/open?token=secret").await, 200);
    assert_eq!(status(&proxy, "/other?token=secret").await, 403);
    let allowed = recorded(&path, "Allowed", 1).await.remove(0);
    let denied = recorded(&path, "Denied", 1).await.remove(0);
    for (record, path, status) in [(&allowed, "/open", 200), (&denied, "/other", 403)] {
        assert_eq!(
            (&record["method"], &record["host"], &record["path"]),
            (&"GET".into(), &"app".into(), &path.into())
        );
        assert_eq!(record["status"], status);
        assert!(record["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{record}");
    }
    assert!(
        allowed["id"].is_string() && allowed["cluster"].as_str().unwrap().starts_with("inbound|"),
        "{allowed}"
    );
    assert_eq!(allowed["upstream"], application.address.to_string());
    assert_eq!(denied["decisions"][0]["policy"], "shop/open");
    assert_eq!(denied["decisions"][0]["effect"], "Denied");
    assert_eq!(denied["decisions"][0]["rule"], 0);
    assert_eq!(denied["decisions"][0]["clause"], "to.operation.paths", "{denied}");
    assert!(denied["decisions"][0]["at"].as_str().unwrap().contains("objects.yaml:"), "{denied}");
    proxy.stop().await;
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("secret"), "{text}");
    assert_eq!(records(&path).last().unwrap()["event"], "Stop");
    let (code, said) = verify(&path, &[]);
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn a_token_that_is_refused_is_recorded_and_not_shown() {
    let (application, (_folder, path)) = (Upstream::start().await, file());
    let key = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    let rule = format!(
        "---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: t, namespace: shop}}\nspec: {{jwtRules: [{{issuer: i, jwks: '{key}'}}]}}\n"
    );
    let proxy = Proxy::with(&inbound(application.address), &(rule + &audit(&path, ""))).await;
    proxy.assert_no_complaints();
    let asked = request("GET", "app", "/", &[("authorization", "Bearer sesame.sesame.sesame")], empty());
    assert_eq!(fetch(proxy.inbound(), asked).await.status, 401);
    let denied = recorded(&path, "Denied", 1).await.remove(0);
    assert_eq!((&denied["status"], &denied["decisions"][0]["layer"]), (&401.into(), &"jwt".into()));
    assert!(denied["details"].as_str().unwrap().starts_with("jwt_authn_access_denied"), "{denied}");
    assert!(!denied.to_string().contains("sesame"), "{denied}");
}

#[tokio::test]
async fn a_tunnel_is_recorded_when_it_opens() {
    let (application, (_folder, path)) = (Upstream::start().await, file());
    let proxy =
        Proxy::with(&inbound(application.address), &(OPEN.to_owned() + &audit(&path, EVERYTHING))).await;
    let stream = support::client::connect(proxy.inbound()).await;
    let (socket, _) = tokio_tungstenite::client_async("ws://app/open", stream).await.unwrap();
    let allowed = recorded(&path, "Allowed", 1).await.remove(0);
    assert_eq!((&allowed["status"], &allowed["path"]), (&101.into(), &"/open".into()));
    drop(socket);
    let stream = support::client::connect(proxy.inbound()).await;
    assert!(tokio_tungstenite::client_async("ws://app/other", stream).await.is_err());
    recorded(&path, "Denied", 1).await;
    proxy.stop().await;
    assert_eq!(of(&path, "Allowed").len(), 1, "and not again when it ends");
}

#[tokio::test]
async fn a_rule_that_audits_is_recorded_without_a_sample() {
    let (application, (_folder, path)) = (Upstream::start().await, file());
    let rule = "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: watch, namespace: shop}
spec: {action: AUDIT, rules: [{to: [{operation: {paths: [/watched]}}]}]}
";
    let proxy = Proxy::with(&inbound(application.address), &(rule.to_owned() + &audit(&path, ""))).await;
    assert_eq!(status(&proxy, "/other").await, 200);
    assert_eq!(status(&proxy, "/watched").await, 200);
    let record = recorded(&path, "Allowed", 1).await.remove(0);
    assert_eq!((&record["path"], &record["decisions"][0]["effect"]), (&"/watched".into(), &"Audited".into()));
}

#[tokio::test]
async fn changes_of_configuration_certificates_and_the_admin_interface_are_recorded() {
    let (authority, application, (_folder, path)) =
        (certificates::authority(), Upstream::start().await, file());
    let policy = audit(&path, "");
    let server = Proxy::secured(&authority, "api", &inbound(application.address), &policy).await;
    let first = recorded(&path, "Configuration", 1).await.remove(0);
    assert_eq!((&first["outcome"], &first["generation"]), (&"InForce".into(), &1.into()));
    assert!(first["added"].as_array().unwrap().contains(&"AuditPolicy shop/all".into()), "{first}");
    let own = recorded(&path, "Certificate", 1).await.remove(0);
    assert_eq!((&own["identity"], &own["outcome"]), (&"workload".into(), &"InForce".into()));
    assert_eq!(own["principal"], "cluster.local/ns/shop/sa/api");

    let broken = "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: broken, namespace: shop}\nspec: {hosts: [a], http: [{}]}\n";
    server.edit(support::proxy::OBJECTS, &(policy.clone() + OPEN + broken)).await;
    let change = recorded(&path, "Configuration", 2).await.remove(1);
    assert_eq!(change["added"], serde_json::json!(["AuthorizationPolicy shop/open"]));
    assert!(change["rejected"][0].as_str().unwrap().contains("VirtualService shop/broken"), "{change}");

    certificates::write(server.folder(), &authority, "api");
    eventually("the renewal is in force", || {
        of(&path, "Certificate").last().is_some_and(|last| last["generation"].as_u64() > Some(1))
    })
    .await;
    let before = of(&path, "Certificate");
    assert!(before.iter().all(|record| !record.to_string().contains("PRIVATE KEY")));
    assert!(before.iter().skip(1).all(|record| record["trustChanged"] == false), "{before:?}");
    let both = format!("{}{}", authority.certificate(), certificates::authority().certificate());
    certificates::write_trusting(server.folder(), &authority, "api", &both);
    let believed = |record: &Value| record["trustChanged"] == true && record["trustGeneration"] == 2;
    eventually("the new roots are in force", || of(&path, "Certificate").iter().any(believed)).await;
    std::fs::write(server.folder().join("key.pem"), "no key").unwrap();
    eventually("the broken key is kept out", || {
        of(&path, "Certificate")
            .last()
            .is_some_and(|last| last["outcome"] == "KeptOut" && last["reason"].is_string())
    })
    .await;

    let call = request("POST", "localhost", "/drain_listeners?inboundonly", &[], empty());
    assert_eq!(fetch(server.page("admin"), call).await.status, 200);
    assert_eq!(fetch(server.page("admin"), get("localhost", "/clusters")).await.status, 200);
    let call = recorded(&path, "Admin", 1).await.remove(0);
    assert_eq!((&call["method"], &call["target"]), (&"POST".into(), &"/drain_listeners?inboundonly".into()));
    let shown = fetch(server.page("admin"), get("localhost", "/audit")).await.echo();
    assert_eq!(shown["audit"]["head"], records(&path).last().unwrap()["hash"]);
    assert_eq!(verify(&path, &["--expect-head", shown["audit"]["head"].as_str().unwrap()]).0, 0);
}

#[tokio::test]
async fn a_request_waits_for_its_record_and_reaches_nobody_meanwhile() {
    let (application, folder) = (Upstream::start().await, tempfile::tempdir().unwrap());
    let path = folder.path().join("later/audit.jsonl");
    let objects = OPEN.to_owned() + &audit(&path, &format!("{EVERYTHING}, whenFull: Block"));
    let proxy = Proxy::with(&inbound(application.address), &objects).await;
    let ready = fetch(proxy.page("admin"), get("localhost", "/ready")).await;
    assert!(ready.text().contains("the audit cannot be written"), "{}", ready.text());
    let ask = async |path: &'static str| status(&proxy, path).await;
    let unblock = async {
        let forwarded = settled(Duration::from_millis(300), || application.requests()).await;
        assert_eq!(forwarded, 0, "nothing is forwarded without a place for its record");
        assert!(!path.exists());
        std::fs::create_dir(folder.path().join("later")).unwrap();
    };
    let (allowed, denied, ()) = tokio::join!(ask("/open"), ask("/other"), unblock);
    assert_eq!((allowed, denied), (200, 403));
    recorded(&path, "Allowed", 1).await;
    recorded(&path, "Denied", 1).await;
}

#[tokio::test]
async fn a_request_without_a_record_is_refused_where_the_policy_says_so() {
    let (application, folder) = (Upstream::start().await, tempfile::tempdir().unwrap());
    let path = folder.path().join("later/audit.jsonl");
    let policy = |events: &str| OPEN.to_owned() + &audit(&path, &format!("{events}, whenFull: Deny"));
    let proxy = Proxy::with(&inbound(application.address), &policy(EVERYTHING)).await;
    let refused = fetch(proxy.inbound(), get("app", "/open")).await;
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("audit unavailable"), "{}", refused.text());
    assert_eq!(status(&proxy, "/other").await, 503);
    assert_eq!(application.requests(), 0);
    // Where only refusals are recorded, what is let in needs no record.
    proxy.edit(support::proxy::OBJECTS, &policy("events: [Denied]")).await;
    assert_eq!(status(&proxy, "/open").await, 200);
    assert_eq!(status(&proxy, "/other").await, 503);
    std::fs::create_dir(folder.path().join("later")).unwrap();
    eventually("the audit is written", || !of(&path, "Gap").is_empty()).await;
    assert_eq!(of(&path, "Gap")[0]["refused"], 3);
    assert_eq!(status(&proxy, "/other").await, 403);
    recorded(&path, "Denied", 1).await;
    let page = fetch(proxy.page("metrics"), get("localhost", "/metrics")).await.text();
    assert!(page.contains("sidegate_audit_refused_total 3"), "{page}");
}

/// Whether bytes that are no HTTP come back from the application.
async fn echoes(proxy: &Proxy) -> bool {
    let mut raw = Raw::connect(proxy.inbound()).await;
    raw.send("\0ping").await;
    raw.finish().await;
    raw.rest().await == b"\0ping"
}

#[tokio::test]
async fn connections_are_recorded_too() {
    let (application, folder) = (Upstream::echo().await, tempfile::tempdir().unwrap());
    let path = folder.path().join("audit.jsonl");
    let policy = audit(&path, EVERYTHING);
    let proxy = Proxy::with(&inbound(application.address), &policy).await;
    assert!(echoes(&proxy).await);
    let allowed = recorded(&path, "Allowed", 1).await.remove(0);
    assert_eq!(
        (&allowed["protocol"], &allowed["upstream"]),
        (&"tcp".into(), &application.address.to_string().into())
    );
    proxy.edit(support::proxy::OBJECTS, &(policy + OPEN)).await;
    assert!(!echoes(&proxy).await);
    let denied = recorded(&path, "Denied", 1).await.remove(0);
    assert_eq!(denied["details"], "rbac_access_denied");
    assert!(denied["decisions"][0]["because"].is_string(), "{denied}");
    // Without a place for its record it is not carried.
    let stuck = audit(&folder.path().join("none/audit.jsonl"), &format!("{EVERYTHING}, whenFull: Deny"));
    let before = application.connections();
    proxy.edit(support::proxy::OBJECTS, &stuck).await;
    assert!(!echoes(&proxy).await);
    assert_eq!(application.connections(), before);
    // Or it waits.
    let path = folder.path().join("later/audit.jsonl");
    proxy.edit(support::proxy::OBJECTS, &audit(&path, EVERYTHING)).await;
    let unblock = async {
        assert_eq!(settled(Duration::from_millis(300), || application.connections()).await, before);
        std::fs::create_dir(folder.path().join("later")).unwrap();
    };
    assert!(tokio::join!(echoes(&proxy), unblock).0);
    recorded(&path, "Allowed", 1).await;
}

#[tokio::test]
async fn who_comes_in_plain_text_under_strict_is_recorded() {
    let (authority, application, (_folder, path)) =
        (certificates::authority(), Upstream::start().await, file());
    let strict = "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: shop}\nspec: {mtls: {mode: STRICT}}\n";
    let server = secured(&authority, &application, &audit(&path, "")).await;
    let mut old = Client1::connect(server.inbound()).await;
    assert_eq!(old.exchange(get("api", "/")).await.status, 200);
    server.edit(support::proxy::OBJECTS, &(audit(&path, "") + strict)).await;
    let mut raw = Raw::connect(server.inbound()).await;
    raw.send("GET / HTTP/1.1\r\nHost: api\r\n\r\n").await;
    assert!(raw.is_at_end().await);
    let denied = recorded(&path, "Denied", 1).await.remove(0);
    assert!(denied["decisions"][0]["because"].as_str().is_some_and(|why| !why.is_empty()), "{denied}");
}

async fn secured(authority: &Authority, application: &Upstream, objects: &str) -> Proxy {
    Proxy::secured(authority, "api", &inbound(application.address), objects).await
}

#[tokio::test]
async fn a_policy_that_is_rejected_is_missed_aloud() {
    let (application, (_folder, path)) = (Upstream::start().await, file());
    let wrong = audit(&path, "whenful: Deny");
    let proxy = Proxy::with(&inbound(application.address), &wrong).await;
    assert!(proxy.complaints().contains("NOT recorded"), "{}", proxy.complaints());
    assert_eq!(status(&proxy, "/").await, 200, "it says what is recorded, not who is let in");
    for page in ["admin", "health"] {
        let at = if page == "admin" { "/ready" } else { "/healthz/ready" };
        let ready = fetch(proxy.page(page), get("localhost", at)).await.text();
        assert!(ready.contains("AuditPolicy shop/all is rejected"), "{ready}");
    }
    let metrics = fetch(proxy.page("metrics"), get("localhost", "/metrics")).await.text();
    assert!(metrics.contains("sidegate_audit_missing 1"), "{metrics}");
    // With an earlier version that one holds.
    proxy.edit(support::proxy::OBJECTS, &audit(&path, "")).await;
    recorded(&path, "Start", 1).await;
    proxy.edit(support::proxy::OBJECTS, &wrong).await;
    assert!(!proxy.complaints().contains("NOT recorded"), "{}", proxy.complaints());
    assert_eq!(recorded(&path, "Configuration", 2).await[1]["rejected"].as_array().unwrap().len(), 1);
}

/// A proxy of its own process, ended for good when it is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A proxy in a process of its own, with both addresses, and an application behind it. `before` is shell that runs first.
async fn start(folder: &Path, inbound: SocketAddr, before: &str) -> Process {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{before} exec \"$0\" run --log warn --config \"$1\"")]);
    command.arg(env!("CARGO_BIN_EXE_sidegate")).arg(folder).env_remove("RUST_LOG");
    let process = Process(command.spawn().unwrap());
    eventually("it listens", || std::net::TcpStream::connect(inbound).is_ok()).await;
    process
}

/// The folder of such a proxy, and where it will listen.
fn configured(application: &Upstream, objects: &str) -> (TempDir, SocketAddr) {
    let folder = tempfile::tempdir().unwrap();
    let inbound = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let spec = format!("inbound: {{addresses: [\"{inbound}\"], application: \"{}\"}}", application.address);
    std::fs::write(folder.path().join("proxy.yaml"), support::proxy::own(&spec)).unwrap();
    std::fs::write(folder.path().join("objects.yaml"), objects).unwrap();
    (folder, inbound)
}

#[tokio::test]
async fn a_process_that_is_killed_leaves_a_chain_that_the_next_one_continues() {
    let (application, (_folder, path)) = (Upstream::start().await, file());
    let (folder, inbound) = configured(&application, &(OPEN.to_owned() + &audit(&path, EVERYTHING)));
    for round in 1..=3 {
        let mut process = start(folder.path(), inbound, "").await;
        for _ in 0..5 {
            assert_eq!(fetch(inbound, get("app", "/other")).await.status, 403);
        }
        recorded(&path, "Denied", 5 * round).await;
        process.0.kill().unwrap();
        process.0.wait().unwrap();
    }
    let starts: Vec<_> = of(&path, "Start").into_iter().map(|record| record["after"].clone()).collect();
    assert_eq!(starts, ["Nothing", "Crash", "Crash"]);
    let (code, said) = verify(&path, &[]);
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn a_disk_that_is_full_refuses_and_loses_no_record() {
    let (application, (_folder, path)) = (Upstream::start().await, file());
    let objects = OPEN.to_owned() + &audit(&path, "whenFull: Deny");
    let (folder, inbound) = configured(&application, &objects);
    // No file may grow beyond 16 blocks; without the signal, writing fails as on a full disk.
    let process = start(folder.path(), inbound, "trap '' XFSZ; ulimit -S -f 16;").await;
    let ask = async || fetch(inbound, get("app", "/other")).await.status.as_u16();
    let (mut refused, mut unavailable) = (0, 0);
    while unavailable < 3 {
        match ask().await {
            403 => refused += 1,
            503 => unavailable += 1,
            other => panic!("{other}"),
        }
        assert!(refused < 1000, "the limit is never reached");
    }
    assert_eq!(verify(&path, &[]).0, 0, "no half of a record is left");
    assert!(of(&path, "Denied").len() < refused, "some wait");
    let pid = rustix::process::Pid::from_child(&process.0);
    let unlimited = rustix::process::Rlimit { current: None, maximum: None };
    rustix::process::prlimit(Some(pid), rustix::process::Resource::Fsize, unlimited).unwrap();
    eventually("all are written", || !of(&path, "Gap").is_empty()).await;
    assert_eq!(ask().await, 403);
    recorded(&path, "Denied", refused + 1).await;
    assert_eq!(of(&path, "Gap").iter().map(|gap| gap["refused"].as_u64().unwrap()).sum::<u64>(), unavailable);
    let (code, said) = verify(&path, &[]);
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn verify_says_file_and_line_of_what_was_changed() {
    let (application, (folder, path)) = (Upstream::start().await, file());
    let proxy =
        Proxy::with(&inbound(application.address), &(OPEN.to_owned() + &audit(&path, EVERYTHING))).await;
    for _ in 0..3 {
        assert_eq!(status(&proxy, "/other").await, 403);
    }
    proxy.stop().await;
    let text = std::fs::read_to_string(&path).unwrap();
    let (code, said) = verify(&path, &[]);
    assert!(code == 0 && said.contains("intact") && said.contains("head "), "{said}");
    let head = said.lines().find_map(|line| line.strip_prefix("head ")).unwrap().to_owned();
    let line = 1 + text.lines().position(|line| line.contains("Denied")).unwrap();
    std::fs::write(&path, text.replacen("\"Denied\"", "\"Damned\"", 1)).unwrap();
    let (code, said) = verify(&path, &[]);
    assert!(code == 1 && said.contains(&format!("{}:{line}: was changed", path.display())), "{said}");
    let without: String =
        text.lines().enumerate().filter(|(at, _)| *at != line).map(|(_, line)| format!("{line}\n")).collect();
    std::fs::write(&path, without).unwrap();
    let (code, said) = verify(&path, &[]);
    assert!(code == 1 && said.contains("missing before it"), "{said}");
    let mut cut: String = text.lines().take(line).map(|line| format!("{line}\n")).collect();
    std::fs::write(&path, &cut).unwrap();
    assert_eq!(verify(&path, &[]).0, 0, "the chain alone cannot show it");
    let (code, said) = verify(&path, &["--expect-head", &head]);
    assert!(code == 1 && said.contains("cut off"), "{said}");
    cut.pop();
    std::fs::write(&path, &cut).unwrap();
    assert!(verify(&path, &["--output", "json"]).1.contains("ends within a record"));
    assert_eq!(verify(&folder.path().join("none"), &[]).0, 2);
    assert_eq!(verify(&path, &["--expect-head", "no hash"]).0, 2);
}
