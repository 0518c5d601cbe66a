//! A compiled rule: alternatives of callers and of operations, and conditions.

use crate::attributes::View;
use crate::clause::Clause;
use crate::truth::Truth;
use filter_api::Origin;

/// See the module.
#[derive(Debug)]
pub(crate) struct Rule {
    /// Place of its policy in the list of policies.
    pub(crate) policy: usize,
    /// Its place in its policy.
    pub(crate) number: usize,
    pub(crate) origin: Origin,
    /// Alternatives; each holds when all its clauses do. Empty: any caller.
    pub(crate) from: Vec<Vec<Clause>>,
    /// Alternatives; empty: any operation.
    pub(crate) to: Vec<Vec<Clause>>,
    pub(crate) when: Vec<Clause>,
    /// Whether some clause is about requests alone.
    pub(crate) needs_http: bool,
}

/// Whether a rule allows, or acts against a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sense {
    /// Acts only when it certainly holds.
    Allows,
    /// Acts unless it certainly does not hold.
    Objects,
}

impl Rule {
    /// Whether the rule acts.
    pub(crate) fn acts(&self, view: &View<'_>, sense: Sense) -> bool {
        match sense {
            // At a TCP port Istio leaves out a whole ALLOW rule that speaks of requests, and of other rules the clauses that do.
            Sense::Allows if view.request.is_none() && self.needs_http => false,
            Sense::Allows => self.truth(view) == Truth::Yes,
            Sense::Objects => self.truth(view) != Truth::No,
        }
    }

    fn truth(&self, view: &View<'_>) -> Truth {
        let mut truth = all(&self.when, view);
        for alternatives in [&self.from, &self.to] {
            if truth == Truth::No {
                return truth;
            }
            truth = truth.min(any(alternatives, view));
        }
        truth
    }

    /// How far the rule is from holding: the number of its clauses that do not, and the first of them. Of alternatives the nearest counts.
    pub(crate) fn distance(&self, view: &View<'_>) -> (usize, Option<&Clause>) {
        let sides = [&self.from, &self.to].map(|alternatives| {
            alternatives
                .iter()
                .map(|clauses| failing(clauses, view))
                .min_by_key(|(count, _)| *count)
                .unwrap_or_default()
        });
        let when = failing(&self.when, view);
        let [from, to] = sides;
        (from.0 + to.0 + when.0, from.1.or(to.1).or(when.1))
    }
}

fn all(clauses: &[Clause], view: &View<'_>) -> Truth {
    let mut truth = Truth::Yes;
    for clause in clauses {
        truth = truth.min(clause.truth(view));
        if truth == Truth::No {
            break;
        }
    }
    truth
}

fn any(alternatives: &[Vec<Clause>], view: &View<'_>) -> Truth {
    if alternatives.is_empty() {
        return Truth::Yes;
    }
    let mut truth = Truth::No;
    for clauses in alternatives {
        truth = truth.max(all(clauses, view));
        if truth == Truth::Yes {
            break;
        }
    }
    truth
}

fn failing<'c>(clauses: &'c [Clause], view: &View<'_>) -> (usize, Option<&'c Clause>) {
    let mut failing = clauses.iter().filter(|clause| clause.truth(view) != Truth::Yes);
    let first = failing.next();
    (usize::from(first.is_some()) + failing.count(), first)
}
