//! The conditions of a rule, compiled.

use crate::mesh::{HeaderMatch, PathMatch, QueryMatch, RouteMatch, StringMatch, ValueMatch};
use filter_api::re2::{whole, written};
use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use regex::bytes::Regex;
use smallvec::SmallVec;

/// A request as rules look at it.
pub(super) struct Subject<'a> {
    /// Lower-case, without trailing dot and port.
    pub(super) host: &'a str,
    /// The authority's own port.
    pub(super) port: Option<u16>,
    /// Method, target and headers.
    pub(super) head: &'a Parts,
}

/// All conditions of one rule.
#[derive(Debug)]
pub(super) struct Rule {
    path: Path,
    ignore_case: bool,
    // Most rules look at the path alone.
    more: Option<Box<Conditions>>,
}

/// The first condition that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    Path,
    Method,
    Scheme,
    Authority,
    Header(usize),
    Query(usize),
}

/// The literal by which rules are told apart.
#[derive(Clone, Copy, Debug)]
pub(super) enum PathKey<'a> {
    /// The path is this.
    Exact(&'a str),
    /// The path begins with this.
    Head(&'a str),
    /// It may be any.
    None,
}

#[derive(Debug)]
enum Path {
    Any,
    Exact(Box<str>),
    Prefix(Box<str>),
    /// Without trailing slash.
    Segments(Box<str>),
    Regex(Regex),
}

#[derive(Debug)]
struct Conditions {
    method: Option<Text>,
    scheme: Option<Text>,
    authority: Option<Text>,
    headers: Box<[Header]>,
    query: Box<[Query]>,
}

#[derive(Debug)]
struct Header {
    of: Of,
    /// `None`: present.
    value: Option<Text>,
    invert: bool,
}

/// What a condition on a header looks at.
#[derive(Debug)]
enum Of {
    Field(HeaderName),
    /// The parts of the request line go by HTTP/2's names, as with Envoy.
    Method,
    Path,
    Scheme,
    Authority,
}

#[derive(Debug)]
struct Query {
    name: Box<str>,
    /// `None`: present.
    value: Option<Text>,
}

#[derive(Debug)]
enum Text {
    Exact(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
    Contains(Box<str>),
    Regex(Regex),
}

impl Rule {
    /// Stands for conditions that cannot be compiled: nothing fulfils them.
    pub(super) fn never() -> Self {
        Self { path: Path::Exact("".into()), ignore_case: false, more: None }
    }

    /// Compiles the conditions of a rule. The error names the condition.
    pub(super) fn compile(mesh: &RouteMatch) -> Result<Self, String> {
        let path = match &mesh.path {
            PathMatch::Any => Path::Any,
            PathMatch::Exact(path) => Path::Exact(path.as_str().into()),
            PathMatch::Prefix(path) => Path::Prefix(path.as_str().into()),
            PathMatch::SegmentPrefix(path) => Path::Segments(path.trim_end_matches('/').into()),
            PathMatch::Regex(pattern) => {
                Path::Regex(whole(pattern).map_err(|error| format!("path: {error}"))?)
            }
        };
        let text = |what: &str, text: &Option<StringMatch>| {
            text.as_ref().map(Text::compile).transpose().map_err(|error| format!("{what}: {error}"))
        };
        let conditions = Conditions {
            method: text("method", &mesh.method)?,
            scheme: text("scheme", &mesh.scheme)?,
            authority: text("authority", &mesh.authority)?,
            headers: mesh.headers.iter().map(Header::compile).collect::<Result<_, _>>()?,
            query: mesh.query.iter().map(Query::compile).collect::<Result<_, _>>()?,
        };
        let more = (!conditions.is_empty()).then(|| Box::new(conditions));
        Ok(Self { path, ignore_case: mesh.ignore_path_case, more })
    }

    /// The first condition that does not hold, or `None` when the rule matches.
    #[inline]
    pub(super) fn refuses(&self, subject: &Subject<'_>) -> Option<Failed> {
        if !self.path.holds(subject.head.uri.path(), self.ignore_case) {
            return Some(Failed::Path);
        }
        self.more.as_ref()?.refuse(subject)
    }

    /// What the path has to be, as far as bytes can say.
    pub(super) fn path_key(&self) -> PathKey<'_> {
        match &self.path {
            _ if self.ignore_case => PathKey::None,
            Path::Exact(path) => PathKey::Exact(path),
            Path::Prefix(head) | Path::Segments(head) => PathKey::Head(head),
            Path::Any | Path::Regex(_) => PathKey::None,
        }
    }

    /// Says in words why a condition failed. Header and parameter values stay out of it: they may be secrets.
    pub(super) fn explain(&self, failed: Failed, subject: &Subject<'_>) -> String {
        let unlike = |what: &str, is: &str, text: Option<&Option<Text>>| match text {
            Some(Some(text)) => format!("{what} {is:?} is not {}", text.expected()),
            _ => format!("{what} {is:?} does not match"),
        };
        let more = self.more.as_deref();
        match failed {
            Failed::Path => {
                let case = if self.ignore_case { " in any case" } else { "" };
                format!("path {:?} is not {}{case}", subject.head.uri.path(), self.path.expected())
            }
            Failed::Method => unlike("method", subject.head.method.as_str(), more.map(|more| &more.method)),
            Failed::Scheme => unlike("scheme", subject.scheme(), more.map(|more| &more.scheme)),
            Failed::Authority => unlike(
                "authority",
                &subject.with_authority(|authority| String::from_utf8_lossy(authority).into_owned()),
                more.map(|more| &more.authority),
            ),
            Failed::Header(place) => more
                .and_then(|more| more.headers.get(place))
                .map(|header| header.explain(subject))
                .unwrap_or_default(),
            Failed::Query(place) => more
                .and_then(|more| more.query.get(place))
                .map(|query| query.explain(subject))
                .unwrap_or_default(),
        }
    }
}

impl Path {
    fn holds(&self, path: &str, ignore_case: bool) -> bool {
        let begins = |prefix: &str| match path.as_bytes().get(..prefix.len()) {
            Some(head) if ignore_case => head.eq_ignore_ascii_case(prefix.as_bytes()),
            Some(head) => head == prefix.as_bytes(),
            None => false,
        };
        match self {
            Self::Any => true,
            Self::Exact(exact) => path.len() == exact.len() && begins(exact),
            Self::Prefix(prefix) => begins(prefix),
            Self::Segments(prefix) => {
                begins(prefix) && path.as_bytes().get(prefix.len()).is_none_or(|next| *next == b'/')
            }
            Self::Regex(regex) => regex.is_match(path.as_bytes()),
        }
    }

    fn expected(&self) -> String {
        match self {
            Self::Any => "any".to_owned(),
            Self::Exact(exact) => format!("{exact:?}"),
            Self::Prefix(prefix) => format!("beginning with {prefix:?}"),
            Self::Segments(prefix) => format!("{prefix:?} or below it"),
            Self::Regex(regex) => format!("matched by {:?}", written(regex)),
        }
    }
}

impl Conditions {
    fn is_empty(&self) -> bool {
        self.method.is_none()
            && self.scheme.is_none()
            && self.authority.is_none()
            && self.headers.is_empty()
            && self.query.is_empty()
    }

    fn refuse(&self, subject: &Subject<'_>) -> Option<Failed> {
        let fails = |text: &Option<Text>, value: &str| {
            text.as_ref().is_some_and(|text| !text.holds(value.as_bytes()))
        };
        if fails(&self.method, subject.head.method.as_str()) {
            return Some(Failed::Method);
        }
        if fails(&self.scheme, subject.scheme()) {
            return Some(Failed::Scheme);
        }
        if let Some(text) = &self.authority
            && !subject.with_authority(|authority| text.holds(authority))
        {
            return Some(Failed::Authority);
        }
        let header = self.headers.iter().position(|header| !header.holds(subject));
        header.map(Failed::Header).or_else(|| {
            let query = self.query.iter().position(|query| !query.holds(subject));
            query.map(Failed::Query)
        })
    }
}

impl Header {
    fn compile(mesh: &HeaderMatch) -> Result<Self, String> {
        let of = match mesh.name.to_ascii_lowercase().as_str() {
            ":method" => Of::Method,
            ":path" => Of::Path,
            ":scheme" => Of::Scheme,
            ":authority" | "host" => Of::Authority,
            name => Of::Field(HeaderName::try_from(name).map_err(|_| {
                format!("header {:?}: not a header name; write letters, digits and dashes", mesh.name)
            })?),
        };
        let value = compile_value(&mesh.value).map_err(|error| format!("header {:?}: {error}", mesh.name))?;
        Ok(Self { of, value, invert: mesh.invert })
    }

    fn holds(&self, subject: &Subject<'_>) -> bool {
        let is = |bytes: &[u8]| self.value.as_ref().is_none_or(|text| text.holds(bytes));
        let found = match &self.of {
            Of::Field(name) => {
                let mut fields = subject.head.headers.get_all(name).iter();
                match (fields.next(), fields.next()) {
                    (None, _) => false,
                    (Some(only), None) => is(only.as_bytes()),
                    (Some(first), Some(second)) => is(&join([first, second].into_iter().chain(fields))),
                }
            }
            Of::Method => is(subject.head.method.as_str().as_bytes()),
            // With the query, as Envoy's `:path`.
            Of::Path => subject.head.uri.path_and_query().is_some_and(|path| is(path.as_str().as_bytes())),
            Of::Scheme => is(subject.scheme().as_bytes()),
            Of::Authority => subject.with_authority(is),
        };
        found != self.invert
    }

    fn is_there(&self, subject: &Subject<'_>) -> bool {
        match &self.of {
            Of::Field(name) => subject.head.headers.contains_key(name),
            Of::Path => subject.head.uri.path_and_query().is_some(),
            Of::Method | Of::Scheme | Of::Authority => true,
        }
    }

    fn explain(&self, subject: &Subject<'_>) -> String {
        let name = match &self.of {
            Of::Field(name) => name.as_str(),
            Of::Method => ":method",
            Of::Path => ":path",
            Of::Scheme => ":scheme",
            Of::Authority => ":authority",
        };
        match (&self.value, self.invert) {
            (None, true) => format!("header {name} is there, and must not be"),
            (Some(text), true) => format!("header {name} is {}, and must not be", text.expected()),
            (None, false) => format!("header {name} is absent"),
            (Some(_), false) if !self.is_there(subject) => {
                format!("header {name} is absent")
            }
            (Some(text), false) => format!("header {name} is not {}", text.expected()),
        }
    }
}

impl Query {
    fn compile(mesh: &QueryMatch) -> Result<Self, String> {
        let value = compile_value(&mesh.value)
            .map_err(|error| format!("query parameter {:?}: {error}", mesh.name))?;
        Ok(Self { name: mesh.name.as_str().into(), value })
    }

    fn holds(&self, subject: &Subject<'_>) -> bool {
        let value = self.find(subject);
        value.is_some_and(|value| self.value.as_ref().is_none_or(|text| text.holds(value.as_bytes())))
    }

    /// The value of the first parameter of that name; empty when it has none.
    fn find<'a>(&self, subject: &Subject<'a>) -> Option<&'a str> {
        let parameters = subject.head.uri.query()?.split('&');
        parameters
            .map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
            .find(|(name, _)| **name == *self.name)
            .map(|(_, value)| value)
    }

    fn explain(&self, subject: &Subject<'_>) -> String {
        let name = &self.name;
        match &self.value {
            Some(text) if self.find(subject).is_some() => {
                format!("query parameter {name:?} is not {}", text.expected())
            }
            _ => format!("query parameter {name:?} is absent"),
        }
    }
}

