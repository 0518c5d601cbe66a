//! Why a request may not pass, in words and in the forms that logs and clients know.

use super::compile::Judge;
use super::decide::{Nearest, RuleRef};
use super::question::Span;
use super::settings::Effect;
use filter_api::{FailedClause, Origin};
use std::fmt;
use std::time::Duration;

/// Why a request may not pass.
#[derive(Debug)]
pub enum Refusal<'c> {
    /// A rule that denies or asks for more holds.
    Rule(RuleRef<'c>),
    /// No rule holds, and this policy does not allow by default. The rule that came nearest.
    NoRule(PolicyRef<'c>, Option<Nearest<'c>>),
    /// The policy could not be read.
    Closed(PolicyRef<'c>),
    /// The token was issued too long ago, or does not say when.
    TokenAge {
        /// Who says so.
        policy: PolicyRef<'c>,
        /// The most.
        most: Duration,
        /// What it is.
        age: String,
    },
    /// The certificate of the peer became valid too long ago.
    CertificateAge {
        /// Who says so.
        policy: PolicyRef<'c>,
        /// The most.
        most: Duration,
        /// What it is.
        age: String,
    },
    /// The request needs a permission that its caller does not hold.
    Permission {
        /// Who says so.
        policy: PolicyRef<'c>,
        /// The permissions of which one would do.
        needed: String,
    },
    /// It cannot be judged; why.
    Unjudged(Option<PolicyRef<'c>>, &'static str),
}

/// A policy.
#[derive(Clone, Copy)]
pub struct PolicyRef<'c>(pub(super) &'c Judge);

impl<'c> PolicyRef<'c> {
    /// `namespace/name`
    pub fn name(&self) -> &'c str {
        &self.0.name
    }

    /// Where it was written.
    pub fn origin(&self) -> &'c Origin {
        &self.0.origin
    }
}

impl<'c> Refusal<'c> {
    /// Whether stronger or fresher authentication would help: 401 and a challenge, not 403.
    pub fn is_step_up(&self) -> bool {
        match self {
            Self::Rule(rule) => rule.effect() == Effect::StepUp,
            Self::TokenAge { .. } => true,
            _ => false,
        }
    }

    /// How old a token may be, where that is why.
    pub fn max_age(&self) -> Option<Duration> {
        if let Self::TokenAge { most, .. } = self { Some(*most) } else { None }
    }

    /// The policy that refuses; `None` where nothing could be judged at all.
    pub fn policy(&self) -> Option<PolicyRef<'c>> {
        match self {
            Self::Rule(rule) => Some(rule.policy_ref()),
            Self::NoRule(_, Some(nearest)) => Some(nearest.rule.policy_ref()),
            Self::NoRule(policy, None) | Self::Closed(policy) => Some(*policy),
            Self::TokenAge { policy, .. } | Self::CertificateAge { policy, .. } => Some(*policy),
            Self::Permission { policy, .. } => Some(*policy),
            Self::Unjudged(policy, _) => *policy,
        }
    }

    /// The rule that refuses; where none holds, the one that came nearest.
    pub fn rule(&self) -> Option<RuleRef<'c>> {
        match self {
            Self::Rule(rule) => Some(*rule),
            Self::NoRule(_, Some(nearest)) => Some(nearest.rule),
            _ => None,
        }
    }

    /// Where that was written.
    pub fn origin(&self) -> Origin {
        let policy = || self.policy().map_or(Origin::BUILT_IN, |policy| policy.origin().clone());
        self.rule().map_or_else(policy, |rule| rule.origin().clone())
    }

    /// What would have had to hold, and what was there.
    pub fn failed(&self) -> Option<FailedClause> {
        let clause = |key: &str, expected: String, actual: &str| FailedClause {
            key: key.into(),
            expected: expected.into(),
            actual: actual.into(),
        };
        match self {
            Self::NoRule(_, Some(nearest)) => {
                Some(clause(nearest.clause, nearest.expected.clone(), &nearest.actual))
            }
            Self::TokenAge { most, age, .. } => {
                Some(clause("session.maxTokenAge", format!("at most {}", Span(*most)), age))
            }
            Self::CertificateAge { most, age, .. } => {
                Some(clause("session.maxCertificateAge", format!("at most {}", Span(*most)), age))
            }
            Self::Permission { needed, .. } => {
                Some(clause("permissions", needed.clone(), "no role that gives it"))
            }
            _ => None,
        }
    }

    /// For `response_code_details` of the log.
    pub fn details(&self) -> String {
        let what = if self.is_step_up() { "access_step_up" } else { "access_denied" };
        match (self.policy(), self) {
            (Some(policy), Self::Rule(rule)) => format!("{what}[{}-rule[{}]]", policy.name(), rule.number()),
            (Some(policy), _) => format!("{what}[{}]", policy.name()),
            (None, _) => format!("{what}[none]"),
        }
    }
}

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(rule) if rule.effect() == Effect::StepUp => {
                write!(f, "denied: {rule} asks for stronger authentication")
            }
            Self::Rule(rule) => write!(f, "denied by {rule}"),
            Self::NoRule(policy, None) => {
                write!(f, "denied: {policy} has no rule that could allow it")
            }
            Self::NoRule(_, Some(nearest)) => {
                let Nearest { rule, clause, expected, actual } = nearest;
                write!(
                    f,
                    "denied: no rule holds; nearest is {rule}, where {clause} is {actual}, not {expected}"
                )
            }
            Self::Closed(policy) => {
                let why = policy.0.closed.as_deref().unwrap_or_default();
                write!(f, "denied: {policy} does not hold ({why}), so its scope is closed")
            }
            Self::TokenAge { policy, most, age } => {
                write!(f, "denied: {policy} wants tokens of at most {}; there is {age}", Span(*most))
            }
            Self::CertificateAge { policy, most, age } => {
                write!(
                    f,
                    "denied: {policy} wants certificates of at most {}; there is one of {age}",
                    Span(*most)
                )
            }
            Self::Permission { policy, needed } => {
                write!(f, "denied: {policy} wants permission {needed}, and no role of the caller gives it")
            }
            Self::Unjudged(None, why) => write!(f, "denied: it cannot be judged, {why}"),
            Self::Unjudged(Some(policy), why) => write!(f, "denied: {policy} cannot judge it, {why}"),
        }
    }
}

impl fmt::Display for PolicyRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccessPolicy {}", self.0.name)
    }
}

impl fmt::Debug for PolicyRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
