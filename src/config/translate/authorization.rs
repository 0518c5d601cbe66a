//! AuthorizationPolicy: which ones hold for the workload of a proxy, and what they say in the filter's own terms.

use std::sync::Arc;

use filter_authorization::{
    Action, Condition, DestinationPort, Operation, Policy, Rule, Settings as Filter, Source,
};

use super::index::{Index, Written, origin};
use super::security::{Workload, targets};
use super::settings::{DOMAIN, Settings};
use super::{World, custom};
use crate::config::resources::istio::security::{
    AuthorizationAction, AuthorizationPolicy, Condition as WrittenCondition, Operation as WrittenOperation,
    PolicySource,
};
use crate::config::resources::proxy::{Interception, Proxy};
use crate::config::resources::{Kind, Resource};
use crate::filters::PortSettings;

/// Policies on trial carry this annotation.
const DRY_RUN: &str = "istio.io/dry-run";
/// The settings of a port, without which it has no policies at all.
pub(super) fn port_settings(world: &World<'_>, destination_port: DestinationPort) -> PortSettings {
    let mut settings = PortSettings::default();
    if !world.policies.is_empty() {
        settings.authorization.push(Filter {
            policies: Arc::clone(&world.policies),
            custom: custom::asked(world).custom.clone(),
            destination_port,
        });
    }
    settings
}

/// The policies that hold for the workload of a proxy: those of its namespace and of the root namespace that select it, the older first.
pub(super) fn policies(
    index: &Index<'_>,
    settings: &Settings<'_>,
    proxy: &Proxy,
    namespace: &str,
) -> Arc<Vec<Policy>> {
    let workload = Workload { namespace, root: settings.root(), proxy };
    let trust = TrustDomains::new(settings, proxy);
    let mut found = Vec::new();
    for written in &index.authorization_policies {
        let spec = written.spec;
        let targets = targets(spec.target_ref.as_ref(), &spec.target_refs);
        if workload.has(written.object, spec.selector.as_ref(), &targets) {
            remark(index, written, proxy);
            let mut policy = policy(written.object, spec);
            trust.migrate(&mut policy);
            found.push(policy);
        }
    }
    for written in index.closed.iter().filter(|written| written.object.key.kind == Kind::AuthorizationPolicy)
    {
        let spec = written.spec;
        let targets: Vec<_> = spec.target_refs.iter().collect();
        if workload.has(written.object, Some(&spec.selector), &targets) {
            let message =
                format!("is rejected ({}): its scope is closed, every request is refused", spec.message);
            let hint = "correct it; there is no earlier version that could hold in its place";
            index.notes.error(written.object, "spec", "closed-scope", message, hint);
            found.push(closed(written.object, &spec.message));
        }
    }
    Arc::new(found)
}

/// A policy in the filter's terms.
pub(in crate::config) fn policy(object: &Resource, spec: &AuthorizationPolicy) -> Policy {
    let rules = spec.rules.iter().enumerate().map(|(at, rule)| Rule {
        origin: origin(object, format!("spec.rules[{at}]")),
        from: rule.from.iter().map(|from| from.source.as_ref().map(source).unwrap_or_default()).collect(),
        to: rule.to.iter().map(|to| to.operation.as_ref().map(operation).unwrap_or_default()).collect(),
        when: rule.when.iter().map(condition).collect(),
    });
    Policy {
        origin: origin(object, "spec"),
        namespace: object.key.namespace.to_string(),
        name: object.key.name.to_string(),
        action: match spec.action {
            AuthorizationAction::Allow => Action::Allow,
            AuthorizationAction::Deny => Action::Deny,
            AuthorizationAction::Audit => Action::Audit,
            AuthorizationAction::Custom => {
                let provider = spec.provider.as_ref().map(|provider| provider.name.clone());
                // What cannot be read rejects the object.
                let (failures, cache) = custom::terms(object).unwrap_or_default();
                Action::Custom { provider: provider.unwrap_or_default(), failures, cache }
            }
        },
        dry_run: dry_run(object).unwrap_or(false),
        closed: None,
        rules: rules.collect(),
    }
}

/// What stands in for a policy that does not hold: nobody is let in.
fn closed(object: &Resource, message: &str) -> Policy {
    Policy {
        origin: origin(object, "spec"),
        namespace: object.key.namespace.to_string(),
        name: object.key.name.to_string(),
        action: Action::Deny,
        dry_run: false,
        closed: Some(message.to_owned()),
        rules: vec![Rule { origin: origin(object, "spec"), ..Rule::default() }],
    }
}

fn source(written: &PolicySource) -> Source {
    let written = written.clone();
    Source {
        principals: written.principals,
        not_principals: written.not_principals,
        request_principals: written.request_principals,
        not_request_principals: written.not_request_principals,
        namespaces: written.namespaces,
        not_namespaces: written.not_namespaces,
        service_accounts: written.service_accounts,
        not_service_accounts: written.not_service_accounts,
        trust_domains: written.trust_domains,
        not_trust_domains: written.not_trust_domains,
        ip_blocks: written.ip_blocks,
        not_ip_blocks: written.not_ip_blocks,
        remote_ip_blocks: written.remote_ip_blocks,
        not_remote_ip_blocks: written.not_remote_ip_blocks,
    }
}

fn operation(written: &WrittenOperation) -> Operation {
    let written = written.clone();
    Operation {
        hosts: written.hosts,
        not_hosts: written.not_hosts,
        ports: written.ports,
        not_ports: written.not_ports,
        methods: written.methods,
        not_methods: written.not_methods,
        paths: written.paths,
        not_paths: written.not_paths,
    }
}

