//! The table of what a server answers.

use std::fmt;
use std::pin::Pin;

use bytes::Bytes;
use http::{Method, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Serialize;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";

type Answer = Pin<Box<dyn Future<Output = Reply> + Send>>;
type Handler = Box<dyn Fn(Call) -> Answer + Send + Sync>;

/// Paths and their handlers, in the order in which `/help` lists them.
///
/// ```
/// use sidegate::admin::{Reply, Routes};
/// let routes = Routes::new("admin")
///     .get("/ready", "whether traffic is served", async |_| Reply::text("LIVE\n"))
///     .post("/drain_listeners", "stop accepting", async |_| Reply::text("OK\n"));
/// ```
#[derive(Debug)]
pub struct Routes {
    title: &'static str,
    list: Vec<Route>,
}

pub(super) struct Route {
    path: &'static str,
    pub(super) methods: Methods,
    description: &'static str,
    handler: Handler,
}

/// The methods of a route. HEAD goes with GET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Methods {
    /// Shows.
    Get,
    /// Changes.
    Post,
    /// Shows on GET, changes on POST: the handler looks at [`Call::method`].
    GetAndPost,
}

/// What a handler is called with.
#[derive(Clone, Debug)]
pub struct Call {
    /// GET (also for HEAD) or POST.
    pub method: Method,
    /// What follows the path of the route, of one that ends with `/`.
    pub rest: String,
    /// The query of the URL.
    pub query: Query,
    /// The body, at most 64 KiB.
    pub body: Bytes,
}

/// The decoded query of a URL, in its order.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

/// What a handler answers.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: StatusCode,
    /// The `Content-Type`.
    pub content_type: &'static str,
    /// The body.
    pub bytes: Bytes,
    pub(super) allow: Option<Methods>,
}

impl Routes {
    /// A table with only `/` and `/help`, which every table has.
    #[must_use]
    pub fn new(title: &'static str) -> Self {
        Self { title, list: Vec::new() }
    }

    /// Adds a route that shows something.
    #[must_use]
    pub fn get<F, A>(self, path: &'static str, description: &'static str, handler: F) -> Self
    where
        F: Fn(Call) -> A + Send + Sync + 'static,
        A: Future<Output = Reply> + Send + 'static,
    {
        self.on(Methods::Get, path, description, handler)
    }

    /// Adds a route that changes something: a GET of it is refused.
    #[must_use]
    pub fn post<F, A>(self, path: &'static str, description: &'static str, handler: F) -> Self
    where
        F: Fn(Call) -> A + Send + Sync + 'static,
        A: Future<Output = Reply> + Send + 'static,
    {
        self.on(Methods::Post, path, description, handler)
    }

    /// Adds a route for these methods, in place of an earlier one with the same path.
    #[must_use]
    pub fn on<F, A>(
        mut self,
        methods: Methods,
        path: &'static str,
        description: &'static str,
        handler: F,
    ) -> Self
    where
        F: Fn(Call) -> A + Send + Sync + 'static,
        A: Future<Output = Reply> + Send + 'static,
    {
        let handler: Handler = Box::new(move |call| Box::pin(handler(call)));
        self.list.retain(|route| route.path != path);
        self.list.push(Route { path, methods, description, handler });
        self
    }

    /// The route at a path; or the one whose path ends with `/` and begins it, and what follows.
    pub(super) fn find<'p>(&self, path: &'p str) -> Option<(&Route, &'p str)> {
        let below =
            |route: &Route| route.path.ends_with('/').then(|| path.strip_prefix(route.path)).flatten();
        let exact = self.list.iter().find(|route| route.path == path).map(|route| (route, ""));
        exact.or_else(|| self.list.iter().find_map(|route| Some((route, below(route)?))))
    }

    /// `/` and `/help`, unless the table has its own.
    pub(super) fn built_in(&self, path: &str, method: &Method) -> Option<Reply> {
        if !matches!(path, "/" | "/help") {
            return None;
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            let refused = Reply::error(StatusCode::METHOD_NOT_ALLOWED, format!("{path} takes GET"));
            return Some(refused.allowing(Methods::Get));
        }
        Some(if path == "/" { self.index() } else { self.help() })
    }

    fn help(&self) -> Reply {
        let lines = self.list.iter().map(|route| {
            format!("  {:<22} {:<9} {}\n", route.path, route.methods.to_string(), route.description)
        });
        Reply::text(format!("{}\n{}", self.title, lines.collect::<String>()))
    }

    /// Titles, paths and descriptions are our own constants, so nothing needs escaping.
    fn index(&self) -> Reply {
        let rows = self.list.iter().map(|Route { path, methods, description, .. }| match methods {
            Methods::Post => format!("<tr><td>{path}<td>{methods}<td>{description}\n"),
            _ => format!("<tr><td><a href=\"{path}\">{path}</a><td>{methods}<td>{description}\n"),
        });
        let (title, rows) = (self.title, rows.collect::<String>());
        let page = format!("<!doctype html><title>{title}</title><h1>{title}</h1><table>\n{rows}</table>\n");
        Reply { content_type: HTML, ..Reply::text(page) }
    }
}

impl Route {
    pub(super) fn call(&self, call: Call) -> Answer {
        (self.handler)(call)
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.methods, self.path)
    }
}

impl Methods {
    pub(super) fn allow(self, method: &Method) -> bool {
        match self {
            Self::Get => *method == Method::GET,
            Self::Post => *method == Method::POST,
            Self::GetAndPost => matches!(*method, Method::GET | Method::POST),
        }
    }
}

/// As in an `Allow` header.
impl fmt::Display for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::GetAndPost => "GET, POST",
        })
    }
}

impl Query {
    /// Decodes `a=1&b`; a key without `=` has an empty value.
    #[must_use]
    pub fn parse(query: &str) -> Self {
        let decode =
            |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        });
        Self(pairs.collect())
    }

    /// The first value of `key`.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == key).map(|(_, value)| value)
    }

    /// Whether `key` is there, with or without a value.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// Every key with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether there is no query.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Reply {
    /// 200 with plain text.
    #[must_use]
    pub fn text(text: impl Into<Bytes>) -> Self {
        Self { status: StatusCode::OK, content_type: TEXT, bytes: text.into(), allow: None }
    }

    /// 200 with indented JSON, or 500 when the value cannot be written as JSON.
    #[must_use]
    pub fn json(value: &impl Serialize) -> Self {
        match serde_json::to_vec_pretty(value) {
            Ok(mut bytes) => {
                bytes.push(b'\n');
                Self { content_type: JSON, ..Self::text(bytes) }
            }
            Err(error) => Self::error(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot be shown: {error}")),
        }
    }

    /// A refusal, with a sentence that says what to do.
    #[must_use]
    pub fn error(status: StatusCode, mut text: String) -> Self {
        text.push('\n');
        Self { status, ..Self::text(text) }
    }

    /// The same with another status.
    #[must_use]
    pub fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    pub(super) fn allowing(self, methods: Methods) -> Self {
        Self { allow: Some(methods), ..self }
    }
}
