//! Whom a test calls: the Proxies behind a service, or the sidecar that its workload would have.

use crate::config::fields::nearest;
use crate::config::resources::kubernetes::Service;
use crate::config::resources::proxy::{Identity, IdentityFiles, Interception, Proxy, Role, Workload};
use crate::config::resources::scalar::IntOrString;
use crate::config::resources::{Kind, Meta, ObjectKey, Placement, Resource, Spec};
use crate::config::spans::Outline;
use crate::mesh::{Labels, name};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// A workload that is called, and where.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its Proxy, written or made up.
    pub proxy: Arc<Resource>,
    /// The host that its callers ask for.
    pub host: String,
    /// The port that its callers ask for.
    pub service_port: u16,
    /// The port that its proxy sees: that of the application where traffic is captured.
    pub port: u16,
    /// False for a gateway, whose requests do not end at an application of its own.
    pub inbound: bool,
    /// What is taken for granted.
    pub note: Option<String>,
}

impl Target {
    /// `Proxy shop/cart`, or what stands in for it.
    #[must_use]
    pub fn name(&self) -> String {
        let key = &self.proxy.key;
        let made_up = self.proxy.place("").file.as_os_str().is_empty();
        if made_up { format!("workload {}/{}", key.namespace, key.name) } else { key.to_string() }
    }
}

/// The workloads behind `name.namespace`: every Proxy whose labels the Service of that name selects, or the Proxy of that name. Where there is none, a
/// sidecar is made up from the Service, or from the `app` label that policies select.
///
/// # Errors
///
/// When nothing in the configuration has that name.
pub fn targets(resources: &[Arc<Resource>], to: &str, port: Option<u16>) -> Result<Vec<Target>, String> {
    let (short, namespace) = split(resources, to)?;
    let service = resources.iter().find_map(|resource| match &resource.spec {
        Spec::Service(spec) if is(resource, &short, &namespace) => Some(spec),
        _ => None,
    });
    let host = format!("{short}.{namespace}");
    let proxies = || {
        resources.iter().filter_map(|resource| match &resource.spec {
            Spec::Proxy(proxy) if *resource.key.namespace == *namespace => Some((resource, proxy)),
            _ => None,
        })
    };
    let found: Vec<_> = match service {
        Some(service) => proxies()
            .filter(|(_, proxy)| {
                proxy.role == Role::Sidecar && selects(&service.selector, &proxy.workload.labels)
            })
            .collect(),
        None => proxies().filter(|(resource, _)| *resource.key.name == *short).collect(),
    };
    let target = |resource: &Arc<Resource>, proxy: &Proxy, note| {
        let inbound = proxy.role == Role::Sidecar;
        let captured = inbound && proxy.interception != Interception::Explicit;
        Target {
            proxy: Arc::clone(resource),
            host: host.clone(),
            service_port: service_port(service, port, false),
            port: service_port(service, port, captured),
            inbound,
            note,
        }
    };
    if !found.is_empty() {
        return Ok(found.into_iter().map(|(resource, proxy)| target(resource, proxy, None)).collect());
    }
    let (labels, note) = match service {
        Some(service) if !service.selector.is_empty() => (service.selector.clone(), None),
        _ if named_by_policies(resources, &namespace).contains(&*short) => {
            let note = format!(
                "there is no Service {short} in {namespace}: taken as a workload with the label app={short}"
            );
            ([("app", &*short)].into_iter().collect(), Some(note))
        }
        _ => return Err(unknown(resources, &short, &namespace)),
    };
    let made_up = sidecar(&short, &namespace, labels, None);
    let Spec::Proxy(proxy) = &made_up.spec else { return Ok(Vec::new()) };
    Ok(vec![target(&made_up, proxy, note)])
}

/// The Proxy of who calls: the one that is named, else the one that runs as the principal, else a sidecar made up in its namespace.
///
/// # Errors
///
/// When nothing in the configuration has the name.
pub fn caller(
    resources: &[Arc<Resource>],
    from: Option<&str>,
    principal: Option<&str>,
    namespace: &str,
) -> Result<Arc<Resource>, String> {
    if let Some(from) = from {
        let targets = targets(resources, from, None)?;
        return targets
            .into_iter()
            .next()
            .map(|target| target.proxy)
            .ok_or_else(|| format!("`{from}` has no workload"));
    }
    let parts: Vec<&str> = principal.unwrap_or_default().split('/').collect();
    let [_, "ns", namespace, "sa", account] = parts[..] else {
        return Ok(sidecar("caller", namespace, Labels::default(), None));
    };
    let runs_as = resources.iter().find(|resource| match &resource.spec {
        Spec::Proxy(proxy) => {
            *resource.key.namespace == *namespace
                && proxy.role == Role::Sidecar
                && proxy.workload.service_account.as_deref().unwrap_or("default") == account
        }
        _ => false,
    });
    Ok(runs_as.cloned().unwrap_or_else(|| {
        let labels = [("app", account)].into_iter().collect();
        sidecar(account, namespace, labels, Some(account))
    }))
}

