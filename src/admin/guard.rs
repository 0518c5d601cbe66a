//! Keeps web pages in the operator's browser away from a port on loopback.

use std::net::IpAddr;

use http::request::Parts;
use http::uri::Authority;
use http::{HeaderName, Method, StatusCode, Version, header};

use super::Reply;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The names under which a server answers.
#[derive(Clone, Debug)]
pub enum Hosts {
    /// Any: for health and metrics, which are called by pod address.
    Any,
    /// `localhost`, loopback addresses and these names or addresses. Refusing all others defeats DNS rebinding: a
    /// hostile name that resolves to 127.0.0.1 is still in the `Host` header.
    Loopback {
        /// Further names or addresses, without a port.
        also: Vec<String>,
    },
}

/// Refuses requests for other names, and changes asked for by other web pages.
pub(super) fn check(hosts: &Hosts, head: &Parts) -> Result<(), Reply> {
    let Hosts::Loopback { also } = hosts else { return check_origin(head) };
    let named = head.headers.get_all(header::HOST).iter().map(|value| value.to_str().unwrap_or_default());
    let named: Vec<_> = named.chain(head.uri.authority().map(Authority::as_str)).collect();
    if named.is_empty() && head.version != Version::HTTP_10 {
        return Err(Reply::error(StatusCode::BAD_REQUEST, "no Host header".to_owned()));
    }
    match named.iter().find(|name| !is_ours(name, also)) {
        Some(name) => {
            let text = format!("{name:?} is not a name of this port; use localhost or 127.0.0.1");
            Err(Reply::error(StatusCode::FORBIDDEN, text))
        }
        None => check_origin(head),
    }
}

fn is_ours(authority: &str, also: &[String]) -> bool {
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let host = host.strip_suffix('.').unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        || also.iter().any(|name| name.eq_ignore_ascii_case(host))
}

fn check_origin(head: &Parts) -> Result<(), Reply> {
    if matches!(head.method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    let value = |name| head.headers.get(name).map(|value| value.to_str().unwrap_or("unreadable"));
    // Another port of localhost is the same *site*: only the same origin will do.
    let site = value(SEC_FETCH_SITE).unwrap_or("none");
    let host = value(header::HOST).unwrap_or_default();
    // Browsers without Sec-Fetch-Site still send Origin.
    let foreign = value(header::ORIGIN).is_some_and(|origin| origin.strip_prefix("http://") != Some(host));
    if !matches!(site, "same-origin" | "none") || foreign {
        let text = "changes are not taken from other web pages".to_owned();
        return Err(Reply::error(StatusCode::FORBIDDEN, text));
    }
    Ok(())
}
