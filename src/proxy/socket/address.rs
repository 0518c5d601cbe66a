//! An address as written in a configuration.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

use crate::proxy::authority::Authority;

/// Where a server listens: `host:port` or `unix:/path`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address and a port; IPv6 in brackets.
    Inet(SocketAddr),
    /// A name, to be resolved, and a port.
    Name {
        /// Lower-case, without final dot.
        host: Box<str>,
        /// Never 0.
        port: u16,
    },
    /// The absolute path of a UNIX socket.
    Unix(PathBuf),
}

/// What is wrong with an address, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddressError {
    /// `unix:` without an absolute path.
    #[error("`{0}` names no UNIX socket: write `unix:` and an absolute path, as `unix:/run/sds.sock`")]
    Path(Box<str>),
    /// No port.
    #[error("`{0}` has no port: write `host:port`, as `127.0.0.1:15001`")]
    Port(Box<str>),
    /// An IPv6 address whose last part could be a port.
    #[error("`{0}` is ambiguous: put an IPv6 address in brackets, as `[::1]:15001`")]
    Brackets(Box<str>),
    /// Anything else.
    #[error("`{0}` is no address: write `host:port` or `unix:/path`")]
    Malformed(Box<str>),
}

impl FromStr for Address {
    type Err = AddressError;

    /// Reads `host:port` or `unix:/path`; `unix:///path`, as gRPC writes it, is the same. Port 0, any free one,
    /// is for IP addresses alone.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            let plain = path.len() > 1 && path.starts_with('/') && !path.contains('\0');
            return if plain { Ok(Self::Unix(path.into())) } else { Err(AddressError::Path(text.into())) };
        }
        // A zone makes sense here: the address is of this machine.
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self::Inet(address));
        }
        if text.parse::<std::net::Ipv6Addr>().is_ok() {
            return Err(AddressError::Brackets(text.into()));
        }
        let authority =
            Authority::parse(text.as_bytes()).map_err(|_| AddressError::Malformed(text.into()))?;
        let port = authority.port.ok_or_else(|| AddressError::Port(text.into()))?;
        Ok(match authority.ip() {
            Some(ip) => Self::Inet(SocketAddr::new(ip, port)),
            None => Self::Name { host: authority.host.into(), port },
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => write!(f, "{address}"),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for (text, expected) in [
            ("127.0.0.1:15001", "127.0.0.1:15001"),
            ("0.0.0.0:0", "0.0.0.0:0"),
            ("[::]:15006", "[::]:15006"),
            ("[0::1]:1", "[::1]:1"),
            ("Istiod.istio-system.svc.:15012", "istiod.istio-system.svc:15012"),
            ("unix:/run/sds.sock", "unix:/run/sds.sock"),
            ("unix:///run/sds.sock", "unix:/run/sds.sock"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), expected);
        }
    }

    #[test]
    fn a_wrong_address_says_what_to_write() {
        let error = |text: &str| text.parse::<Address>().unwrap_err();
        for text in ["unix:", "unix:/", "unix:run/x", "unix://run/x", "unix:/a\0b"] {
            assert_eq!(error(text), AddressError::Path(text.into()));
        }
        for text in ["localhost", "127.0.0.1", "[::1]", "localhost:"] {
            assert_eq!(error(text), AddressError::Port(text.into()));
        }
        assert_eq!(error("::1"), AddressError::Brackets("::1".into()));
        for text in ["", ":80", "http://a:80", "a:b", "a:0", "a:99999", "a b:1", "u@a:1"] {
            assert_eq!(error(text), AddressError::Malformed(text.into()));
        }
        assert!(error("localhost").to_string().contains("127.0.0.1:15001"));
    }
}
