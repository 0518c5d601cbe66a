//! One clause of a rule: an attribute and the values that it may or may not have.

use crate::access::Question;
use crate::attributes::{HeaderValues, View, lower_case, split_authority};
use crate::pattern::{Patterns, list};
use crate::truth::Truth;
use crate::user::User;
use filter_api::Principal;
use http::HeaderName;
use ipnet::IpNet;
use serde_json::Value;
use std::fmt;
use std::net::IpAddr;

/// An attribute and its values; negated where none of them may be there.
#[derive(Debug)]
pub(crate) struct Clause {
    /// As it is written: `from.source.notPrincipals`, `when request.headers[x]`.
    pub(crate) key: Box<str>,
    pub(crate) negated: bool,
    pub(crate) test: Test,
}

/// What is asked of an attribute.
#[derive(Debug)]
pub(crate) enum Test {
    Principal(Patterns),
    Namespace(Patterns),
    /// `ns/<namespace>/sa/<account>`, as in a principal.
    Account(Patterns),
    TrustDomain(Patterns),
    Users(Vec<User>),
    Audience(Patterns),
    Claim(Vec<Box<str>>, Patterns),
    SourceIp(Vec<IpNet>),
    RemoteIp(Vec<IpNet>),
    DestinationIp(Vec<IpNet>),
    Port(Vec<u16>),
    ServerName(Patterns),
    Header(HeaderKey, Patterns),
    Host(Patterns),
    Method(Patterns),
    Path(Patterns),
    /// What only access policies ask.
    Access(Question),
}

/// A header, or what HTTP/2 writes as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HeaderKey {
    Field(HeaderName),
    Authority,
    Method,
    /// With its query.
    Target,
}

impl Clause {
    /// Whether it holds.
    pub(crate) fn truth(&self, view: &View<'_>) -> Truth {
        if view.request.is_none() && self.test.needs_http() {
            return Truth::Unknown;
        }
        if self.test.needs_headers() && view.request.is_some_and(|request| !request.has_headers()) {
            return Truth::Unknown;
        }
        let truth = self.test.truth(view);
        if self.negated { truth.not() } else { truth }
    }

    /// What it asks for, of a long list the beginning.
    pub(crate) fn expected(&self) -> String {
        let negation = if self.negated { "none of " } else { "" };
        match &self.test {
            Test::Header(HeaderKey::Field(name), _) if is_secret(name) => {
                format!("{negation}*** (as configured)")
            }
            test => format!("{negation}{test}"),
        }
    }

    /// What was there, without anything that is a secret.
    pub(crate) fn actual(&self, view: &View<'_>) -> String {
        self.test.actual(view)
    }
}

impl Test {
    /// Whether only a request has the attribute.
    pub(crate) fn needs_http(&self) -> bool {
        match self {
            Self::Principal(_) | Self::Namespace(_) | Self::Account(_) | Self::TrustDomain(_) => false,
            Self::SourceIp(_) | Self::RemoteIp(_) | Self::DestinationIp(_) => false,
            Self::Port(_) | Self::ServerName(_) => false,
            Self::Users(_) | Self::Audience(_) | Self::Claim(..) => true,
            Self::Header(..) | Self::Host(_) | Self::Method(_) | Self::Path(_) => true,
            Self::Access(question) => question.needs_http(),
        }
    }

    fn needs_headers(&self) -> bool {
        matches!(self, Self::Header(HeaderKey::Field(_) | HeaderKey::Authority, _) | Self::Host(_))
    }

