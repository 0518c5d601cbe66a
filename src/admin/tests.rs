use crate::proxy::Limit;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;

use super::*;
use crate::telemetry::logging::{Shape, subscriber};
use crate::telemetry::metrics::{PoolMetrics, Registry, RegistryLimits};

const LIMITS: &[Limit] =
    &[Limit { name: "head_bytes", default: 61_440, unit: "bytes", scope: "request", doc: "431" }];

struct Admin {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    running: tokio::task::JoinHandle<()>,
}

impl Admin {
    async fn start(routes: Routes, hosts: Hosts) -> Self {
        let listener = bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = Server::new(routes, hosts);
        let running = tokio::spawn(server.run(listener, async move { drop(stopped.await) }));
        Self { address, stop, running }
    }

    async fn local(routes: Routes) -> Self {
        Self::start(routes, Hosts::Loopback { also: vec!["admin.test".to_owned()] }).await
    }

    /// Sends a request as written and returns status and everything received.
    async fn raw(&self, request: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        (text.split(' ').nth(1).unwrap().parse().unwrap(), text)
    }

    async fn send(&self, method: &str, target: &str, headers: &str) -> (u16, String) {
        let host = if headers.contains("Host:") { "" } else { "Host: localhost:15000\r\n" };
        self.raw(&format!("{method} {target} HTTP/1.1\r\n{host}Connection: close\r\n{headers}\r\n")).await
    }

    async fn get(&self, target: &str) -> (u16, String) {
        self.send("GET", target, "").await
    }
}

fn counting() -> (Routes, Arc<AtomicU32>) {
    let calls = Arc::new(AtomicU32::new(0));
    let counter = calls.clone();
    let routes = Routes::new("test")
        .get("/show", "shows", async |call: Call| Reply::text(format!("{:?}", call.query.value("q"))))
        .post("/change", "changes", move |call: Call| {
            counter.fetch_add(1, Ordering::Relaxed);
            async move { Reply::text(call.body) }
        });
    (routes, calls)
}

#[tokio::test]
async fn a_handler_gets_the_decoded_query_and_head_has_no_body() {
    let admin = Admin::local(counting().0).await;
    let (status, text) = admin.get("/show?q=a%20b+c&x").await;
    assert_eq!(status, 200);
    assert!(text.ends_with("Some(\"a b c\")"), "{text}");
    assert!(text.contains("x-content-type-options: nosniff\r\n"), "{text}");
    let (status, text) = admin.send("HEAD", "/show", "").await;
    assert_eq!(status, 200);
    assert!(text.ends_with("content-length: 4\r\n\r\n") || text.ends_with("\r\n\r\n"), "{text}");
    assert!(!text.contains("None"), "{text}");
}

#[tokio::test]
async fn a_get_of_a_changing_path_is_refused_without_effect() {
    let (routes, calls) = counting();
    let admin = Admin::local(routes).await;
    let (status, text) = admin.get("/change").await;
    assert_eq!(status, 405);
    assert!(text.contains("allow: POST\r\n"), "{text}");
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    let (status, text) = admin.send("POST", "/change", "Content-Length: 2\r\n\r\nhi").await;
    assert_eq!((status, text.ends_with("hi")), (200, true), "{text}");
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert_eq!(admin.send("POST", "/show", "").await.0, 405);
    assert_eq!(admin.send("POST", "/help", "").await.0, 405);
    assert_eq!(admin.get("/nothing").await.0, 404);
}

#[tokio::test]
async fn every_route_is_listed_with_its_methods() {
    let admin = Admin::local(counting().0).await;
    let (_, help) = admin.get("/help").await;
    assert!(help.contains("/change") && help.contains("POST") && help.contains("shows"), "{help}");
    let (_, index) = admin.get("/").await;
    assert!(index.contains("<a href=\"/show\">/show</a>"), "{index}");
    assert!(!index.contains("href=\"/change\""), "a link would be a GET: {index}");
}

