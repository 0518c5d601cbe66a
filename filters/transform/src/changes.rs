//! Changes to header fields.

use crate::settings::{HeaderChange, HeaderChanges};
use http::header::{CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Header changes, ready to run.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
}

impl Changes {
    pub(crate) fn new(field: &str, changes: &HeaderChanges) -> Result<Self, String> {
        let remove = changes.remove.iter().map(|text| name(&format!("{field}.remove"), text));
        Ok(Self {
            remove: remove.collect::<Result<_, _>>()?,
            set: pairs(&format!("{field}.set"), &changes.set)?,
            add: pairs(&format!("{field}.add"), &changes.add)?,
        })
    }

    /// Applies the changes of all levels, one after the other: what is removed, set, added.
    pub(crate) fn apply<'a>(levels: impl Iterator<Item = &'a Self>, headers: &mut HeaderMap) {
        for changes in levels {
            for name in &changes.remove {
                headers.remove(name);
            }
            for (name, value) in &changes.set {
                headers.insert(name, value.clone());
            }
            for (name, value) in &changes.add {
                headers.append(name, value.clone());
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// In words, without values: they may be secret.
    pub(crate) fn words(&self, of: &str) -> String {
        let names =
            |pairs: &[(HeaderName, HeaderValue)]| pairs.iter().map(|(name, _)| name.to_string()).collect();
        let removed: Vec<String> = self.remove.iter().map(ToString::to_string).collect();
        let words = [("remove", removed), ("set", names(&self.set)), ("add", names(&self.add))];
        let words = words.iter().filter(|(_, names)| !names.is_empty());
        let words: Vec<String> = words.map(|(verb, names)| format!("{verb} {}", names.join(" "))).collect();
        format!("{of} headers: {}", words.join(", "))
    }
}

/// Header fields that frame a message or speak of one connection (RFC 9110 section 7.6.1). Written by somebody else, they would set two readers
/// of one connection at odds.
fn is_of_the_connection(name: &HeaderName) -> bool {
    [CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE].contains(name)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

fn name(field: &str, text: &str) -> Result<HeaderName, String> {
    HeaderName::try_from(text)
        .map_err(|_| format!("{field}: {text:?} is not a header name; write letters, digits and dashes"))
}

fn pairs(field: &str, changes: &[HeaderChange]) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let pair = |change: &HeaderChange| {
        let value = HeaderValue::try_from(change.value.as_str()).map_err(|_| {
            format!("{field}: the value of {} holds a control character; write it without", change.name)
        })?;
        let name = name(field, &change.name)?;
        if is_of_the_connection(&name) {
            return Err(format!(
                "{field}: {name} tells where a message ends or what a connection does, which the proxy alone knows; remove it"
            ));
        }
        Ok((name, value))
    };
    changes.iter().map(pair).collect()
}
