//! Routes and the destinations they choose from.

use super::{Cluster, Linker, same};
use crate::filters::RouteSettings;
use crate::mesh::{self, Action, Name, Origin, RouteAction, WeightedCluster};
use filter_api::Slots;
use std::sync::Arc;

/// What becomes of the requests that one rule matches.
#[derive(Debug)]
pub struct Route {
    /// Name for logs and metrics; empty when the author gave none.
    pub name: Name,
    /// Where the rule was written.
    pub origin: Origin,
    /// As the mesh says it.
    pub action: Arc<RouteAction>,
    shares: Arc<Shares>,
}

/// One place that a route leads to, with all that a request needs from there on.
#[derive(Debug)]
pub struct Destination {
    /// Settings of the filters after route matching: the route's, then this destination's own.
    pub slots: Slots,
    /// Where to; `None` when the cluster does not exist (`NC`), and for a route that answers by itself.
    pub cluster: Option<Arc<Cluster>>,
    /// What the cluster is called, even if it does not exist; empty for a route that answers by itself.
    pub cluster_name: Name,
    /// Name of the route.
    pub route: Name,
    /// Where the destination was written; for a route that answers by itself, the rule.
    pub origin: Origin,
}

impl Route {
    /// The destination that `random` falls on: each has its weight's share of the values.
    #[inline]
    pub fn pick(&self, random: u64) -> &Arc<Destination> {
        self.shares.pick(random)
    }

    /// All destinations that can be picked, with their weights.
    pub fn destinations(&self) -> impl Iterator<Item = (u64, &Arc<Destination>)> {
        self.shares.iter()
    }

    /// Compiles a rule's action. Taken over as far as possible: the rule's own last version, then the compiled settings of a rule of this host that
    /// shares the action.
    pub(super) fn link(
        mesh: &mesh::Route,
        old: Option<&Arc<Self>>,
        sibling: Option<&Arc<Self>>,
        linker: &Linker<'_>,
    ) -> Result<Arc<Self>, String> {
        if let Some(old) = old
            && old.name == mesh.name
            && !old.touches(linker)
        {
            return Ok(old.clone());
        }
        let shares = match sibling {
            Some(sibling) if sibling.name == mesh.name => sibling.shares.clone(),
            _ => Arc::new(Shares::of_route(mesh, sibling.or(old).map(|old| &*old.shares), linker)?),
        };
        let (name, origin) = (mesh.name.clone(), mesh.origin.clone());
        Ok(Arc::new(Self { name, origin, action: mesh.action.clone(), shares }))
    }

    /// Answers for a rule whose action cannot be compiled.
    pub(super) fn broken(mesh: &mesh::Route, why: &str, linker: &Linker<'_>) -> Arc<Self> {
        let reply = filter_transform::Reply::Direct {
            status: 500,
            body: format!("the route {:?} cannot be put in force: {why}\n", mesh.name).into_bytes(),
        };
        let settings = filter_transform::Settings {
            origin: mesh.origin.clone(),
            reply: Some(reply),
            ..filter_transform::Settings::default()
        };
        let action = RouteAction {
            action: Action::Respond,
            filters: RouteSettings { transform: vec![settings], ..RouteSettings::default() },
        };
        let (name, origin) = (mesh.name.clone(), mesh.origin.clone());
        // A fixed answer has nothing that could fail to compile; without it the route would have no destination, which is 503.
        let slots =
            linker.compile(&action.filters, &RouteSettings::default()).unwrap_or_else(|_| linker.off.clone());
        let (cluster_name, route) = (Name::from(""), name.clone());
        let first =
            Arc::new(Destination { slots, cluster: None, cluster_name, route, origin: origin.clone() });
        let shares = Arc::new(Shares { first, first_until: 1, others: Box::default(), total: 1 });
        Arc::new(Self { name, origin, action: Arc::new(action), shares })
    }

    /// True when this was compiled from an equal action.
    pub(super) fn does(&self, action: &Arc<RouteAction>) -> bool {
        same(&self.action, action)
    }