#[tokio::test]
async fn a_name_that_is_rebound_to_loopback_is_refused() {
    let admin = Admin::local(counting().0).await;
    for host in [
        "evil.example",
        "evil.example:15000",
        "10.0.0.1",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "",
        "a b",
    ] {
        let (status, text) = admin.send("GET", "/show", &format!("Host: {host}\r\n")).await;
        assert_eq!(status, 403, "{host}: {text}");
    }
    for host in [
        "localhost",
        "LOCALHOST:1",
        "127.0.0.1:15000",
        "127.9.9.9",
        "[::1]:15000",
        "admin.test",
        "localhost.",
    ] {
        assert_eq!(admin.send("GET", "/show", &format!("Host: {host}\r\n")).await.0, 200, "{host}");
    }
    let absolute = "GET http://evil.example/show HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(admin.raw(absolute).await.0, 403);
    assert_eq!(admin.raw("GET /show HTTP/1.1\r\nConnection: close\r\n\r\n").await.0, 400);
    assert_eq!(admin.raw("GET /show HTTP/1.0\r\n\r\n").await.0, 200);
    let open = Admin::start(counting().0, Hosts::Any).await;
    assert_eq!(open.send("GET", "/show", "Host: 10.0.0.1\r\n").await.0, 200);
}

#[tokio::test]
async fn a_web_page_elsewhere_cannot_change_anything() {
    let (routes, calls) = counting();
    let admin = Admin::local(routes).await;
    for headers in [
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
        "Origin: http://evil.example\r\n",
        "Origin: null\r\n",
        "Origin: http://localhost:3000\r\n",
    ] {
        assert_eq!(admin.send("POST", "/change", headers).await.0, 403, "{headers}");
    }
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    for headers in
        ["Sec-Fetch-Site: same-origin\r\nOrigin: http://localhost:15000\r\n", "Sec-Fetch-Site: none\r\n"]
    {
        assert_eq!(admin.send("POST", "/change", headers).await.0, 200, "{headers}");
    }
    assert_eq!(admin.send("GET", "/show", "Sec-Fetch-Site: cross-site\r\n").await.0, 200);
}

#[tokio::test]
async fn heads_and_bodies_are_bounded() {
    let (routes, calls) = counting();
    let admin = Admin::local(routes).await;
    let (status, _) = admin.send("POST", "/change", "Content-Length: 65537\r\n").await;
    assert_eq!(status, 413);
    let chunk = format!("Transfer-Encoding: chunked\r\n\r\n10001\r\n{}", "x".repeat(0x10001));
    assert_eq!(admin.send("POST", "/change", &chunk).await.0, 413);
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    let (status, _) = admin.send("GET", "/show", &format!("X: {}\r\n", "x".repeat(HEAD_BYTES))).await;
    assert_eq!(status, 431);
    let (status, _) = admin.send("GET", "/show", &"X: x\r\n".repeat(HEADERS + 1)).await;
    assert_eq!(status, 431);
}

