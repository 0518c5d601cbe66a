//! Checks of Kubernetes objects, which the API server has seen before in a cluster but not on a laptop.

use std::net::IpAddr;

use super::parts;
use crate::config::decode::Report;
use crate::config::resources::kubernetes::{EndpointSlice, Service, ServiceType};

pub(super) fn check_service(spec: &Service, report: &mut Report<'_>) {
    for (index, port) in spec.ports.iter().enumerate() {
        parts::port(report, &format!("spec.ports[{index}].port"), port.port);
        if spec.ports.len() > 1 && port.name.as_deref().unwrap_or_default().is_empty() {
            let hint = "name each port when there are several, as in `http`";
            report.error("no-name", &format!("spec.ports[{index}].name"), "is empty", hint);
        }
    }
    let named = spec.ports.iter().enumerate();
    let names = named.filter_map(|(index, port)| {
        port.name.as_ref().map(|name| (format!("spec.ports[{index}].name"), name))
    });
    parts::unique(report, "name", names);
    if spec.service_type == Some(ServiceType::ExternalName) {
        parts::host(report, "spec.externalName", spec.external_name.as_deref().unwrap_or_default(), false);
    }
}

pub(super) fn check_slice(spec: &EndpointSlice, report: &mut Report<'_>) {
    // Its addresses are names, and it is refused for that.
    if spec.address_type.as_deref() == Some("FQDN") {
        return;
    }
    for (index, endpoint) in spec.endpoints.iter().enumerate() {
        for (place, address) in endpoint.addresses.iter().enumerate() {
            let field = format!("endpoints[{index}].addresses[{place}]");
            if address.parse::<IpAddr>().is_err() {
                report.error(
                    "bad-address",
                    &field,
                    format!("`{address}` is no IP address"),
                    "write one as in `10.0.0.1`",
                );
            }
        }
    }
    for (index, port) in spec.ports.iter().enumerate() {
        if let Some(number) = port.port {
            parts::port(report, &format!("ports[{index}].port"), number);
        }
    }
}
