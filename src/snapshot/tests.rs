//! Compiles of whole meshes.

use super::samples::{bytes, chain, cluster, endpoint, head, host, listener, rule, share, web};
use super::*;
use crate::mesh::{Action, Balance, ChainMatch, EndpointSet, PathMatch, Pool, RouteAction, WeightedCluster};
use filter_api::NoTrace;
use std::time::Duration;

/// Services `a`, `b` ... with a cluster, an endpoint and a host each; one HTTP listener and one TCP listener to `a`.
fn mesh_of(services: &[&str]) -> Mesh {
    let mut mesh = Mesh::default();
    let mut hosts = Vec::new();
    for service in services {
        let name = Name::from(*service);
        mesh.clusters.insert(name.clone(), Arc::new(cluster(service)));
        mesh.endpoints.insert(name, Arc::new(EndpointSet { endpoints: vec![endpoint(80, 1)] }));
        let routes = vec![
            rule("regex", PathMatch::Regex("/[0-9]+".to_owned()), vec![share(service, 1)]),
            rule("rest", PathMatch::Any, vec![share(service, 1)]),
        ];
        hosts.push(host(service, &[service], routes));
    }
    set_hosts(&mut mesh, hosts);
    let add = |mesh: &mut Mesh, listener: mesh::Listener| {
        mesh.listeners.insert(listener.name.clone(), Arc::new(listener));
    };
    add(&mut mesh, listener("web", vec![chain("web", ChainMatch::default(), web("80"))]));
    add(&mut mesh, listener("tcp", vec![chain("tcp", ChainMatch::default(), bytes(vec![share("a", 1)]))]));
    mesh
}

fn set_hosts(mesh: &mut Mesh, hosts: Vec<Arc<mesh::VirtualHost>>) {
    let table = mesh::RouteTable { name: "80".into(), hosts, ignore_port: true, origin: Origin::BUILT_IN };
    mesh.routes.insert("80".into(), Arc::new(table));
}

fn hosts(mesh: &Mesh) -> Vec<Arc<mesh::VirtualHost>> {
    mesh.routes["80"].hosts.clone()
}

fn compile(mesh: Mesh, previous: Option<&Arc<Snapshot>>) -> Arc<Snapshot> {
    let (snapshot, problems) = Snapshot::compile(mesh, previous);
    assert!(problems.is_empty(), "{problems:?}");
    snapshot
}

fn compile_with_problem(mesh: Mesh, previous: Option<&Arc<Snapshot>>) -> (Arc<Snapshot>, String) {
    let (snapshot, problems) = Snapshot::compile(mesh, previous);
    let [problem] = problems.as_slice() else { panic!("{problems:?}") };
    (snapshot, problem.message.clone())
}

fn destination(snapshot: &Snapshot, host: &str, path: &str) -> Result<Arc<Destination>, Miss> {
    let table = snapshot.route_table("80").unwrap();
    table.select(host, None, &head(path), &mut NoTrace).map(|route| route.pick(0).clone())
}

fn virtual_host<'a>(snapshot: &'a Snapshot, name: &str) -> &'a Arc<VirtualHost> {
    let hosts = snapshot.route_table("80").unwrap().hosts();
    hosts.iter().find(|host| &*host.mesh.name == name).unwrap()
}

#[test]
fn equal_parts_are_the_same_parts_after_a_recompile() {
    let first = compile(mesh_of(&["a", "b"]), None);
    // Built anew: equal, but no pointer is shared.
    let second = compile(mesh_of(&["a", "b"]), Some(&first));
    assert_eq!((first.generation, second.generation), (1, 2));
    for (old, new) in first.clusters().zip(second.clusters()) {
        assert!(Arc::ptr_eq(old, new));
        assert!(Arc::ptr_eq(&old.state.endpoints(), &new.state.endpoints()));
    }
    for (old, new) in first.listeners().zip(second.listeners()) {
        assert!(Arc::ptr_eq(old, new));
    }
    assert!(Arc::ptr_eq(first.route_table("80").unwrap(), second.route_table("80").unwrap()));
    assert!(Arc::ptr_eq(&first.mesh.clusters["a"], &second.mesh.clusters["a"]));
    assert!(Arc::ptr_eq(&first.mesh.routes["80"], &second.mesh.routes["80"]));
}

