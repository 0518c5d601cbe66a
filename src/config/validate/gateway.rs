//! Checks of `Gateway` and `Sidecar`.

use super::parts;
use crate::config::decode::Report;
use crate::config::resources::istio::gateway::{Gateway, Server};
use crate::config::resources::istio::sidecar::{IngressListener, Sidecar};

pub(super) fn check(spec: &Gateway, report: &mut Report<'_>) {
    if spec.servers.is_empty() {
        report.error("no-server", "spec.servers", "is empty", "add a server with `port` and `hosts`");
    }
    for (index, of) in spec.servers.iter().enumerate() {
        server(report, &format!("spec.servers[{index}]"), of);
    }
}

fn server(report: &mut Report<'_>, field: &str, of: &Server) {
    match &of.port {
        None => report.error(
            "bad-port",
            &format!("{field}.port"),
            "is missing",
            "write `port: {number: 80, name: http, protocol: HTTP}`",
        ),
        Some(port) => {
            parts::port(report, &format!("{field}.port.number"), port.number);
            parts::protocol(report, &format!("{field}.port.protocol"), &port.protocol);
            let secure =
                port.protocol.eq_ignore_ascii_case("HTTPS") || port.protocol.eq_ignore_ascii_case("TLS");
            if secure && of.tls.is_none() {
                let message = format!("is missing although the protocol is {}", port.protocol);
                report.error(
                    "no-tls",
                    &format!("{field}.tls"),
                    message,
                    "say how TLS is terminated, or write `protocol: HTTP`",
                );
            }
        }
    }
    if of.hosts.is_empty() {
        report.error("no-host", &format!("{field}.hosts"), "is empty", "name the hosts; `*` is any");
    }
    for (index, host) in of.hosts.iter().enumerate() {
        parts::scoped_host(report, &format!("{field}.hosts[{index}]"), host, false);
    }
}

pub(super) fn check_sidecar(spec: &Sidecar, report: &mut Report<'_>) {
    for (index, of) in spec.ingress.iter().enumerate() {
        ingress(report, &format!("spec.ingress[{index}]"), of);
    }
    let ports = spec.ingress.iter().enumerate().filter_map(|(index, of)| {
        of.port.as_ref().map(|port| (format!("spec.ingress[{index}].port.number"), port.number))
    });
    parts::unique(report, "port", ports);
    for (index, egress) in spec.egress.iter().enumerate() {
        let field = format!("spec.egress[{index}]");
        if egress.hosts.is_empty() {
            report.error("no-host", &format!("{field}.hosts"), "is empty", "name the services, as in `./*`");
        }
        for (index, host) in egress.hosts.iter().enumerate() {
            parts::scoped_host(report, &format!("{field}.hosts[{index}]"), host, true);
        }
        if let Some(port) = &egress.port {
            let unix = egress.bind.as_deref().is_some_and(|bind| bind.starts_with("unix:"));
            if !unix {
                parts::port(report, &format!("{field}.port.number"), port.number);
            }
        } else if index + 1 < spec.egress.len() {
            let hint = "put the listener without a port at the end; it takes what the others leave";
            report.error("listener-order", &field, "a listener without a port is not the last", hint);
        }
    }
    parts::connection_pool(report, "spec.inboundConnectionPool", spec.inbound_connection_pool.as_ref());
    if let Some(proxy) = spec.outbound_traffic_policy.as_ref().and_then(|policy| policy.egress_proxy.as_ref())
    {
        parts::destination(report, "spec.outboundTrafficPolicy.egressProxy", proxy);
    }
}

fn ingress(report: &mut Report<'_>, field: &str, of: &IngressListener) {
    match &of.port {
        None => report.error(
            "bad-port",
            &format!("{field}.port"),
            "is missing",
            "write `port: {number: 80, name: http, protocol: HTTP}`",
        ),
        Some(port) => {
            parts::port(report, &format!("{field}.port.number"), port.number);
            if let Some(protocol) = &port.protocol {
                parts::protocol(report, &format!("{field}.port.protocol"), protocol);
            }
        }
    }
    if let Some(endpoint) = of.default_endpoint.as_deref().filter(|endpoint| !endpoint.is_empty()) {
        let local = ["127.0.0.1:", "0.0.0.0:", "[::1]:", "[::]:", "unix:/"]
            .iter()
            .any(|head| endpoint.starts_with(head));
        let field = format!("{field}.defaultEndpoint");
        if local {
            parts::address(report, &field, endpoint, false);
        } else {
            let hint = "write `127.0.0.1:PORT`, `0.0.0.0:PORT` or `unix:///path`";
            report.error("bad-address", &field, format!("`{endpoint}` is not of this workload"), hint);
        }
    }
    parts::connection_pool(report, &format!("{field}.connectionPool"), of.connection_pool.as_ref());
}
