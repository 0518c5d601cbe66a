//! The one canonical form of a request target, computed once, decided on and forwarded alike.
//!
//! Matching, policy and upstream must see the same bytes: most authorization bypasses of the last years
//! (CVE-2019-9901, CVE-2021-29492, CVE-2021-31920, CVE-2021-39156) are two components reading one path
//! differently. The rules are those of Istio's `pathNormalization`, that is, of Envoy's `normalize_path`,
//! `path_with_escaped_slashes_action` and `merge_slashes`; where Envoy's result is not stable under a second
//! pass, the request is refused instead.

use crate::mesh::PathNormalization;
use http::uri::PathAndQuery;
use http::{Method, Uri};
use thiserror::Error;

/// What became of a request target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Canonical {
    /// The target was canonical already: the usual case, found without an allocation.
    Unchanged,
    /// The target to decide on and to forward instead of the one received.
    Rewritten(PathAndQuery),
}

impl Canonical {
    /// The origin-form to forward (RFC 9112 section 3.2.1): of an absolute-form `uri` only path and query
    /// remain, its authority being the request's. `None` for a target without a path, as of a plain CONNECT.
    #[must_use]
    pub fn path_and_query(self, uri: &Uri) -> Option<PathAndQuery> {
        match self {
            Self::Unchanged => uri.path_and_query().filter(|_| !uri.path().is_empty()).cloned(),
            Self::Rewritten(target) => Some(target),
        }
    }
}

/// Why a target is refused. All are answered with 400, as Envoy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum TargetRefusal {
    /// Neither origin-form, nor absolute-form, nor what the method allows besides (RFC 9112 section 3.2;
    /// CVE-2026-33186 is a policy that took such a target for "no match").
    #[error("the request target is no path: it must start with `/`")]
    NotOriginForm,
    /// `*` with another method than OPTIONS (RFC 9112 section 3.2.4).
    #[error("the request target `*` is for OPTIONS alone")]
    Asterisk,
    /// NUL, another control byte or a space.
    #[error("the request target holds a control byte or a space")]
    ForbiddenByte,
    /// `%00` in the path: refused at every level (Istio, "Authorization Policy PathNormalization").
    #[error("the request path holds `%00`")]
    EncodedNul,
    /// Decoding once would leave something that a second reader decodes again, as `%%32%65` leaves `%2e`.
    #[error("the request path holds a `%` that decoding would turn into another escape")]
    AmbiguousEscape,
    /// Percent-encoding made the target longer than 65534 bytes, the most the `http` crate holds.
    #[error("the request target is too long once normalised")]
    TooLong,
}

/// Computes the canonical form of the target of a request, or why it must be refused.
///
/// A fragment never reaches this function: `http::Uri` drops it, for HTTP/1 and HTTP/2 alike, which is what
/// Istio asks of Envoy (`http_reject_path_with_fragment: false` in its bootstrap, after CVE-2021-32779).
/// Invalid percent triplets pass through unchanged, as in Envoy. The query is never touched.
///
/// # Errors
///
/// A [`TargetRefusal`], to be answered with 400.
pub fn canonical(method: &Method, uri: &Uri, level: PathNormalization) -> Result<Canonical, TargetRefusal> {
    let target = match uri.path_and_query() {
        // The authority-form, and the CONNECT of HTTP/2, hold no path. An extended CONNECT (RFC 8441) does.
        Some(target) if !uri.path().is_empty() => target.as_str(),
        _ if method == Method::CONNECT => return Ok(Canonical::Unchanged),
        _ => return Err(TargetRefusal::NotOriginForm),
    };
    if target == "*" {
        return if method == Method::OPTIONS {
            Ok(Canonical::Unchanged)
        } else {
            Err(TargetRefusal::Asterisk)
        };
    }
    // `http://host?q` has an empty path, which stands for `/` (RFC 9110 section 4.2.3).
    if target.starts_with('?') && uri.authority().is_some() {
        return rewritten(&canonical_target(&format!("/{target}"), level)?.unwrap_or(format!("/{target}")));
    }
    match canonical_target(target, level)? {
        None => Ok(Canonical::Unchanged),
        Some(new) => rewritten(&new),
    }
}

