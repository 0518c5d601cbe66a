//! Which virtual host a request's authority belongs to.

use crate::mesh;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::sync::Arc;

/// The domains of a route table. A look-up costs a probe per label of the host, whatever the number of hosts.
#[derive(Debug, Default)]
pub(super) struct HostIndex {
    exact: Domains,
    /// What follows the `*` of `*.suffix` or `*-suffix`.
    suffixes: Wildcards,
    /// What precedes the `*` of `prefix.*` or `prefix-*`.
    prefixes: Wildcards,
    any: Ports,
}

type Domains = FxHashMap<Box<str>, Ports>;

/// Two virtual hosts claim one domain.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    /// The domain as the second one has it.
    pub(super) domain: String,
    /// Place of the first host, which keeps the domain.
    pub(super) first: usize,
    /// Place of the second one.
    pub(super) second: usize,
}

/// The fixed parts of wildcard domains.
#[derive(Debug, Default)]
struct Wildcards {
    parts: Domains,
    /// Some part does not meet the `*` at a dot: each position of the host has to be probed.
    odd: bool,
    /// Length of the longest part. Bounds what a host of thousands of labels costs.
    longest: usize,
}

/// Hosts of one domain name by port.
#[derive(Debug, Default)]
struct Ports {
    plain: Option<u32>,
    with_port: SmallVec<[(u16, u32); 2]>,
}

impl HostIndex {
    /// Indexes the domains of hosts, which are then named by their place.
    pub(super) fn new<'a>(hosts: impl Iterator<Item = &'a Arc<mesh::VirtualHost>>) -> (Self, Vec<Conflict>) {
        let mut index = Self::default();
        let mut conflicts = Vec::new();
        for (second, host) in hosts.enumerate() {
            for domain in &host.domains {
                let first = index.insert(domain, second as u32) as usize;
                if first != second {
                    conflicts.push(Conflict { domain: domain.to_owned(), first, second });
                }
            }
        }
        (index, conflicts)
    }

    /// The place of the host that takes `host`: exact, then the longest suffix, then the longest prefix, then `*` (Envoy's order).
    ///
    /// A domain with a port takes only requests with that port. A domain without one takes requests without one and, when `ignore_port`, all those
    /// whose port no domain of the same name has.
    pub(super) fn find(&self, host: &str, port: Option<u16>, ignore_port: bool) -> Option<usize> {
        let exact = || self.exact.get(host)?.find(port, ignore_port);
        let suffix = || {
            let (parts, length) = (&self.suffixes, host.len());
            let starts =
                (length.saturating_sub(parts.longest).max(1)..length).filter(|at| parts.meets(host, *at));
            let found = starts.filter_map(|at| parts.parts.get(host.get(at..)?));
            found.filter_map(|ports| ports.find(port, ignore_port)).next()
        };
        let prefix = || {
            let (parts, length) = (&self.prefixes, host.len());
            let ends = (1..length.min(parts.longest + 1)).rev().filter(|at| parts.meets(host, *at - 1));
            let found = ends.filter_map(|at| parts.parts.get(host.get(..at)?));
            // The `*` of a prefix takes any port with the rest.
            found.filter_map(|ports| ports.find(port, true)).next()
        };
        exact()
            .or_else(suffix)
            .or_else(prefix)
            .or_else(|| self.any.find(port, true))
            .map(|place| place as usize)
    }

    /// Adds a domain and returns who has it: `host`, or the one that had it before.
    fn insert(&mut self, domain: &str, host: u32) -> u32 {
        let (name, port) = split_port(domain);
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let ports = match (name.as_str(), name.strip_prefix('*'), name.strip_suffix('*')) {
            ("*", ..) => &mut self.any,
            (_, Some(suffix), _) => {
                self.suffixes.odd |= !suffix.starts_with('.');
                self.suffixes.entry(suffix)
            }
            (_, _, Some(prefix)) => {
                self.prefixes.odd |= !prefix.ends_with('.');
                self.prefixes.entry(prefix)
            }
            _ => self.exact.entry(name.into()).or_default(),
        };
        ports.insert(port, host)
    }
}

impl Wildcards {
    fn entry(&mut self, part: &str) -> &mut Ports {
        self.longest = self.longest.max(part.len());
        self.parts.entry(part.into()).or_default()
    }

    /// True when the end of a part may lie at this byte of the host.
    fn meets(&self, host: &str, at: usize) -> bool {
        self.odd || host.as_bytes().get(at) == Some(&b'.')
    }
}

impl Ports {
    fn find(&self, port: Option<u16>, ignore_port: bool) -> Option<u32> {
        let Some(port) = port else { return self.plain };
        let own = self.with_port.iter().find(|(with, _)| *with == port).map(|(_, host)| *host);
        own.or(self.plain.filter(|_| ignore_port))
    }

    fn insert(&mut self, port: Option<u16>, host: u32) -> u32 {
        let Some(port) = port else { return *self.plain.get_or_insert(host) };
        if let Some((_, taken)) = self.with_port.iter().find(|(with, _)| *with == port) {
            return *taken;
        }
        self.with_port.push((port, host));
        host
    }
}

/// Splits `host:port`. A bare IPv6 address has no port; one with a port is in brackets.
fn split_port(domain: &str) -> (&str, Option<u16>) {
    if let Some((host, port)) = domain.rsplit_once(':')
        && (!host.contains(':') || host.ends_with(']'))
        && let Ok(port) = port.parse()
    {
        return (host, Some(port));
    }
    (domain, None)
}

#[cfg(test)]
mod tests;
