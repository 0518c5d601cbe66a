//! Checks of AccessPolicy, where a misunderstanding would let somebody in.

use crate::config::decode::Report;
use crate::config::resources::Resource;
use crate::config::resources::own::access_policy::AccessPolicy;
use crate::config::resources::scalar::Duration;
use crate::config::translate::access;

pub(super) fn check(resource: &Resource, spec: &AccessPolicy, report: &mut Report<'_>) {
    for (at, rule) in spec.rules.iter().enumerate() {
        if rule.effect.is_none() {
            let hint = "write `effect: Allow`, `StepUp` or `Deny`";
            report.error("no-effect", &format!("spec.rules[{at}]"), "names no effect", hint);
        }
        for (index, action) in rule.actions.iter().enumerate() {
            let said = [action.add_header.is_some(), action.rate_limit.is_some(), action.audit.is_some()];
            if said.into_iter().filter(|said| *said).count() != 1 {
                let field = format!("spec.rules[{at}].actions[{index}]");
                let hint =
                    "write `addHeader: {name: ..., value: ...}` or `audit: {}`, each in an entry of its own";
                report.error("bad-action", &field, "is not one action", hint);
            }
        }
    }
    let ages = [
        ("maxTokenAge", spec.session.max_token_age),
        ("maxCertificateAge", spec.session.max_certificate_age),
    ];
    for (name, _) in ages.into_iter().filter(|(_, age)| age.is_some_and(Duration::is_zero)) {
        let hint = "write a duration, as in `15m`; leave it out for no limit";
        report.error("no-time", &format!("spec.session.{name}"), "is no time at all", hint);
    }
    for fault in filter_authorization::access::check(&access::policy(resource, spec)) {
        report.error("bad-policy", &format!("spec.{}", fault.field), fault.message, fault.hint);
    }
}
