//! Where the fields of an object stand, small enough to be kept for as long as the object.

use std::hash::{Hash, Hasher};

use rustc_hash::FxHasher;

use super::outline::{Outline, Step, Value, steps};

/// Where the fields of one document stand: 12 bytes each, and nothing of what they say.
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
    /// The hash of the key in a mapping, the index in a sequence.
    step: u32,
    /// A column further to the right counts as this one.
    column: u16,
    /// How many steps lead here; documents are not nested deeper than [`MAX_DEPTH`](super::MAX_DEPTH).
    depth: u8,
    in_mapping: bool,
}

impl Places {
    /// The places of all fields of a document; a value used by alias has its fields at each use.
    #[must_use]
    pub fn new(outline: &Outline) -> Self {
        let mut spots = Vec::new();
        if outline.value(Outline::ROOT).is_some() {
            flatten(outline, (Outline::ROOT, Outline::ROOT), (0, 0, false), &mut spots);
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
        self.spots.get(at).map_or((1, 1), |spot| (spot.line, u32::from(spot.column)))
    }

    /// The fields directly below one.
    fn below(&self, at: usize) -> impl Iterator<Item = (usize, &Spot)> {
        let depth = self.spots.get(at).map_or(0, |spot| spot.depth);
        let after = self.spots.iter().enumerate().skip(at + 1);
        after.take_while(move |(_, spot)| spot.depth > depth).filter(move |(_, spot)| spot.depth - 1 == depth)
    }
}

fn flatten(
    outline: &Outline,
    (place, value): (usize, usize),
    (step, depth, in_mapping): (u32, u8, bool),
    spots: &mut Vec<Spot>,
) {
    let (line, column) = outline.position(place);
    spots.push(Spot { line, step, column: u16::try_from(column).unwrap_or(u16::MAX), depth, in_mapping });
    // Deeper than any document is: an alias within an alias may add up to that.
    let Some(below) = depth.checked_add(1) else { return };
    match outline.value(value) {
        Some(Value::Mapping(entries)) => {
            for (key, place, value) in entries {
                flatten(outline, (*place, *value), (hash(key), below, true), spots);
            }
        }
        Some(Value::Sequence(items)) => {
            for (index, item) in items.iter().enumerate() {
                flatten(outline, (*item, *item), (number(index), below, false), spots);
            }
        }
        _ => {}
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
