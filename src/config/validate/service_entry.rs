//! Checks of `ServiceEntry` and `WorkloadEntry`.

use std::net::IpAddr;

use super::parts;
use crate::config::decode::Report;
use crate::config::resources::istio::service_entry::{Resolution, ServiceEntry, WorkloadEntry};

pub(super) fn check(spec: &ServiceEntry, report: &mut Report<'_>) {
    if spec.hosts.is_empty() {
        report.error("no-host", "spec.hosts", "is empty", "name the service, as in `[api.example.com]`");
    }
    let resolution = spec.resolution.unwrap_or_default();
    let by_name = matches!(resolution, Resolution::Dns | Resolution::DnsRoundRobin);
    for (index, host) in spec.hosts.iter().enumerate() {
        let field = format!("spec.hosts[{index}]");
        parts::host(report, &field, host, true);
        if host == "*" {
            report.error(
                "wildcard-host",
                &field,
                "`*` would take every host",
                "name the hosts, as in `*.example.com`",
            );
        } else if host.starts_with('*') && by_name && spec.endpoints.is_empty() {
            let hint = "use `resolution: NONE`, or name `endpoints`";
            report.error("wildcard-host", &field, "a wildcard cannot be looked up", hint);
        }
    }
    for (index, address) in spec.addresses.iter().enumerate() {
        parts::subnet(report, &format!("spec.addresses[{index}]"), address);
    }
    parts::export_to(report, "spec.exportTo", &spec.export_to);
    ports(spec, report);
    endpoints(spec, resolution, report);
}

fn ports(spec: &ServiceEntry, report: &mut Report<'_>) {
    for (index, port) in spec.ports.iter().enumerate() {
        let field = format!("spec.ports[{index}]");
        parts::port(report, &format!("{field}.number"), port.number);
        if port.name.is_empty() {
            report.error("no-name", &format!("{field}.name"), "is empty", "name the port, as in `http`");
        }
        if let Some(protocol) = &port.protocol {
            parts::protocol(report, &format!("{field}.protocol"), protocol);
        }
        if let Some(target) = port.target_port {
            parts::port(report, &format!("{field}.targetPort"), target);
        }
    }
    let ports = || spec.ports.iter().enumerate();
    parts::unique(
        report,
        "name",
        ports().map(|(index, port)| (format!("spec.ports[{index}].name"), &port.name)),
    );
    parts::unique(
        report,
        "number",
        ports().map(|(index, port)| (format!("spec.ports[{index}].number"), port.number)),
    );
}

fn endpoints(spec: &ServiceEntry, resolution: Resolution, report: &mut Report<'_>) {
    if spec.workload_selector.is_some() && !spec.endpoints.is_empty() {
        report.error("conflict", "spec.workloadSelector", "stands beside `endpoints`", "keep one of the two");
    }
    if matches!(resolution, Resolution::None | Resolution::DynamicDns) && !spec.endpoints.is_empty() {
        let hint = "write `resolution: STATIC` for addresses, or `DNS` for names";
        report.error("conflict", "spec.endpoints", "cannot be used with this `resolution`", hint);
    }
    if resolution == Resolution::Static && spec.endpoints.is_empty() && spec.workload_selector.is_none() {
        report.error(
            "no-endpoint",
            "spec.endpoints",
            "is empty although `resolution` is STATIC",
            "add endpoints",
        );
    }
    for (index, endpoint) in spec.endpoints.iter().enumerate() {
        let field = format!("spec.endpoints[{index}]");
        check_workload(endpoint, &field, report);
        let name = endpoint.address.as_deref().unwrap_or_default();
        let fixed = name.parse::<IpAddr>().is_ok() || name.starts_with("unix:");
        if resolution == Resolution::Static && !fixed && !name.is_empty() {
            let message = format!("`{name}` is no address, although `resolution` is STATIC");
            report.error(
                "bad-address",
                &format!("{field}.address"),
                message,
                "write an address, or `resolution: DNS`",
            );
        }
        for key in endpoint.ports.keys().filter(|key| !spec.ports.iter().any(|port| port.name == **key)) {
            let mut field = format!("{field}.ports");
            crate::config::spans::push_key(&mut field, key);
            report.error(
                "unknown-port",
                &field,
                format!("`{key}` is no port of the service"),
                "use a name out of `spec.ports`",
            );
        }
    }
}

pub(super) fn check_workload(spec: &WorkloadEntry, field: &str, report: &mut Report<'_>) {
    let at = format!("{field}.address");
    match spec.address.as_deref() {
        None | Some("") if spec.network.is_none() => {
            report.error("no-address", &at, "is missing", "write the address of the workload");
        }
        Some(path) if path.starts_with("unix:") => parts::address(report, &at, path, false),
        Some(name) if !name.is_empty() => parts::host(report, &at, name, false),
        _ => {}
    }
    for (name, port) in &spec.ports {
        let mut field = format!("{field}.ports");
        crate::config::spans::push_key(&mut field, name);
        parts::port(report, &field, *port);
    }
}
