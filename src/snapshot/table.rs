//! Route tables: from a request to its route.

use super::host_index::HostIndex;
use super::matcher::Subject;
use super::{Linker, Problem, Route, VirtualHost};
use crate::mesh;
use filter_api::{Trace, TraceStep};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// The virtual hosts of an HTTP chain, indexed by domain.
#[derive(Debug)]
pub struct RouteTable {
    /// As it is in force.
    pub mesh: Arc<mesh::RouteTable>,
    hosts: Box<[Arc<VirtualHost>]>,
    index: Arc<HostIndex>,
    /// It is in force as written.
    clean: bool,
}

/// Why a request has no route. Both are answered 404 `NR`.
#[derive(Clone, Debug, PartialEq)]
pub enum Miss {
    /// No virtual host has a domain for its authority.
    Host,
    /// Its virtual host has no rule for it.
    Rule {
        /// The virtual host.
        virtual_host: Arc<mesh::VirtualHost>,
    },
}

impl RouteTable {
    /// Finds the route of a request: virtual host by authority, then the first rule that matches.
    ///
    /// `host` is lower-case, without trailing dot and port; `port` is the authority's own, if it has one. Path and query are read from `head`, whose
    /// target is already canonical. Pure: the data path and `explain` call the same.
    pub fn select(
        &self,
        host: &str,
        port: Option<u16>,
        head: &http::request::Parts,
        trace: &mut impl Trace,
    ) -> Result<&Arc<Route>, Miss> {
        let found =
            self.index.find(host, port, self.mesh.ignore_port).and_then(|place| self.hosts.get(place));
        let mut aloud = false;
        trace.step(|| {
            aloud = true;
            self.explain(host, port, found)
        });
        let virtual_host = found.ok_or(Miss::Host)?;
        let subject = Subject { host, port, head };
        let route =
            if aloud { virtual_host.select_aloud(&subject, trace) } else { virtual_host.select(&subject) };
        route.ok_or_else(|| Miss::Rule { virtual_host: virtual_host.mesh.clone() })
    }

    /// Its virtual hosts, in the order in which they were written.
    pub fn hosts(&self) -> &[Arc<VirtualHost>] {
        &self.hosts
    }

    fn explain(&self, host: &str, port: Option<u16>, found: Option<&Arc<VirtualHost>>) -> TraceStep {
        let colon = if port.is_some() { ":" } else { "" };
        let port = port.map(|port| port.to_string()).unwrap_or_default();
        let authority = format!("{host}{colon}{port}");
        match found {
            Some(found) => TraceStep {
                origin: found.mesh.origin.clone(),
                held: true,
                because: format!("virtual host {:?} has a domain for {authority:?}", found.mesh.name),
            },
            None => TraceStep {
                origin: self.mesh.origin.clone(),
                held: false,
                because: format!(
                    "no virtual host of table {:?} has a domain for {authority:?}",
                    self.mesh.name
                ),
            },
        }
    }

    /// Compiles a table, reusing what it can of the one of that name before it.
    pub(super) fn link(
        mesh: &Arc<mesh::RouteTable>,
        old: Option<&Arc<Self>>,
        linker: &Linker<'_>,
        problems: &mut Vec<Problem>,
    ) -> Arc<Self> {
        let mut ancestors = Ancestors::of(old.map_or(&[], |old| &old.hosts));
        let before = problems.len();
        let hosts: Box<[_]> = mesh
            .hosts
            .iter()
            .map(|host| VirtualHost::link(host, ancestors.find(&host.name), linker, problems))
            .collect();
        if let Some(old) = old
            && old.clean
            && old.mesh.ignore_port == mesh.ignore_port
            && old.mesh.name == mesh.name
            && old.hosts.len() == hosts.len()
            && old.hosts.iter().zip(&hosts).all(|(old, new)| Arc::ptr_eq(old, new))
        {
            return old.clone();
        }
        let index = Self::index(mesh, &hosts, old, problems);
        let clean = problems.len() == before;
        let mesh = in_force(mesh, &hosts);
        Arc::new(Self { mesh, hosts, index, clean })
    }

    /// The index over these hosts; the old one when they have the same domains.
    fn index(
        mesh: &mesh::RouteTable,
        hosts: &[Arc<VirtualHost>],
        old: Option<&Arc<Self>>,
        problems: &mut Vec<Problem>,
    ) -> Arc<HostIndex> {
        let same_domains = |old: &&Arc<Self>| {
            old.clean
                && old.hosts.len() == hosts.len()
                && old.hosts.iter().zip(hosts).all(|(old, new)| {
                    Arc::ptr_eq(&old.mesh, &new.mesh) || old.mesh.domains == new.mesh.domains
                })
        };
        if let Some(old) = old.filter(same_domains) {
            return old.index.clone();
        }
        let (index, conflicts) = HostIndex::new(hosts.iter().map(|host| &host.mesh));
        problems.extend(conflicts.into_iter().filter_map(|conflict| {
            let (first, second) = (hosts.get(conflict.first)?, hosts.get(conflict.second)?);
            Some(Problem {
                origin: second.mesh.origin.clone(),
                message: format!(
                    "virtual host {:?} of table {:?}: domain {:?} belongs to virtual host {:?} ({}), which keeps it; take it out of one of them",
                    second.mesh.name, mesh.name, conflict.domain, first.mesh.name, first.mesh.origin
                ),
            })
        }));
        Arc::new(index)
    }
}

/// The hosts of the table before, by name. An update mostly keeps their order: the next one is looked at first.
struct Ancestors<'a> {
    hosts: &'a [Arc<VirtualHost>],
    next: usize,
    by_name: Option<FxHashMap<&'a str, usize>>,
}

impl<'a> Ancestors<'a> {
    fn of(hosts: &'a [Arc<VirtualHost>]) -> Self {
        Self { hosts, next: 0, by_name: None }
    }

    fn find(&mut self, name: &mesh::Name) -> Option<&'a Arc<VirtualHost>> {
        let hosts = self.hosts;
        let next =
            hosts.get(self.next).filter(|host| Arc::ptr_eq(&host.mesh.name, name) || host.mesh.name == *name);
        let place = match next {
            Some(_) => self.next,
            None => {
                let names =
                    || hosts.iter().enumerate().map(|(place, host)| (&*host.mesh.name, place)).collect();
                *self.by_name.get_or_insert_with(names).get(&**name)?
            }
        };
        self.next = place + 1;
        hosts.get(place)
    }
}

/// The table with the hosts as they are in force; the one given when nothing differs from it.
fn in_force(mesh: &Arc<mesh::RouteTable>, hosts: &[Arc<VirtualHost>]) -> Arc<mesh::RouteTable> {
    if mesh.hosts.iter().zip(hosts).all(|(written, host)| Arc::ptr_eq(written, &host.mesh)) {
        return mesh.clone();
    }
    let hosts = hosts.iter().map(|host| host.mesh.clone()).collect();
    Arc::new(mesh::RouteTable { hosts, ..mesh::RouteTable::clone(mesh) })
}

#[cfg(test)]
mod tests;
