//! Which endpoint takes the next request.

use super::endpoint::{Endpoint, EndpointTable, Level};
use crate::mesh::Balance;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// See [`super::Cluster::pick`].
pub(super) fn pick(
    balance: Balance,
    table: &EndpointTable,
    turn: &AtomicUsize,
    random: &mut impl FnMut() -> u64,
    tried: &[u32],
) -> Option<Arc<Endpoint>> {
    let untried = table.levels().iter().find_map(|level| pick_in(level, balance, turn, random, tried));
    untried.or_else(|| pick_in(table.levels().first()?, balance, turn, random, &[])).cloned()
}

/// Picks among those of one priority that were not tried; `None` when all were.
fn pick_in<'a>(
    level: &'a Level,
    balance: Balance,
    turn: &AtomicUsize,
    random: &mut impl FnMut() -> u64,
    tried: &[u32],
) -> Option<&'a Arc<Endpoint>> {
    let was_tried =
        |index: usize| level.endpoints.get(index).is_none_or(|endpoint| tried.contains(&endpoint.id));
    let index = match balance {
        Balance::RoundRobin => {
            let first = level.owner(next_point(level, turn));
            let count = level.endpoints.len();
            (0..count).map(|step| (first + step) % count).find(|index| !was_tried(*index))?
        }
        Balance::Random | Balance::Passthrough if tried.is_empty() => level.owner(random() % level.total),
        Balance::Random | Balance::Passthrough => draw(level, random(), was_tried)?,
        Balance::LeastRequest if tried.is_empty() => {
            let first = level.owner(random() % level.total);
            draw_other(level, random, first).map_or(first, |second| less_busy(level, first, second))
        }
        Balance::LeastRequest => {
            let first = draw(level, random(), was_tried)?;
            let second = draw(level, random(), |index| index == first || was_tried(index));
            second.map_or(first, |second| less_busy(level, first, second))
        }
    };
    level.endpoints.get(index)
}

fn next_point(level: &Level, turn: &AtomicUsize) -> u64 {
    let turn = turn.fetch_add(1, Ordering::Relaxed) as u64 % level.total;
    (u128::from(turn) * u128::from(level.stride) % u128::from(level.total)) as u64
}

/// An endpoint by weight, out of those that are not left out. Walks the level: for retries.
fn draw(level: &Level, random: u64, left_out: impl Fn(usize) -> bool) -> Option<usize> {
    let open = || {
        (0..level.endpoints.len()).filter(|index| !left_out(*index)).map(|index| (index, level.span(index).1))
    };
    let point = random.checked_rem(open().map(|(_, weight)| weight).sum())?;
    let mut until = 0;
    open()
        .find(|(_, weight)| {
            until += weight;
            point < until
        })
        .map(|(index, _)| index)
}

/// A second endpoint by weight, never the first one.
fn draw_other(level: &Level, random: &mut impl FnMut() -> u64, first: usize) -> Option<usize> {
    let (start, weight) = level.span(first);
    let rest = level.total - weight;
    if rest == 0 {
        return None;
    }
    let point = random() % rest;
    Some(level.owner(if point < start { point } else { point + weight }))
}

/// The one with fewer requests in flight for its weight; the first when they are even, which keeps the shares by weight when nobody is busy.
fn less_busy(level: &Level, first: usize, second: usize) -> usize {
    let load = |index: usize| {
        level
            .endpoints
            .get(index)
            .map_or(u64::MAX, |endpoint| u64::from(endpoint.active.load(Ordering::Relaxed)))
    };
    let (first_load, second_load) = (u128::from(load(first)), u128::from(load(second)));
    let (first_weight, second_weight) = (u128::from(level.span(first).1), u128::from(level.span(second).1));
    if second_load * first_weight < first_load * second_weight { second } else { first }
}

#[cfg(test)]
mod tests;
