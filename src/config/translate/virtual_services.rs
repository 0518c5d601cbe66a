//! VirtualServices made ready: full host names, full gateway names, delegates put in their place.

use std::borrow::Cow;

use rustc_hash::FxHashMap;

use super::delegate::merge;
use super::host::full;
use super::index::{Index, Written};
use super::service::exported;
use super::settings::{DOMAIN, Settings};
use crate::config::resources::Resource;
use crate::config::resources::istio::virtual_service::{HttpMatch, HttpRoute, VirtualService};

/// The name of all sidecars in `gateways`.
pub(super) const MESH: &str = "mesh";

/// A VirtualService with names resolved.
#[derive(Debug)]
pub(super) struct Bound<'a> {
    /// The object.
    pub(super) object: &'a Resource,
    /// What it says.
    pub(super) spec: &'a VirtualService,
    /// Its hosts in full, lower case.
    pub(super) hosts: Vec<String>,
    /// `mesh` or `namespace/name`.
    pub(super) gateways: Vec<String>,
    /// Its HTTP rules, those of delegates among them.
    pub(super) http: Vec<HttpRule<'a>>,
}

/// An HTTP rule.
#[derive(Clone, Debug)]
pub(super) struct HttpRule<'a> {
    /// The object that holds it.
    pub(super) object: &'a Resource,
    /// Its path there, `spec.http[0]`.
    pub(super) field: String,
    /// What it says; merged when it came through a delegate.
    pub(super) rule: Cow<'a, HttpRoute>,
}

impl HttpRule<'_> {
    /// `rule "v1" (spec.http[1])`, or the path alone.
    pub(super) fn describe(&self) -> String {
        match self.rule.name.as_deref() {
            Some(name) if !name.is_empty() => format!("rule `{name}` ({})", self.field),
            _ => self.field.clone(),
        }
    }
}

impl Bound<'_> {
    /// Whether its routes hold for sidecars.
    pub(super) fn is_for_sidecars(&self) -> bool {
        self.gateways.iter().any(|gateway| gateway == MESH)
    }
}

/// All VirtualServices that have hosts; the others are delegates.
pub(super) fn bind<'a>(index: &Index<'a>, settings: &Settings<'a>) -> Vec<Bound<'a>> {
    let delegates: FxHashMap<(&str, &str), &Written<'a, VirtualService>> = index
        .virtual_services
        .iter()
        .filter(|one| one.spec.hosts.is_empty())
        .map(|one| ((&**one.namespace(), &*one.object.key.name), one))
        .collect();
    let bound = index.virtual_services.iter().filter(|one| !one.spec.hosts.is_empty()).map(|one| {
        let namespace = one.namespace();
        let gateways = match &one.spec.gateways[..] {
            [] => vec![MESH.to_owned()],
            written => written.iter().map(|name| gateway(name, namespace)).collect(),
        };
        Bound {
            object: one.object,
            spec: one.spec,
            hosts: one.spec.hosts.iter().map(|host| full(host, namespace, DOMAIN)).collect(),
            gateways,
            http: rules(one, &delegates, index, settings),
        }
    });
    bound.collect()
}

/// The full name of a gateway, `namespace/name`.
pub(super) fn gateway(name: &str, namespace: &str) -> String {
    if name == MESH || name.contains('/') {
        return name.replacen("./", &format!("{namespace}/"), usize::from(name.starts_with("./")));
    }
    // The form of old configurations: `NAME.NAMESPACE.svc.cluster.local`.
    match name.split_once('.') {
        Some((name, rest)) => format!("{}/{name}", rest.split('.').next().unwrap_or(namespace)),
        None => format!("{namespace}/{name}"),
    }
}

fn rules<'a>(
    root: &Written<'a, VirtualService>,
    delegates: &FxHashMap<(&str, &str), &Written<'a, VirtualService>>,
    index: &Index<'a>,
    settings: &Settings<'a>,
) -> Vec<HttpRule<'a>> {
    let mut rules = Vec::with_capacity(root.spec.http.len());
    for (at, rule) in root.spec.http.iter().enumerate() {
        let field = format!("spec.http[{at}]");
        let Some(delegate) = &rule.delegate else {
            rules.push(HttpRule { object: root.object, field, rule: Cow::Borrowed(rule) });
            continue;
        };
        let namespace =
            delegate.namespace.as_deref().filter(|name| !name.is_empty()).unwrap_or(root.namespace());
        let found = delegates.get(&(namespace, delegate.name.as_str())).filter(|one| {
            exported(&one.spec.export_to, settings.virtual_service_exports(), namespace, root.namespace())
        });
        match found {
            Some(target) => splice(&mut rules, (root, rule, &field), target, index),
            None => {
                let field = format!("{field}.delegate");
                let message = format!(
                    "VirtualService {namespace}/{} is no delegate that `{}` may use, so this rule does nothing",
                    delegate.name,
                    root.namespace()
                );
                let hint = "name a VirtualService without `hosts` that is exported to this namespace";
                index.notes.error(root.object, &field, "delegate-not-found", message, hint);
            }
        }
    }
    rules
}

fn splice<'a>(
    rules: &mut Vec<HttpRule<'a>>,
    (root, rule, field): (&Written<'a, VirtualService>, &HttpRoute, &str),
    target: &Written<'a, VirtualService>,
    index: &Index<'a>,
) {
    let mut rule = rule.clone();
    resolve_gateways(&mut rule.matches, root.namespace());
    for (at, inner) in target.spec.http.iter().enumerate() {
        let inner_field = format!("spec.http[{at}]");
        let refuse = |message: String, hint: &str| {
            index.notes.error(target.object, &inner_field, "delegate-conflict", message, hint);
        };
        if inner.delegate.is_some() {
            refuse(
                "a delegate cannot delegate again, so this rule does nothing".to_owned(),
                "write its routes here",
            );
            continue;
        }
        let mut inner = inner.clone();
        resolve_gateways(&mut inner.matches, target.namespace());
        match merge(&rule, inner) {
            Some(merged) => {
                rules.push(HttpRule { object: target.object, field: inner_field, rule: Cow::Owned(merged) });
            }
            None => refuse(
                format!("asks for requests that {field} of {} never sends here", root.object.key),
                "make each match narrower than one of the delegating rule",
            ),
        }
    }
}

fn resolve_gateways(matches: &mut [HttpMatch], namespace: &str) {
    for name in matches.iter_mut().flat_map(|one| &mut one.gateways) {
        *name = gateway(name, namespace);
    }
}

#[cfg(test)]
mod tests {
    use super::gateway;

    #[test]
    fn a_gateway_is_named_with_its_namespace() {
        for (written, expected) in [
            ("mesh", "mesh"),
            ("edge", "shop/edge"),
            ("web/edge", "web/edge"),
            ("./edge", "shop/edge"),
            ("edge.web.svc.cluster.local", "web/edge"),
        ] {
            assert_eq!(gateway(written, "shop"), expected);
        }
    }
}
