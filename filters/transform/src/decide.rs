//! The pure decision: what becomes of a request head.

use crate::settings::{HeaderChanges, PathRewrite, Redirect, RedirectPath, Reply, Settings};
use bytes::Bytes;
use filter_api::{Origin, Trace, TraceStep};
use http::header::{HOST, LOCATION};
use http::uri::{Authority, PathAndQuery, Uri};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, request};
use regex::Regex;
use std::borrow::Cow;

/// Settings, ready to run.
#[derive(Debug)]
pub struct Compiled {
    request: Changes,
    response: Changes,
    path: Option<Rewrite>,
    authority: Option<(Authority, HeaderValue)>,
    reply: Option<Answer>,
}

/// What becomes of the request.
#[derive(Debug)]
pub enum Decision {
    /// It goes on, changed.
    Forward(Edit),
    /// It is answered here.
    Reply(Answered),
}

/// A change of the request head that is not a header field.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Edit {
    /// New path and query.
    pub path: Option<String>,
}

/// An answer of our own.
#[derive(Debug)]
pub struct Answered {
    /// Status.
    pub status: StatusCode,
    /// `location` and the like.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

#[derive(Debug, Default)]
struct Changes {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Debug)]
enum Rewrite {
    Full(String),
    Prefix { matched: usize, with: String },
    Regex { pattern: Regex, with: String },
}

#[derive(Debug)]
enum Answer {
    Redirect { status: StatusCode, redirect: Redirect },
    Direct { status: StatusCode, body: Bytes },
}

/// What `settings` make of a request with this head. Pure: the layer, `explain` and the tests all ask here.
pub fn decide(settings: &[Compiled], head: &request::Parts, trace: &mut impl Trace) -> Decision {
    let mut edit = Edit::default();
    for compiled in settings {
        match &compiled.reply {
            Some(Answer::Redirect { status, redirect }) => {
                let location = redirect.location(head);
                trace.step(|| step(true, format!("redirect {status} to {location}")));
                let mut headers = HeaderMap::new();
                // A location made of a checked authority and a path that is a header value by construction of `Uri` cannot fail here.
                if let Ok(value) = HeaderValue::try_from(location) {
                    headers.insert(LOCATION, value);
                }
                return Decision::Reply(Answered { status: *status, headers, body: Bytes::new() });
            }
            Some(Answer::Direct { status, body }) => {
                trace.step(|| step(true, format!("direct response {status}, {} bytes", body.len())));
                return Decision::Reply(Answered {
                    status: *status,
                    headers: HeaderMap::new(),
                    body: body.clone(),
                });
            }
            None => {}
        }
        if let Some(rewrite) = &compiled.path {
            let current =
                edit.path.take().map_or_else(|| Cow::Borrowed(path_and_query(&head.uri)), Cow::Owned);
            let new = rewrite.apply(&current);
            trace.step(|| step(true, format!("path {current} becomes {new}")));
            edit.path = Some(new);
        }
    }
    Decision::Forward(edit)
}

fn step(held: bool, because: String) -> TraceStep {
    TraceStep { origin: Origin::BUILT_IN, held, because }
}

impl Edit {
    /// Changes the head: header fields, then path and authority. Fails when the new path is not a valid request target.
    pub fn apply(self, settings: &[Compiled], head: &mut request::Parts) -> Result<(), String> {
        for compiled in settings {
            compiled.request.apply(&mut head.headers);
        }
        let authority = settings.iter().rev().find_map(|compiled| compiled.authority.as_ref());
        if self.path.is_none() && authority.is_none() {
            return Ok(());
        }
        let mut uri = std::mem::take(&mut head.uri).into_parts();
        if let Some(path) = self.path {
            let path = PathAndQuery::try_from(path.as_str())
                .map_err(|error| format!("the rewritten path {path:?} is not a request target: {error}"))?;
            uri.path_and_query = Some(path);
        }
        if let Some((authority, value)) = authority {
            head.headers.insert(HOST, value.clone());
            if uri.authority.is_some() {
                uri.authority = Some(authority.clone());
            }
        }
        head.uri =
            Uri::from_parts(uri).map_err(|error| format!("the rewritten target is not valid: {error}"))?;
        Ok(())
    }
}

impl Compiled {
    pub(crate) fn new(settings: &Settings) -> Result<Self, String> {
        let authority = match &settings.authority {
            None => None,
            Some(text) => {
                let wrong = |error: &dyn std::fmt::Display| {
                    format!("authority: {text:?} is not a host: {error}; write host or host:port")
                };
                let authority = Authority::try_from(text.as_str()).map_err(|error| wrong(&error))?;
                let value = HeaderValue::try_from(text.as_str()).map_err(|error| wrong(&error))?;
                Some((authority, value))
            }
        };
        Ok(Self {
            request: Changes::new("request_headers", &settings.request_headers)?,
            response: Changes::new("response_headers", &settings.response_headers)?,
            path: settings.path.as_ref().map(Rewrite::new).transpose()?,
            authority,
            reply: settings.reply.as_ref().map(Answer::new).transpose()?,
        })
    }

    pub(crate) fn change_response(&self, headers: &mut HeaderMap) {
        self.response.apply(headers);
    }
}

