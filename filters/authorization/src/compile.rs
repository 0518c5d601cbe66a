//! Turns policies into rules that can be tried, and says what is wrong with them.

use crate::clause::{Clause, HeaderKey, Test};
use crate::key::{Kind, kind_of};
use crate::pattern::Patterns;
use crate::rule::Rule;
use crate::settings::{Action, Condition, Operation, Policy, Rule as Written, Source};
use crate::template::Template;
use crate::user::User;
use ipnet::{IpNet, Ipv4Net};
use std::net::IpAddr;

/// Something in a policy that cannot be enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The field within the policy, as Istio names it: `rules[0].from[0].source.principals[1]`.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
    /// What to write instead.
    pub hint: &'static str,
}

/// Everything in a policy that cannot be enforced, in the order of its fields.
pub fn check(policy: &Policy) -> Vec<Fault> {
    let mut faults = Vec::new();
    rules(policy, 0, &mut faults);
    faults
}

/// The rules of a policy.
pub(crate) fn rules(policy: &Policy, number: usize, faults: &mut Vec<Fault>) -> Vec<Rule> {
    let mut compiler = Compiler { policy, faults };
    compiler.check_custom();
    let written = policy.rules.iter().enumerate();
    written.map(|(at, rule)| compiler.rule(number, at, rule)).collect()
}

/// Reads the parts of policies; what is wrong with them comes together in `faults`.
pub(crate) struct Compiler<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) faults: &'a mut Vec<Fault>,
}

/// A list of values in a policy, and how to read them.
struct List<'v> {
    kind: Kind,
    key: &'static str,
    values: &'v [String],
    negated: bool,
}

