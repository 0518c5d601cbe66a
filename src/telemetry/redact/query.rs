//! Query values that are secret, told by the names of their parameters.

use super::{HIDDEN, mask};
use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// Names of secrets, as [`plain`] writes them.
const NAMES: [&str; 18] = [
    "assertion",
    "auth",
    "authorization",
    "code",
    "codeverifier",
    "jwt",
    "key",
    "nonce",
    "otp",
    "pass",
    "passphrase",
    "pin",
    "pwd",
    "session",
    "sessionid",
    "sid",
    "sig",
    "signature",
];

/// Parts of names of secrets, as [`plain`] writes them.
const PARTS: [&str; 8] =
    ["token", "secret", "password", "passwd", "apikey", "accesskey", "credential", "signature"];

/// Addresses within addresses that are looked into. What is deeper is hidden.
const MAX_DEPTH: usize = 3;

/// Names up to here are compared without an allocation.
const SHORT_NAME: usize = 32;

/// A parameter's name in the one way in which names are compared: decoded, lower case, letters and digits alone.
pub(super) fn plain(name: &str) -> String {
    let decoded = percent_decode_str(name).decode_utf8_lossy();
    decoded.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Asks about the plain form of a name.
fn ask(name: &str, is_secret: &dyn Fn(&str) -> bool) -> bool {
    if name.len() > SHORT_NAME || !name.is_ascii() || name.contains('%') {
        return is_secret(&plain(name));
    }
    let mut short = [0; SHORT_NAME];
    let letters = name.bytes().filter(u8::is_ascii_alphanumeric);
    let length = short.iter_mut().zip(letters).map(|(to, from)| *to = from.to_ascii_lowercase()).count();
    is_secret(short.get(..length).and_then(|name| str::from_utf8(name).ok()).unwrap_or_default())
}

/// Whether a parameter of this name holds a secret.
pub(super) fn is_secret(plain: &str) -> bool {
    NAMES.contains(&plain) || PARTS.iter().any(|part| plain.contains(part))
}

/// A target whose secret query values are hidden. Borrowed when there is none.
pub(super) fn redact<'t>(target: &'t str, is_secret: &dyn Fn(&str) -> bool) -> Cow<'t, str> {
    let Some((path, query)) = target.split_once('?') else { return target.into() };
    let mut shown: Option<String> = None;
    let mut done = path.len() + 1;
    for piece in query.split_inclusive(['&', ';', '#']) {
        let pair = piece.trim_end_matches(['&', ';', '#']);
        if let Some(kept) = kept(pair, is_secret) {
            let shown = shown.get_or_insert_with(|| target.get(..done).unwrap_or_default().to_owned());
            shown.push_str(pair.get(..kept).unwrap_or_default());
            shown.push_str(HIDDEN);
            shown.push_str(piece.get(pair.len()..).unwrap_or_default());
        } else if let Some(shown) = &mut shown {
            shown.push_str(piece);
        }
        done += piece.len();
    }
    shown.map_or(target.into(), Cow::Owned)
}

/// How many bytes of a pair may be shown, when not all of them.
fn kept(pair: &str, is_secret: &dyn Fn(&str) -> bool) -> Option<usize> {
    match pair.split_once('=') {
        Some((name, value)) => {
            let hidden = !value.is_empty() && ask(name, is_secret) || reveals(value, is_secret, 0);
            hidden.then_some(name.len() + 1)
        }
        None => reveals(pair, is_secret, 0).then_some(0),
    }
}

/// Whether a value holds a token, or an address with a secret of its own.
fn reveals(value: &str, is_secret: &dyn Fn(&str) -> bool, depth: usize) -> bool {
    if mask::holds_token(value) {
        return true;
    }
    if value.contains('=') {
        let mut pairs = value.split(['?', '&', ';', '#']).filter_map(|pair| pair.split_once('='));
        if pairs.any(|(name, value)| !value.is_empty() && ask(name, is_secret)) {
            return true;
        }
    }
    if !value.contains('%') {
        return false;
    }
    let decoded = percent_decode_str(value).decode_utf8_lossy();
    *decoded != *value && (depth >= MAX_DEPTH || reveals(&decoded, is_secret, depth + 1))
}
