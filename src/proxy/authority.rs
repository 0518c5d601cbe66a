//! Who a request is for: the Host header, `:authority` and the authority of an absolute-form target, read as
//! one.
//!
//! RFC 9110 section 7.2, RFC 9112 section 3.2 and RFC 9113 section 8.3.1. Two spellings of one host give one
//! [`Authority`] (CVE-2021-39155 is a policy that minded the case), and two different hosts in one request are
//! refused rather than ranked.

use bytes::Bytes;
use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::header::HOST;
use http::uri::Scheme;
use http::{HeaderMap, Method, Uri, Version};
use thiserror::Error;

/// The longest host accepted, in bytes: that of a DNS name (RFC 1035 section 2.3.4), plus its final dot.
const MAX_HOST: usize = 254;

/// A host and its port, in canonical spelling. `Display` writes what goes into a Host header.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Authority<'a> {
    /// Lower-case, without final dot; an IPv6 address keeps its brackets and is written as RFC 5952 says.
    /// Borrowed when it was received so.
    pub host: Cow<'a, str>,
    /// The port if one was given.
    pub port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Reads `host[:port]`; an IPv6 address stands in brackets and an empty port is none (RFC 3986 section
    /// 3.2.3).
    ///
    /// # Errors
    ///
    /// An [`AuthorityRefusal`] for anything else: user information, a path, a space, a percent escape, an
    /// IPv6 zone, an empty label, a byte outside of `[A-Za-z0-9._~-]`.
    pub fn parse(text: &'a [u8]) -> Result<Self, AuthorityRefusal> {
        if text.is_empty() {
            return Err(AuthorityRefusal::Empty);
        }
        if let Some(rest) = text.strip_prefix(b"[") {
            let close = memchr::memchr(b']', rest).ok_or(AuthorityRefusal::Malformed)?;
            let (inside, after) = rest.split_at(close);
            return Ok(Self { host: bracketed(inside)?, port: port(&after[1..])? });
        }
        // One pass over the host: where it ends, and whether it is canonical as it stands.
        let mut upper = false;
        let mut previous = b'.';
        let mut end = text.len();
        for (at, &byte) in text.iter().enumerate() {
            match byte {
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => {}
                b'A'..=b'Z' => upper = true,
                b'.' if previous == b'.' => return Err(AuthorityRefusal::Malformed),
                b'.' => {}
                b':' => {
                    end = at;
                    break;
                }
                b'@' => return Err(AuthorityRefusal::UserInformation),
                _ => return Err(AuthorityRefusal::Malformed),
            }
            previous = byte;
        }
        let (host, after) = text.split_at(end);
        if host.is_empty() || host.len() > MAX_HOST {
            return Err(AuthorityRefusal::Malformed);
        }
        let port = port(after)?;
        let host = host.strip_suffix(b".").unwrap_or(host);
        let host = std::str::from_utf8(host).map_err(|_| AuthorityRefusal::Malformed)?;
        let host = if upper { Cow::Owned(host.to_ascii_lowercase()) } else { Cow::Borrowed(host) };
        Ok(Self { host, port })
    }

    /// The address, when the host is one and no name.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self.host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inside) => inside.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            None => self.host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        }
    }

    /// The same, no longer borrowing.
    #[must_use]
    pub fn into_owned(self) -> Authority<'static> {
        Authority { host: Cow::Owned(self.host.into_owned()), port: self.port }
    }

    /// What goes into a Host header.
    pub(crate) fn to_bytes(&self) -> Bytes {
        let mut text = Vec::with_capacity(self.host.len() + ":65535".len());
        text.extend_from_slice(self.host.as_bytes());
        if let Some(port) = self.port {
            text.push(b':');
            text.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
        }
        text.into()
    }

    /// Whether both name one place, an absent port standing for the default one of the scheme.
    fn agrees(&self, other: &Authority<'_>, default: Option<u16>) -> bool {
        self.host == other.host
            && (self.port == other.port || self.port.or(default) == other.port.or(default))
    }
}

impl fmt::Display for Authority<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

/// Host and port of an authority that is written canonically already (as [`Authority`] displays it): one look for the colon.
#[must_use]
pub fn split_canonical(text: &[u8]) -> (&str, Option<u16>) {
    let text = std::str::from_utf8(text).unwrap_or_default();
    match text.rsplit_once(':') {
        // The colons of an IPv6 address stand within brackets.
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
        _ => (text, None),
    }
}