/// The canonical form of an origin-form target, `None` when it is canonical already.
///
/// The same as [`canonical()`] for what is not yet an `http::Uri`. A fragment is cut off.
///
/// # Errors
///
/// A [`TargetRefusal`].
pub fn canonical_target(target: &str, level: PathNormalization) -> Result<Option<String>, TargetRefusal> {
    let (kept, cut) = match memchr::memchr(b'#', target.as_bytes()) {
        Some(at) => (&target[..at], true),
        None => (target, false),
    };
    if !kept.starts_with('/') {
        return Err(TargetRefusal::NotOriginForm);
    }
    let scan = scan(kept.as_bytes(), level)?;
    let (path, query) = kept.split_at(scan.path_len);
    if !scan.rewrite {
        return Ok(cut.then(|| kept.to_owned()));
    }
    let mut out = Vec::with_capacity(kept.len() + 16);
    rewrite(path.as_bytes(), level, &mut out)?;
    if level >= PathNormalization::MergeSlashes {
        out.dedup_by(|a, b| *a == b'/' && *b == b'/');
    }
    // Only ASCII was written: a byte above 0x7e is percent-encoded.
    let mut new = String::from_utf8(out).map_err(|_| TargetRefusal::ForbiddenByte)?;
    new.push_str(query);
    Ok(Some(new))
}

fn rewritten(target: &str) -> Result<Canonical, TargetRefusal> {
    PathAndQuery::try_from(target).map(Canonical::Rewritten).map_err(|_| TargetRefusal::TooLong)
}

/// What one byte of a path means to the scan.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Copied; if percent-encoded, left so.
    Plain,
    /// Unreserved (RFC 3986 section 2.3): copied, and decoded when percent-encoded.
    Unreserved,
    Dot,
    Slash,
    Backslash,
    Percent,
    Query,
    /// No byte of a URI path: percent-encoded on the way out.
    Escape,
    Forbidden,
}

const CLASSES: [Class; 256] = {
    let mut table = [Class::Escape; 256];
    let mut i = 0;
    while i < 256 {
        table[i] = match i as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => Class::Unreserved,
            b'.' => Class::Dot,
            b'/' => Class::Slash,
            b'\\' => Class::Backslash,
            b'%' => Class::Percent,
            b'?' => Class::Query,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@'
            | b'[' | b']' => Class::Plain,
            0..=b' ' | 0x7f => Class::Forbidden,
            _ => Class::Escape,
        };
        i += 1;
    }
    table
};

fn class(byte: u8) -> Class {
    CLASSES[usize::from(byte)]
}

struct Scan {
    path_len: usize,
    rewrite: bool,
}

/// Reads the target once and says whether its path has to be written anew.
fn scan(target: &[u8], level: PathNormalization) -> Result<Scan, TargetRefusal> {
    let mut rewrite = false;
    let mut previous = 0;
    let mut path_len = target.len();
    for (at, &byte) in target.iter().enumerate() {
        match class(byte) {
            Class::Unreserved | Class::Plain => {}
            Class::Slash => rewrite |= previous == b'/' && level >= PathNormalization::MergeSlashes,
            Class::Dot => rewrite |= previous == b'/' && dots(&target[at..], false).is_some(),
            Class::Backslash | Class::Escape => rewrite = true,
            Class::Percent => rewrite |= escape_changes(&target[at..], level)?,
            Class::Query => {
                path_len = at;
                break;
            }
            Class::Forbidden => return Err(TargetRefusal::ForbiddenByte),
        }
        previous = byte;
    }
    if target[path_len..].iter().any(|&byte| class(byte) == Class::Forbidden) {
        return Err(TargetRefusal::ForbiddenByte);
    }
    Ok(Scan { path_len, rewrite: rewrite && level > PathNormalization::None })
}

fn escape_changes(rest: &[u8], level: PathNormalization) -> Result<bool, TargetRefusal> {
    match decode(rest) {
        None => Ok(false),
        Some(0) => Err(TargetRefusal::EncodedNul),
        Some(byte) => Ok(match class(byte) {
            Class::Unreserved | Class::Dot => true,
            Class::Slash | Class::Backslash => level == PathNormalization::DecodeAndMergeSlashes,
            _ => false,
        }),
    }
}

