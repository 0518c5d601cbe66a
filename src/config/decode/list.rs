//! `kind: List`, as `kubectl get -o yaml` writes it: each item is an object of its own, and so is what is wrong with it.

use crate::config::spans::{Document, Fault, Outline, Step, Value, push_index, push_key, steps};

const ITEMS: &str = "items";

/// Whether a document is a list of objects.
pub(super) fn is_list(outline: &Outline) -> bool {
    outline.text("kind").is_some_and(|kind| kind.ends_with("List"))
        && outline.text("apiVersion").is_some()
        && matches!(outline.find(ITEMS).and_then(|at| outline.value(at)), Some(Value::Sequence(_)))
}

/// The items of a list, each as a document with its own faults, and what is wrong with the list itself. That goes for every item as well:
/// nobody can tell which of two lists counts.
pub(super) fn items(document: &Document) -> (Vec<Document>, Vec<Fault>) {
    let outline = &document.outline;
    // `items` may stand twice.
    let entries = match outline.value(Outline::ROOT) {
        Some(Value::Mapping(entries)) => entries.as_slice(),
        _ => &[],
    };
    let lists = entries.iter().filter(|(key, ..)| **key == *ITEMS);
    let nodes = lists.filter_map(|(_, _, list)| match outline.value(*list) {
        Some(Value::Sequence(items)) => Some(items),
        _ => None,
    });
    let nodes = nodes.enumerate().flat_map(|(list, items)| {
        items.iter().enumerate().map(move |(index, node)| ((list == 0).then_some(index), *node))
    });
    let mut of_list = Vec::new();
    let mut of_items: Vec<Vec<Fault>> = Vec::new();
    for fault in &document.faults {
        match below_item(&fault.field) {
            Some((index, field)) => {
                if of_items.len() <= index {
                    of_items.resize_with(index + 1, Vec::new);
                }
                if let Some(faults) = of_items.get_mut(index) {
                    faults.push(Fault { field, ..fault.clone() });
                }
            }
            None => of_list.push(fault.clone()),
        }
    }
    let item = |(index, node): (Option<usize>, usize)| {
        let own = index.and_then(|index| of_items.get(index)).into_iter().flatten();
        let faults = own.chain(&of_list).cloned().collect();
        Document { outline: outline.part(node), faults }
    };
    (nodes.map(item).collect(), of_list.clone())
}

/// The index and the rest of a field such as `items[3].spec.host`.
fn below_item(field: &str) -> Option<(usize, String)> {
    let mut steps = steps(field);
    let (Some(Step::Key(key)), Some(Step::Index(index))) = (steps.next(), steps.next()) else { return None };
    if key != ITEMS {
        return None;
    }
    let mut rest = String::new();
    for step in steps {
        match step {
            Step::Key(key) => push_key(&mut rest, &key),
            Step::Index(index) => push_index(&mut rest, index),
        }
    }
    Some((index, rest))
}
