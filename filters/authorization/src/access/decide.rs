//! The pure decision: may this request pass, must its caller step up, or is it refused?

use super::compile::{self, Judge, Terms};
use super::memory::{Memory, Source};
use super::question::{Age, Facts, Span};
use super::refusal::{PolicyRef, Refusal};
use super::risk::Assessment;
use super::settings::{Effect, Policy, Settings};
use crate::attributes::{Attributes, View};
use crate::decide::is_path;
use crate::index::Index;
use crate::rule::{Rule, Sense};
use crate::settings::DestinationPort;
use filter_api::{Keep, Origin, Trace, TraceStep};
use http::HeaderMap;
use smallvec::SmallVec;
use std::fmt;
use std::time::SystemTime;

/// Policies, ready to run.
#[derive(Debug)]
pub struct Compiled {
    port: DestinationPort,
    enforced: Option<Group>,
    /// Decided as if they were in force, and nothing else.
    shadow: Option<Group>,
    revokes: bool,
    /// Whether some policy asks what was seen of sources.
    remembers: bool,
}

/// Policies that are in force together: their rules are tried in one order, and what all of them ask of sessions and permissions has to hold.
#[derive(Debug)]
struct Group {
    judges: Vec<Judge>,
    rules: Vec<Rule>,
    /// Those of the rule at the same place.
    terms: Vec<Terms>,
    requests: Index,
    connections: Index,
}

/// What becomes of a request.
#[derive(Debug)]
pub struct Decision<'c> {
    /// What the policies in force say.
    pub verdict: Verdict<'c>,
    /// What those in shadow would say.
    pub shadow: Option<Verdict<'c>>,
    source: Source,
}

/// Whether a request may pass.
#[derive(Debug)]
pub enum Verdict<'c> {
    /// It may. The rule that says so; `None` when no rule holds and that is enough.
    Allowed(Option<RuleRef<'c>>),
    /// It may not.
    Refused(Refusal<'c>),
}

/// A rule of a policy.
#[derive(Clone, Copy)]
pub struct RuleRef<'c> {
    judge: &'c Judge,
    rule: &'c Rule,
    pub(super) terms: &'c Terms,
}

/// May this request pass? Pure: the layer, `explain`, tests and TCP all ask here. What policies remember of sources is read, and left as it is.
///
/// Session limits come first, then permissions, then rules in the order of policies: the first that holds decides. Where none does, the request
/// passes only if every policy says so.
pub fn decide<'c>(
    compiled: &'c Compiled,
    attributes: &Attributes<'_>,
    now: SystemTime,
    trace: &mut impl Trace,
) -> Decision<'c> {
    let view = View::new(attributes, compiled.port);
    let source = if compiled.remembers {
        Source::new(attributes.connection, view.principal, view.client)
    } else {
        Source::default()
    };
    let tls_version = attributes.connection.tls.as_ref().map(|tls| tls.version);
    let judge = |group: &'c Group, shadow, trace: &mut _| {
        Asked { group, view, source, now, tls_version, shadow }.verdict(trace)
    };
    let shadow = compiled.shadow.as_ref().map(|group| judge(group, true, trace));
    let verdict = match &compiled.enforced {
        Some(group) => judge(group, false, trace),
        None => Verdict::Allowed(None),
    };
    Decision { verdict, shadow, source }
}

impl Compiled {
    /// Compiles policies. The error names the policy and the field, and says what to write instead.
    pub(super) fn new(settings: &Settings, keep: &Keep) -> Result<Self, String> {
        let group = |shadow| Group::new(settings.policies.iter().filter(|one| one.shadow == shadow), keep);
        let (enforced, shadow) = (group(false)?, group(true)?);
        let remembers =
            [&enforced, &shadow].into_iter().flatten().any(|group| group.memories().next().is_some());
        Ok(Self {
            port: settings.destination_port,
            enforced,
            shadow,
            remembers,
            revokes: settings.policies.iter().any(|policy| !policy.shadow && policy.session.revoke_existing),
        })
    }

    /// Whether connections that it does not allow any more are to be closed when it comes into force (`session.revokeExisting`).
    pub fn revokes_existing(&self) -> bool {
        self.revokes
    }

    /// Whether the index finds what trying the rules in their order finds. For tests.
    #[doc(hidden)]
    pub fn is_consistent(&self, attributes: &Attributes<'_>, now: SystemTime) -> bool {
        let of = |trace: &mut Vec<TraceStep>| format!("{:?}", decide(self, attributes, now, trace));
        let listened = of(&mut Vec::new());
        listened == format!("{:?}", decide(self, attributes, now, &mut filter_api::NoTrace))
    }

