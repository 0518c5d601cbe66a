//! A provider that speaks HTTP: it gets the request's own head, and its status is the verdict.

use super::Question;
use super::body::Beginning;
use super::cache::is_volatile;
use super::settings::HttpCheck;
use super::verdict::{
    Change, Changes, Failure, How, Refusal, Verdict, is_of_connection, is_open_in_request,
    is_open_in_response,
};
use crate::pattern::Patterns;
use bytes::Bytes;
use filter_api::Answer;
use http::header::{AUTHORIZATION, EXPECT, HOST, LOCATION, SET_COOKIE, WWW_AUTHENTICATE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, request};

/// Names headers that the request loses, in an answer that allows; as in Envoy.
const REMOVE: &str = "x-envoy-auth-headers-to-remove";
/// Whether the body in the check is cut; as in Envoy.
pub(super) const PARTIAL: HeaderName = HeaderName::from_static("x-envoy-auth-partial-body");

/// How a provider is asked over HTTP, ready to run.
#[derive(Debug)]
pub(super) struct Http {
    path_prefix: String,
    request_headers: Names,
    added_headers: Vec<(HeaderName, HeaderValue)>,
    upstream_on_allow: Names,
    downstream_on_deny: Names,
    downstream_on_allow: Names,
}

/// Names of headers, in lower case: exact, `prefix*`, `*suffix`.
#[derive(Debug)]
struct Names(Patterns, bool);

impl Names {
    fn new(written: &[String]) -> Self {
        let mut names = Patterns::default();
        written.iter().for_each(|name| names.add(&name.to_ascii_lowercase()));
        Self(names, written.is_empty())
    }

    fn has(&self, name: &HeaderName) -> bool {
        self.0.matches(name.as_str().as_bytes())
    }

    /// Whether an application that takes `_` for `-` could read the header as one of these.
    fn has_alike(&self, name: &HeaderName) -> bool {
        self.has(name) || {
            let text = name.as_str();
            text.contains('_') && self.0.matches(text.replace('_', "-").as_bytes())
        }
    }

    fn is_empty(&self) -> bool {
        self.1
    }
}

impl Http {
    /// Ready to run. The error names the field.
    pub(super) fn new(written: &HttpCheck) -> Result<Self, String> {
        if !(written.path_prefix.is_empty() || written.path_prefix.starts_with('/')) {
            return Err(format!("pathPrefix `{}` does not begin with `/`", written.path_prefix));
        }
        let mut added_headers = Vec::with_capacity(written.added_headers.len());
        for (name, value) in &written.added_headers {
            let parsed = HeaderName::try_from(name).ok().filter(|name| !is_of_connection(name));
            match (parsed, HeaderValue::try_from(value)) {
                (Some(name), Ok(value)) => added_headers.push((name, value)),
                _ => {
                    return Err(format!(
                        "includeAdditionalHeadersInCheck `{name}` is no header that can be added"
                    ));
                }
            }
        }
        Ok(Self {
            path_prefix: written.path_prefix.clone(),
            request_headers: Names::new(&written.request_headers),
            added_headers,
            upstream_on_allow: Names::new(&written.upstream_on_allow),
            downstream_on_deny: Names::new(&written.downstream_on_deny),
            downstream_on_allow: Names::new(&written.downstream_on_allow),
        })
    }

    /// The request to the provider.
    pub(super) fn question(&self, asked: &Question<'_>) -> Result<(request::Parts, Bytes), Failure> {
        // It would be a tunnel through the provider.
        if asked.head.method == Method::CONNECT {
            return Err(Failure::Unaskable(
                "CONNECT has no form that a provider over HTTP could be asked in",
            ));
        }
        let mut head = http::Request::new(()).into_parts().0;
        head.method = asked.head.method.clone();
        head.uri = self.target(&asked.head.uri)?;
        head.version = Version::HTTP_11;
        for (name, value) in &asked.head.headers {
            if self.shows(name) {
                head.headers.append(name, value.clone());
            }
        }
        let body = match asked.body {
            Some(Beginning { bytes, partial }) => {
                let partial = HeaderValue::from_static(if *partial { "true" } else { "false" });
                head.headers.insert(PARTIAL, partial);
                bytes.clone()
            }
            None => Bytes::new(),
        };
        for (name, value) in &self.added_headers {
            head.headers.insert(name, value.clone());
        }
        Ok((head, body))
    }

