//! Every refusal can be asked about by its id: at the admin page, by `sidegate explain`, in the access log.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use std::process::{Command, Output};
use support::{Proxy, Raw, Reply, Upstream, empty, fetch, request};

const DENY: &str = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\n\
    spec: {rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/cart]}}], to: [{operation: {paths: ['/a*']}}]}]}\n";

const TOKENS: &str = "---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: users, namespace: shop}\n\
    spec: {jwtRules: [{issuer: me, jwks: '{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"k\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}]}'}]}\n";

/// A sidecar in front of an application, with further fields of the Proxy and objects.
async fn sidecar(application: &Upstream, spec: &str, objects: &str) -> Proxy {
    let inbound = format!(
        "inbound: {{addresses: [\"127.0.0.1:0\"], application: \"{}\"}}\n{spec}",
        application.address
    );
    let proxy = Proxy::with(&inbound, objects).await;
    proxy.assert_no_complaints();
    proxy
}

async fn page(proxy: &Proxy, path: &str) -> Reply {
    fetch(proxy.page("admin"), request("GET", "127.0.0.1", path, &[], empty())).await
}

async fn json(proxy: &Proxy, path: &str) -> Value {
    let reply = page(proxy, path).await;
    assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    serde_json::from_str(&reply.text()).unwrap()
}

/// The id that the text of an answer tells.
fn id(text: &str) -> String {
    let (_, rest) = text.split_once(" (decision ").unwrap_or_else(|| panic!("no id in {text:?}"));
    let id = rest.split(')').next().unwrap();
    assert_eq!(id.len(), 16, "{text}");
    id.to_owned()
}

