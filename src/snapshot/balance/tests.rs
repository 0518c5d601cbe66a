use super::super::Cluster;
use super::super::samples::{cluster, endpoint};
use super::*;
use crate::mesh::{self, Health};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const ALL: [Balance; 3] = [Balance::LeastRequest, Balance::RoundRobin, Balance::Random];

/// A cluster whose endpoints have these weights and the ports 0, 1, 2 ...
fn weighted(balance: Balance, weights: &[u32]) -> Arc<Cluster> {
    let endpoints = (0..).zip(weights).map(|(port, weight)| endpoint(port, *weight)).collect();
    with_endpoints(balance, endpoints)
}

fn with_endpoints(balance: Balance, endpoints: Vec<mesh::Endpoint>) -> Arc<Cluster> {
    let cluster = Cluster::link(&Arc::new(mesh::Cluster { balance, ..cluster("a") }), None, None);
    cluster.publish(endpoints);
    cluster
}

/// How often each weight's endpoint is picked.
fn count(cluster: &Cluster, picks: u64, random: &mut impl FnMut() -> u64) -> Vec<u64> {
    let table = cluster.state.endpoints();
    let mut counts = BTreeMap::new();
    for _ in 0..picks {
        *counts.entry(cluster.pick(random, &[]).unwrap().id).or_insert(0) += 1;
    }
    table.endpoints().iter().map(|endpoint| counts.get(&endpoint.id).copied().unwrap_or(0)).collect()
}

fn ids(cluster: &Cluster) -> Vec<u32> {
    cluster.state.endpoints().endpoints().iter().map(|endpoint| endpoint.id).collect()
}

#[test]
fn nobody_is_picked_from_an_empty_set_or_one_without_weight_or_health() {
    let sick = |health| mesh::Endpoint { health, ..endpoint(1, 1) };
    for balance in ALL {
        for endpoints in
            [vec![], vec![endpoint(1, 0)], vec![sick(Health::Unhealthy)], vec![sick(Health::Draining)]]
        {
            assert!(with_endpoints(balance, endpoints).pick(&mut || 7, &[]).is_none());
        }
    }
}

#[test]
fn equal_endpoints_take_turns_in_their_order() {
    let cluster = weighted(Balance::RoundRobin, &[5, 5, 5]);
    let ids = ids(&cluster);
    let turns: Vec<_> = (0..6).map(|_| cluster.pick(&mut || 0, &[]).unwrap().id).collect();
    assert_eq!(turns, [ids[0], ids[1], ids[2], ids[0], ids[1], ids[2]]);
}

#[test]
fn a_heavy_endpoint_does_not_take_all_its_turns_in_a_row() {
    let cluster = weighted(Balance::RoundRobin, &[50, 50, 100]);
    let heavy = ids(&cluster)[2];
    let turns: Vec<_> = (0..200).map(|_| cluster.pick(&mut || 0, &[]).unwrap().id == heavy).collect();
    let longest = turns.split(|heavy| !heavy).map(<[bool]>::len).max().unwrap();
    assert!(longest <= 2, "{longest} in a row");
}

#[test]
fn the_less_busy_for_its_weight_is_picked() {
    let cluster = weighted(Balance::LeastRequest, &[1, 1]);
    let table = cluster.state.endpoints();
    let busy = [table.endpoints()[0].begin(), table.endpoints()[0].begin()];
    let mut random = fastrand::Rng::with_seed(1);
    assert_eq!(count(&cluster, 100, &mut || random.u64(..)), [0, 100]);
    drop(busy);

    let cluster = weighted(Balance::LeastRequest, &[1, 4]);
    let table = cluster.state.endpoints();
    let _busy: Vec<_> = [0, 1, 1, 1].map(|index: usize| table.endpoints()[index].begin()).into();
    assert_eq!(count(&cluster, 100, &mut || random.u64(..)), [0, 100]);
}

#[test]
fn least_request_evens_out_requests_in_flight() {
    let cluster = weighted(Balance::LeastRequest, &[1; 10]);
    let mut random = fastrand::Rng::with_seed(2);
    let _held: Vec<_> =
        (0..1000).map(|_| cluster.pick(&mut || random.u64(..), &[]).unwrap().begin()).collect();
    for endpoint in cluster.state.endpoints().endpoints() {
        let active = endpoint.active.load(Ordering::Relaxed);
        assert!((95..=105).contains(&active), "{active}");
    }
}

