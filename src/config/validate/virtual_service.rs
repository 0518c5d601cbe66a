//! Checks of a `VirtualService`, as Istio's own validation has them.

use super::parts;
use super::virtual_service_action as action;
use crate::config::decode::Report;
use crate::config::resources::istio::virtual_service::{
    HttpMatch, HttpRoute, L4Match, RouteDestination, TcpRoute, TlsMatch, TlsRoute, VirtualService,
};
use crate::config::resources::string_match::StringMatch;

pub(super) fn check(spec: &VirtualService, report: &mut Report<'_>) {
    hosts(spec, report);
    parts::export_to(report, "spec.exportTo", &spec.export_to);
    for (index, gateway) in spec.gateways.iter().enumerate() {
        gateway_name(report, &format!("spec.gateways[{index}]"), gateway);
    }
    if spec.http.is_empty() && spec.tls.is_empty() && spec.tcp.is_empty() {
        report.error("no-route", "spec", "has no route", "add `http`, `tls` or `tcp`");
    }
    for (index, route) in spec.http.iter().enumerate() {
        http_route(report, &format!("spec.http[{index}]"), route);
    }
    if let Some(index) =
        spec.http.iter().position(|route| route.matches.is_empty()).filter(|i| i + 1 < spec.http.len())
    {
        report.warning(
            "unreachable-route",
            &format!("spec.http[{}]", index + 1),
            format!("is never reached: spec.http[{index}] has no match and takes every request"),
            "move the route without a match to the end",
        );
    }
    for (index, route) in spec.tls.iter().enumerate() {
        tls_route(report, &format!("spec.tls[{index}]"), route);
    }
    for (index, route) in spec.tcp.iter().enumerate() {
        tcp_route(report, &format!("spec.tcp[{index}]"), route);
    }
}

fn hosts(spec: &VirtualService, report: &mut Report<'_>) {
    // Without hosts it is one that others delegate to, which holds HTTP routes alone.
    if spec.hosts.is_empty() && (!spec.gateways.is_empty() || !spec.tls.is_empty() || !spec.tcp.is_empty()) {
        let hint =
            "name the hosts; only a VirtualService that others delegate to has none, and it has `http` alone";
        report.error("no-host", "spec.hosts", "is empty", hint);
    }
    let in_mesh = spec.gateways.is_empty() || spec.gateways.iter().any(|gateway| gateway == "mesh");
    for (index, host) in spec.hosts.iter().enumerate() {
        let field = format!("spec.hosts[{index}]");
        if host == "*" && in_mesh {
            let hint = "name the hosts, or bind it to a gateway with `gateways`";
            report.error("wildcard-host", &field, "`*` would take every request of the mesh", hint);
        } else {
            parts::host(report, &field, host, true);
        }
    }
    parts::unique(
        report,
        "host",
        spec.hosts.iter().enumerate().map(|(index, host)| (format!("spec.hosts[{index}]"), host)),
    );
}

fn gateway_name(report: &mut Report<'_>, field: &str, name: &str) {
    let name = name.split_once('/').map_or(name, |(_, name)| name);
    if name.is_empty() || name.contains('/') {
        report.error(
            "bad-gateway",
            field,
            "is no name of a Gateway",
            "write `mesh`, `name` or `namespace/name`",
        );
    }
}

fn http_route(report: &mut Report<'_>, field: &str, route: &HttpRoute) {
    for (index, matched) in route.matches.iter().enumerate() {
        http_match(report, &format!("{field}.match[{index}]"), matched);
    }
    action::check(report, field, route);
}

fn http_match(report: &mut Report<'_>, field: &str, matched: &HttpMatch) {
    let strings = [
        ("uri", &matched.uri),
        ("scheme", &matched.scheme),
        ("method", &matched.method),
        ("authority", &matched.authority),
    ];
    for (name, value) in strings {
        if let Some(value) = value {
            parts::string_match(report, &format!("{field}.{name}"), value, false);
        }
    }
    if let Some(StringMatch::Exact(path) | StringMatch::Prefix(path)) = &matched.uri
        && !path.is_empty()
        && path != "*"
        && !path.starts_with('/')
    {
        let message = format!("`{path}` never matches: a path begins with `/`");
        report.warning("never-matches", &format!("{field}.uri"), message, format!("write `/{path}`"));
    }
    for (name, headers) in [("headers", &matched.headers), ("withoutHeaders", &matched.without_headers)] {
        for (header, value) in headers {
            let mut field = format!("{field}.{name}");
            crate::config::spans::push_key(&mut field, header);
            // Envoy's pseudo-headers may be matched as headers.
            parts::header_name(report, &field, header.strip_prefix(':').unwrap_or(header));
            parts::string_match(report, &field, value, true);
        }
    }
    for (parameter, value) in &matched.query_params {
        let mut field = format!("{field}.queryParams");
        crate::config::spans::push_key(&mut field, parameter);
        parts::string_match(report, &field, value, true);
    }
    if let Some(port) = matched.port {
        parts::port(report, &format!("{field}.port"), port);
    }
}

fn tls_route(report: &mut Report<'_>, field: &str, route: &TlsRoute) {
    if route.matches.is_empty() {
        report.error("no-match", &format!("{field}.match"), "is empty", "add a match with `sniHosts`");
    }
    for (index, matched) in route.matches.iter().enumerate() {
        let field = format!("{field}.match[{index}]");
        let TlsMatch { sni_hosts, destination_subnets, port, .. } = matched;
        if sni_hosts.is_empty() {
            report.error(
                "no-sni",
                &format!("{field}.sniHosts"),
                "is empty",
                "name the servers, as in `[shop.example.com]`",
            );
        }
        for (index, host) in sni_hosts.iter().enumerate() {
            parts::host(report, &format!("{field}.sniHosts[{index}]"), host, true);
        }
        l4(report, &field, destination_subnets, *port);
    }
    destinations(report, field, &route.route);
}

fn tcp_route(report: &mut Report<'_>, field: &str, route: &TcpRoute) {
    for (index, matched) in route.matches.iter().enumerate() {
        let field = format!("{field}.match[{index}]");
        let L4Match { destination_subnets, port, source_subnet, .. } = matched;
        l4(report, &field, destination_subnets, *port);
        if let Some(subnet) = source_subnet {
            parts::subnet(report, &format!("{field}.sourceSubnet"), subnet);
        }
    }
    destinations(report, field, &route.route);
}

fn l4(report: &mut Report<'_>, field: &str, subnets: &[String], port: Option<u16>) {
    for (index, subnet) in subnets.iter().enumerate() {
        parts::subnet(report, &format!("{field}.destinationSubnets[{index}]"), subnet);
    }
    if let Some(port) = port {
        parts::port(report, &format!("{field}.port"), port);
    }
}

fn destinations(report: &mut Report<'_>, field: &str, routes: &[RouteDestination]) {
    let field = format!("{field}.route");
    if routes.is_empty() {
        report.error("no-route", &field, "has no destination", "add `- destination: {host: ...}`");
    }
    for (index, route) in routes.iter().enumerate() {
        parts::destination(report, &format!("{field}[{index}].destination"), &route.destination);
    }
    parts::weights(report, &field, &routes.iter().map(|route| route.weight).collect::<Vec<_>>());
}