    fn truth(&self, view: &View<'_>) -> Truth {
        let of = |part: fn(&Principal) -> &str, patterns: &Patterns| {
            view.principal.is_some_and(|principal| patterns.matches(part(principal).as_bytes())).into()
        };
        match self {
            // Envoy knows a peer by any name of its certificate; only `*` can mean one that is no workload's.
            Self::Principal(patterns) if view.principal.is_none() => {
                (view.authenticated && patterns.has_present()).into()
            }
            Self::Principal(patterns) => of(Principal::as_str, patterns),
            Self::Namespace(patterns) => of(Principal::namespace, patterns),
            Self::Account(patterns) => of(account, patterns),
            Self::TrustDomain(patterns) => of(Principal::trust_domain, patterns),
            Self::Users(users) => {
                view.token().is_some_and(|token| users.iter().any(|user| user.matches(token))).into()
            }
            Self::Audience(patterns) => {
                let audiences = view.token().map_or(&[][..], |token| &token.audiences);
                audiences.iter().any(|audience| patterns.matches(audience.as_bytes())).into()
            }
            Self::Claim(path, patterns) => claim(view, path, patterns).into(),
            Self::SourceIp(blocks) => holds(blocks, view.source).into(),
            Self::RemoteIp(blocks) => holds(blocks, view.client).into(),
            Self::DestinationIp(blocks) => holds(blocks, view.destination).into(),
            Self::Port(ports) => view.port.map_or(Truth::Unknown, |port| ports.contains(&port).into()),
            Self::ServerName(patterns) => patterns.matches(&lower_case(view.server_name.as_bytes())).into(),
            Self::Header(HeaderKey::Field(name), patterns) => header(view, name, patterns),
            Self::Header(HeaderKey::Authority, patterns) | Self::Host(patterns) => {
                view.authority().is_some_and(|authority| host(patterns, authority)).into()
            }
            Self::Header(HeaderKey::Method, patterns) | Self::Method(patterns) => {
                patterns.matches(view.method().as_bytes()).into()
            }
            Self::Header(HeaderKey::Target, patterns) => patterns.matches(target(view).as_bytes()).into(),
            Self::Path(patterns) => patterns.matches(view.path().as_bytes()).into(),
            Self::Access(question) => question.truth(view),
        }
    }

    fn actual(&self, view: &View<'_>) -> String {
        match self {
            Self::Principal(_) | Self::Namespace(_) | Self::Account(_) | Self::TrustDomain(_) => {
                match view.principal {
                    Some(principal) => principal.to_string(),
                    None if view.authenticated => "a peer that is no workload".to_owned(),
                    None => "no verified peer".to_owned(),
                }
            }
            Self::Users(_) => view.token().map_or_else(no_token, |token| {
                format!("{}/{}", token.issuer, masked(token.subject.as_bytes()))
            }),
            Self::Audience(_) => {
                view.token().map_or_else(no_token, |token| format!("{} audiences", token.audiences.len()))
            }
            Self::Claim(path, _) => claim_words(view, path),
            Self::SourceIp(_) => view.source.to_string(),
            Self::RemoteIp(_) => view.client.to_string(),
            Self::DestinationIp(_) => view.destination.to_string(),
            Self::Port(_) => {
                view.port.map_or_else(|| "not known before the route".to_owned(), |port| port.to_string())
            }
            Self::ServerName(_) => or_none(view.server_name),
            _ if self.needs_headers() && view.request.is_some_and(|request| !request.has_headers()) => {
                "not kept from when it was opened".to_owned()
            }
            Self::Header(HeaderKey::Field(name), _) => match view.request {
                None => no_request(),
                Some(request) => header_words(&HeaderValues::of(&request.head.headers, name)),
            },
            Self::Access(question) => question.actual(view),
            _ if view.request.is_none() => no_request(),
            Self::Header(HeaderKey::Authority, _) | Self::Host(_) => {
                or_none(&String::from_utf8_lossy(view.authority().unwrap_or_default()))
            }
            Self::Header(HeaderKey::Method, _) | Self::Method(_) => or_none(view.method()),
            // The query may hold a token.
            Self::Header(HeaderKey::Target, _) | Self::Path(_) => or_none(view.path()),
        }
    }
}

/// `ns/<namespace>/sa/<account>` of a principal.
pub(crate) fn account(principal: &Principal) -> &str {
    principal.as_str().get(principal.trust_domain().len() + 1..).unwrap_or_default()
}

fn holds(blocks: &[IpNet], address: IpAddr) -> bool {
    blocks.iter().any(|block| block.contains(&address))
}

fn target<'a>(view: &View<'a>) -> &'a str {
    view.request.and_then(|request| request.head.uri.path_and_query()).map_or("", |target| target.as_str())
}

