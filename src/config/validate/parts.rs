//! Checks that several kinds share.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use http::HeaderName;
use ipnet::IpNet;

use crate::config::decode::Report;
use crate::config::resources::istio::common::{ConnectionPool, Destination, Percent, PortSelector};
use crate::config::resources::scalar::Duration;
use crate::config::resources::string_match::StringMatch;

const PROTOCOLS: [&str; 11] =
    ["HTTP", "HTTPS", "HTTP2", "GRPC", "GRPC-WEB", "TCP", "TLS", "MONGO", "HTTP_PROXY", "UDP", "HBONE"];

/// A host name, an address, or, where allowed, a name whose first label begins with `*`.
pub(super) fn host(report: &mut Report<'_>, field: &str, text: &str, wildcard: bool) {
    if text.is_empty() {
        report.error(
            "empty-host",
            field,
            "is empty",
            "name a service, as in `cart` or `cart.shop.svc.cluster.local`",
        );
        return;
    }
    if text.parse::<IpAddr>().is_ok() {
        return;
    }
    let plain = match text.strip_prefix('*') {
        Some("") if wildcard => return,
        Some(rest) if wildcard => rest.trim_start_matches('.'),
        Some(_) => {
            report.error("wildcard-host", field, format!("`{text}` is a wildcard"), "name one host");
            return;
        }
        None => text,
    };
    if plain.contains(':') {
        report.error(
            "bad-host",
            field,
            format!("`{text}` has a port"),
            "leave the port out; it has a field of its own",
        );
    } else if !is_host(plain) {
        report.error(
            "bad-host",
            field,
            format!("`{text}` is no host name"),
            "use letters, digits, `-` and `.`, as in `cart.shop`",
        );
    }
}

fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.strip_suffix('.').unwrap_or(text).split('.').all(label)
}

/// `namespace/host`, where the namespace may also be `.`, `*` or `~`, or a host alone where allowed.
pub(super) fn scoped_host(report: &mut Report<'_>, field: &str, text: &str, namespace_required: bool) {
    match text.split_once('/') {
        Some((namespace, name)) => {
            if !matches!(namespace, "." | "*" | "~") && !is_host(namespace) {
                let message = format!("`{namespace}` is no namespace");
                report.error("bad-namespace", field, message, "write `.`, `*`, or a name before the `/`");
            }
            host(report, field, name, true);
        }
        None if namespace_required => {
            report.error(
                "no-namespace",
                field,
                format!("`{text}` names no namespace"),
                format!("write `./{text}` or `*/{text}`"),
            );
        }
        None => host(report, field, text, true),
    }
}

pub(super) fn export_to(report: &mut Report<'_>, field: &str, namespaces: &[String]) {
    for (index, namespace) in namespaces.iter().enumerate() {
        if !matches!(namespace.as_str(), "." | "*" | "~") && !is_host(namespace) {
            let field = format!("{field}[{index}]");
            report.error(
                "bad-namespace",
                &field,
                format!("`{namespace}` is no namespace"),
                "write `.`, `*`, or a name",
            );
        }
    }
}

pub(super) fn port(report: &mut Report<'_>, field: &str, number: u16) {
    if number == 0 {
        report.error("bad-port", field, "is missing or 0", "write a number from 1 to 65535");
    }
}

pub(super) fn port_selector(report: &mut Report<'_>, field: &str, selector: Option<&PortSelector>) {
    if let Some(selector) = selector {
        port(report, &format!("{field}.number"), selector.number);
    }
}

pub(super) fn protocol(report: &mut Report<'_>, field: &str, text: &str) {
    if !PROTOCOLS.iter().any(|known| known.eq_ignore_ascii_case(text)) {
        report.error(
            "bad-protocol",
            field,
            format!("`{text}` is no protocol"),
            format!("write one of {}", PROTOCOLS.join(", ")),
        );
    }
}

pub(super) fn header_name(report: &mut Report<'_>, field: &str, name: &str) {
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        report.error(
            "bad-header",
            field,
            format!("`{name}` is no header name"),
            "use letters, digits and `-`",
        );
    }
}

pub(super) fn regex(report: &mut Report<'_>, field: &str, pattern: &str) {
    if let Err(error) = filter_api::re2::whole(pattern) {
        refused(report, "bad-regex", field, &error);
    }
}

/// Reports what a compiler says: the fault, and behind the last `; ` what to write instead.
pub(super) fn refused(report: &mut Report<'_>, code: &'static str, field: &str, error: &str) {
    let (message, hint) = error.rsplit_once("; ").unwrap_or((error, ""));
    report.error(code, field, message.to_owned(), hint.to_owned());
}

pub(super) fn string_match(
    report: &mut Report<'_>,
    field: &str,
    matched: &StringMatch,
    may_be_present: bool,
) {
    match matched {
        StringMatch::Regex(pattern) => regex(report, &format!("{field}.regex"), pattern),
        StringMatch::Present if !may_be_present => {
            report.error(
                "empty-match",
                field,
                "says not how to match",
                "write one of `exact`, `prefix`, `regex`",
            );
        }
        _ => {}
    }
}