    /// Remembers what became of a source: who was let in is new no more. Not for questions that nobody sent.
    pub(crate) fn settle(&self, decision: &Decision<'_>, now: SystemTime) {
        let groups = [(&self.enforced, Some(&decision.verdict)), (&self.shadow, decision.shadow.as_ref())];
        for (group, verdict) in groups {
            if let (Some(group), Some(Verdict::Allowed(_))) = (group, verdict) {
                group.memories().for_each(|memory| memory.allow(decision.source, now));
            }
        }
    }

    /// Remembers that a connection was refused.
    pub(crate) fn settle_refused(&self, decision: &Decision<'_>, now: SystemTime) {
        let groups = [&self.enforced, &self.shadow].into_iter().flatten();
        groups.flat_map(Group::memories).for_each(|memory| memory.fail(decision.source, now));
    }
}

impl Group {
    fn new<'p>(policies: impl Iterator<Item = &'p Policy>, keep: &Keep) -> Result<Option<Self>, String> {
        let (mut judges, mut rules, mut terms) = (Vec::new(), Vec::new(), Vec::new());
        for (number, policy) in policies.enumerate() {
            let mut faults = Vec::new();
            let (judge, written) = compile::judge(policy, number, keep, &mut faults);
            if let Some(fault) = faults.first() {
                return Err(format!("{} {} {}; {}", judge.name, fault.field, fault.message, fault.hint));
            }
            judges.push(judge);
            for (rule, own) in written {
                rules.push(rule);
                terms.push(own);
            }
        }
        let (requests, connections) = (Index::new(&rules, true), Index::new(&rules, false));
        Ok((!judges.is_empty()).then_some(Self { judges, rules, terms, requests, connections }))
    }

    fn memories(&self) -> impl Iterator<Item = &Memory> {
        self.judges.iter().filter_map(|judge| judge.risk.memory.as_deref())
    }

    fn refer(&self, at: usize) -> Option<RuleRef<'_>> {
        let rule = self.rules.get(at)?;
        Some(RuleRef { judge: self.judges.get(rule.policy)?, rule, terms: self.terms.get(at)? })
    }

    /// The rules that may hold, in their order.
    fn candidates(&self, view: &View<'_>) -> SmallVec<[u32; 32]> {
        let index = if view.request.is_some() { &self.requests } else { &self.connections };
        let mut found = index.candidates(view);
        found.extend_from_slice(index.linear());
        found.sort_unstable();
        found
    }
}

struct Asked<'c, 'v> {
    group: &'c Group,
    view: View<'v>,
    source: Source,
    now: SystemTime,
    tls_version: Option<&'static str>,
    shadow: bool,
}

