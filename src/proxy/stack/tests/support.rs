//! A worker with the filters of the contract, between a client and an upstream on the loopback.

use super::super::*;
use crate::filters::PortSettings;
use crate::filters::contract::{Ledger, Pages, Permit, Waiting};
use crate::mesh::{
    ChainMatch, ChainProtocol, EndpointAddress, EndpointSet, HttpChain, Interception, Mesh, Origin,
    PathMatch, RouteTable, TcpChain, TcpTarget, TransportProtocol,
};
use crate::proxy::worker::run_with;
use crate::proxy::{Command, Shared, Socket};
use crate::snapshot::{Snapshot, samples};
use crate::telemetry::metrics::{Registry, RegistryLimits};
use filter_api::{Error, Outcome, Response};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tower::Layer;

/// Longest wait of any test.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running worker. Its thread ends with its commands, when this is dropped.
pub(super) struct Running {
    pub(super) address: SocketAddr,
    pub(super) waiting: Arc<Ledger>,
    pub(super) permit: Arc<Ledger>,
    _commands: mpsc::Sender<Command>,
}

impl Running {
    /// HTTP for `up` goes to `web`, for `dead` nowhere; bytes go to `bytes`. `name` is the test's own.
    pub(super) fn start(name: &str, web: SocketAddr, bytes: SocketAddr) -> Self {
        Self::over(name, mesh(name, web, bytes))
    }

    pub(super) fn over(name: &str, mesh: Mesh) -> Self {
        let (snapshot, problems) = Snapshot::compile(mesh, None);
        assert!(problems.is_empty(), "{problems:?}");
        let shared = Shared::new(snapshot, Registry::new(RegistryLimits::default()));
        let (commands, received) = mpsc::channel(8);
        std::thread::spawn(move || {
            run_with(shared, received, |worker| {
                let before = ServiceBuilder::new()
                    .layer(FilterLayer::<Waiting>::new(filters::port::waiting))
                    .layer(FilterLayer::<Permit>::new(filters::port::permit));
                stack!(worker, before, TwiceLayer)
            })
        });
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        commands.try_send(Command::Listen("l".into(), Socket::Tcp(socket))).unwrap_or_else(|_| panic!());
        let (waiting, permit) = (Ledger::named(&format!("{name} waiting")), Ledger::named(name));
        Self { address, waiting, permit, _commands: commands }
    }