/// Why the authority of a request is refused. All are answered with 400 (RFC 9112 section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum AuthorityRefusal {
    /// More than one Host header, be they equal or not.
    #[error("the request has more than one Host header")]
    DuplicateHost,
    /// Neither Host nor `:authority`, which HTTP/1.1 and HTTP/2 require.
    #[error("the request names no host")]
    Missing,
    /// An empty authority.
    #[error("the host of the request is empty")]
    Empty,
    /// `user@host`: never sent by an honest client (RFC 9110 section 4.2.4), often by a deceiving one.
    #[error("the host of the request holds user information")]
    UserInformation,
    /// Anything else that is no `host[:port]`.
    #[error("the host of the request is not `host` or `host:port`")]
    Malformed,
    /// Host and the target's authority differ.
    #[error("the Host header differs from the authority of the request target")]
    Disagreement,
    /// CONNECT to a host without a port (RFC 9110 section 9.3.6).
    #[error("the target of CONNECT has no port")]
    ConnectWithoutPort,
}

/// The authority of a request, `None` only for HTTP/1.0 without Host.
///
/// A proxy may overwrite Host by the authority of the target (RFC 9112 section 3.2.2), as Envoy does. But a
/// client must send them equal (section 3.2), and RFC 9113 section 8.3.1 calls a difference malformed; so a
/// request whose parts disagree is refused, whatever the version.
///
/// # Errors
///
/// An [`AuthorityRefusal`], to be answered with 400.
pub fn request_authority<'a>(
    version: Version,
    method: &Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
) -> Result<Option<Authority<'a>>, AuthorityRefusal> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Err(AuthorityRefusal::DuplicateHost),
        (Some(value), None) => Some(Authority::parse(value.as_bytes())?),
        (None, None) => None,
    };
    let target = match uri.authority() {
        Some(authority) => Some(Authority::parse(authority.as_str().as_bytes())?),
        None => None,
    };
    if method == Method::CONNECT
        && uri.scheme().is_none()
        && target.as_ref().is_some_and(|target| target.port.is_none())
    {
        return Err(AuthorityRefusal::ConnectWithoutPort);
    }
    match (target, host) {
        (Some(target), Some(host)) => {
            // A client that opens a tunnel often leaves the port out of Host.
            let default = default_port(uri).or(if method == Method::CONNECT { target.port } else { None });
            if target.agrees(&host, default) { Ok(Some(target)) } else { Err(AuthorityRefusal::Disagreement) }
        }
        (Some(one), None) | (None, Some(one)) => Ok(Some(one)),
        (None, None) if version <= Version::HTTP_10 => Ok(None),
        (None, None) => Err(AuthorityRefusal::Missing),
    }
}

fn default_port(uri: &Uri) -> Option<u16> {
    let scheme = uri.scheme()?;
    if *scheme == Scheme::HTTP {
        Some(80)
    } else if *scheme == Scheme::HTTPS {
        Some(443)
    } else {
        None
    }
}

/// The inside of `[...]`: an IPv6 address. A zone (`%25eth0`) means something on the sender's machine only, and
/// Envoy crashed on one (CVE-2026-26310); it is refused, as `IPvFuture` is.
fn bracketed(inside: &[u8]) -> Result<Cow<'_, str>, AuthorityRefusal> {
    let text = std::str::from_utf8(inside).map_err(|_| AuthorityRefusal::Malformed)?;
    let address: Ipv6Addr = text.parse().map_err(|_| AuthorityRefusal::Malformed)?;
    // An address is rare as a host: writing it anew costs less thought than asking whether one must.
    Ok(Cow::Owned(format!("[{address}]")))
}

/// What follows the host: nothing, `:`, or `:` and a port from 1 to 65535 in at most five digits.
fn port(after: &[u8]) -> Result<Option<u16>, AuthorityRefusal> {
    let digits = match after {
        [] | [b':'] => return Ok(None),
        [b':', digits @ ..] if digits.len() <= 5 => digits,
        // `user:password@host` splits at its colon, too.
        _ if after.contains(&b'@') => return Err(AuthorityRefusal::UserInformation),
        _ => return Err(AuthorityRefusal::Malformed),
    };
    let mut port = 0u32;
    for &digit in digits {
        match digit {
            b'0'..=b'9' => port = port * 10 + u32::from(digit - b'0'),
            b'@' => return Err(AuthorityRefusal::UserInformation),
            _ => return Err(AuthorityRefusal::Malformed),
        }
    }
    match u16::try_from(port) {
        Ok(port) if port > 0 => Ok(Some(port)),
        _ => Err(AuthorityRefusal::Malformed),
    }
}

#[cfg(test)]
mod tests;
