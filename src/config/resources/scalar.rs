//! Values that YAML writes as one scalar: durations, byte counts, times, base64, ports by number or name.

mod base64;
mod duration;
mod quantity;
mod timestamp;

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::mesh::{Word, name};

pub use base64::Base64;
pub use duration::Duration;
pub use quantity::Quantity;
pub use timestamp::Timestamp;

/// A port by number or by name, as a Kubernetes `targetPort` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IntOrString {
    /// The number.
    Number(u16),
    /// The name of a container port.
    Name(Word),
}

impl Serialize for IntOrString {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_u16(*number),
            Self::Name(name) => serializer.serialize_str(name),
        }
    }
}

impl<'de> Deserialize<'de> for IntOrString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PortVisitor)
    }
}

/// Reads a text with `FromStr`, so that the decoder knows the very place of an error.
pub(super) struct Parsed<T>(std::marker::PhantomData<T>);

impl<'de, T: std::str::FromStr<Err = &'static str>> Parsed<T> {
    pub(super) fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_str(Self(std::marker::PhantomData))
    }
}

impl<T: std::str::FromStr<Err = &'static str>> de::Visitor<'_> for Parsed<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(|why| {
            // A long text, such as a key in base64, would bury the message.
            let shown: String = text.chars().take(40).collect();
            E::custom(format_args!("`{shown}`: {why}"))
        })
    }
}

struct PortVisitor;

impl de::Visitor<'_> for PortVisitor {
    type Value = IntOrString;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a port number from 1 to 65535 or the name of a port")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<IntOrString, E> {
        u16::try_from(number)
            .map(IntOrString::Number)
            .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<IntOrString, E> {
        u16::try_from(number)
            .map(IntOrString::Number)
            .map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<IntOrString, E> {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return text
                .parse()
                .map(IntOrString::Number)
                .map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self));
        }
        Ok(IntOrString::Name(Word(name(text))))
    }
}

impl JsonSchema for IntOrString {
    fn schema_name() -> Cow<'static, str> {
        "IntOrString".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-int-or-string": true })
    }
}

#[cfg(test)]
mod tests;
