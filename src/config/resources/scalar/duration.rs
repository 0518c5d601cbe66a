//! Durations in Go's form, as Istio writes them.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Parsed;

/// A span of time, written as in `500ms`, `3s`, `1.5s` or `1h30m`. Never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Duration(pub time::Duration);

impl Duration {
    /// A span of whole seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(time::Duration::from_secs(seconds))
    }

    /// Whether it is no time at all, which Istio takes as "no limit" in most places.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl From<Duration> for time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

// From the longest, so that printing takes the largest unit first.
const UNITS: [(&str, u64); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Go's `time.ParseDuration` without a sign.
impl FromStr for Duration {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "a duration is a number with a unit, as in `500ms`, `3s` or `1h30m`";
        if text == "0" {
            return Ok(Self::default());
        }
        let mut rest = text;
        let mut nanoseconds: u64 = 0;
        while !rest.is_empty() {
            let number = split(&mut rest, |b| b.is_ascii_digit() || b == b'.');
            let unit = split(&mut rest, |b| !(b.is_ascii_digit() || b == b'.'));
            let unit = if unit == "µs" { "us" } else { unit };
            let &(_, scale) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(WRONG)?;
            nanoseconds = scaled(number, scale)
                .ok_or(WRONG)?
                .and_then(|part| nanoseconds.checked_add(part))
                .ok_or("a duration is at most 2^64 nanoseconds, about 584 years")?;
        }
        if text.is_empty() { Err(WRONG) } else { Ok(Self(time::Duration::from_nanos(nanoseconds))) }
    }
}

fn split<'a>(rest: &mut &'a str, keep: impl Fn(u8) -> bool) -> &'a str {
    let end = rest.bytes().position(|b| !keep(b)).unwrap_or(rest.len());
    let (head, tail) = rest.split_at(end);
    *rest = tail;
    head
}

/// `number * scale` in whole nanoseconds: `None` when it is no number, `Some(None)` when it does not fit.
fn scaled(number: &str, scale: u64) -> Option<Option<u64>> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let Ok(whole) = (if whole.is_empty() { Ok(0) } else { whole.parse::<u64>() }) else { return Some(None) };
    let mut part = 0;
    let mut unit = scale;
    // Digits beyond a nanosecond are dropped, as Go does.
    for digit in fraction.bytes() {
        unit /= 10;
        part += u64::from(digit - b'0') * unit;
    }
    Some(whole.checked_mul(scale).and_then(|nanoseconds| nanoseconds.checked_add(part)))
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0s");
        }
        for (name, scale) in UNITS {
            if rest >= scale {
                write!(f, "{}{name}", rest / scale)?;
                rest %= scale;
            }
        }
        Ok(())
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Parsed::deserialize(deserializer)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}
