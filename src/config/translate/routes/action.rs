//! What becomes of a request that a rule takes: destinations, and the settings of the filters after route matching.

use std::collections::BTreeMap;
use std::sync::Arc;

use filter_transform::{HeaderChange, HeaderChanges, PathRewrite, Redirect, RedirectPath, Reply};

use super::super::World;
use super::super::clusters;
use super::super::host::full;
use super::super::index::origin;
use super::super::settings::DOMAIN;
use super::super::virtual_services::{Bound, HttpRule};
use super::Client;
use crate::config::resources::istio::common::Destination;
use crate::config::resources::istio::virtual_service::{
    HeaderOperations, Headers, HttpDirectResponse, HttpRedirect, HttpRewrite, HttpRoute, RedirectPort,
};
use crate::filters::RouteSettings;
use crate::mesh::{Action, Name, Origin, PathMatch, Route, RouteAction, RouteMatch, WeightedCluster};

type Transform = <filter_transform::Transform as filter_api::Spec>::Settings;
type Timeout = <filter_timeout::Timeout as filter_api::Spec>::Settings;

/// A route that sends every request to one cluster.
pub(in super::super) fn simple_route(name: &str, cluster: impl Into<Name>, origin: &Origin) -> Route {
    Route {
        name: crate::mesh::name(name),
        matches: RouteMatch::default(),
        action: Arc::new(RouteAction {
            action: Action::Forward(vec![single(cluster.into(), origin.clone())]),
            filters: RouteSettings::default(),
        }),
        origin: origin.clone(),
    }
}

/// A route that answers every request itself.
pub(in super::super) fn respond(name: &str, reply: Reply, origin: &Origin) -> Route {
    Route {
        name: name.into(),
        matches: RouteMatch::default(),
        action: Arc::new(answer(reply)),
        origin: origin.clone(),
    }
}

/// Whether the action of a rule is another for each path that it matches.
pub(super) fn depends_on_path(rule: &HttpRoute) -> bool {
    rule.rewrite.as_ref().is_some_and(|rewrite| rewrite.uri.is_some())
        || rule.redirect.as_ref().is_some_and(|redirect| redirect.prefix_rewrite.is_some())
}

/// The action of a rule for requests that fulfil `conditions`.
pub(super) fn translate(
    world: &World<'_>,
    bound: &Bound<'_>,
    rule: &HttpRule<'_>,
    conditions: &RouteMatch,
    client: Client<'_>,
) -> RouteAction {
    let written = &*rule.rule;
    let mut transform = Transform::default();
    let mut authority = written.headers.as_ref().and_then(|headers| change_headers(headers, &mut transform));
    if let Some(redirect) = &written.redirect {
        transform.reply = Some(Reply::Redirect(translate_redirect(redirect, conditions, client)));
    } else if let Some(response) = &written.direct_response {
        transform.reply = Some(direct(response));
    }
    if transform.reply.is_some() {
        return RouteAction {
            action: Action::Respond,
            filters: RouteSettings { transform: vec![transform], ..RouteSettings::default() },
        };
    }
    if let Some(rewrite) = &written.rewrite {
        transform.path = translate_rewrite(rewrite, conditions);
        authority = rewrite.authority.clone().filter(|name| !name.is_empty()).or(authority);
    }
    transform.authority = authority;
    let mut clusters = destinations(world, rule, client);
    if let [only] = &mut clusters[..] {
        // With one destination Istio puts its changes behind those of the route, and a route's own authority wins.
        if transform.authority.is_some() {
            only.filters.transform.iter_mut().for_each(|settings| settings.authority = None);
        }
    }
    if clusters.is_empty() {
        let message = format!(
            "{} of {} has no destination that takes requests: they are answered 503",
            rule.describe(),
            bound.object.key
        );
        let hint = "add a `route` with a `weight` above 0, a `redirect` or a `directResponse`";
        world.index.notes.error(
            rule.object,
            &format!("{}.route", rule.field),
            "no-destination",
            message,
            hint,
        );
        return answer(Reply::Direct { status: 503, body: Vec::new() });
    }
    let mut filters = RouteSettings::default();
    if transform != Transform::default() {
        filters.transform.push(transform);
    }
    if let Some(total) = written.timeout.filter(|time| !time.is_zero()) {
        filters.timeout.push(Timeout { total: total.into() });
    }
    RouteAction { action: Action::Forward(clusters), filters }
}

fn answer(reply: Reply) -> RouteAction {
    let transform = Transform { reply: Some(reply), ..Transform::default() };
    RouteAction {
        action: Action::Respond,
        filters: RouteSettings { transform: vec![transform], ..RouteSettings::default() },
    }
}

fn single(cluster: Name, origin: Origin) -> WeightedCluster {
    WeightedCluster { cluster, weight: 1, filters: RouteSettings::default(), origin }
}