async fn command(arguments: Vec<String>, admin: Option<String>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidegate"));
    command.arg("explain").args(arguments).env_remove("SIDEGATE_ADMIN");
    if let Some(admin) = admin {
        command.env("SIDEGATE_ADMIN", admin);
    }
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_403_is_found_by_its_id_with_policy_rule_clause_and_place() {
    let application = Upstream::start().await;
    let proxy = sidecar(&application, "", DENY).await;
    let headers = [("authorization", "Bearer s3cret"), ("x-request-id", "r-1")];
    let refused =
        fetch(proxy.inbound(), request("GET", "cart:80", "/a?token=s3cret&n=1", &headers, empty())).await;
    assert_eq!(refused.status, 403);
    let text = refused.text();
    let id = id(&text);
    assert_eq!(text, format!("RBAC: access denied (decision {id})"), "the body tells the id and no more");
    assert!(!refused.headers.contains_key("x-sidegate-decision"), "nobody asked for it");

    let told = json(&proxy, &format!("/explain/{}", id.to_uppercase())).await;
    assert_eq!(
        (&told["id"], &told["status"], &told["outcome"]),
        (&id.clone().into(), &403.into(), &"refused".into())
    );
    assert_eq!(told["request"]["host"], "cart:80");
    assert_eq!(told["request"]["path"], "/a?token=***&n=1");
    assert_eq!(told["connection"]["peer"], Value::Null);
    let record = &told["records"][0];
    assert_eq!((&record["policy"], &record["rule"]), (&"shop/p".into(), &0.into()), "{told}");
    assert_eq!(record["failed"]["clause"], "from.source.principals");
    assert_eq!(record["failed"]["expected"], "cluster.local/ns/shop/sa/cart");
    assert!(record["place"].as_str().unwrap().contains("objects.yaml:"), "{told}");
    assert!(!told.to_string().contains("s3cret"), "{told}");

    let admin = proxy.page("admin").to_string();
    let shown = command(vec![id.clone()], Some(admin.clone())).await;
    let text = String::from_utf8(shown.stdout).unwrap();
    assert_eq!(shown.status.code(), Some(0), "{text}");
    assert!(text.contains("AuthorizationPolicy shop/p spec.rules[0]") && text.contains("expected"), "{text}");
    let shown = command(vec![id, "--admin".into(), admin, "--output".into(), "json".into()], None).await;
    assert_eq!(serde_json::from_slice::<Value>(&shown.stdout).unwrap(), told);

    let metrics =
        fetch(proxy.page("metrics"), request("GET", "m", "/stats/prometheus", &[], empty())).await.text();
    let counted = r#"sidegate_policy_decisions_total{layer="authorization",policy="shop/p",rule="0",effect="denied"} 1"#;
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn a_401_a_404_and_a_refused_connection_are_found_too() {
    let application = Upstream::echo().await;
    let proxy = sidecar(&application, "", &format!("{TOKENS}{DENY}")).await;
    let bearer = [("authorization", "Bearer a.b.c")];
    let refused = fetch(proxy.inbound(), request("GET", "cart", "/a", &bearer, empty())).await;
    assert_eq!(refused.status, 401);
    let told = json(&proxy, &format!("/explain/{}", id(&refused.text()))).await;
    assert_eq!(told["records"][0]["layer"], "jwt");
    assert_eq!(told["records"][0]["object"], "RequestAuthentication shop/users", "{told}");

    let unknown = fetch(proxy.outbound(), request("GET", "nobody.shop", "/", &[], empty())).await;
    assert_eq!(unknown.status, 404);
    let told = json(&proxy, &format!("/explain/{}", id(&unknown.text()))).await;
    assert_eq!((&told["flags"], &told["details"]), (&"NR".into(), &"route_not_found".into()));

    let mut raw = Raw::connect(proxy.inbound()).await;
    raw.send("\0ping").await;
    raw.finish().await;
    assert_eq!(raw.rest().await, b"");
    let latest = json(&proxy, "/decisions?limit=1").await;
    let told = &latest["decisions"][0];
    assert_eq!((&told["connection"]["protocol"], &told["status"]), (&"tcp".into(), &Value::Null), "{told}");
    assert_eq!(told["records"][0]["policy"], "shop/p");
    let again = json(&proxy, &format!("/explain/{}", told["id"].as_str().unwrap())).await;
    assert_eq!(&again, told);

    let all = json(&proxy, "/decisions?outcome=refused").await;
    let statuses: Vec<_> =
        all["decisions"].as_array().unwrap().iter().map(|told| told["status"].as_u64()).collect();
    assert_eq!(statuses, [None, Some(404), Some(401)], "the latest first");
    assert_eq!(json(&proxy, "/decisions?status=404").await["decisions"].as_array().unwrap().len(), 1);
    assert_eq!(json(&proxy, "/decisions?policy=shop/p").await["decisions"].as_array().unwrap().len(), 1);
    for wrong in ["/decisions?limit=x", "/decisions?status=x", "/decisions?outcome=x", "/explain/x"] {
        assert_eq!(page(&proxy, wrong).await.status, 400, "{wrong}");
    }
}

#[tokio::test]
async fn the_ring_stays_bounded_and_says_how_far_it_reaches() {
    let application = Upstream::start().await;
    let proxy = sidecar(&application, "", DENY).await;
    let first = fetch(proxy.inbound(), request("GET", "cart", "/", &[], empty())).await;
    let gone = id(&first.text());
    let mut raw = Raw::connect(proxy.inbound()).await;
    for _ in 0..100 {
        raw.send("GET / HTTP/1.1\r\nhost: cart\r\n\r\n".repeat(100)).await;
        for _ in 0..100 {
            assert_eq!(raw.reply().await.status, 403);
        }
    }
    let all = json(&proxy, "/decisions?limit=100000").await;
    assert_eq!(all["refusals"]["total"], 10_001);
    let capacity = all["refusals"]["capacity"].as_u64().unwrap() as usize;
    assert_eq!(all["decisions"].as_array().unwrap().len(), capacity);
    let unknown = page(&proxy, &format!("/explain/{gone}")).await;
    assert_eq!(unknown.status, 404);
    let says = format!("no decision {gone} is remembered here: of 10001 refusals the last {capacity} are");
    assert!(
        unknown.text().starts_with(&says) && unknown.text().contains(", all since 20"),
        "{}",
        unknown.text()
    );
    let shown = command(vec![gone], Some(proxy.page("admin").to_string())).await;
    assert_eq!(shown.status.code(), Some(1));
    assert!(String::from_utf8(shown.stderr).unwrap().starts_with("no decision "));
    assert_eq!(application.requests(), 0);
}

#[tokio::test]
async fn the_header_is_told_where_the_proxy_asks_for_it_and_follows_a_reload() {
    let application = Upstream::start().await;
    let proxy = sidecar(&application, "explain: {header: true, allowedPercent: 100}", DENY).await;
    let refused = fetch(proxy.inbound(), request("GET", "cart", "/a", &[], empty())).await;
    assert_eq!(refused.headers["x-sidegate-decision"], *id(&refused.text()));
    let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
    let refused = fetch(proxy.inbound(), request("POST", "cart", "/a.B/C", &grpc, empty())).await;
    assert_eq!((refused.status.as_u16(), &refused.headers["grpc-status"]), (200, &"7".parse().unwrap()));
    assert_eq!(
        refused.headers["x-sidegate-decision"],
        *id(refused.headers["grpc-message"].to_str().unwrap())
    );

    proxy.remove(support::proxy::OBJECTS).await;
    let passed = fetch(proxy.inbound(), request("GET", "cart", "/b?code=s3cret", &[], empty())).await;
    assert_eq!(passed.status, 200);
    assert!(!passed.headers.contains_key("x-sidegate-decision"));
    for _ in 0..9 {
        fetch(proxy.inbound(), request("GET", "cart", "/b?code=s3cret", &[], empty())).await;
    }
    let all = json(&proxy, "/decisions?outcome=passed").await;
    assert_eq!(all["decisions"].as_array().unwrap().len(), 10, "100 percent are all");
    assert_eq!(all["decisions"][0]["request"]["path"], "/b?code=***", "{all}");
}

#[tokio::test]
async fn the_access_log_tells_ids_and_no_secrets() {
    let application = Upstream::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (log, key) = (folder.path().join("access.log"), folder.path().join("key"));
    std::fs::write(&key, [7; 32]).unwrap();
    let spec = format!(
        "meshConfig:\n  accessLogFile: \"{}\"\n  accessLogFormat: \"%DECISION_ID% %DECISION_REASON% %REQ(:PATH)% %REQ(AUTHORIZATION)% %REQ(USER-AGENT)%\\n\"\n\
         redaction:\n  query: [ticket]\n  masks: [{{find: Email}}, {{find: Pattern, pattern: 'C-[0-9]+', pseudonym: true}}]\n  pseudonymKey: {{file: \"{}\"}}",
        log.display(),
        key.display()
    );
    let proxy = sidecar(&application, &spec, "").await;
    let headers = [("authorization", "Bearer s3cret"), ("user-agent", "robot bob@example.com for C-77")];
    let passed =
        fetch(proxy.inbound(), request("GET", "cart", "/x?ticket=s3cret&n=1", &headers, empty())).await;
    assert_eq!(passed.status, 200);
    let refused = fetch(proxy.outbound(), request("GET", "nobody", "/", &[], empty())).await;
    let id = id(&refused.text());
    let lines = || std::fs::read_to_string(&log).unwrap_or_default();
    support::eventually("two lines", || lines().lines().count() == 2).await;
    let lines = lines();
    let (first, second) = lines.split_once('\n').unwrap();
    let start = "- - /x?ticket=***&n=1 *** robot ***@example.com for ~";
    assert!(first.starts_with(start) && first.len() == start.len() + 16, "{first}");
    assert!(second.starts_with(&format!("{id} route_not_found:")), "{second}");
    assert!(!lines.contains("s3cret") && !lines.contains("bob") && !lines.contains("C-77"), "{lines}");
}

#[tokio::test]
async fn rules_that_cannot_be_used_are_said_and_hide_nothing_less() {
    let application = Upstream::start().await;
    let spec = "redaction: {masks: [{find: Email, pseudonym: true}], pseudonymKey: {file: /nowhere/key}}";
    let inbound =
        format!("inbound: {{addresses: [\"127.0.0.1:0\"], application: \"{}\"}}", application.address);
    let proxy = Proxy::with(&format!("{inbound}\n{spec}"), DENY).await;
    let complaints = proxy.complaints();
    assert!(
        complaints.contains("spec.redaction.pseudonymKey.file: /nowhere/key cannot be read ("),
        "{complaints}"
    );
    let refused =
        fetch(proxy.inbound(), request("GET", "cart", "/bob@example.com?token=s3cret", &[], empty())).await;
    let told = json(&proxy, &format!("/explain/{}", id(&refused.text()))).await;
    let path = told["request"]["path"].as_str().unwrap();
    assert!(path.starts_with("/~") && path.ends_with("?token=***") && !path.contains("bob"), "{path}");
}

#[tokio::test]
async fn a_connection_too_many_is_remembered() {
    let application = Upstream::start().await;
    let proxy = sidecar(&application, "limits: {maxConnections: 1}", "").await;
    let mut held = Raw::connect(proxy.inbound()).await;
    held.send("GET / HTTP/1.1\r\nhost: cart\r\n\r\n").await;
    assert_eq!(held.reply().await.status, 200);
    assert!(Raw::connect(proxy.inbound()).await.is_at_end().await);
    let told = &json(&proxy, "/decisions?outcome=refused").await["decisions"][0];
    assert_eq!((&told["flags"], &told["records"][0]["layer"]), (&"OM".into(), &"listener".into()), "{told}");
}

#[tokio::test]
async fn a_proxy_that_does_not_answer_is_said_so() {
    let admin = format!("127.0.0.1:{}", support::free_port());
    let asked = command(vec!["0123456789abcdef".into(), "--admin".into(), admin.clone()], None).await;
    assert_eq!(asked.status.code(), Some(1));
    let said = String::from_utf8(asked.stderr).unwrap();
    assert!(
        said.starts_with(&format!("no proxy answers at {admin}: ")) && said.contains("SIDEGATE_ADMIN"),
        "{said}"
    );
    for (arguments, hint) in [
        (vec!["GET".to_owned()], "METHOD URL"),
        (vec!["0123456789abcdef".into(), "--admin".into(), "a b".into()], "is no address"),
    ] {
        let asked = command(arguments, None).await;
        let said = String::from_utf8(asked.stderr).unwrap();
        assert_eq!(asked.status.code(), Some(2), "{said}");
        assert!(said.contains(hint), "{said}");
    }
}
