//! The pure decision: may this request pass?

use crate::attributes::{Attributes, View};
use crate::compile::{self, Fault};
use crate::custom::{Ask, Asker, Terms};
use crate::engine::Engine;
use crate::rule::{Rule, Sense};
use crate::settings::{Action, DestinationPort, Policy, Settings};
use filter_api::{Keep, Origin, Trace, TraceStep};
use smallvec::SmallVec;
use std::fmt;

/// Policies, ready to run.
#[derive(Debug)]
pub struct Compiled {
    policies: Vec<Named>,
    port: DestinationPort,
    custom: Option<Engine>,
    /// Who is asked where a CUSTOM rule holds; else why nobody can be.
    asker: Result<Asker, Box<str>>,
    deny: Option<Engine>,
    allow: Option<Engine>,
    audit: Option<Engine>,
    shadow_deny: Option<Engine>,
    shadow_allow: Option<Engine>,
    shadow_custom: Option<Engine>,
}

/// What is told of a policy.
#[derive(Debug)]
struct Named {
    origin: Origin,
    /// `namespace/name`.
    name: Box<str>,
    /// `ns[NAMESPACE]-policy[NAME]`, as Istio names policies to Envoy.
    envoy_name: Box<str>,
    /// The provider of a CUSTOM policy.
    provider: Option<Box<str>>,
    terms: Terms,
    closed: Option<Box<str>>,
}

/// What becomes of a request.
#[derive(Debug)]
pub struct Decision<'c> {
    /// Whether it may pass.
    pub outcome: Outcome<'c>,
    /// The AUDIT rule that holds, whatever the outcome.
    pub audited: Option<RuleRef<'c>>,
    /// What the policies on trial would have done.
    pub shadows: SmallVec<[Shadow<'c>; 2]>,
}

/// Whether a request may pass.
#[derive(Debug)]
pub enum Outcome<'c> {
    /// It may. The ALLOW rule that says so; `None` when there are no ALLOW policies.
    Allowed(Option<RuleRef<'c>>),
    /// A provider has to be asked. If it allows, [`decide_after`] says the rest.
    Ask(Ask<'c>),
    /// It may not.
    Denied(Denial<'c>),
}

/// Why a request may not pass.
#[derive(Debug)]
pub enum Denial<'c> {
    /// A DENY rule holds.
    Rule(RuleRef<'c>),
    /// A CUSTOM rule holds, whose provider cannot be asked; why.
    Custom(RuleRef<'c>, &'c str),
    /// There are ALLOW policies, and no rule of them holds. The rule that came nearest.
    NoRule(Option<Nearest<'c>>),
    /// It cannot be judged; why.
    Unjudged(&'static str),
}

/// A rule that did not hold.
#[derive(Debug)]
pub struct Nearest<'c> {
    /// The rule.
    pub rule: RuleRef<'c>,
    /// Its first clause that does not hold: `from.source.principals`.
    pub clause: &'c str,
    /// What the clause asks for.
    pub expected: String,
    /// What was there; of headers and claims no more than their length.
    pub actual: String,
}

/// Which policies on trial a shadow is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShadowOf {
    /// ALLOW policies.
    Allow,
    /// DENY policies.
    Deny,
    /// CUSTOM policies. Their provider is not asked: it would delay requests.
    Custom,
}

/// What a policy on trial (`istio.io/dry-run`) would have done.
#[derive(Debug)]
pub struct Shadow<'c> {
    /// Of which policies: ALLOW, DENY or CUSTOM.
    pub of: ShadowOf,
    /// The rule that holds.
    pub rule: Option<RuleRef<'c>>,
}

/// A rule of a policy.
#[derive(Clone, Copy)]
pub struct RuleRef<'c> {
    policy: &'c Named,
    rule: &'c Rule,
}

/// May this request pass? Pure: the layer, `explain`, tests and TCP all ask here.
///
/// Order of Istio: CUSTOM, DENY, ALLOW. Without ALLOW policies everything else passes. AUDIT and policies on trial change nothing.
pub fn decide<'c>(
    compiled: &'c Compiled,
    attributes: &Attributes<'_>,
    trace: &mut impl Trace,
) -> Decision<'c> {
    let view = View::new(attributes, compiled.port);
    let listening = listens(trace, || match compiled.policies.len() {
        1 => "1 authorization policy is in force".to_owned(),
        count => format!("{count} authorization policies are in force"),
    });
    let mut asked = Asked { compiled, view: &view, listening };
    let audited = asked.first(compiled.audit.as_ref(), "AUDIT", trace);
    let mut shadows = SmallVec::new();
    for (engine, words, of) in [
        (&compiled.shadow_custom, "dry-run CUSTOM", ShadowOf::Custom),
        (&compiled.shadow_deny, "dry-run DENY", ShadowOf::Deny),
        (&compiled.shadow_allow, "dry-run ALLOW", ShadowOf::Allow),
    ] {
        if engine.is_some() {
            shadows.push(Shadow { of, rule: asked.first(engine.as_ref(), words, trace) });
        }
    }
    Decision { outcome: asked.outcome(trace), audited, shadows }
}

