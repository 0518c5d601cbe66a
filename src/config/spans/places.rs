//! Where the fields of an object stand, small enough to be kept for as long as the object.

use std::hash::{Hash, Hasher};

use rustc_hash::FxHasher;

use super::outline::{Outline, Step, Value, steps};

/// Where the fields of one document stand: some seven bytes each, and nothing of what they say.
///
/// Keys are kept as hashes. Two keys of one mapping with the same hash would share a place, and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// In the order of the document: a field, all that is below it, the next field.
    spots: Box<[u8]>,
}

/// Where one field stands.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Spot {
    line: u32,
    column: u32,
    /// How many steps lead here.
    depth: u32,
    /// The last of them: the hash of a key in a mapping, or an index in a sequence.
    step: u32,
    in_mapping: bool,
}

/// A key's hash is cut to this many bits, which take three bytes.
const HASH_BITS: u32 = 21;

impl Places {
    /// The places of all fields of a document; a value used by alias has its fields at each use.
    #[must_use]
    pub fn new(outline: &Outline) -> Self {
        let mut writer = Writer::default();
        if outline.value(Outline::ROOT).is_some() {
            flatten(outline, (Outline::ROOT, Outline::ROOT), Spot::default(), &mut writer);
        }
        Self { spots: writer.bytes.into() }
    }

    /// Line and column of a field, or of its nearest ancestor that was written. A key counts as the place of its value.
    #[must_use]
    pub fn locate(&self, path: &str) -> (u32, u32) {
        let mut spots = Reader { bytes: &self.spots, line: 0 };
        let Some(mut at) = spots.next() else { return (1, 1) };
        for step in steps(path) {
            let (wanted, in_mapping) = match &step {
                Step::Key(key) => (hash(key), true),
                Step::Index(index) => (number(*index), false),
            };
            let mut below = spots.by_ref().take_while(|spot| spot.depth > at.depth);
            let is_next = |spot: &Spot| {
                spot.depth == at.depth + 1 && spot.step == wanted && spot.in_mapping == in_mapping
            };
            match below.find(is_next) {
                Some(found) => at = found,
                None => break,
            }
        }
        (at.line, at.column)
    }
}

fn flatten(outline: &Outline, (place, value): (usize, usize), at: Spot, writer: &mut Writer) {
    let (line, column) = outline.position(place);
    writer.push(Spot { line, column, ..at });
    let below = |step, in_mapping| Spot { depth: at.depth + 1, step, in_mapping, ..at };
    match outline.value(value) {
        Some(Value::Mapping(entries)) => {
            for (key, place, value) in entries {
                flatten(outline, (*place, *value), below(hash(key), true), writer);
            }
        }
        Some(Value::Sequence(items)) => {
            for (index, item) in items.iter().enumerate() {
                flatten(outline, (*item, *item), below(number(index), false), writer);
            }
        }
        _ => {}
    }
}

/// Writes spots as numbers of seven bits a byte, the lowest first; a set high bit says that more follow.
#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
    line: u32,
}

impl Writer {
    fn push(&mut self, spot: Spot) {
        // An alias leads back to an earlier line: the lowest bit is the sign.
        let back = spot.line < self.line;
        let lines = spot.line.abs_diff(self.line);
        self.line = spot.line;
        for number in [
            lines.saturating_mul(2) | u32::from(back),
            spot.column,
            spot.depth.saturating_mul(2) | u32::from(spot.in_mapping),
            spot.step,
        ] {
            self.number(number);
        }
    }

    fn number(&mut self, mut number: u32) {
        while number > 0x7f {
            self.bytes.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }
}

/// Reads what [`Writer`] wrote.
struct Reader<'a> {
    bytes: &'a [u8],
    line: u32,
}

impl Reader<'_> {
    fn number(&mut self) -> Option<u32> {
        let mut number = 0;
        for shift in [0, 7, 14, 21, 28] {
            let (byte, rest) = self.bytes.split_first()?;
            self.bytes = rest;
            number |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        Some(number)
    }
}

impl Iterator for Reader<'_> {
    type Item = Spot;

    fn next(&mut self) -> Option<Spot> {
        let lines = self.number()?;
        let (column, depth, step) = (self.number()?, self.number()?, self.number()?);
        let distance = lines / 2;
        self.line = if lines % 2 == 1 {
            self.line.saturating_sub(distance)
        } else {
            self.line.saturating_add(distance)
        };
        Some(Spot { line: self.line, column, depth: depth / 2, step, in_mapping: depth % 2 == 1 })
    }
}

fn hash(key: &str) -> u32 {
    let mut hasher = FxHasher::default();
    key.hash(&mut hasher);
    u32::try_from(hasher.finish() >> (64 - HASH_BITS)).unwrap_or_default()
}

fn number(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
