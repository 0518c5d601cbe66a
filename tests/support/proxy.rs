//! A proxy in the test's own process, over a folder of its own.

use super::certificates;
use sidegate::app::{App, Applied, Options, Status};
use sidegate::identity::issue::Authority;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// The file with the `Proxy` itself.
const OWN: &str = "proxy.yaml";

/// The file with all other objects.
pub const OBJECTS: &str = "objects.yaml";

/// A running proxy. Ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    folder: TempDir,
    pub status: Arc<Status>,
    stop: mpsc::Sender<()>,
    running: JoinHandle<()>,
}

impl Proxy {
    /// A sidecar with one worker, every address at a port of the kernel's choice, over these objects.
    pub async fn start(objects: &str) -> Self {
        Self::with("", objects).await
    }

    /// The same with further fields of the `Proxy`'s spec, which replace those of the same name.
    pub async fn with(spec: &str, objects: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(OWN), own(spec)).unwrap();
        std::fs::write(folder.path().join(OBJECTS), objects).unwrap();
        Self::over(folder).await
    }

    /// The same as a workload of `shop` with a certificate.
    pub async fn secured(authority: &Authority, account: &str, spec: &str, objects: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        certificates::write(folder.path(), authority, account);
        let workload = format!("workload: {{serviceAccount: {account}, labels: {{app: {account}}}}}");
        let spec = format!("{}\n{workload}\n{spec}", certificates::IDENTITY);
        std::fs::write(folder.path().join(OWN), own(&spec)).unwrap();
        std::fs::write(folder.path().join(OBJECTS), objects).unwrap();
        Self::over(folder).await
    }

    /// A proxy over a folder that is there already.
    pub async fn over(folder: TempDir) -> Self {
        let config = vec![folder.path().to_owned()];
        let app = App::start(Options { config, proxy: Some("client".to_owned()), ..Options::default() });
        let app = super::in_time("starting the proxy", app).await;
        let app = app.unwrap_or_else(|error| panic!("the proxy does not start: {error}"));
        let status = app.status();
        let (stop, stopped) = mpsc::channel(2);
        let running = tokio::spawn(app.run(stopped));
        Self { folder, status, stop, running }
    }

    /// Where the configuration is.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the application's own calls go.
    pub fn outbound(&self) -> SocketAddr {
        self.listener("outbound")
    }

    /// Where calls to the application arrive.
    pub fn inbound(&self) -> SocketAddr {
        self.listener("inbound")
    }

    /// Where a listener listens.
    pub fn listener(&self, name: &str) -> SocketAddr {
        let bound = self.status.listeners();
        let address = self.status.listener(name);
        address
            .unwrap_or_else(|| panic!("no listener {name} among {:?}: {}", bound.keys(), self.complaints()))
    }

    /// Where the `admin`, `health` or `metrics` server listens.
    pub fn page(&self, name: &str) -> SocketAddr {
        self.status.page(name).unwrap()
    }

    /// The configuration in force.
    pub fn applied(&self) -> Arc<Applied> {
        self.status.applied().unwrap()
    }

    /// All that the proxy says of its configuration.
    pub fn complaints(&self) -> String {
        let applied = self.applied();
        let findings = applied.findings.iter().map(ToString::to_string);
        findings.chain(applied.problems.iter().cloned()).collect::<Vec<_>>().join("\n")
    }

    /// Fails the test if the proxy finds anything to complain about.
    pub fn assert_no_complaints(&self) {
        assert_eq!(self.complaints(), "");
    }

    /// Writes a file as editors do, by renaming, and waits until the proxy has taken it.
    pub async fn edit(&self, file: &str, text: &str) -> Arc<Applied> {
        let before = self.applied().generation;
        self.put(file, text);
        self.reached(before + 1).await
    }

    /// Removes a file and waits until the proxy has noticed.
    pub async fn remove(&self, file: &str) -> Arc<Applied> {
        let before = self.applied().generation;
        std::fs::remove_file(self.folder().join(file)).unwrap();
        self.reached(before + 1).await
    }

    /// Writes a file and waits for nothing.
    pub fn put(&self, file: &str, text: &str) {
        let temporary = self.folder().join(format!(".{file}.new"));
        std::fs::write(&temporary, text).unwrap();
        std::fs::rename(&temporary, self.folder().join(file)).unwrap();
    }

    /// Waits until a configuration of this generation is in force.
    pub async fn reached(&self, generation: u64) -> Arc<Applied> {
        super::in_time("taking a new configuration", self.status.reached(generation)).await;
        self.applied()
    }

    /// Ends as after SIGTERM and waits for it.
    pub async fn stop(self) {
        self.stop.send(()).await.unwrap();
        super::in_time("draining", self.running).await.unwrap();
    }
}

/// The Proxy object: defaults of the tests, and what the test asks for.
pub fn own(spec: &str) -> String {
    let defaults = [
        ("workers", "workers: 1"),
        ("outbound", "outbound: {addresses: [\"127.0.0.1:0\"]}"),
        ("inbound", "inbound: {addresses: [\"127.0.0.1:0\"]}"),
        ("admin", "admin: {address: \"127.0.0.1:0\"}"),
        ("health", "health: {address: \"127.0.0.1:0\"}"),
        ("metrics", "metrics: {address: \"127.0.0.1:0\"}"),
        ("drain", "drain: {propagation: 0s, gracePeriod: 5s}"),
    ];
    let mut text =
        "apiVersion: sidegate.io/v1alpha1\nkind: Proxy\nmetadata: {name: client, namespace: shop}\nspec:\n"
            .to_owned();
    for (field, line) in defaults {
        if !spec.lines().any(|written| written.starts_with(&format!("{field}:"))) {
            text.push_str(&format!("  {line}\n"));
        }
    }
    spec.lines().for_each(|line| text.push_str(&format!("  {line}\n")));
    text
}
