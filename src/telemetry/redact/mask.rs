//! What is found within texts: tokens, addresses, numbers, and what an expression of the operator finds.

use super::{HIDDEN, MAX_PATTERN_BYTES};
use regex::{Regex, RegexBuilder};
use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::Range;

/// What a mask hides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaskRule {
    /// What it looks for.
    pub sort: Sort,
    /// Whether a pseudonym stands in for it, so that its occurrences can be counted.
    pub pseudonym: bool,
}

/// What a mask looks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sort {
    /// Mail addresses: `al***@example.com`, of short names nothing.
    Email,
    /// Phone numbers of seven digits or more: the last two stay of long ones.
    Phone,
    /// Card numbers (13 to 19 digits whose check digit is right): the last four stay.
    Card,
    /// What an expression finds.
    Pattern(String),
}

/// A mask, compiled.
#[derive(Debug)]
pub(super) struct Mask {
    sort: Compiled,
    pseudonym: bool,
}

#[derive(Debug)]
enum Compiled {
    Email(Regex),
    Phone(Regex),
    Card,
    Pattern(Regex),
}

/// `%40` is an `@` within a path.
const EMAIL: &str = r"[\p{L}\p{N}._%+'-]+(?:@|%40)[\p{L}\p{N}-]+(?:\.[\p{L}\p{N}-]+)+";
const PHONE: &str = r"(?:\+|%2[Bb]|\b)[0-9](?:(?:%20|[ ().+-]){0,2}[0-9]){6,14}\b";

/// Digits of a card number (ISO/IEC 7812).
const CARD: std::ops::RangeInclusive<usize> = 13..=19;

/// The shortest names and numbers of which a part is shown.
const LONG_NAME: usize = 6;
const LONG_PHONE: usize = 9;

impl Mask {
    pub(super) fn new(rule: &MaskRule) -> Result<Self, String> {
        let compile = |pattern: &str| {
            let regex = RegexBuilder::new(pattern).size_limit(MAX_PATTERN_BYTES).build();
            regex.map_err(|error| format!("is no usable expression: {error}"))
        };
        let sort = match &rule.sort {
            Sort::Email => Compiled::Email(compile(EMAIL)?),
            Sort::Phone => Compiled::Phone(compile(PHONE)?),
            Sort::Card => Compiled::Card,
            Sort::Pattern(pattern) if pattern.is_empty() => return Err("is empty".to_owned()),
            Sort::Pattern(pattern) => Compiled::Pattern(compile(pattern)?),
        };
        Ok(Self { sort, pseudonym: rule.pseudonym })
    }

    /// Those that look for the most come first.
    pub(super) fn rank(&self) -> u8 {
        match self.sort {
            Compiled::Pattern(_) => 0,
            Compiled::Email(_) => 1,
            Compiled::Card => 2,
            Compiled::Phone(_) => 3,
        }
    }

    /// The text without what is hidden; `None` when there is nothing of it.
    pub(super) fn apply(&self, text: &str, pseudonym: impl Fn(&str) -> String) -> Option<String> {
        let found: Vec<(Range<usize>, String)> = match &self.sort {
            Compiled::Email(regex) => found(regex, text, |value| Some(mask_email(value))),
            Compiled::Phone(regex) => found(regex, text, mask_phone),
            Compiled::Pattern(regex) => found(regex, text, |_| Some(HIDDEN.to_owned())),
            Compiled::Card => cards(text),
        };
        if found.is_empty() {
            return None;
        }
        let mut masked = String::with_capacity(text.len());
        let mut done = 0;
        for (range, shown) in found {
            masked.push_str(text.get(done..range.start).unwrap_or_default());
            if self.pseudonym {
                masked.push_str(&pseudonym(text.get(range.clone()).unwrap_or_default()));
            } else {
                masked.push_str(&shown);
            }
            done = range.end;
        }
        masked.push_str(text.get(done..).unwrap_or_default());
        Some(masked)
    }
}

fn found(regex: &Regex, text: &str, shown: impl Fn(&str) -> Option<String>) -> Vec<(Range<usize>, String)> {
    let all = regex.find_iter(text).filter(|found| !found.is_empty());
    all.filter_map(|found| Some((found.range(), shown(found.as_str())?))).collect()
}

