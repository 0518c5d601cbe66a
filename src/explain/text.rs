//! An explanation for people: one line for each stage, what was written where on the right.

use super::{Decided, Explanation, Outcome, Way};
use std::fmt;

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.request)?;
        if let Some(listener) = &self.listener {
            line(f, "listener", &listener.name, &listener.origin)?;
        }
        for note in &self.notes {
            line(f, "NOTE", note, "")?;
        }
        for change in &self.canonical {
            line(f, "head", change, "")?;
        }
        for rule in &self.tokens {
            line(f, if rule.held { "token yes" } else { "token no" }, &rule.because, &rule.origin)?;
        }
        for rule in &self.policies {
            line(f, if rule.held { "yes" } else { "no" }, &rule.because, &rule.origin)?;
        }
        if let Some(decision) = &self.decision {
            decided(f, decision)?;
        }
        if let Some(table) = &self.table {
            line(f, "table", table, "")?;
        }
        for rule in &self.rules {
            line(f, if rule.held { "yes" } else { "no" }, &rule.because, &rule.origin)?;
        }
        for way in &self.destinations {
            writeln!(f)?;
            self.way(f, way)?;
        }
        writeln!(f)?;
        outcome(f, &self.outcome)
    }
}

impl Explanation {
    fn way(&self, f: &mut fmt::Formatter<'_>, way: &Way) -> fmt::Result {
        let cluster = if way.cluster.is_empty() { "answered by the rule" } else { &way.cluster };
        line(f, "to", &format!("{} %  {cluster}", (way.percent * 10.0).round() / 10.0), &way.origin)?;
        for change in &way.changes {
            line(f, "  change", &change.because, &change.origin)?;
        }
        if !way.timeouts.is_empty() {
            line(f, "  timeouts", &way.timeouts.join(", "), "")?;
        }
        if let Some(balance) = &way.balance {
            line(f, "  endpoint", balance, "")?;
        }
        for endpoint in &way.endpoints {
            let health = format!("{:?}", endpoint.health).to_lowercase();
            let text =
                format!("{}  weight {}  {health}  {}", endpoint.address, endpoint.weight, endpoint.workload);
            line(f, "", &text, &endpoint.origin)?;
        }
        // The outcome of a single way is that of the request.
        if self.destinations.len() > 1 { outcome(f, &way.outcome) } else { Ok(()) }
    }
}

fn decided(f: &mut fmt::Formatter<'_>, decided: &Decided) -> fmt::Result {
    // Where there are no policies nobody decided anything.
    if decided.by.is_empty() {
        return Ok(());
    }
    line(f, "decision", &format!("{:?}: {}", decided.verdict, decided.by), &decided.origin)?;
    let Some(clause) = &decided.clause else { return Ok(()) };
    line(f, "  nearest", &clause.rule, "")?;
    line(f, "  clause", &clause.key, "")?;
    line(f, "  expected", &clause.expected, "")?;
    line(f, "  actual", &clause.actual, "")
}

fn outcome(f: &mut fmt::Formatter<'_>, outcome: &Outcome) -> fmt::Result {
    match outcome {
        Outcome::Forwarded => line(f, "outcome", "forwarded", ""),
        Outcome::Answered { status, location: Some(location) } => {
            line(f, "outcome", &format!("redirected: {status} to {location}"), "")
        }
        Outcome::Answered { status, location: None } => {
            line(f, "outcome", &format!("answered here: {status}"), "")
        }
        Outcome::Refused { status, flag, why, hint } => {
            let answer = if *status == 0 { "closed".to_owned() } else { status.to_string() };
            line(f, "outcome", &format!("refused: {answer} {flag}: {why}"), "")?;
            if hint.is_empty() { Ok(()) } else { line(f, "hint", hint, "") }
        }
    }
}

fn line(f: &mut fmt::Formatter<'_>, label: &str, text: &str, origin: &str) -> fmt::Result {
    writeln!(f, "{}", format!("{label:<11} {text}").trim_end())?;
    if origin.is_empty() { Ok(()) } else { writeln!(f, "{:<11}   {origin}", "") }
}