fn condition(written: &WrittenCondition) -> Condition {
    let WrittenCondition { key, values, not_values } = written.clone();
    Condition { key, values, not_values }
}

/// What the annotation says, as Go reads booleans; an error for anything else.
fn dry_run(object: &Resource) -> Result<bool, &str> {
    match object.meta.annotations.get(DRY_RUN) {
        None | Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some(other) => Err(other),
    }
}

/// Says what a policy does that its author hardly means.
fn remark(index: &Index<'_>, written: &Written<'_, AuthorizationPolicy>, proxy: &Proxy) {
    let (object, spec) = (written.object, written.spec);
    let warn = |field: &str, code, message: &str, hint| {
        index.notes.warn(object, field, code, message.to_owned(), hint);
    };
    if let Err(other) = dry_run(object) {
        let message = format!("`{DRY_RUN}: {other}` is neither true nor false: the policy is enforced");
        warn("metadata.annotations", "dry-run", &message, "write \"true\" or \"false\"");
    }
    if spec.action == AuthorizationAction::Deny && spec.rules.is_empty() {
        let hint = "write `rules: [{}]` to refuse everything";
        warn("spec.rules", "never-matches", "is empty: the policy refuses nothing", hint);
    }
    let explicit = proxy.interception == Interception::Explicit;
    for (at, rule) in spec.rules.iter().enumerate() {
        for (place, from) in rule.from.iter().enumerate() {
            let Some(source) = &from.source else { continue };
            let lists = [("principals", &source.principals), ("notPrincipals", &source.not_principals)];
            for (name, values) in lists {
                for index in (0..values.len())
                    .filter(|index| values.get(*index).is_some_and(|value| value.starts_with("spiffe://")))
                {
                    let field = format!("spec.rules[{at}].from[{place}].source.{name}[{index}]");
                    warn(
                        &field,
                        "never-matches",
                        "begins with `spiffe://` and matches nobody",
                        "leave `spiffe://` out, as Istio has it",
                    );
                }
            }
        }
        let of_port =
            |operation: &WrittenOperation| !operation.ports.is_empty() || !operation.not_ports.is_empty();
        let asked = rule.to.iter().filter_map(|to| to.operation.as_ref()).any(of_port)
            || rule.when.iter().any(|condition| condition.key == "destination.port");
        if asked && explicit {
            let message = "asks for a port, which is known only after routing where clients call the proxy itself: \
                           with several ports of the application it refuses, and does not allow";
            let hint = "capture traffic (`interception: REDIRECT`), or tell requests apart by host or path";
            warn(&format!("spec.rules[{at}]"), "ports-unknown", message, hint);
        }
    }
}

/// Names of the trust domain that are one to policies: `cluster.local` in a principal stands for the own one, whatever its name.
pub(super) struct TrustDomains<'a> {
    own: &'a str,
    aliases: &'a [String],
}

impl<'a> TrustDomains<'a> {
    /// Those of a proxy.
    pub(super) fn new(settings: &'a Settings<'_>, proxy: &'a Proxy) -> Self {
        Self { own: settings.trust_domain(proxy), aliases: settings.trust_domain_aliases() }
    }
}

impl TrustDomains<'_> {
    fn all(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.own).chain(self.aliases.iter().map(String::as_str))
    }

    fn migrate(&self, policy: &mut Policy) {
        for rule in &mut policy.rules {
            for source in &mut rule.from {
                self.principals(&mut source.principals);
                self.principals(&mut source.not_principals);
                self.domains(&mut source.trust_domains);
                self.domains(&mut source.not_trust_domains);
            }
            for condition in &mut rule.when {
                self.values(&condition.key, &mut condition.values);
                self.values(&condition.key, &mut condition.not_values);
            }
        }
    }

    /// The values of a condition on this attribute.
    pub(super) fn values(&self, key: &str, values: &mut Vec<String>) {
        match key {
            "source.principal" => self.principals(values),
            "source.trustDomain" => self.domains(values),
            _ => {}
        }
    }

    /// A list of principals.
    pub(super) fn principals(&self, values: &mut Vec<String>) {
        let mut all: Vec<String> = Vec::with_capacity(values.len());
        for value in std::mem::take(values) {
            match value.split_once('/') {
                Some((domain, rest))
                    if rest.matches('/').count() == 3 && domain != "*" && self.knows(domain) =>
                {
                    // A domain with a wildcard stays for the names that it covers.
                    all.extend(self.all().map(|own| match covers(domain, own) {
                        true => value.clone(),
                        false => format!("{own}/{rest}"),
                    }));
                }
                _ => all.push(value),
            }
        }
        for value in all {
            if !values.contains(&value) {
                values.push(value);
            }
        }
    }

    fn knows(&self, domain: &str) -> bool {
        domain == DOMAIN || self.all().any(|own| own == domain || covers(domain, own))
    }

    fn domains(&self, values: &mut Vec<String>) {
        if values.iter().any(|value| self.all().any(|own| own == value)) {
            for own in self.all() {
                if !values.iter().any(|value| value == own) {
                    values.push(own.to_owned());
                }
            }
        }
    }
}

/// Whether `*local` covers `cluster.local`.
fn covers(pattern: &str, domain: &str) -> bool {
    pattern.strip_prefix('*').is_some_and(|ending| domain.ends_with(ending))
}
