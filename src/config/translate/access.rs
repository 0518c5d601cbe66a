//! AccessPolicy: which ones hold for the workload of a proxy, and what they say in the filter's own terms.
//!
//! The most specific place that has any wins: those of the namespace that select the workload, those of the namespace, those of the root namespace
//! that select it, those of the root namespace. All of that place hold together, ordered by `priority`, then age, then name. Policies in shadow are
//! chosen among themselves, as if they were in force.

use std::sync::Arc;

use filter_authorization::DestinationPort;
use filter_authorization::access::{
    Condition, Day, Effect, Match, Permission, Policy, Risk, RiskHeader, Role, Rule, Session,
    Settings as Filter, Threshold, Within, needs_arrival,
};

use super::World;
use super::authorization::TrustDomains;
use super::index::{Index, Written, origin};
use super::security::Workload;
use super::settings::Settings;
use crate::config::resources::own::access_policy::{
    AccessCondition, AccessDefault, AccessEffect, AccessPolicy, AccessRule, Threshold as WrittenThreshold,
    TimeWindow, Weekday,
};
use crate::config::resources::own::common::{Mode, RequestMatch};
use crate::config::resources::proxy::Proxy;
use crate::config::resources::{Kind, Resource};
use crate::filters::PortSettings;

/// Adds what access policies ask at a port.
pub(super) fn add(world: &World<'_>, destination_port: DestinationPort, settings: &mut PortSettings) {
    if world.access.is_empty() {
        return;
    }
    let filter = Filter { policies: Arc::clone(&world.access), destination_port };
    if needs_arrival(&world.access) {
        settings.arrival.push(filter.clone());
    }
    settings.access.push(filter);
}

/// The policies that hold for the workload of a proxy, in the order in which their rules are tried.
pub(super) fn policies(
    index: &Index<'_>,
    settings: &Settings<'_>,
    proxy: &Proxy,
    namespace: &str,
) -> Arc<Vec<Policy>> {
    let workload = Workload { namespace, root: settings.root(), proxy };
    let trust = TrustDomains::new(settings, proxy);
    let mut found = Vec::new();
    for mode in [Mode::Enforce, Mode::Shadow] {
        let ours = |one: &&Written<'_, AccessPolicy>| {
            one.spec.mode == mode && workload.has(one.object, one.spec.selector.as_ref(), &[])
        };
        let mut ours: Vec<_> = index.access_policies.iter().filter(ours).copied().collect();
        let place = |one: &Written<'_, AccessPolicy>| {
            let selects = one.spec.selector.as_ref().is_some_and(|labels| !labels.match_labels.is_empty());
            (**one.namespace() == *namespace, selects)
        };
        // The older stand first already.
        ours.sort_by_key(|one| (std::cmp::Reverse(place(one)), one.spec.priority));
        let Some(first) = ours.first().copied() else { continue };
        for one in ours {
            if place(&one) < place(&first) {
                let message = format!(
                    "is not in force where {} is: that one is about a more specific place",
                    first.object.key
                );
                let hint = "write what should hold there as well into that one";
                index.notes.warn(one.object, "spec", "access-policy-hidden", message, hint);
                continue;
            }
            remark(index, &one);
            let mut policy = policy(one.object, one.spec);
            migrate(&trust, &mut policy);
            found.push(policy);
        }
    }
    for written in index.closed.iter().filter(|written| written.object.key.kind == Kind::AccessPolicy) {
        if workload.has(written.object, Some(&written.spec.selector), &[]) {
            let reason = &written.spec.message;
            let message = format!("is rejected ({reason}): its scope is closed, every request is refused");
            let hint = "correct it; there is no earlier version that could hold in its place";
            index.notes.error(written.object, "spec", "closed-scope", message, hint);
            let key = &written.object.key;
            found.push(Policy {
                origin: origin(written.object, "spec"),
                namespace: key.namespace.to_string(),
                name: key.name.to_string(),
                closed: Some(reason.clone()),
                ..Policy::default()
            });
        }
    }
    Arc::new(found)
}