#[tokio::test]
async fn statistics_are_filtered_and_rendered() {
    let registry = Registry::new(RegistryLimits::default());
    let worker = registry.worker();
    let (used, _idle) = (PoolMetrics::new(&registry, "used"), PoolMetrics::new(&registry, "idle"));
    used.opened(&worker);
    let routes = Routes::new("admin").get("/stats", "statistics", stats(registry.clone())).get(
        "/stats/prometheus",
        "metrics",
        prometheus(registry),
    );
    let admin = Admin::local(routes).await;
    let (_, text) = admin.get("/stats/prometheus").await;
    assert!(text.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{text}");
    assert!(text.contains("sidegate_pool_connections_opened_total{cluster=\"used\"} 1\n"), "{text}");
    assert!(text.contains("\nprocess_open_fds "), "{text}");
    let (_, text) = admin.get("/stats?filter=opened_total.*(used|idle)").await;
    let body = text.split("\r\n\r\n").nth(1).unwrap();
    assert_eq!(
        body,
        "sidegate_pool_connections_opened_total{cluster=\"idle\"} 0\n\
         sidegate_pool_connections_opened_total{cluster=\"used\"} 1\n"
    );
    let (_, text) = admin.get("/stats?usedonly&filter=pool&format=prometheus").await;
    let body = text.split("\r\n\r\n").nth(1).unwrap();
    assert_eq!(body.lines().count(), 3, "{body}");
    assert_eq!(admin.get("/stats?filter=(").await.0, 400);
    assert_eq!(admin.get("/stats?filter=(%5Cw%7B1000%7D)%7B1000%7D").await.0, 400);
    assert_eq!(admin.get("/stats?format=json").await.0, 400);
}

#[tokio::test]
async fn log_levels_are_shown_by_get_and_changed_by_post_only() {
    let (_subscriber, levels) = subscriber(Shape::Text, "info", io::sink).unwrap();
    let routes =
        Routes::new("admin").on(Methods::GetAndPost, "/logging", "log levels", logging(levels.clone()));
    let admin = Admin::local(routes).await;
    assert!(admin.get("/logging").await.1.ends_with("level: info\n"));
    assert_eq!(admin.get("/logging?level=debug").await.0, 405);
    assert_eq!(levels.to_string(), "level: info\n");
    assert_eq!(admin.send("POST", "/logging?level=debug", "").await.0, 200);
    assert_eq!(levels.to_string(), "level: debug\n");
    let (status, text) = admin.send("POST", "/logging?level=loud", "").await;
    assert_eq!(status, 400);
    assert!(text.contains("\"loud\" is not a level"), "{text}");
}

#[tokio::test]
async fn the_small_pages_answer() {
    let routes = Routes::new("admin")
        .get("/server_info", "version", server_info("1.2.3", || (State::PreInitializing, None)))
        .get("/memory", "memory", memory())
        .get("/limits", "limits", limits(LIMITS))
        .get("/good", "health", health(|| Ok(None)))
        .get("/bad", "health", health(|| Err("no configuration yet".to_owned())));
    let admin = Admin::local(routes).await;
    let json = |text: String| -> serde_json::Value {
        serde_json::from_str(text.split("\r\n\r\n").nth(1).unwrap()).unwrap()
    };
    let info = json(admin.get("/server_info").await.1);
    assert_eq!((&info["version"], &info["state"]), (&"1.2.3".into(), &"PRE_INITIALIZING".into()));
    assert!(json(admin.get("/memory").await.1)["resident"].as_u64().unwrap() > 0);
    let (_, table) = admin.get("/limits").await;
    assert!(table.contains("head_bytes  61440    bytes  request  431\n"), "{table}");
    assert_eq!(json(admin.get("/limits?format=json").await.1)[0]["default"], 61_440);
    assert_eq!(admin.get("/good").await.0, 200);
    let (status, text) = admin.get("/bad").await;
    assert_eq!((status, text.ends_with("no configuration yet\n")), (503, true));
}

#[tokio::test]
async fn a_running_request_ends_before_the_server_does() {
    let (release, released) = oneshot::channel::<()>();
    let (entered, mut inside) = tokio::sync::mpsc::channel::<()>(1);
    let released = Arc::new(tokio::sync::Mutex::new(Some(released)));
    let routes = Routes::new("test").get("/slow", "slow", move |_| {
        let (entered, released) = (entered.clone(), released.clone());
        async move {
            entered.send(()).await.unwrap();
            released.lock().await.take().unwrap().await.unwrap();
            Reply::text("done")
        }
    });
    let admin = Admin::local(routes).await;
    let address = admin.address;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    inside.recv().await.unwrap();
    admin.stop.send(()).unwrap();
    release.send(()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.ends_with("done"), "{text}");
    admin.running.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn an_address_that_cannot_be_bound_is_named() {
    let error = bind("192.0.2.1:1").await.unwrap_err();
    assert!(error.to_string().contains("cannot listen on 192.0.2.1:1"), "{error}");
}

#[tokio::test]
async fn connections_that_ask_nothing_do_not_keep_a_probe_out() {
    let admin = Admin::local(counting().0).await;
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS + 10 {
        let mut stream = TcpStream::connect(admin.address).await.unwrap();
        stream.write_all(b"GET /sh").await.unwrap();
        idle.push(stream);
    }
    let (status, _) =
        tokio::time::timeout(Duration::from_secs(5), admin.get("/show")).await.expect("it is answered");
    assert_eq!(status, 200);
    // The oldest had to go, not the newest.
    let mut text = String::new();
    idle[0].read_to_string(&mut text).await.unwrap();
    let newest = idle.last_mut().unwrap();
    newest.write_all(b"ow HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    newest.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
}
