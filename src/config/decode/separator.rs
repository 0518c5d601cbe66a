//! A document in which a `---` is missing: the objects that it runs together, each rejected, each known.

use crate::config::spans::{Document, Fault, Outline, Value};

/// The fault of a key at the top that stands twice.
pub(super) const MISSING: &str = "missing-separator";

/// What an object begins with. One of them for the second time begins the next object.
const BEGINNING: [&str; 4] = ["apiVersion", "kind", "metadata", "spec"];

/// The objects of a document, one where nothing is missing. Each of several is told of the place where the `---` is missing.
pub(super) fn split(document: Document) -> Vec<Document> {
    let starts = starts(&document);
    if starts.len() < 2 {
        return vec![document];
    }
    let Document { outline, faults } = document;
    let count = match outline.value(Outline::ROOT) {
        Some(Value::Mapping(entries)) => entries.len(),
        _ => 0,
    };
    let position = |start: usize| match outline.value(Outline::ROOT) {
        Some(Value::Mapping(entries)) => entries.get(start).map(|(_, place, _)| outline.position(*place)),
        _ => None,
    };
    let ends = starts.iter().copied().skip(1).chain([count]);
    let parts = starts.iter().copied().zip(ends).map(|(start, end)| {
        let (from, to) = (position(start), position(end));
        let inside = |fault: &&Fault| {
            let at = Some((fault.line, fault.column));
            at >= from && (to.is_none() || at < to)
        };
        // Of the next object when this is the first: its end is missing, too.
        let border = if start == 0 { to } else { from };
        let missing = faults.iter().filter(|fault| fault.code == MISSING);
        let missing = missing.filter(|fault| Some((fault.line, fault.column)) == border);
        let own = faults.iter().filter(|fault| fault.code != MISSING).filter(inside);
        Document { outline: outline.with_entries(start..end), faults: missing.chain(own).cloned().collect() }
    });
    parts.collect()
}

/// The entries with which objects begin.
fn starts(document: &Document) -> Vec<usize> {
    let Some(Value::Mapping(entries)) = document.outline.value(Outline::ROOT) else { return Vec::new() };
    let mut starts = vec![0];
    let mut seen: Vec<&str> = Vec::new();
    for (at, (key, ..)) in entries.iter().enumerate() {
        if !BEGINNING.contains(&&**key) {
            continue;
        }
        if seen.contains(&&**key) {
            // Without a name of its own it is a second half of the same object.
            let rest = entries.get(at..).unwrap_or_default();
            let next =
                rest.iter().skip(1).position(|(other, ..)| other == key).map_or(rest.len(), |at| at + 1);
            let named = |word: &str| rest.iter().take(next).any(|(key, ..)| **key == *word);
            if !named("kind") && !named("apiVersion") {
                continue;
            }
            starts.push(at);
            seen.clear();
        }
        seen.push(key);
    }
    starts
}