#[test]
fn idle_endpoints_are_picked_by_weight() {
    for balance in [Balance::LeastRequest, Balance::Random] {
        let cluster = weighted(balance, &[1, 9]);
        let mut random = fastrand::Rng::with_seed(3);
        let counts = count(&cluster, 10_000, &mut || random.u64(..));
        assert!((800..1200).contains(&counts[0]), "{balance:?}: {counts:?}");
    }
}

#[test]
fn a_lower_priority_is_used_only_when_the_higher_has_none_left() {
    let at = |port, priority, health| mesh::Endpoint { priority, health, ..endpoint(port, 1) };
    let healthy = Health::Healthy;
    for balance in ALL {
        let cluster = with_endpoints(balance, vec![at(0, 1, healthy), at(1, 0, healthy), at(2, 1, healthy)]);
        let ids = ids(&cluster);
        let mut random = fastrand::Rng::with_seed(4);
        assert_eq!(count(&cluster, 50, &mut || random.u64(..)), [0, 50, 0]);
        let next = cluster.pick(&mut || random.u64(..), &[ids[1]]).unwrap();
        assert_ne!(next.id, ids[1]);
        let again = cluster.pick(&mut || random.u64(..), &ids).unwrap();
        assert_eq!(again.id, ids[1]);

        cluster.publish(vec![at(0, 1, healthy), at(1, 0, Health::Unhealthy), at(2, 2, healthy)]);
        assert_eq!(count(&cluster, 50, &mut || random.u64(..)), [50, 0, 0]);
    }
}

#[test]
fn a_shrinking_set_is_never_picked_from_beyond_its_end() {
    for balance in ALL {
        let cluster = weighted(balance, &[1; 20]);
        let mut random = fastrand::Rng::with_seed(5);
        for left in (1..20).rev() {
            cluster.publish((0..left).map(|port| endpoint(port, 1 + u32::from(port))).collect());
            let now: BTreeSet<_> = ids(&cluster).into_iter().collect();
            for _ in 0..50 {
                assert!(now.contains(&cluster.pick(&mut || random.u64(..), &[]).unwrap().id));
            }
        }
    }
}

proptest! {
    #[test]
    fn each_round_of_round_robin_gives_each_endpoint_exactly_its_weight(
        weights in prop::collection::vec(0u32..40, 1..12),
    ) {
        let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        prop_assume!(sum > 0);
        let cluster = weighted(Balance::RoundRobin, &weights);
        let counts = count(&cluster, sum, &mut || 0);
        prop_assert_eq!(counts, weights.iter().map(|weight| u64::from(*weight)).collect::<Vec<_>>());
    }

    #[test]
    fn random_gives_each_endpoint_exactly_its_weight_of_the_range(
        weights in prop::collection::vec(0u32..40, 1..12),
    ) {
        let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        prop_assume!(sum > 0);
        let cluster = weighted(Balance::Random, &weights);
        let mut point = 0;
        let counts = count(&cluster, sum, &mut || { point += 1; point - 1 });
        prop_assert_eq!(counts, weights.iter().map(|weight| u64::from(*weight)).collect::<Vec<_>>());
    }

    #[test]
    fn a_tried_endpoint_is_picked_again_only_when_all_were_tried(
        weights in prop::collection::vec(0u32..9, 1..9),
        tried in prop::collection::vec(any::<bool>(), 9),
        balance in prop::sample::select(ALL.to_vec()),
        seed in any::<u64>(),
    ) {
        let cluster = weighted(balance, &weights);
        let ids = ids(&cluster);
        let usable: Vec<_> = ids.iter().zip(&weights).filter(|(_, weight)| **weight > 0).map(|(id, _)| *id).collect();
        let tried: Vec<_> = ids.iter().zip(&tried).filter(|(_, tried)| **tried).map(|(id, _)| *id).collect();
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..20 {
            match cluster.pick(&mut || random.u64(..), &tried) {
                None => prop_assert!(usable.is_empty()),
                Some(picked) => {
                    prop_assert!(usable.contains(&picked.id));
                    prop_assert!(!tried.contains(&picked.id) || usable.iter().all(|id| tried.contains(id)));
                }
            }
        }
    }
}
