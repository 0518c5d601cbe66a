//! PeerAuthentication: whether a workload's ports ask their callers for mutual TLS.
//!
//! As Istio composes it: the narrowest scope that says something wins (port, workload, namespace, mesh), `UNSET` asks the next wider one, of
//! several objects in one scope the oldest counts, and nothing at all means `PERMISSIVE`.

use std::sync::Arc;

use filter_authorization::DestinationPort;
use rustc_hash::FxHashMap;

use super::World;
use super::inbound::inbound_tcp;
use super::index::{Index, Written, origin};
use super::listeners::chain;
use super::settings::Settings;
use super::workloads::is_subset;
use crate::config::resources::istio::security::{MutualTlsMode, PeerAuthentication};
use crate::config::resources::{Closed, EVERYWHERE, Kind, Resource};
use crate::mesh::{
    ChainMatch, ChainProtocol, DownstreamTls, FilterChain, Labels, Name, Origin, TlsVersion,
    TransportProtocol,
};

/// What callers of a port have to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mode {
    /// Plain text; TLS is the application's own.
    Disable,
    /// Mutual TLS or plain text.
    Permissive,
    /// Mutual TLS.
    Strict,
}

/// A mode, and the object and field that ask for it; `None`: Istio's default.
#[derive(Clone, Debug)]
pub(super) struct Asked<'a> {
    pub(super) mode: Mode,
    by: Option<(&'a Resource, String)>,
}

/// The PeerAuthentications by what they hold for, the older first.
#[derive(Debug, Default)]
pub(super) struct Peers<'a> {
    mesh: Option<Written<'a, PeerAuthentication>>,
    namespaces: FxHashMap<&'a str, Written<'a, PeerAuthentication>>,
    workloads: FxHashMap<&'a str, Vec<Written<'a, PeerAuthentication>>>,
    /// Those that were rejected and had no predecessor: their scope asks for the most.
    closed: Vec<Written<'a, Closed>>,
    root: &'a str,
}

/// What holds for one workload.
#[derive(Clone, Debug)]
pub(super) struct OfWorkload<'a> {
    all: Asked<'a>,
    ports: Vec<(u16, Asked<'a>)>,
}

impl<'a> Peers<'a> {
    pub(super) fn new(index: &Index<'a>, settings: &Settings<'a>) -> Self {
        let closed = index.closed.iter().filter(|closed| closed.object.key.kind == Kind::PeerAuthentication);
        let mut peers = Self { closed: closed.copied().collect(), root: settings.root(), ..Self::default() };
        for closed in &peers.closed {
            let why = &closed.spec.message;
            let message = format!("is rejected ({why}): its scope is closed, mutual TLS is required");
            let hint = "correct it; there is no earlier version that could hold in its place";
            index.notes.error(closed.object, "spec", "closed-scope", message, hint);
        }
        for policy in &index.peer_authentications {
            let namespace: &str = policy.namespace();
            let selects =
                policy.spec.selector.as_ref().is_some_and(|selector| !selector.match_labels.is_empty());
            let root = namespace == settings.root();
            if selects && root {
                let message = "selects workloads from the root namespace, which holds for none".to_owned();
                let hint =
                    "write it into the namespace of the workloads, or leave `selector` out for the mesh";
                index.notes.warn(policy.object, "spec.selector", "root-selector", message, hint);
            } else if selects {
                peers.workloads.entry(namespace).or_default().push(*policy);
            } else {
                let first = if root {
                    *peers.mesh.get_or_insert(*policy)
                } else {
                    *peers.namespaces.entry(namespace).or_insert(*policy)
                };
                if first.object.key != policy.object.key {
                    let message = format!(
                        "{} is older and holds for the same workloads: this one has no effect",
                        first.object.key
                    );
                    index.notes.warn(policy.object, "", "shadowed", message, "keep one of the two");
                }
            }
        }
        peers
    }

