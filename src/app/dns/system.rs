//! The system's own resolver configuration, asked through hickory.

use super::LOOKUPS_AT_ONCE;
use super::resolve::{Answer, Failure, Lookup, Resolve};
use hickory_resolver::config::{ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, TokioResolver, system_conf};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use std::{fs, io};

/// Answers as `/etc/hosts` and the servers of `/etc/resolv.conf` say.
///
/// **Order of names.** A name with a trailing dot is asked for as it is. A name with dots is asked for as it is first, whatever `ndots` says: what
/// Istio resources name is absolute, and Kubernetes' `ndots:5` would cost four vain questions each time. When it does not exist and has fewer dots
/// than `ndots`, the search list is tried. A name without a dot goes through the search list first.
///
/// **Address families.** A records, and AAAA records when there are none (Envoy's `V4_PREFERRED`; Istio sets `V4_ONLY` for a proxy with an IPv4
/// address). The other way round when this machine has a route for IPv6 and none for IPv4.
pub(super) struct SystemResolver {
    resolv_conf: PathBuf,
    hosts: PathBuf,
    read: Mutex<Option<(Stamps, Arc<Client>)>>,
}

/// When the files were written, and how long they are; a change is seen at the next lookup.
type Stamps = [Option<(SystemTime, u64)>; 2];

/// A configured resolver.
struct Client {
    resolver: TokioResolver,
    search: Vec<Name>,
    ndots: usize,
    families: [RecordType; 2],
}

impl SystemResolver {
    /// Reads the configuration at the first lookup; one that cannot be used fails lookups until it is mended.
    pub(super) fn new() -> Self {
        Self::of("/etc/resolv.conf", "/etc/hosts")
    }

    fn of(resolv_conf: impl Into<PathBuf>, hosts: impl Into<PathBuf>) -> Self {
        Self { resolv_conf: resolv_conf.into(), hosts: hosts.into(), read: Mutex::default() }
    }

    /// The client of the files as they are now. Two small local files, read when they changed: not worth a thread of their own.
    fn client(&self) -> Result<Arc<Client>, Failure> {
        let stamps = [stamp(&self.resolv_conf), stamp(&self.hosts)];
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, client)) = &*read
            && *known == stamps
        {
            return Ok(client.clone());
        }
        let client = Arc::new(self.read()?);
        *read = Some((stamps, client.clone()));
        Ok(client)
    }

    fn read(&self) -> Result<Client, Failure> {
        let unusable = |error: NetError| {
            Failure::Error(format!("{} cannot be used: {error}", self.resolv_conf.display()))
        };
        let text = fs::read(&self.resolv_conf).map_err(|error| unusable(error.into()))?;
        let (config, options) = system_conf::parse_resolv_conf(text).map_err(unusable)?;
        let mut hosts = Hosts::default();
        match fs::File::open(&self.hosts).and_then(|file| hosts.read_hosts_conf(file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let file = self.hosts.display();
                tracing::warn!(%file, %error, "DNS: the hosts file cannot be read; servers are asked for all names");
            }
            _ => {}
        }
        Client::new(config, options, hosts, families(routes())).map_err(unusable)
    }
}

impl Resolve for SystemResolver {
    fn lookup<'a>(&'a self, host: &'a str) -> Lookup<'a> {
        Box::pin(async move { self.client()?.lookup(host).await })
    }
}

impl Client {
    fn new(
        config: ResolverConfig,
        mut options: ResolverOpts,
        hosts: Hosts,
        families: [RecordType; 2],
    ) -> Result<Self, NetError> {
        // Discovery asks again when an answer has expired, and right after a failure: a cache would only answer that with the same failure.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.max_active_requests = LOOKUPS_AT_ONCE;
        let (search, ndots) = (config.search.clone(), options.ndots);
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let mut resolver = builder.with_options(options).build()?;
        resolver.set_hosts(Arc::new(hosts));
        Ok(Self { resolver, search, ndots, families })
    }

    async fn lookup(&self, host: &str) -> Result<Answer, Failure> {
        let mut denied = Failure::NotFound;
        for name in names(host, &self.search, self.ndots)? {
            for family in self.families {
                match self.ask(name.clone(), family).await {
                    Err(Failure::NoAddress) => denied = Failure::NoAddress,
                    // It exists for neither family.
                    Err(Failure::NotFound) => break,
                    outcome => return outcome,
                }
            }
        }
        Err(denied)
    }

    async fn ask(&self, name: Name, family: RecordType) -> Result<Answer, Failure> {
        let lookup = self.resolver.lookup(name, family).await.map_err(|error| failure(&error))?;
        let records = lookup.answers();
        let addresses = records.iter().filter_map(|record| record.data.ip_addr()).collect();
        // Aliases on the way expire too.
        let ttl = records.iter().map(|record| record.ttl).min().unwrap_or(0);
        Answer::new(addresses, Duration::from_secs(u64::from(ttl)))
    }
}

/// The absolute names that a host may stand for, in the order in which they are asked for.
fn names(host: &str, search: &[Name], ndots: usize) -> Result<Vec<Name>, Failure> {
    let no_name = |reason: String| Failure::Error(format!("{host:?} is no DNS name: {reason}"));
    if host.is_empty() || host == "." {
        return Err(no_name("it is empty".to_owned()));
    }
    let mut name = Name::from_str_relaxed(host).map_err(|error| no_name(error.to_string()))?;
    if name.is_fqdn() {
        return Ok(vec![name]);
    }
    let dots = host.bytes().filter(|byte| *byte == b'.').count();
    // A suffix that makes the name too long names nothing.
    let searched = search.iter().filter_map(|suffix| name.clone().append_domain(suffix).ok());
    let mut names: Vec<Name> = if dots < ndots || dots == 0 { searched.collect() } else { Vec::new() };
    name.set_fqdn(true);
    let place = if dots == 0 { names.len() } else { 0 };
    names.insert(place, name);
    Ok(names)
}

fn failure(error: &NetError) -> Failure {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => Failure::NotFound,
            ResponseCode::NoError => Failure::NoAddress,
            code => Failure::Error(format!("the DNS server says {code}")),
        },
        NetError::Dns(DnsError::ResponseCode(code)) => Failure::Error(format!("the DNS server says {code}")),
        NetError::Timeout => Failure::Timeout,
        error => Failure::Error(error.to_string()),
    }
}

fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// Which family is asked for first, by whether there is a route for (IPv4, IPv6).
fn families(routes: (bool, bool)) -> [RecordType; 2] {
    match routes {
        (false, true) => [RecordType::AAAA, RecordType::A],
        _ => [RecordType::A, RecordType::AAAA],
    }
}

/// Whether there is a route to the outside for IPv4, and for IPv6. Connecting a UDP socket looks the route up and sends nothing.
fn routes() -> (bool, bool) {
    let routed = |any: IpAddr, outside: IpAddr| {
        UdpSocket::bind((any, 0)).and_then(|socket| socket.connect((outside, 53))).is_ok()
    };
    // Addresses for documentation (RFC 5737, RFC 3849): routed by default, nobody's.
    let (v4, v6) = (Ipv4Addr::new(192, 0, 2, 1), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
    (routed(Ipv4Addr::UNSPECIFIED.into(), v4.into()), routed(Ipv6Addr::UNSPECIFIED.into(), v6.into()))
}

#[cfg(test)]
mod tests;