    /// True when a cluster it leads to has been replaced.
    pub(super) fn touches(&self, linker: &Linker<'_>) -> bool {
        self.shares.touches(linker)
    }
}

impl Linker<'_> {
    pub(super) fn compile(
        &self,
        route: &RouteSettings,
        destination: &RouteSettings,
    ) -> Result<Slots, String> {
        let off = RouteSettings::default();
        if *route == off && *destination == off {
            return Ok(self.off.clone());
        }
        route.compile(destination, self.keep)
    }
}

/// Destinations by weight. Never empty.
#[derive(Debug)]
pub(super) struct Shares {
    first: Arc<Destination>,
    /// Where the first one's share ends, the others' running sums, and the end of all.
    first_until: u64,
    others: Box<[(u64, Arc<Destination>)]>,
    total: u64,
}

impl Shares {
    fn of_route(mesh: &mesh::Route, old: Option<&Self>, linker: &Linker<'_>) -> Result<Self, String> {
        let (filters, name) = (&mesh.action.filters, &mesh.name);
        if let Action::Forward(clusters) = &mesh.action.action {
            return Self::link(clusters, filters, name, old, linker);
        }
        let slots = match old {
            Some(old) => old.first.slots.clone(),
            None => linker.compile(filters, &RouteSettings::default())?,
        };
        let (cluster_name, route, origin) = (Name::from(""), name.clone(), mesh.origin.clone());
        let first = Arc::new(Destination { slots, cluster: None, cluster_name, route, origin });
        Ok(Self { first, first_until: 1, others: Box::default(), total: 1 })
    }

    /// Points to clusters by weight; those of weight zero take nothing. A single one takes all, whatever its weight.
    pub(super) fn link(
        clusters: &[WeightedCluster],
        route: &RouteSettings,
        name: &Name,
        old: Option<&Self>,
        linker: &Linker<'_>,
    ) -> Result<Self, String> {
        let alone = clusters.len() == 1;
        let mut old = old.into_iter().flat_map(Self::iter);
        let mut total = 0;
        let mut shares = Vec::with_capacity(clusters.len());
        for written in clusters.iter().filter(|cluster| alone || cluster.weight > 0) {
            let slots = match old.next() {
                Some((_, old)) => old.slots.clone(),
                None => linker.compile(route, &written.filters)?,
            };
            total += if alone { 1 } else { u64::from(written.weight) };
            let destination = Destination {
                slots,
                cluster: linker.clusters.find(&written.cluster).cloned(),
                cluster_name: written.cluster.clone(),
                route: name.clone(),
                origin: written.origin.clone(),
            };
            shares.push((total, Arc::new(destination)));
        }
        let mut shares = shares.into_iter();
        let Some((first_until, first)) = shares.next() else {
            return Err(match clusters {
                [] => "no destination; name at least one".to_owned(),
                _ => "the weights of its destinations are all zero; give one of them a weight".to_owned(),
            });
        };
        Ok(Self { first, first_until, others: shares.collect(), total })
    }

    pub(super) fn pick(&self, random: u64) -> &Arc<Destination> {
        if self.others.is_empty() {
            return &self.first;
        }
        let point = random % self.total;
        if point < self.first_until {
            return &self.first;
        }
        let place = self.others.partition_point(|(until, _)| *until <= point);
        self.others.get(place).map_or(&self.first, |(_, destination)| destination)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Arc<Destination>)> {
        let mut start = 0;
        let all = std::iter::once((self.first_until, &self.first));
        all.chain(self.others.iter().map(|(until, destination)| (*until, destination))).map(
            move |(until, destination)| {
                let weight = until - start;
                start = until;
                (weight, destination)
            },
        )
    }

    pub(super) fn touches(&self, linker: &Linker<'_>) -> bool {
        !linker.changed.is_empty() && self.iter().any(|(_, to)| linker.changed.contains(&to.cluster_name))
    }
}
