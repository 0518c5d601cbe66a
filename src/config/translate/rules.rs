//! DestinationRules: which one holds for a host, and what several for one host say together.

use rustc_hash::FxHashMap;

use super::host::{HostMap, full};
use super::index::{Index, Written};
use super::service::{Service, exported};
use super::settings::{DOMAIN, Settings};
use super::workloads::is_subset;
use crate::config::resources::Resource;
use crate::config::resources::istio::destination_rule::{DestinationRule, Subset, TrafficPolicy};
use crate::config::resources::proxy::Proxy;

/// The DestinationRules of one host in one namespace: the subsets of all, the first traffic policy.
#[derive(Debug)]
pub(super) struct Merged<'a> {
    /// The first traffic policy, and the object that holds it.
    pub(super) policy: Option<(&'a TrafficPolicy, &'a Resource)>,
    /// All subsets; of two with one name the older.
    pub(super) subsets: Vec<NamedSubset<'a>>,
}

/// A subset and where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct NamedSubset<'a> {
    /// The object that holds it.
    pub(super) object: &'a Resource,
    /// Its place in the list.
    pub(super) index: usize,
    /// What it says.
    pub(super) subset: &'a Subset,
}

/// The rules of a namespace for one host: those with a selector that matches the proxy win over those without.
#[derive(Debug, Default)]
struct Entry<'a> {
    selected: Option<Merged<'a>>,
    general: Option<Merged<'a>>,
}

/// The DestinationRules that one client sees, by namespace and host.
#[derive(Debug, Default)]
pub(super) struct Rules<'a> {
    namespaces: FxHashMap<&'a str, HostMap<Entry<'a>>>,
    /// In the root namespace only rules of the namespace itself come before those of the service.
    private: HostMap<Entry<'a>>,
    client: &'a str,
    root: &'a str,
}

impl<'a> Rules<'a> {
    /// The rules that a proxy of `client` sees.
    pub(super) fn new(index: &Index<'a>, settings: &Settings<'a>, client: &'a str, proxy: &Proxy) -> Self {
        let mut rules = Self { client, root: settings.root(), ..Self::default() };
        for rule in &index.destination_rules {
            let owner: &str = rule.namespace();
            let default = settings.destination_rule_exports();
            let selected = rule.spec.workload_selector.as_ref();
            let of_us = |labels| owner == client && is_subset(labels, &proxy.workload.labels);
            // A rule holds for the clients of its own namespace, whomever it is exported to.
            if (owner != client && !exported(&rule.spec.export_to, default, owner, client))
                || selected.is_some_and(|selector| !of_us(&selector.match_labels))
            {
                continue;
            }
            let host = full(&rule.spec.host, owner, DOMAIN);
            let add = |entry: &mut Entry<'a>| {
                let slot = if selected.is_some() { &mut entry.selected } else { &mut entry.general };
                match slot {
                    Some(merged) => merged.add(*rule),
                    None => *slot = Some(Merged::new(*rule)),
                }
            };
            add(rules.namespaces.entry(owner).or_default().entry(&host));
            if owner == client && matches!(&rule.spec.export_to[..], [only] if only == ".") {
                add(rules.private.entry(&host));
            }
        }
        rules
    }

    /// The rule of a service: from the client's namespace, else the service's, else the root namespace.
    pub(super) fn find(&self, service: &Service<'_>) -> Option<&Merged<'a>> {
        let of = |namespace: &str| self.namespaces.get(namespace)?.find(&service.host)?.chosen();
        let own = || {
            if self.client == self.root {
                self.private.find(&service.host)?.chosen()
            } else {
                of(self.client)
            }
        };
        own().or_else(|| of(&service.namespace)).or_else(|| of(self.root))
    }
}

impl<'a> Entry<'a> {
    fn chosen(&self) -> Option<&Merged<'a>> {
        self.selected.as_ref().or(self.general.as_ref())
    }
}

impl<'a> Merged<'a> {
    fn new(rule: Written<'a, DestinationRule>) -> Self {
        let mut merged = Self { policy: None, subsets: Vec::new() };
        merged.add(rule);
        merged
    }

    fn add(&mut self, rule: Written<'a, DestinationRule>) {
        if self.policy.is_none() {
            self.policy = rule.spec.traffic_policy.as_ref().map(|policy| (policy, rule.object));
        }
        for (index, subset) in rule.spec.subsets.iter().enumerate() {
            if !self.subsets.iter().any(|known| known.subset.name == subset.name) {
                self.subsets.push(NamedSubset { object: rule.object, index, subset });
            }
        }
    }
}