fn mask_email(address: &str) -> String {
    let (name, domain) =
        address.rsplit_once('@').or_else(|| address.rsplit_once("%40")).unwrap_or((address, ""));
    let kept: String = match name.chars().count() {
        LONG_NAME.. => name.chars().take(2).collect(),
        _ => String::new(),
    };
    format!("{kept}{HIDDEN}@{domain}")
}

/// `None` for what is an IP address.
fn mask_phone(number: &str) -> Option<String> {
    if number.parse::<IpAddr>().is_ok() {
        return None;
    }
    let digits = number.replace("%2B", "").replace("%2b", "").replace("%20", "");
    let digits: String = digits.chars().filter(char::is_ascii_digit).collect();
    let kept = if digits.len() >= LONG_PHONE { digits.len() - 2 } else { digits.len() };
    Some(format!("{HIDDEN}{}", digits.get(kept..).unwrap_or_default()))
}

/// Card numbers, also in groups and beside other numbers.
fn cards(text: &str) -> Vec<(Range<usize>, String)> {
    let groups = groups(text);
    let mut found = Vec::new();
    let mut at = 0;
    while at < groups.len() {
        match card(text, groups.get(at..).unwrap_or_default()) {
            Some((range, digits, count)) => {
                let kept = digits.get(digits.len().saturating_sub(4)..).unwrap_or_default();
                found.push((range, format!("{HIDDEN}{kept}")));
                at += count;
            }
            None => at += 1,
        }
    }
    found
}

/// The longest card number that begins with the first group: where it is, its digits, its groups.
fn card(text: &str, groups: &[(Range<usize>, bool)]) -> Option<(Range<usize>, String, usize)> {
    let start = groups.first()?.0.start;
    let mut digits = String::new();
    let mut best = None;
    for (count, (group, joined)) in groups.iter().enumerate() {
        if count > 0 && !joined {
            break;
        }
        digits.push_str(text.get(group.clone()).unwrap_or_default());
        if digits.len() > *CARD.end() {
            break;
        }
        if CARD.contains(&digits.len()) && is_checked(&digits) {
            best = Some((start..group.end, digits.clone(), count + 1));
        }
    }
    best
}

/// Runs of digits, and whether one separator alone stands between a run and the one before it.
fn groups(text: &str) -> Vec<(Range<usize>, bool)> {
    let bytes = text.as_bytes();
    let mut groups: Vec<(Range<usize>, bool)> = Vec::new();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        // The digits of an encoded space are none of the number.
        if bytes.get(at..at + 3) == Some(b"%20") {
            at += 3;
        } else if byte.is_ascii_digit() {
            let rest = bytes.get(at..).unwrap_or_default();
            let end = at + rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
            let joined = groups.last().is_some_and(|(before, _)| {
                matches!(bytes.get(before.end..at), Some(b" " | b"-" | b"." | b"+" | b"%20"))
            });
            groups.push((at..end, joined));
            at = end;
        } else {
            at += 1;
        }
    }
    groups
}

/// Luhn's check digit (ISO/IEC 7812-1, annex B).
fn is_checked(digits: &str) -> bool {
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(at, digit)| {
            let digit = u32::from(digit - b'0');
            match (at % 2, digit) {
                (0, digit) => digit,
                (_, 0..=4) => digit * 2,
                _ => digit * 2 - 9,
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Where tokens (RFC 7519) stand: three parts of base64url, of which the first is an object.
fn tokens(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut from = 0;
    std::iter::from_fn(move || {
        loop {
            let start = from + text.get(from..)?.find("eyJ")?;
            let rest = text.get(start..)?;
            let end =
                rest.bytes().position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')));
            let end = start + end.unwrap_or(rest.len());
            from = end.max(start + 1);
            if text.get(start..end)?.contains('.') {
                return Some(start..end);
            }
        }
    })
}

pub(super) fn holds_token(text: &str) -> bool {
    tokens(text).next().is_some()
}

pub(super) fn hide_tokens(text: &str) -> Cow<'_, str> {
    let mut shown = String::new();
    let mut done = 0;
    for token in tokens(text) {
        shown.push_str(text.get(done..token.start).unwrap_or_default());
        shown.push_str(HIDDEN);
        done = token.end;
    }
    if done == 0 {
        return text.into();
    }
    shown.push_str(text.get(done..).unwrap_or_default());
    shown.into()
}
