use super::*;
use crate::filters::RouteSettings;
use crate::mesh::*;
use crate::telemetry::metrics::RegistryLimits;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(64) {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                loop {
                    let read = stream.read(&mut buffer).unwrap_or(0);
                    if read == 0 {
                        break;
                    }
                    let head = String::from_utf8_lossy(&buffer[..read]).to_string();
                    let body = format!("you sent: {}", head.lines().next().unwrap_or_default());
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            });
        }
    });
    address
}

fn mesh(upstream: SocketAddr) -> Mesh {
    let mut mesh = Mesh::default();
    let cluster = Cluster {
        name: "c".into(),
        service: ServiceName::default(),
        protocol: UpstreamProtocol::Http1,
        discovery: Discovery::Endpoints,
        balance: Balance::LeastRequest,
        pool: Pool::default(),
        source_address: None,
        proxy_protocol: None,
        origin: Origin::BUILT_IN,
    };
    let endpoint = Endpoint {
        address: EndpointAddress::Socket(upstream),
        weight: 1,
        health: Health::Healthy,
        priority: 0,
        locality: Arc::default(),
        workload: Arc::default(),
        origin: Origin::BUILT_IN,
    };
    mesh.clusters.insert("c".into(), Arc::new(cluster));
    mesh.endpoints.insert("c".into(), Arc::new(EndpointSet { endpoints: vec![endpoint] }));
    let to = WeightedCluster {
        cluster: "c".into(),
        weight: 1,
        filters: RouteSettings::default(),
        origin: Origin::BUILT_IN,
    };
    let action = RouteAction { action: Action::Forward(vec![to.clone()]), filters: RouteSettings::default() };
    let route = Route {
        name: "r".into(),
        matches: RouteMatch::default(),
        action: Arc::new(action),
        origin: Origin::BUILT_IN,
    };
    let host = VirtualHost {
        name: "h".into(),
        domains: ["shop"].into_iter().collect(),
        routes: vec![route],
        origin: Origin::BUILT_IN,
    };
    let table = RouteTable { name: "t".into(), hosts: vec![Arc::new(host)], ..RouteTable::default() };
    mesh.routes.insert("t".into(), Arc::new(table));
    let tcp = TcpChain::new(TcpTarget::Clusters(vec![to]), Duration::ZERO, Origin::BUILT_IN);
    let chain = FilterChain {
        name: "chain".into(),
        matches: ChainMatch::default(),
        protocol: ChainProtocol::Detect { http: Arc::new(HttpChain::new("t".into())), tcp: Arc::new(tcp) },
        origin: Origin::BUILT_IN,
    };
    let listener = Listener {
        name: "l".into(),
        addresses: vec![Address::Socket(([127, 0, 0, 1], 0).into())],
        bound: true,
        direction: Direction::Outbound,
        interception: None,
        hand_over: false,
        proxy_protocol: None,
        detection_timeout: Duration::ZERO,
        handshake_timeout: Duration::from_secs(10),
        chains: vec![],
        default_chain: Some(Arc::new(chain)),
        origin: Origin::BUILT_IN,
    };
    mesh.listeners.insert("l".into(), Arc::new(listener));
    mesh
}

fn ask(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut buffer = [0; 4096];
    let read = stream.read(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..read]).to_string()
}

#[tokio::test]
async fn a_mesh_is_served_and_an_unknown_host_is_explained() {
    let registry = Registry::new(RegistryLimits::default());
    let mut workers = Workers::start(2, &registry).unwrap();
    let problems = workers.apply(mesh(echo_server())).await;
    assert!(problems.is_empty(), "{problems:?}");
    let Some(Address::Socket(address)) = workers.addresses()["l"].first().cloned() else {
        panic!("no address")
    };
    let asking = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let first = ask(&mut stream, "GET /a/../b HTTP/1.1\r\nhost: SHOP\r\n\r\n");
        let second = ask(&mut stream, "GET /x HTTP/1.1\r\nhost: nobody\r\n\r\n");
        let third = ask(&mut stream, "GET /y HTTP/1.1\r\nhost: shop\r\n\r\n");
        (first, second, third)
    });
    let (first, second, third) = asking.await.unwrap();
    assert!(first.starts_with("HTTP/1.1 200 OK") && first.ends_with("you sent: GET /b HTTP/1.1"), "{first}");
    assert!(second.starts_with("HTTP/1.1 404") && second.contains("nobody"), "{second}");
    assert!(third.ends_with("you sent: GET /y HTTP/1.1"), "{third}");
    workers.stop().await;
}
