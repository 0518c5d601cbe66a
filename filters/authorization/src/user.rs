//! Identities of tokens, `issuer/subject`, as policies write them.

use filter_api::Token;
use std::fmt;

/// A pattern for the issuer and one for the subject. Both are compared apart, as Istio does: an issuer may hold slashes, and no subject can
/// pretend to be a part of another issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    issuer: Part,
    subject: Part,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Any,
    Exact(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
}

impl User {
    /// Reads `issuer/subject`; a `*` at the beginning or the end is a wildcard. The last slash parts both.
    pub(crate) fn parse(text: &str) -> Self {
        let parts = text.rsplit_once('/');
        let (issuer, subject) = match (text, parts) {
            ("*", _) => (Part::Any, Part::Any),
            (_, Some((issuer, subject))) if text.starts_with('*') => {
                let ending = issuer.strip_prefix('*').unwrap_or(issuer);
                (
                    if ending.is_empty() { Part::Any } else { Part::Suffix(ending.into()) },
                    Part::Exact(subject.into()),
                )
            }
            (_, None) if text.starts_with('*') => {
                (Part::Any, Part::Suffix(text.strip_prefix('*').unwrap_or(text).into()))
            }
            (_, Some((issuer, "*"))) => (Part::Exact(issuer.into()), Part::Any),
            (_, Some((issuer, subject))) => {
                let subject = match subject.strip_suffix('*') {
                    Some(beginning) => Part::Prefix(beginning.into()),
                    None => Part::Exact(subject.into()),
                };
                (Part::Exact(issuer.into()), subject)
            }
            (_, None) => match text.strip_suffix('*') {
                Some(beginning) => (Part::Prefix(beginning.into()), Part::Any),
                None => (Part::Exact(text.into()), Part::Exact("".into())),
            },
        };
        Self { issuer, subject }
    }

    /// Whether the token is theirs. A token without a subject is nobody's.
    pub(crate) fn matches(&self, token: &Token) -> bool {
        self.issuer.matches(&token.issuer) && self.subject.matches(&token.subject)
    }
}

impl Part {
    fn matches(&self, text: &str) -> bool {
        !text.is_empty()
            && match self {
                Self::Any => true,
                Self::Exact(exact) => text == &**exact,
                Self::Prefix(prefix) => text.starts_with(&**prefix),
                Self::Suffix(suffix) => text.ends_with(&**suffix),
            }
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.issuer, self.subject)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(text) => f.write_str(text),
            Self::Prefix(text) => write!(f, "{text}*"),
            Self::Suffix(text) => write!(f, "*{text}"),
        }
    }
}
