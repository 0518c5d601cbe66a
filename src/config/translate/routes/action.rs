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
        action: Arc::new(answer(reply, origin)),
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
    let place = origin(rule.object, rule.field.clone());
    let mut transform = Transform { origin: place.clone(), ..Transform::default() };
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
        merge_into_route(only, &mut transform);
    } else {
        // Of several, each one's changes come first, and the route has the last word (Envoy's `weighted_clusters`).
        let last = Transform {
            request_headers: std::mem::take(&mut transform.request_headers),
            response_headers: std::mem::take(&mut transform.response_headers),
            origin: place.clone(),
            ..Transform::default()
        };
        if changes_something(&last) {
            clusters.iter_mut().for_each(|cluster| cluster.filters.transform.push(last.clone()));
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
        return answer(Reply::Direct { status: 503, body: Vec::new() }, &place);
    }
    let mut filters = RouteSettings::default();
    if changes_something(&transform) {
        filters.transform.push(transform);
    }
    if let Some(total) = written.timeout.filter(|time| !time.is_zero()) {
        filters.timeout.push(Timeout { total: total.into() });
    }
    RouteAction { action: Action::Forward(clusters), filters }
}

/// Whether settings do anything: where they were written does not count.
fn changes_something(settings: &Transform) -> bool {
    *settings != Transform { origin: settings.origin.clone(), ..Transform::default() }
}

/// With one destination Istio puts its changes behind those of the route, as one list: what either removes is removed first. A route's own
/// authority wins.
fn merge_into_route(only: &mut WeightedCluster, route: &mut Transform) {
    let Some(mut own) = only.filters.transform.pop() else { return };
    for (all, more) in [
        (&mut route.request_headers, &mut own.request_headers),
        (&mut route.response_headers, &mut own.response_headers),
    ] {
        // What the route sets, the destination's list of removals must not take away again.
        all.remove.append(&mut more.remove);
    }
    if route.authority.is_some() {
        own.authority = None;
    }
    if changes_something(&own) {
        only.filters.transform.push(own);
    }
}

fn answer(reply: Reply, origin: &Origin) -> RouteAction {
    let transform = Transform { origin: origin.clone(), reply: Some(reply), ..Transform::default() };
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
            let place = origin(rule.object, format!("{}.route[{at}].headers", rule.field));
            let mut transform = Transform { origin: place, ..Transform::default() };
            transform.authority = change_headers(headers, &mut transform);
            if changes_something(&transform) {
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
    let with = rooted(rewrite.uri.as_deref().filter(|uri| !uri.is_empty())?);
    Some(match matched_prefix(&conditions.path) {
        Some(matched) => PathRewrite::Prefix { matched: matched.to_owned(), with },
        None => PathRewrite::Full(with),
    })
}

/// A path begins with a slash, also where its author left it out.
fn rooted(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
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
            Some(matched) => RedirectPath::Prefix { matched: matched.to_owned(), with: rooted(&with) },
            None => RedirectPath::Full(rooted(&with)),
        }),
        None => text(&redirect.uri).map(|uri| RedirectPath::Full(rooted(&uri))),
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

/// What the filter says of the action of a rule by itself: the field below the rule, and why it cannot be done; `; ` stands before what to write
/// instead. So that an object is refused, and not its whole host when it is put in force.
pub(in crate::config) fn faults(rule: &HttpRoute) -> Vec<(String, String)> {
    use filter_api::Spec as _;
    let any = RouteMatch::default();
    let mut parts = Vec::new();
    let part = |field: &str, change: &dyn Fn(&mut Transform)| {
        let mut settings = Transform::default();
        change(&mut settings);
        (field.to_owned(), settings)
    };
    if let Some(rewrite) = &rule.rewrite {
        let field =
            if rewrite.uri_regex_rewrite.is_some() { "rewrite.uriRegexRewrite" } else { "rewrite.uri" };
        parts.push(part(field, &|to| to.path = translate_rewrite(rewrite, &any)));
        parts.push(part("rewrite.authority", &|to| {
            to.authority = rewrite.authority.clone().filter(|name| !name.is_empty());
        }));
    }
    if let Some(redirect) = &rule.redirect {
        let redirect = translate_redirect(redirect, &any, Client { port: 80, gateway: "mesh", tls: false });
        parts.push(part("redirect", &|to| to.reply = Some(Reply::Redirect(redirect.clone()))));
    }
    let own = rule.headers.iter().map(|headers| ("headers".to_owned(), headers));
    let others =
        rule.route.iter().enumerate().filter_map(|(at, to)| {
            to.headers.as_ref().map(|headers| (format!("route[{at}].headers"), headers))
        });
    for (field, headers) in own.chain(others) {
        parts.push(part(&field, &|to| to.authority = change_headers(headers, to)));
    }
    let compiled = parts.into_iter().map(|(field, settings)| {
        (field, filter_transform::Transform::compile(&settings, &filter_api::Keep::default()).err())
    });
    compiled.filter_map(|(field, error)| Some((field, error?))).collect()
}

fn direct(response: &HttpDirectResponse) -> Reply {
    let body = response.body.as_ref().map_or_else(Vec::new, |body| match (&body.string, &body.bytes) {
        (Some(text), _) => text.clone().into_bytes(),
        (None, Some(bytes)) => bytes.0.clone(),
        (None, None) => Vec::new(),
    });
    Reply::Direct { status: response.status, body }
}
