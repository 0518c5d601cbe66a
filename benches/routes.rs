//! What a route look-up and a compile cost.
//!
//! Goals: `select` at 100,000 hosts costs at most 1.3 times what it costs at 10; 10,000 services compile within a second and 60 MB; a recompile after
//! one change costs a small part of the first one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use filter_api::NoTrace;
use sidegate::filters::RouteSettings;
use sidegate::mesh::{
    Action, Balance, ChainMatch, ChainProtocol, Cluster, Direction, Discovery, Endpoint, EndpointAddress,
    EndpointSet, FilterChain, Health, HttpChain, Listener, Mesh, Name, Origin, PathMatch, Pool, Route,
    RouteAction, RouteMatch, RouteTable, ServiceName, UpstreamProtocol, VirtualHost, WeightedCluster,
};
use sidegate::snapshot::Snapshot;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

/// As many services as asked for, each with the parts and domains that Istio gives it.
fn mesh_of(services: usize) -> Mesh {
    let mut mesh = Mesh::default();
    let hosts = (0..services).map(|number| {
        let name: Name = cluster_name(number).into();
        mesh.clusters.insert(name.clone(), Arc::new(cluster(number)));
        mesh.endpoints.insert(name, Arc::new(endpoints(number)));
        Arc::new(virtual_host(number))
    });
    let hosts = hosts.collect();
    let table = RouteTable { name: "80".into(), hosts, ignore_port: true, origin: Origin::BUILT_IN };
    mesh.routes.insert("80".into(), Arc::new(table));
    let chain = FilterChain {
        name: "http".into(),
        matches: ChainMatch::default(),
        protocol: ChainProtocol::Http(Arc::new(HttpChain::new("80".into()))),
        origin: Origin::BUILT_IN,
    };
    let listener = Listener {
        name: "virtualOutbound".into(),
        addresses: Vec::new(),
        bound: true,
        direction: Direction::Outbound,
        interception: None,
        hand_over: false,
        proxy_protocol: None,
        handshake_timeout: Duration::ZERO,
        detection_timeout: Duration::ZERO,
        chains: vec![Arc::new(chain)],
        default_chain: None,
        origin: Origin::BUILT_IN,
    };
    mesh.listeners.insert("virtualOutbound".into(), Arc::new(listener));
    mesh
}

fn host_name(number: usize) -> String {
    format!("service-{number}.namespace-{}.svc.cluster.local", number % 50)
}

fn cluster_name(number: usize) -> String {
    format!("outbound|80||{}", host_name(number))
}

fn cluster(number: usize) -> Cluster {
    Cluster {
        name: cluster_name(number).into(),
        service: ServiceName {
            host: host_name(number).into(),
            name: format!("service-{number}").into(),
            port: 80,
            ..ServiceName::default()
        },
        protocol: UpstreamProtocol::Http1,
        discovery: Discovery::Endpoints,
        balance: Balance::LeastRequest,
        pool: Pool::default(),
        source_address: None,
        proxy_protocol: None,
        origin: Origin::BUILT_IN,
    }
}

fn endpoints(number: usize) -> EndpointSet {
    let [.., high, middle, low] = number.to_be_bytes();
    let endpoint = |port| Endpoint {
        address: EndpointAddress::Socket(([10, high, middle, low], port).into()),
        weight: 1,
        health: Health::Healthy,
        priority: 0,
        locality: Arc::default(),
        workload: Arc::default(),
        origin: Origin::BUILT_IN,
    };
    EndpointSet { endpoints: vec![endpoint(8080), endpoint(8081)] }
}

fn virtual_host(number: usize) -> VirtualHost {
    let host = host_name(number);
    let short = format!("service-{number}.namespace-{}", number % 50);
    let share = WeightedCluster {
        cluster: cluster_name(number).into(),
        weight: 100,
        filters: RouteSettings::default(),
        origin: Origin::BUILT_IN,
    };
    let action = RouteAction { action: Action::Forward(vec![share]), filters: RouteSettings::default() };
    let rule = |path| Route {
        name: "default".into(),
        matches: RouteMatch { path, ..RouteMatch::default() },
        action: Arc::new(action.clone()),
        origin: Origin::BUILT_IN,
    };
    VirtualHost {
        name: format!("{host}:80").into(),
        domains: [host, format!("{short}.svc"), short].into_iter().collect(),
        routes: vec![rule(PathMatch::Prefix("/api/".to_owned())), rule(PathMatch::Any)],
        origin: Origin::BUILT_IN,
    }
}

fn compile(mesh: Mesh, previous: Option<&Arc<Snapshot>>) -> Arc<Snapshot> {
    let (snapshot, problems) = Snapshot::compile(mesh, previous);
    assert!(problems.is_empty(), "{problems:?}");
    snapshot
}

