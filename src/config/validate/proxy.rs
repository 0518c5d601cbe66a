//! Checks of a `Proxy`.

use super::parts;
use crate::config::decode::Report;
use crate::config::resources::proxy::{Find, Identity, Proxy};
use crate::telemetry::redact::Redaction as Compiled;

pub(super) fn check(spec: &Proxy, report: &mut Report<'_>) {
    for (name, addresses) in [("outbound", &spec.outbound.addresses), ("inbound", &spec.inbound.addresses)] {
        for (index, address) in addresses.iter().enumerate() {
            parts::address(report, &format!("spec.{name}.addresses[{index}]"), address, false);
        }
    }
    for (name, address) in [("admin", &spec.admin), ("health", &spec.health), ("metrics", &spec.metrics)] {
        parts::address(report, &format!("spec.{name}.address"), &address.address, false);
    }
    if let Some(application) = &spec.inbound.application {
        parts::address(report, "spec.inbound.application", application, false);
    }
    if spec.workers == Some(0) {
        report.error("bad-number", "spec.workers", "is 0", "write 1 or more, or leave it out");
    }
    for (from, to) in &spec.gateway.ports {
        let mut field = "spec.gateway.ports".to_owned();
        crate::config::spans::push_key(&mut field, from);
        if !from.parse::<u16>().is_ok_and(|port| port > 0) || *to == 0 {
            report.error(
                "bad-port",
                &field,
                format!("`{from}: {to}` maps no ports"),
                "write as in `80: 8080`",
            );
        }
    }
    for (at, net) in spec.gateway.proxy_protocol_from.iter().enumerate() {
        parts::subnet(report, &format!("spec.gateway.proxyProtocolFrom[{at}]"), net);
    }
    if let Some(bind) = spec.gateway.bind.as_deref().filter(|bind| bind.parse::<std::net::IpAddr>().is_err())
    {
        report.error(
            "bad-address",
            "spec.gateway.bind",
            format!("`{bind}` is no IP address"),
            "write an IP address without a port, as in `127.0.0.1`",
        );
    }
    let domain = &spec.trust_domain;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    if !(1..=255).contains(&domain.len()) || !domain.bytes().all(plain) {
        report.error(
            "bad-trust-domain",
            "spec.trustDomain",
            format!("`{domain}` is no trust domain"),
            "use lower-case letters, digits, `.`, `-` and `_`",
        );
    }
    if spec.drain.propagation > spec.drain.grace_period {
        let hint = "`gracePeriod` counts from SIGTERM and contains `propagation`";
        report.error("bad-drain", "spec.drain.propagation", "is longer than the grace period", hint);
    }
    if !(0.0..=100.0).contains(&spec.explain.allowed_percent) {
        let message = format!("is {}", spec.explain.allowed_percent);
        report.error("bad-number", "spec.explain.allowedPercent", message, "write a number from 0 to 100");
    }
    redaction(spec, report);
    if let Some(identity) = &spec.identity {
        let Identity { files, sds, istio, spiffe } = identity;
        let forms = [files.is_some(), sds.is_some(), istio.is_some(), spiffe.is_some()];
        if forms.into_iter().filter(|form| *form).count() != 1 {
            report.error(
                "bad-identity",
                "spec.identity",
                "has not exactly one form",
                "keep one of `files`, `sds`, `istio`, `spiffe`",
            );
        }
    }
    if let Some(xds) = &spec.discovery.xds {
        parts::address(report, "spec.discovery.xds.address", &xds.address, true);
    }
}

/// A rule that cannot be used would show what it was to hide.
fn redaction(spec: &Proxy, report: &mut Report<'_>) {
    for (at, mask) in spec.redaction.masks.iter().enumerate() {
        let field = format!("spec.redaction.masks[{at}].pattern");
        match (mask.find, &mask.pattern) {
            (Find::Pattern, None) => {
                report.error(
                    "bad-mask",
                    &field,
                    "is missing",
                    "write an expression, or `find: Email`, `Phone` or `Card`",
                );
                return;
            }
            (Find::Pattern, Some(_)) | (_, None) => {}
            (_, Some(_)) => {
                report.error("bad-mask", &field, "has no effect with `find`", "remove one of them");
            }
        }
    }
    if let Err(error) = Compiled::new(&spec.redaction.rules()) {
        let hint = "header names have letters, digits and `-`; expressions have the syntax of RE2";
        report.error("bad-redaction", &format!("spec.redaction.{}", error.field), error.message, hint);
    }
}
