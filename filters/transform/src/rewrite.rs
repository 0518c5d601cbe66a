//! Path rewrites.

use crate::settings::PathRewrite;
use filter_api::re2;
use http::uri::PathAndQuery;
use regex::bytes::Regex;

/// A path rewrite, ready to run.
#[derive(Debug)]
pub(crate) enum Rewrite {
    Full(String),
    Prefix { matched: usize, with: String },
    Regex { pattern: Regex, with: String },
}

impl Rewrite {
    pub(crate) fn new(rewrite: &PathRewrite) -> Result<Self, String> {
        Ok(match rewrite {
            PathRewrite::Full(path) => Self::Full(rooted("path", path)?),
            PathRewrite::Prefix { matched, with } => {
                Self::Prefix { matched: matched.len(), with: rooted("path", with)? }
            }
            PathRewrite::Regex { pattern, with } => {
                let pattern = re2::anywhere(pattern).map_err(|error| format!("path: {error}"))?;
                let with = replacement(with, pattern.captures_len())?;
                Self::Regex { pattern, with }
            }
        })
    }

    /// The new path and query.
    pub(crate) fn apply(&self, path_and_query: &str) -> String {
        let (path, query) = split_query(path_and_query);
        match self {
            Self::Full(with) => format!("{with}{query}"),
            // The route matched, perhaps without regard to case: it is as long as what was written.
            Self::Prefix { matched, with } => replace_prefix(path, *matched, with, query),
            Self::Regex { pattern, with } => {
                let path = pattern.replace_all(path.as_bytes(), with.as_bytes());
                // A match may end within a character of what is no ASCII; a path that comes of it is none.
                let path = String::from_utf8_lossy(&path);
                let root = if path.is_empty() { "/" } else { "" };
                format!("{root}{path}{query}")
            }
        }
    }
}

/// Path, and query with its question mark.
pub(crate) fn split_query(path_and_query: &str) -> (&str, &str) {
    path_and_query.split_at(path_and_query.find('?').unwrap_or(path_and_query.len()))
}

pub(crate) fn replace_prefix(path: &str, matched: usize, with: &str, query: &str) -> String {
    format!("{with}{}{query}", path.get(matched..).unwrap_or_default())
}

/// A path that a request can have.
pub(crate) fn rooted(field: &str, path: &str) -> Result<String, String> {
    if !path.starts_with('/') {
        return Err(format!("{field}: {path:?} is not a path; write it with a slash in front"));
    }
    if path.contains('#') || !path.is_ascii() || PathAndQuery::try_from(path).is_err() {
        return Err(format!("{field}: {path:?} is not a path; percent-encode what a URL cannot hold"));
    }
    Ok(path.to_owned())
}

/// Turns RE2's `\1` into the `${1}` of the regex crate; every `$` is literal. `groups` counts the whole match, too.
fn replacement(with: &str, groups: usize) -> Result<String, String> {
    let mut out = String::with_capacity(with.len() + 8);
    let mut chars = with.chars();
    while let Some(c) = chars.next() {
        match c {
            '$' => out.push_str("$$"),
            '\\' => match chars.next() {
                Some('\\') => out.push('\\'),
                Some(digit) if digit.is_ascii_digit() => {
                    // RE2 refuses it as well, the regex crate would leave it out.
                    if digit.to_digit(10).is_some_and(|group| group as usize >= groups) {
                        return Err(format!(
                            "path: replacement {with:?} names group {digit}, but the regex has {}",
                            groups.saturating_sub(1)
                        ));
                    }
                    out.push_str("${");
                    out.push(digit);
                    out.push('}');
                }
                _ => {
                    return Err(format!(
                        "path: replacement {with:?}: a backslash takes a group number or another backslash after it"
                    ));
                }
            },
            c => out.push(c),
        }
    }
    Ok(out)
}