    /// The question as a key for its verdict. It is all that the provider learns.
    pub(super) fn key(&self, (head, body): &(request::Parts, Bytes)) -> Vec<u8> {
        let mut key = format!("{}\0{}", head.method, head.uri).into_bytes();
        for (name, value) in head.headers.iter().filter(|(name, _)| !is_volatile(name)) {
            // No header has a zero byte.
            for part in [name.as_str().as_bytes(), value.as_bytes()] {
                key.push(0);
                key.extend_from_slice(part);
            }
        }
        key.extend_from_slice(b"\0\0");
        key.extend_from_slice(body);
        key
    }

    fn target(&self, uri: &Uri) -> Result<Uri, Failure> {
        let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        if self.path_prefix.is_empty() {
            return path.parse().map_err(|_| Failure::Unaskable("its target cannot be repeated"));
        }
        // `OPTIONS *` asks about no path.
        let path = if path == "*" { "" } else { path };
        let prefixed = format!("{}{path}", self.path_prefix);
        prefixed.parse().map_err(|_| Failure::Unaskable("its target is too long behind pathPrefix"))
    }

    fn shows(&self, name: &HeaderName) -> bool {
        !is_of_connection(name)
            && *name != EXPECT
            && (*name == HOST || *name == AUTHORIZATION || self.request_headers.has(name))
    }

    /// Removes what only the provider may say to the upstream, and what it was not shown: a client that wrote it would speak in its name. Also
    /// where the provider failed and requests pass then.
    pub(super) fn strip(&self, headers: &mut HeaderMap) {
        if self.upstream_on_allow.is_empty() {
            return;
        }
        let forged = |name: &HeaderName| {
            self.upstream_on_allow.has_alike(name) && !self.shows(name) && is_open_in_request(name)
        };
        let forged: Vec<HeaderName> = headers.keys().filter(|name| forged(name)).cloned().collect();
        for name in forged {
            headers.remove(name);
        }
    }

    /// What the answer says.
    pub(super) fn verdict(&self, answer: &Answer) -> Result<Verdict, Failure> {
        let (status, headers) = (answer.head.status, &answer.head.headers);
        if status.is_server_error() {
            return Err(Failure::Error(format!("it answered {}", status.as_u16())));
        }
        if status == StatusCode::OK {
            return Ok(Verdict::Allow(self.changes(headers)));
        }
        let all = self.downstream_on_deny.is_empty();
        let tells = |name: &HeaderName| {
            let own = name.as_str().starts_with("x-envoy-");
            self.downstream_on_deny.has(name)
                || [WWW_AUTHENTICATE, LOCATION].contains(name)
                || all && !own && *name != HOST
        };
        let mut told = HeaderMap::new();
        for (name, value) in headers.iter().filter(|(name, _)| is_open_in_response(name) && tells(name)) {
            told.append(name, value.clone());
        }
        // The beginning of a body says less than none.
        let body = if answer.cut { Bytes::new() } else { answer.body.clone() };
        let status = if status.is_informational() { StatusCode::FORBIDDEN } else { status };
        Ok(Verdict::Deny(Refusal { status, headers: told, body }))
    }

    fn changes(&self, headers: &HeaderMap) -> Changes {
        let mut changes = Changes::default();
        for name in headers.keys() {
            // Several values of one header replace those of the request together.
            let mut how = How::Set;
            for value in headers.get_all(name) {
                let change = |how| Change { name: name.clone(), value: value.clone(), how };
                if self.upstream_on_allow.has(name) && is_open_in_request(name) {
                    changes.request.push(change(how));
                }
                if self.downstream_on_allow.has(name) && is_open_in_response(name) {
                    // The application's own cookies stay.
                    changes.response.push(change(if *name == SET_COOKIE { How::Append } else { how }));
                }
                how = How::Append;
            }
        }
        let removed = headers.get_all(REMOVE).iter().filter_map(|names| names.to_str().ok());
        let removed = removed.flat_map(|names| names.split(',')).map(str::trim);
        let removed = removed.filter_map(|name| HeaderName::try_from(name).ok());
        changes.removed = removed.filter(is_open_in_request).collect();
        changes
    }
}