impl Text {
    fn compile(mesh: &StringMatch) -> Result<Self, String> {
        Ok(match mesh {
            StringMatch::Exact(text) => Self::Exact(text.as_str().into()),
            StringMatch::Prefix(text) => Self::Prefix(text.as_str().into()),
            StringMatch::Suffix(text) => Self::Suffix(text.as_str().into()),
            StringMatch::Contains(text) => Self::Contains(text.as_str().into()),
            StringMatch::Regex(pattern) => Self::Regex(whole(pattern)?),
        })
    }

    fn holds(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(text) => value == text.as_bytes(),
            Self::Prefix(text) => value.starts_with(text.as_bytes()),
            Self::Suffix(text) => value.ends_with(text.as_bytes()),
            Self::Contains(text) => memchr::memmem::find(value, text.as_bytes()).is_some(),
            Self::Regex(regex) => regex.is_match(value),
        }
    }

    fn expected(&self) -> String {
        match self {
            Self::Exact(text) => format!("{text:?}"),
            Self::Prefix(text) => format!("beginning with {text:?}"),
            Self::Suffix(text) => format!("ending with {text:?}"),
            Self::Contains(text) => format!("holding {text:?}"),
            Self::Regex(regex) => format!("matched by {:?}", written(regex)),
        }
    }
}

