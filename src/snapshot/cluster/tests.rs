use super::super::samples::{cluster, endpoint};
use super::*;
use crate::mesh::Pool;
use std::sync::Barrier;
use std::time::Duration;

fn linked(mesh: mesh::Cluster, previous: Option<&Arc<Cluster>>) -> Arc<Cluster> {
    Cluster::link(&Arc::new(mesh), None, previous.map(|old| (old, None)))
}

fn limited(max_requests: u32) -> mesh::Cluster {
    mesh::Cluster { pool: Pool { max_requests, ..Pool::default() }, ..cluster("a") }
}

#[test]
fn permits_never_exceed_the_limit_and_all_come_back() {
    const LIMIT: u32 = 5;
    let cluster = linked(limited(LIMIT), None);
    let start = Barrier::new(8);
    let taken: u64 = std::thread::scope(|scope| {
        let worker = || {
            start.wait();
            let mut taken = 0;
            let mut held = Vec::new();
            for turn in 0..5_000 {
                held.extend(cluster.acquire(Resource::Requests));
                assert!(cluster.state.count(Resource::Requests) <= LIMIT);
                if turn % 3 == 0 {
                    taken += held.len() as u64;
                    held.clear();
                }
            }
            taken
        };
        let workers: Vec<_> = (0..8).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    assert!(taken > 0);
    assert_eq!(cluster.state.count(Resource::Requests), 0);
}

#[test]
fn a_changed_limit_holds_at_once_and_loses_no_permit() {
    let old = linked(limited(3), None);
    let permits: Vec<_> = (0..3).map(|_| old.acquire(Resource::Requests).unwrap()).collect();
    assert!(old.acquire(Resource::Requests).is_none());

    let wider = linked(limited(4), Some(&old));
    assert_eq!(wider.state.id, old.state.id);
    let fourth = wider.acquire(Resource::Requests).unwrap();
    assert!(wider.acquire(Resource::Requests).is_none());

    let narrower = linked(limited(2), Some(&wider));
    assert_eq!(narrower.state.count(Resource::Requests), 4);
    drop((fourth, permits));
    assert_eq!(narrower.state.count(Resource::Requests), 0);
    let _two = [narrower.acquire(Resource::Requests).unwrap(), narrower.acquire(Resource::Requests).unwrap()];
    assert!(narrower.acquire(Resource::Requests).is_none());
}

#[test]
fn resources_are_counted_apart_and_a_limit_can_be_passed_on_purpose() {
    let pool = Pool { max_connections: 0, ..Pool::default() };
    let cluster = linked(mesh::Cluster { pool, ..cluster("a") }, None);
    assert!(cluster.acquire(Resource::Connections).is_none());
    let connection = cluster.acquire_anyway(Resource::Connections);
    assert_eq!(cluster.state.count(Resource::Connections), 1);
    assert!(cluster.acquire(Resource::Pending).is_some());
    assert_eq!(cluster.state.count(Resource::Pending), 0);
    drop(connection);
    assert_eq!(cluster.state.count(Resource::Connections), 0);
}

#[test]
fn an_address_keeps_its_id_and_its_count_whatever_else_changes() {
    let cluster = linked(cluster("a"), None);
    cluster.publish(vec![endpoint(1, 1), endpoint(2, 1)]);
    let before = cluster.state.endpoints();
    let in_flight = before.endpoints()[0].begin();
    cluster.publish(vec![endpoint(3, 1), endpoint(1, 9), endpoint(2, 1)]);
    let after = cluster.state.endpoints();
    let [added, changed, unchanged] = after.endpoints() else { panic!("{after:?}") };
    assert!(Arc::ptr_eq(unchanged, &before.endpoints()[1]));
    assert_eq!(changed.id, before.endpoints()[0].id);
    assert_eq!(changed.mesh.weight, 9);
    assert_eq!(changed.active.load(Ordering::Relaxed), 1);
    drop(in_flight);
    assert_eq!(changed.active.load(Ordering::Relaxed), 0);
    assert!(before.endpoints().iter().all(|old| old.id != added.id));
}

#[test]
fn of_two_endpoints_with_one_address_the_first_counts() {
    let cluster = linked(cluster("a"), None);
    cluster.publish(vec![endpoint(1, 4), endpoint(1, 5)]);
    let table = cluster.state.endpoints();
    assert_eq!(table.endpoints().iter().map(|endpoint| endpoint.mesh.weight).collect::<Vec<_>>(), [4]);
}

#[test]
fn a_compile_leaves_what_dns_found() {
    let dns = |max_requests| {
        let discovery = Discovery::StrictDns { refresh: Duration::from_secs(5) };
        Arc::new(mesh::Cluster { discovery, ..limited(max_requests) })
    };
    let name = mesh::Endpoint { address: EndpointAddress::Name("db".into(), 1), ..endpoint(1, 1) };
    let set = Arc::new(EndpointSet { endpoints: vec![name, endpoint(2, 1)] });
    let first = Cluster::link(&dns(1), Some(&set), None);
    let ports = |cluster: &Cluster| -> Vec<_> {
        let table = cluster.state.endpoints();
        table.endpoints().iter().map(|endpoint| endpoint.address.clone()).collect()
    };
    // Until the first answer, what needs no answer.
    assert_eq!(ports(&first), [endpoint(2, 1).address]);
    first.publish(vec![endpoint(7, 1)]);
    let second = Cluster::link(&dns(2), Some(&set), Some((&first, Some(&set))));
    assert_eq!(ports(&second), [endpoint(7, 1).address]);
    let static_again = Cluster::link(&Arc::new(cluster("a")), Some(&set), Some((&second, Some(&set))));
    assert_eq!(ports(&static_again), [endpoint(2, 1).address]);
}
