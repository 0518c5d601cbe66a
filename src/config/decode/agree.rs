//! Makes sure that both readings of a document say the same.
//!
//! Places come from one YAML parser and values from another. Where they disagree, one of them would enforce what the
//! other never checked, so such a document is refused.

use serde_yaml::Value as Decoded;

use crate::config::spans::{Outline, Value, push_index, push_key};

/// The first field that the two parsers read differently.
pub(super) fn difference(outline: &Outline, decoded: &Decoded) -> Option<String> {
    differs(outline, Outline::ROOT, decoded, &mut String::new())
}

fn differs(outline: &Outline, at: usize, decoded: &Decoded, path: &mut String) -> Option<String> {
    let length = path.len();
    match (outline.value(at), decoded) {
        (Some(Value::Mapping(entries)), Decoded::Mapping(mapping)) if entries.len() == mapping.len() => {
            for ((key, _, node), (decoded_key, value)) in entries.iter().zip(mapping) {
                push_key(path, key);
                if decoded_key.as_str().is_some_and(|decoded_key| decoded_key != &**key) {
                    return Some(path.clone());
                }
                if let Some(found) = differs(outline, *node, value, path) {
                    return Some(found);
                }
                path.truncate(length);
            }
            None
        }
        (Some(Value::Sequence(items)), Decoded::Sequence(values)) if items.len() == values.len() => {
            for (index, (item, value)) in items.iter().zip(values).enumerate() {
                push_index(path, index);
                if let Some(found) = differs(outline, *item, value, path) {
                    return Some(found);
                }
                path.truncate(length);
            }
            None
        }
        // The outline holds the beginning of a text.
        (Some(Value::Scalar(text, _)), Decoded::String(value)) if value.starts_with(&**text) => None,
        (Some(Value::Scalar(..)), Decoded::Null | Decoded::Bool(_) | Decoded::Number(_)) => None,
        _ => Some(path.clone()),
    }
}
