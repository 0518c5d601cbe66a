//! The control side of the data path: worker threads, listening sockets, the snapshot in force.

use crate::mesh::{Address, Direction, Interception, LogFormat, Mesh, Name, Origin};
use crate::proxy::internal::Calls;
use crate::proxy::socket::{self, ListenOptions};
use crate::proxy::{Command, LogTarget, Shared, Socket, run};
use crate::snapshot::{Problem, Snapshot};
use crate::telemetry::access_log::{Format, FormatError};
use crate::telemetry::log_sink::{LogSink, Lost};
use crate::telemetry::metrics::{self, Registry};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;

/// Commands on their way to a worker; it takes each within one turn of its loop.
const QUEUED_COMMANDS: usize = 1024;

/// The workers and what they serve.
#[derive(Debug)]
pub(crate) struct Workers {
    shared: Arc<Shared>,
    threads: Vec<Thread>,
    bound: BTreeMap<Name, Bound>,
    logs: HashMap<String, LogSink>,
    lost: Lost,
    /// Directions that take no new connections any more: a reload does not open their listeners again.
    closed: Vec<Direction>,
}

#[derive(Debug)]
struct Thread {
    commands: mpsc::Sender<Command>,
    handle: JoinHandle<()>,
}

/// The sockets of one listener.
#[derive(Debug)]
struct Bound {
    /// As the mesh asks for.
    wanted: Vec<Address>,
    interception: Option<Interception>,
    /// As the kernel gave them: port 0 is a real one here.
    addresses: Vec<Address>,
}