impl Subject<'_> {
    /// The target's own scheme; `http` for a target without one.
    fn scheme(&self) -> &str {
        self.head.uri.scheme_str().unwrap_or("http")
    }

    /// Calls with `host[:port]`.
    fn with_authority<T>(&self, read: impl FnOnce(&[u8]) -> T) -> T {
        let Some(port) = self.port else { return read(self.host.as_bytes()) };
        let mut authority: SmallVec<[u8; 256]> = SmallVec::from_slice(self.host.as_bytes());
        authority.push(b':');
        authority.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
        read(&authority)
    }
}

fn compile_value(mesh: &ValueMatch) -> Result<Option<Text>, String> {
    match mesh {
        ValueMatch::Present => Ok(None),
        ValueMatch::Value(text) => Text::compile(text).map(Some),
    }
}

/// Fields of one name as a single value (RFC 9110 section 5.3, without the space, as Envoy).
fn join<'a>(fields: impl Iterator<Item = &'a HeaderValue>) -> SmallVec<[u8; 256]> {
    let mut joined = SmallVec::new();
    for (place, field) in fields.enumerate() {
        if place > 0 {
            joined.push(b',');
        }
        joined.extend_from_slice(field.as_bytes());
    }
    joined
}

#[cfg(test)]
mod tests;
