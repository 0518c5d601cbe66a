//! How a rule and one of its delegate's rules become one, as Istio merges them.

use std::collections::BTreeMap;

use crate::config::resources::istio::virtual_service::{HttpMatch, HttpRoute};
use crate::config::resources::string_match::StringMatch;

/// The delegate's rule within the rule that delegates to it; `None` when no request can reach it.
pub(super) fn merge(root: &HttpRoute, mut inner: HttpRoute) -> Option<HttpRoute> {
    inner.matches = merge_matches(&root.matches, inner.matches)?;
    inner.name = join_names(root.name.as_deref(), inner.name.as_deref());
    fill(&mut inner.rewrite, &root.rewrite);
    fill(&mut inner.direct_response, &root.direct_response);
    fill(&mut inner.timeout, &root.timeout);
    fill(&mut inner.retries, &root.retries);
    fill(&mut inner.fault, &root.fault);
    fill(&mut inner.mirror, &root.mirror);
    fill(&mut inner.mirror_percent, &root.mirror_percent);
    fill(&mut inner.mirror_percentage, &root.mirror_percentage);
    fill(&mut inner.cors_policy, &root.cors_policy);
    fill(&mut inner.headers, &root.headers);
    if inner.mirrors.is_empty() {
        inner.mirrors.clone_from(&root.mirrors);
    }
    Some(inner)
}

fn fill<T: Clone>(field: &mut Option<T>, from: &Option<T>) {
    if field.is_none() {
        field.clone_from(from);
    }
}

fn join_names(root: Option<&str>, inner: Option<&str>) -> Option<String> {
    let names = [root, inner].into_iter().flatten().filter(|name| !name.is_empty());
    let joined = names.collect::<Vec<_>>().join("-");
    (!joined.is_empty()).then_some(joined)
}

fn merge_matches(root: &[HttpMatch], inner: Vec<HttpMatch>) -> Option<Vec<HttpMatch>> {
    if root.is_empty() {
        return Some(inner);
    }
    if inner.is_empty() {
        return Some(root.to_vec());
    }
    let mut merged = Vec::with_capacity(inner.len());
    for inner in &inner {
        let before = merged.len();
        merged
            .extend(root.iter().filter(|root| !conflicts(root, inner)).map(|root| merge_match(root, inner)));
        if merged.len() == before {
            return None;
        }
    }
    Some(merged)
}

fn merge_match(root: &HttpMatch, inner: &HttpMatch) -> HttpMatch {
    let mut merged = inner.clone();
    merged.name = join_names(root.name.as_deref(), inner.name.as_deref());
    fill(&mut merged.uri, &root.uri);
    fill(&mut merged.scheme, &root.scheme);
    fill(&mut merged.method, &root.method);
    fill(&mut merged.authority, &root.authority);
    fill(&mut merged.port, &root.port);
    fill(&mut merged.source_namespace, &root.source_namespace);
    fill(&mut merged.stat_prefix, &root.stat_prefix);
    union(&mut merged.headers, &root.headers);
    union(&mut merged.without_headers, &root.without_headers);
    union(&mut merged.query_params, &root.query_params);
    merged.source_labels = inner.source_labels.iter().chain(root.source_labels.iter()).collect();
    if merged.gateways.is_empty() {
        merged.gateways.clone_from(&root.gateways);
    }
    merged
}

fn union<T: Clone>(map: &mut BTreeMap<String, T>, from: &BTreeMap<String, T>) {
    for (key, value) in from {
        map.entry(key.clone()).or_insert_with(|| value.clone());
    }
}

fn conflicts(root: &HttpMatch, inner: &HttpMatch) -> bool {
    let one = |root: &Option<StringMatch>, inner: &Option<StringMatch>| match (root, inner) {
        (Some(root), Some(inner)) => strings_conflict(root, inner),
        _ => false,
    };
    let each = |root: &BTreeMap<String, StringMatch>, inner: &BTreeMap<String, StringMatch>| {
        inner.iter().any(|(key, inner)| root.get(key).is_some_and(|root| strings_conflict(root, inner)))
    };
    one(&root.uri, &inner.uri)
        || one(&root.scheme, &inner.scheme)
        || one(&root.method, &inner.method)
        || one(&root.authority, &inner.authority)
        || each(&root.headers, &inner.headers)
        || each(&root.without_headers, &inner.without_headers)
        || each(&root.query_params, &inner.query_params)
        || root.ignore_uri_case.unwrap_or(false) != inner.ignore_uri_case.unwrap_or(false)
        || matches!((root.port, inner.port), (Some(root), Some(inner)) if root != inner)
        || (root.source_namespace.is_some() && root.source_namespace != inner.source_namespace)
        || inner
            .source_labels
            .iter()
            .any(|(label, value)| root.source_labels.get(label).is_some_and(|root| root != value))
        || (!root.gateways.is_empty() && inner.gateways.iter().any(|name| !root.gateways.contains(name)))
}

/// A delegate may only narrow: an exact string within a prefix, a prefix within a shorter one, or the same.
fn strings_conflict(root: &StringMatch, inner: &StringMatch) -> bool {
    match (root, inner) {
        (StringMatch::Present, _) => false,
        (StringMatch::Prefix(root), StringMatch::Prefix(inner) | StringMatch::Exact(inner)) => {
            !inner.starts_with(root.as_str())
        }
        (StringMatch::Exact(root), StringMatch::Exact(inner)) => root != inner,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::merge;
    use crate::config::resources::istio::virtual_service::HttpRoute;

    fn rule(yaml: &str) -> HttpRoute {
        serde_yaml::from_str(yaml).unwrap()
    }

    #[test]
    fn a_delegate_narrows_the_rule_that_names_it() {
        let root = rule("{name: api, match: [{uri: {prefix: /api}, headers: {x: {exact: a}}}], timeout: 3s}");
        for (inner, expected) in [
            ("{name: cart, match: [{uri: {prefix: /api/cart}}]}", Some("/api/cart")),
            ("{match: [{uri: {exact: /api/x}}]}", Some("/api/x")),
            ("{}", Some("/api")),
            ("{match: [{uri: {prefix: /other}}]}", None),
            ("{match: [{uri: {regex: /api.*}}]}", None),
            ("{match: [{uri: {prefix: /api/a}, headers: {x: {exact: b}}}]}", None),
            ("{match: [{uri: {prefix: /api/a}, ignoreUriCase: true}]}", None),
        ] {
            let merged = merge(&root, rule(inner));
            let uri = merged.as_ref().map(|merged| merged.matches[0].uri.as_ref().unwrap().text());
            assert_eq!(uri, expected, "{inner}");
            if let Some(merged) = &merged {
                assert_eq!(merged.timeout, root.timeout);
                assert!(merged.matches[0].headers.contains_key("x"));
            }
        }
        let named = merge(&root, rule("{name: cart}")).unwrap();
        assert_eq!(named.name.as_deref(), Some("api-cart"));
    }
}
