//! The services of the mesh, whoever describes them: Kubernetes or a ServiceEntry.

use std::str::FromStr;

use ipnet::IpNet;

use super::host;
use super::index::{Index, Written};
use super::settings::{DOMAIN, Settings};
use crate::config::resources::Resource;
use crate::config::resources::istio::service_entry::{Resolution as EntryResolution, ServiceEntry};
use crate::config::resources::kubernetes;
use crate::mesh::Name;

/// A service that can be called.
#[derive(Debug)]
pub(super) struct Service<'a> {
    /// Full, lower-case host; a ServiceEntry may have a wildcard.
    pub(super) host: Name,
    /// Short name.
    pub(super) name: Name,
    /// The namespace that owns it.
    pub(super) namespace: Name,
    /// Where it was written.
    pub(super) object: &'a Resource,
    /// Who describes it.
    pub(super) source: Source<'a>,
    /// Its ports.
    pub(super) ports: Vec<Port>,
    /// Its virtual addresses; empty when it has none.
    pub(super) addresses: Vec<IpNet>,
    /// Where endpoints come from.
    pub(super) resolution: Resolution,
}

/// Who describes a service.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source<'a> {
    /// A Kubernetes Service.
    Kubernetes(&'a kubernetes::Service),
    /// A ServiceEntry, and which of its hosts.
    Entry(&'a ServiceEntry, usize),
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Port {
    /// The number that clients address.
    pub(super) number: u16,
    /// Its name; may be empty.
    pub(super) name: String,
    /// What is spoken.
    pub(super) protocol: Protocol,
    /// Its place in the list of ports.
    pub(super) index: usize,
}

/// Where endpoints come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resolution {
    /// From the objects.
    Listed,
    /// By DNS, every address.
    Dns,
    /// By DNS, the current address.
    DnsRoundRobin,
    /// The address that the client asked for: headless services and resolution `NONE`.
    Original,
}

/// What is spoken at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Protocol {
    /// HTTP/1.1.
    Http,
    /// HTTP/2 and gRPC.
    Http2,
    /// TLS that is passed through, HTTPS too.
    Tls,
    /// Bytes.
    Tcp,
    /// Datagrams: not carried.
    Udp,
    /// Undeclared: the first bytes decide.
    Detect,
}

impl Protocol {
    /// Istio's names of protocols; `None` for any other.
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "http" | "http_proxy" | "grpc-web" => Self::Http,
            "http2" | "grpc" => Self::Http2,
            "https" | "tls" => Self::Tls,
            "tcp" | "mongo" | "redis" | "mysql" => Self::Tcp,
            "udp" => Self::Udp,
            _ => return None,
        })
    }

    /// The protocol of a Kubernetes port: UDP, then `appProtocol`, then the prefix of the name, then well-known ports where the server
    /// speaks first, then detection.
    pub(super) fn of_port(
        number: u16,
        name: &str,
        transport: Option<&str>,
        application: Option<&str>,
    ) -> Self {
        if transport.is_some_and(|transport| transport.eq_ignore_ascii_case("UDP")) {
            return Self::Udp;
        }
        let name = match application {
            Some("kubernetes.io/h2c") => return Self::Http2,
            Some("kubernetes.io/ws") => return Self::Http,
            Some("kubernetes.io/wss") => return Self::Tls,
            Some(application) => application,
            None => name,
        };
        if name.get(..8).is_some_and(|prefix| prefix.eq_ignore_ascii_case("grpc-web")) {
            return Self::Http;
        }
        let prefix = name.split_once('-').map_or(name, |(prefix, _)| prefix);
        let server_first = matches!(number, 25 | 53 | 3306 | 27017);
        Self::parse(prefix).unwrap_or(if server_first { Self::Tcp } else { Self::Detect })
    }

    /// HTTP may be spoken: declared, or to be detected.
    pub(super) fn may_be_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Detect)
    }
}

impl<'a> Service<'a> {
    /// A port by its number.
    pub(super) fn port(&self, number: u16) -> Option<&Port> {
        self.ports.iter().find(|port| port.number == number)
    }

    /// Whether Kubernetes describes it.
    pub(super) fn is_kubernetes(&self) -> bool {
        matches!(self.source, Source::Kubernetes(_))
    }

    /// A Service whose clients call its pods by their own addresses.
    pub(super) fn is_headless(&self) -> bool {
        self.is_kubernetes() && self.resolution == Resolution::Original
    }

    /// Whether a client in this namespace may see it.
    pub(super) fn is_visible(&self, settings: &Settings<'_>, client: &str) -> bool {
        match self.source {
            Source::Kubernetes(_) => match self.object.meta.annotations.get("networking.istio.io/exportTo") {
                Some(list) => list.split(',').any(|entry| is_exported(entry.trim(), &self.namespace, client)),
                None => exported(&[], settings.service_exports(), &self.namespace, client),
            },
            Source::Entry(entry, _) => {
                exported(&entry.export_to, settings.service_exports(), &self.namespace, client)
            }
        }
    }

    /// The path of a port in its object.
    pub(super) fn port_field(&self, port: &Port) -> String {
        format!("spec.ports[{}]", port.index)
    }
}

