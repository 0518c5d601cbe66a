//! Lines of access logs: JSON with Istio's keys, and Istio's default text.

use serde_json::{Map, Value};
use std::net::{IpAddr, SocketAddr};

/// What a line says of a request. What it does not say is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// `GET`; empty for a connection that is no HTTP.
    pub method: String,
    /// Path and query as the client sent them.
    pub path: String,
    /// Host and port that were asked for.
    pub authority: String,
    /// Who called, `cluster.local/ns/shop/sa/cart`, where the format shows it (`%DOWNSTREAM_PEER_URI_SAN%`).
    pub principal: Option<String>,
    /// Whether the caller spoke mutual TLS of the mesh, as far as server name or certificate tell.
    pub mutual: bool,
    /// The client, behind trusted hops.
    pub client: Option<IpAddr>,
    /// Headers that it shows.
    pub headers: Vec<(&'static str, String)>,
    /// The cluster that it went to.
    pub cluster: String,
    /// Where the connection came to.
    pub local: Option<SocketAddr>,
    /// Envoy's `response_code_details`.
    pub details: String,
    /// When it came, in RFC 3339.
    pub time: String,
}

/// Headers that Istio's formats show, and their keys.
const HEADERS: [(&str, &str); 3] =
    [("x-forwarded-for", "x_forwarded_for"), ("user-agent", "user_agent"), ("x-request-id", "request_id")];

/// Keys under which formats show who called.
const PRINCIPAL: [&str; 4] =
    ["downstream_peer_uri_san", "source_principal", "peer_principal", "downstream_peer"];

/// The fields of Istio's text, in their order.
const TEXT: [&str; 23] = [
    "start_time",
    "request",
    "response_code",
    "response_flags",
    "response_code_details",
    "connection_termination_details",
    "upstream_transport_failure_reason",
    "bytes_received",
    "bytes_sent",
    "duration",
    "upstream_service_time",
    "x_forwarded_for",
    "user_agent",
    "request_id",
    "authority",
    "upstream_host",
    "upstream_cluster",
    "upstream_local_address",
    "downstream_local_address",
    "downstream_remote_address",
    "requested_server_name",
    "route_name",
    // Ours where somebody has put it at the end; Istio has nothing there.
    "downstream_peer_uri_san",
];

/// What a line says; `None` when it is of neither form.
#[must_use]
pub fn parse(line: &str) -> Option<Entry> {
    if line.starts_with('{') {
        let object: Map<String, Value> = serde_json::from_str(line).ok()?;
        let entry = entry(|key| match object.get(key)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        });
        // An object without any of the keys is of another format.
        return (object.contains_key("method") || object.contains_key("downstream_local_address"))
            .then_some(entry);
    }
    let words = words(line)?;
    if words.len() < TEXT.len() - 1 {
        return None;
    }
    let word = |key: &str| words.get(TEXT.iter().position(|known| *known == key)?).cloned();
    let request = word("request")?;
    let mut parts = request.split(' ');
    let (method, path) = (parts.next()?.to_owned(), parts.next()?.to_owned());
    Some(entry(|key| match key {
        "method" => Some(method.clone()),
        "path" => Some(path.clone()),
        _ => word(key),
    }))
}

fn entry(value: impl Fn(&str) -> Option<String>) -> Entry {
    let value = |key: &str| value(key).filter(|text| text != "-");
    let text = |key| value(key).unwrap_or_default();
    let socket = |key: &str| value(key)?.parse::<SocketAddr>().ok();
    let shown = PRINCIPAL.iter().find_map(|key| value(key));
    let principal =
        shown.map(|text| text.strip_prefix("spiffe://").map_or_else(|| text.clone(), str::to_owned));
    // Sidecars ask each other for `outbound_.80_._.cart.shop.svc.cluster.local`.
    let mutual = principal.is_some()
        || value("requested_server_name").is_some_and(|name| name.starts_with("outbound"));
    let client = value("downstream_remote_address");
    Entry {
        method: text("method"),
        path: text("path"),
        authority: text("authority"),
        principal,
        mutual,
        client: client.and_then(|text| {
            text.parse::<SocketAddr>().map(|address| address.ip()).or_else(|_| text.parse()).ok()
        }),
        headers: HEADERS.iter().filter_map(|(name, key)| Some((*name, value(key)?))).collect(),
        cluster: text("upstream_cluster"),
        local: socket("downstream_local_address"),
        details: text("response_code_details"),
        time: text("start_time"),
    }
}

/// The words of a text line: as they are, in quotes, or in brackets.
fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (word, tail) = unquote(quoted)?;
            words.push(word);
            rest = tail.trim_start();
        } else if let Some(bracketed) = rest.strip_prefix('[').filter(|_| words.is_empty()) {
            // The time; an IPv6 address begins so, too.
            let (word, tail) = bracketed.split_once(']')?;
            words.push(word.to_owned());
            rest = tail.trim_start();
        } else {
            let (word, tail) = rest.split_once(' ').unwrap_or((rest, ""));
            words.push(word.to_owned());
            rest = tail.trim_start();
        }
    }
    Some(words)
}

/// A quoted word and what follows it, its escapes undone: `\"`, `\\` and `\x0a`.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    loop {
        let (byte, tail) = rest.split_first()?;
        rest = tail;
        match byte {
            b'"' => break,
            b'\\' => {
                let (escaped, tail) = rest.split_first()?;
                rest = tail;
                if *escaped == b'x' {
                    let (digits, tail) = rest.split_at_checked(2)?;
                    bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
                    rest = tail;
                } else {
                    bytes.push(*escaped);
                }
            }
            other => bytes.push(*other),
        }
    }
    let tail = text.get(text.len() - rest.len()..)?;
    Some((String::from_utf8_lossy(&bytes).into_owned(), tail))
}
