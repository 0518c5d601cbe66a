//! Runs one test: asks, and compares.

use super::bench::Bench;
use super::file::{Case, Expect};
use super::workload::{Target, caller, targets};
use crate::explain::{Explanation, Outcome, Verdict, explain};
use serde::Serialize;

/// What came of a test.
#[derive(Clone, Debug, Default)]
pub struct Verdicts {
    /// What is not as expected; none: the test passes.
    pub failures: Vec<Failure>,
    /// The origins of the rules that held.
    pub hits: Vec<String>,
    /// What is taken for granted.
    pub notes: Vec<String>,
}

/// Something that is not as expected.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The workload, as there may be several behind a service.
    pub workload: String,
    /// Which expectation.
    pub field: &'static str,
    /// What the test says.
    pub expected: String,
    /// What it is.
    pub actual: String,
    /// How that came about.
    pub explanation: String,
}

/// Runs a test.
///
/// # Errors
///
/// When a key set that was given is of no use.
pub(super) fn judge(bench: &Bench<'_>, case: &Case) -> Result<Verdicts, String> {
    let mut verdicts = Verdicts::default();
    let targets = match targets(bench.resources(), &case.to, case.request.port) {
        Ok(targets) => targets,
        Err(why) => {
            verdicts.impossible("to", &case.to, why);
            return Ok(verdicts);
        }
    };
    for target in &targets {
        verdicts.notes.extend(target.note.clone());
        let snapshot = bench.snapshot(&target.proxy)?;
        let Some(question) = verdicts.question(case, target, target.port) else { continue };
        let arrived = explain(&snapshot, &question.inbound(target.inbound));
        verdicts.add_hits(&arrived);
        verdicts.compare_arrival(&case.expect, target, &arrived);
    }
    if let Some(target) = targets.first().filter(|target| asks_caller(case, target)) {
        verdicts.outbound(bench, case, target)?;
    }
    verdicts.notes.sort_unstable();
    verdicts.notes.dedup();
    Ok(verdicts)
}

/// Whether the caller's own side has something to say. That of a gateway is asked already.
fn asks_caller(case: &Case, target: &Target) -> bool {
    let Expect { route, subset, .. } = &case.expect;
    target.inbound && (case.from.is_some() || route.is_some() || subset.is_some())
}

impl Verdicts {
    fn question(&mut self, case: &Case, target: &Target, port: u16) -> Option<crate::explain::Question> {
        case.question(&target.host, target.service_port, port)
            .map_err(|wrong| self.impossible("request", "", wrong.to_string()))
            .ok()
    }

    fn impossible(&mut self, field: &'static str, expected: &str, actual: String) {
        let (workload, explanation) = (String::new(), String::new());
        self.failures.push(Failure { workload, field, expected: expected.to_owned(), actual, explanation });
    }

    fn add_hits(&mut self, explanation: &Explanation) {
        let asked = explanation.tokens.iter().chain(&explanation.policies);
        self.hits.extend(asked.filter(|step| step.held).map(|step| step.origin.clone()));
        // A rule that refuses a token does not hold, and decides.
        self.hits.extend(
            explanation
                .decision
                .iter()
                .filter(|decided| decided.clause.is_none())
                .map(|decided| decided.origin.clone()),
        );
    }

    /// What the side of the workload says: decision, who made it, status.
    fn compare_arrival(&mut self, expect: &Expect, target: &Target, found: &Explanation) {
        if target.inbound && expect.decision.is_none() && expect.by.is_none() && expect.status.is_none() {
            return;
        }
        let decided = found.decision.as_ref();
        let refused_anyway = match &found.outcome {
            // Not by a policy: a test that expects `Deny` has not reached what it is about.
            Outcome::Refused { status, why, .. }
                if decided.is_none_or(|decided| decided.verdict == Verdict::Allow) && *status != 503 =>
            {
                Some(format!("not decided: refused with {status}, {why}"))
            }
            _ => None,
        };
        let passed_on = || "not decided: the connection is passed on unopened".to_owned();
        if let Some(expected) = expect.decision {
            let actual = refused_anyway.clone().unwrap_or_else(|| {
                decided.map_or_else(passed_on, |decided| format!("{:?}", decided.verdict))
            });
            self.compare("decision", target, format!("{expected:?}"), actual, found);
        }
        if let Some(expected) = &expect.by {
            let mut all =
                decided.into_iter().flat_map(|decided| std::iter::once(&decided.by).chain(&decided.also));
            // What stands after the object may be left out: the rule, for one.
            let meant = |by: &String| {
                by.strip_prefix(expected.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
            };
            let actual = match all.clone().any(meant) {
                true => expected.clone(),
                false => all.next().cloned().unwrap_or_default(),
            };
            self.compare("by", target, expected.clone(), actual, found);
        }
        if let Some(expected) = expect.status {
            self.compare("status", target, expected.to_string(), status(&found.outcome), found);
        }
        if !target.inbound {
            self.compare_route(expect, target, found);
        }
    }

    /// What the side of the caller says: route and subset.
    fn outbound(&mut self, bench: &Bench<'_>, case: &Case, target: &Target) -> Result<(), String> {
        let namespace = &target.proxy.key.namespace;
        let (from, principal) = (case.from.as_deref(), case.request.principal.as_deref());
        let proxy = match caller(bench.resources(), from, principal, namespace) {
            Ok(proxy) => proxy,
            Err(why) => {
                self.impossible("from", from.unwrap_or_default(), why);
                return Ok(());
            }
        };
        let snapshot = bench.snapshot(&proxy)?;
        let Some(question) = self.question(case, target, target.service_port) else { return Ok(()) };
        // The application calls its own proxy in plain text.
        let left = explain(&snapshot, &question.by_application());
        let from = Target { proxy, inbound: false, note: None, ..target.clone() };
        self.compare_route(&case.expect, &from, &left);
        Ok(())
    }

    fn compare_route(&mut self, expect: &Expect, target: &Target, found: &Explanation) {
        if let Some(expected) = &expect.route {
            let actual = found.route.as_ref().map_or("no route", |route| &route.name).to_owned();
            self.compare("route", target, expected.clone(), actual, found);
        }
        if let Some(expected) = &expect.subset {
            let mut shares: Vec<String> = found
                .destinations
                .iter()
                .filter(|way| way.percent > 0.0)
                .map(|way| subset(&way.cluster).to_owned())
                .collect();
            shares.dedup();
            let actual = match shares.as_slice() {
                [only] => only.clone(),
                [] => "no destination".to_owned(),
                _ => {
                    let share =
                        |way: &crate::explain::Way| format!("{} {} %", subset(&way.cluster), way.percent);
                    found.destinations.iter().map(share).collect::<Vec<_>>().join(", ")
                }
            };
            self.compare("subset", target, expected.clone(), actual, found);
        }
    }

    fn compare(
        &mut self,
        field: &'static str,
        target: &Target,
        expected: String,
        actual: String,
        found: &Explanation,
    ) {
        if expected != actual {
            let explanation = found.to_string().trim_end().to_owned();
            self.failures.push(Failure { workload: target.name(), field, expected, actual, explanation });
        }
    }
}

/// The third part of `outbound|80|v1|cart.shop.svc.cluster.local`.
fn subset(cluster: &str) -> &str {
    cluster.split('|').nth(2).unwrap_or_default()
}

fn status(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Forwarded => "that of the application".to_owned(),
        Outcome::Answered { status, .. } => status.to_string(),
        Outcome::Refused { status: 0, .. } => "none: the connection is closed".to_owned(),
        Outcome::Refused { status, .. } => status.to_string(),
    }
}
