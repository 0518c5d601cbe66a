//! Turns access policies into what can be tried, and says what is wrong with them.

use super::grants::{Grants, Permission, Role};
use super::memory::Memory;
use super::question::{Bounds, Question, Tls};
use super::risk::{Assessor, TrustedHeader};
use super::score::Score;
use super::settings::{Condition, Effect, Match, Policy, Rule as Written, Session, Threshold};
use super::window::Window;
use crate::Fault;
use crate::clause::{Clause, Test};
use crate::compile::Compiler;
use crate::key::{self, Kind};
use crate::pattern::Patterns;
use crate::rule::Rule;
use crate::settings::{self, Operation};
use filter_api::{Keep, Origin};
use http::{HeaderName, HeaderValue};

/// A policy, ready to run; its rules stand apart.
#[derive(Debug)]
pub(super) struct Judge {
    pub(super) origin: Origin,
    /// `namespace/name`
    pub(super) name: Box<str>,
    pub(super) closed: Option<Box<str>>,
    pub(super) allows_by_default: bool,
    pub(super) session: Session,
    pub(super) risk: Assessor,
    /// Whether a rule asks for the score.
    pub(super) asks_risk: bool,
    pub(super) grants: Grants,
}

/// What a rule says beside its conditions.
#[derive(Debug)]
pub(super) struct Terms {
    /// May be empty.
    pub(super) name: Box<str>,
    pub(super) effect: Effect,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) audit: bool,
}

/// Everything in a policy that cannot be enforced, in the order of its fields.
pub fn check(policy: &Policy) -> Vec<Fault> {
    let mut faults = Vec::new();
    judge(policy, 0, &Keep::default(), &mut faults);
    faults
}

/// A policy and its rules.
pub(super) fn judge(
    policy: &Policy,
    number: usize,
    keep: &Keep,
    faults: &mut Vec<Fault>,
) -> (Judge, Vec<(Rule, Terms)>) {
    // What AuthorizationPolicy has as well is compiled as one of its policies would be.
    let plain = settings::Policy { namespace: policy.namespace.clone(), ..Default::default() };
    let mut reader = Reader { compiler: Compiler { policy: &plain, faults } };
    let rules: Vec<_> =
        policy.rules.iter().enumerate().map(|(at, rule)| reader.rule(number, at, rule)).collect();
    let asks_risk = policy.rules.iter().flat_map(|rule| &rule.when).any(|when| when.key == "risk.score");
    let judge = Judge {
        origin: policy.origin.clone(),
        name: format!("{}/{}", policy.namespace, policy.name).into(),
        closed: policy.closed.as_deref().map(Into::into),
        allows_by_default: policy.allows_by_default,
        session: policy.session.clone(),
        risk: reader.risk(policy, keep),
        asks_risk,
        grants: reader.grants(policy),
    };
    (judge, rules)
}

struct Reader<'a> {
    compiler: Compiler<'a>,
}

const KEYS: &str = "write a key of AuthorizationPolicy conditions, or `request.time`, `connection.tls`, `session.age`, `risk.score`, `request.permissions`";

