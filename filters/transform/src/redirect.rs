//! Where a redirect leads.

use crate::rewrite::{replace_prefix, rooted, split_query};
use crate::settings::{Redirect, RedirectPath};
use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{StatusCode, request};
use std::borrow::Cow;

impl Redirect {
    /// Refuses what could not become a `location`.
    pub(crate) fn check(&self) -> Result<StatusCode, String> {
        let status = self.status;
        let (301 | 302 | 303 | 307 | 308, Ok(code)) = (status, StatusCode::from_u16(status)) else {
            return Err(format!("reply.status: {status} does not redirect; write 301, 302, 303, 307 or 308"));
        };
        if let Some(scheme) = &self.scheme
            && Scheme::try_from(scheme.as_str()).is_err()
        {
            return Err(format!("reply.scheme: {scheme:?} is not a scheme; write http or https"));
        }
        if let Some(text) = &self.authority {
            check_authority("reply.authority", text)?;
            if self.port.is_some() && split_port(text).1.is_some() {
                return Err(format!("reply.authority: {text:?} holds a port besides `port`; write it once"));
            }
        }
        if self.port == Some(0) {
            return Err("reply.port: 0 is not a port; write 1 to 65535".to_owned());
        }
        match &self.path {
            None => {}
            Some(RedirectPath::Full(path) | RedirectPath::Prefix { with: path, .. }) => {
                rooted("reply.path", path)?;
            }
        }
        Ok(code)
    }

    /// The value of `location` for a request with this head. Envoy's rules, see [`Redirect`].
    pub(crate) fn location(&self, head: &request::Parts) -> String {
        let own = head.uri.authority().map(Authority::as_str);
        let own =
            own.or_else(|| head.headers.get(HOST).and_then(|host| host.to_str().ok())).unwrap_or_default();
        let own_scheme = head.uri.scheme_str().unwrap_or("http");
        let scheme = self.scheme.as_deref().unwrap_or(own_scheme);
        let (host, host_port) = split_port(self.authority.as_deref().unwrap_or(own));
        let port = match self.port {
            Some(port) => Some(port),
            // The default of the scheme that the request came with means nothing to another one.
            None if self.authority.is_none() => host_port.filter(|port| !is_default(own_scheme, *port)),
            None => host_port,
        };
        let port = port.filter(|port| !is_default(scheme, *port));
        let path_and_query = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let (path, query) = split_query(path_and_query);
        let path: Cow<'_, str> = match &self.path {
            None => path_and_query.into(),
            Some(RedirectPath::Full(full)) if full.contains('?') => full.into(),
            Some(RedirectPath::Full(full)) => format!("{full}{query}").into(),
            Some(RedirectPath::Prefix { matched, with }) => {
                replace_prefix(path, matched.len(), with, query).into()
            }
        };
        match port {
            Some(port) => format!("{scheme}://{host}:{port}{path}"),
            None => format!("{scheme}://{host}{path}"),
        }
    }
}

/// A host with or without a port, and nothing else.
pub(crate) fn check_authority(field: &str, text: &str) -> Result<Authority, String> {
    match Authority::try_from(text) {
        Ok(authority) if !text.contains('@') && !authority.host().is_empty() => Ok(authority),
        _ => Err(format!("{field}: {text:?} is not a host; write host or host:port")),
    }
}

fn is_default(scheme: &str, port: u16) -> bool {
    matches!((scheme, port), ("http", 80) | ("https", 443))
}

/// Host and port; the colons of an IPv6 address in brackets are its own.
fn split_port(authority: &str) -> (&str, Option<u16>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (authority, None),
        },
        _ => (authority, None),
    }
}
