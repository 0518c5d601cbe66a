//! Where keys may be fetched from.
//!
//! Who may write a RequestAuthentication may choose its `jwksUri`, and the proxy stands inside of the cluster: without a check the URI could reach
//! metadata services and admin ports in the proxy's name (CVE-2026-41413 was that). So private addresses are refused, unless the Proxy allows
//! them or the host is a service of the mesh.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Private targets that are allowed, as `trust.privateTargets` of the Proxy lists them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Allowed {
    nets: Vec<IpNet>,
    hosts: Vec<String>,
}

impl Allowed {
    /// Of each entry an address, a CIDR or a host; `*.example.com` stands for every host below.
    pub(crate) fn new(written: &[String]) -> Self {
        let mut allowed = Self::default();
        for text in written {
            match (text.parse::<IpNet>(), text.parse::<IpAddr>()) {
                (Ok(net), _) => allowed.nets.push(net),
                (_, Ok(ip)) => allowed.nets.push(ip.into()),
                _ => allowed.hosts.push(text.trim_end_matches('.').to_ascii_lowercase()),
            }
        }
        allowed
    }

    /// Whether an address that `host` resolved to may be called.
    pub(crate) fn permits(&self, host: &str, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let named = |allowed: &String| match allowed.strip_prefix('*') {
            Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            None => *allowed == host,
        };
        is_public(ip) || self.nets.iter().any(|net| net.contains(&ip)) || self.hosts.iter().any(named)
    }
}

/// Whether an address is one of the internet (RFC 6890), not of a host, a link or a private network, in whatever form it is written.
fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let reserved =
        matches!((a, b, c), (0, ..) | (100, 64..=127, _) | (192, 0, 0) | (198, 18..=19, _) | (240.., ..));
    !(reserved || ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_multicast())
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let segments = ip.segments();
    let [.., high, low] = segments;
    let embedded = || {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match segments {
        // NAT64 (RFC 6052), and the old embedding of IPv4, `::` and `::1` among it.
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => is_public_v4(embedded()),
        [0x64, 0xff9b, 1, ..] | [0, 0, 0, 0, 0, 0, ..] => false,
        // 6to4 and Teredo wrap an IPv4 address.
        [0x2002, ..] | [0x2001, 0, ..] => false,
        // Global unicast is 2000::/3; the rest is local, multicast or unassigned.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_refused_in_every_form() {
        let nothing = Allowed::default();
        for private in [
            "127.0.0.1",
            "127.8.8.8",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "192.0.0.192",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "fec0::1",
            "::ffff:127.0.0.1",
            "::ffff:a9fe:a9fe",
            "::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001:0:1::1",
        ] {
            assert!(!nothing.permits("issuer.example", private.parse().unwrap()), "{private}");
        }
        for public in ["8.8.8.8", "100.63.0.1", "172.32.0.1", "2606:4700::1111", "64:ff9b::808:808"] {
            assert!(nothing.permits("issuer.example", public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn the_proxy_may_allow_networks_and_hosts() {
        let written = ["10.1.0.0/16", "192.168.1.1", "idp.corp.example", "*.internal"].map(str::to_owned);
        let allowed = Allowed::new(&written);
        let permits = |host: &str, ip: &str| allowed.permits(host, ip.parse().unwrap());
        assert!(permits("x", "10.1.2.3") && permits("x", "::ffff:10.1.2.3") && permits("x", "192.168.1.1"));
        assert!(permits("IDP.corp.example.", "127.0.0.1") && permits("a.internal", "10.9.9.9"));
        assert!(
            !permits("x", "10.2.0.1")
                && !permits("internal", "10.9.9.9")
                && !permits("notinternal", "10.9.9.9")
        );
        assert!(!permits("idp.corp.example.evil", "127.0.0.1"));
    }
}
