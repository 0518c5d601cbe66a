//! What security objects have in common: which workloads they are about, and what all of them make of a port.

use filter_authorization::DestinationPort;

use super::workloads::is_subset;
use super::{World, access, authentication, authorization};
use crate::config::resources::istio::common::{MatchLabels, TargetReference};
use crate::config::resources::proxy::Proxy;
use crate::config::resources::{EVERYWHERE, Resource};
use crate::filters::PortSettings;

/// The label of the proxies of a Gateway API gateway.
const GATEWAY: &str = "gateway.networking.k8s.io/gateway-name";

/// What is asked of the requests of a port.
pub(super) fn of_requests(world: &World<'_>, port: DestinationPort) -> PortSettings {
    PortSettings { jwt: authentication::settings(world), ..of_connections(world, port) }
}

/// What is asked of connections that are no HTTP. They bring no tokens.
pub(super) fn of_connections(world: &World<'_>, port: DestinationPort) -> PortSettings {
    let mut settings = authorization::port_settings(world, port);
    access::add(world, port, &mut settings);
    settings
}

/// `targetRef` counts only where there are no `targetRefs`.
pub(super) fn targets<'a>(
    one: Option<&'a TargetReference>,
    several: &'a [TargetReference],
) -> Vec<&'a TargetReference> {
    if several.is_empty() { one.into_iter().collect() } else { several.iter().collect() }
}

/// The workload of a proxy, as security objects select it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Workload<'a> {
    pub(super) namespace: &'a str,
    /// The namespace whose objects are about all others, too.
    pub(super) root: &'a str,
    pub(super) proxy: &'a Proxy,
}

impl Workload<'_> {
    /// Whether an object is about this workload. What is attached to an object is about the gateway of that name; in Istio a policy that is
    /// attached to a Service is its waypoint's, and no sidecar's.
    pub(super) fn has(
        &self,
        object: &Resource,
        selector: Option<&MatchLabels>,
        targets: &[&TargetReference],
    ) -> bool {
        let owner = &*object.key.namespace;
        if owner != self.namespace && owner != self.root && owner != EVERYWHERE {
            return false;
        }
        let labels = &self.proxy.workload.labels;
        if targets.is_empty() {
            return selector.is_none_or(|selector| is_subset(&selector.match_labels, labels));
        }
        let gateway = labels.get(GATEWAY);
        (owner == self.namespace || owner == EVERYWHERE)
            && targets.iter().any(|target| {
                target.kind == "Gateway"
                    && target.group.as_deref() == Some("gateway.networking.k8s.io")
                    && gateway == Some(&target.name)
                    && target.namespace.as_deref().is_none_or(|of| of.is_empty() || of == self.namespace)
            })
    }
}