    /// What holds for a workload of these labels.
    pub(super) fn of(&self, namespace: &str, labels: &Labels) -> OfWorkload<'a> {
        let closes = |closed: &&Written<'a, Closed>| {
            let (owner, selector) = (&**closed.namespace(), &closed.spec.selector.match_labels);
            ((owner == namespace || owner == EVERYWHERE) && is_subset(selector, labels))
                || (owner == self.root && selector.is_empty())
        };
        if let Some(closed) = self.closed.iter().find(closes) {
            let by = Some((closed.object, "spec".to_owned()));
            return OfWorkload { all: Asked { mode: Mode::Strict, by }, ports: Vec::new() };
        }
        let mut all = Asked { mode: Mode::Permissive, by: None };
        for policy in self.mesh.iter().chain(self.namespaces.get(namespace)) {
            let written = policy.spec.mtls.as_ref().map(|mtls| mtls.mode);
            all = asked(written, policy, || "spec.mtls.mode".to_owned()).unwrap_or(all);
        }
        let own = self.workloads.get(namespace).into_iter().flatten().find(|policy| {
            policy.spec.selector.as_ref().is_some_and(|selector| is_subset(&selector.match_labels, labels))
        });
        let Some(own) = own else { return OfWorkload { all, ports: Vec::new() } };
        let written = own.spec.mtls.as_ref().map(|mtls| mtls.mode);
        all = asked(written, own, || "spec.mtls.mode".to_owned()).unwrap_or(all);
        let ports = own.spec.port_level_mtls.iter().filter_map(|(port, mtls)| {
            let field = || {
                let mut field = "spec.portLevelMtls".to_owned();
                crate::config::spans::push_key(&mut field, port);
                field
            };
            Some((port.parse().ok()?, asked(Some(mtls.mode), own, field)?))
        });
        OfWorkload { ports: ports.collect(), all }
    }
}

fn asked<'a>(
    written: Option<MutualTlsMode>,
    by: &Written<'a, PeerAuthentication>,
    field: impl FnOnce() -> String,
) -> Option<Asked<'a>> {
    let mode = match written? {
        MutualTlsMode::Unset => return None,
        MutualTlsMode::Disable => Mode::Disable,
        MutualTlsMode::Permissive => Mode::Permissive,
        MutualTlsMode::Strict => Mode::Strict,
    };
    Some(Asked { mode, by: Some((by.object, field())) })
}

impl<'a> OfWorkload<'a> {
    /// What holds for one of its ports.
    pub(super) fn at(&self, port: u16) -> &Asked<'a> {
        self.ports.iter().find(|(number, _)| *number == port).map_or(&self.all, |(_, asked)| asked)
    }

    /// What holds for ports that nobody names.
    pub(super) fn elsewhere(&self) -> &Asked<'a> {
        &self.all
    }

    /// What holds for a listener that cannot tell ports apart before the handshake: the strictest of all. Where that is more than was asked for, it is
    /// said.
    pub(super) fn strictest(&self, world: &World<'_>) -> &Asked<'a> {
        let asked = self
            .ports
            .iter()
            .map(|(_, asked)| asked)
            .fold(&self.all, |most, asked| if asked.mode > most.mode { asked } else { most });
        for (port, other) in self.ports.iter().filter(|(_, other)| other.mode != asked.mode) {
            let Some((object, field)) = &other.by else { continue };
            let message = format!(
                "asks less of port {port} than of others, and with `interception: EXPLICIT` all ports share one listener: {} holds for all",
                asked.mode.as_str()
            );
            let hint = "give the port a listener of its own (Sidecar `ingress` with `bind`), or capture traffic by REDIRECT or TPROXY";
            world.index.notes.warn(object, field, "port-mode", message, hint);
        }
        asked
    }
}

impl Mode {
    fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "DISABLE",
            Self::Permissive => "PERMISSIVE",
            Self::Strict => "STRICT",
        }
    }
}