/// A time that must be at least a millisecond where it is written, as Istio asks.
pub(super) fn positive(report: &mut Report<'_>, field: &str, duration: Option<Duration>) {
    if duration.is_some_and(|duration| duration.0.as_millis() == 0) {
        report.error(
            "bad-duration",
            field,
            "is less than a millisecond",
            "write a longer time, or leave it out",
        );
    }
}

pub(super) fn percent(report: &mut Report<'_>, field: &str, share: Option<&Percent>) {
    if let Some(share) = share {
        share_of_100(report, &format!("{field}.value"), share.value);
    }
}

pub(super) fn share_of_100(report: &mut Report<'_>, field: &str, value: f64) {
    if !(0.0..=100.0).contains(&value) {
        report.error(
            "bad-percent",
            field,
            format!("`{value}` is no share of 100"),
            "write a number from 0 to 100",
        );
    }
}

pub(super) fn subnet(report: &mut Report<'_>, field: &str, text: &str) {
    if text.parse::<IpNet>().is_err() && text.parse::<IpAddr>().is_err() {
        report.error(
            "bad-subnet",
            field,
            format!("`{text}` is no address range"),
            "write it as in `10.0.0.0/8`",
        );
    }
}

/// A place to listen or connect to: `host:port` or `unix:/path`.
pub(super) fn address(report: &mut Report<'_>, field: &str, text: &str, name_allowed: bool) {
    let named = |text: &str| {
        text.rsplit_once(':')
            .is_some_and(|(name, port)| is_host(name) && port.parse::<u16>().is_ok_and(|port| port > 0))
    };
    let unix = text.strip_prefix("unix:").is_some_and(|path| path.trim_start_matches("//").starts_with('/'));
    if !(unix || text.parse::<SocketAddr>().is_ok() || (name_allowed && named(text))) {
        report.error(
            "bad-address",
            field,
            format!("`{text}` is no address"),
            "write `127.0.0.1:15001` or `unix:/run/proxy.sock`",
        );
    }
}

pub(super) fn destination(report: &mut Report<'_>, field: &str, destination: &Destination) {
    host(report, &format!("{field}.host"), &destination.host, false);
    port_selector(report, &format!("{field}.port"), destination.port.as_ref());
    if destination.subset.as_deref() == Some("") {
        report.error(
            "empty-subset",
            &format!("{field}.subset"),
            "is empty",
            "name a subset, or leave it out",
        );
    }
}

/// Shares of several destinations, which Envoy normalises to their sum.
pub(super) fn weights(report: &mut Report<'_>, field: &str, weights: &[Option<u32>]) {
    if weights.len() < 2 {
        return;
    }
    let sum: u64 = weights.iter().map(|weight| u64::from(weight.unwrap_or(0))).sum();
    match sum {
        0 => report.error(
            "no-weight",
            field,
            "the weights add up to 0, so nothing can be chosen",
            "give each destination a `weight`",
        ),
        100 => {}
        sum => report.warning(
            "weights-not-100",
            field,
            format!("the weights add up to {sum}; each is taken as its share of {sum}"),
            "let them add up to 100",
        ),
    }
}

pub(super) fn connection_pool(report: &mut Report<'_>, field: &str, pool: Option<&ConnectionPool>) {
    let Some(pool) = pool else { return };
    if let Some(tcp) = &pool.tcp {
        positive(report, &format!("{field}.tcp.connectTimeout"), tcp.connect_timeout);
        positive(report, &format!("{field}.tcp.maxConnectionDuration"), tcp.max_connection_duration);
        if let Some(keepalive) = &tcp.tcp_keepalive {
            positive(report, &format!("{field}.tcp.tcpKeepalive.time"), keepalive.time);
            positive(report, &format!("{field}.tcp.tcpKeepalive.interval"), keepalive.interval);
        }
    }
    if let Some(keepalive) = pool.http.as_ref().and_then(|http| http.http2_keep_alive.as_ref()) {
        positive(report, &format!("{field}.http.http2KeepAlive.interval"), keepalive.interval);
        positive(report, &format!("{field}.http.http2KeepAlive.timeout"), keepalive.timeout);
    }
}

/// Names or numbers of which none may stand twice.
pub(super) fn unique<'a, T: std::hash::Hash + Eq + std::fmt::Display + 'a>(
    report: &mut Report<'_>,
    what: &str,
    entries: impl Iterator<Item = (String, T)>,
) {
    let mut seen = HashSet::new();
    for (field, value) in entries {
        let message = format!("the {what} `{value}` stands twice");
        if !seen.insert(value) {
            report.error("duplicate", &field, message, format!("give each its own {what}"));
        }
    }
}