/// A proxy calls a few dozen services, however many the mesh has.
fn select(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("select");
    for count in [10, 1_000, 100_000] {
        let snapshot = compile(mesh_of(count), None);
        let table = snapshot.route_table("80").map(Arc::clone);
        let table = table.unwrap_or_else(|| unreachable!("the mesh has it"));
        let called: Vec<_> = (0..32).map(|turn| host_name(turn * count / 32)).collect();
        let (head, ()) = http::Request::new(()).into_parts();
        let mut turns = called.iter().cycle();
        group.bench_function(BenchmarkId::new("exact", count), |bencher| {
            bencher.iter(|| {
                let host = turns.next().map_or("", String::as_str);
                black_box(table.select(host, Some(80), &head, &mut NoTrace).is_ok())
            });
        });
        group.bench_function(BenchmarkId::new("unknown", count), |bencher| {
            let host = black_box("a.b.c.example.com");
            bencher.iter(|| black_box(table.select(host, Some(80), &head, &mut NoTrace).is_ok()));
        });
    }
    group.finish();
}

/// One host with many paths, asked for its last one.
fn select_among_rules(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("select among rules");
    for count in [10, 1_000, 10_000] {
        let mut mesh = mesh_of(1);
        let mut host = virtual_host(0);
        let pattern = host.routes.pop().unwrap_or_else(|| unreachable!("it has two"));
        host.routes = (0..count)
            .map(|number| {
                let path = PathMatch::Prefix(format!("/api/v{}/resource-{number}/", number % 7));
                Route { matches: RouteMatch { path, ..RouteMatch::default() }, ..pattern.clone() }
            })
            .collect();
        let hosts = vec![Arc::new(host)];
        let table = RouteTable { name: "80".into(), hosts, ignore_port: true, origin: Origin::BUILT_IN };
        mesh.routes.insert("80".into(), Arc::new(table));
        let snapshot = compile(mesh, None);
        let table = snapshot.route_table("80").unwrap_or_else(|| unreachable!("the mesh has it"));
        let (mut head, ()) = http::Request::new(()).into_parts();
        let last = count - 1;
        head.uri = format!("/api/v{}/resource-{last}/item", last % 7).parse().unwrap_or_default();
        let host = host_name(0);
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| black_box(table.select(&host, None, &head, &mut NoTrace).is_ok()));
        });
        assert!(table.select(&host, None, &head, &mut NoTrace).is_ok());
    }
    group.finish();
}

fn compile_services(criterion: &mut Criterion) {
    const SERVICES: usize = 10_000;
    let mut group = criterion.benchmark_group("compile");
    group.sample_size(10);
    let mesh = mesh_of(SERVICES);
    group.bench_function("10000 services", |bencher| {
        bencher.iter_batched(|| mesh.clone(), |mesh| compile(mesh, None), BatchSize::PerIteration);
    });

    let first = compile(mesh.clone(), None);
    let mut changed = mesh;
    let pool = Pool { max_requests: 7, ..Pool::default() };
    changed.clusters.insert(cluster_name(17).into(), Arc::new(Cluster { pool, ..cluster(17) }));
    group.bench_function("one cluster changed", |bencher| {
        bencher.iter_batched(|| changed.clone(), |mesh| compile(mesh, Some(&first)), BatchSize::PerIteration);
    });
    group.bench_function("one cluster changed, all parts rebuilt by the source", |bencher| {
        bencher.iter_batched(
            || {
                let mut mesh = mesh_of(SERVICES);
                let pool = Pool { max_requests: 7, ..Pool::default() };
                mesh.clusters.insert(cluster_name(17).into(), Arc::new(Cluster { pool, ..cluster(17) }));
                mesh
            },
            |mesh| compile(mesh, Some(&first)),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// Not a time, but a promise all the same: what 10,000 services keep in memory.
fn memory(_: &mut Criterion) {
    let before = resident_kib();
    let mesh = mesh_of(10_000);
    let written = resident_kib();
    let snapshot = compile(mesh, None);
    let after = resident_kib();
    #[expect(clippy::print_stderr, reason = "a bench reports on the terminal")]
    if let (Some(before), Some(written), Some(after)) = (before, written, after) {
        eprintln!(
            "memory/10000 services: mesh {} KiB, snapshot {} KiB",
            written.saturating_sub(before),
            after.saturating_sub(written)
        );
    }
    drop(black_box(snapshot));
}

fn resident_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

criterion_group!(benches, memory, select, select_among_rules, compile_services);
criterion_main!(benches);
