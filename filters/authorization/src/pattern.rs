//! How policies write texts: exact, `prefix*`, `*suffix`, `*`. Never a regular expression, so that no character of a name means anything else
//! (Istio's CVE-2026-39350 is a dot in a service account that matched any character).

use crate::template::Template;
use std::fmt;

/// The texts of one list, any of which may match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Patterns {
    /// Sorted.
    exact: Vec<Box<str>>,
    others: Vec<Pattern>,
}

/// One text that is not exact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// `*`: something is there, and in a text that is not a header something that is not empty.
    Present,
    /// `a*`
    Prefix(Box<str>),
    /// `*a`
    Suffix(Box<str>),
    /// Texts with wildcards anywhere between them, as namespaces may be written: `team-*-prod`.
    Glob(Vec<Box<str>>),
    /// A path with operators.
    Template(Template),
}

impl Patterns {
    /// Adds a text as Istio reads it: a `*` at its beginning, else one at its end, is a wildcard; any other is a character.
    pub(crate) fn add(&mut self, text: &str) {
        let pattern = if text == "*" {
            Pattern::Present
        } else if let Some(suffix) = text.strip_prefix('*') {
            Pattern::Suffix(suffix.into())
        } else if let Some(prefix) = text.strip_suffix('*') {
            Pattern::Prefix(prefix.into())
        } else {
            return self.add_exact(text);
        };
        self.others.push(pattern);
    }

    /// Adds a text without wildcards.
    pub(crate) fn add_exact(&mut self, text: &str) {
        if let Err(at) = self.exact.binary_search_by(|known| (**known).cmp(text)) {
            self.exact.insert(at, text.into());
        }
    }

    /// Adds a text in which every `*` is a wildcard.
    pub(crate) fn add_glob(&mut self, text: &str) {
        if text.contains('*') {
            self.others.push(Pattern::Glob(text.split('*').map(Into::into).collect()));
        } else {
            self.add_exact(text);
        }
    }

    /// Adds a path with operators.
    pub(crate) fn add_template(&mut self, template: Template) {
        self.others.push(Pattern::Template(template));
    }

    /// Whether one of them matches. An empty text matches none but an exact empty one.
    pub(crate) fn matches(&self, text: &[u8]) -> bool {
        self.exact.binary_search_by(|known| known.as_bytes().cmp(text)).is_ok()
            || self.others.iter().any(|pattern| pattern.matches(text))
    }

    /// The exact texts, when there are no others.
    pub(crate) fn only_exact(&self) -> Option<&[Box<str>]> {
        self.others.is_empty().then_some(&self.exact)
    }

    /// Whether `*` is among them.
    pub(crate) fn has_present(&self) -> bool {
        self.others.contains(&Pattern::Present)
    }

    /// The exact texts and the literal beginnings of the others; `None` when one has none.
    pub(crate) fn beginnings(&self) -> Option<(&[Box<str>], Vec<&str>)> {
        let beginnings: Option<Vec<&str>> = self
            .others
            .iter()
            .map(|pattern| match pattern {
                Pattern::Prefix(prefix) => Some(&**prefix),
                Pattern::Template(template) => Some(template.beginning()),
                _ => None,
            })
            .collect();
        Some((&self.exact, beginnings?))
    }
}

impl Pattern {
    fn matches(&self, text: &[u8]) -> bool {
        match self {
            Self::Present => !text.is_empty(),
            Self::Prefix(prefix) => text.starts_with(prefix.as_bytes()),
            Self::Suffix(suffix) => text.ends_with(suffix.as_bytes()),
            Self::Glob(parts) => glob(parts, text),
            Self::Template(template) => template.matches(text),
        }
    }
}

/// Whether `text` is the parts in their order with anything between them. The first occurrence of each is as good as any later one.
fn glob(parts: &[Box<str>], text: &[u8]) -> bool {
    let [first, middle @ .., last] = parts else { return false };
    let Some(mut rest) = text.strip_prefix(first.as_bytes()) else { return false };
    for part in middle {
        let part = part.as_bytes();
        if part.is_empty() {
            continue;
        }
        let Some(at) = rest.windows(part.len()).position(|window| window == part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(last.as_bytes())
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present => f.write_str("*"),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
            Self::Glob(parts) => f.write_str(&parts.join("*")),
            Self::Template(template) => template.fmt(f),
        }
    }
}

impl fmt::Display for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = self.exact.iter().map(ToString::to_string);
        list(f, exact.chain(self.others.iter().map(ToString::to_string)))
    }
}

/// Writes a list, of a long one the beginning.
pub(crate) fn list(
    f: &mut fmt::Formatter<'_>,
    items: impl Iterator<Item = impl fmt::Display>,
) -> fmt::Result {
    const SHOWN: usize = 8;
    let mut items = items;
    for (at, item) in items.by_ref().take(SHOWN).enumerate() {
        write!(f, "{}{item}", if at == 0 { "" } else { ", " })?;
    }
    match items.count() {
        0 => Ok(()),
        more => write!(f, ", and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::Patterns;

    fn matches(pattern: &str, text: &str) -> bool {
        let mut patterns = Patterns::default();
        patterns.add(pattern);
        patterns.matches(text.as_bytes())
    }

    fn globs(pattern: &str, text: &str) -> bool {
        let mut patterns = Patterns::default();
        patterns.add_glob(pattern);
        patterns.matches(text.as_bytes())
    }

    #[test]
    fn a_star_is_a_wildcard_at_the_beginning_or_the_end_and_a_character_elsewhere() {
        assert!(matches("/a*", "/ab") && matches("/a*", "/a") && !matches("/a*", "/b"));
        assert!(matches("*.json", "/x.json") && !matches("*.json", "/xjson"));
        assert!(matches("*", "x") && !matches("*", ""));
        assert!(matches("a*c", "a*c") && !matches("a*c", "abc"));
        // Istio looks at the beginning first: the second star is a character.
        assert!(matches("*a*", "xa*") && !matches("*a*", "xab"));
    }

    #[test]
    fn every_star_of_a_glob_is_a_wildcard_and_nothing_else_is() {
        assert!(globs("team-*-prod", "team-a-prod") && globs("team-*-prod", "team--prod"));
        assert!(!globs("team-*-prod", "team-prod") && !globs("a.c", "abc"));
        assert!(globs("*a*b*", "xaybz") && !globs("*a*b*", "xbya") && globs("*", ""));
        assert!(globs("a*a", "aa") && !globs("a*a", "a"));
    }

    #[test]
    fn the_first_place_that_fits_a_part_of_a_glob_is_enough() {
        assert!(globs("a*bc*c", "abcc") && !globs("a*bc*bc", "abc"));
    }
}
