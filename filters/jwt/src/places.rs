//! Where tokens are found, and how they are taken out.

use crate::Refusal;
use crate::settings;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode;
use std::borrow::Cow;

/// A place where a token may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A header, after a prefix.
    Header {
        /// Its name.
        name: HeaderName,
        /// What comes before the token.
        prefix: Box<str>,
    },
    /// A query parameter.
    Parameter(Box<str>),
    /// A cookie.
    Cookie(Box<str>),
}

impl Place {
    /// Those of Envoy where none is written.
    pub(crate) fn defaults() -> Vec<Self> {
        vec![
            Self::Header { name: AUTHORIZATION, prefix: "Bearer ".into() },
            Self::Parameter("access_token".into()),
        ]
    }

    pub(crate) fn new(place: &settings::Place) -> Result<Self, String> {
        Ok(match place {
            settings::Place::Header { name, prefix } => {
                Self::Header { name: header_name("places.name", name)?, prefix: prefix.as_str().into() }
            }
            settings::Place::Parameter(name) | settings::Place::Cookie(name) if name.is_empty() => {
                return Err("places: a parameter or cookie has no name; write one".to_owned());
            }
            settings::Place::Parameter(name) => Self::Parameter(name.as_str().into()),
            settings::Place::Cookie(name) => Self::Cookie(name.as_str().into()),
        })
    }

    /// The token here, as it was sent. What may be read in two ways is refused: a place that is there twice could hold one token for us and
    /// another for the application.
    pub(crate) fn find<'a>(&self, head: &'a Parts) -> Result<Option<Cow<'a, str>>, Refusal> {
        match self {
            Self::Header { name, prefix } => in_header(&head.headers, name, prefix),
            Self::Parameter(name) => {
                let query = head.uri.query().unwrap_or_default();
                only(parameters(query).filter(|(_, found, _)| **found == **name).map(|(_, _, value)| value))
            }
            Self::Cookie(name) => {
                let values = cookies(&head.headers).filter(|(found, _)| *found == name.as_bytes());
                only(values.map(|(_, value)| {
                    std::str::from_utf8(value).map(Cow::Borrowed).map_err(|_| Refusal::Format)
                }))
            }
        }
    }

    /// Takes the place out of the head. What is left is well-formed.
    pub(crate) fn remove(&self, head: &mut Parts) -> Result<(), String> {
        match self {
            Self::Header { name, .. } => {
                head.headers.remove(name);
            }
            Self::Parameter(name) => {
                if let Some(target) = without(&head.uri, name)? {
                    let mut parts = std::mem::take(&mut head.uri).into_parts();
                    parts.path_and_query = Some(target);
                    head.uri = Uri::from_parts(parts).map_err(|error| error.to_string())?;
                }
            }
            Self::Cookie(name) => remove_cookie(&mut head.headers, name.as_bytes())?,
        }
        Ok(())
    }
}

fn header_name(field: &str, name: &str) -> Result<HeaderName, String> {
    HeaderName::try_from(name)
        .map_err(|_| format!("{field}: {name:?} is no header name; write one, `x-jwt` for example"))
}

/// Headers that frame or route a message: a claim in one of them would let whoever gets a token say where a request ends.
const FRAMING: [HeaderName; 9] = [
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    HOST,
    HeaderName::from_static("keep-alive"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// A header that payload or claims may be written into.
///
/// # Errors
///
/// When it is no name, or that of a header that frames or routes the message.
pub fn output_header(name: &str) -> Result<HeaderName, String> {
    let header = HeaderName::try_from(name)
        .map_err(|_| format!("{name:?} is no header name; write one, `x-jwt` for example"))?;
    if FRAMING.contains(&header) {
        return Err(format!(
            "{name:?} says where a request ends or goes, and no token may; write another, `x-jwt` for example"
        ));
    }
    Ok(header)
}

fn only<'a>(
    mut values: impl Iterator<Item = Result<Cow<'a, str>, Refusal>>,
) -> Result<Option<Cow<'a, str>>, Refusal> {
    let Some(first) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Refusal::Several);
    }
    let first = first?;
    Ok(if first.is_empty() { None } else { Some(first) })
}