/// A pattern without a port matches whatever the port is; one with a port, or a `*` at its end, may mean the port too.
fn host(patterns: &Patterns, authority: &[u8]) -> bool {
    let (host, port) = split_authority(authority);
    patterns.matches(&host)
        || port.is_some_and(|port| {
            // Written as patterns are already, nearly always.
            let whole = [&*host, b":", port];
            if authority.len() == host.len() + 1 + port.len() && authority.starts_with(&host) {
                patterns.matches(authority)
            } else {
                patterns.matches(&whole.concat())
            }
        })
}

fn header(view: &View<'_>, name: &HeaderName, patterns: &Patterns) -> Truth {
    let Some(request) = view.request else { return Truth::Unknown };
    let values = HeaderValues::of(&request.head.headers, name);
    if patterns.has_present() {
        return match (values.own.is_empty(), values.alike.is_empty()) {
            (false, _) => Truth::Yes,
            (true, false) => Truth::Unknown,
            (true, true) => Truth::No,
        };
    }
    let truth = Truth::of_all(values.readings().map(|value| patterns.matches(value)));
    if values.own.is_empty() { truth.min(Truth::Unknown) } else { truth }
}

fn find<'t>(view: &View<'t>, path: &[Box<str>]) -> Option<&'t Value> {
    let (first, others) = path.split_first()?;
    let claims = &view.token()?.claims;
    others.iter().try_fold(claims.get(&**first)?, |value, key| value.get(&**key))
}

/// A text, or a list that holds one, as Istio compares claims; no other kind of value matches.
fn claim(view: &View<'_>, path: &[Box<str>], patterns: &Patterns) -> bool {
    let matches = |value: &Value| value.as_str().is_some_and(|text| patterns.matches(text.as_bytes()));
    match find(view, path) {
        Some(Value::Array(items)) => items.iter().any(matches),
        Some(value) => matches(value),
        None => false,
    }
}

fn claim_words(view: &View<'_>, path: &[Box<str>]) -> String {
    if view.token().is_none() {
        return no_token();
    }
    match find(view, path) {
        None => "no such claim".to_owned(),
        Some(Value::String(text)) => masked(text.as_bytes()),
        Some(Value::Array(items)) => format!("a list of {}", items.len()),
        Some(Value::Object(_)) => "an object".to_owned(),
        Some(_) => "neither text nor list".to_owned(),
    }
}

fn header_words(values: &HeaderValues<'_>) -> String {
    match (&*values.own, &*values.alike) {
        ([], []) => "no such header".to_owned(),
        ([value], []) => masked(value),
        ([], _) => "a header of nearly that name".to_owned(),
        (several, alike) => format!("{} fields", several.len() + alike.len()),
    }
}

/// Whether a header is one that carries credentials, whose value in a policy is a secret too.
fn is_secret(name: &HeaderName) -> bool {
    ["auth", "cookie", "key", "secret", "token"].iter().any(|part| name.as_str().contains(part))
}

/// Says of a value how long it is, and no more.
fn masked(value: &[u8]) -> String {
    format!("*** ({} bytes)", value.len())
}

/// A value that is no secret, cut to what a log line bears and without control characters.
fn or_none(text: &str) -> String {
    const SHOWN: usize = 128;
    if text.is_empty() {
        return "none".to_owned();
    }
    let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push_str("...");
    }
    shown
}

fn no_token() -> String {
    "no verified token".to_owned()
}

fn no_request() -> String {
    "no HTTP".to_owned()
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Principal(patterns) | Self::Namespace(patterns) | Self::Account(patterns) => {
                patterns.fmt(f)
            }
            Self::TrustDomain(patterns) | Self::Audience(patterns) => patterns.fmt(f),
            Self::Claim(_, patterns) | Self::ServerName(patterns) | Self::Header(_, patterns) => {
                patterns.fmt(f)
            }
            Self::Host(patterns) | Self::Method(patterns) | Self::Path(patterns) => patterns.fmt(f),
            Self::Users(users) => list(f, users.iter()),
            Self::SourceIp(blocks) | Self::RemoteIp(blocks) | Self::DestinationIp(blocks) => {
                list(f, blocks.iter())
            }
            Self::Port(ports) => list(f, ports.iter()),
            Self::Access(question) => question.fmt(f),
        }
    }
}
