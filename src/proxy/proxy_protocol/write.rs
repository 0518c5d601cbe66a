//! The header as we send it to an upstream that wants one. Never with TLVs.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use super::{Addresses, SIGNATURE_V2, UNIX_PATH};

/// Appends a header of version 1 to `out`. It can say UNKNOWN for what is not TCP over one IP family.
pub fn write_v1(out: &mut Vec<u8>, addresses: &Addresses) {
    let family = match addresses {
        Addresses::Inet { source: SocketAddr::V4(_), destination: SocketAddr::V4(_) } => "TCP4",
        Addresses::Inet { source: SocketAddr::V6(_), destination: SocketAddr::V6(_) } => "TCP6",
        _ => "UNKNOWN",
    };
    let start = out.len();
    let written = match addresses {
        Addresses::Inet { source, destination } if family != "UNKNOWN" => {
            // Addresses without port, so that no zone is written.
            let (from, to) = (source.ip(), destination.ip());
            write!(out, "PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port())
        }
        _ => write!(out, "PROXY UNKNOWN\r\n"),
    };
    // A Vec always takes what it is given; half a header must not remain if it ever did not.
    if written.is_err() {
        out.truncate(start);
        out.extend_from_slice(b"PROXY UNKNOWN\r\n");
    }
}

/// Appends a header of version 2 to `out`: LOCAL for [`Addresses::Own`], which is what a connection of our own
/// is. Of two IP families the IPv4 address is mapped into IPv6; a path over 108 bytes makes it LOCAL.
pub fn write_v2(out: &mut Vec<u8>, addresses: &Addresses) {
    out.extend_from_slice(SIGNATURE_V2);
    match addresses {
        Addresses::Inet { source, destination } => {
            let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
            match (source.ip(), destination.ip()) {
                (IpAddr::V4(from), IpAddr::V4(to)) => {
                    out.extend_from_slice(&[0x21, 0x11, 0, 12]);
                    out.extend_from_slice(&from.octets());
                    out.extend_from_slice(&to.octets());
                }
                (from, to) => {
                    out.extend_from_slice(&[0x21, 0x21, 0, 36]);
                    out.extend_from_slice(&mapped(from));
                    out.extend_from_slice(&mapped(to));
                }
            }
            out.extend_from_slice(&ports);
        }
        Addresses::Unix { source, destination }
            if source.len() <= UNIX_PATH && destination.len() <= UNIX_PATH =>
        {
            out.extend_from_slice(&[0x21, 0x31, 0, 216]);
            for path in [source, destination] {
                out.extend_from_slice(path);
                out.resize(out.len() + UNIX_PATH - path.len(), 0);
            }
        }
        Addresses::Own | Addresses::Unix { .. } => out.extend_from_slice(&[0x20, 0, 0, 0]),
    }
}

fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}
