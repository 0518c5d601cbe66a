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
    /// Why it has no rules, although some were written.
    closed: Option<Box<str>>,
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
        if let Some(reason) = &self.closed {
            trace.step(|| TraceStep {
                origin: self.mesh.origin.clone(),
                held: false,
                because: format!("virtual host {:?} is closed: {reason}", self.mesh.name),
            });
        }
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
        let problem = match Self::compile(mesh, old, linker) {
            Ok(host) => return Arc::new(host),
            Err(problem) => problem,
        };
        let kept = old
            .filter(|old| old.closed.is_none())
            .and_then(|old| Self::compile(&old.mesh, Some(old), linker).ok())
            .map(|host| Self { clean: false, ..host });
        let message = format!("virtual host {:?}: {}", mesh.name, problem.message);
        let instead = if kept.is_some() { "its last version stays" } else { "its requests are answered 404" };
        problems.push(Problem { origin: problem.origin, message: format!("{message}; {instead}") });
        // Without rules, not without domains: else its requests would fall to a wildcard host, which may let them out.
        Arc::new(kept.unwrap_or_else(|| Self {
            mesh: mesh.clone(),
            rules: Arc::default(),
            routes: Box::default(),
            closed: Some(message.into()),
            clean: false,
        }))
    }

    fn touches(&self, linker: &Linker<'_>) -> bool {
        self.routes.iter().any(|route| route.touches(linker))
    }

    fn compile(
        mesh: &Arc<mesh::VirtualHost>,
        old: Option<&Arc<Self>>,
        linker: &Linker<'_>,
    ) -> Result<Self, Problem> {
        let known = old.filter(|old| old.closed.is_none() && same(&old.mesh, mesh));
        let mut rules = Vec::new();
        let mut routes: Vec<Arc<Route>> = Vec::with_capacity(mesh.routes.len());
        for (index, written) in mesh.routes.iter().enumerate() {
            let at = |message: String| Problem {
                origin: written.origin.clone(),
                message: if written.name.is_empty() {
                    format!("rule {index}: {message}")
                } else {
                    format!("rule {index} ({}): {message}", written.name)
                },
            };
            if known.is_none() {
                rules.push(Rule::compile(&written.matches).map_err(at)?);
            }
            let last = old.and_then(|old| old.ancestor(index, mesh.routes.len(), written));
            // Rules that share an action are one rule with several matches: its filters are compiled, and keep state, once.
            let sibling = routes.last().filter(|route| Arc::ptr_eq(&route.action, &written.action));
            routes.push(Route::link(written, last, sibling, linker).map_err(at)?);
        }
        let rules = known.map_or_else(|| Rules::new(rules), |known| known.rules.clone());
        Ok(Self { mesh: mesh.clone(), rules, routes: routes.into(), closed: None, clean: true })
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
