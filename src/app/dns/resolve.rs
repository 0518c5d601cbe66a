//! The question, its answer, and how it can fail.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

/// Addresses kept of one name; further ones are not called.
const ADDRESSES_KEPT: usize = 64;

/// Something that knows the addresses of a host.
pub(super) trait Resolve: Send + Sync + 'static {
    /// Asks for the addresses of `host`, a name of letters; see [`known`] for those nobody is asked for.
    fn lookup<'a>(&'a self, host: &'a str) -> Lookup<'a>;
}

/// A lookup under way.
pub(super) type Lookup<'a> = Pin<Box<dyn Future<Output = Result<Answer, Failure>> + Send + 'a>>;

/// The addresses of a host. Never none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// The first as the server gave them: servers rotate their answers to spread callers.
    pub(super) first: IpAddr,
    /// All of them sorted, so that a rotated answer is an equal one.
    pub(super) addresses: Box<[IpAddr]>,
    /// How long it is good for; zero when the server does not say.
    pub(super) ttl: Duration,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The name does not exist (NXDOMAIN).
    NotFound,
    /// The name exists, without an address.
    NoAddress,
    /// Nobody answered in time.
    Timeout,
    /// The server refused or failed, or could not be reached, or the name is no DNS name.
    Error(String),
}

impl Answer {
    /// The answer of these addresses, in the server's order.
    ///
    /// # Errors
    ///
    /// [`Failure::NoAddress`] when there are none.
    pub(super) fn new(addresses: Vec<IpAddr>, ttl: Duration) -> Result<Self, Failure> {
        let first = *addresses.first().ok_or(Failure::NoAddress)?;
        let mut addresses = addresses;
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(ADDRESSES_KEPT);
        Ok(Self { first, addresses: addresses.into(), ttl })
    }
}

impl Failure {
    /// Whether a server said that there is no address, rather than nothing.
    pub(super) fn is_denial(&self) -> bool {
        matches!(self, Self::NotFound | Self::NoAddress)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("the name does not exist (NXDOMAIN)"),
            Self::NoAddress => f.write_str("the name has no address (neither A nor AAAA record)"),
            Self::Timeout => f.write_str("no DNS server answered in time"),
            Self::Error(error) => f.write_str(error),
        }
    }
}

/// The address of a host that nobody has to be asked for: an IP literal, with or without brackets, or a `localhost` name (RFC 6761, section 6.3;
/// IPv4, which is what the servers of a laptop listen on).
pub(super) fn known(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse() {
        return Some(address);
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    let (_, last) = host.rsplit_once('.').unwrap_or(("", host));
    last.eq_ignore_ascii_case("localhost").then_some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST))
}
