//! The shape of one document: which fields were written, and where.

use std::fmt::Write as _;
use std::ops::Range;

/// The shape of one document: which fields were written, and where.
///
/// A field is named by its path, as in `spec.http[2].route[0].destination.host`. A key that is more than letters,
/// digits, `-`, `_` and `/` stands in brackets, as in `metadata.labels["a.b/c"]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    nodes: Vec<Node>,
}

/// What stands at a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A scalar: its text, and whether it was written without quotes.
    Scalar(Box<str>, bool),
    /// The indexes of the items.
    Sequence(Vec<usize>),
    /// Key, index of the key's place, index of the value.
    Mapping(Vec<Entry>),
}

/// Key, index of the key's place, index of the value.
pub type Entry = (Box<str>, usize, usize);

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Into a mapping.
    Key(std::borrow::Cow<'a, str>),
    /// Into a sequence.
    Index(usize),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    line: u32,
    column: u32,
    value: Value,
}

impl Outline {
    /// The index of the whole document.
    pub const ROOT: usize = 0;

    /// An outline of which nothing is known but its line, from 1.
    #[must_use]
    pub fn at(line: u32) -> Self {
        let mut outline = Self::default();
        outline.push(line, 1, Value::Mapping(Vec::new()));
        outline
    }

    pub(super) fn push(&mut self, line: u32, column: u32, value: Value) -> usize {
        self.nodes.push(Node { line, column, value });
        self.nodes.len() - 1
    }

    pub(super) fn value_mut(&mut self, index: usize) -> Option<&mut Value> {
        self.nodes.get_mut(index).map(|node| &mut node.value)
    }

    /// What stands at an index, `None` for an index of another document.
    #[must_use]
    pub fn value(&self, index: usize) -> Option<&Value> {
        self.nodes.get(index).map(|node| &node.value)
    }

    /// Takes a field away, wherever it stands twice too; an item of a sequence stays, as null.
    pub fn remove(&mut self, path: &str) {
        let mut parent = None;
        let mut at = Self::ROOT;
        let mut last = None;
        for step in steps(path) {
            let next = match (self.value(at), &step) {
                (Some(Value::Mapping(entries)), Step::Key(key)) => {
                    entries.iter().find(|(name, ..)| **name == **key).map(|(_, _, value)| *value)
                }
                (Some(Value::Sequence(items)), Step::Index(index)) => items.get(*index).copied(),
                _ => None,
            };
            let Some(next) = next else { return };
            parent = Some(at);
            at = next;
            last = Some(step);
        }
        match (last, parent.and_then(|parent| self.value_mut(parent))) {
            (Some(Step::Key(key)), Some(Value::Mapping(entries))) => {
                entries.retain(|(name, ..)| **name != *key);
            }
            (Some(Step::Index(_)), Some(_)) => {
                if let Some(value) = self.value_mut(at) {
                    *value = Value::Scalar(Box::default(), true);
                }
            }
            _ => {}
        }
    }

    /// What stands at an index, as an outline of its own.
    #[must_use]
    pub fn part(&self, index: usize) -> Self {
        let mut part = Self::default();
        self.copy(index, &mut part);
        part
    }

    /// The document with some of the entries of its top alone, by their order.
    #[must_use]
    pub fn with_entries(&self, range: Range<usize>) -> Self {
        let mut part = Self::default();
        let entries = match self.value(Self::ROOT) {
            Some(Value::Mapping(entries)) => entries.get(range).unwrap_or_default(),
            _ => &[],
        };
        let (line, column) = self.position(entries.first().map_or(Self::ROOT, |(_, place, _)| *place));
        part.push(line, column, Value::Mapping(Vec::new()));
        let copied = self.copy_entries(entries, &mut part);
        if let Some(value) = part.value_mut(Self::ROOT) {
            *value = Value::Mapping(copied);
        }
        part
    }

