//! HTTP rules to routes: matches that are known here are decided here, the rest becomes the route's condition.

mod action;
mod matches;

use std::sync::Arc;

pub(in crate::config) use action::faults as action_faults;
pub(super) use action::{cluster_name, respond, simple_route};

use super::World;
use super::index::origin;
use super::virtual_services::{Bound, HttpRule, gateway};
use super::workloads::is_subset;
use crate::config::resources::istio::virtual_service::HttpMatch;
use crate::mesh::{PathMatch, Route, RouteAction, RouteMatch};

/// For whom routes are made: the port that clients address and the names under which the proxy is bound.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client<'c> {
    /// The port that the client addressed.
    pub(super) port: u16,
    /// `mesh`, or a gateway's `namespace/name`.
    pub(super) gateway: &'c str,
    /// The port is served with TLS.
    pub(super) tls: bool,
}

/// The routes of several VirtualServices for one host, the older first. What follows a rule that takes every request is never reached:
/// it is left out, and said.
pub(super) fn routes(world: &World<'_>, bound: &[&Bound<'_>], client: Client<'_>, host: &str) -> Vec<Route> {
    let mut routes = Vec::new();
    let mut taken: Option<(&Bound<'_>, &HttpRule<'_>)> = None;
    for bound in bound {
        for rule in &bound.http {
            if let Some((winner, all)) = taken {
                shadowed(world, (bound, rule), (winner, all), host);
                continue;
            }
            let before = routes.len();
            if add(world, bound, rule, client, &mut routes) {
                taken = Some((bound, rule));
            }
            debug_assert!(routes.len() >= before);
        }
    }
    routes
}

/// The routes of one VirtualService at a gateway, where catch-alls of several are sorted to the end instead of hiding others.
pub(super) fn routes_of(world: &World<'_>, bound: &Bound<'_>, client: Client<'_>, host: &str) -> Vec<Route> {
    routes(world, &[bound], client, host)
}

/// Adds the routes of a rule; true when it takes every request.
fn add(
    world: &World<'_>,
    bound: &Bound<'_>,
    rule: &HttpRule<'_>,
    client: Client<'_>,
    routes: &mut Vec<Route>,
) -> bool {
    let matches: Vec<Option<&HttpMatch>> = match &rule.rule.matches[..] {
        [] => vec![None],
        written => written.iter().map(Some).collect(),
    };
    let mut shared: Option<(Option<&PathMatch>, Arc<RouteAction>)> = None;
    let mut paths = Vec::with_capacity(matches.len());
    for (at, written) in matches.iter().enumerate() {
        let field = format!("{}.match[{at}]", rule.field);
        let applies = written.is_none_or(|written| applies(world, rule, written, client));
        let translated = applies.then(|| match written {
            None => Some(RouteMatch::default()),
            Some(written) => matches::translate(written, &world.index.notes, rule.object, &field),
        });
        paths.push(translated.flatten());
    }
    let depends_on_path = action::depends_on_path(&rule.rule);
    for (at, conditions) in paths.iter().enumerate() {
        let Some(conditions) = conditions else { continue };
        let path = depends_on_path.then_some(&conditions.path);
        let action = match &shared {
            Some((of, action)) if *of == path => Arc::clone(action),
            _ => {
                let action = Arc::new(action::translate(world, bound, rule, conditions, client));
                shared = Some((path, Arc::clone(&action)));
                action
            }
        };
        let written = matches.get(at).copied().flatten();
        let field =
            if written.is_some() { format!("{}.match[{at}]", rule.field) } else { rule.field.clone() };
        routes.push(Route {
            name: name(rule, written).into(),
            matches: conditions.clone(),
            action,
            origin: origin(rule.object, field),
        });
        if takes_everything(conditions) {
            return true;
        }
    }
    false
}

fn name(rule: &HttpRule<'_>, written: Option<&HttpMatch>) -> String {
    let rule = rule.rule.name.as_deref().unwrap_or_default();
    match written.and_then(|written| written.name.as_deref()).filter(|name| !name.is_empty()) {
        Some(name) => format!("{rule}.{name}"),
        None => rule.to_owned(),
    }
}

/// Whether a match can hold at all for this proxy and port. As in Istio, `gateways` of a match replace its other conditions on the source.
fn applies(world: &World<'_>, rule: &HttpRule<'_>, written: &HttpMatch, client: Client<'_>) -> bool {
    if written.port.is_some_and(|port| port != 0 && port != client.port) {
        return false;
    }
    if !written.gateways.is_empty() {
        let names = written.gateways.iter().map(|name| gateway(name, &rule.object.key.namespace));
        return names.into_iter().any(|name| name == client.gateway);
    }
    is_subset(&written.source_labels, &world.proxy.workload.labels)
        && written.source_namespace.as_deref().is_none_or(|name| name.is_empty() || name == world.namespace)
}

/// Whether a condition holds for every request.
pub(super) fn takes_everything(conditions: &RouteMatch) -> bool {
    let path = match &conditions.path {
        PathMatch::Any => true,
        PathMatch::Prefix(prefix) => prefix == "/",
        PathMatch::Regex(pattern) => pattern == ".*",
        _ => false,
    };
    path && conditions.method.is_none()
        && conditions.scheme.is_none()
        && conditions.authority.is_none()
        && conditions.headers.is_empty()
        && conditions.query.is_empty()
}

fn shadowed(
    world: &World<'_>,
    (bound, rule): (&Bound<'_>, &HttpRule<'_>),
    (winner, all): (&Bound<'_>, &HttpRule<'_>),
    host: &str,
) {
    // Who the winner is does not matter to the object that is found at fault, so a rule of a delegate names its own place.
    let place = all.object.place(&all.field);
    let message = format!(
        "{} of {} is never reached for {host}: {} of {} takes every request first ({place})",
        rule.describe(),
        bound.object.key,
        all.describe(),
        winner.object.key,
    );
    let hint = "give the earlier rule a `match`, or put both into one VirtualService in the order you want";
    world.index.notes.warn(rule.object, &rule.field, "rule-shadowed", message, hint);
}
