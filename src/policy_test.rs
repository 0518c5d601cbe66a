//! Unit tests of policies: files beside the policies that say what has to become of a request. `sidegate test` runs them.
//!
//! Whatever is asked is asked of the production engine ([`explain`](crate::explain)): the configuration is translated and compiled for the very
//! workload that is called, nothing is sent. Besides its tests a run tells which rules no test reaches ([`Coverage`]), and which rules and
//! conditions could be left out without any test failing ([`Mutations`]).

mod bench;
mod coverage;
mod file;
mod judge;
mod junit;
mod mutate;
mod report;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;

mod workload;

pub use bench::Bench;
pub use coverage::{Coverage, Covered};
pub use file::{Case, Expect, Request, read};
pub use judge::{Failure, Verdicts};
pub use junit::junit;
pub use mutate::{Bound, Mutations, Survivor};
pub use report::{Report, Told};
pub use workload::{Target, caller, targets};

use crate::config::resources::Resource;
use std::sync::Arc;
use std::time::SystemTime;

/// Runs test cases against a configuration. `jwks` are the texts of key sets that stand for those that would be fetched.
///
/// # Errors
///
/// When one of the key sets is of no use.
pub fn run(
    resources: &[Arc<Resource>],
    cases: &[Case],
    jwks: &[String],
    mutations: Option<Bound>,
) -> Result<Report, String> {
    let latest = cases.iter().filter_map(Case::time).max();
    let bench = Bench::new(resources, jwks, latest.unwrap_or_else(SystemTime::now));
    let verdicts: Vec<Verdicts> =
        cases.iter().map(|case| judge::judge(&bench, case)).collect::<Result<_, _>>()?;
    let coverage = Coverage::new(resources, verdicts.iter().flat_map(|verdicts| &verdicts.hits));
    // What fails already cannot tell one more failure.
    let all_pass = verdicts.iter().all(|verdicts| verdicts.failures.is_empty());
    let mutations = match mutations.filter(|_| all_pass) {
        Some(bound) => Some(mutate::mutate(&bench, cases, bound)?),
        None => None,
    };
    let tests = cases.iter().zip(verdicts).map(|(case, verdicts)| Told::new(case, verdicts)).collect();
    Ok(Report { tests, coverage, mutations })
}