/// A policy in the filter's terms.
pub(in crate::config) fn policy(object: &Resource, spec: &AccessPolicy) -> Policy {
    let rules = spec.rules.iter().enumerate();
    let (session, risk) = (&spec.session, &spec.risk);
    Policy {
        origin: origin(object, "spec"),
        namespace: object.key.namespace.to_string(),
        name: object.key.name.to_string(),
        shadow: spec.mode == Mode::Shadow,
        closed: None,
        rules: rules.map(|(at, written)| rule(object, at, written)).collect(),
        allows_by_default: spec.default == AccessDefault::Allow,
        session: Session {
            max_token_age: session.max_token_age.map(Into::into),
            max_certificate_age: session.max_certificate_age.map(Into::into),
            revoke_existing: session.revoke_existing,
        },
        risk: Risk {
            header: risk
                .header
                .as_ref()
                .map(|header| RiskHeader { name: header.name.clone(), from: header.from.clone() }),
            new_source: risk.signals.new_source,
            failed_attempts: risk.signals.failed_attempts,
            no_client_certificate: risk.signals.no_client_certificate,
        },
        roles: spec
            .roles
            .iter()
            .map(|role| Role {
                claim: role.claim.clone(),
                value: role.value.clone(),
                permissions: role.permissions.clone(),
            })
            .collect(),
        permissions: spec
            .permissions
            .iter()
            .map(|written| Permission { name: written.name.clone(), matches: matches(&written.matches) })
            .collect(),
    }
}

fn rule(object: &Resource, at: usize, written: &AccessRule) -> Rule {
    let added = written.actions.iter().filter_map(|action| action.add_header.as_ref());
    Rule {
        origin: origin(object, format!("spec.rules[{at}]")),
        name: written.name.clone(),
        matches: matches(&written.matches),
        when: written.when.iter().map(condition).collect(),
        effect: match written.effect {
            Some(AccessEffect::Allow) => Effect::Allow,
            Some(AccessEffect::StepUp) => Effect::StepUp,
            // One without an effect is rejected before.
            Some(AccessEffect::Deny) | None => Effect::Deny,
        },
        add_headers: added.map(|header| (header.name.clone(), header.value.clone())).collect(),
        audit: written.actions.iter().any(|action| action.audit.is_some()),
    }
}

fn matches(written: &[RequestMatch]) -> Vec<Match> {
    let one = |written: &RequestMatch| Match {
        methods: written.methods.clone(),
        paths: written.paths.clone(),
        hosts: written.hosts.clone(),
        headers: written.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
    };
    written.iter().map(one).collect()
}

fn condition(written: &AccessCondition) -> Condition {
    let threshold = |written| match written {
        WrittenThreshold::Number(number) => Threshold::Number(number),
        WrittenThreshold::Age(age) => Threshold::Age(age.into()),
    };
    Condition {
        key: written.key.clone(),
        values: written.values.clone(),
        not_values: written.not_values.clone(),
        within: written.within.as_ref().map(within),
        above: written.above.map(threshold),
        below: written.below.map(threshold),
    }
}

fn within(written: &TimeWindow) -> Within {
    let day = |day: &Weekday| match day {
        Weekday::Mon => Day::Mon,
        Weekday::Tue => Day::Tue,
        Weekday::Wed => Day::Wed,
        Weekday::Thu => Day::Thu,
        Weekday::Fri => Day::Fri,
        Weekday::Sat => Day::Sat,
        Weekday::Sun => Day::Sun,
    };
    Within {
        days: written.days.iter().map(day).collect(),
        from: written.from.clone(),
        to: written.to.clone(),
        zone: written.zone.clone(),
    }
}

/// Principals of the own trust domain hold under each of its names.
fn migrate(trust: &TrustDomains<'_>, policy: &mut Policy) {
    for condition in policy.rules.iter_mut().flat_map(|rule| &mut rule.when) {
        trust.values(&condition.key, &mut condition.values);
        trust.values(&condition.key, &mut condition.not_values);
    }
    if let Some(header) = &mut policy.risk.header {
        trust.principals(&mut header.from);
    }
}

/// Says what a policy does that its author hardly means.
fn remark(index: &Index<'_>, written: &Written<'_, AccessPolicy>) {
    let (object, spec) = (written.object, written.spec);
    let allows = spec.rules.iter().any(|rule| rule.effect == Some(AccessEffect::Allow));
    if !allows && spec.default == AccessDefault::Deny {
        let message = "has no rule that allows: every request is refused".to_owned();
        let hint = "write a rule with `effect: Allow`, or `default: Allow`";
        index.notes.warn(object, "spec.rules", "denies-all", message, hint);
    }
    let given = |name: &String| spec.roles.iter().any(|role| role.permissions.contains(name));
    for (at, permission) in spec.permissions.iter().enumerate().filter(|(_, one)| !given(&one.name)) {
        let field = format!("spec.permissions[{at}]");
        let message = format!("no role gives `{}`: the requests that need it are refused", permission.name);
        let hint = "name it in `permissions` of a role";
        index.notes.warn(object, &field, "permission-not-given", message, hint);
    }
}
