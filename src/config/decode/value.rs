//! Decodes what stands at a node of an outline, so that a document is parsed once for places and values alike.
//!
//! Plain scalars are read as of YAML 1.2's core schema: `yes` and `010` are texts. A field of text takes any scalar as it was written.

use std::borrow::Cow;
use std::fmt;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};

use crate::config::spans::{Outline, Step, Value, push_index, push_key};

/// Why a value cannot be decoded, and the field below the node that is at fault.
#[derive(Debug)]
pub(super) struct Error {
    /// From the innermost outwards.
    steps: Vec<Step<'static>>,
    message: String,
}

impl Error {
    /// The field, from `prefix` on.
    pub(super) fn field(&self, prefix: &str) -> String {
        let mut path = prefix.to_owned();
        for step in self.steps.iter().rev() {
            match step {
                Step::Key(key) => push_key(&mut path, key),
                Step::Index(index) => push_index(&mut path, *index),
            }
        }
        path
    }

    fn below(mut self, step: impl FnOnce() -> Step<'static>) -> Self {
        self.steps.push(step());
        self
    }
}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { steps: Vec::new(), message: message.to_string() }
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Decodes a node of an outline.
///
/// # Errors
///
/// Says what was expected, and at which field.
pub(super) fn decode<T: DeserializeOwned>(outline: &Outline, at: usize) -> Result<T, Error> {
    T::deserialize(Node { outline, at })
}

#[derive(Clone, Copy)]
struct Node<'o> {
    outline: &'o Outline,
    at: usize,
}

impl<'o> Node<'o> {
    fn value(self) -> Option<&'o Value> {
        self.outline.value(self.at)
    }

    fn child(self, at: usize) -> Self {
        Self { at, ..self }
    }

    /// Nothing was written, or a plain `null`.
    fn is_null(self) -> bool {
        match self.value() {
            None => true,
            Some(Value::Scalar(text, plain)) => *plain && is_null(text),
            Some(_) => false,
        }
    }

    fn sequence<V: Visitor<'o>>(self, items: &'o [usize], visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(Items { node: self, items: items.iter().enumerate() })
    }

    fn mapping<V: Visitor<'o>>(
        self,
        entries: &'o [(Box<str>, usize, usize)],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_map(Entries { node: self, entries: entries.iter(), value: None })
    }
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// A whole number as the core schema writes it. Leading zeros make a text.
fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let radices = [("0x", 16), ("0o", 8), ("0b", 2)];
    let prefixed = radices.iter().find_map(|(prefix, radix)| Some((digits.strip_prefix(prefix)?, *radix)));
    let (digits, radix) = prefixed.unwrap_or((digits, 10));
    let zeros = radix == 10 && digits.len() > 1 && digits.starts_with('0');
    // `from_str_radix` would take a second sign.
    if zeros || !digits.starts_with(|first: char| first.is_digit(radix)) {
        return None;
    }
    let number = i128::from_str_radix(digits, radix).ok()?;
    Some(if negative { -number } else { number })
}

fn float(text: &str) -> Option<f64> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    match digits {
        ".inf" | ".Inf" | ".INF" => {
            return Some(if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY });
        }
        ".nan" | ".NaN" | ".NAN" => return Some(f64::NAN),
        _ => {}
    }
    // `parse` takes words such as `infinity` and a second sign; leading zeros make a text.
    let zeros = digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
    if zeros || !digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

fn visit_plain<'o, V: Visitor<'o>>(text: &'o str, visitor: V) -> Result<V::Value, Error> {
    match text {
        "true" | "True" | "TRUE" => return visitor.visit_bool(true),
        "false" | "False" | "FALSE" => return visitor.visit_bool(false),
        text if is_null(text) => return visitor.visit_unit(),
        _ => {}
    }
    if let Some(number) = integer(text) {
        if let Ok(number) = u64::try_from(number) {
            return visitor.visit_u64(number);
        }
        if let Ok(number) = i64::try_from(number) {
            return visitor.visit_i64(number);
        }
    }
    match float(text) {
        Some(number) => visitor.visit_f64(number),
        None => visitor.visit_borrowed_str(text),
    }
}