impl Reader<'_> {
    fn fault(&mut self, field: impl Into<String>, message: impl Into<String>, hint: &'static str) {
        self.compiler.fault(field, message, hint);
    }

    fn rule(&mut self, policy: usize, number: usize, written: &Written) -> (Rule, Terms) {
        let at = format!("rules[{number}]");
        let to = self.matches(&format!("{at}.match"), &written.matches);
        let mut when = Vec::new();
        for (index, condition) in written.when.iter().enumerate() {
            self.condition(&format!("{at}.when[{index}]"), condition, &mut when);
        }
        let mut headers = Vec::new();
        for (name, value) in &written.add_headers {
            headers.extend(self.added(&at, name, value));
        }
        let needs_http = to.iter().flatten().chain(&when).any(|clause| clause.test.needs_http());
        let origin = written.origin.clone();
        let rule = Rule { policy, number, origin, from: Vec::new(), to, when, needs_http };
        let terms = Terms {
            name: written.name.as_str().into(),
            effect: written.effect,
            headers,
            audit: written.audit,
        };
        (rule, terms)
    }

    fn added(&mut self, at: &str, name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
        let header = self.own_header(&format!("{at}.actions"), name);
        let hint = "write printable ASCII";
        let value = HeaderValue::try_from(value)
            .map_err(|_| self.fault(format!("{at}.actions"), format!("`{value}` is no header value"), hint));
        header.zip(value.ok())
    }

    /// A header that may be ours to write.
    fn own_header(&mut self, field: &str, name: &str) -> Option<HeaderName> {
        const TAKEN: [&str; 11] = [
            "host",
            "content-length",
            "transfer-encoding",
            "connection",
            "te",
            "trailer",
            "upgrade",
            "expect",
            "keep-alive",
            "proxy-connection",
            "authorization",
        ];
        let header = HeaderName::try_from(name).ok().filter(|header| !TAKEN.contains(&header.as_str()));
        if header.is_none() {
            let hint = "write a header of your own, as in `x-access`";
            self.fault(field, format!("`{name}` is no header that a policy may write"), hint);
        }
        header
    }

    fn matches(&mut self, at: &str, written: &[Match]) -> Vec<Vec<Clause>> {
        let one = |(index, written)| self.one_match(&format!("{at}[{index}]"), written);
        written.iter().enumerate().map(one).collect()
    }

    fn one_match(&mut self, at: &str, written: &Match) -> Vec<Clause> {
        let Match { methods, paths, hosts, headers } = written.clone();
        if *written == Match::default() {
            self.fault(at, "is empty", "say what it is about; leave `match` out for every request");
        }
        let mut clauses = Vec::new();
        if !(methods.is_empty() && paths.is_empty() && hosts.is_empty()) {
            let operation = Operation { methods, paths, hosts, ..Operation::default() };
            clauses = self.compiler.operation(at, &operation);
            for clause in &mut clauses {
                clause.key = clause.key.replace("to.operation", "match").into();
            }
        }
        for (name, value) in headers {
            let (key, values) = (format!("request.headers[{name}]"), vec![value]);
            let mut header = Vec::new();
            let condition = settings::Condition { key, values, not_values: Vec::new() };
            self.compiler.condition(&format!("{at}.headers"), &condition, &mut header);
            clauses.extend(
                header
                    .into_iter()
                    .map(|clause| Clause { key: format!("match.headers[{name}]").into(), ..clause }),
            );
        }
        clauses
    }

    fn condition(&mut self, at: &str, condition: &Condition, clauses: &mut Vec<Clause>) {
        let Condition { key, values, not_values, within, above, below } = condition;
        let lists = !values.is_empty() || !not_values.is_empty();
        let bounds = above.is_some() || below.is_some();
        let needs = match &**key {
            "request.time" => {
                (within.is_some() && !lists && !bounds, "write `within: {from: ..., to: ...}` alone")
            }
            "session.age" | "risk.score" => {
                (bounds && !lists && within.is_none(), "write `above` or `below`, and nothing else")
            }
            _ => (lists && within.is_none() && !bounds, "write `values` or `notValues`, and nothing else"),
        };
        let known = key::kind_of(key).is_ok()
            || matches!(
                &**key,
                "request.time" | "session.age" | "risk.score" | "connection.tls" | "request.permissions"
            );
        if let (true, (false, hint)) = (known, needs) {
            return self.fault(at, format!("does not say what `{key}` is compared with"), hint);
        }
        let question = match &**key {
            "request.time" => within.as_ref().and_then(|within| self.time(at, within)),
            "session.age" => self.ages(at, *above, *below).map(Question::Age),
            "risk.score" => self.scores(at, *above, *below).map(Question::Risk),
            "connection.tls" | "request.permissions" => {
                for (name, values, negated) in [("values", values, false), ("notValues", not_values, true)] {
                    let field = format!("{at}.{name}");
                    let question = match (&**key, values.is_empty()) {
                        (_, true) => continue,
                        ("connection.tls", _) => Question::Tls(self.tls(&field, values)),
                        _ => Question::Permission(self.texts(&field, values)),
                    };
                    let words = format!("when {key}{}", if negated { " (notValues)" } else { "" });
                    clauses.push(Clause { key: words.into(), negated, test: Test::Access(question) });
                }
                return;
            }
            _ => {
                let plain = settings::Condition {
                    key: key.clone(),
                    values: values.clone(),
                    not_values: not_values.clone(),
                };
                let before = self.compiler.faults.len();
                self.compiler.condition(at, &plain, clauses);
                for fault in self.compiler.faults.iter_mut().skip(before) {
                    if fault.hint.starts_with("see the keys") {
                        fault.hint = KEYS;
                    }
                }
                return;
            }
        };
        let test = question.map(Test::Access);
        clauses.extend(test.map(|test| Clause { key: format!("when {key}").into(), negated: false, test }));
    }

    fn time(&mut self, at: &str, within: &super::settings::Within) -> Option<Question> {
        match Window::new(within) {
            Ok(window) => Some(Question::Time(window)),
            Err((field, message, hint)) => {
                self.fault(format!("{at}.within.{field}"), message, hint);
                None
            }
        }
    }

    fn ages(
        &mut self,
        at: &str,
        above: Option<Threshold>,
        below: Option<Threshold>,
    ) -> Option<Bounds<std::time::Duration>> {
        let mut age = |name: &str, bound| match bound {
            None => Some(None),
            Some(Threshold::Age(age)) => Some(Some(age)),
            Some(Threshold::Number(number)) => {
                let hint = "write a duration, as in `15m`";
                self.fault(format!("{at}.{name}"), format!("`{number}` has no unit of time"), hint);
                None
            }
        };
        Some(Bounds { above: age("above", above)?, below: age("below", below)? })
    }

    fn scores(
        &mut self,
        at: &str,
        above: Option<Threshold>,
        below: Option<Threshold>,
    ) -> Option<Bounds<Score>> {
        let mut score = |name: &str, bound| {
            let score = match bound {
                None => return Some(None),
                Some(Threshold::Number(number)) => Score::new(number),
                Some(Threshold::Age(_)) => None,
            };
            if score.is_none() {
                self.fault(format!("{at}.{name}"), "is no score", "write a number from 0 to 1, as in `0.3`");
            }
            score.map(Some)
        };
        Some(Bounds { above: score("above", above)?, below: score("below", below)? })
    }

    fn tls(&mut self, field: &str, values: &[String]) -> Vec<Tls> {
        let mut all = Vec::with_capacity(values.len());
        for (index, value) in values.iter().enumerate() {
            match Tls::WORDS.iter().find(|(word, _)| word == value) {
                Some((_, tls)) => all.push(*tls),
                None => {
                    let hint = "write `none`, `simple`, `mutual`, `TLSv1.2` or `TLSv1.3`";
                    self.fault(format!("{field}[{index}]"), format!("`{value}` is no kind of TLS"), hint);
                }
            }
        }
        all
    }

    fn texts(&mut self, field: &str, values: &[String]) -> Patterns {
        let mut patterns = Patterns::default();
        for (index, value) in values.iter().enumerate() {
            if value.is_empty() {
                self.fault(format!("{field}[{index}]"), "is empty", "write a value, `*` for any");
            }
            patterns.add(value);
        }
        patterns
    }

    fn risk(&mut self, policy: &Policy, keep: &Keep) -> Assessor {
        let risk = &policy.risk;
        let mut signal = |name: &str, weight| {
            Score::new(weight).unwrap_or_else(|| {
                let field = format!("risk.signals.{name}");
                self.fault(
                    field,
                    format!("`{weight}` is no score"),
                    "write a number from 0 to 1, as in `0.2`",
                );
                Score::default()
            })
        };
        let new_source = signal("newSource", risk.new_source);
        let failed_attempts = signal("failedAttempts", risk.failed_attempts);
        let no_client_certificate = signal("noClientCertificate", risk.no_client_certificate);
        let header = risk.header.as_ref().and_then(|header| {
            if header.from.is_empty() {
                let hint = "name the peers that may say it, as in `cluster.local/ns/risk/sa/scorer`";
                self.fault("risk.header.from", "is empty: nobody would be believed", hint);
            }
            let from = self.texts("risk.header.from", &header.from);
            self.own_header("risk.header.name", &header.name).map(|name| TrustedHeader { name, from })
        });
        let remembers = !new_source.is_none() || !failed_attempts.is_none();
        let name = || format!("{}/{}", policy.namespace, policy.name);
        let memory = remembers.then(|| keep.share(&name(), Memory::default));
        Assessor { header, new_source, failed_attempts, no_client_certificate, memory }
    }

    fn grants(&mut self, policy: &Policy) -> Grants {
        let mut permissions: Vec<Permission> = Vec::with_capacity(policy.permissions.len());
        for (index, written) in policy.permissions.iter().enumerate() {
            let at = format!("permissions[{index}]");
            let parts: Vec<&str> = written.name.split(':').collect();
            if parts.len() != 2 || parts.contains(&"") {
                let hint = "write `resource:action`, as in `orders:write`";
                self.fault(format!("{at}.name"), format!("`{}` is no permission", written.name), hint);
            }
            if permissions.iter().any(|known| *known.name == *written.name) {
                let hint = "write one entry with both lists of `match`";
                self.fault(format!("{at}.name"), format!("`{}` is there twice", written.name), hint);
            }
            let matches = self.matches(&format!("{at}.match"), &written.matches);
            permissions.push(Permission { name: written.name.as_str().into(), matches });
        }
        let mut roles = Vec::with_capacity(policy.roles.len());
        for (index, written) in policy.roles.iter().enumerate() {
            let at = format!("roles[{index}]");
            let mut given = Vec::with_capacity(written.permissions.len());
            for (place, name) in written.permissions.iter().enumerate() {
                match permissions.iter().position(|known| *known.name == **name) {
                    Some(known) => given.push(known),
                    None => {
                        let hint = "write the name of an entry of `permissions`";
                        let field = format!("{at}.permissions[{place}]");
                        self.fault(field, format!("`{name}` is no permission of this policy"), hint);
                    }
                }
            }
            let bracketed = written.claim.starts_with('[');
            let claim = if bracketed { written.claim.clone() } else { format!("[{}]", written.claim) };
            let Ok(Kind::Claim(path)) = key::kind_of(&format!("request.auth.claims{claim}")) else {
                let hint = "write the name of a claim, or `[outer][inner]` for a nested one";
                self.fault(format!("{at}.claim"), format!("`{}` is no claim", written.claim), hint);
                continue;
            };
            let value = self.texts(&format!("{at}.value"), std::slice::from_ref(&written.value));
            let claim = Clause {
                key: format!("roles claim {}", written.claim).into(),
                negated: false,
                test: Test::Claim(path, value),
            };
            roles.push(Role { claim, permissions: given });
        }
        Grants { permissions, roles }
    }
}