impl<'c> Asked<'c, '_> {
    fn verdict(&self, trace: &mut impl Trace) -> Verdict<'c> {
        if !is_path(&self.view) {
            return Verdict::Refused(Refusal::Unjudged(None, "the request target is no path"));
        }
        let mut listening = false;
        trace.step(|| {
            listening = true;
            let (count, words) =
                (self.group.judges.len(), if self.shadow { "in shadow" } else { "in force" });
            let because = match count {
                1 => format!("1 access policy is {words}"),
                _ => format!("{count} access policies are {words}"),
            };
            TraceStep { origin: Origin::BUILT_IN, held: true, because }
        });
        let mut all: SmallVec<[Facts<'_>; 1]> = SmallVec::new();
        for judge in &self.group.judges {
            match self.facts(judge) {
                Ok(facts) => all.push(facts),
                Err(refusal) => {
                    self.say(trace, &judge.origin, false, || refusal.to_string());
                    return Verdict::Refused(refusal);
                }
            }
        }
        // Who listens hears of every rule; otherwise the index leaves out those that cannot hold.
        let tried: SmallVec<[u32; 32]> = if listening {
            (0..).take(self.group.rules.len()).collect()
        } else {
            self.group.candidates(&self.view)
        };
        for at in tried {
            let Some(found) = self.group.refer(at as usize) else { continue };
            let view = View { access: all.get(found.rule.policy), ..self.view };
            let sense = if found.terms.effect == Effect::Allow { Sense::Allows } else { Sense::Objects };
            let acts = found.rule.acts(&view, sense);
            self.say(trace, found.origin(), acts, || format!("{found}: {}", words(found, &view, acts)));
            if acts && found.terms.effect == Effect::Allow {
                return Verdict::Allowed(Some(found));
            } else if acts {
                return Verdict::Refused(Refusal::Rule(found));
            }
        }
        match self.group.judges.iter().find(|judge| !judge.allows_by_default) {
            None => Verdict::Allowed(None),
            Some(judge) => Verdict::Refused(Refusal::NoRule(PolicyRef(judge), self.nearest(&all))),
        }
    }

    /// What is known for the rules of a policy; or why what it asks of every request does not hold.
    fn facts(&self, judge: &'c Judge) -> Result<Facts<'c>, Refusal<'c>> {
        let policy = PolicyRef(judge);
        if judge.closed.is_some() {
            return Err(Refusal::Closed(policy));
        }
        let age = Age::of(&self.view, self.now);
        if let Some(most) = judge.session.max_token_age
            && age != Age::NoToken
            && age.exceeds(most)
        {
            return Err(Refusal::TokenAge { policy, most, age: age.to_string() });
        }
        if let Some(most) = judge.session.max_certificate_age
            && let Some(since) = self.view.valid_since
        {
            // One that is not valid yet is as young as can be; the handshake has looked at that.
            let age = self.now.duration_since(since).unwrap_or_default();
            if age > most {
                return Err(Refusal::CertificateAge { policy, most, age: Span(age).to_string() });
            }
        }
        let risk = if judge.asks_risk {
            let risk = judge.risk.assess(&self.view, self.source, self.now);
            risk.map_err(|why| Refusal::Unjudged(Some(policy), why))?
        } else {
            Assessment::default()
        };
        let granted = judge.grants.of(&self.view);
        if granted.is_missing() {
            return Err(Refusal::Permission { policy, needed: granted.needed() });
        }
        Ok(Facts { now: self.now, tls_version: self.tls_version, age, risk, granted })
    }

    fn say(&self, trace: &mut impl Trace, origin: &Origin, held: bool, because: impl FnOnce() -> String) {
        trace.step(|| {
            let words = if self.shadow { "in shadow: " } else { "" };
            TraceStep { origin: origin.clone(), held, because: format!("{words}{}", because()) }
        });
    }

    /// Of ALLOW rules that do not hold the one that comes nearest to it.
    fn nearest(&self, all: &[Facts<'_>]) -> Option<Nearest<'c>> {
        const OF: usize = 16;
        let rules = (0..self.group.rules.len()).filter_map(|at| self.group.refer(at));
        let near = rules.filter(|rule| rule.terms.effect == Effect::Allow).take(OF).filter_map(|found| {
            let view = View { access: all.get(found.rule.policy), ..self.view };
            let (failing, clause) = found.rule.distance(&view);
            clause.map(|clause| (failing, found, clause, view))
        });
        let (_, rule, clause, view) = near.min_by_key(|(failing, ..)| *failing)?;
        let (expected, actual) = (clause.expected(), clause.actual(&view));
        Some(Nearest { rule, clause: &clause.key, expected, actual })
    }
}

/// A rule that did not hold.
#[derive(Debug)]
pub struct Nearest<'c> {
    /// The rule.
    pub rule: RuleRef<'c>,
    /// Its first clause that does not hold: `when request.time`.
    pub clause: &'c str,
    /// What the clause asks for.
    pub expected: String,
    /// What was there; of headers and claims no more than their length.
    pub actual: String,
}

fn words(found: RuleRef<'_>, view: &View<'_>, acts: bool) -> String {
    match found.rule.distance(view) {
        (_, Some(clause)) if !acts => {
            format!("{} is {}, not {}", clause.key, clause.actual(view), clause.expected())
        }
        (_, Some(clause)) => format!("{} cannot be told, so it counts as holding", clause.key),
        (_, None) => "holds".to_owned(),
    }
}

impl<'c> RuleRef<'c> {
    /// `namespace/name` of its policy.
    pub fn policy(&self) -> &'c str {
        &self.judge.name
    }

    /// Its place in the policy, from 0.
    pub fn number(&self) -> usize {
        self.rule.number
    }

    /// Its name; may be empty.
    pub fn name(&self) -> &'c str {
        &self.terms.name
    }

    /// What it decides.
    pub fn effect(&self) -> Effect {
        self.terms.effect
    }

    /// Where it was written.
    pub fn origin(&self) -> &'c Origin {
        let own = &self.rule.origin;
        if own.object_name().is_some() { own } else { &self.judge.origin }
    }

    /// Writes its headers, in place of others of these names.
    pub fn add_headers(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.terms.headers {
            headers.insert(name, value.clone());
        }
    }

    pub(super) fn policy_ref(&self) -> PolicyRef<'c> {
        PolicyRef(self.judge)
    }
}

impl fmt::Display for RuleRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccessPolicy {} rule {}", self.judge.name, self.rule.number)?;
        if self.terms.name.is_empty() { Ok(()) } else { write!(f, " ({})", self.terms.name) }
    }
}

impl fmt::Debug for RuleRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