/// Whether an object of `owner` that exports itself so is seen in `client`. Nothing said is the default of the mesh, `*` at the end.
pub(super) fn exported(written: &[String], default: &[String], owner: &str, client: &str) -> bool {
    let list = if written.is_empty() { default } else { written };
    list.is_empty() || list.iter().any(|entry| is_exported(entry, owner, client))
}

fn is_exported(entry: &str, owner: &str, client: &str) -> bool {
    match entry {
        "*" => true,
        "." => owner == client,
        name => name == client,
    }
}

/// All services, the older first.
pub(super) fn services<'a>(index: &Index<'a>) -> Vec<Service<'a>> {
    let mut services: Vec<_> = index.services.iter().map(kubernetes_service).collect();
    for entry in &index.service_entries {
        services.extend((0..entry.spec.hosts.len()).map(|at| entry_service(entry, at)));
    }
    services
}

fn kubernetes_service<'a>(written: &Written<'a, kubernetes::Service>) -> Service<'a> {
    let (object, spec) = (written.object, written.spec);
    let name = &object.key.name;
    let ports = spec.ports.iter().enumerate().map(|(index, port)| {
        let name = port.name.as_deref().unwrap_or_default();
        let protocol =
            Protocol::of_port(port.port, name, port.protocol.as_deref(), port.app_protocol.as_deref());
        Port { number: port.port, name: name.to_owned(), protocol, index }
    });
    let mut addresses: Vec<&str> = spec.cluster_ips.iter().map(AsRef::as_ref).collect();
    if addresses.is_empty() {
        addresses.extend(spec.cluster_ip.as_deref());
    }
    let headless = addresses.contains(&"None");
    let resolution = match () {
        () if spec.service_type == Some(kubernetes::ServiceType::ExternalName) => Resolution::Dns,
        () if headless => Resolution::Original,
        () => Resolution::Listed,
    };
    Service {
        host: host::full(name, written.namespace(), DOMAIN).into(),
        name: name.clone(),
        namespace: written.namespace().clone(),
        object,
        source: Source::Kubernetes(spec),
        ports: ports.collect(),
        addresses: addresses.into_iter().filter_map(net).collect(),
        resolution,
    }
}

fn entry_service<'a>(written: &Written<'a, ServiceEntry>, at: usize) -> Service<'a> {
    let spec = written.spec;
    let name: Name = host::full(&spec.hosts[at], written.namespace(), DOMAIN).into();
    let ports = spec.ports.iter().enumerate().map(|(index, port)| Port {
        number: port.number,
        name: port.name.clone(),
        protocol: port.protocol.as_deref().and_then(Protocol::parse).unwrap_or(Protocol::Detect),
        index,
    });
    Service {
        host: name.clone(),
        name,
        namespace: written.namespace().clone(),
        object: written.object,
        source: Source::Entry(spec, at),
        ports: ports.collect(),
        addresses: spec.addresses.iter().filter_map(|address| net(address)).collect(),
        resolution: match spec.resolution.unwrap_or_default() {
            EntryResolution::None => Resolution::Original,
            EntryResolution::Static => Resolution::Listed,
            EntryResolution::Dns => Resolution::Dns,
            EntryResolution::DnsRoundRobin | EntryResolution::DynamicDns => Resolution::DnsRoundRobin,
        },
    }
}

/// An address or a block of addresses; the unspecified address is none.
fn net(text: &str) -> Option<IpNet> {
    let net = text.parse::<std::net::IpAddr>().map(IpNet::from).or_else(|_| IpNet::from_str(text)).ok()?;
    (!net.addr().is_unspecified()).then(|| net.trunc())
}

#[cfg(test)]
mod tests {
    use super::{Protocol, exported};

    #[test]
    fn the_protocol_of_a_port_follows_istio() {
        for (number, name, transport, application, expected) in [
            (80, "", None, None, Protocol::Detect),
            (80, "http", None, None, Protocol::Http),
            (80, "http-web", None, None, Protocol::Http),
            (80, "HTTP2-web", None, None, Protocol::Http2),
            (80, "grpc-web-x", None, None, Protocol::Http),
            (80, "grpc", None, None, Protocol::Http2),
            (80, "web", None, Some("http"), Protocol::Http),
            (80, "tcp-x", None, Some("kubernetes.io/h2c"), Protocol::Http2),
            (443, "https", None, None, Protocol::Tls),
            (3306, "db", None, None, Protocol::Tcp),
            (53, "http", Some("UDP"), None, Protocol::Udp),
            (5432, "tcp-db", None, None, Protocol::Tcp),
            (80, "web-http", None, None, Protocol::Detect),
        ] {
            let found = Protocol::of_port(number, name, transport, application);
            assert_eq!(found, expected, "{number} {name} {transport:?} {application:?}");
        }
    }

    #[test]
    fn export_to_names_namespaces_its_own_or_all() {
        let list = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for (written, default, client, expected) in [
            ("", "", "web", true),
            ("*", ".", "web", true),
            (".", "", "web", false),
            (".", "", "shop", true),
            ("web", "", "web", true),
            ("~", "", "shop", false),
            ("", ".", "web", false),
        ] {
            assert_eq!(
                exported(&list(written), &list(default), "shop", client),
                expected,
                "{written} {client}"
            );
        }
    }
}
