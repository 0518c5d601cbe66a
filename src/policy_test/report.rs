//! What a run tells.

use super::coverage::Coverage;
use super::file::Case;
use super::judge::{Failure, Verdicts};
use super::mutate::Mutations;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;

/// What a run tells.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The tests in their order.
    pub tests: Vec<Told>,
    /// Which rules they reach.
    pub coverage: Coverage,
    /// What could be left out; `None` when that was not asked, or a test fails.
    pub mutations: Option<Mutations>,
}

/// What is told of a test.
#[derive(Clone, Debug, Serialize)]
pub struct Told {
    /// Its name.
    pub name: String,
    /// File, line and column.
    pub place: String,
    /// The file.
    pub file: String,
    /// What is not as expected; none: it passes.
    pub failures: Vec<Failure>,
    /// What was taken for granted.
    pub notes: Vec<String>,
}

impl Told {
    pub(super) fn new(case: &Case, verdicts: Verdicts) -> Self {
        Self {
            name: case.name.clone(),
            place: case.place.to_string(),
            file: case.place.file.display().to_string(),
            failures: verdicts.failures,
            notes: verdicts.notes,
        }
    }
}

impl Report {
    /// How many tests fail.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.tests.iter().filter(|test| !test.failures.is_empty()).count()
    }

    /// Whether every rule is reached, and nothing could be left out.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let nothing_left =
            |found: &Mutations| found.survivors.is_empty() && found.tried + found.invalid == found.of;
        self.coverage.missed().next().is_none() && self.mutations.as_ref().is_none_or(nothing_left)
    }
}

/// One line for each test; of one that fails what was expected, what is, and why. Then what no test reaches or holds on to.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for test in &self.tests {
            let word = if test.failures.is_empty() { "ok" } else { "FAIL" };
            writeln!(f, "{word:<5} {}", test.name)?;
            for failure in &test.failures {
                let of = if failure.workload.is_empty() { "" } else { " of " };
                writeln!(f, "      {}{of}{} ({})", failure.field, failure.workload, test.place)?;
                writeln!(f, "        expected: {}", failure.expected)?;
                writeln!(f, "        actual:   {}", failure.actual)?;
                for line in failure.explanation.lines() {
                    writeln!(f, "        | {line}")?;
                }
            }
        }
        let (rules, hit) = (self.coverage.rules.len(), self.coverage.hit());
        writeln!(f)?;
        // Tests of one workload say the same.
        let notes: BTreeSet<&String> = self.tests.iter().flat_map(|test| &test.notes).collect();
        for note in notes {
            writeln!(f, "note: {note}")?;
        }
        for rule in self.coverage.missed() {
            writeln!(f, "never reached: {} ({})", rule.rule, rule.place)?;
        }
        if let Some(found) = &self.mutations {
            for survivor in &found.survivors {
                writeln!(f, "can be left out, and no test fails: {} ({})", survivor.what, survivor.place)?;
            }
        }
        let failed = self.failed();
        write!(f, "{} tests, {failed} failed; {hit} of {rules} rules reached", self.tests.len())?;
        match &self.mutations {
            Some(found) => {
                write!(
                    f,
                    "; {} of {} things left out one by one, {} unnoticed",
                    found.tried,
                    found.of,
                    found.survivors.len()
                )
            }
            None => Ok(()),
        }
    }
}
