//! Says each finding once: when it is new, not with every load.

use crate::config::finding::{Finding, Severity};
use crate::snapshot::Problem;
use rustc_hash::FxHashSet;
use std::hash::{BuildHasher, BuildHasherDefault, Hash};

/// What the log has said of the configuration, as far as it still holds.
#[derive(Debug, Default)]
pub(super) struct Said(FxHashSet<u64>);

impl Said {
    /// Logs what is new in a configuration that came into force, and how much of what was said holds no more.
    pub(super) fn update(&mut self, findings: &[Finding], problems: &[Problem]) {
        let known = std::mem::take(&mut self.0);
        findings.iter().filter(|finding| self.is_new(&known, finding)).for_each(log);
        for problem in problems {
            if self.note(problem.message.as_str()) && !known.contains(&hash(problem.message.as_str())) {
                tracing::error!("{problem}");
            }
        }
        let resolved = known.difference(&self.0).count();
        if resolved > 0 {
            tracing::info!(resolved, left = self.0.len(), "findings of the configuration are resolved");
        }
    }

    /// Logs what is new of a configuration that did not come into force. Nothing is resolved by it.
    pub(super) fn add<'a>(&mut self, findings: impl Iterator<Item = &'a Finding>) {
        let none = FxHashSet::default();
        findings.filter(|finding| self.is_new(&none, finding)).for_each(log);
    }

    fn is_new(&mut self, known: &FxHashSet<u64>, finding: &Finding) -> bool {
        let key = key(finding);
        self.note(key) && !known.contains(&hash(key))
    }

    /// False when it has been noted before.
    fn note(&mut self, key: impl Hash) -> bool {
        self.0.insert(hash(key))
    }
}

/// What makes a finding the same one after lines were moved.
fn key(finding: &Finding) -> impl Hash + Copy {
    (finding.severity, finding.code, finding.object.as_ref(), &finding.field, &finding.message)
}

fn hash(key: impl Hash) -> u64 {
    BuildHasherDefault::<rustc_hash::FxHasher>::default().hash_one(key)
}

fn log(finding: &Finding) {
    let line = finding.line();
    match finding.severity {
        Severity::Error => tracing::error!("{line}"),
        Severity::Warning => tracing::warn!("{line}"),
        Severity::Info => tracing::debug!("{line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(message: &str) -> Finding {
        Finding {
            severity: Severity::Warning,
            code: "test",
            object: None,
            field: String::new(),
            place: None,
            message: message.to_owned(),
            hint: String::new(),
        }
    }

    /// The messages that an update would log.
    fn new(said: &mut Said, messages: &[&str]) -> Vec<String> {
        let known = said.0.clone();
        let findings: Vec<_> = messages.iter().map(|message| finding(message)).collect();
        let mut now = Said::default();
        let new = findings.iter().filter(|finding| now.is_new(&known, finding));
        let new = new.map(|finding| finding.message.clone()).collect();
        said.update(&findings, &[]);
        assert_eq!(said.0, now.0);
        new
    }

    #[test]
    fn a_finding_is_said_once_and_again_after_it_was_resolved() {
        let mut said = Said::default();
        assert_eq!(new(&mut said, &["a", "b", "a"]), ["a", "b"]);
        assert_eq!(new(&mut said, &["b", "c"]), ["c"]);
        assert_eq!(new(&mut said, &["a", "b", "c"]), ["a"]);
        assert_eq!(new(&mut said, &[]), [""; 0]);
    }

    #[test]
    fn a_refused_update_resolves_nothing() {
        let mut said = Said::default();
        said.update(&[finding("a")], &[]);
        said.add([finding("gone")].iter());
        assert_eq!(said.0.len(), 2);
        assert_eq!(new(&mut said, &["a"]), [""; 0]);
        assert_eq!(said.0.len(), 1);
    }
}
