//! The wiring: files to objects, objects to mesh, mesh to workers; start, reload, drain, stop.

mod audit;
mod choose;
mod cpus;
mod dns;
mod jwks;
mod keys;
mod pages;
mod providers;
mod reporting;
mod restart;
mod said;
mod status;
mod workers;

#[cfg(test)]
mod tests;

pub use choose::choose;
pub use status::{Applied, Status};

use crate::admin::{self, Hosts, Server};
use crate::config::decode::Strictness;
use crate::config::files::{Rejected, Store, Update, Watcher};
use crate::config::finding::{Finding, Severity};
use crate::config::resources::{Kind, ObjectKey, Resource, Spec, proxy};
use crate::config::translate::{Input, Output, translate};
use crate::identity::Places;
use crate::mesh::{Direction, Mesh, ObjectName, Origin};
use crate::snapshot::Problem;
use crate::telemetry::logging::Levels;
use crate::telemetry::metrics::{self, BUILD, ConfigMetrics, Registry, RegistryLimits, Series};
use dns::DnsDiscovery;
use jwks::JwksRefresh;
use providers::ProviderMeasure;
use restart::AtStart;
use said::Said;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use workers::Workers;

/// What to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Folders and files of YAML.
    pub config: Vec<PathBuf>,
    /// Which `Proxy`: its name, or `namespace/name`. May be absent when there is only one.
    pub proxy: Option<String>,
    /// Unknown fields reject their object.
    pub strict: bool,
    /// Handle on the levels of the proxy's own log, for `/logging`.
    pub levels: Option<Levels>,
}

/// Why a proxy does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file or folder cannot be read, or not to its end: nothing is known of what it holds.
    #[error("the configuration cannot be read:\n{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Unreadable(Vec<Finding>),
    /// No `Proxy`, or several and none named.
    #[error("{0}")]
    Proxy(String),
    /// A socket of ours (admin, health, metrics) cannot be bound, or a thread not started.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: String,
        /// What the system says.
        error: std::io::Error,
    },
}

/// A running proxy.
#[derive(Debug)]
pub struct App {
    options: Options,
    store: Store,
    watcher: Watcher,
    workers: Workers,
    status: Arc<Status>,
    key: ObjectKey,
    /// The Proxy as it was last there.
    resource: Arc<Resource>,
    at_start: AtStart,
    drain: proxy::Drain,
    metrics: ConfigMetrics,
    registry: Arc<Registry>,
    mesh: Mesh,
    /// What is in force, for the audit to tell what changes.
    in_force: Option<Arc<Update>>,
    /// The newest update that was looked at, in force or not.
    seen: u64,
    /// When to read the files again though nobody tells of a change.
    look_at: Option<tokio::time::Instant>,
    said: Said,
    dns: DnsDiscovery,
    jwks: JwksRefresh,
    _providers: ProviderMeasure,
    servers: watch::Sender<bool>,
    _build: Series,
}

