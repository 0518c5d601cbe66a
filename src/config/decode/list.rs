//! `kind: List`, as `kubectl get -o yaml` writes it: each item is an object of its own.

use crate::config::spans::{Document, Fault, Outline, Value};

const ITEMS: &str = "items";

/// Whether a document is a list of objects.
pub(super) fn is_list(outline: &Outline) -> bool {
    outline.text("kind").is_some_and(|kind| kind.ends_with("List"))
        && outline.text("apiVersion").is_some()
        && matches!(outline.find(ITEMS).and_then(|at| outline.value(at)), Some(Value::Sequence(_)))
}

/// The items of a list, each as a document, or what is wrong with the list itself.
///
/// # Errors
///
/// Keys that stand twice: nobody can tell which objects it holds.
pub(super) fn items(document: &Document) -> Result<impl Iterator<Item = Document>, &[Fault]> {
    if !document.faults.is_empty() {
        return Err(&document.faults);
    }
    let outline = &document.outline;
    let nodes = match outline.find(ITEMS).and_then(|at| outline.value(at)) {
        Some(Value::Sequence(items)) => items.as_slice(),
        _ => &[],
    };
    Ok(nodes.iter().map(|node| Document { outline: outline.part(*node), faults: Vec::new() }))
}
