//! Istio's `StringMatch`: a string is exact, begins with a prefix, matches an expression, or is merely there.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How a string is compared. Written as a mapping with one key, as in `prefix: /api`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StringMatch {
    /// Equal.
    Exact(String),
    /// Begins with it.
    Prefix(String),
    /// The whole string matches the expression, in RE2 syntax.
    Regex(String),
    /// Merely present: an empty mapping, which Istio allows for headers.
    Present,
}

impl StringMatch {
    /// The text that is compared with, empty for [`StringMatch::Present`].
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Exact(text) | Self::Prefix(text) | Self::Regex(text) => text,
            Self::Present => "",
        }
    }
}

/// An empty match, as a mapping without keys is.
impl Default for StringMatch {
    fn default() -> Self {
        Self::Present
    }
}

const KEYS: &[&str] = &["exact", "prefix", "regex"];

impl Serialize for StringMatch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entry = match self {
            Self::Exact(text) => Some(("exact", text)),
            Self::Prefix(text) => Some(("prefix", text)),
            Self::Regex(text) => Some(("regex", text)),
            Self::Present => None,
        };
        let mut map = serializer.serialize_map(Some(usize::from(entry.is_some())))?;
        if let Some((key, text)) = entry {
            map.serialize_entry(key, text)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for StringMatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OneKey)
    }
}

struct OneKey;

impl<'de> Visitor<'de> for OneKey {
    type Value = StringMatch;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping with one of `exact`, `prefix` or `regex`, as in `prefix: /api`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<StringMatch, A::Error> {
        let mut found = StringMatch::Present;
        while let Some(key) = map.next_key::<String>()? {
            let text = map.next_value::<String>()?;
            if found != StringMatch::Present {
                return Err(A::Error::custom(format_args!(
                    "`{key}` stands beside another way to match; keep one of `exact`, `prefix`, `regex`"
                )));
            }
            found = match key.as_str() {
                "exact" => StringMatch::Exact(text),
                "prefix" => StringMatch::Prefix(text),
                "regex" => StringMatch::Regex(text),
                _ => return Err(A::Error::unknown_field(&key, KEYS)),
            };
        }
        Ok(found)
    }
}

impl JsonSchema for StringMatch {
    fn schema_name() -> Cow<'static, str> {
        "StringMatch".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "maxProperties": 1,
            "properties": {
                "exact": { "type": "string" },
                "prefix": { "type": "string" },
                "regex": { "type": "string" },
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::StringMatch;

    #[test]
    fn each_form_is_read_and_written_back() {
        for (yaml, expected) in [
            ("exact: a", StringMatch::Exact("a".into())),
            ("prefix: /b", StringMatch::Prefix("/b".into())),
            ("regex: c.*", StringMatch::Regex("c.*".into())),
            ("{}", StringMatch::Present),
        ] {
            let read: StringMatch = serde_yaml::from_str(yaml).unwrap();
            assert_eq!(read, expected);
            assert_eq!(serde_yaml::to_string(&read).unwrap().trim(), yaml);
        }
    }

    #[test]
    fn a_wrong_key_is_named() {
        let error = serde_yaml::from_str::<StringMatch>("suffix: x").unwrap_err().to_string();
        assert!(error.contains("`suffix`") && error.contains("`prefix`"), "{error}");
    }

    #[test]
    fn two_keys_are_refused() {
        let error = serde_yaml::from_str::<StringMatch>("exact: x\nprefix: y").unwrap_err().to_string();
        assert!(error.contains("keep one of"), "{error}");
    }
}