    /// How this many connections ended that no request opened.
    pub(super) async fn settled_connections(&self, connections: u32) -> Vec<(Outcome, u64)> {
        self.settled(0, connections).await.connection_ends
    }

    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// The permits once as many exchanges have ended as began, and as many began as are asked for. None may end twice.
    pub(super) async fn settled(&self, requests: u32, connections: u32) -> Pages {
        let began = Instant::now();
        loop {
            let pages = self.permit.pages();
            let ends = (pages.request_ends.len() as u32, pages.connection_ends.len() as u32);
            assert!(
                ends.0 <= pages.requests && ends.1 <= pages.connections,
                "an end was told twice: {pages:?}"
            );
            if (pages.requests, pages.connections) == (requests, connections)
                && ends == (requests, connections)
            {
                // An end too many would come right behind.
                tokio::time::sleep(Duration::from_millis(50)).await;
                assert_eq!(self.permit.pages(), pages);
                assert_eq!(self.waiting.pages().request_ends.len() as u32, requests);
                return pages;
            }
            assert!(began.elapsed() < PATIENCE, "{pages:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// An address where nobody listens.
pub(super) fn nobody() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

pub(super) fn mesh(name: &str, web: SocketAddr, bytes: SocketAddr) -> Mesh {
    let mut mesh = Mesh::default();
    for (cluster, address) in [("web", web), ("bytes", bytes), ("dead", nobody())] {
        let endpoint =
            crate::mesh::Endpoint { address: EndpointAddress::Socket(address), ..samples::endpoint(1, 1) };
        mesh.clusters.insert(cluster.into(), Arc::new(samples::cluster(cluster)));
        mesh.endpoints.insert(cluster.into(), Arc::new(EndpointSet { endpoints: vec![endpoint] }));
    }
    let host = |domain: &str, cluster: &str| {
        let all = PathMatch::Prefix("/".into());
        samples::host(domain, &[domain], vec![samples::rule("r", all, vec![samples::share(cluster, 1)])])
    };
    let hosts = vec![host("up", "web"), host("dead", "dead")];
    mesh.routes.insert("t".into(), Arc::new(RouteTable { name: "t".into(), hosts, ..RouteTable::default() }));
    let filters = PortSettings {
        waiting: vec![format!("{name} waiting")],
        permit: vec![name.to_owned()],
        ..PortSettings::default()
    };
    let target = TcpTarget::Clusters(vec![samples::share("bytes", 1)]);
    let tcp =
        TcpChain { filters: filters.clone(), ..TcpChain::new(target, Duration::ZERO, Origin::BUILT_IN) };
    let http = HttpChain { filters, ..HttpChain::new("t".into()) };
    let protocol = ChainProtocol::Detect { http: Arc::new(http), tcp: Arc::new(tcp) };
    let mut listener = samples::listener("l", Vec::new());
    listener.default_chain = Some(Arc::new(samples::chain("c", ChainMatch::default(), protocol)));
    mesh.listeners.insert("l".into(), Arc::new(listener));
    mesh
}

/// The same, captured as by TPROXY, with this time for the first bytes.
pub(super) fn captured(mut mesh: Mesh, handshake_timeout: Duration) -> Mesh {
    for listener in mesh.listeners.values_mut() {
        let listener = Arc::make_mut(listener);
        listener.interception = Some(Interception::Tproxy);
        listener.handshake_timeout = handshake_timeout;
    }
    mesh
}

/// The same carried as bytes alone under this policy, by a listener that tells connections apart by their first bytes.
pub(super) fn sniffed_tcp(mut mesh: Mesh, policy: filter_authorization::Policy) -> Mesh {
    let policies = Arc::new(vec![policy]);
    for listener in mesh.listeners.values_mut() {
        let listener = Arc::make_mut(listener);
        let detecting = listener.default_chain.take().unwrap();
        let ChainProtocol::Detect { tcp, .. } = &detecting.protocol else { panic!("{detecting:?}") };
        let mut tcp = TcpChain::clone(tcp);
        tcp.filters.authorization =
            vec![filter_authorization::Settings { policies: policies.clone(), ..Default::default() }];
        let matches = ChainMatch { transport: Some(TransportProtocol::RawBuffer), ..ChainMatch::default() };
        let chain = samples::chain("bytes", matches, ChainProtocol::Tcp(Arc::new(tcp)));
        listener.chains = vec![Arc::new(chain)];
    }
    mesh
}

/// Sends a failed request a second time, with its body from the beginning, as a retry does.
struct TwiceLayer;

#[derive(Clone)]
struct Twice<S>(S);

impl<S> Layer<S> for TwiceLayer {
    type Service = Twice<S>;

    fn layer(&self, inner: S) -> Twice<S> {
        Twice(inner)
    }
}

impl<S> Service<Request> for Twice<S>
where
    S: Service<Request, Response = Response, Error = Error, Future: 'static> + Clone + 'static,
{
    type Response = Response;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Error>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if !request.head.headers.contains_key("x-retry") {
            return Box::pin(self.0.call(request));
        }
        let mut service = self.0.clone();
        Box::pin(async move {
            let Request { head, body, cx } = request;
            let (body, replay) = body.replayable(64 * 1024);
            match service.call(Request { head: head.clone(), body, cx: cx.clone() }).await {
                Err(error) => match replay.again() {
                    Some(body) => service.call(Request { head, body, cx }).await,
                    None => Err(error),
                },
                answered => answered,
            }
        })
    }
}

/// True when a body or connection ended because somebody went away, whichever way the socket told it.
pub(super) fn broke(outcome: Outcome) -> bool {
    outcome != Outcome::Complete
}