#[test]
fn a_changed_cluster_replaces_only_what_leads_to_it() {
    let first = compile(mesh_of(&["a", "b"]), None);
    let mut mesh = mesh_of(&["a", "b"]);
    let pool = Pool { max_requests: 7, ..Pool::default() };
    mesh.clusters.insert("b".into(), Arc::new(mesh::Cluster { pool, ..cluster("b") }));
    let second = compile(mesh, Some(&first));

    assert!(Arc::ptr_eq(first.cluster("a").unwrap(), second.cluster("a").unwrap()));
    let (old, new) = (first.cluster("b").unwrap(), second.cluster("b").unwrap());
    assert!(!Arc::ptr_eq(old, new));
    assert!(Arc::ptr_eq(&old.state, &new.state));
    assert_eq!(new.limit(Resource::Requests), 7);

    assert!(Arc::ptr_eq(virtual_host(&first, "a"), virtual_host(&second, "a")));
    assert!(!Arc::ptr_eq(virtual_host(&first, "b"), virtual_host(&second, "b")));
    let reached = destination(&second, "b", "/").unwrap();
    assert!(Arc::ptr_eq(reached.cluster.as_ref().unwrap(), new));
    assert!(Arc::ptr_eq(first.listener("tcp").unwrap(), second.listener("tcp").unwrap()));
    assert!(!Arc::ptr_eq(first.listener("web").unwrap(), second.listener("web").unwrap()));
}

#[test]
fn a_changed_rule_leaves_the_other_routes_of_its_host() {
    let first = compile(mesh_of(&["a"]), None);
    let mut mesh = mesh_of(&["a"]);
    let mut routes = hosts(&mesh)[0].routes.clone();
    routes.insert(0, rule("new", PathMatch::Exact("/new".to_owned()), vec![share("a", 1)]));
    set_hosts(&mut mesh, vec![host("a", &["a"], routes)]);
    let second = compile(mesh, Some(&first));
    let (old, new) = (virtual_host(&first, "a").routes(), virtual_host(&second, "a").routes());
    assert_eq!(new.len(), 3);
    assert!(Arc::ptr_eq(&old[1], &new[2]));
}

#[test]
fn changed_endpoints_are_published_without_touching_the_cluster() {
    let first = compile(mesh_of(&["a"]), None);
    let old_table = first.cluster("a").unwrap().state.endpoints();
    let mut mesh = mesh_of(&["a"]);
    let endpoints = vec![endpoint(81, 1), endpoint(80, 3)];
    mesh.endpoints.insert("a".into(), Arc::new(EndpointSet { endpoints }));
    let second = compile(mesh, Some(&first));
    let cluster = second.cluster("a").unwrap();
    assert!(Arc::ptr_eq(first.cluster("a").unwrap(), cluster));
    assert!(Arc::ptr_eq(first.route_table("80").unwrap(), second.route_table("80").unwrap()));
    let table = cluster.state.endpoints();
    assert_eq!(table.endpoints().len(), 2);
    assert_eq!(table.endpoints()[1].id, old_table.endpoints()[0].id);
    assert_eq!(table.endpoints()[1].mesh.weight, 3);

    let mut mesh = mesh_of(&["a"]);
    mesh.endpoints.clear();
    compile(mesh, Some(&second));
    assert!(cluster.pick(&mut || 0, &[]).is_none());
}

#[test]
fn a_cluster_that_went_away_comes_back_with_another_id() {
    let first = compile(mesh_of(&["a", "b"]), None);
    let id = first.cluster("b").unwrap().state.id;
    let mut without = mesh_of(&["a", "b"]);
    without.clusters.remove("b");
    let second = compile(without, Some(&first));
    let lost = destination(&second, "b", "/").unwrap();
    assert!(lost.cluster.is_none());
    assert_eq!(&*lost.cluster_name, "b");
    let third = compile(mesh_of(&["a", "b"]), Some(&second));
    let found = destination(&third, "b", "/").unwrap();
    assert_ne!(found.cluster.as_ref().unwrap().state.id, id);
}

