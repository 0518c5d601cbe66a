//! From a format string to a list of pieces.

use http::HeaderName;

use super::Piece;
use super::escape;
use super::operator::{ADDRESSES, Field, Operator, SIMPLE, Source};
use super::time_format::TimeFormat;

/// Objects within objects in a JSON format.
const MAX_DEPTH: usize = 8;

/// Why a log format cannot be used: what is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// No operator has this name.
    #[error("unknown operator %{name}% at character {at}{}", near(.suggestion))]
    Unknown {
        /// The name as written.
        name: String,
        /// Position of its `%`, counted from 1.
        at: usize,
        /// The known operator with the most similar name.
        suggestion: Option<&'static str>,
    },
    /// A `%` without its partner.
    #[error("the % at character {at} starts an operator that does not end; write %% for a percent sign")]
    Unclosed {
        /// Position of the `%`, counted from 1.
        at: usize,
    },
    /// An argument that does not fit its operator.
    #[error("%{operator}% at character {at}: {problem}")]
    Argument {
        /// The operator as written.
        operator: String,
        /// Position of its `%`, counted from 1.
        at: usize,
        /// What is wrong and what to write.
        problem: String,
    },
    /// The value of a JSON key is wrong.
    #[error("key {key:?}: {source}")]
    Key {
        /// The key, with the keys around it.
        key: String,
        /// What is wrong with its value.
        source: Box<FormatError>,
    },
    /// The format is no JSON object.
    #[error("not a JSON format: {0}")]
    Json(String),
}

impl FormatError {
    pub(super) fn json(error: &serde_json::Error) -> Self {
        Self::Json(error.to_string())
    }
}

/// Compiles a text with operators.
pub(super) fn pieces(format: &str) -> Result<Vec<Piece>, FormatError> {
    split(format, |literal| literal.as_bytes().into())
}

/// Compiles a JSON object whose strings hold operators into one line.
pub(super) fn json(format: &serde_json::Value) -> Result<Vec<Piece>, FormatError> {
    if !format.is_object() {
        return Err(FormatError::Json("expected an object of keys and operators".to_owned()));
    }
    let mut pieces = Vec::new();
    object(format, 0, &mut pieces)?;
    push_literal(b"\n", &mut pieces);
    Ok(pieces)
}

fn object(value: &serde_json::Value, depth: usize, pieces: &mut Vec<Piece>) -> Result<(), FormatError> {
    match value {
        serde_json::Value::Object(fields) if depth < MAX_DEPTH => {
            push_literal(b"{", pieces);
            for (index, (key, value)) in fields.iter().enumerate() {
                let mut name = if index == 0 { vec![b'"'] } else { vec![b',', b'"'] };
                escape::json(key.as_bytes(), &mut name);
                name.extend_from_slice(b"\":");
                push_literal(&name, pieces);
                object(value, depth + 1, pieces)
                    .map_err(|source| FormatError::Key { key: key.clone(), source: Box::new(source) })?;
            }
            push_literal(b"}", pieces);
        }
        serde_json::Value::Object(_) => {
            return Err(FormatError::Json(format!("more than {MAX_DEPTH} objects within each other")));
        }
        serde_json::Value::String(text) => string(text, pieces)?,
        serde_json::Value::Array(_) => {
            return Err(FormatError::Json("a list is not supported here".to_owned()));
        }
        plain => push_literal(plain.to_string().as_bytes(), pieces),
    }
    Ok(())
}

fn string(text: &str, pieces: &mut Vec<Piece>) -> Result<(), FormatError> {
    let escaped = |literal: &str| {
        let mut out = Vec::with_capacity(literal.len());
        escape::json(literal.as_bytes(), &mut out);
        out.into()
    };
    let mut parts = split(text, escaped)?;
    if let [Piece::Inline(operator)] = parts.as_slice() {
        pieces.push(Piece::Typed(operator.clone()));
        return Ok(());
    }
    push_literal(b"\"", pieces);
    pieces.append(&mut parts);
    push_literal(b"\"", pieces);
    Ok(())
}

fn push_literal(bytes: &[u8], pieces: &mut Vec<Piece>) {
    if let Some(Piece::Literal(last)) = pieces.last_mut() {
        *last = [&**last, bytes].concat().into();
    } else {
        pieces.push(Piece::Literal(bytes.into()));
    }
}

fn split(format: &str, literal: impl Fn(&str) -> Box<[u8]>) -> Result<Vec<Piece>, FormatError> {
    let mut pieces = Vec::new();
    let mut rest = format;
    while let Some(percent) = rest.find('%') {
        let (before, after) =
            (rest.get(..percent).unwrap_or_default(), rest.get(percent + 1..).unwrap_or_default());
        let position = format.len() - rest.len() + percent;
        let at = format.get(..position).map_or(0, |before| before.chars().count()) + 1;
        if !before.is_empty() {
            push_literal(&literal(before), &mut pieces);
        }
        if let Some(after) = after.strip_prefix('%') {
            push_literal(b"%", &mut pieces);
            rest = after;
            continue;
        }
        let end = end_of_operator(after).ok_or(FormatError::Unclosed { at })?;
        pieces.push(Piece::Inline(operator(after.get(..end).unwrap_or_default(), at)?));
        rest = after.get(end + 1..).unwrap_or_default();
    }
    if !rest.is_empty() {
        push_literal(&literal(rest), &mut pieces);
    }
    Ok(pieces)
}

