//! The `strftime` formats of `%START_TIME(...)%`.

use std::time::SystemTime;

use crate::telemetry::timestamp::{Civil, push_padded, since_epoch};

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

/// A compiled time format, in UTC.
#[derive(Clone, Debug)]
pub(super) struct TimeFormat(Box<[Part]>);

#[derive(Clone, Debug)]
enum Part {
    Literal(Box<str>),
    Year,
    Month,
    MonthName,
    Day,
    Weekday,
    Hour,
    Minute,
    Second,
    Epoch,
    /// The first digits of the second's fraction, 1 to 9.
    Fraction(u8),
    Offset,
    Zone,
}

impl TimeFormat {
    /// Compiles a format; the error is the specifier that is not known.
    pub(super) fn compile(format: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = format;
        while let Some((literal, tail)) = rest.split_once('%') {
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.into()));
            }
            let digits = tail.bytes().take_while(u8::is_ascii_digit).count();
            let (width, tail) = tail.split_at(digits);
            let mut chars = tail.chars();
            let letter = chars.next();
            match (width, letter) {
                ("", Some('f')) => parts.push(Part::Fraction(9)),
                (width, Some('f')) => match width.parse() {
                    Ok(digits @ 1..=9) => parts.push(Part::Fraction(digits)),
                    _ => return Err(format!("%{width}f")),
                },
                ("", Some(letter)) => parts.extend(Part::of(letter).ok_or_else(|| format!("%{letter}"))?),
                (width, letter) => {
                    return Err(format!("%{width}{}", letter.map(String::from).unwrap_or_default()));
                }
            }
            rest = chars.as_str();
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.into()));
        }
        Ok(Self(parts.into()))
    }

    /// Appends `time`.
    pub(super) fn write(&self, time: SystemTime, out: &mut Vec<u8>) {
        let since = since_epoch(time);
        let civil = Civil::at(since.as_secs());
        for part in &self.0 {
            match part {
                Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Part::Year => push_padded(civil.year, 4, out),
                Part::Month => push_padded(civil.month, 2, out),
                Part::MonthName => push_name(&MONTHS, civil.month - 1, out),
                Part::Day => push_padded(civil.day, 2, out),
                Part::Weekday => push_name(&WEEKDAYS, (civil.days + 4) % 7, out),
                Part::Hour => push_padded(civil.hour, 2, out),
                Part::Minute => push_padded(civil.minute, 2, out),
                Part::Second => push_padded(civil.second, 2, out),
                Part::Epoch => push_padded(since.as_secs(), 1, out),
                Part::Fraction(digits) => {
                    let start = out.len();
                    push_padded(u64::from(since.subsec_nanos()), 9, out);
                    out.truncate(start + usize::from(*digits));
                }
                Part::Offset => out.extend_from_slice(b"+0000"),
                Part::Zone => out.extend_from_slice(b"UTC"),
            }
        }
    }
}

impl Part {
    fn of(letter: char) -> Option<Vec<Self>> {
        let (dash, colon) = (|| Self::Literal("-".into()), || Self::Literal(":".into()));
        Some(match letter {
            'Y' => vec![Self::Year],
            'm' => vec![Self::Month],
            'b' => vec![Self::MonthName],
            'd' => vec![Self::Day],
            'a' => vec![Self::Weekday],
            'H' => vec![Self::Hour],
            'M' => vec![Self::Minute],
            'S' => vec![Self::Second],
            's' => vec![Self::Epoch],
            'z' => vec![Self::Offset],
            'Z' => vec![Self::Zone],
            'F' => vec![Self::Year, dash(), Self::Month, dash(), Self::Day],
            'T' => vec![Self::Hour, colon(), Self::Minute, colon(), Self::Second],
            '%' => vec![Self::Literal("%".into())],
            _ => return None,
        })
    }
}

fn push_name(names: &[&str], index: u64, out: &mut Vec<u8>) {
    let name = usize::try_from(index).ok().and_then(|index| names.get(index));
    out.extend_from_slice(name.copied().unwrap_or_default().as_bytes());
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn envoys_documented_formats_are_understood() {
        let time = UNIX_EPOCH + Duration::new(1_527_590_590, 528_012_345);
        for (format, expected) in [
            ("%Y/%m/%dT%H:%M:%S%z %s", "2018/05/29T10:43:10+0000 1527590590"),
            ("%s.%3f", "1527590590.528"),
            ("%s.%6f", "1527590590.528012"),
            ("%s.%f", "1527590590.528012345"),
            ("%a, %d %b %Y %T %Z", "Tue, 29 May 2018 10:43:10 UTC"),
            ("%F 100%%", "2018-05-29 100%"),
        ] {
            let mut out = Vec::new();
            TimeFormat::compile(format).unwrap().write(time, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn an_unknown_specifier_is_named() {
        for (format, specifier) in [("%Q", "%Q"), ("%12f", "%12f"), ("%3S", "%3S"), ("%Y%", "%")] {
            assert_eq!(TimeFormat::compile(format).unwrap_err(), specifier);
        }
    }
}