fn in_header<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    prefix: &str,
) -> Result<Option<Cow<'a, str>>, Refusal> {
    let mut fields = headers.get_all(name).iter();
    let Some(first) = fields.next() else { return Ok(None) };
    let token = after_prefix(name, first.as_bytes(), prefix.as_bytes());
    let mut several = false;
    let mut any = token.is_some();
    for field in fields {
        several = true;
        any |= after_prefix(name, field.as_bytes(), prefix.as_bytes()).is_some();
    }
    match token {
        _ if several && any => Err(Refusal::Several),
        None => Ok(None),
        // An empty field says nothing; a scheme without a token says something wrong.
        Some([]) if prefix.is_empty() => Ok(None),
        Some(token) => {
            std::str::from_utf8(token).map(|token| Some(Cow::Borrowed(token))).map_err(|_| Refusal::Format)
        }
    }
}

/// What comes after the prefix; `None` when the value starts otherwise.
fn after_prefix<'a>(name: &HeaderName, value: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let value = value.trim_ascii();
    // Schemes are the same in any case (RFC 9110 section 11.1).
    let any_case = *name == AUTHORIZATION;
    let same =
        |one: &[u8], other: &[u8]| if any_case { one.eq_ignore_ascii_case(other) } else { one == other };
    // The space at the end of `Bearer ` is gone with the token.
    if !prefix.is_empty() && same(value, prefix.trim_ascii_end()) {
        return Some(&[]);
    }
    let (start, rest) = value.split_at_checked(prefix.len())?;
    same(start, prefix).then(|| rest.trim_ascii_start())
}

/// As written, decoded name, decoded value. Names are compared decoded, so that no spelling of a name is left in the target.
fn parameters(query: &str) -> impl Iterator<Item = (&str, Cow<'_, str>, Result<Cow<'_, str>, Refusal>)> {
    query.split('&').map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = percent_decode(name.as_bytes()).decode_utf8_lossy();
        (pair, name, percent_decode(value.as_bytes()).decode_utf8().map_err(|_| Refusal::Format))
    })
}

fn without(uri: &Uri, name: &str) -> Result<Option<PathAndQuery>, String> {
    let Some(query) = uri.query() else { return Ok(None) };
    let kept: Vec<&str> =
        parameters(query).filter(|(_, found, _)| **found != *name).map(|(pair, ..)| pair).collect();
    let path = uri.path();
    let target = if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) };
    PathAndQuery::try_from(target).map(Some).map_err(|error| error.to_string())
}

fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    headers.get_all(COOKIE).iter().flat_map(|field| crumbs(field.as_bytes()))
}

/// Name and value of each cookie of a field (RFC 6265 section 4.2), without quotes.
fn crumbs(field: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    field.split(|byte| *byte == b';').map(|crumb| {
        let crumb = crumb.trim_ascii();
        let at = crumb.iter().position(|byte| *byte == b'=').unwrap_or(crumb.len());
        let (name, value) = crumb.split_at(at);
        let value = value.strip_prefix(b"=").unwrap_or(value).trim_ascii();
        let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        (name.trim_ascii(), unquoted.unwrap_or(value))
    })
}

fn remove_cookie(headers: &mut HeaderMap, name: &[u8]) -> Result<(), String> {
    let mut fields = Vec::new();
    for field in headers.get_all(COOKIE) {
        let crumbs = field.as_bytes().split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let kept: Vec<&[u8]> = crumbs
            .filter(|crumb| self::crumbs(crumb).all(|(found, _)| found != name) && !crumb.is_empty())
            .collect();
        if !kept.is_empty() {
            fields.push(HeaderValue::from_bytes(&kept.join(&b"; "[..])).map_err(|error| error.to_string())?);
        }
    }
    headers.remove(COOKIE);
    for field in fields {
        headers.append(COOKIE, field);
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