/// The sidecar that a workload would have in a cluster: traffic is captured, and it has a certificate.
fn sidecar(short: &str, namespace: &str, labels: Labels, account: Option<&str>) -> Arc<Resource> {
    let proxy = Proxy {
        workload: Workload {
            name: short.to_owned(),
            service_account: account.map(str::to_owned),
            labels,
            ..Workload::default()
        },
        interception: Interception::Redirect,
        identity: Some(Identity { files: Some(IdentityFiles::default()), ..Identity::default() }),
        ..Proxy::default()
    };
    let key = ObjectKey { kind: Kind::Proxy, namespace: name(namespace), name: name(short) };
    let nowhere = Arc::new(Placement::new(Path::new("").into(), &Outline::default()));
    Arc::new(Resource::new(key, Meta::default(), Spec::Proxy(Box::new(proxy)), nowhere))
}

/// A port of the service, or the port of the application behind it.
fn service_port(service: Option<&Service>, wanted: Option<u16>, behind: bool) -> u16 {
    let ports = service.map(|service| &*service.ports).unwrap_or_default();
    let found = ports.iter().find(|port| wanted.is_none_or(|wanted| wanted == port.port));
    match found {
        Some(port) => match &port.target_port {
            Some(IntOrString::Number(number)) if behind => *number,
            _ => port.port,
        },
        None => wanted.unwrap_or(80),
    }
}

/// Name and namespace of `cart.shop`, of `cart.shop.svc.cluster.local`, and of `cart` where only one namespace has it.
fn split(resources: &[Arc<Resource>], to: &str) -> Result<(String, String), String> {
    if let Some((short, rest)) = to.split_once('.') {
        let namespace = rest.split('.').next().unwrap_or_default();
        return Ok((short.to_owned(), namespace.to_owned()));
    }
    let namespaces: BTreeSet<&str> = resources
        .iter()
        .filter(|resource| matches!(resource.spec, Spec::Service(_) | Spec::Proxy(_)))
        .filter(|resource| *resource.key.name == *to)
        .map(|resource| &*resource.key.namespace)
        .collect();
    let mut namespaces = namespaces.into_iter();
    match (namespaces.next(), namespaces.next()) {
        (Some(namespace), None) => Ok((to.to_owned(), namespace.to_owned())),
        (None, _) => Ok((to.to_owned(), "default".to_owned())),
        (Some(one), Some(other)) => Err(format!("`{to}` is in {one} and in {other}; write `{to}.{one}`")),
    }
}

fn is(resource: &Resource, short: &str, namespace: &str) -> bool {
    *resource.key.name == *short && *resource.key.namespace == *namespace
}

/// Whether a selector that says something selects these labels.
fn selects(selector: &Labels, labels: &Labels) -> bool {
    !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// The workloads of a namespace that objects speak of: by the label `app`, or as a host.
fn named_by_policies<'a>(resources: &'a [Arc<Resource>], namespace: &str) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for resource in resources {
        let owner = &*resource.key.namespace;
        let selector = match &resource.spec {
            Spec::AuthorizationPolicy(spec) => spec.selector.as_ref(),
            Spec::AccessPolicy(spec) => spec.selector.as_ref(),
            Spec::PeerAuthentication(spec) => spec.selector.as_ref(),
            Spec::RequestAuthentication(spec) => spec.selector.as_ref(),
            _ => None,
        };
        let label = selector.and_then(|selector| selector.match_labels.get("app"));
        names.extend(label.filter(|_| owner == namespace));
        let hosts: Vec<&str> = match &resource.spec {
            Spec::VirtualService(spec) => spec.hosts.iter().map(String::as_str).collect(),
            Spec::DestinationRule(spec) => vec![&spec.host],
            _ => Vec::new(),
        };
        for host in hosts {
            match host.split_once('.') {
                None if owner == namespace => names.extend(Some(host)),
                Some((short, rest)) if rest.split('.').next() == Some(namespace) => names.extend(Some(short)),
                _ => {}
            }
        }
    }
    names
}

fn unknown(resources: &[Arc<Resource>], short: &str, namespace: &str) -> String {
    let mut known = named_by_policies(resources, namespace);
    let named =
        resources.iter().filter(|resource| matches!(resource.spec, Spec::Service(_) | Spec::Proxy(_)));
    known.extend(named.filter(|one| *one.key.namespace == *namespace).map(|one| &*one.key.name));
    let hint = match nearest(short, known.iter().copied()) {
        Some(near) => format!("; did you mean {near}.{namespace}?"),
        None => String::new(),
    };
    format!("no Service, no Proxy and no policy of namespace {namespace} speaks of {short}{hint}")
}