    fn copy_entries(&self, entries: &[Entry], to: &mut Self) -> Vec<Entry> {
        let copy = |(key, place, value): &Entry| {
            let (line, column) = self.position(*place);
            (key.clone(), to.push(line, column, Value::Scalar(Box::default(), true)), self.copy(*value, to))
        };
        entries.iter().map(copy).collect()
    }

    fn copy(&self, from: usize, to: &mut Self) -> usize {
        let (line, column) = self.position(from);
        let nothing = || Value::Scalar(Box::default(), true);
        let at = to.push(line, column, self.value(from).cloned().unwrap_or_else(nothing));
        let copied = match self.value(from) {
            Some(Value::Sequence(items)) => {
                Value::Sequence(items.iter().map(|item| self.copy(*item, to)).collect())
            }
            Some(Value::Mapping(entries)) => Value::Mapping(self.copy_entries(entries, to)),
            Some(Value::Scalar(..)) | None => return at,
        };
        if let Some(value) = to.value_mut(at) {
            *value = copied;
        }
        at
    }

    /// Line and column of an index, from 1.
    #[must_use]
    pub fn position(&self, index: usize) -> (u32, u32) {
        self.nodes.get(index).map_or((1, 1), |node| (node.line, node.column))
    }

    /// The index of a field that was written.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<usize> {
        self.follow(path).ok().map(|(_, value)| value)
    }

    /// The text of a scalar.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<&str> {
        match self.value(self.find(path)?)? {
            Value::Scalar(text, _) => Some(text),
            _ => None,
        }
    }

    /// Line and column of a field, or of its nearest ancestor that was written. A key counts as the place of its value.
    #[must_use]
    pub fn locate(&self, path: &str) -> (u32, u32) {
        let (Ok((place, _)) | Err(place)) = self.follow(path);
        self.position(place)
    }

    /// Place and value of a field, or the place of its nearest ancestor.
    fn follow(&self, path: &str) -> Result<(usize, usize), usize> {
        let (mut place, mut at) = (Self::ROOT, Self::ROOT);
        for step in steps(path) {
            (place, at) = match (self.value(at), &step) {
                (Some(Value::Mapping(entries)), Step::Key(key)) => {
                    entries.iter().find(|(name, ..)| **name == **key).map(|&(_, place, value)| (place, value))
                }
                (Some(Value::Sequence(items)), Step::Index(index)) => {
                    items.get(*index).map(|&item| (item, item))
                }
                _ => None,
            }
            .ok_or(place)?;
        }
        Ok((place, at))
    }
}

/// Appends a key to a path, in brackets where a dot would be ambiguous.
pub fn push_key(path: &mut String, key: &str) {
    if !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'/')) {
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(key);
    } else {
        path.push_str("[\"");
        for c in key.chars() {
            if matches!(c, '"' | '\\') {
                path.push('\\');
            }
            path.push(c);
        }
        path.push_str("\"]");
    }
}

/// Appends an index to a path.
pub fn push_index(path: &mut String, index: usize) {
    // Writing to a String cannot fail.
    let _ = write!(path, "[{index}]");
}

/// The steps of a path; ends early where the path is malformed, so that its beginning still counts.
pub fn steps(path: &str) -> impl Iterator<Item = Step<'_>> {
    let mut rest = path;
    std::iter::from_fn(move || {
        rest = rest.strip_prefix('.').unwrap_or(rest);
        if let Some(quoted) = rest.strip_prefix("[\"") {
            let mut key = String::new();
            let mut chars = quoted.char_indices();
            while let Some((at, c)) = chars.next() {
                match c {
                    '\\' => key.extend(chars.next().map(|(_, c)| c)),
                    '"' => {
                        rest = quoted[at + 1..].strip_prefix(']')?;
                        return Some(Step::Key(key.into()));
                    }
                    other => key.push(other),
                }
            }
            return None;
        }
        if let Some(bracket) = rest.strip_prefix('[') {
            let (index, tail) = bracket.split_once(']')?;
            rest = tail;
            return index.parse().ok().map(Step::Index);
        }
        let (key, tail) = rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len()));
        rest = tail;
        (!key.is_empty()).then(|| Step::Key(key.into()))
    })
}