impl Asked<'_> {
    fn origin(&self) -> Origin {
        self.by.as_ref().map_or(Origin::BUILT_IN, |(object, field)| origin(object, field.clone()))
    }

    /// The chains of a port that speaks `protocol`: one for mutual TLS, one for what else may come.
    ///
    /// Under PERMISSIVE, mutual TLS of the mesh is known by its application protocols; other TLS is the application's own and goes on unopened, to
    /// `cluster`. A proxy without identity takes plain text under PERMISSIVE, and nothing under STRICT.
    pub(super) fn chains(
        &self,
        world: &World<'_>,
        name: &str,
        matches: &ChainMatch,
        (protocol, cluster): (&ChainProtocol, Option<&str>),
        at: &Origin,
    ) -> Vec<Arc<FilterChain>> {
        let plain = chain(name, matches.clone(), protocol.clone(), at.clone());
        let has_identity = world.proxy.identity.is_some();
        if self.mode == Mode::Disable || (self.mode == Mode::Permissive && !has_identity) {
            return vec![plain];
        }
        if !has_identity {
            self.note_without_identity(world);
            let why = "mutual TLS is required, and this proxy has no identity";
            return vec![chain(name, matches.clone(), ChainProtocol::Refuse(why.into()), self.origin())];
        }
        let tls =
            |name: &str, protocols: &[&str], tls: Option<Arc<DownstreamTls>>, protocol: ChainProtocol| {
                let matches = ChainMatch {
                    transport: Some(TransportProtocol::Tls),
                    application_protocols: protocols.iter().map(|name| (*name).to_owned()).collect(),
                    ..matches.clone()
                };
                Arc::new(FilterChain { name: name.into(), matches, tls, protocol, origin: at.clone() })
            };
        let ended = Some(Arc::new(mesh_tls(world)));
        if self.mode == Mode::Strict {
            let why: Name = "plain text, and mutual TLS is required".into();
            let refused = chain(
                &format!("{name}-plaintext"),
                matches.clone(),
                ChainProtocol::Refuse(why),
                self.origin(),
            );
            return vec![tls(name, &[], ended, protocol.clone()), refused];
        }
        let own = match (protocol, cluster) {
            (ChainProtocol::Tcp(tcp) | ChainProtocol::Detect { tcp, .. }, _) => {
                ChainProtocol::Tcp(tcp.clone())
            }
            (_, Some(cluster)) => {
                let port =
                    matches.destination_port.map_or(DestinationPort::Connection, DestinationPort::Fixed);
                ChainProtocol::Tcp(Arc::new(inbound_tcp(world, cluster, at.clone(), port)))
            }
            (_, None) => {
                ChainProtocol::Refuse("TLS that is not the mesh's, and no application to pass it to".into())
            }
        };
        vec![
            tls(&format!("{name}-mtls"), &MESH_PROTOCOLS, ended, protocol.clone()),
            tls(&format!("{name}-tls"), &[], None, own),
            plain,
        ]
    }

    fn note_without_identity(&self, world: &World<'_>) {
        let Some((object, field)) = &self.by else { return };
        // A sidecar that `check` makes up has nothing that could be mended.
        if world.object.place("").file.as_os_str().is_empty() {
            return;
        }
        let message = format!(
            "requires mutual TLS of callers, and {} has no identity: its port refuses every connection",
            world.object.key
        );
        let hint = "write `identity: {files: {certificate, privateKey, trustBundle}}` into the Proxy; `sidegate certs` makes them";
        world.index.notes.error(object, field, "no-identity", message, hint);
    }
}

/// The application protocols by which TLS between sidecars is known.
const MESH_PROTOCOLS: [&str; 5] =
    ["istio-peer-exchange", "istio", "istio-http/1.0", "istio-http/1.1", "istio-h2"];

/// Mutual TLS of inbound listeners, as the whole mesh wants it.
pub(super) fn mesh_tls(world: &World<'_>) -> DownstreamTls {
    let mesh = &world.node.tls;
    DownstreamTls {
        min_version: mesh.min_version.max(TlsVersion::Tls12),
        cipher_suites: mesh.cipher_suites.clone(),
        ..DownstreamTls::mesh()
    }
}
