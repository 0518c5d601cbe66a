//! The PROXY protocol, versions 1 and 2: whom a connection was really opened by, and to.
//!
//! HAProxy, `doc/proxy-protocol.txt`. The header must be read from peers on an allow-list only: it is nothing
//! but a claim. What it carries besides addresses (TLVs) is checked to be well formed, skipped, and never
//! forwarded (CVE-2026-47692).

mod write;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

pub use write::{write_v1, write_v2};

const SIGNATURE_V1: &[u8] = b"PROXY ";
const SIGNATURE_V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest header of version 1, its line end included.
const MAX_V1: usize = 107;
/// The most bytes taken after the fixed part of version 2: room for two UNIX addresses and the TLVs that
/// clouds and meshes send. The format itself would allow 64 KiB, to be held before anybody is authenticated.
const MAX_V2: usize = 4096;
/// A path in a UNIX address.
const UNIX_PATH: usize = 108;

/// Which version a header was written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// The line of text.
    V1,
    /// The binary form.
    V2,
}

/// The addresses a header names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Addresses {
    /// LOCAL, UNKNOWN or an unspecified family: the connection's own addresses are the ones to use.
    Own,
    /// TCP over IPv4 or IPv6.
    Inet {
        /// The client.
        source: SocketAddr,
        /// What it connected to.
        destination: SocketAddr,
    },
    /// A UNIX stream socket; paths without their trailing NUL bytes, empty when unnamed.
    Unix {
        /// The client's path.
        source: Box<[u8]>,
        /// The path it connected to.
        destination: Box<[u8]>,
    },
}

/// A header.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Header {
    /// The version it was written in.
    pub version: Version,
    /// The addresses it names.
    pub addresses: Addresses,
}

/// How far the first bytes of a connection are a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// They may be the start of one.
    NeedMore,
    /// A whole header.
    Done {
        /// What it says.
        header: Header,
        /// How many bytes it takes; the connection's own begin after them.
        consumed: usize,
    },
    /// They are none, or a broken one: the connection must be closed.
    Invalid(Refusal),
}

/// Why a header is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum Refusal {
    /// The connection does not begin with a header, which the sender must send.
    #[error("the connection does not begin with a PROXY protocol header")]
    NoHeader,
    /// A line of version 1 without its end after 107 bytes.
    #[error("the PROXY line does not end within 107 bytes")]
    LineTooLong,
    /// Another word than TCP4, TCP6 or UNKNOWN, or too few or too many of them.
    #[error("the PROXY line is not `PROXY TCP4|TCP6|UNKNOWN source destination port port`")]
    BadLine,
    /// An address that is none of its family, an IPv6 zone (`fe80::1%eth0`) included.
    #[error("the PROXY line holds a malformed address")]
    BadAddress,
    /// A port that is no number up to 65535, or begins with 0.
    #[error("the PROXY line holds a malformed port")]
    BadPort,
    /// Another version than 2, or another command than LOCAL and PROXY.
    #[error("the PROXY header has an unknown version or command")]
    BadCommand,
    /// A family or transport that is not TCP over IPv4 or IPv6, or a UNIX stream.
    #[error("the PROXY header names an unsupported address family or transport")]
    BadFamily,
    /// A length too small for the addresses, or over 4096.
    #[error("the PROXY header has an impossible length")]
    BadLength,
    /// A TLV that is longer than the header.
    #[error("the PROXY header holds a malformed TLV")]
    BadTlv,
}

/// Reads the header at the start of `bytes`, all that a connection brought so far.
#[must_use]
pub fn parse(bytes: &[u8]) -> Parsed {
    let result = if starts_alike(bytes, SIGNATURE_V2) {
        parse_v2(bytes)
    } else if starts_alike(bytes, SIGNATURE_V1) {
        parse_v1(bytes)
    } else {
        Err(Refusal::NoHeader)
    };
    match result {
        Ok(Some((header, consumed))) => Parsed::Done { header, consumed },
        Ok(None) => Parsed::NeedMore,
        Err(refusal) => Parsed::Invalid(refusal),
    }
}

/// A header and its length; `None` while bytes are missing.
type Step = Result<Option<(Header, usize)>, Refusal>;

/// Whether `bytes` is the beginning of `signature`, or begins with it.
fn starts_alike(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(a, b)| a == b)
}

