//! Changes to header fields.

use crate::settings::{HeaderChange, HeaderChanges};
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

    /// Applies the changes of all levels: every removal first, then level by level what is set and added.
    pub(crate) fn apply<'a>(levels: impl Iterator<Item = &'a Self> + Clone, headers: &mut HeaderMap) {
        for name in levels.clone().flat_map(|changes| &changes.remove) {
            headers.remove(name);
        }
        for changes in levels {
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

fn name(field: &str, text: &str) -> Result<HeaderName, String> {
    HeaderName::try_from(text)
        .map_err(|_| format!("{field}: {text:?} is not a header name; write letters, digits and dashes"))
}

fn pairs(field: &str, changes: &[HeaderChange]) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let pair = |change: &HeaderChange| {
        let value = HeaderValue::try_from(change.value.as_str()).map_err(|_| {
            format!("{field}: the value of {} holds a control character; write it without", change.name)
        })?;
        Ok((name(field, &change.name)?, value))
    };
    changes.iter().map(pair).collect()
}