/// The byte that the percent triplet at the start of `rest` stands for, `None` when it is not one.
fn decode(rest: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = rest else { return None };
    Some(nibble(*high)? << 4 | nibble(*low)?)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// The length of a separator at the start of `rest`, 0 when there is none.
fn separator(rest: &[u8], decode_slashes: bool) -> usize {
    match rest {
        [b'/' | b'\\', ..] => 1,
        _ if decode_slashes && matches!(decode(rest), Some(b'/' | b'\\')) => 3,
        _ => 0,
    }
}

fn dot(rest: &[u8]) -> usize {
    match rest {
        [b'.', ..] => 1,
        _ if decode(rest) == Some(b'.') => 3,
        _ => 0,
    }
}

/// A dot segment at the start of a segment: whether it goes up, and its length with the separator after it.
/// `None` when the segment is an ordinary one. The segment ends at a separator, a query or the end.
///
/// Parameters do not make a dot segment an ordinary one (`/..;x=1/`): servlet containers drop them before they resolve it, as Envoy does.
fn dots(rest: &[u8], decode_slashes: bool) -> Option<(bool, usize)> {
    let ends = |at: usize| {
        let parameters = |rest: &[u8]| {
            let end = |at: &usize| separator(&rest[*at..], decode_slashes) > 0 || rest[*at] == b'?';
            (0..rest.len()).find(end).unwrap_or(rest.len())
        };
        let at = at + if rest.get(at) == Some(&b';') { parameters(&rest[at..]) } else { 0 };
        let rest = &rest[at..];
        let separator = separator(rest, decode_slashes);
        (separator > 0 || matches!(rest, [] | [b'?', ..])).then_some(at + separator)
    };
    let one = dot(rest);
    if one == 0 {
        return None;
    }
    if let Some(length) = ends(one) {
        return Some((false, length));
    }
    let two = dot(&rest[one..]);
    if two == 0 { None } else { ends(one + two).map(|length| (true, length)) }
}

/// Writes `path` anew, in one pass from left to right, so that nothing is decoded twice.
fn rewrite(path: &[u8], level: PathNormalization, out: &mut Vec<u8>) -> Result<(), TargetRefusal> {
    let decode_slashes = level == PathNormalization::DecodeAndMergeSlashes;
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        let rest = &path[at..];
        // A dot segment goes with the slash after it: what remains ends with the slash before it.
        if out.last() == Some(&b'/')
            && let Some((up, length)) = dots(rest, decode_slashes)
        {
            if up && out.len() > 1 {
                out.pop();
                let parent = memchr::memrchr(b'/', out).map_or(0, |slash| slash + 1);
                out.truncate(parent);
            }
            at += length;
            continue;
        }
        let separator = separator(rest, decode_slashes);
        if separator > 0 {
            out.push(b'/');
            at += separator;
            continue;
        }
        match (class(byte), decode(rest)) {
            (Class::Percent, Some(decoded)) => {
                match class(decoded) {
                    Class::Unreserved | Class::Dot => push_decoded(decoded, out)?,
                    // The case of the digits stays: an upstream may care, as Envoy's authors found.
                    _ => out.extend_from_slice(&rest[..3]),
                }
                at += 3;
                continue;
            }
            (Class::Escape, _) => {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                out.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
            _ => out.push(byte),
        }
        at += 1;
    }
    Ok(())
}

/// Writes a decoded byte, unless it would complete an escape begun by a stray `%`: `%%32` must not become
/// `%2`, for the next reader would decode what this one has just written.
fn push_decoded(byte: u8, out: &mut Vec<u8>) -> Result<(), TargetRefusal> {
    if nibble(byte).is_some() {
        let stray = match out.as_slice() {
            [.., b'%'] => true,
            // `%a` followed by a digit; a whole escape has two digits after its `%`.
            [.., b'%', digit] => nibble(*digit).is_some(),
            _ => false,
        };
        if stray {
            return Err(TargetRefusal::AmbiguousEscape);
        }
    }
    out.push(byte);
    Ok(())
}

#[cfg(test)]
mod tests;
