//! A virtual host: ordered rules and the routes they lead to.

use super::matcher::{Rule, Subject};
use super::rule_index::RuleIndex;
use super::{Linker, Problem, Route, same};
use crate::mesh;
use filter_api::{Trace, TraceStep};
use std::sync::Arc;

/// The rules of one virtual host.
#[derive(Debug)]
pub struct VirtualHost {
    /// As it is in force.
    pub mesh: Arc<mesh::VirtualHost>,
    /// Apart from the routes: they stay when a cluster is replaced.
    rules: Arc<Rules>,
    routes: Box<[Arc<Route>]>,
    /// It is in force as written. Otherwise it is compiled, and its problem listed, every time.
    clean: bool,
}

impl VirtualHost {
    /// Its routes, in the order of its rules.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// The route of the first rule that matches.
    #[inline]
    pub(super) fn select(&self, subject: &Subject<'_>) -> Option<&Arc<Route>> {
        let matches = |rule: &Rule| rule.refuses(subject).is_none();
        let rules = &self.rules.in_order;
        let place = match &self.rules.index {
            None => rules.iter().position(matches),
            Some(index) => {
                index.first(subject.head.uri.path(), |place| rules.get(place).is_some_and(matches))
            }
        };
        self.routes.get(place?)
    }

    /// The same, by looking at every rule up to the one that matches, and saying why the others do not.
    #[cold]
    pub(super) fn select_aloud(&self, subject: &Subject<'_>, trace: &mut impl Trace) -> Option<&Arc<Route>> {
        for (index, rule) in self.rules.in_order.iter().enumerate() {
            let failed = rule.refuses(subject);
            trace.step(|| self.explain(index, failed.map(|failed| rule.explain(failed, subject))));
            if failed.is_none() {
                return self.routes.get(index);
            }
        }
        None
    }

    fn explain(&self, index: usize, failure: Option<String>) -> TraceStep {
        let (origin, name) =
            self.mesh.routes.get(index).map(|route| (route.origin.clone(), &*route.name)).unwrap_or_default();
        let held = failure.is_none();
        let because = failure.unwrap_or_else(|| "all its conditions hold".to_owned());
        let because = if name.is_empty() { because } else { format!("route {name:?}: {because}") };
        TraceStep { origin, held, because }
    }

    /// Compiles a host, reusing what it can of the one of that name before it.
    pub(super) fn link(
        mesh: &Arc<mesh::VirtualHost>,
        old: Option<&Arc<Self>>,
        linker: &Linker<'_>,
        problems: &mut Vec<Problem>,
    ) -> Arc<Self> {
        if let Some(old) = old
            && old.clean
            && same(&old.mesh, mesh)
            && !old.touches(linker)
        {
            return old.clone();
        }
        let before = problems.len();
        let host = Self::compile(mesh, old, linker, problems);
        Arc::new(Self { clean: problems.len() == before, ..host })
    }

    fn touches(&self, linker: &Linker<'_>) -> bool {
        self.routes.iter().any(|route| route.touches(linker))
    }

    /// A rule that cannot be compiled stands alone with it, the others hold: without its conditions it matches nothing, and without its action it
    /// answers 500, for what comes after it was not meant for these requests.
    fn compile(
        mesh: &Arc<mesh::VirtualHost>,
        old: Option<&Arc<Self>>,
        linker: &Linker<'_>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let known = old.filter(|old| old.clean && same(&old.mesh, mesh));
        let mut rules = Vec::new();
        let mut routes: Vec<Arc<Route>> = Vec::with_capacity(mesh.routes.len());
        for (index, written) in mesh.routes.iter().enumerate() {
            let mut at = |message: String, instead: &str| {
                let host = &mesh.name;
                let message = if written.name.is_empty() {
                    format!("virtual host {host:?}, rule {index}: {message}; {instead}")
                } else {
                    format!("virtual host {host:?}, rule {index} ({}): {message}; {instead}", written.name)
                };
                problems.push(Problem { origin: written.origin.clone(), message });
            };
            if known.is_none() {
                rules.push(Rule::compile(&written.matches).unwrap_or_else(|error| {
                    at(error, "the rule takes no request");
                    Rule::never()
                }));
            }
            let last = old.and_then(|old| old.ancestor(index, mesh.routes.len(), written));
            // Rules that share an action are one rule with several matches: its filters are compiled, and keep state, once.
            let sibling = routes.last().filter(|route| Arc::ptr_eq(&route.action, &written.action));
            routes.push(Route::link(written, last, sibling, linker).unwrap_or_else(|error| {
                let route = Route::broken(written, &error, linker);
                at(error, "its requests are answered 500");
                route
            }));
        }
        let rules = known.map_or_else(|| Rules::new(rules), |known| known.rules.clone());
        Self { mesh: mesh.clone(), rules, routes: routes.into(), clean: true }
    }

    /// The route that this rule had before: at the same place from the start, or from the end when rules were added or removed above it.
    fn ancestor(&self, index: usize, count: usize, written: &mesh::Route) -> Option<&Arc<Route>> {
        let from_end = (index + self.routes.len()).checked_sub(count);
        [Some(index), from_end]
            .into_iter()
            .flatten()
            .filter_map(|place| self.routes.get(place))
            .find(|route| route.does(&written.action))
    }
}

#[derive(Debug, Default)]
struct Rules {
    in_order: Box<[Rule]>,
    index: Option<Box<RuleIndex>>,
}

impl Rules {
    fn new(rules: Vec<Rule>) -> Arc<Self> {
        let index = RuleIndex::new(&rules);
        Arc::new(Self { in_order: rules.into(), index })
    }
}
