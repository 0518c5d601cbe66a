//! Keeps the parts of the last model that say the same, so that later stages see that nothing changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::mesh::{Mesh, Name, Route, RouteTable, VirtualHost};

/// Replaces every part that equals the one of `previous` by that one. An unchanged part keeps the origin that it had.
pub(super) fn reuse(mesh: &mut Mesh, previous: &Mesh) {
    keep(&mut mesh.node, &previous.node);
    keep(&mut mesh.telemetry, &previous.telemetry);
    keep_all(&mut mesh.listeners, &previous.listeners);
    keep_all(&mut mesh.clusters, &previous.clusters);
    keep_all(&mut mesh.endpoints, &previous.endpoints);
    for (name, table) in &mut mesh.routes {
        if let Some(old) = previous.routes.get(name) {
            keep_table(table, old);
        }
    }
}

/// A part, or the same one of the last model.
pub(super) fn part<T: PartialEq>(new: T, old: Option<&Arc<T>>) -> Arc<T> {
    match old {
        Some(old) if **old == new => Arc::clone(old),
        _ => Arc::new(new),
    }
}

fn keep<T: PartialEq>(new: &mut Arc<T>, old: &Arc<T>) {
    if !Arc::ptr_eq(new, old) && **new == **old {
        *new = Arc::clone(old);
    }
}

fn keep_all<T: PartialEq>(new: &mut BTreeMap<Name, Arc<T>>, old: &BTreeMap<Name, Arc<T>>) {
    for (name, part) in new {
        if let Some(old) = old.get(name) {
            keep(part, old);
        }
    }
}

fn keep_table(table: &mut Arc<RouteTable>, old: &Arc<RouteTable>) {
    let hosts: BTreeMap<&Name, &Arc<VirtualHost>> = old.hosts.iter().map(|host| (&host.name, host)).collect();
    let mut changed = RouteTable::clone(table);
    let mut same = changed.hosts.len() == old.hosts.len() && changed.ignore_port == old.ignore_port;
    for (at, host) in changed.hosts.iter_mut().enumerate() {
        if let Some(known) = hosts.get(&host.name) {
            if **known == *host {
                *host = Arc::clone(known);
            } else {
                keep_actions(host, known);
            }
        }
        same = same && old.hosts.get(at).is_some_and(|old| Arc::ptr_eq(old, host));
    }
    *table = if same { Arc::clone(old) } else { Arc::new(changed) };
}

/// Within a host that changed, the actions that did not.
fn keep_actions(host: &mut Arc<VirtualHost>, old: &VirtualHost) {
    let mut changed = VirtualHost::clone(host);
    for (at, route) in changed.routes.iter_mut().enumerate() {
        let same = |old: &&Route| old.action == route.action;
        let known = old.routes.get(at).filter(same).or_else(|| old.routes.iter().find(same));
        if let Some(known) = known {
            route.action = Arc::clone(&known.action);
        }
    }
    *host = Arc::new(changed);
}
