//! JSON objects of outsiders: no name twice, not too deep, not too many values.
//!
//! Of a name that is there twice one reader takes the first value and another the last: a token could mean one thing to us and another to the
//! application behind us. (serde's own `Map` keeps the last.)

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::cell::Cell;
use std::fmt;

/// How much a document may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Objects and lists within each other.
    pub(crate) depth: u32,
    /// Values altogether.
    pub(crate) values: u32,
}

/// Reads an object.
pub(crate) fn object(text: &[u8], bounds: Bounds) -> Result<Map<String, Value>, serde_json::Error> {
    let left = Cell::new(bounds.values);
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Reading { left: &left, depth: bounds.depth }.deserialize(&mut reader)?;
    reader.end()?;
    match value {
        Value::Object(object) => Ok(object),
        _ => Err(Error::custom("is no object")),
    }
}

#[derive(Clone, Copy)]
struct Reading<'a> {
    left: &'a Cell<u32>,
    depth: u32,
}

impl<'a> Reading<'a> {
    fn count<E: Error>(self) -> Result<(), E> {
        let left = self.left.get().checked_sub(1).ok_or_else(|| E::custom("holds too many values"))?;
        self.left.set(left);
        Ok(())
    }

    fn deeper<E: Error>(self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom("is nested too deep"))?;
        Ok(Reading { depth, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Reading<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        self.count()?;
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reading<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("is no number"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut object = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(inner)?;
            if object.contains_key(&name) {
                return Err(A::Error::custom("holds a name twice"));
            }
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Map<String, Value>, String> {
        object(text.as_bytes(), Bounds { depth: 4, values: 8 }).map_err(|error| error.to_string())
    }

    #[test]
    fn a_name_that_is_there_twice_is_refused_at_every_level() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":{"b":1,"b":2}}"#,
            r#"{"a":[{"b":1,"b":2}]}"#,
            r#"{"a":1,"\u0061":2}"#,
        ] {
            assert!(read(text).unwrap_err().contains("twice"), "{text}");
        }
        assert_eq!(read(r#"{"a":{"a":[1,-2,1.5,true,null]}}"#).unwrap().len(), 1);
    }

    #[test]
    fn depth_and_number_of_values_are_bounded() {
        assert!(read(r#"{"a":[[[1]]]}"#).is_ok());
        assert!(read(r#"{"a":[[[[1]]]]}"#).unwrap_err().contains("deep"));
        assert!(read(r#"{"a":[1,2,3,4,5,6]}"#).is_ok());
        assert!(read(r#"{"a":[1,2,3,4,5,6,7]}"#).unwrap_err().contains("many"));
        let bomb = "[".repeat(100_000);
        assert!(read(&format!("{{\"a\":{bomb}")).is_err());
    }

    #[test]
    fn only_one_whole_object_is_read() {
        for text in
            ["", "1", "[]", "{} {}", "{", r#"{"a":}"#, "{\"a\":\"\u{1}\"}", r#"{"a":1e999}"#, r#"{"a":NaN}"#]
        {
            assert!(read(text).is_err(), "{text:?}");
        }
        assert!(object(b"{\"a\":\"\xff\"}", Bounds { depth: 4, values: 8 }).is_err());
    }
}