/// The same once the provider allows: what DENY and ALLOW policies say of the request as the provider left it. Never an [`Outcome::Ask`].
pub fn decide_after<'c>(
    compiled: &'c Compiled,
    attributes: &Attributes<'_>,
    trace: &mut impl Trace,
) -> Outcome<'c> {
    let view = View::new(attributes, compiled.port);
    let listening = listens(trace, || "if the provider lets it pass:".to_owned());
    let mut asked = Asked { compiled, view: &view, listening };
    asked.after_custom(trace)
}

struct Asked<'c, 'v> {
    compiled: &'c Compiled,
    view: &'v View<'v>,
    listening: bool,
}

/// The first step of a trace; tells whether somebody listens.
fn listens(trace: &mut impl Trace, because: impl FnOnce() -> String) -> bool {
    let mut listening = false;
    trace.step(|| {
        listening = true;
        TraceStep { origin: Origin::BUILT_IN, held: true, because: because() }
    });
    listening
}

impl<'c> Asked<'c, '_> {
    fn outcome(&mut self, trace: &mut impl Trace) -> Outcome<'c> {
        // What canonicalises targets lets no other form come here. If one did, no rule about paths could tell anything of it.
        if !is_path(self.view) {
            return Outcome::Denied(Denial::Unjudged("the request target is no path"));
        }
        if let Some(rule) = self.first(self.compiled.custom.as_ref(), "CUSTOM", trace) {
            return self.custom(rule);
        }
        self.after_custom(trace)
    }

    fn custom(&self, rule: RuleRef<'c>) -> Outcome<'c> {
        match &self.compiled.asker {
            _ if self.view.request.is_none() => {
                Outcome::Denied(Denial::Custom(rule, "providers are asked about requests of HTTP alone"))
            }
            Ok(asker) => Outcome::Ask(Ask { rule, asker, terms: &rule.policy.terms }),
            Err(why) => Outcome::Denied(Denial::Custom(rule, why)),
        }
    }

    fn after_custom(&mut self, trace: &mut impl Trace) -> Outcome<'c> {
        if let Some(rule) = self.first(self.compiled.deny.as_ref(), "DENY", trace) {
            return Outcome::Denied(Denial::Rule(rule));
        }
        let Some(allow) = &self.compiled.allow else { return Outcome::Allowed(None) };
        match self.first(Some(allow), "ALLOW", trace) {
            Some(rule) => Outcome::Allowed(Some(rule)),
            None => Outcome::Denied(Denial::NoRule(self.nearest(allow))),
        }
    }

    /// The first rule that acts. Who listens hears of every rule that was asked.
    fn first(&self, engine: Option<&'c Engine>, words: &str, trace: &mut impl Trace) -> Option<RuleRef<'c>> {
        let engine = engine?;
        if !self.listening {
            return engine.first(self.view).and_then(|rule| self.compiled.refer(rule));
        }
        for rule in engine.rules() {
            let Some(found) = self.compiled.refer(rule) else { continue };
            let acts = engine.acts(rule, self.view);
            trace.step(|| TraceStep {
                origin: found.origin().clone(),
                held: acts,
                because: format!("{words} {found}: {}", self.words(rule, acts)),
            });
            if acts {
                return Some(found);
            }
        }
        None
    }

    fn words(&self, rule: &Rule, acts: bool) -> String {
        match rule.distance(self.view) {
            (_, Some(clause)) if !acts => {
                let (expected, actual) = (clause.expected(), clause.actual(self.view));
                format!("{} is {actual}, not {expected}", clause.key)
            }
            (_, Some(clause)) => format!("{} cannot be told, so it counts as holding", clause.key),
            (_, None) => "holds".to_owned(),
        }
    }

    fn nearest(&self, engine: &'c Engine) -> Option<Nearest<'c>> {
        let (rule, clause) = engine.nearest(self.view)?;
        let clause = clause?;
        Some(Nearest {
            rule: self.compiled.refer(rule)?,
            clause: &clause.key,
            expected: clause.expected(),
            actual: clause.actual(self.view),
        })
    }
}

/// Whether the target is one that rules about paths can be asked of: a path, `*`, or the authority of CONNECT.
pub(crate) fn is_path(view: &View<'_>) -> bool {
    match view.path() {
        "" => view.request.is_none_or(|request| request.head.method == http::Method::CONNECT),
        path => path.starts_with('/') || path == "*",
    }
}

impl Compiled {
    /// Compiles policies. The error names the policy and the field, and says what to write instead.
    pub(crate) fn new(settings: &Settings, keep: &Keep) -> Result<Self, String> {
        let mut faults = Vec::new();
        let mut rules: [Option<Vec<Rule>>; 7] = Default::default();
        let [custom, deny, allow, audit, shadow_deny, shadow_allow, shadow_custom] = &mut rules;
        for (number, policy) in settings.policies.iter().enumerate() {
            let compiled = compile::rules(policy, number, &mut faults);
            if let Some(Fault { field, message, hint }) = faults.first() {
                return Err(format!("{}/{} {field} {message}; {hint}", policy.namespace, policy.name));
            }
            let group = match (&policy.action, policy.dry_run) {
                (Action::Allow, false) => &mut *allow,
                (Action::Allow, true) => &mut *shadow_allow,
                (Action::Deny, false) => &mut *deny,
                (Action::Deny, true) => &mut *shadow_deny,
                (Action::Custom { .. }, true) => &mut *shadow_custom,
                (Action::Custom { .. }, false) => &mut *custom,
                (Action::Audit, _) => &mut *audit,
            };
            group.get_or_insert_default().extend(compiled);
        }
        let [custom, deny, allow, audit, shadow_deny, shadow_allow, shadow_custom] = rules;
        let objects = |rules: Option<Vec<Rule>>| rules.map(|rules| Engine::new(rules, Sense::Objects));
        let allows = |rules: Option<Vec<Rule>>| rules.map(|rules| Engine::new(rules, Sense::Allows));
        Ok(Self {
            policies: settings.policies.iter().map(|policy| Named::new(policy, settings, keep)).collect(),
            asker: Asker::of(settings, keep),
            port: settings.destination_port,
            custom: objects(custom),
            deny: objects(deny),
            allow: allows(allow),
            audit: objects(audit),
            shadow_deny: objects(shadow_deny),
            shadow_allow: allows(shadow_allow),
            shadow_custom: objects(shadow_custom),
        })
    }

    /// How many rules are tried for every request, because no identity, namespace, path or method tells them apart: those about headers,
    /// addresses, hosts or claims alone, and those that only exclude.
    pub fn linear_rules(&self) -> usize {
        self.engines().map(Engine::linear).sum()
    }

    /// The number of all rules.
    pub fn rules(&self) -> usize {
        self.engines().map(|engine| engine.rules().len()).sum()
    }

    /// Whether every index finds what trying the rules in their order finds. For tests.
    #[doc(hidden)]
    pub fn is_consistent(&self, attributes: &Attributes<'_>) -> bool {
        let view = View::new(attributes, self.port);
        let same = |one: Option<&Rule>, other: Option<&Rule>| match (one, other) {
            (Some(one), Some(other)) => std::ptr::eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        self.engines().all(|engine| same(engine.first(&view), engine.first_in_order(&view)))
    }

    fn engines(&self) -> impl Iterator<Item = &Engine> {
        let shadows = [&self.shadow_deny, &self.shadow_allow, &self.shadow_custom];
        [&self.custom, &self.deny, &self.allow, &self.audit].into_iter().chain(shadows).flatten()
    }

    fn refer<'c>(&'c self, rule: &'c Rule) -> Option<RuleRef<'c>> {
        Some(RuleRef { policy: self.policies.get(rule.policy)?, rule })
    }
}

impl Named {
    fn new(policy: &Policy, settings: &Settings, keep: &Keep) -> Self {
        let (namespace, name) = (&policy.namespace, &policy.name);
        Self {
            origin: policy.origin.clone(),
            name: format!("{namespace}/{name}").into(),
            envoy_name: format!("ns[{namespace}]-policy[{name}]").into(),
            provider: match &policy.action {
                Action::Custom { provider, .. } => Some(provider.as_str().into()),
                _ => None,
            },
            terms: Terms::new(&policy.action, settings, keep),
            closed: policy.closed.as_deref().map(Into::into),
        }
    }
}

impl<'c> RuleRef<'c> {
    /// `namespace/name` of its policy.
    pub fn policy(&self) -> &'c str {
        &self.policy.name
    }

    /// Its place in the policy, from 0.
    pub fn number(&self) -> usize {
        self.rule.number
    }

    /// Where it was written.
    pub fn origin(&self) -> &'c Origin {
        let policy = &self.policy.origin;
        if self.rule.origin.object_name().is_some() { &self.rule.origin } else { policy }
    }

    /// Why its policy refuses everything, where it stands for one that could not be read.
    pub fn closed(&self) -> Option<&'c str> {
        self.policy.closed.as_deref()
    }

    /// Its name in Envoy's configuration, which logs and dashboards know: `ns[shop]-policy[cart]-rule[0]`.
    pub fn envoy_name(&self) -> String {
        let (policy, number) = (&self.policy.envoy_name, self.rule.number);
        match &self.policy.provider {
            None => format!("{policy}-rule[{number}]"),
            Some(provider) => {
                format!("istio-ext-authz-{provider}-{policy}-rule[{number}]-deny-due-to-bad-CUSTOM-action")
            }
        }
    }

    /// The provider of a CUSTOM policy.
    pub fn provider(&self) -> Option<&'c str> {
        self.policy.provider.as_deref()
    }
}

impl fmt::Display for RuleRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthorizationPolicy {} rule {}", self.policy.name, self.rule.number)
    }
}

impl fmt::Debug for RuleRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
