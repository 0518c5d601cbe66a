//! Checks of the security kinds, where a misunderstanding would let somebody in.

use super::parts;
use crate::config::decode::Report;
use crate::config::resources::Resource;
use crate::config::resources::istio::security::{
    AuthorizationAction, AuthorizationPolicy, PeerAuthentication, RequestAuthentication,
};
use crate::config::translate::{authorization, custom};
use filter_jwt::{Jwks, KeyOrigin, output_header};

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
        if let Some(keys) = rule.jwks.as_deref().filter(|keys| !keys.is_empty()) {
            match Jwks::parse(keys.as_bytes(), KeyOrigin::Inline) {
                Ok(keys) => {
                    for refused in keys.refused() {
                        let hint = "tokens that it signed are refused; the other keys are in use";
                        report.warning("jwks-key", &format!("{field}.jwks"), refused.as_str(), hint);
                    }
                }
                Err(error) => {
                    let hint = "write the JSON of a key set, as in `{\"keys\": [...]}`";
                    report.error("bad-jwks", &format!("{field}.jwks"), error, hint);
                }
            }
        }
        if let Some(uri) = rule.jwks_uri.as_deref().filter(|uri| !uri.is_empty()) {
            let known = uri.parse::<http::Uri>().ok().filter(|uri| {
                matches!(uri.scheme_str(), Some("http" | "https"))
                    && uri.host().is_some_and(|host| !host.is_empty())
            });
            if known.is_none() {
                let hint = "write `https://HOST/PATH` or `http://SERVICE:PORT/PATH`";
                report.error(
                    "bad-uri",
                    &format!("{field}.jwksUri"),
                    format!("`{uri}` is no URI of keys"),
                    hint,
                );
            }
        }
        for (index, claim) in
            rule.output_claim_to_headers.iter().enumerate().filter(|(_, claim)| claim.claim.is_empty())
        {
            let at = format!("{field}.outputClaimToHeaders[{index}].claim");
            report.error(
                "no-claim",
                &at,
                format!("header {} would get nothing", claim.header),
                "write the claim, as in `sub`",
            );
        }
        for (name, values) in [("fromParams", &rule.from_params), ("fromCookies", &rule.from_cookies)] {
            for (index, _) in values.iter().enumerate().filter(|(_, value)| value.is_empty()) {
                report.error("no-name", &format!("{field}.{name}[{index}]"), "is empty", "write a name");
            }
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
        let claims = rule.output_claim_to_headers.iter().enumerate();
        // Empty is none, as in Istio.
        let payload = rule.output_payload_to_header.iter().filter(|header| !header.is_empty());
        let outputs = claims
            .map(|(index, claim)| (format!("{field}.outputClaimToHeaders[{index}].header"), &claim.header))
            .chain(payload.map(|header| (format!("{field}.outputPayloadToHeader"), header)));
        for (at, header) in outputs {
            if let Err(error) = output_header(header) {
                report.error("bad-header", &at, error, "write a header of your own");
            }
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
    if spec.action == AuthorizationAction::Custom {
        for (message, hint) in custom::terms(resource).err().unwrap_or_default() {
            report.error("bad-annotation", "metadata.annotations", message, hint);
        }
    } else if custom::has_terms(resource) {
        let hint = "leave it out, or write `action: CUSTOM`";
        let message =
            "says what becomes of requests that a provider is asked about, and the policy asks none";
        report.error("bad-annotation", "metadata.annotations", message, hint);
    }
    for fault in filter_authorization::check(&authorization::policy(resource, spec)) {
        report.error("bad-policy", &format!("spec.{}", fault.field), fault.message, fault.hint);
    }
}