impl<'o> Deserializer<'o> for Node<'o> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'o>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value() {
            None => visitor.visit_unit(),
            Some(Value::Scalar(text, true)) => visit_plain(text, visitor),
            Some(Value::Scalar(text, false)) => visitor.visit_borrowed_str(text),
            Some(Value::Sequence(items)) => self.sequence(items, visitor),
            Some(Value::Mapping(entries)) => self.mapping(entries, visitor),
        }
    }

    fn deserialize_str<V: Visitor<'o>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value() {
            Some(Value::Scalar(text, _)) => visitor.visit_borrowed_str(text),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'o>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'o>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'o>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    // A null says nothing, as in Kubernetes: an empty list, or a struct of defaults.
    fn deserialize_seq<V: Visitor<'o>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.is_null() { self.sequence(&[], visitor) } else { self.deserialize_any(visitor) }
    }

    fn deserialize_map<V: Visitor<'o>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.is_null() { self.mapping(&[], visitor) } else { self.deserialize_any(visitor) }
    }

    fn deserialize_struct<V: Visitor<'o>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.value() {
            // A struct is a mapping: a list by the order of fields is a mistake.
            Some(Value::Sequence(_)) => Err(de::Error::invalid_type(de::Unexpected::Seq, &visitor)),
            _ => self.deserialize_map(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'o>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.value() {
            Some(Value::Scalar(text, _)) => visitor.visit_enum(Variant { name: text, node: None }),
            Some(Value::Mapping(entries)) if entries.len() == 1 => match entries.first() {
                Some((name, _, value)) => {
                    visitor.visit_enum(Variant { name, node: Some(self.child(*value)) })
                }
                None => self.deserialize_any(visitor),
            },
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'o>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        <W: Visitor<'o>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple
        tuple_struct identifier
    }
}

struct Items<'o, I> {
    node: Node<'o>,
    items: I,
}

impl<'o, I: Iterator<Item = (usize, &'o usize)>> SeqAccess<'o> for Items<'o, I> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'o>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some((index, item)) = self.items.next() else { return Ok(None) };
        let element = seed.deserialize(self.node.child(*item));
        element.map(Some).map_err(|error| error.below(|| Step::Index(index)))
    }

    fn size_hint(&self) -> Option<usize> {
        self.items.size_hint().1
    }
}

struct Entries<'o, I> {
    node: Node<'o>,
    entries: I,
    value: Option<(&'o str, usize)>,
}

impl<'o, I: Iterator<Item = &'o (Box<str>, usize, usize)>> MapAccess<'o> for Entries<'o, I> {
    type Error = Error;

    fn next_key_seed<T: DeserializeSeed<'o>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some((key, _, value)) = self.entries.next() else { return Ok(None) };
        self.value = Some((key, *value));
        let found = seed.deserialize(BorrowedStrDeserializer::<Error>::new(key));
        found.map(Some).map_err(|error| error.below(|| step(key)))
    }

    fn next_value_seed<T: DeserializeSeed<'o>>(&mut self, seed: T) -> Result<T::Value, Error> {
        let Some((key, value)) = self.value.take() else {
            return Err(de::Error::custom("a value is asked for before its key"));
        };
        seed.deserialize(self.node.child(value)).map_err(|error| error.below(|| step(key)))
    }
}

fn step(key: &str) -> Step<'static> {
    Step::Key(Cow::Owned(key.to_owned()))
}

/// A variant by its name, with what it holds.
struct Variant<'o> {
    name: &'o str,
    node: Option<Node<'o>>,
}

impl<'o> EnumAccess<'o> for Variant<'o> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'o>>(self, seed: T) -> Result<(T::Value, Self), Error> {
        let name: BorrowedStrDeserializer<'_, Error> = BorrowedStrDeserializer::new(self.name);
        Ok((seed.deserialize(name.into_deserializer())?, self))
    }
}

impl<'o> Variant<'o> {
    fn held(self) -> Result<(&'o str, Node<'o>), Error> {
        match self.node {
            Some(node) => Ok((self.name, node)),
            None => Err(de::Error::custom(format_args!("`{}` needs a value: write `{0}: ...`", self.name))),
        }
    }
}

impl<'o> VariantAccess<'o> for Variant<'o> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        match self.node {
            Some(node) if !node.is_null() => {
                Err(de::Error::custom(format_args!("`{}` takes no value", self.name)))
            }
            _ => Ok(()),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'o>>(self, seed: T) -> Result<T::Value, Error> {
        let (name, node) = self.held()?;
        seed.deserialize(node).map_err(|error| error.below(|| step(name)))
    }

    fn tuple_variant<V: Visitor<'o>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        let (name, node) = self.held()?;
        node.deserialize_seq(visitor).map_err(|error| error.below(|| step(name)))
    }

    fn struct_variant<V: Visitor<'o>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let (name, node) = self.held()?;
        node.deserialize_map(visitor).map_err(|error| error.below(|| step(name)))
    }
}

#[cfg(test)]
mod tests;
