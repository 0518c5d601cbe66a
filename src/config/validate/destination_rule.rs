//! Checks of a `DestinationRule`.

use super::parts;
use crate::config::decode::Report;
use crate::config::resources::istio::destination_rule::{
    ClientTls, ClientTlsMode, DestinationRule, LoadBalancer, OutlierDetection, PortTrafficPolicy, SimpleLb,
    TrafficPolicy,
};

pub(super) fn check(spec: &DestinationRule, report: &mut Report<'_>) {
    parts::host(report, "spec.host", &spec.host, true);
    parts::export_to(report, "spec.exportTo", &spec.export_to);
    policy(report, "spec.trafficPolicy", spec.traffic_policy.as_ref());
    for (index, subset) in spec.subsets.iter().enumerate() {
        let field = format!("spec.subsets[{index}]");
        if subset.name.is_empty() {
            report.error("no-name", &format!("{field}.name"), "is empty", "name the subset, as routes do");
        }
        policy(report, &format!("{field}.trafficPolicy"), subset.traffic_policy.as_ref());
    }
    let names = spec
        .subsets
        .iter()
        .enumerate()
        .map(|(index, subset)| (format!("spec.subsets[{index}].name"), &subset.name));
    parts::unique(report, "name", names);
}

fn policy(report: &mut Report<'_>, field: &str, policy: Option<&TrafficPolicy>) {
    let Some(policy) = policy else { return };
    load_balancer(report, &format!("{field}.loadBalancer"), policy.load_balancer.as_ref());
    parts::connection_pool(report, &format!("{field}.connectionPool"), policy.connection_pool.as_ref());
    outlier_detection(report, &format!("{field}.outlierDetection"), policy.outlier_detection.as_ref());
    client_tls(report, &format!("{field}.tls"), policy.tls.as_ref());
    for (index, settings) in policy.port_level_settings.iter().enumerate() {
        let field = format!("{field}.portLevelSettings[{index}]");
        let PortTrafficPolicy {
            port,
            load_balancer: balancer,
            connection_pool,
            outlier_detection: outliers,
            tls,
        } = settings;
        if port.is_none() {
            report.error("bad-port", &format!("{field}.port"), "is missing", "write `port: {number: ...}`");
        }
        parts::port_selector(report, &format!("{field}.port"), port.as_ref());
        load_balancer(report, &format!("{field}.loadBalancer"), balancer.as_ref());
        parts::connection_pool(report, &format!("{field}.connectionPool"), connection_pool.as_ref());
        outlier_detection(report, &format!("{field}.outlierDetection"), outliers.as_ref());
        client_tls(report, &format!("{field}.tls"), tls.as_ref());
    }
    let ports = policy.port_level_settings.iter().enumerate().filter_map(|(index, settings)| {
        settings
            .port
            .as_ref()
            .map(|port| (format!("{field}.portLevelSettings[{index}].port.number"), port.number))
    });
    parts::unique(report, "port", ports);
}

fn client_tls(report: &mut Report<'_>, field: &str, of: Option<&ClientTls>) {
    let Some(of) = of else { return };
    let is_set = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    let files = is_set(&of.client_certificate) || is_set(&of.private_key);
    match of.mode.unwrap_or_default() {
        ClientTlsMode::Mutual if !is_set(&of.credential_name) => {
            for (name, written) in
                [("clientCertificate", &of.client_certificate), ("privateKey", &of.private_key)]
            {
                if !is_set(written) {
                    let hint = "write the path of the file, or `credentialName` for both";
                    report.error(
                        "no-certificate",
                        &format!("{field}.{name}"),
                        "is missing with mode MUTUAL",
                        hint,
                    );
                }
            }
        }
        ClientTlsMode::IstioMutual if files || is_set(&of.ca_certificates) || is_set(&of.credential_name) => {
            let hint = "leave certificates out, they are the mesh's; or write `mode: MUTUAL`";
            report.error("conflict", field, "names certificates with mode ISTIO_MUTUAL", hint);
        }
        ClientTlsMode::Simple if files => {
            let hint = "write `mode: MUTUAL`, or leave the client certificate out";
            report.error("conflict", field, "names a client certificate with mode SIMPLE", hint);
        }
        _ => {}
    }
    if is_set(&of.credential_name) && (files || is_set(&of.ca_certificates)) {
        let hint = "keep `credentialName` or the files";
        report.error("conflict", &format!("{field}.credentialName"), "stands beside files", hint);
    }
}

fn load_balancer(report: &mut Report<'_>, field: &str, of: Option<&LoadBalancer>) {
    let Some(of) = of else { return };
    if of.simple.is_some() && of.consistent_hash.is_some() {
        report.error(
            "conflict",
            &format!("{field}.consistentHash"),
            "stands beside `simple`",
            "keep one of the two",
        );
    }
    if of.simple == Some(SimpleLb::LeastConn) {
        let message = "LEAST_CONN is deprecated; it is taken as LEAST_REQUEST";
        report.warning("deprecated", &format!("{field}.simple"), message, "write LEAST_REQUEST");
    }
}

fn outlier_detection(report: &mut Report<'_>, field: &str, of: Option<&OutlierDetection>) {
    let Some(of) = of else { return };
    if of.consecutive_errors.is_some() {
        let hint =
            "write `consecutiveGatewayErrors` for 502, 503 and 504, or `consecutive5xxErrors` for every 5xx";
        report.warning(
            "deprecated",
            &format!("{field}.consecutiveErrors"),
            "is deprecated and has no effect in Istio",
            hint,
        );
    }
    parts::positive(report, &format!("{field}.interval"), of.interval);
    parts::positive(report, &format!("{field}.baseEjectionTime"), of.base_ejection_time);
    for (name, value) in
        [("maxEjectionPercent", of.max_ejection_percent), ("minHealthPercent", of.min_health_percent)]
    {
        if let Some(value) = value {
            parts::share_of_100(report, &format!("{field}.{name}"), f64::from(value));
        }
    }
}
