//! What of an object can be left out.

use crate::config::resources::istio::security::{
    AuthorizationAction, AuthorizationPolicy, From, Operation, PolicySource, RequestAuthentication, Rule,
};
use crate::config::resources::own::access_policy::{AccessCondition, AccessPolicy, AccessRule};
use crate::config::resources::own::common::Mode;
use crate::config::resources::{Resource, Spec};
use crate::config::spans::Place;

/// Something that is left out.
pub(super) struct Removal {
    /// What, in words.
    pub(super) what: String,
    /// Where it stands.
    pub(super) place: Place,
    /// What is left of the object; `None`: nothing.
    pub(super) left: Option<Resource>,
}

/// Everything that can be left out of a security object, one at a time; nothing of other objects, and of policies that only record.
pub(super) fn removals(resource: &Resource) -> Vec<Removal> {
    let mut all =
        vec![Removal { what: format!("this {}", resource.key), place: resource.place(""), left: None }];
    let part = |field: &str, spec: Spec| Removal {
        what: format!("{field} of {}", resource.key),
        place: resource.place(field),
        left: Some(Resource { spec, ..resource.clone() }),
    };
    match &resource.spec {
        Spec::PeerAuthentication(_) => {}
        Spec::RequestAuthentication(spec) => {
            all.extend(
                of_tokens(spec)
                    .into_iter()
                    .map(|(field, left)| part(&field, Spec::RequestAuthentication(Box::new(left)))),
            );
        }
        Spec::AuthorizationPolicy(spec) => {
            let dry_run = resource.meta.annotations.get("istio.io/dry-run").is_some();
            if dry_run || spec.action == AuthorizationAction::Audit {
                return Vec::new();
            }
            all.extend(
                of_policy(spec)
                    .into_iter()
                    .map(|(field, left)| part(&field, Spec::AuthorizationPolicy(Box::new(left)))),
            );
        }
        Spec::AccessPolicy(spec) => {
            if spec.mode != Mode::Enforce {
                return Vec::new();
            }
            all.extend(
                of_access(spec)
                    .into_iter()
                    .map(|(field, left)| part(&field, Spec::AccessPolicy(Box::new(left)))),
            );
        }
        _ => return Vec::new(),
    }
    if let Some(action) = action(resource) {
        for removal in &mut all {
            removal.what = format!("{action}: {}", removal.what);
        }
    }
    all
}

fn action(resource: &Resource) -> Option<&'static str> {
    let Spec::AuthorizationPolicy(spec) = &resource.spec else { return None };
    Some(match spec.action {
        AuthorizationAction::Allow => "ALLOW",
        AuthorizationAction::Deny => "DENY",
        AuthorizationAction::Audit => "AUDIT",
        AuthorizationAction::Custom => "CUSTOM",
    })
}

fn of_tokens(spec: &RequestAuthentication) -> Vec<(String, RequestAuthentication)> {
    let mut all = Vec::new();
    for at in 0..spec.jwt_rules.len() {
        let field = format!("spec.jwtRules[{at}]");
        if spec.jwt_rules.len() > 1 {
            let mut left = spec.clone();
            left.jwt_rules.remove(at);
            all.push((field.clone(), left));
        }
        let mut left = spec.clone();
        if let Some(rule) = left.jwt_rules.get_mut(at).filter(|rule| !rule.audiences.is_empty()) {
            rule.audiences.clear();
            all.push((format!("{field}.audiences"), left));
        }
    }
    all
}

/// Rules are silenced as those of AuthorizationPolicy are; then what they ask for is left out, and what holds for the whole policy.
fn of_access(spec: &AccessPolicy) -> Vec<(String, AccessPolicy)> {
    let mut all = Vec::new();
    for (at, rule) in spec.rules.iter().enumerate() {
        let field = format!("spec.rules[{at}]");
        let mut add = |field: String, change: &dyn Fn(&mut AccessRule)| {
            let mut left = spec.clone();
            if let Some(rule) = left.rules.get_mut(at) {
                change(rule);
                all.push((field, left));
            }
        };
        let nobody = AccessCondition {
            key: "source.principal".to_owned(),
            values: vec!["-".to_owned()],
            ..AccessCondition::default()
        };
        add(field.clone(), &|rule| rule.when.push(nobody.clone()));
        for condition in 0..rule.when.len() {
            add(format!("{field}.when[{condition}]"), &|rule| drop(rule.when.remove(condition)));
        }
        for one in 0..rule.matches.len() {
            add(format!("{field}.match[{one}]"), &|rule| drop(rule.matches.remove(one)));
        }
    }
    for one in 0..spec.permissions.len() {
        let mut left = spec.clone();
        left.permissions.remove(one);
        all.push((format!("spec.permissions[{one}]"), left));
    }
    for (name, change) in [
        ("maxTokenAge", (|spec| spec.session.max_token_age = None) as fn(&mut AccessPolicy)),
        ("maxCertificateAge", |spec| spec.session.max_certificate_age = None),
    ] {
        let mut left = spec.clone();
        change(&mut left);
        if left != *spec {
            all.push((format!("spec.session.{name}"), left));
        }
    }
    all
}

