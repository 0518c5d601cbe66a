//! SIGTERM: the process goes away, and nobody who plays by the rules loses a request.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use futures_util::{SinkExt, StreamExt};
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};
use support::{Client1, Client2, Upstream, fetch, free_port, full, get, in_time, request};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio_tungstenite::tungstenite::Message;

/// The program itself, in front of an application.
struct Process {
    child: Child,
    inbound: SocketAddr,
    outbound: SocketAddr,
    health: SocketAddr,
    folder: TempDir,
}

impl Process {
    async fn start(application: SocketAddr, drain: &str) -> Self {
        let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let (inbound, health) = (local(free_port()), local(free_port()));
        let outbound = local(free_port());
        let folder = tempfile::tempdir().unwrap();
        let spec = format!(
            "workers: 2
inbound: {{addresses: [\"{inbound}\"], application: \"{application}\"}}
outbound: {{addresses: [\"{outbound}\"]}}
health: {{address: \"{health}\"}}
drain: {drain}"
        );
        std::fs::write(folder.path().join("proxy.yaml"), support::proxy::own(&spec)).unwrap();
        let objects = support::objects::service("other", "HTTP", &[application]);
        std::fs::write(folder.path().join("objects.yaml"), objects).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_sidegate"))
            .args(["run", "--log", "info", "--config"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("log.txt")).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let process = Self { child, inbound, outbound, health, folder };
        let ready = async {
            while process.readiness().await != Some(200) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        in_time("readiness", ready).await;
        process
    }

    /// The answer of the health port; `None` when nobody listens there.
    async fn readiness(&self) -> Option<u16> {
        TcpStream::connect(self.health).await.ok()?;
        Some(fetch(self.health, get("localhost", "/healthz/ready")).await.status.as_u16())
    }

    async fn becomes_unready(&self) {
        let unready = async {
            while self.readiness().await != Some(503) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        in_time("readiness to fail", unready).await;
    }

    async fn signal(&self, name: &str) {
        let pid = self.child.id().expect("it runs");
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().await.unwrap();
        assert!(status.success());
    }

    async fn exit_code(&mut self) -> Option<i32> {
        in_time("the process to end", self.child.wait()).await.unwrap().code()
    }
}

#[derive(Default)]
struct Score {
    answered: AtomicU64,
    lost: std::sync::Mutex<Vec<String>>,
}

impl Score {
    fn count(&self, what: &str, outcome: Result<u16, hyper::Error>) -> bool {
        match outcome {
            Ok(200) => {
                self.answered.fetch_add(1, SeqCst);
                true
            }
            other => {
                self.lost.lock().unwrap().push(format!("{what}: {other:?}"));
                false
            }
        }
    }
}

/// Sends over kept connections, opens another when told to close, and goes elsewhere once nobody listens any more.
async fn http1_caller(address: SocketAddr, score: Arc<Score>) {
    while TcpStream::connect(address).await.is_ok() {
        let Ok(stream) = TcpStream::connect(address).await else { return };
        let io = hyper_util::rt::TokioIo::new(stream);
        let (sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        let mut client = Client1 { sender, connection: tokio::spawn(connection.with_upgrades()) };
        // Ready means: not told to close.
        for turn in 0.. {
            if client.sender.ready().await.is_err() {
                break;
            }
            let (method, body) =
                if turn % 2 == 0 { ("GET", support::empty()) } else { ("POST", full("order")) };
            let outcome = client.try_exchange(request(method, "app", "/load", &[], body)).await;
            let close = outcome.as_ref().is_ok_and(|reply| reply.header("connection") == "close");
            if !score.count(method, outcome.map(|reply| reply.status.as_u16())) || close {
                break;
            }
        }
    }
}

/// A stream beyond the last one of a GOAWAY was not processed, and may be sent elsewhere (RFC 9113 section 6.8).
fn beyond_goaway(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| {
        cause.is_go_away() && cause.is_remote() && cause.reason() == Some(h2::Reason::NO_ERROR)
    })
}

async fn http2_caller(address: SocketAddr, score: Arc<Score>) {
    while let Ok(stream) = TcpStream::connect(address).await {
        let io = hyper_util::rt::TokioIo::new(stream);
        let executor = hyper_util::rt::TokioExecutor::new();
        let (sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
        tokio::spawn(connection);
        let mut client = Client2 { sender };
        while client.sender.ready().await.is_ok() {
            let message = http::Request::get("http://app/load").body(support::empty()).unwrap();
            match client.sender.try_send_request(message).await {
                Ok(response) => {
                    let reply = support::Reply::read(response).await;
                    score.count("HTTP/2", reply.map(|reply| reply.status.as_u16()));
                }
                Err(mut failed) => {
                    // What comes back was not taken: GOAWAY was there before it.
                    let unsent = failed.take_message().is_some();
                    let error = failed.into_error();
                    if !unsent && !beyond_goaway(&error) {
                        score.count("HTTP/2", Err(error));
                    }
                    break;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_loses_no_request_and_ends_with_zero() {
    let up = Upstream::start().await;
    let mut process = Process::start(up.address, "{propagation: 500ms, gracePeriod: 15s}").await;
    let score = Arc::new(Score::default());
    let mut callers = Vec::new();
    for _ in 0..8 {
        callers.push(tokio::spawn(http1_caller(process.inbound, score.clone())));
        callers.push(tokio::spawn(http2_caller(process.inbound, score.clone())));
    }
    support::eventually("load", || score.answered.load(SeqCst) > 500).await;
    process.signal("TERM").await;
    assert_eq!(process.exit_code().await, Some(0));
    for caller in callers {
        in_time("a caller to go elsewhere", caller).await.unwrap();
    }
    let lost = score.lost.lock().unwrap();
    let answered = score.answered.load(SeqCst);
    assert!(lost.is_empty(), "{} lost of {answered}: {:?}", lost.len(), &lost[..lost.len().min(5)]);
}

#[tokio::test]
async fn readiness_fails_at_once_while_requests_are_still_served() {
    let up = Upstream::start().await;
    let mut process = Process::start(up.address, "{propagation: 1500ms, gracePeriod: 10s}").await;
    let mut kept = Client1::connect(process.inbound).await;
    let slow = request("GET", "app", "/slow", &[("x-delay-ms", "2500")], support::empty());
    let slow = tokio::spawn(async move { kept.try_exchange(slow).await });
    support::eventually("the slow request", || up.requests() == 1).await;
    let began = Instant::now();
    process.signal("TERM").await;
    process.becomes_unready().await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let fresh = fetch(process.inbound, get("app", "/fresh")).await;
    assert_eq!((fresh.status.as_u16(), fresh.header("connection")), (200, "close"));
    let reply = slow.await.unwrap().expect("what was under way has its answer");
    assert_eq!((reply.status.as_u16(), reply.header("connection")), (200, "close"));
    assert_eq!(process.exit_code().await, Some(0));
    assert!(began.elapsed() < Duration::from_secs(8), "nothing is left to wait for: {:?}", began.elapsed());
}

type Socket = tokio_tungstenite::WebSocketStream<TcpStream>;

async fn websocket(address: SocketAddr) -> Socket {
    let stream = support::client::connect(address).await;
    in_time("the handshake", tokio_tungstenite::client_async("ws://app/chat", stream)).await.unwrap().0
}

async fn echoes(socket: &mut Socket) -> bool {
    let exchange = async {
        socket.send(Message::text("still there?")).await.ok()?;
        socket.next().await?.ok().filter(Message::is_text)
    };
    in_time("an echo or the end", exchange).await.is_some()
}

#[tokio::test]
async fn a_websocket_goes_on_until_the_grace_period_ends() {
    let up = Upstream::start().await;
    let mut process = Process::start(up.address, "{propagation: 100ms, gracePeriod: 2s}").await;
    let mut socket = websocket(process.inbound).await;
    assert!(echoes(&mut socket).await);
    let began = Instant::now();
    process.signal("TERM").await;
    process.becomes_unready().await;
    while began.elapsed() < Duration::from_millis(1500) {
        assert!(echoes(&mut socket).await, "ended after {:?}", began.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(process.exit_code().await, Some(0));
    let took = began.elapsed();
    assert!((2000..4000).contains(&took.as_millis()), "{took:?}");
    assert!(!echoes(&mut socket).await);
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    for second in ["TERM", "INT"] {
        let up = Upstream::start().await;
        let mut process = Process::start(up.address, "{propagation: 30s, gracePeriod: 60s}").await;
        let mut socket = websocket(process.inbound).await;
        assert!(echoes(&mut socket).await);
        process.signal("TERM").await;
        process.becomes_unready().await;
        let began = Instant::now();
        process.signal(second).await;
        assert_eq!(process.exit_code().await, Some(0));
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn the_applications_new_connections_are_told_to_end_as_well() {
    let up = Upstream::start().await;
    let mut process = Process::start(up.address, "{propagation: 0s, gracePeriod: 10s}").await;
    let mut kept = Client1::connect(process.outbound).await;
    let slow = request("GET", "other", "/slow", &[("x-delay-ms", "2000")], support::empty());
    let slow = tokio::spawn(async move { kept.try_exchange(slow).await });
    support::eventually("the slow request", || up.requests() == 1).await;
    process.signal("TERM").await;
    process.becomes_unready().await;
    // Readiness fails first; a moment later the outbound side has been told.
    let told = async {
        loop {
            let reply = Client1::connect(process.outbound).await.exchange(get("other", "/new")).await;
            assert_eq!(reply.status, 200);
            if reply.header("connection") == "close" {
                break;
            }
        }
    };
    in_time("a new connection to be told to end", told).await;
    assert_eq!(slow.await.unwrap().expect("what was under way has its answer").status, 200);
    assert_eq!(process.exit_code().await, Some(0), "nothing is left that would be cut off");
}

#[tokio::test]
async fn a_second_process_does_not_share_the_ports_of_the_first() {
    let up = Upstream::start().await;
    let process = Process::start(up.address, "{propagation: 0s, gracePeriod: 1s}").await;
    let spec = format!("inbound: {{addresses: [\"{}\"]}}", process.inbound);
    let second = support::Proxy::with(&spec, "").await;
    assert!(second.complaints().contains("another process listens there"), "{}", second.complaints());
    for _ in 0..8 {
        assert_eq!(fetch(process.inbound, get("app", "/")).await.status, 200);
    }
    assert_eq!(up.requests(), 8, "all of them came to the first");
}

#[tokio::test]
async fn an_access_log_that_nobody_reads_holds_up_neither_reloads_nor_the_end() {
    let up = Upstream::start().await;
    let mut process = Process::start(up.address, "{propagation: 0s, gracePeriod: 5s}").await;
    let folder = process.folder.path();
    let fifo = folder.join("pipe");
    assert!(Command::new("mkfifo").arg(&fifo).status().await.unwrap().success());
    let spec = std::fs::read_to_string(folder.join("proxy.yaml")).unwrap();
    let logging = format!("{spec}  meshConfig: {{accessLogFile: \"{}\"}}\n", fifo.display());
    std::fs::write(folder.join("proxy.yaml"), logging).unwrap();
    let objects = support::objects::service("late", "HTTP", &[up.address]);
    support::eventually("the complaint", || {
        std::fs::read_to_string(folder.join("log.txt")).unwrap().contains("start its reader first")
    })
    .await;
    std::fs::write(folder.join("late.yaml"), objects).unwrap();
    let served = async {
        while fetch(process.outbound, get("late", "/")).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    in_time("the next reload", served).await;
    process.signal("TERM").await;
    assert_eq!(process.exit_code().await, Some(0));
}