#[test]
fn a_rule_that_does_not_compile_stands_alone_with_it_and_is_listed_each_time() {
    let broken = || {
        let mut mesh = mesh_of(&["a", "b"]);
        let conditions = rule("bad", PathMatch::Regex("[".to_owned()), vec![share("a", 1)]);
        let action = rule("worse", PathMatch::Exact("/w".to_owned()), vec![share("a", 0), share("b", 0)]);
        let good = rule("good", PathMatch::Any, vec![share("b", 1)]);
        let other = hosts(&mesh)[1].clone();
        set_hosts(&mut mesh, vec![host("a", &["a"], vec![conditions, action, good]), other]);
        mesh
    };
    let mut last: Option<Arc<Snapshot>> = None;
    for _ in 0..3 {
        let (snapshot, problems) = Snapshot::compile(broken(), last.as_ref());
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let [conditions, action] = &problems[..] else { panic!("{problems:?}") };
        assert!(conditions.contains("virtual host \"a\", rule 0 (bad): path: regex \"[\""), "{conditions}");
        assert!(conditions.ends_with("the rule takes no request"), "{conditions}");
        assert!(action.contains("weights of its destinations are all zero"), "{action}");
        assert!(action.ends_with("its requests are answered 500"), "{action}");
        assert_eq!(&*destination(&snapshot, "a", "/1").unwrap().cluster_name, "b");
        let worse = destination(&snapshot, "a", "/w").unwrap();
        assert_eq!((&*worse.route, &*worse.cluster_name), ("worse", ""));
        assert!(destination(&snapshot, "b", "/").is_ok());
        last = Some(snapshot);
    }
    let mended = compile(mesh_of(&["a", "b"]), last.as_ref());
    compile(mesh_of(&["a", "b"]), Some(&mended));
}

#[test]
fn a_missing_route_table_is_listed_and_its_last_version_stays() {
    let without = || {
        let mut mesh = mesh_of(&["a"]);
        mesh.routes.clear();
        mesh
    };
    let (snapshot, message) = compile_with_problem(without(), None);
    assert!(message.contains("no route table \"80\""), "{message}");
    assert_eq!(destination(&snapshot, "a", "/").unwrap_err(), Miss::Host);
    let full = compile(mesh_of(&["a"]), Some(&snapshot));
    let (kept, _) = compile_with_problem(without(), Some(&full));
    assert!(destination(&kept, "a", "/").is_ok());
}

#[test]
fn a_chain_that_does_not_compile_keeps_its_last_version_or_refuses() {
    let first = compile(mesh_of(&["a"]), None);
    let broken = || {
        let mut mesh = mesh_of(&["a"]);
        let bad = chain("tcp", ChainMatch::default(), bytes(Vec::new()));
        mesh.listeners.insert("tcp".into(), Arc::new(listener("tcp", vec![bad])));
        mesh
    };
    let protocol = |snapshot: &Snapshot| {
        let chain = snapshot.listener("tcp").unwrap().chains().next().cloned();
        chain.unwrap().protocol.clone()
    };
    let (kept, message) = compile_with_problem(broken(), Some(&first));
    assert!(message.contains("chain \"tcp\": no destination"), "{message}");
    assert!(matches!(protocol(&kept), ChainProtocol::Tcp(tcp) if tcp.pick(0).is_some()));
    compile_with_problem(broken(), Some(&kept));
    let (closed, _) = compile_with_problem(broken(), None);
    assert!(matches!(protocol(&closed), ChainProtocol::Refuse(_)));
}

#[test]
fn a_destination_keeps_its_cluster_alive_but_no_snapshot() {
    let snapshot = compile(mesh_of(&["a"]), None);
    let destination = destination(&snapshot, "a", "/").unwrap();
    let (root, table) = (Arc::downgrade(&snapshot), Arc::downgrade(snapshot.route_table("80").unwrap()));
    drop(snapshot);
    assert!(root.upgrade().is_none());
    assert!(table.upgrade().is_none());
    assert!(destination.cluster.as_ref().unwrap().pick(&mut || 0, &[]).is_some());
}

