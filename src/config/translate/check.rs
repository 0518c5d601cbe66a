//! What `check` says of a folder: every Proxy in it, or a sidecar in every namespace, is translated.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::index::sorted;
use super::{Input, translate};
use crate::config::finding::Finding;
use crate::config::resources::{Kind, Meta, ObjectKey, Placement, Resource, Spec};
use crate::config::spans::Outline;

/// Everything that objects have against each other, each once. Without a Proxy it is said of a sidecar in each namespace.
#[must_use]
pub fn check(resources: &[Arc<Resource>]) -> Vec<Finding> {
    let mut proxies: Vec<Arc<Resource>> =
        resources.iter().filter(|resource| matches!(resource.spec, Spec::Proxy(_))).cloned().collect();
    if proxies.is_empty() {
        let namespaces: BTreeSet<_> = resources
            .iter()
            .filter(|resource| !resource.key.namespace.is_empty())
            .map(|resource| Arc::clone(&resource.key.namespace))
            .collect();
        proxies.extend(namespaces.into_iter().map(sidecar));
    }
    let all = proxies.iter().flat_map(|proxy| translate(&Input { resources, proxy }, None).findings);
    sorted(all.collect())
}

/// A sidecar that nobody wrote.
fn sidecar(namespace: Arc<str>) -> Arc<Resource> {
    Arc::new(Resource::new(
        ObjectKey { kind: Kind::Proxy, namespace, name: "any".into() },
        Meta::default(),
        Spec::Proxy(Box::default()),
        Arc::new(Placement::new(Path::new("").into(), &Outline::default())),
    ))
}
