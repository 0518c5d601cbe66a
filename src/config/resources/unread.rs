//! Fields that are checked and not kept.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A field of type `T` that nothing here reads, as it speaks to another component: it must be a `T`, and then takes no memory.
///
/// Two of them are equal whatever was written, so a change of one is no change of its object.
pub struct Unread<T>(PhantomData<fn() -> T>);

impl<T> Clone for Unread<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Unread<T> {}

impl<T> Default for Unread<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T> PartialEq for Unread<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<T> Eq for Unread<T> {}

impl<T> fmt::Debug for Unread<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unread")
    }
}

impl<T> Serialize for Unread<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Unread<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(|_| Self::default())
    }
}

impl<T: JsonSchema> JsonSchema for Unread<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::Unread;

    #[test]
    fn a_field_that_is_not_kept_is_checked_all_the_same() {
        assert!(serde_json::from_str::<Unread<Option<u16>>>("30000").is_ok());
        assert!(serde_json::from_str::<Unread<Option<u16>>>("70000").is_err());
        assert_eq!(size_of::<Unread<Option<String>>>(), 0);
    }
}
