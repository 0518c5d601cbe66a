//! Which of the Proxies of a configuration is meant.

use crate::config::resources::{Kind, Resource};
use std::sync::Arc;

/// The Proxy that is meant.
///
/// # Errors
///
/// Says which there are, and what to write.
pub fn choose(resources: &[Arc<Resource>], named: Option<&str>) -> Result<Arc<Resource>, String> {
    let proxies: Vec<_> = resources.iter().filter(|resource| resource.key.kind == Kind::Proxy).collect();
    let names = || {
        let names: Vec<_> =
            proxies.iter().map(|proxy| format!("{}/{}", proxy.key.namespace, proxy.key.name)).collect();
        names.join(", ")
    };
    match named {
        Some(named) => {
            let (namespace, name) =
                named.split_once('/').map_or((None, named), |(ns, name)| (Some(ns), name));
            let mut matching = proxies.iter().filter(|proxy| {
                *proxy.key.name == *name
                    && namespace.is_none_or(|namespace| *proxy.key.namespace == *namespace)
            });
            match (matching.next(), matching.next()) {
                (Some(proxy), None) => Ok((**proxy).clone()),
                (Some(_), Some(_)) => {
                    Err(format!("several Proxies are named {name}; write --as NAMESPACE/{name}"))
                }
                (None, _) => Err(format!("no Proxy is named {named}; there are: {}", names())),
            }
        }
        None => match proxies.as_slice() {
            [proxy] => Ok((*proxy).clone()),
            [] => Err(
                "no object of kind Proxy is in the configuration; add one (see README, \"the Proxy object\")"
                    .to_owned(),
            ),
            _ => Err(format!("several Proxies are in the configuration ({}); name one with --as", names())),
        },
    }
}
