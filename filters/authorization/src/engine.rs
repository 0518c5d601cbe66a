//! The rules of all policies with one action, and which of them holds first.

use crate::attributes::View;
use crate::clause::Clause;
use crate::index::Index;
use crate::rule::{Rule, Sense};

/// See the module.
#[derive(Debug)]
pub(crate) struct Engine {
    rules: Vec<Rule>,
    sense: Sense,
    requests: Index,
    connections: Index,
}

/// How many rules are looked at to tell which came nearest to holding: a refusal costs no more than this.
const NEAREST_OF: usize = 16;

impl Engine {
    pub(crate) fn new(rules: Vec<Rule>, sense: Sense) -> Self {
        Self { requests: Index::new(&rules, true), connections: Index::new(&rules, false), rules, sense }
    }

    /// The rules in their order.
    pub(crate) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Rules that no index finds: each is tried for every request.
    pub(crate) fn linear(&self) -> usize {
        self.requests.linear().len()
    }

    /// Whether the rule acts.
    pub(crate) fn acts(&self, rule: &Rule, view: &View<'_>) -> bool {
        rule.acts(view, self.sense)
    }

    /// The first rule that acts, found by the index.
    pub(crate) fn first(&self, view: &View<'_>) -> Option<&Rule> {
        let index = self.index(view);
        let candidates = index.candidates(view);
        let (mut keyed, mut linear) = (candidates.iter().peekable(), index.linear().iter().peekable());
        loop {
            let next = match (keyed.peek(), linear.peek()) {
                (Some(one), Some(other)) if one <= other => keyed.next(),
                (Some(_), None) => keyed.next(),
                (_, Some(_)) => linear.next(),
                (None, None) => return None,
            };
            let rule = next.and_then(|number| self.rules.get(*number as usize))?;
            if self.acts(rule, view) {
                return Some(rule);
            }
        }
    }

    /// The first rule that acts, found by trying them in their order.
    pub(crate) fn first_in_order(&self, view: &View<'_>) -> Option<&Rule> {
        self.rules.iter().find(|rule| self.acts(rule, view))
    }

    /// Of rules none of which holds, one that comes near to it, and its first clause that does not hold.
    pub(crate) fn nearest(&self, view: &View<'_>) -> Option<(&Rule, Option<&Clause>)> {
        let candidates = self.index(view).candidates(view);
        let found = candidates.iter().take(NEAREST_OF).filter_map(|number| self.rules.get(*number as usize));
        found
            .chain(self.rules.iter().take(NEAREST_OF))
            .map(|rule| (rule, rule.distance(view)))
            .min_by_key(|(_, (failing, _))| *failing)
            .map(|(rule, (_, clause))| (rule, clause))
    }

    fn index(&self, view: &View<'_>) -> &Index {
        if view.request.is_some() { &self.requests } else { &self.connections }
    }
}
