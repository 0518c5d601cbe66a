//! Conditions of a rule in the terms of the model.

use std::collections::BTreeMap;

use super::super::index::Notes;
use crate::config::resources::Resource;
use crate::config::resources::istio::virtual_service::HttpMatch;
use crate::config::resources::string_match::StringMatch as Written;
use crate::mesh::{HeaderMatch, PathMatch, QueryMatch, RouteMatch, StringMatch, ValueMatch};

/// The condition of a match. `None` when it asks for what is not known here, so that it can never hold.
pub(super) fn translate(
    written: &HttpMatch,
    notes: &Notes,
    object: &Resource,
    field: &str,
) -> Option<RouteMatch> {
    let claims = |headers: &BTreeMap<String, Written>| {
        headers.keys().find(|name| name.to_ascii_lowercase().starts_with("@request.auth.")).cloned()
    };
    for (list, name) in
        [("headers", claims(&written.headers)), ("withoutHeaders", claims(&written.without_headers))]
    {
        if let Some(name) = name {
            let message = format!(
                "`{name}` in {list} routes by a claim of a token, which is not done yet: the match never holds"
            );
            notes.error(object, field, "claim-routing", message, "match a header instead");
            return None;
        }
    }
    let mut headers: Vec<_> =
        written.headers.iter().map(|(name, value)| header(name, value, false)).collect();
    headers.extend(written.without_headers.iter().map(|(name, value)| header(name, value, true)));
    headers.sort_by(|one, other| one.name.cmp(&other.name));
    Some(RouteMatch {
        path: written.uri.as_ref().map_or(PathMatch::Any, path),
        ignore_path_case: written.ignore_uri_case == Some(true),
        method: written.method.as_ref().and_then(string),
        scheme: written.scheme.as_ref().and_then(string),
        authority: written.authority.as_ref().and_then(string),
        headers,
        query: written
            .query_params
            .iter()
            .map(|(name, value)| QueryMatch { name: name.clone(), value: self::value(value) })
            .collect(),
    })
}

fn header(name: &str, written: &Written, invert: bool) -> HeaderMatch {
    HeaderMatch { name: name.to_ascii_lowercase(), value: value(written), invert }
}

fn path(written: &Written) -> PathMatch {
    match written {
        Written::Exact(text) => PathMatch::Exact(text.clone()),
        Written::Prefix(text) => PathMatch::Prefix(text.clone()),
        Written::Regex(text) => PathMatch::Regex(text.clone()),
        Written::Present => PathMatch::Any,
    }
}

fn value(written: &Written) -> ValueMatch {
    string(written).map_or(ValueMatch::Present, ValueMatch::Value)
}

/// `None` for mere presence; Istio takes the regex `*` so too, though it is none.
fn string(written: &Written) -> Option<StringMatch> {
    match written {
        Written::Present => None,
        Written::Regex(text) if text == "*" => None,
        Written::Exact(text) => Some(StringMatch::Exact(text.clone())),
        Written::Prefix(text) => Some(StringMatch::Prefix(text.clone())),
        Written::Regex(text) => Some(StringMatch::Regex(text.clone())),
    }
}
