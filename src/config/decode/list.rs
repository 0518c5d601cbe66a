//! `kind: List`, as `kubectl get -o yaml` writes it: each item is an object of its own.

use serde_yaml::Value as Decoded;

use super::agree;
use crate::config::spans::{Document, Fault, Outline, Value, push_index};

const ITEMS: &str = "items";

/// An item of a list.
pub(super) struct Item {
    pub(super) text: String,
    pub(super) outline: Outline,
}

/// Whether a document is a list of objects.
pub(super) fn is_list(outline: &Outline) -> bool {
    outline.text("kind").is_some_and(|kind| kind.ends_with("List"))
        && outline.text("apiVersion").is_some()
        && matches!(outline.find(ITEMS).and_then(|at| outline.value(at)), Some(Value::Sequence(_)))
}

/// The items of a list, or what is wrong with the list itself.
///
/// # Errors
///
/// Keys that stand twice, and text that two parsers read differently: nobody can tell which objects it holds.
pub(super) fn items(document: &Document<'_>) -> Result<Vec<Item>, Vec<Fault>> {
    let outline = &document.outline;
    let Some(nodes) = outline.find(ITEMS).and_then(|at| match outline.value(at)? {
        Value::Sequence(items) => Some(items),
        _ => None,
    }) else {
        return Ok(Vec::new());
    };
    // The decoder reads no text in which a key stands twice, so one bad item spoils the list.
    if !document.faults.is_empty() {
        return Err(document.faults.clone());
    }
    let ambiguous = |field: &str, message: String| {
        let (line, column) = outline.locate(field);
        let hint = "put the value in double quotes".to_owned();
        vec![Fault { code: "ambiguous-yaml", field: field.to_owned(), line, column, message, hint }]
    };
    let list: Decoded =
        serde_yaml::from_str(document.text).map_err(|error| ambiguous(ITEMS, error.to_string()))?;
    if let Some(field) = agree::difference(outline, &list) {
        return Err(ambiguous(&field, "can be read in two ways".to_owned()));
    }
    let values = list.get(ITEMS).and_then(Decoded::as_sequence).map_or(&[][..], Vec::as_slice);
    let mut items = Vec::with_capacity(nodes.len());
    for (index, (node, value)) in nodes.iter().zip(values).enumerate() {
        let mut prefix = ITEMS.to_owned();
        push_index(&mut prefix, index);
        let text = serde_yaml::to_string(value).map_err(|error| ambiguous(&prefix, error.to_string()))?;
        items.push(Item { text, outline: outline.part(*node) });
    }
    Ok(items)
}
