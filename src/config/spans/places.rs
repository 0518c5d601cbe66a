//! Where the fields of an object stand, small enough to be kept for as long as the object.

use std::hash::{Hash, Hasher};

use rustc_hash::FxHasher;

use super::outline::{Outline, Step, Value, steps};

/// Where the fields of one document stand: 20 bytes each, and nothing of what they say.
///
/// Keys are kept as hashes. Two keys of one mapping with the same hash would share a place, and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// In the order of the document: a field, all that is below it, the next field.
    spots: Box<[Spot]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Spot {
    line: u32,
    column: u32,
    /// One past the last spot below.
    end: u32,
    /// The hash of the key in a mapping, the index in a sequence.
    step: u32,
    in_mapping: bool,
}

impl Places {
    /// The places of all fields of a document; a value used by alias has its fields at each use.
    #[must_use]
    pub fn new(outline: &Outline) -> Self {
        let mut spots = Vec::new();
        if outline.value(Outline::ROOT).is_some() {
            flatten(outline, (Outline::ROOT, Outline::ROOT), (0, false), &mut spots);
        }
        Self { spots: spots.into() }
    }

    /// Line and column of a field, or of its nearest ancestor that was written. A key counts as the place of its value.
    #[must_use]
    pub fn locate(&self, path: &str) -> (u32, u32) {
        let mut at = 0;
        for step in steps(path) {
            let (wanted, in_mapping) = match &step {
                Step::Key(key) => (hash(key), true),
                Step::Index(index) => (number(*index), false),
            };
            match self.below(at).find(|(_, spot)| spot.step == wanted && spot.in_mapping == in_mapping) {
                Some((found, _)) => at = found,
                None => break,
            }
        }
        self.spots.get(at).map_or((1, 1), |spot| (spot.line, spot.column))
    }

    /// The fields directly below one.
    fn below(&self, at: usize) -> impl Iterator<Item = (usize, &Spot)> {
        let end = self.spots.get(at).map_or(0, |spot| spot.end as usize);
        let mut next = at + 1;
        std::iter::from_fn(move || {
            let here = next;
            let spot = self.spots.get(here).filter(|_| here < end)?;
            next = spot.end as usize;
            Some((here, spot))
        })
    }
}

fn flatten(
    outline: &Outline,
    (place, value): (usize, usize),
    (step, in_mapping): (u32, bool),
    spots: &mut Vec<Spot>,
) {
    let (line, column) = outline.position(place);
    let at = spots.len();
    spots.push(Spot { line, column, end: 0, step, in_mapping });
    match outline.value(value) {
        Some(Value::Mapping(entries)) => {
            for (key, place, value) in entries {
                flatten(outline, (*place, *value), (hash(key), true), spots);
            }
        }
        Some(Value::Sequence(items)) => {
            for (index, item) in items.iter().enumerate() {
                flatten(outline, (*item, *item), (number(index), false), spots);
            }
        }
        _ => {}
    }
    let end = number(spots.len());
    if let Some(spot) = spots.get_mut(at) {
        spot.end = end;
    }
}

fn hash(key: &str) -> u32 {
    let mut hasher = FxHasher::default();
    key.hash(&mut hasher);
    let hash = hasher.finish();
    // Its low half; the high one is folded in.
    u32::try_from((hash ^ (hash >> 32)) & u64::from(u32::MAX)).unwrap_or_default()
}

fn number(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