fn parse_v1(bytes: &[u8]) -> Step {
    let window = &bytes[..bytes.len().min(MAX_V1)];
    let Some(end) = memchr::memchr(b'\n', window) else {
        return if window.len() < MAX_V1 { Ok(None) } else { Err(Refusal::LineTooLong) };
    };
    let line = window[..end].strip_suffix(b"\r").ok_or(Refusal::BadLine)?;
    let line = std::str::from_utf8(line).map_err(|_| Refusal::BadLine)?;
    let rest = line.strip_prefix("PROXY ").ok_or(Refusal::BadLine)?;
    let mut words = rest.split(' ');
    let addresses = match words.next() {
        // "The receiver must ignore anything presented before the CRLF."
        Some("UNKNOWN") => Addresses::Own,
        Some(family @ ("TCP4" | "TCP6")) => {
            let mut next = || words.next().ok_or(Refusal::BadLine);
            let (source, destination) = (address(family, next()?)?, address(family, next()?)?);
            let (from, to) = (port(next()?)?, port(next()?)?);
            if words.next().is_some() {
                return Err(Refusal::BadLine);
            }
            Addresses::Inet {
                source: SocketAddr::new(source, from),
                destination: SocketAddr::new(destination, to),
            }
        }
        _ => return Err(Refusal::BadLine),
    };
    Ok(Some((Header { version: Version::V1, addresses }, end + 1)))
}

fn address(family: &str, text: &str) -> Result<IpAddr, Refusal> {
    let address = if family == "TCP4" {
        text.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
    } else {
        // A zone belongs to the sender's machine; the parser of an address alone does not know any.
        text.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
    };
    address.ok_or(Refusal::BadAddress)
}

fn port(text: &str) -> Result<u16, Refusal> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().map_err(|_| Refusal::BadPort) } else { Err(Refusal::BadPort) }
}

fn parse_v2(bytes: &[u8]) -> Step {
    // What is there is judged before more is waited for.
    let local = match bytes.get(12) {
        None => return Ok(None),
        Some(0x20) => true,
        Some(0x21) => false,
        Some(_) => return Err(Refusal::BadCommand),
    };
    let Some(&family) = bytes.get(13) else { return Ok(None) };
    let size = match family {
        // "LOCAL: the receiver must accept this connection as valid and must use the real endpoints."
        _ if local => 0,
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        0x31 => 2 * UNIX_PATH,
        _ => return Err(Refusal::BadFamily),
    };
    let Some(&[high, low]) = bytes.get(14..16) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length < size || length > MAX_V2 {
        return Err(Refusal::BadLength);
    }
    let Some(payload) = bytes.get(16..16 + length) else { return Ok(None) };
    let (block, tlvs) = payload.split_at(size);
    let addresses = if size == 0 {
        // "LOCAL ... must discard the protocol block including the family which is ignored", TLVs and all; the
        // block of an unspecified family has no known layout either.
        Addresses::Own
    } else {
        skip_tlvs(tlvs)?;
        addresses_v2(block).ok_or(Refusal::BadLength)?
    };
    Ok(Some((Header { version: Version::V2, addresses }, 16 + length)))
}

/// The address block, told apart by its size.
fn addresses_v2(block: &[u8]) -> Option<Addresses> {
    fn inet<const N: usize>(block: &[u8]) -> Option<Addresses>
    where
        IpAddr: From<[u8; N]>,
    {
        let (source, rest) = block.split_first_chunk::<N>()?;
        let (destination, rest) = rest.split_first_chunk::<N>()?;
        let (from, rest) = rest.split_first_chunk::<2>()?;
        let (to, _) = rest.split_first_chunk::<2>()?;
        Some(Addresses::Inet {
            source: SocketAddr::new(IpAddr::from(*source), u16::from_be_bytes(*from)),
            destination: SocketAddr::new(IpAddr::from(*destination), u16::from_be_bytes(*to)),
        })
    }
    let path = |bytes: &[u8]| {
        let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        Box::from(&bytes[..end])
    };
    match block.len() {
        12 => inet::<4>(block),
        36 => inet::<16>(block),
        _ => {
            let (source, destination) = block.split_at_checked(UNIX_PATH)?;
            Some(Addresses::Unix { source: path(source), destination: path(destination) })
        }
    }
}

/// Walks the TLVs (type, length of two bytes, value) to the end of the header.
fn skip_tlvs(mut rest: &[u8]) -> Result<(), Refusal> {
    while let [_, high, low, after @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        rest = after.get(length..).ok_or(Refusal::BadTlv)?;
    }
    if rest.is_empty() { Ok(()) } else { Err(Refusal::BadTlv) }
}

#[cfg(test)]
mod tests;
