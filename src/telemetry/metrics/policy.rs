//! What the rules of policies did: `sidegate_policy_decisions_total`.

use super::bundle::{Bundle, Kind, Slot, Spec};
use super::registry::Series;
use super::worker::WorkerMetrics;
use filter_api::{Effect, Record};
use std::collections::HashMap;

static RULES: Bundle = Bundle {
    labels: &["layer", "policy", "rule", "effect"],
    families: &[Spec {
        name: "sidegate_policy_decisions_total",
        help: "Requests and connections that a rule of a policy refused or noted, or on trial would have.",
        kind: Kind::Counter,
    }],
};

/// Series that a worker keeps at hand. Beyond them it begins anew; the budget of the registry holds in any case.
const KEPT: usize = 1_024;

/// The counters of rules, of one worker.
#[derive(Debug, Default)]
pub struct PolicyMetrics {
    /// By policy.
    series: HashMap<Box<str>, Vec<(Rule, Series)>>,
    kept: usize,
}

/// What is counted apart within a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    layer: &'static str,
    number: Option<u32>,
    effect: Effect,
}

impl PolicyMetrics {
    const DECISIONS: Slot = RULES.scalar(0);

    /// Counts what a record says. One that names no rule refuses for its whole object.
    pub fn count(&mut self, worker: &WorkerMetrics, record: &Record) {
        match &record.ruling {
            Some(ruling) => {
                let rule = Rule { layer: record.layer, number: ruling.rule, effect: ruling.effect };
                self.add(worker, &ruling.policy, rule);
            }
            None => {
                let object = record.origin.object_name();
                let policy =
                    object.map_or_else(String::new, |object| format!("{}/{}", object.namespace, object.name));
                self.add(worker, &policy, Rule { layer: record.layer, number: None, effect: Effect::Denied });
            }
        }
    }

    /// Lets go of all series: policies that are gone shall not be kept alive.
    pub fn clear(&mut self) {
        self.series.clear();
        self.kept = 0;
    }

    fn add(&mut self, worker: &WorkerMetrics, policy: &str, rule: Rule) {
        let known = self.series.get(policy).and_then(|rules| rules.iter().find(|(known, _)| *known == rule));
        if let Some((_, series)) = known {
            return worker.add(series, Self::DECISIONS, 1);
        }
        let number = rule.number.map_or_else(String::new, |number| number.to_string());
        let labels = [rule.layer, policy, &number, rule.effect.as_str()];
        let series = worker.registry().series(&RULES, &labels);
        worker.add(&series, Self::DECISIONS, 1);
        if self.kept >= KEPT {
            self.clear();
        }
        self.kept += 1;
        self.series.entry(policy.into()).or_default().push((rule, series));
    }
}
