//! Checks of the security kinds, where a misunderstanding would let somebody in.

use super::parts;
use crate::config::decode::Report;
use crate::config::resources::Resource;
use crate::config::resources::istio::security::{
    AuthorizationAction, AuthorizationPolicy, PeerAuthentication, RequestAuthentication,
};
use crate::config::translate::authorization;

pub(super) fn check_peer(spec: &PeerAuthentication, report: &mut Report<'_>) {
    for port in spec.port_level_mtls.keys().filter(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
        let mut field = "spec.portLevelMtls".to_owned();
        crate::config::spans::push_key(&mut field, port);
        report.error("bad-port", &field, format!("`{port}` is no port"), "write a number from 1 to 65535");
    }
    if !spec.port_level_mtls.is_empty()
        && spec.selector.as_ref().is_none_or(|selector| selector.match_labels.is_empty())
    {
        let hint = "add `selector: {matchLabels: ...}`; ports belong to workloads";
        report.error("no-selector", "spec.portLevelMtls", "has no effect without a selector", hint);
    }
}

pub(super) fn check_request(spec: &RequestAuthentication, report: &mut Report<'_>) {
    for (index, rule) in spec.jwt_rules.iter().enumerate() {
        let field = format!("spec.jwtRules[{index}]");
        if rule.issuer.is_empty() {
            report.error(
                "no-issuer",
                &format!("{field}.issuer"),
                "is empty",
                "write the `iss` claim of the tokens",
            );
        }
        if rule.jwks.is_some() && rule.jwks_uri.is_some() {
            report.error(
                "conflict",
                &format!("{field}.jwksUri"),
                "stands beside `jwks`",
                "keep one of the two",
            );
        }
        for (index, header) in rule.from_headers.iter().enumerate() {
            parts::header_name(report, &format!("{field}.fromHeaders[{index}].name"), &header.name);
        }
        for (index, claim) in rule.output_claim_to_headers.iter().enumerate() {
            parts::header_name(
                report,
                &format!("{field}.outputClaimToHeaders[{index}].header"),
                &claim.header,
            );
        }
        if let Some(header) = &rule.output_payload_to_header {
            parts::header_name(report, &format!("{field}.outputPayloadToHeader"), header);
        }
    }
}

pub(super) fn check_authorization(resource: &Resource, spec: &AuthorizationPolicy, report: &mut Report<'_>) {
    if (spec.action == AuthorizationAction::Custom) != spec.provider.is_some() {
        let hint = "`action: CUSTOM` and `provider: {name: ...}` belong together";
        report.error("no-provider", "spec.provider", "does not fit the action", hint);
    }
    if spec.selector.is_some() && (spec.target_ref.is_some() || !spec.target_refs.is_empty()) {
        let hint = "keep one of the two";
        report.error("conflict", "spec.selector", "stands beside `targetRefs`", hint);
    }
    for fault in filter_authorization::check(&authorization::policy(resource, spec)) {
        report.error("bad-policy", &format!("spec.{}", fault.field), fault.message, fault.hint);
    }
}