fn destinations(world: &World<'_>, rule: &HttpRule<'_>, client: Client<'_>) -> Vec<WeightedCluster> {
    let written = &rule.rule.route;
    let mut clusters = Vec::with_capacity(written.len());
    for (at, destination) in written.iter().enumerate() {
        let weight = if written.len() == 1 { 1 } else { destination.weight.unwrap_or(0) };
        if weight == 0 {
            continue;
        }
        let cluster = cluster_name(world, &destination.destination, &rule.object.key.namespace, client.port);
        let mut filters = RouteSettings::default();
        if let Some(headers) = &destination.headers {
            let mut transform = Transform::default();
            transform.authority = change_headers(headers, &mut transform);
            if transform != Transform::default() {
                filters.transform.push(transform);
            }
        }
        let origin = origin(rule.object, format!("{}.route[{at}]", rule.field));
        clusters.push(WeightedCluster { cluster, weight, filters, origin });
    }
    clusters
}

/// The cluster of a destination, Istio's form: the port that is written, else the only port of the service, else the one that the client
/// addressed. The cluster need not exist: then requests are answered 503 `NC`.
pub(in super::super) fn cluster_name(
    world: &World<'_>,
    destination: &Destination,
    namespace: &str,
    client_port: u16,
) -> Name {
    let host = full(&destination.host, namespace, DOMAIN);
    let written = destination.port.as_ref().map(|port| port.number).filter(|number| *number != 0);
    let port = written.unwrap_or_else(|| {
        match super::super::scope::find_service(world, &host, namespace)
            .map(|at| &world.services[at].ports[..])
        {
            Some([only]) => only.number,
            _ => client_port,
        }
    });
    let subset = destination.subset.as_deref().unwrap_or_default();
    clusters::name(world, port, subset, &host)
}

/// Adds header changes; returns the authority that they set. Pseudo-headers and `host` are no headers to change otherwise.
fn change_headers(headers: &Headers, transform: &mut Transform) -> Option<String> {
    let mut authority = None;
    if let Some(request) = &headers.request {
        let named = |map: &BTreeMap<String, String>| {
            let found = map.iter().find(|(name, _)| {
                name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
            });
            found.map(|(_, value)| value.clone())
        };
        authority = named(&request.set).or_else(|| named(&request.add));
        transform.request_headers = changes(request);
    }
    if let Some(response) = &headers.response {
        transform.response_headers = changes(response);
    }
    authority
}

fn changes(written: &HeaderOperations) -> HeaderChanges {
    let fields = |map: &BTreeMap<String, String>| {
        let kept = map.iter().filter(|(name, _)| !is_internal(name));
        kept.map(|(name, value)| HeaderChange { name: name.clone(), value: value.clone() }).collect()
    };
    HeaderChanges {
        remove: written.remove.iter().filter(|name| !is_internal(name)).cloned().collect(),
        set: fields(&written.set),
        add: fields(&written.add),
    }
}

fn is_internal(name: &str) -> bool {
    name.starts_with(':') || name.eq_ignore_ascii_case("host")
}

fn translate_rewrite(rewrite: &HttpRewrite, conditions: &RouteMatch) -> Option<PathRewrite> {
    if let Some(regex) = &rewrite.uri_regex_rewrite {
        return Some(PathRewrite::Regex { pattern: regex.pattern.clone(), with: regex.rewrite.clone() });
    }
    let with = rewrite.uri.clone().filter(|uri| !uri.is_empty())?;
    Some(match matched_prefix(&conditions.path) {
        Some(matched) => PathRewrite::Prefix { matched: matched.to_owned(), with },
        None => PathRewrite::Full(with),
    })
}

/// What a prefix rewrite replaces: the prefix, `/` without a condition, and the whole path otherwise, as in Envoy.
fn matched_prefix(path: &PathMatch) -> Option<&str> {
    match path {
        PathMatch::Any => Some("/"),
        PathMatch::Prefix(prefix) | PathMatch::SegmentPrefix(prefix) => Some(prefix),
        PathMatch::Exact(_) | PathMatch::Regex(_) => None,
    }
}

fn translate_redirect(redirect: &HttpRedirect, conditions: &RouteMatch, client: Client<'_>) -> Redirect {
    let text = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
    let path = match text(&redirect.prefix_rewrite) {
        Some(with) => Some(match matched_prefix(&conditions.path) {
            Some(matched) => RedirectPath::Prefix { matched: matched.to_owned(), with },
            None => RedirectPath::Full(with),
        }),
        None => text(&redirect.uri).map(RedirectPath::Full),
    };
    let derived = (redirect.derive_port == Some(RedirectPort::FromRequestPort)).then_some(client.port);
    let scheme = text(&redirect.scheme);
    let effective = scheme.as_deref().unwrap_or(if client.tls { "https" } else { "http" });
    let port =
        redirect.port.or(derived).filter(|port| !matches!((port, effective), (80, "http") | (443, "https")));
    Redirect {
        status: redirect.redirect_code.filter(|code| *code != 0).unwrap_or(301),
        authority: text(&redirect.authority),
        port,
        path,
        scheme,
    }
}

fn direct(response: &HttpDirectResponse) -> Reply {
    let body = response.body.as_ref().map_or_else(Vec::new, |body| match (&body.string, &body.bytes) {
        (Some(text), _) => text.clone().into_bytes(),
        (None, Some(bytes)) => bytes.0.clone(),
        (None, None) => Vec::new(),
    });
    Reply::Direct { status: response.status, body }
}
