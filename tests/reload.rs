//! Configuration changes while traffic flows, and nobody notices.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use futures_util::{SinkExt, StreamExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;
use support::objects::{destination_rule, service, virtual_service};
use support::proxy::OBJECTS;
use support::{
    Client1, Client2, Proxy, Reply, Upstream, empty, fetch, free_port, full, get, in_time, request,
};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

/// What callers have to say at the end.
#[derive(Default)]
struct Score {
    over: AtomicBool,
    answered: AtomicU64,
    failed: std::sync::Mutex<Vec<String>>,
}

impl Score {
    fn goes_on(&self) -> bool {
        !self.over.load(SeqCst)
    }

    fn count(&self, what: &str, outcome: &Result<Reply, hyper::Error>) {
        match outcome {
            Ok(reply) if reply.status == 200 => {
                self.answered.fetch_add(1, SeqCst);
            }
            other => self.failed.lock().unwrap().push(format!("{what}: {other:?}")),
        }
    }
}

/// The objects of the `round`th configuration: hosts stay, what is said of them changes.
fn changing(round: usize, http1: &Upstream, http2: &Upstream) -> String {
    let routes = format!(
        "
http:
- name: round-{round}
  timeout: {}s
  headers: {{response: {{set: {{x-round: \"{round}\"}}}}}}
  route: [{{destination: {{host: up.shop, subset: all}}}}]
",
        10 + round % 3
    );
    let rule = format!(
        "
trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: {}}}}}}}
subsets: [{{name: all, labels: {{}}}}]
",
        1000 + round
    );
    let mut text = service("up.shop", "HTTP", &[http1.address])
        + &service("up2.shop", "GRPC", &[http2.address])
        + &virtual_service("up.shop", &routes)
        + &destination_rule("up.shop", &rule);
    for extra in 0..round % 4 {
        text += &service(&format!("extra-{extra}.shop"), "HTTP", &[http1.address]);
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_reloads_under_load_fail_no_request_and_close_no_websocket() {
    let (http1, http2) = (Upstream::start().await, Upstream::start().await);
    let proxy = Proxy::with("workers: 2", &changing(0, &http1, &http2)).await;
    proxy.assert_no_complaints();
    let address = proxy.outbound();
    let score = Arc::new(Score::default());
    let mut callers = Vec::new();
    for caller in 0..3 {
        let score = score.clone();
        callers.push(tokio::spawn(async move {
            let mut client = Client1::connect(address).await;
            while score.goes_on() {
                let body = if caller == 0 { empty() } else { full("some body") };
                let outcome = client.try_exchange(request("POST", "up.shop", "/one", &[], body)).await;
                score.count("HTTP/1", &outcome);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }));
    }
    let client = Client2::connect(address).await;
    for caller in 0..6 {
        let (score, mut client) = (score.clone(), client.clone());
        callers.push(tokio::spawn(async move {
            while score.goes_on() {
                let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
                let message = match caller % 2 {
                    0 => get("up.shop", "/two"),
                    _ => request("POST", "up2.shop", "/shop.Cart/Add", &grpc, full(&b"\0\0\0\0\0"[..])),
                };
                let outcome = client.try_exchange(message).await;
                let status = outcome.as_ref().ok().and_then(|reply| reply.trailers.get("grpc-status"));
                if caller % 2 == 1 && status.is_none_or(|status| status != "0") {
                    score.failed.lock().unwrap().push(format!("gRPC: {outcome:?}"));
                }
                score.count("HTTP/2", &outcome);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }));
    }
    let mut sockets = Vec::new();
    for _ in 0..200 {
        let stream = support::client::connect(address).await;
        let connecting = tokio_tungstenite::client_async("ws://up.shop/chat", stream);
        sockets.push(in_time("a handshake", connecting).await.unwrap().0);
    }
    for round in 1..=200 {
        let applied = proxy.edit(OBJECTS, &changing(round, &http1, &http2)).await;
        assert!(applied.rejected.is_empty() && applied.problems.is_empty(), "{}", proxy.complaints());
        let socket = &mut sockets[round % 200];
        in_time("sending", socket.send(Message::text("ping"))).await.unwrap();
        assert_eq!(in_time("an echo", socket.next()).await.unwrap().unwrap(), Message::text("ping"));
    }
    let reply = fetch(address, get("up.shop", "/last")).await;
    assert_eq!(reply.header("x-round"), "200");
    score.over.store(true, SeqCst);
    for caller in callers {
        in_time("a caller", caller).await.unwrap();
    }
    for socket in &mut sockets {
        in_time("sending", socket.send(Message::text("end"))).await.unwrap();
        assert_eq!(in_time("an echo", socket.next()).await.unwrap().unwrap(), Message::text("end"));
    }
    let failed = score.failed.lock().unwrap();
    let answered = score.answered.load(SeqCst);
    assert!(failed.is_empty(), "{} failed of {answered}: {:?}", failed.len(), &failed[..failed.len().min(3)]);
    assert!(answered > 2000, "{answered} requests are no load");
}

#[tokio::test]
async fn connections_to_clusters_that_did_not_change_are_kept() {
    let (one, two) = (Upstream::named("one").await, Upstream::named("two").await);
    let proxy = Proxy::start(
        &(service("one.shop", "HTTP", &[one.address]) + &service("two.shop", "GRPC", &[two.address])),
    )
    .await;
    let mut client = Client1::connect(proxy.outbound()).await;
    for round in 0..10 {
        for host in ["one.shop", "two.shop"] {
            assert_eq!(client.exchange(get(host, "/")).await.status, 200);
        }
        proxy.edit("other.yaml", &service(&format!("other-{round}.shop"), "HTTP", &[one.address])).await;
    }
    assert_eq!((one.connections(), two.connections()), (1, 1));
}

#[tokio::test]
async fn the_connections_of_an_endpoint_that_is_gone_are_closed() {
    let (old, new) = (Upstream::named("old").await, Upstream::named("new").await);
    let proxy = Proxy::start(&service("up.shop", "HTTP", &[old.address])).await;
    let mut client = Client1::connect(proxy.outbound()).await;
    assert_eq!(client.exchange(get("up.shop", "/")).await.upstream(), "old");
    assert_eq!(old.open(), 1);
    proxy.edit(OBJECTS, &service("up.shop", "HTTP", &[new.address])).await;
    assert_eq!(client.exchange(get("up.shop", "/")).await.upstream(), "new");
    support::eventually("the old connection closes", || old.open() == 0).await;
}

#[tokio::test]
async fn a_file_that_does_not_parse_keeps_every_object_it_held() {
    let up = Upstream::start().await;
    let proxy = Proxy::start(&service("up.shop", "HTTP", &[up.address])).await;
    let mut client = Client1::connect(proxy.outbound()).await;
    assert_eq!(client.exchange(get("up.shop", "/")).await.status, 200);
    let applied = proxy.edit(OBJECTS, "kind: ServiceEntry\n  spec: [broken\n").await;
    let said = proxy.complaints();
    assert!(said.contains("objects.yaml:2"), "{said}");
    assert_eq!(client.exchange(get("up.shop", "/")).await.status, 200);
    // What is written meanwhile in other files counts.
    proxy.edit("new.yaml", &service("new.shop", "HTTP", &[up.address])).await;
    assert_eq!(client.exchange(get("new.shop", "/")).await.status, 200);
    assert_eq!(client.exchange(get("up.shop", "/")).await.status, 200);
    let dump = fetch(proxy.page("admin"), get("localhost", "/config_dump")).await.text();
    assert!(dump.contains("objects.yaml"), "{dump}");
    let mended = proxy.edit(OBJECTS, &service("up.shop", "HTTP", &[up.address])).await;
    assert!(mended.generation > applied.generation);
    proxy.assert_no_complaints();
}

#[tokio::test]
async fn lines_that_moved_are_told_though_nothing_else_changed() {
    let up = Upstream::start().await;
    let objects = service("up.shop", "HTTP", &[up.address])
        + &virtual_service("up.shop", "http: [{name: all, route: [{destination: {host: up.shop}}]}]");
    let proxy = Proxy::start(&objects).await;
    let page = |path: &str| {
        let request = get("localhost", path);
        let admin = proxy.page("admin");
        async move { fetch(admin, request).await.text() }
    };
    // The place after `marker`, as `objects.yaml:LINE:`.
    let line = |text: &str, marker: &str| -> usize {
        let from = text.find(marker).unwrap_or_else(|| panic!("no {marker} in {text}"));
        let after = text[from..].split_once("objects.yaml:").unwrap().1;
        after.split_once(':').unwrap().0.parse().unwrap()
    };
    let explain = "/explain?method=GET&url=http://up.shop/&format=text";
    let before = line(&page(explain).await, "spec.http[0]");
    let dumped: serde_json::Value = serde_json::from_str(&page("/config_dump").await).unwrap();
    proxy.edit(OBJECTS, &format!("# 1\n# 2\n# 3\n# 4\n# 5\n{objects}")).await;
    assert_eq!(line(&page(explain).await, "spec.http[0]"), before + 5);
    let moved: serde_json::Value = serde_json::from_str(&page("/config_dump").await).unwrap();
    let lines = |dump: &serde_json::Value| -> Vec<u64> {
        let clusters = dump["mesh"]["clusters"].as_object().unwrap().values();
        clusters.filter_map(|cluster| cluster["origin"]["Object"]["place"]["line"].as_u64()).collect()
    };
    let shifted: Vec<_> = lines(&dumped).iter().map(|line| line + 5).collect();
    assert!(!shifted.is_empty());
    assert_eq!(lines(&moved), shifted);
}

#[tokio::test]
async fn an_invalid_object_keeps_its_own_old_version_and_the_rest_goes_on() {
    let up = Upstream::start().await;
    let with = |status: &str, other: u16| {
        service("up.shop", "HTTP", &[up.address])
            + &service("other.shop", "HTTP", &[up.address])
            + &virtual_service("up.shop", &format!("http: [{{directResponse: {{status: {status}}}}}]"))
            + &virtual_service("other.shop", &format!("http: [{{directResponse: {{status: {other}}}}}]"))
    };
    let proxy = Proxy::start(&with("418", 201)).await;
    let mut client = Client1::connect(proxy.outbound()).await;
    assert_eq!(client.exchange(get("up.shop", "/")).await.status, 418);
    let applied = proxy.edit(OBJECTS, &with("nonsense", 202)).await;
    assert_eq!(client.exchange(get("up.shop", "/")).await.status, 418);
    assert_eq!(client.exchange(get("other.shop", "/")).await.status, 202);
    let [rejected] = &applied.rejected[..] else { panic!("{:?}", applied.rejected) };
    assert!(rejected.kept_old && rejected.subject().contains("up-shop"), "{rejected:?}");
    let said = proxy.complaints();
    assert!(said.contains("spec.http[0].directResponse.status") && said.contains("objects.yaml:"), "{said}");
    proxy.edit(OBJECTS, &with("419", 203)).await;
    assert_eq!(client.exchange(get("up.shop", "/")).await.status, 419);
}

fn gateway(ports: &[u16]) -> String {
    let servers: String = ports
        .iter()
        .map(|port| format!("  - {{port: {{number: {port}, name: http-{port}, protocol: HTTP}}, bind: 127.0.0.1, hosts: [\"*\"]}}\n"))
        .collect();
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge, namespace: shop}}
spec:
  selector: {{istio: ingressgateway}}
  servers:
{servers}"
    )
}

#[tokio::test]
async fn a_gateway_port_comes_and_goes_and_the_others_never_notice() {
    let up = Upstream::start().await;
    let routes = "
gateways: [edge]
http: [{route: [{destination: {host: up.shop}}]}]
";
    let objects = |ports: &[u16]| {
        service("up.shop", "HTTP", &[up.address]) + &gateway(ports) + &virtual_service("*", routes)
    };
    let (first, second) = (free_port(), free_port());
    let spec = "role: Gateway\nworkload: {labels: {istio: ingressgateway}}";
    let proxy = Proxy::with(spec, &objects(&[first])).await;
    proxy.assert_no_complaints();
    let local = |port: u16| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let mut kept = Client1::connect(local(first)).await;
    assert_eq!(kept.exchange(get("any.example.com", "/")).await.status, 200);
    assert!(TcpStream::connect(local(second)).await.is_err());
    for _ in 0..3 {
        proxy.edit(OBJECTS, &objects(&[first, second])).await;
        let mut added = Client1::connect(local(second)).await;
        assert_eq!(added.exchange(get("any.example.com", "/")).await.status, 200);
        assert_eq!(kept.exchange(get("any.example.com", "/")).await.status, 200);
        proxy.edit(OBJECTS, &objects(&[first])).await;
        let closed = async {
            while TcpStream::connect(local(second)).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        in_time("the port to close", closed).await;
        in_time("its idle connection to close", added.connection).await.unwrap().unwrap();
        assert_eq!(kept.exchange(get("any.example.com", "/")).await.status, 200);
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_reported_and_everything_else_is_in_force() {
    let up = Upstream::start().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let first = free_port();
    let routes = "
gateways: [edge]
http: [{route: [{destination: {host: up.shop}}]}]
";
    let objects =
        service("up.shop", "HTTP", &[up.address]) + &gateway(&[first, port]) + &virtual_service("*", routes);
    let proxy = Proxy::with("role: Gateway\nworkload: {labels: {istio: ingressgateway}}", &objects).await;
    let said = proxy.complaints();
    assert!(said.contains(&port.to_string()) && said.contains("cannot be opened"), "{said}");
    assert_eq!(fetch(([127, 0, 0, 1], first).into(), get("any", "/")).await.status, 200);
}

#[tokio::test]
async fn the_link_swap_of_a_config_map_volume_is_noticed() {
    let (old, new) = (Upstream::named("old").await, Upstream::named("new").await);
    let folder = tempfile::tempdir().unwrap();
    let version = |name: &str, up: &Upstream| {
        let version = folder.path().join(name);
        std::fs::create_dir(&version).unwrap();
        std::fs::write(version.join("proxy.yaml"), support::proxy::own("")).unwrap();
        std::fs::write(version.join("objects.yaml"), service("up.shop", "HTTP", &[up.address])).unwrap();
    };
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, folder.path().join(name)).unwrap();
    version("..2026_01", &old);
    link("..2026_01", "..data");
    link("..data/proxy.yaml", "proxy.yaml");
    link("..data/objects.yaml", "objects.yaml");
    let path = folder.path().to_owned();
    let (second, third) = (path.join("..2026_02"), path.join("..2026_01"));
    version("..2026_02", &new);
    let proxy = Proxy::over(folder).await;
    assert_eq!(fetch(proxy.outbound(), get("up.shop", "/")).await.upstream(), "old");
    for (target, name) in [(&second, "new"), (&third, "old"), (&second, "new")] {
        let before = proxy.applied().generation;
        let temporary = path.join("..data_tmp");
        std::os::unix::fs::symlink(target.file_name().unwrap(), &temporary).unwrap();
        std::fs::rename(&temporary, path.join("..data")).unwrap();
        proxy.reached(before + 1).await;
        assert_eq!(fetch(proxy.outbound(), get("up.shop", "/")).await.upstream(), name);
    }
}

#[tokio::test]
async fn what_needs_a_restart_is_said_with_both_values_until_it_is_taken_back() {
    let up = Upstream::start().await;
    let proxy = Proxy::start(&service("up.shop", "HTTP", &[up.address])).await;
    let written = "workers: 3\nadmin: {address: \"127.0.0.1:1\"}\nhealth: {address: \"127.0.0.1:2\"}\nmetrics: {address: \"127.0.0.1:3\"}";
    proxy.edit("proxy.yaml", &support::proxy::own(written)).await;
    let said = proxy.complaints();
    for (field, before, now) in [
        ("spec.workers", "1", "3"),
        ("spec.admin.address", "127.0.0.1:0", "127.0.0.1:1"),
        ("spec.health.address", "127.0.0.1:0", "127.0.0.1:2"),
        ("spec.metrics.address", "127.0.0.1:0", "127.0.0.1:3"),
    ] {
        let words = format!("{field}: is read at the start only: {before} is in force, {now} is written");
        assert!(said.contains(&words) && said.contains("restart to apply"), "{field}: {said}");
    }
    let admin = proxy.page("admin");
    let dump = fetch(admin, get("localhost", "/config_dump")).await.text();
    assert!(dump.contains("restart-needed") && dump.contains("proxy.yaml:"), "{dump}");
    let stats = || async { fetch(admin, get("localhost", "/stats")).await.text() };
    assert!(stats().await.contains("\nsidegate_config_warnings 4\n"), "{}", stats().await);
    // What is in the same object and needs none is in force.
    proxy.edit("proxy.yaml", &support::proxy::own("limits: {maxHeaders: 3}")).await;
    proxy.assert_no_complaints();
    assert!(stats().await.contains("\nsidegate_config_warnings 0\n"));
    let many = [("a", "1"), ("b", "1"), ("c", "1")];
    let reply = fetch(proxy.outbound(), request("GET", "up.shop", "/", &many, empty())).await;
    assert_eq!(reply.status, 431);
}

/// The rows of the README's table of the Proxy: field and when a change applies.
fn readme_rows() -> Vec<(String, String)> {
    let readme = std::fs::read_to_string("README.md").unwrap();
    let table = readme.lines().skip_while(|line| !line.starts_with("| field of `spec`")).skip(2);
    let rows = table.take_while(|line| line.starts_with('|')).map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        (cells[0].to_owned(), cells[cells.len() - 1].to_owned())
    });
    rows.collect()
}

#[test]
fn the_readme_names_the_same_fields_as_needing_a_restart() {
    let rows = readme_rows();
    let restart: Vec<_> =
        rows.iter().filter(|(_, applies)| applies == "restart").map(|(field, _)| &**field).collect();
    assert_eq!(restart, ["`workers`", "`admin.address`", "`health.address`", "`metrics.address`"]);
    assert!(rows.len() > 20, "{rows:?}");
}

#[tokio::test]
async fn while_the_proxy_object_is_gone_every_page_says_that_nothing_changes() {
    let up = Upstream::start().await;
    let proxy = Proxy::start(&service("up.shop", "HTTP", &[up.address])).await;
    let admin = proxy.page("admin");
    let page = |path: &'static str| fetch(admin, get("localhost", path));
    assert_eq!(page("/ready").await.text(), "ok\n");
    std::fs::remove_file(proxy.folder().join("proxy.yaml")).unwrap();
    support::eventually("the refusal", || proxy.status.refused().is_some()).await;
    let ready = page("/ready").await;
    assert_eq!(ready.status, 200);
    for (path, text) in [
        ("/ready", ready.text()),
        ("/server_info", page("/server_info").await.text()),
        ("/config_dump", page("/config_dump").await.text()),
        ("health", fetch(proxy.page("health"), get("localhost", "/healthz/ready")).await.text()),
    ] {
        assert!(text.contains("Proxy shop/client") && text.contains("is gone"), "{path}: {text}");
    }
    let dump: serde_json::Value = serde_json::from_str(&page("/config_dump").await.text()).unwrap();
    let rejected = &dump["configuration"]["rejected"][0];
    assert_eq!(
        (rejected["object"].as_str(), rejected["keptOld"].as_bool()),
        (Some("Proxy shop/client"), Some(true))
    );
    assert_eq!(fetch(proxy.outbound(), get("up.shop", "/")).await.status, 200);
    proxy.put("proxy.yaml", &support::proxy::own(""));
    support::eventually("the end of the refusal", || proxy.status.refused().is_none()).await;
    assert_eq!(page("/ready").await.text(), "ok\n");
    proxy.assert_no_complaints();
}