#[test]
fn a_captured_connection_goes_to_the_exact_address_then_to_the_wildcard_of_its_port() {
    let mut mesh = Mesh::default();
    let mut add = |name: &str, address: &str, bound: bool, direction: Direction| {
        let addresses = vec![Address::Socket(address.parse().unwrap())];
        let listener = mesh::Listener { addresses, bound, direction, ..listener(name, Vec::new()) };
        mesh.listeners.insert(name.into(), Arc::new(listener));
    };
    add("any", "0.0.0.0:80", false, Direction::Outbound);
    add("any6", "[::]:81", false, Direction::Outbound);
    add("exact", "10.0.0.1:80", false, Direction::Outbound);
    add("inbound", "10.0.0.2:80", false, Direction::Inbound);
    add("bound", "10.0.0.3:82", true, Direction::Outbound);
    let snapshot = compile(mesh.clone(), None);
    let found = |address: &str| {
        let found = snapshot.hand_over(Direction::Outbound, address.parse().unwrap());
        found.map(|listener| listener.mesh.name.to_string())
    };
    assert_eq!(found("10.0.0.1:80").as_deref(), Some("exact"));
    assert_eq!(found("[::ffff:10.0.0.1]:80").as_deref(), Some("exact"));
    assert_eq!(found("10.0.0.2:80").as_deref(), Some("any"));
    assert_eq!(found("10.0.0.2:81").as_deref(), Some("any6"));
    assert_eq!(found("[2001:db8::1]:81").as_deref(), Some("any6"));
    assert_eq!(found("[2001:db8::1]:80"), None);
    assert_eq!(found("10.0.0.3:82"), None);

    let twin = mesh::Listener { name: "twin".into(), ..mesh::Listener::clone(&mesh.listeners["exact"]) };
    mesh.listeners.insert("twin".into(), Arc::new(twin));
    let (_, message) = compile_with_problem(mesh, None);
    assert!(message.contains("10.0.0.1:80 is already taken over by listener \"exact\""), "{message}");
}

fn timeout(seconds: u64) -> RouteSettings {
    let total = Duration::from_secs(seconds);
    RouteSettings { timeout: vec![filter_timeout::Settings { total }], ..RouteSettings::default() }
}

/// One host whose rule and first destination have a timeout each.
fn mesh_with_timeouts() -> Mesh {
    let mut mesh = mesh_of(&["a"]);
    let to = vec![WeightedCluster { filters: timeout(2), ..share("a", 1) }, share("b", 1)];
    let action = RouteAction { action: Action::Forward(to), filters: timeout(1) };
    let rule = mesh::Route { action: Arc::new(action), ..rule("r", PathMatch::Any, Vec::new()) };
    set_hosts(&mut mesh, vec![host("a", &["a"], vec![rule])]);
    mesh
}

#[test]
fn a_destination_has_the_settings_of_its_route_and_then_its_own() {
    let snapshot = compile(mesh_with_timeouts(), None);
    let route = &virtual_host(&snapshot, "a").routes()[0];
    let seconds = |random| -> Vec<u64> {
        let settings = route.pick(random).slots.read(crate::filters::route::timeout).unwrap();
        settings.iter().map(|settings| settings.total.as_secs()).collect()
    };
    assert_eq!(seconds(0), [1, 2]);
    assert_eq!(seconds(1), [1]);
}

#[test]
fn compiled_settings_stay_when_the_cluster_behind_them_is_replaced() {
    let settings = |snapshot: &Snapshot| {
        let destination = destination(snapshot, "a", "/").unwrap();
        destination.slots.share(crate::filters::route::timeout).unwrap()
    };
    let first = compile(mesh_with_timeouts(), None);
    let mut mesh = mesh_with_timeouts();
    let balance = Balance::Random;
    mesh.clusters.insert("a".into(), Arc::new(mesh::Cluster { balance, ..cluster("a") }));
    let second = compile(mesh, Some(&first));
    assert!(!Arc::ptr_eq(virtual_host(&first, "a"), virtual_host(&second, "a")));
    assert!(Arc::ptr_eq(&settings(&first), &settings(&second)));
}

#[test]
fn settings_that_a_filter_refuses_close_their_route_alone() {
    let first = compile(mesh_of(&["a"]), None);
    let mut mesh = mesh_of(&["a"]);
    let mut changes = filter_transform::Settings::default();
    changes.request_headers.remove.push("not a name".to_owned());
    let filters = RouteSettings { transform: vec![changes], ..RouteSettings::default() };
    let action = RouteAction { action: Action::Forward(vec![share("a", 1)]), filters };
    let bad = mesh::Route { action: Arc::new(action), ..rule("bad", PathMatch::Any, Vec::new()) };
    set_hosts(&mut mesh, vec![host("a", &["a"], vec![bad])]);
    let (second, message) = compile_with_problem(mesh, Some(&first));
    assert!(message.contains("rule 0 (bad): transform: "), "{message}");
    let closed = destination(&second, "a", "/").unwrap();
    assert_eq!((&*closed.route, &*closed.cluster_name), ("bad", ""));
}