/// The closing `%`: a `%` within the brackets belongs to a time format.
fn end_of_operator(text: &str) -> Option<usize> {
    let mut inside = false;
    text.bytes().position(|byte| {
        match byte {
            b'(' => inside = true,
            b')' => inside = false,
            _ => {}
        }
        byte == b'%' && !inside
    })
}

fn operator(written: &str, at: usize) -> Result<Operator, FormatError> {
    let wrong = |problem: String| FormatError::Argument { operator: written.to_owned(), at, problem };
    let name_end = written.find(['(', ':']).unwrap_or(written.len());
    let (name, rest) = written.split_at(name_end);
    let (argument, rest) = match rest.strip_prefix('(') {
        Some(inner) => {
            let (argument, rest) =
                inner.rsplit_once(')').ok_or_else(|| wrong("the bracket is not closed".to_owned()))?;
            (Some(argument), rest)
        }
        None => (None, rest),
    };
    let max_bytes = match rest.strip_prefix(':') {
        Some(digits) => Some(digits.parse().ok().filter(|max| *max > 0).ok_or_else(|| {
            wrong(format!("{digits:?} is not a length; write a number of bytes after the colon"))
        })?),
        None if rest.is_empty() => None,
        None => return Err(wrong(format!("{rest:?} is not expected after the bracket"))),
    };
    let field = field(name, argument).map_err(|problem| match problem {
        Some(problem) => wrong(problem),
        None => FormatError::Unknown { name: name.to_owned(), at, suggestion: suggestion(name) },
    })?;
    Ok(Operator { field, max_bytes })
}

/// The field of an operator; the error is what is wrong with its argument, or `None` for an unknown name.
fn field(name: &str, argument: Option<&str>) -> Result<Field, Option<String>> {
    let headers = |make: fn(Source, Option<Source>) -> Field| match argument {
        Some(argument) => {
            let (first, second) = argument.split_once('?').map_or((argument, None), |(a, b)| (a, Some(b)));
            Ok(make(source(first)?, second.map(source).transpose()?))
        }
        None => Err(Some("name a header in brackets, as in REQ(USER-AGENT)".to_owned())),
    };
    match name {
        "REQ" => return headers(Field::Request),
        "REQ_WITHOUT_QUERY" => return headers(Field::RequestWithoutQuery),
        "RESP" => return headers(Field::Response),
        "TRAILER" => return headers(Field::Trailer),
        "START_TIME" => {
            let compiled = argument.filter(|format| !format.is_empty()).map(TimeFormat::compile).transpose();
            return compiled
                .map(Field::StartTime)
                .map_err(|specifier| Some(format!("{specifier} is not a known time specifier")));
        }
        _ => {}
    }
    let simple = SIMPLE.iter().find(|(known, _)| *known == name).map(|(_, simple)| Field::Simple(*simple));
    let address = ADDRESSES
        .iter()
        .find(|(known, ..)| *known == name)
        .map(|(_, peer, part)| Field::Address(*peer, *part));
    let field = simple.or(address).ok_or(None)?;
    match argument {
        None | Some("") => Ok(field),
        Some(argument) => Err(Some(format!("it takes no argument; remove ({argument})"))),
    }
}

fn source(name: &str) -> Result<Source, Option<String>> {
    let lower = name.to_ascii_lowercase();
    Ok(match lower.as_str() {
        ":method" => Source::Method,
        ":path" => Source::Path,
        // HTTP/1 calls it Host; the record keeps both in one field.
        ":authority" | "host" => Source::Authority,
        ":scheme" => Source::Scheme,
        ":status" => Source::Status,
        other => {
            let name = HeaderName::from_bytes(other.as_bytes())
                .map_err(|_| Some(format!("{name:?} is not a header name")))?;
            match name.as_str() {
                "x-envoy-original-path" => Source::OriginalPath,
                "x-envoy-upstream-service-time" => Source::ServiceTime(name),
                _ => Source::Header(name),
            }
        }
    })
}

fn near(suggestion: &Option<&str>) -> String {
    suggestion.map(|name| format!("; did you mean %{name}%?")).unwrap_or_default()
}

/// The known operator that shares most letters with what was written, when nearly all do.
fn suggestion(written: &str) -> Option<&'static str> {
    let known = SIMPLE.iter().map(|(name, _)| *name).chain(ADDRESSES.iter().map(|(name, ..)| *name));
    let known = known.chain(["START_TIME", "REQ", "RESP", "TRAILER", "REQ_WITHOUT_QUERY"]);
    let upper = written.to_ascii_uppercase();
    let scored = known.map(|name| (distance(&upper, name), name)).min_by_key(|(distance, _)| *distance);
    scored.filter(|(distance, name)| *distance <= 1 + name.len() / 6).map(|(_, name)| name)
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (line, from) in a.bytes().enumerate() {
        let mut diagonal = line;
        let mut left = line + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, to) in row.iter_mut().skip(1).zip(b.bytes()) {
            let above = *cell;
            left = (diagonal + usize::from(from != to)).min(left + 1).min(above + 1);
            diagonal = above;
            *cell = left;
        }
    }
    row.last().copied().unwrap_or_default()
}