impl Changes {
    fn new(field: &str, changes: &HeaderChanges) -> Result<Self, String> {
        let name = |text: &String| {
            HeaderName::try_from(text.as_str()).map_err(|_| format!("{field}: {text:?} is not a header name"))
        };
        let pair = |change: &crate::HeaderChange| {
            let value = HeaderValue::try_from(change.value.as_str())
                .map_err(|_| format!("{field}: the value of {} holds a control character", change.name))?;
            Ok::<_, String>((name(&change.name)?, value))
        };
        Ok(Self {
            remove: changes.remove.iter().map(name).collect::<Result<_, _>>()?,
            set: changes.set.iter().map(pair).collect::<Result<_, _>>()?,
            add: changes.add.iter().map(pair).collect::<Result<_, _>>()?,
        })
    }

    fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
    }
}

impl Rewrite {
    fn new(rewrite: &PathRewrite) -> Result<Self, String> {
        Ok(match rewrite {
            PathRewrite::Full(path) => Self::Full(path.clone()),
            PathRewrite::Prefix { matched, with } => {
                Self::Prefix { matched: matched.len(), with: with.clone() }
            }
            PathRewrite::Regex { pattern, with } => Self::Regex {
                pattern: Regex::new(pattern).map_err(|error| format!("path: regex {pattern:?}: {error}"))?,
                with: replacement(with)?,
            },
        })
    }

    fn apply(&self, path_and_query: &str) -> String {
        let (path, query) = path_and_query.split_at(path_and_query.find('?').unwrap_or(path_and_query.len()));
        match self {
            Self::Full(with) => format!("{with}{query}"),
            Self::Prefix { matched, with } => {
                format!("{with}{}{query}", path.get(*matched..).unwrap_or_default())
            }
            Self::Regex { pattern, with } => format!("{}{query}", pattern.replace_all(path, with.as_str())),
        }
    }
}

/// Turns RE2's `\1` into the `${1}` of the regex crate; every other `$` is literal.
fn replacement(with: &str) -> Result<String, String> {
    let mut out = String::with_capacity(with.len() + 8);
    let mut chars = with.chars();
    while let Some(c) = chars.next() {
        match c {
            '$' => out.push_str("$$"),
            '\\' => match chars.next() {
                Some('\\') => out.push('\\'),
                Some(digit) if digit.is_ascii_digit() => {
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

impl Answer {
    fn new(reply: &Reply) -> Result<Self, String> {
        let parse = |status: u16| {
            StatusCode::from_u16(status)
                .map_err(|_| format!("reply: {status} is not an HTTP status; write 200 to 599"))
        };
        Ok(match reply {
            Reply::Direct { status, body } => {
                Self::Direct { status: parse(*status)?, body: Bytes::from(body.clone()) }
            }
            Reply::Redirect(redirect) => {
                let status = parse(redirect.status)?;
                if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                    return Err(format!(
                        "reply: {status} does not redirect; write 301, 302, 303, 307 or 308"
                    ));
                }
                if let Some(authority) = &redirect.authority {
                    Authority::try_from(authority.as_str())
                        .map_err(|error| format!("reply: authority {authority:?}: {error}"))?;
                }
                Self::Redirect { status, redirect: redirect.clone() }
            }
        })
    }
}

impl Redirect {
    fn location(&self, head: &request::Parts) -> String {
        let own = head.uri.authority().map(Authority::as_str);
        let own =
            own.or_else(|| head.headers.get(HOST).and_then(|host| host.to_str().ok())).unwrap_or_default();
        let (own_host, own_port) = split_port(own);
        let own_scheme = head.uri.scheme_str().unwrap_or("http");
        let scheme = self.scheme.as_deref().unwrap_or(own_scheme);
        let host = self.authority.as_deref().unwrap_or(own_host);
        // A port that was the default of the old scheme does not go along to the new one.
        let kept = own_port.filter(|_| self.scheme.is_none() && self.authority.is_none());
        let port = self.port.or(kept).filter(|port| !matches!((scheme, port), ("http", 80) | ("https", 443)));
        let path_and_query = path_and_query(&head.uri);
        let (path, query) = path_and_query.split_at(path_and_query.find('?').unwrap_or(path_and_query.len()));
        let path: Cow<'_, str> = match &self.path {
            None => path.into(),
            Some(RedirectPath::Full(full)) if full.contains('?') => {
                return finish(scheme, host, port, full, "");
            }
            Some(RedirectPath::Full(full)) => full.as_str().into(),
            Some(RedirectPath::Prefix { matched, with }) => {
                format!("{with}{}", path.get(matched.len()..).unwrap_or_default()).into()
            }
        };
        finish(scheme, host, port, &path, query)
    }
}

fn finish(scheme: &str, host: &str, port: Option<u16>, path: &str, query: &str) -> String {
    match port {
        Some(port) => format!("{scheme}://{host}:{port}{path}{query}"),
        None => format!("{scheme}://{host}{path}{query}"),
    }
}

fn split_port(authority: &str) -> (&str, Option<u16>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (authority, None),
        },
        _ => (authority, None),
    }
}

fn path_and_query(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", PathAndQuery::as_str)
}
