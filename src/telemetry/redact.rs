//! Keeps secrets and personal data out of what the proxy writes down: access logs, the ring of decisions, its pages.
//!
//! Credentials in headers, secret query values and tokens are hidden always. Masks for what a text may hold besides are the operator's to switch
//! on. Whatever is hidden is replaced whole or in whole characters, and nothing of a short value stays.

mod mask;
mod query;

pub use mask::{MaskRule, Sort};

use aws_lc_rs::hmac;
use aws_lc_rs::rand;
use http::{HeaderName, HeaderValue};
use mask::Mask;
use std::borrow::Cow;
use std::fmt;

/// What stands in for a secret.
pub const HIDDEN: &str = "***";

/// Bytes that one expression of the operator may take once compiled.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// Parts of header names that say that the value is a credential.
const SECRET_HEADERS: [&str; 7] = ["auth", "cookie", "key", "secret", "token", "password", "session"];

/// Headers that hold the address of a page, with a query that may hold secrets.
const TARGETS: [&str; 8] = [
    "referer",
    "location",
    "content-location",
    "x-envoy-original-path",
    "x-original-url",
    "x-original-uri",
    "x-forwarded-uri",
    "x-rewrite-url",
];

/// What is hidden, compiled.
#[derive(Debug)]
pub struct Redaction {
    headers: Box<[HeaderName]>,
    /// As `query::plain` writes names, sorted.
    query: Box<[Box<str>]>,
    masks: Box<[Mask]>,
    /// Absent where nothing is shown by a pseudonym.
    key: Option<Key>,
}

/// What is to be hidden besides what always is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Further headers.
    pub headers: Vec<String>,
    /// Further query parameters.
    pub query: Vec<String>,
    /// What is masked within texts.
    pub masks: Vec<MaskRule>,
    /// The key of pseudonyms, 32 bytes or more; absent: a random one, so that they change with every start.
    pub key: Option<Vec<u8>>,
}

/// What is done with the value of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// It is shown; masks hold.
    Text,
    /// It is shown as a target is: query values that are secret are hidden.
    Target,
    /// It is hidden.
    Hidden,
}

/// Why rules cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    /// The field below the rules, `masks[0].pattern`.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

/// The key of pseudonyms. It is in no dump.
struct Key(hmac::Key);

/// The shortest key, as long as the digest (RFC 2104 section 3).
pub const MIN_KEY_BYTES: usize = 32;

impl Redaction {
    /// Compiles rules.
    ///
    /// # Errors
    ///
    /// Names the first field that cannot be used.
    pub fn new(rules: &Rules) -> Result<Self, RuleError> {
        let wrong = |field: String, message: String| RuleError { field, message };
        let header = |(at, name): (usize, &String)| {
            HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| wrong(format!("headers[{at}]"), format!("`{name}` is no header name")))
        };
        let masks = rules.masks.iter().enumerate().map(|(at, rule)| {
            Mask::new(rule).map_err(|message| wrong(format!("masks[{at}].pattern"), message))
        });
        let mut masks = masks.collect::<Result<Vec<_>, _>>()?;
        // What looks for less would leave the rest of what looks for more.
        masks.sort_by_key(Mask::rank);
        let mut query: Vec<Box<str>> = rules.query.iter().map(|name| query::plain(name).into()).collect();
        query.sort_unstable();
        let key = match &rules.key {
            Some(key) if key.len() < MIN_KEY_BYTES => {
                let message = format!("has {} bytes; use {MIN_KEY_BYTES} or more random ones", key.len());
                return Err(wrong("pseudonymKey.file".to_owned(), message));
            }
            Some(key) => Some(Key(hmac::Key::new(hmac::HMAC_SHA256, key))),
            None if rules.masks.iter().any(|mask| mask.pseudonym) => Some(Key::random()?),
            None => None,
        };
        Ok(Self {
            headers: rules.headers.iter().enumerate().map(header).collect::<Result<_, _>>()?,
            query: query.into(),
            masks: masks.into(),
            key,
        })
    }

    /// What is done with the value of a header.
    #[must_use]
    pub fn treatment(&self, name: &HeaderName) -> Treatment {
        let text = name.as_str();
        if SECRET_HEADERS.iter().any(|part| text.contains(part)) || self.headers.contains(name) {
            Treatment::Hidden
        } else if TARGETS.contains(&text) {
            Treatment::Target
        } else {
            Treatment::Text
        }
    }

    /// True when masks hold: then every text has to be looked through.
    #[must_use]
    pub fn has_masks(&self) -> bool {
        !self.masks.is_empty()
    }

    /// The value of a header as it may be shown.
    #[must_use]
    pub fn header<'v>(&self, name: &HeaderName, value: &'v HeaderValue) -> Cow<'v, str> {
        match self.treatment(name) {
            Treatment::Hidden => HIDDEN.into(),
            Treatment::Target => match String::from_utf8_lossy(value.as_bytes()) {
                Cow::Borrowed(text) => self.target(text),
                Cow::Owned(text) => self.target(&text).into_owned().into(),
            },
            Treatment::Text => self.masked(String::from_utf8_lossy(value.as_bytes())),
        }
    }

    /// A path with its query, or a whole URL, as it may be shown. Without a query, and without masks, it costs a look for the `?`.
    #[must_use]
    pub fn target<'t>(&self, target: &'t str) -> Cow<'t, str> {
        self.masked(query::redact(target, &|name| self.is_secret(name)))
    }

    /// Any text as it may be shown: tokens are hidden, masks hold.
    #[must_use]
    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.masked(mask::hide_tokens(text))
    }

    /// A name for a value that tells nothing of it, the same for the same value: HMAC-SHA256 under the key, 64 bits of it, as letters.
    #[must_use]
    pub fn pseudonym(&self, value: &str) -> String {
        let Some(Key(key)) = &self.key else { return HIDDEN.to_owned() };
        let digest = hmac::sign(key, value.as_bytes());
        // Letters alone: a number that looks like one of those that are masked cannot come out.
        let letter = |half: u8| char::from(b'a' + (half & 15));
        let letters = digest.as_ref().iter().take(8).flat_map(|byte| [letter(byte >> 4), letter(*byte)]);
        std::iter::once('~').chain(letters).collect()
    }

    fn is_secret(&self, name: &str) -> bool {
        query::is_secret(name) || self.query.binary_search_by(|known| (**known).cmp(name)).is_ok()
    }

    fn masked<'t>(&self, text: Cow<'t, str>) -> Cow<'t, str> {
        self.masks.iter().fold(text, |text, mask| match mask.apply(&text, |value| self.pseudonym(value)) {
            Some(masked) => masked.into(),
            None => text,
        })
    }
}

/// What is hidden always, and no more.
impl Default for Redaction {
    fn default() -> Self {
        Self { headers: Box::default(), query: Box::default(), masks: Box::default(), key: None }
    }
}

impl Key {
    fn random() -> Result<Self, RuleError> {
        let mut bytes = [0; MIN_KEY_BYTES];
        rand::fill(&mut bytes).map_err(|_| RuleError {
            field: "pseudonymKey".to_owned(),
            message: "cannot be made: the system has no random numbers".to_owned(),
        })?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.message)
    }
}

impl std::error::Error for RuleError {}

#[cfg(test)]
mod tests;