impl App {
    /// Reads the configuration, starts the workers and the admin servers. Listeners that cannot be bound are reported and left out.
    ///
    /// # Errors
    ///
    /// A [`StartError`] when there is nothing to run: an unreadable file, no `Proxy`, an admin address that cannot be bound.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let strictness =
            if options.strict { Strictness { unknown_fields: true } } else { Strictness::default() };
        // Watched before the first look: a change while it is read is not missed.
        let watcher = Watcher::new(options.config.clone());
        let mut store = Store::new(options.config.clone(), strictness).beside(&watcher);
        let (store, update) = blocking(move || {
            let update = store.reload();
            (store, update)
        })
        .await;
        if !update.unreadable.is_empty() {
            let errors = update.findings.iter().filter(|finding| finding.severity == Severity::Error);
            return Err(StartError::Unreadable(errors.cloned().collect()));
        }
        let resource = choose(&update.resources, options.proxy.as_deref()).map_err(StartError::Proxy)?;
        let Spec::Proxy(settings) = &resource.spec else {
            return Err(StartError::Proxy(format!("{} is no Proxy", resource.key)));
        };
        let count = settings.workers.map_or_else(cpus::available, |workers| workers.max(1) as usize);
        let registry = Registry::new(RegistryLimits::default());
        if let Some(levels) = &options.levels {
            metrics::show_lost_own_log_lines(&registry, levels.lost().clone());
        }
        let build = registry.series(&BUILD, &["proxy", env!("CARGO_PKG_VERSION")]);
        registry.set(&build, BUILD.scalar(0), 1);
        let workers = Workers::start(count, &registry)
            .map_err(|error| StartError::System { what: "starting the workers".to_owned(), error })?;
        let status =
            Arc::new(Status::new(workers.shared().clone(), registry.clone(), options.config.clone()));
        let (servers, _) = watch::channel(false);
        let mut app = Self {
            key: resource.key.clone(),
            at_start: AtStart::new(settings, count),
            resource: resource.clone(),
            drain: settings.drain.clone(),
            metrics: ConfigMetrics::new(&registry),
            mesh: Mesh::default(),
            in_force: None,
            seen: 0,
            look_at: None,
            said: Said::default(),
            dns: DnsDiscovery::new(&registry, Handle::current()),
            jwks: JwksRefresh::new(workers.shared(), workers.calls(), Handle::current()),
            _providers: ProviderMeasure::new(workers.shared(), &Handle::current()),
            store,
            watcher,
            workers,
            status,
            registry,
            servers,
            _build: build,
            options,
        };
        app.serve_pages(settings).await?;
        app.apply(&update).await;
        Ok(app)
    }

    /// What is known of the running proxy; stays valid after [`App::run`] has taken it.
    pub fn status(&self) -> Arc<Status> {
        self.status.clone()
    }

    /// Follows the files until `stop` says something, then drains. A second word, or the end of the grace period, ends it at once.
    pub async fn run(mut self, mut stop: mpsc::Receiver<()>) {
        let mut drains = self.status.drain_requests();
        let mut trust = self.workers.shared().keyring().epoch().subscribe();
        let mut close_at = None;
        loop {
            let closing = until(close_at);
            let looking = until(self.look_at);
            tokio::select! {
                _ = stop.recv() => break,
                () = self.status.quit_requested() => break,
                () = async {
                    tokio::select! {
                        () = self.watcher.changed() => {}
                        () = looking => {}
                    }
                } => tokio::select! {
                    // What a reload waits for must not keep us from going away.
                    _ = stop.recv() => break,
                    () = self.reload() => {}
                },
                Ok(()) = trust.changed() => self.workers.reconcile().await,
                Ok(()) = drains.changed() => {
                    let graceful = drains.borrow_and_update().is_some_and(|request| request.graceful);
                    let propagation = if graceful { self.drain.propagation.into() } else { Duration::ZERO };
                    self.go_elsewhere(propagation).await;
                    close_at = Some(tokio::time::Instant::now() + propagation);
                }
                () = closing => {
                    close_at = None;
                    self.close_inbound().await;
                }
            }
        }
        tokio::select! {
            Some(()) = stop.recv() => tracing::info!("second signal: every connection ends now"),
            () = self.drain() => {}
        }
        self.servers.send_replace(true);
        let auditor = self.workers.shared().auditor().clone();
        self.workers.stop().await;
        blocking(move || auditor.end("the process ends")).await;
    }

    /// Reads the files again and puts what is valid in force.
    async fn reload(&mut self) {
        let mut store = std::mem::replace(&mut self.store, Store::new(Vec::new(), Strictness::default()));
        let (store, update) = blocking(move || {
            let update = store.reload();
            (store, update)
        })
        .await;
        self.look_at = store.again().map(|wait| tokio::time::Instant::now() + wait);
        self.store = store;
        if self.seen == update.generation {
            return;
        }
        self.apply(&update).await;
    }

    async fn apply(&mut self, update: &Arc<Update>) {
        let began = Instant::now();
        self.seen = update.generation;
        let key = self.key.clone();
        let Some(resource) = update.resources.iter().find(|resource| resource.key == key).cloned() else {
            return self.refuse(update);
        };
        self.resource = resource.clone();
        let mut all = update.findings.clone();
        let mut places = Places::default();
        let mut unusable = Vec::new();
        if let Spec::Proxy(settings) = &resource.spec {
            places = keys::places(settings, &resource);
            self.drain = settings.drain.clone();
            self.workers.shared().set_max_connections(settings.limits.max_connections);
            all.extend(self.at_start.findings(&resource, settings));
            match reporting::reporting(settings, &resource) {
                Ok((reporting, problem)) => {
                    self.workers.shared().set_reporting(reporting);
                    unusable.extend(problem);
                }
                Err(error) => unusable.push(format!("{error}; what is hidden stays as it was")),
            }
        }
        let fetching = match &resource.spec {
            Spec::Proxy(settings) => jwks::Settings::new(settings),
            _ => jwks::Settings::default(),
        };
        let previous = std::mem::take(&mut self.mesh);
        let (resources, proxy) = (update.clone(), resource);
        let output = blocking(move || {
            translate(&Input { resources: &resources.resources, proxy: &proxy }, Some(&previous))
        })
        .await;
        let Output { mesh, findings, .. } = output;
        all.extend(findings);
        self.mesh = mesh.clone();
        let telemetry = mesh.telemetry.clone();
        let mut unaudited = None;
        if telemetry.audit.is_some() {
            unaudited = self.follow_audit(&telemetry).await;
        }
        unusable.extend(self.load_keys(places, &mesh).await);
        let mut problems = self.workers.apply(mesh).await;
        problems.extend(unusable.into_iter().map(|message| Problem { origin: self.origin(), message }));
        problems.extend(unaudited);
        let snapshot = self.workers.shared().snapshot();
        self.dns.reconcile(&snapshot);
        self.jwks.reconcile(&snapshot, fetching);
        let event = audit::in_force(self.in_force.as_deref(), update, &problems);
        self.workers.shared().auditor().note(event);
        self.in_force = Some(update.clone());
        if telemetry.audit.is_none() {
            // Only now: that the audit ends is the last thing that it records.
            problems.extend(self.follow_audit(&telemetry).await);
        }
        self.said.update(&all, &problems);
        let closed: Vec<_> = update.closed().map(|closed| closed.key.clone()).collect();
        let now = SystemTime::now();
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.metrics.applied(
            &self.registry,
            update.generation,
            seconds,
            update.rejected.len() + problems.len(),
            all.iter().filter(|finding| finding.severity == Severity::Warning).count(),
        );
        self.metrics.lacking(&self.registry, closed.len(), update.unreadable.len());
        tracing::info!(
            generation = update.generation,
            objects = update.resources.len(),
            rejected = update.rejected.len(),
            problems = problems.len(),
            closed_scopes = closed.len(),
            unreadable_files = update.unreadable.len(),
            millis = began.elapsed().as_millis(),
            "the configuration is in force"
        );
        self.status.set_refused(None);
        self.status.set_applied(Applied {
            generation: update.generation,
            hash: update.hash,
            time: now,
            proxy: key,
            rejected: update.rejected.clone(),
            closed,
            unreadable: update.unreadable.clone(),
            findings: all,
            problems: problems.iter().map(ToString::to_string).collect(),
        });
        self.status.set_listeners(self.workers.addresses());
    }

    /// Loads what the mesh needs to speak TLS before it is in force.
    async fn load_keys(&self, places: Places, mesh: &Mesh) -> Vec<String> {
        let keyring = self.workers.shared().keyring().clone();
        let mesh = mesh.clone();
        blocking(move || keyring.configure(&places, &mesh)).await
    }

    /// The Proxy, as the origin of what cannot be used of it.
    fn origin(&self) -> Origin {
        let (kind, ObjectKey { namespace, name, .. }) = (Kind::Proxy.name().into(), self.key.clone());
        Origin::object(ObjectName { kind, namespace, name }, "spec", None)
    }

    /// The Proxy is not among the objects any more: nothing says what they are to it, so all stays as it was.
    fn refuse(&mut self, update: &Update) {
        let message = "is gone from the configuration: its last good version stays in force, \
                       and no change of any object takes effect until it is back";
        let finding = Finding {
            severity: Severity::Error,
            code: "proxy-gone",
            object: Some(self.key.clone()),
            field: String::new(),
            place: Some(self.resource.place("")),
            message: message.to_owned(),
            hint: "put it back where it was, or end the process".to_owned(),
        };
        self.said.add(update.findings.iter().chain([&finding]));
        let rejected = Rejected {
            key: Some(self.key.clone()),
            place: self.resource.place(""),
            message: finding.message,
            kept_old: true,
        };
        self.workers.shared().auditor().note(audit::refused(update, &rejected));
        self.status.set_refused(Some(rejected));
        self.metrics.refused(&self.registry);
    }

    /// Goes away without losing a request: fails readiness, sends connections elsewhere, waits for what is under way.
    async fn drain(&mut self) {
        let began = Instant::now();
        let propagation: Duration = self.drain.propagation.into();
        let grace: Duration = self.drain.grace_period.into();
        tracing::info!(?propagation, ?grace, "draining");
        self.go_elsewhere(propagation).await;
        let propagated = propagation.min(grace);
        tokio::time::sleep(propagated).await;
        self.close_inbound().await;
        let shared = self.workers.shared().clone();
        let left = |began: Instant| grace.saturating_sub(began.elapsed());
        wait_until(left(began), || {
            shared.connections(Direction::Inbound) + shared.connections(Direction::Gateway) == 0
        })
        .await;
        // What the application still does on its way out has its answers; now the outbound side may go.
        shared.set_outbound_draining();
        self.workers.drain(Direction::Outbound, Duration::ZERO).await;
        wait_until(left(began), || shared.connections(Direction::Outbound) == 0).await;
        let lost: u32 = [Direction::Inbound, Direction::Gateway, Direction::Outbound]
            .into_iter()
            .map(|direction| shared.connections(direction))
            .sum();
        tracing::info!(seconds = began.elapsed().as_secs_f64(), cut_off = lost, "drained");
    }

    /// Fails readiness and asks inbound connections to go elsewhere, spread over some time.
    async fn go_elsewhere(&self, over: Duration) {
        self.workers.shared().set_draining();
        for direction in [Direction::Inbound, Direction::Gateway] {
            self.workers.drain(direction, over).await;
        }
    }

    /// Takes no more inbound connections.
    async fn close_inbound(&mut self) {
        for direction in [Direction::Inbound, Direction::Gateway] {
            self.workers.close_listeners(direction).await;
            // Those that came meanwhile.
            self.workers.drain(direction, Duration::ZERO).await;
        }
        self.status.set_listeners(self.workers.addresses());
    }

    /// Opens the admin, health and metrics servers on the control runtime.
    async fn serve_pages(&mut self, settings: &proxy::Proxy) -> Result<(), StartError> {
        let levels = self.options.levels.clone();
        let pages = [
            (
                "admin",
                &settings.admin.address,
                pages::admin(&self.status, levels),
                Hosts::Loopback { also: Vec::new() },
            ),
            ("health", &settings.health.address, pages::health(&self.status), Hosts::Any),
            ("metrics", &settings.metrics.address, pages::metrics(&self.status), Hosts::Any),
        ];
        for (name, address, routes, hosts) in pages {
            let system = |error| StartError::System { what: format!("the {name} address {address}"), error };
            let listener = admin::bind(address).await.map_err(system)?;
            let bound = listener.local_addr().map_err(system)?;
            self.status.set_page(name, bound);
            let mut stop = self.servers.subscribe();
            let mut server = Server::new(routes, hosts);
            if name == "admin" {
                // The others change nothing, and may be called by anybody.
                server = server.audited(self.workers.shared().auditor().clone());
            }
            tokio::spawn(server.run(listener, async move {
                // The sender lives as long as the app.
                let _ = stop.wait_for(|stop| *stop).await;
            }));
        }
        Ok(())
    }
}

/// Waits for a time, for ever where there is none.
async fn until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn wait_until(limit: Duration, done: impl Fn() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // Running into the limit is what the limit is for; the caller counts what is left.
    let _ = tokio::time::timeout(limit, waiting).await;
}

/// Runs something that reads files or computes for long on a thread that may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