impl Workers {
    /// Starts `count` workers on an empty snapshot; [`apply`](Self::apply) gives them something to serve.
    ///
    /// # Errors
    ///
    /// When a thread cannot be started.
    pub(crate) fn start(count: usize, registry: &Arc<Registry>) -> io::Result<Self> {
        let (snapshot, _) = Snapshot::compile(Mesh::default(), None);
        let shared = Shared::new(snapshot, registry.clone());
        let mut threads = Vec::with_capacity(count);
        for number in 0..count.max(1) {
            let (commands, received) = mpsc::channel(QUEUED_COMMANDS);
            let shared = shared.clone();
            let handle = std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                if let Err(error) = run(shared, received) {
                    tracing::error!(%error, "a worker could not start");
                }
            })?;
            threads.push(Thread { commands, handle });
        }
        let lost = Lost::default();
        metrics::show_lost_access_log_lines(registry, lost.clone());
        Ok(Self { shared, threads, bound: BTreeMap::new(), logs: HashMap::new(), lost, closed: Vec::new() })
    }

    /// What the workers share.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// How the control side sends requests of its own over the clusters of the mesh.
    pub(crate) fn calls(&self) -> Calls {
        Calls::new(self.threads.iter().map(|thread| &thread.commands))
    }

    /// Where each bound listener really listens.
    pub(crate) fn addresses(&self) -> BTreeMap<Name, Vec<Address>> {
        self.bound.iter().map(|(name, bound)| (name.clone(), bound.addresses.clone())).collect()
    }

    /// Compiles a mesh and puts it in force. Sockets of new listeners are bound before the swap; a listener that cannot be bound is listed and left
    /// out, the rest goes on. Listeners that are gone stop accepting after it.
    pub(crate) async fn apply(&mut self, mesh: Mesh) -> Vec<Problem> {
        let previous = self.shared.snapshot();
        let (snapshot, mut problems) = Snapshot::compile(mesh, Some(&previous));
        let wanted: BTreeMap<&Name, _> = snapshot
            .listeners()
            .filter(|listener| listener.mesh.bound && !self.closed.contains(&listener.mesh.direction))
            .map(|listener| (&listener.mesh.name, listener))
            .collect();
        let mut opened = Vec::new();
        let mut gone: Vec<Name> =
            self.bound.keys().filter(|name| !wanted.contains_key(name)).cloned().collect();
        for (name, listener) in &wanted {
            if let Some(bound) = self.bound.get(*name) {
                if bound.wanted == listener.mesh.addresses && bound.interception == listener.mesh.interception
                {
                    continue;
                }
                gone.push((*name).clone());
            }
            match self.bind(&listener.mesh.addresses, listener.mesh.interception) {
                Ok((bound, sockets)) => opened.push(((*name).clone(), bound, sockets)),
                Err(error) => problems.push(Problem {
                    origin: listener.mesh.origin.clone(),
                    message: format!(
                        "listener {name} cannot be opened: {error}; everything else is in force"
                    ),
                }),
            }
        }
        self.set_logs(&snapshot.mesh, &mut problems);
        // A listener whose address changed closes its old sockets only now that the new ones are open.
        for name in &gone {
            self.bound.remove(name);
        }
        let mut to_open = Vec::new();
        for (name, bound, sockets) in opened {
            self.bound.insert(name.clone(), bound);
            to_open.push((name, sockets));
        }
        let own = self.bound.values().flat_map(|bound| &bound.addresses);
        let own: Vec<SocketAddr> = own
            .filter_map(|address| match address {
                Address::Socket(address) => Some(*address),
                Address::Unix(_) => None,
            })
            .collect();
        self.shared.set_own_addresses(own);
        self.shared.publish(snapshot);
        for name in gone {
            self.tell(|| Command::Close(name.clone())).await;
        }
        for (name, sockets) in to_open {
            for (thread, socket) in self.threads.iter().cycle().zip(sockets) {
                // A worker that is gone takes no traffic, which its panic has already said.
                let _ = thread.commands.send(Command::Listen(name.clone(), socket)).await;
            }
        }
        self.reconcile().await;
        problems
    }

    /// Makes the workers look at once at what is in force: the snapshot, and whom we believe.
    pub(crate) async fn reconcile(&self) {
        self.tell(|| Command::Reconcile).await;
    }

    /// Asks the connections of one direction to go elsewhere, spread over `over`.
    pub(crate) async fn drain(&self, direction: Direction, over: Duration) {
        self.tell(|| Command::Drain(direction, over)).await;
    }

    /// Stops accepting on the bound listeners of one direction, for good.
    pub(crate) async fn close_listeners(&mut self, direction: Direction) {
        self.closed.push(direction);
        let snapshot = self.shared.snapshot();
        let closed: Vec<Name> = snapshot
            .listeners()
            .filter(|listener| {
                listener.mesh.direction == direction && self.bound.contains_key(&listener.mesh.name)
            })
            .map(|listener| listener.mesh.name.clone())
            .collect();
        for name in closed {
            self.bound.remove(&name);
            self.tell(|| Command::Close(name.clone())).await;
        }
    }

    /// Ends every connection, writes what is left of the logs, and waits for the threads.
    pub(crate) async fn stop(self) {
        self.tell(|| Command::Stop).await;
        let Self { threads, logs, .. } = self;
        let ending = tokio::task::spawn_blocking(move || {
            for Thread { commands, handle } in threads {
                drop(commands);
                // A worker that panicked has said so.
                let _ = handle.join();
            }
            for sink in logs.values() {
                let _ = sink.flush(Duration::from_secs(2));
            }
        });
        let _ = ending.await;
    }

    async fn tell(&self, command: impl Fn() -> Command) {
        for thread in &self.threads {
            let _ = thread.commands.send(command()).await;
        }
    }

    /// True when one of our own sockets is bound to this address.
    fn holds(&self, address: SocketAddr) -> bool {
        let mut addresses = self.bound.values().flat_map(|bound| &bound.addresses);
        addresses.any(|own| *own == Address::Socket(address))
    }

    /// One socket for each worker on each address.
    fn bind(
        &self,
        wanted: &[Address],
        interception: Option<Interception>,
    ) -> io::Result<(Bound, Vec<Socket>)> {
        let options = ListenOptions {
            transparent: interception == Some(Interception::Tproxy),
            ..ListenOptions::default()
        };
        let mut addresses = Vec::new();
        let mut sockets = Vec::new();
        for address in wanted {
            match address {
                Address::Socket(address) => {
                    let failed =
                        |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
                    let mut actual = *address;
                    if !self.holds(*address) {
                        socket::ensure_free(*address).map_err(failed)?;
                    }
                    for _ in &self.threads {
                        let socket = socket::listen(actual, &options).map_err(failed)?;
                        actual = socket.local_addr().map_err(failed)?;
                        sockets.push(Socket::Tcp(socket));
                    }
                    addresses.push(Address::Socket(actual));
                }
                Address::Unix(path) => {
                    let failed = |error: io::Error| {
                        io::Error::new(error.kind(), format!("{}: {error}", path.display()))
                    };
                    let socket = socket::listen_unix(path, options.backlog).map_err(failed)?;
                    for _ in 1..self.threads.len() {
                        sockets.push(Socket::Unix(socket.try_clone().map_err(failed)?));
                    }
                    sockets.push(Socket::Unix(socket));
                    addresses.push(address.clone());
                }
            }
        }
        Ok((Bound { wanted: wanted.to_vec(), interception, addresses }, sockets))
    }

    fn set_logs(&mut self, mesh: &Mesh, problems: &mut Vec<Problem>) {
        let mut targets = Vec::new();
        let mut in_use = HashMap::new();
        for log in &mesh.telemetry.access_logs {
            let problem = |message: String| Problem { origin: Origin::BUILT_IN, message };
            let format = match compile_format(&log.format) {
                Ok(format) => Arc::new(format),
                Err(error) => {
                    problems.push(problem(format!("access log {}: {error}; it is not written", log.path)));
                    continue;
                }
            };
            let sink = match self.logs.get(&log.path) {
                Some(sink) => sink.clone(),
                None => match LogSink::counted(Path::new(&log.path), &self.lost) {
                    Ok(sink) => sink,
                    Err(error) => {
                        problems.push(problem(format!("access log {} cannot be opened: {error}", log.path)));
                        continue;
                    }
                },
            };
            in_use.insert(log.path.clone(), sink.clone());
            targets.push(LogTarget { sink, format });
        }
        self.logs = in_use;
        self.shared.set_logs(targets);
    }
}

fn compile_format(format: &LogFormat) -> Result<Format, FormatError> {
    match format {
        LogFormat::Text => Format::istio_text(),
        LogFormat::Json => Format::istio_json(),
        LogFormat::CustomText(text) => Format::text(text),
        LogFormat::CustomJson(fields) => {
            let fields = fields.iter().map(|(key, value)| (key.clone(), value.as_str().into()));
            Format::json(&serde_json::Value::Object(fields.collect()))
        }
    }
}

#[cfg(test)]
mod tests;