impl Compiler<'_> {
    pub(crate) fn fault(&mut self, field: impl Into<String>, message: impl Into<String>, hint: &'static str) {
        self.faults.push(Fault { field: field.into(), message: message.into(), hint });
    }

    fn check_custom(&mut self) {
        if let Action::Custom { provider, .. } = &self.policy.action {
            if provider.is_empty() {
                self.fault("provider.name", "is empty", "name a provider of the mesh configuration");
            }
            if self.policy.rules.is_empty() {
                let hint = "write `rules: [{}]` to ask the provider about every request";
                self.fault("rules", "is empty: the provider would never be asked", hint);
            }
        }
    }

    fn rule(&mut self, policy: usize, number: usize, written: &Written) -> Rule {
        let at = format!("rules[{number}]");
        let mut from = Vec::with_capacity(written.from.len());
        for (index, source) in written.from.iter().enumerate() {
            from.push(self.source(&format!("{at}.from[{index}].source"), source));
        }
        let mut to = Vec::with_capacity(written.to.len());
        for (index, operation) in written.to.iter().enumerate() {
            to.push(self.operation(&format!("{at}.to[{index}].operation"), operation));
        }
        let mut when = Vec::new();
        for (index, condition) in written.when.iter().enumerate() {
            self.condition(&format!("{at}.when[{index}]"), condition, &mut when);
        }
        let clauses = from.iter().chain(&to).flatten().chain(&when);
        let needs_http = clauses.into_iter().any(|clause| clause.test.needs_http());
        Rule { policy, number, origin: written.origin.clone(), from, to, when, needs_http }
    }

    fn source(&mut self, at: &str, source: &Source) -> Vec<Clause> {
        let all = &source;
        let named = [&all.principals, &all.not_principals, &all.namespaces, &all.not_namespaces];
        let accounts = [&all.service_accounts, &all.not_service_accounts];
        if named.iter().any(|list| !list.is_empty()) && accounts.iter().any(|list| !list.is_empty()) {
            let hint = "a service account says both; leave the others out";
            self.fault(format!("{at}.serviceAccounts"), "stands beside principals or namespaces", hint);
        }
        let list = |kind, key, values, negated| List { kind, key, values, negated };
        let lists = [
            list(Kind::Principal, "principals", &source.principals, false),
            list(Kind::Principal, "notPrincipals", &source.not_principals, true),
            list(Kind::User, "requestPrincipals", &source.request_principals, false),
            list(Kind::User, "notRequestPrincipals", &source.not_request_principals, true),
            list(Kind::Account, "serviceAccounts", &source.service_accounts, false),
            list(Kind::Account, "notServiceAccounts", &source.not_service_accounts, true),
            list(Kind::TrustDomain, "trustDomains", &source.trust_domains, false),
            list(Kind::TrustDomain, "notTrustDomains", &source.not_trust_domains, true),
            list(Kind::Namespace, "namespaces", &source.namespaces, false),
            list(Kind::Namespace, "notNamespaces", &source.not_namespaces, true),
            list(Kind::RemoteIp, "remoteIpBlocks", &source.remote_ip_blocks, false),
            list(Kind::RemoteIp, "notRemoteIpBlocks", &source.not_remote_ip_blocks, true),
            list(Kind::SourceIp, "ipBlocks", &source.ip_blocks, false),
            list(Kind::SourceIp, "notIpBlocks", &source.not_ip_blocks, true),
        ];
        self.lists(at, "from.source", lists, "say whom it is about; leave `from` out for everybody")
    }

    pub(crate) fn operation(&mut self, at: &str, operation: &Operation) -> Vec<Clause> {
        let list = |kind, key, values, negated| List { kind, key, values, negated };
        let lists = [
            list(Kind::Host, "hosts", &operation.hosts, false),
            list(Kind::Host, "notHosts", &operation.not_hosts, true),
            list(Kind::Method, "methods", &operation.methods, false),
            list(Kind::Method, "notMethods", &operation.not_methods, true),
            list(Kind::Path, "paths", &operation.paths, false),
            list(Kind::Path, "notPaths", &operation.not_paths, true),
            list(Kind::Port, "ports", &operation.ports, false),
            list(Kind::Port, "notPorts", &operation.not_ports, true),
        ];
        self.lists(at, "to.operation", lists, "say what it is about; leave `to` out for everything")
    }

    fn lists<const N: usize>(
        &mut self,
        at: &str,
        place: &str,
        lists: [List<'_>; N],
        hint: &'static str,
    ) -> Vec<Clause> {
        let mut clauses = Vec::new();
        for list in lists.into_iter().filter(|list| !list.values.is_empty()) {
            let field = format!("{at}.{}", list.key);
            let key = format!("{place}.{}", list.key).into();
            clauses.push(Clause {
                key,
                negated: list.negated,
                test: self.test(&field, &list.kind, list.values),
            });
        }
        if clauses.is_empty() {
            self.fault(at, "is empty", hint);
        }
        clauses
    }

    pub(crate) fn condition(&mut self, at: &str, condition: &Condition, clauses: &mut Vec<Clause>) {
        let kind = match kind_of(&condition.key) {
            Ok(kind) => kind,
            Err((message, hint)) => return self.fault(format!("{at}.key"), message, hint),
        };
        if condition.values.is_empty() && condition.not_values.is_empty() {
            self.fault(at, "names no values", "write `values` or `notValues`");
        }
        for (values, name, negated) in
            [(&condition.values, "values", false), (&condition.not_values, "notValues", true)]
        {
            if values.is_empty() {
                continue;
            }
            let key = format!("when {}{}", condition.key, if negated { " (notValues)" } else { "" }).into();
            let test = self.test(&format!("{at}.{name}"), &kind, values);
            clauses.push(Clause { key, negated, test });
        }
    }

    fn test(&mut self, field: &str, kind: &Kind, values: &[String]) -> Test {
        if matches!(self.policy.action, Action::Custom { .. }) && kind.is_identity() {
            let hint =
                "let the provider judge who it is; the rules of a CUSTOM policy say which requests it sees";
            self.fault(field, "is not supported with CUSTOM", hint);
        }
        for (index, _) in values.iter().enumerate().filter(|(_, value)| value.is_empty()) {
            self.fault(format!("{field}[{index}]"), "is empty", "write a value, `*` for any");
        }
        let texts = |add: fn(&mut Patterns, &str)| {
            let mut patterns = Patterns::default();
            values.iter().for_each(|value| add(&mut patterns, value));
            patterns
        };
        match kind {
            Kind::Principal => Test::Principal(texts(Patterns::add)),
            Kind::Namespace => Test::Namespace(texts(Patterns::add_glob)),
            Kind::Account => Test::Account(self.accounts(field, values)),
            Kind::TrustDomain => {
                self.check_trust_domains(field, values);
                Test::TrustDomain(texts(Patterns::add))
            }
            Kind::User => Test::Users(values.iter().map(|value| User::parse(value)).collect()),
            Kind::Audience => Test::Audience(texts(Patterns::add)),
            Kind::Presenter => Test::Claim(vec!["azp".into()], texts(Patterns::add)),
            Kind::Claim(path) => Test::Claim(path.clone(), texts(Patterns::add)),
            Kind::SourceIp => Test::SourceIp(self.blocks(field, values)),
            Kind::RemoteIp => Test::RemoteIp(self.blocks(field, values)),
            Kind::DestinationIp => Test::DestinationIp(self.blocks(field, values)),
            Kind::Port => Test::Port(self.ports(field, values)),
            Kind::ServerName => Test::ServerName(texts(|all, value| all.add(&value.to_ascii_lowercase()))),
            Kind::Header(HeaderKey::Authority) => Test::Header(HeaderKey::Authority, texts(add_host)),
            Kind::Header(name) => Test::Header(name.clone(), texts(Patterns::add)),
            Kind::Host => Test::Host(texts(add_host)),
            Kind::Method => Test::Method(texts(Patterns::add)),
            Kind::Path => Test::Path(self.paths(field, values)),
        }
    }

    fn paths(&mut self, field: &str, values: &[String]) -> Patterns {
        let mut patterns = Patterns::default();
        for (index, value) in values.iter().enumerate() {
            let field = || format!("{field}[{index}]");
            if !Template::is_template(value) {
                if value.contains(['{', '}']) {
                    let hint = "write `{*}` for one segment or `{**}` for any number of them";
                    self.fault(field(), format!("`{value}` holds a brace that is no operator"), hint);
                }
                patterns.add(value);
                continue;
            }
            match Template::parse(value) {
                Ok(template) => patterns.add_template(template),
                Err(why) => {
                    let hint = "as in `/users/{*}/orders/{**}`";
                    self.fault(field(), format!("`{value}` is no path template: {why}"), hint);
                }
            }
        }
        patterns
    }

    fn accounts(&mut self, field: &str, values: &[String]) -> Patterns {
        const MOST: usize = 16;
        const LONGEST: usize = 320;
        let hint = "write `namespace/account`, or `account` for one of the policy's own namespace";
        if values.len() > MOST {
            self.fault(field, format!("has more than {MOST} values"), "use `namespaces`, or another rule");
        }
        let mut patterns = Patterns::default();
        for (index, value) in values.iter().enumerate() {
            let (namespace, account) = value.split_once('/').unwrap_or((&self.policy.namespace, value));
            if namespace.is_empty()
                || account.is_empty()
                || account.contains('/')
                || value.contains('*')
                || value.len() > LONGEST
            {
                self.fault(format!("{field}[{index}]"), format!("`{value}` is no service account"), hint);
            }
            patterns.add_exact(&format!("ns/{namespace}/sa/{account}"));
        }
        patterns
    }

    fn check_trust_domains(&mut self, field: &str, values: &[String]) {
        for (index, value) in values.iter().enumerate() {
            let inner = value.strip_prefix('*').or(value.strip_suffix('*')).unwrap_or(value);
            if value.contains('/') || inner.contains('*') {
                let hint = "write `example.org`, `*.example.org`, `prod-*` or `*`";
                self.fault(format!("{field}[{index}]"), format!("`{value}` is no trust domain"), hint);
            }
        }
    }

    fn blocks(&mut self, field: &str, values: &[String]) -> Vec<IpNet> {
        let mut blocks = Vec::with_capacity(values.len());
        for (index, value) in values.iter().enumerate() {
            match block(value) {
                Some(block) => blocks.push(block),
                None => {
                    let hint = "write `10.0.0.0/8`, `10.1.2.3` or `2001:db8::/32`";
                    self.fault(
                        format!("{field}[{index}]"),
                        format!("`{value}` is no address or block"),
                        hint,
                    );
                }
            }
        }
        blocks
    }

    fn ports(&mut self, field: &str, values: &[String]) -> Vec<u16> {
        let mut ports = Vec::with_capacity(values.len());
        for (index, value) in values.iter().enumerate() {
            match value.parse().ok().filter(|_| value.bytes().all(|byte| byte.is_ascii_digit())) {
                Some(port) => ports.push(port),
                None => {
                    let hint = "write a number from 0 to 65535";
                    self.fault(format!("{field}[{index}]"), format!("`{value}` is no port"), hint);
                }
            }
        }
        ports
    }
}

/// Hosts are compared in lower case and without a final dot.
fn add_host(patterns: &mut Patterns, value: &str) {
    let value = value.to_ascii_lowercase();
    patterns.add(value.strip_suffix('.').unwrap_or(&value));
}

/// A block, IPv4 in IPv6 as IPv4.
fn block(text: &str) -> Option<IpNet> {
    let net = match text.parse::<IpNet>() {
        Ok(net) => net,
        Err(_) => IpNet::from(text.parse::<IpAddr>().ok()?),
    };
    Some(match net {
        IpNet::V6(six) if six.prefix_len() >= 96 => match six.addr().to_ipv4_mapped() {
            Some(four) => Ipv4Net::new(four, six.prefix_len() - 96).ok()?.into(),
            None => net,
        },
        _ => net,
    })
}