/// Rules are silenced, not taken out: the others keep their numbers.
fn of_policy(spec: &AuthorizationPolicy) -> Vec<(String, AuthorizationPolicy)> {
    let mut all = Vec::new();
    for (at, rule) in spec.rules.iter().enumerate() {
        let field = format!("spec.rules[{at}]");
        let mut add =
            |field: String, mut rule: Rule| {
                // A caller or an operation of which nothing is asked any more is any.
                if rule
                    .from
                    .iter()
                    .any(|from| from.source.as_ref().is_none_or(|source| *source == PolicySource::default()))
                {
                    rule.from.clear();
                }
                if rule.to.iter().any(|to| {
                    to.operation.as_ref().is_none_or(|operation| *operation == Operation::default())
                }) {
                    rule.to.clear();
                }
                let mut left = spec.clone();
                if let Some(place) = left.rules.get_mut(at) {
                    *place = rule;
                    all.push((field, left));
                }
            };
        // The only rule of a DENY policy is the policy.
        if spec.rules.len() > 1 || spec.action == AuthorizationAction::Allow {
            add(field.clone(), silent());
        }
        of_callers(rule, &field, &mut add);
        of_operations(rule, &field, &mut add);
        of_conditions(rule, &field, &mut add);
    }
    all
}

/// A rule that holds for nobody: no certificate says `-`.
fn silent() -> Rule {
    let source = PolicySource { principals: vec!["-".to_owned()], ..PolicySource::default() };
    Rule { from: vec![From { source: Some(source) }], ..Rule::default() }
}

fn of_callers(rule: &Rule, field: &str, add: &mut impl FnMut(String, Rule)) {
    for at in 0..rule.from.len() {
        let field = format!("{field}.from[{at}]");
        if rule.from.len() > 1 {
            let mut left = rule.clone();
            left.from.remove(at);
            add(field.clone(), left);
        }
        macro_rules! lists {
            ($($list:ident $name:literal)*) => {$(
                let list = |rule: &Rule| Some(rule.from.get(at)?.source.as_ref()?.$list.clone());
                for (suffix, values) in shorter(&list(rule).unwrap_or_default()) {
                    let mut left = rule.clone();
                    if let Some(source) = left.from.get_mut(at).and_then(|from| from.source.as_mut()) {
                        source.$list = values;
                        add(format!("{field}.source.{}{suffix}", $name), left);
                    }
                }
            )*};
        }
        lists! {
            principals "principals" not_principals "notPrincipals"
            request_principals "requestPrincipals" not_request_principals "notRequestPrincipals"
            namespaces "namespaces" not_namespaces "notNamespaces"
            service_accounts "serviceAccounts" not_service_accounts "notServiceAccounts"
            trust_domains "trustDomains" not_trust_domains "notTrustDomains"
            ip_blocks "ipBlocks" not_ip_blocks "notIpBlocks"
            remote_ip_blocks "remoteIpBlocks" not_remote_ip_blocks "notRemoteIpBlocks"
        }
    }
}

fn of_operations(rule: &Rule, field: &str, add: &mut impl FnMut(String, Rule)) {
    for at in 0..rule.to.len() {
        let field = format!("{field}.to[{at}]");
        if rule.to.len() > 1 {
            let mut left = rule.clone();
            left.to.remove(at);
            add(field.clone(), left);
        }
        macro_rules! lists {
            ($($list:ident $name:literal)*) => {$(
                let list = |rule: &Rule| Some(rule.to.get(at)?.operation.as_ref()?.$list.clone());
                for (suffix, values) in shorter(&list(rule).unwrap_or_default()) {
                    let mut left = rule.clone();
                    if let Some(operation) = left.to.get_mut(at).and_then(|to| to.operation.as_mut()) {
                        operation.$list = values;
                        add(format!("{field}.operation.{}{suffix}", $name), left);
                    }
                }
            )*};
        }
        lists! {
            hosts "hosts" not_hosts "notHosts" ports "ports" not_ports "notPorts"
            methods "methods" not_methods "notMethods" paths "paths" not_paths "notPaths"
        }
    }
}

fn of_conditions(rule: &Rule, field: &str, add: &mut impl FnMut(String, Rule)) {
    for (at, condition) in rule.when.iter().enumerate() {
        let field = format!("{field}.when[{at}]");
        let mut left = rule.clone();
        left.when.remove(at);
        add(field.clone(), left);
        // A list of one value is the condition, unless the other list says something too.
        for (name, values) in [("values", &condition.values), ("notValues", &condition.not_values)] {
            for (suffix, values) in shorter(values).into_iter().filter(|(suffix, _)| !suffix.is_empty()) {
                let mut left = rule.clone();
                if let Some(condition) = left.when.get_mut(at) {
                    let list =
                        if name == "values" { &mut condition.values } else { &mut condition.not_values };
                    *list = values;
                    add(format!("{field}.{name}{suffix}"), left);
                }
            }
        }
    }
}

/// A list without all of its values, and without each of several.
fn shorter(values: &[String]) -> Vec<(String, Vec<String>)> {
    if values.is_empty() {
        return Vec::new();
    }
    let mut all = vec![(String::new(), Vec::new())];
    if values.len() > 1 {
        all.extend((0..values.len()).map(|at| {
            let mut left = values.to_vec();
            left.remove(at);
            (format!("[{at}]"), left)
        }));
    }
    all
}
