use super::*;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

const PROXY: &str = "apiVersion: sidegate.io/v1alpha1
kind: Proxy
metadata: {name: me, namespace: shop}
spec:
  workers: 1
  interception: EXPLICIT
  outbound: {addresses: ['127.0.0.1:0']}
  inbound: {addresses: ['127.0.0.1:0'], application: '127.0.0.1:9'}
  admin: {address: '127.0.0.1:0'}
  health: {address: '127.0.0.1:0'}
  metrics: {address: '127.0.0.1:0'}
  drain: {propagation: 0s, gracePeriod: 1s}
";

/// The status line of an answer of the admin server.
fn ask(admin: SocketAddr, method: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(admin).unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

async fn soon(what: &str, done: impl Fn() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within five seconds: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_listeners_ends_inbound_traffic_and_not_the_process() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("proxy.yaml"), PROXY).unwrap();
    let options = Options { config: vec![folder.path().to_owned()], ..Options::default() };
    let app = App::start(options).await.unwrap();
    let status = app.status();
    let (stop, stopped) = mpsc::channel(2);
    let running = tokio::spawn(app.run(stopped));
    let admin = status.page("admin").unwrap();
    let open = |direction: &str| status.listeners().keys().any(|name| name.starts_with(direction));
    assert!(open("inbound") && open("outbound"), "{:?}", status.listeners());

    assert!(ask(admin, "GET", "/drain_listeners").contains("405"));
    assert!(ask(admin, "POST", "/drain_listeners?inboundonly").contains("200"));
    soon("inbound listeners are closed", || !open("inbound")).await;
    assert!(open("outbound") && status.ready().is_err() && !running.is_finished());

    // A reload does not open them again.
    fs::write(folder.path().join("proxy.yaml"), format!("# changed\n{PROXY}")).unwrap();
    status.reached(2).await;
    assert!(!open("inbound") && open("outbound"), "{:?}", status.listeners());

    assert!(ask(admin, "POST", "/quitquitquit").contains("202"));
    soon("the process ends", || running.is_finished()).await;
    drop(stop);
}
