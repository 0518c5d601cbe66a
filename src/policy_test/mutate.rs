//! What could be left out of the policies without any test failing.
//!
//! Each policy that holds for a workload under test is left out as a whole, then rule by rule, condition by condition and value by value; after each the
//! tests of the workloads that it changes are run again. What makes no test fail is not held on to by any.

mod remove;

use super::bench::{Bench, Compiled};
use super::file::Case;
use super::judge::judge;
use super::workload::targets;
use crate::config::resources::{ObjectKey, Resource};
use remove::{Removal, removals};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How much is tried.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// The most changes.
    pub changes: usize,
    /// The most time.
    pub time: Duration,
}

/// What came of leaving things out.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mutations {
    /// Changes that were tried.
    pub tried: usize,
    /// Changes that leave nothing which could be run.
    pub invalid: usize,
    /// All changes.
    pub of: usize,
    /// What can be left out and no test fails.
    pub survivors: Vec<Survivor>,
}

/// Something that can be left out and no test fails.
#[derive(Clone, Debug, Serialize)]
pub struct Survivor {
    /// `spec.rules[0].from` of what object.
    pub what: String,
    /// File, line and column.
    pub place: String,
}

/// Leaves out one thing after another.
///
/// # Errors
///
/// When a key set that was given is of no use.
pub(super) fn mutate(bench: &Bench<'_>, cases: &[Case], bound: Bound) -> Result<Mutations, String> {
    let begun = Instant::now();
    let resources = bench.resources();
    let asked = bench.asked();
    let keys: Vec<BTreeSet<ObjectKey>> = cases.iter().map(|case| proxies(resources, case)).collect();
    let mut all: Vec<(usize, Removal)> = Vec::new();
    for (at, resource) in resources.iter().enumerate() {
        let removals = removals(resource);
        if !removals.is_empty() && in_force(&asked, &without(resources, at)) {
            all.extend(removals.into_iter().map(|removal| (at, removal)));
        }
    }
    let mut found = Mutations { of: all.len(), ..Mutations::default() };
    for (at, removal) in all {
        if found.tried + found.invalid >= bound.changes || begun.elapsed() > bound.time {
            break;
        }
        let survivor = Survivor { what: removal.what, place: removal.place.to_string() };
        let changed = match removal.left {
            Some(left) => replaced(resources, at, left),
            None => without(resources, at),
        };
        match noticed(bench, (cases, &keys), &asked, &changed)? {
            Some(noticed) => {
                found.tried += 1;
                found.survivors.extend((!noticed).then_some(survivor));
            }
            // What does not compile tells nothing.
            None => found.invalid += 1,
        }
    }
    Ok(found)
}

/// The Proxies that a test asks about.
fn proxies(resources: &[Arc<Resource>], case: &Case) -> BTreeSet<ObjectKey> {
    let found = targets(resources, &case.to, case.request.port).unwrap_or_default();
    found.into_iter().map(|target| target.proxy.key.clone()).collect()
}

fn without(resources: &[Arc<Resource>], at: usize) -> Vec<Arc<Resource>> {
    let mut changed = resources.to_vec();
    changed.remove(at);
    changed
}

fn replaced(resources: &[Arc<Resource>], at: usize, left: Resource) -> Vec<Arc<Resource>> {
    let mut changed = resources.to_vec();
    if let Some(place) = changed.get_mut(at) {
        *place = Arc::new(left);
    }
    changed
}

/// Whether the change makes any difference to a workload under test.
fn in_force(asked: &[Compiled], changed: &[Arc<Resource>]) -> bool {
    asked.iter().any(|one| one.with(changed).is_some())
}

/// Whether some test fails after a change; `None` when it leaves something that does not compile.
fn noticed(
    bench: &Bench<'_>,
    (cases, keys): (&[Case], &[BTreeSet<ObjectKey>]),
    asked: &[Compiled],
    changed: &[Arc<Resource>],
) -> Result<Option<bool>, String> {
    let (mut compiled, mut other) = (BTreeMap::new(), BTreeSet::new());
    for one in asked {
        match one.with(changed) {
            Some(new) if new.problems > one.problems => return Ok(None),
            Some(new) => {
                other.insert(new.proxy.key.clone());
                compiled.insert(new.proxy.key.clone(), new);
            }
            None => {
                compiled.insert(one.proxy.key.clone(), one.clone());
            }
        }
    }
    let bench = bench.changed(changed, compiled);
    for (case, keys) in cases.iter().zip(keys) {
        if !keys.is_disjoint(&other) && !judge(&bench, case)?.failures.is_empty() {
            return Ok(Some(true));
        }
    }
    Ok(Some(false))
}
