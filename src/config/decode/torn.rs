//! The security objects of a text that is no YAML: what can still be told of them is their kind, and with luck their namespace.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::{Object, closed};
use crate::config::resources::{EVERYWHERE, Kind, ObjectKey, Placement};
use crate::config::spans::{Broken, Outline, Place};
use crate::mesh;

/// What stands in for each security object that a broken document seems to hold.
pub(super) fn objects(file: &Arc<Path>, text: &str, broken: &Broken) -> Vec<Object> {
    let piece = text.get(broken.text.clone()).unwrap_or_default();
    let kinds = words_after(piece, "kind").filter_map(|(at, word)| {
        let kind = Kind::ALL.into_iter().find(|kind| kind.closes() && kind.name() == word)?;
        Some((kind, at))
    });
    let namespace = namespace(piece);
    kinds
        .map(|(kind, at)| object(file, kind, namespace, broken, piece.get(..at).unwrap_or_default()))
        .collect()
}

fn object(file: &Arc<Path>, kind: Kind, namespace: &str, broken: &Broken, before: &str) -> Object {
    let lines = u32::try_from(before.matches('\n').count()).unwrap_or(u32::MAX);
    let line = broken.line.saturating_add(lines);
    let key = ObjectKey { kind, namespace: mesh::name(namespace), name: mesh::name(&unnamed(file, line)) };
    let placement = Arc::new(Placement::new(Arc::clone(file), &Outline::at(line)));
    let message = format!("its file is broken at line {}: {}", broken.fault.line, broken.fault.message);
    let stand_in = closed::namespace(&key, &placement, message);
    let place = Place { file: Arc::clone(file), line, column: 1 };
    Object { key, place, resource: None, stand_in: Some(Arc::new(stand_in)), findings: Vec::new() }
}

/// The name of an object without one: it cannot be written.
pub(super) fn unnamed(file: &Path, line: u32) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    format!("({name}:{line})")
}

/// The only namespace that a text speaks of; it may stand in the part that is missing.
fn namespace(text: &str) -> &str {
    let mut all = words_after(text, "namespace").map(|(_, word)| word);
    match all.next() {
        Some(first) if all.all(|other| other == first) => first,
        _ => EVERYWHERE,
    }
}

/// Whatever follows a key, in block, flow or JSON style, with its place.
fn words_after<'t>(text: &'t str, key: &'static str) -> impl Iterator<Item = (usize, &'t str)> {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    text.match_indices(key).filter_map(move |(at, _)| {
        let Range { start, end } = at..at + key.len();
        let rest = text.get(end..)?;
        let rest = rest.strip_prefix(['"', '\'']).unwrap_or(rest).trim_start_matches([' ', '\t']);
        let value = rest.strip_prefix(':')?.trim_start_matches([' ', '\t', '"', '\'']);
        let whole = text.get(..start).and_then(|before| before.chars().next_back()).is_none_or(|c| !word(c));
        let found = value.split(|c| !word(c)).next().filter(|found| !found.is_empty())?;
        whole.then_some((start, found))
    })
}
