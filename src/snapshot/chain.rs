//! Filter chains: what becomes of a connection.

use super::route::Shares;
use super::{Destination, Linker, Named, Problem, RouteTable, same};
use crate::filters::RouteSettings;
use crate::mesh::{self, FilterChain, HttpChain, Name, Origin, TcpChain, TcpTarget};
use filter_api::{Keep, Slots};
use std::sync::Arc;

/// One chain of a listener.
#[derive(Debug)]
pub struct Chain {
    /// Unique within the listener.
    pub name: Name,
    /// What it speaks.
    pub protocol: ChainProtocol,
    /// Where it was written.
    pub origin: Origin,
    /// As it is in force.
    pub mesh: Arc<FilterChain>,
    /// It is in force as written.
    clean: bool,
}

/// What a chain speaks.
#[derive(Clone, Debug)]
pub enum ChainProtocol {
    /// HTTP/1 and HTTP/2.
    Http(Arc<Http>),
    /// Bytes.
    Tcp(Arc<Tcp>),
    /// HTTP when the first bytes say so, else bytes.
    Detect {
        /// For connections that speak HTTP.
        http: Arc<Http>,
        /// For all others.
        tcp: Arc<Tcp>,
    },
    /// Closed at once, flagged `NR`.
    Refuse,
}

/// What a chain does with HTTP.
#[derive(Debug)]
pub struct Http {
    /// Its settings.
    pub mesh: Arc<HttpChain>,
    /// Its routes.
    pub routes: Arc<RouteTable>,
    /// Settings of the filters before route matching.
    pub port: Slots,
}

/// What a chain does with bytes.
#[derive(Debug)]
pub struct Tcp {
    /// Its settings.
    pub mesh: Arc<TcpChain>,
    /// Settings of the filters that judge a connection.
    pub port: Slots,
    /// `None`: refused.
    shares: Option<Shares>,
}

impl Tcp {
    /// The destination that `random` falls on, by weight; `None`: the connection is refused with `NR`.
    pub fn pick(&self, random: u64) -> Option<&Arc<Destination>> {
        self.shares.as_ref().map(|shares| shares.pick(random))
    }

    /// All destinations that can be picked, with their weights.
    pub fn destinations(&self) -> impl Iterator<Item = (u64, &Arc<Destination>)> {
        self.shares.iter().flat_map(Shares::iter)
    }

    fn link(
        mesh: &Arc<TcpChain>,
        before: Option<&Arc<Self>>,
        linker: &Linker<'_>,
    ) -> Result<Arc<Self>, String> {
        let old = before.filter(|old| same(&old.mesh, mesh));
        if let Some(old) = old
            && !old.shares.as_ref().is_some_and(|shares| shares.touches(linker))
        {
            return Ok(old.clone());
        }
        let port = match before {
            Some(before) if before.mesh.filters == mesh.filters => before.port.clone(),
            _ => mesh.filters.compile(linker.keep)?,
        };
        let shares = match &mesh.target {
            TcpTarget::Refuse => None,
            TcpTarget::Clusters(clusters) => {
                let old = old.and_then(|old| old.shares.as_ref());
                Some(Shares::link(clusters, &RouteSettings::default(), &Name::from(""), old, linker)?)
            }
        };
        Ok(Arc::new(Self { mesh: mesh.clone(), port, shares }))
    }
}

impl Http {
    fn link(
        mesh: &Arc<HttpChain>,
        old: Option<&Arc<Self>>,
        tables: &Named<RouteTable>,
        keep: &Keep,
    ) -> Result<Arc<Self>, String> {
        let routes = tables
            .find(&mesh.routes)
            .ok_or_else(|| format!("there is no route table {:?}; define it or name another", mesh.routes))?;
        if let Some(old) = old
            && same(&old.mesh, mesh)
            && Arc::ptr_eq(&old.routes, routes)
        {
            return Ok(old.clone());
        }
        let port = match old {
            Some(old) if old.mesh.filters == mesh.filters => old.port.clone(),
            _ => mesh.filters.compile(keep)?,
        };
        Ok(Arc::new(Self { mesh: mesh.clone(), routes: routes.clone(), port }))
    }
}

impl ChainProtocol {
    /// The HTTP part, if it has one.
    pub fn http(&self) -> Option<&Arc<Http>> {
        match self {
            Self::Http(http) | Self::Detect { http, .. } => Some(http),
            Self::Tcp(_) | Self::Refuse => None,
        }
    }

    /// The TCP part, if it has one.
    pub fn tcp(&self) -> Option<&Arc<Tcp>> {
        match self {
            Self::Tcp(tcp) | Self::Detect { tcp, .. } => Some(tcp),
            Self::Http(_) | Self::Refuse => None,
        }
    }

    fn link(
        mesh: &mesh::ChainProtocol,
        old: Option<&Self>,
        tables: &Named<RouteTable>,
        linker: &Linker<'_>,
    ) -> Result<Self, String> {
        let http = |mesh| Http::link(mesh, old.and_then(Self::http), tables, linker.keep);
        let tcp = |mesh| Tcp::link(mesh, old.and_then(Self::tcp), linker);
        Ok(match mesh {
            mesh::ChainProtocol::Http(mesh) => Self::Http(http(mesh)?),
            mesh::ChainProtocol::Tcp(mesh) => Self::Tcp(tcp(mesh)?),
            mesh::ChainProtocol::Detect { http: web, tcp: bytes } => {
                Self::Detect { http: http(web)?, tcp: tcp(bytes)? }
            }
            mesh::ChainProtocol::Refuse => Self::Refuse,
        })
    }

    fn is(&self, other: &Self) -> bool {
        fn same_part<T>(a: Option<&Arc<T>>, b: Option<&Arc<T>>) -> bool {
            a.map(Arc::as_ptr) == b.map(Arc::as_ptr)
        }
        same_part(self.http(), other.http()) && same_part(self.tcp(), other.tcp())
    }
}

impl Chain {
    /// Compiles a chain, reusing what it can of the one of that name before it.
    pub(super) fn link(
        mesh: &Arc<FilterChain>,
        old: Option<&Arc<Self>>,
        tables: &Named<RouteTable>,
        linker: &Linker<'_>,
        problems: &mut Vec<Problem>,
    ) -> Arc<Self> {
        let compile = |mesh: &Arc<FilterChain>| -> Result<Self, String> {
            let protocol = ChainProtocol::link(&mesh.protocol, old.map(|old| &old.protocol), tables, linker)?;
            let (name, origin, mesh) = (mesh.name.clone(), mesh.origin.clone(), mesh.clone());
            Ok(Self { name, protocol, origin, mesh, clean: true })
        };
        let error = match compile(mesh) {
            Ok(chain) => {
                let reusable =
                    |old: &&Arc<Self>| old.clean && same(&old.mesh, mesh) && old.protocol.is(&chain.protocol);
                return old.filter(reusable).cloned().unwrap_or_else(|| Arc::new(chain));
            }
            Err(error) => error,
        };
        let kept = old.and_then(|old| compile(&old.mesh).ok()).map(|chain| Self { clean: false, ..chain });
        let instead = if kept.is_some() { "its last version stays" } else { "its connections are refused" };
        problems.push(Problem {
            origin: mesh.origin.clone(),
            message: format!("chain {:?}: {error}; {instead}", mesh.name),
        });
        // Refusing, not left out: else its connections would fall to a less specific chain, which may let them pass.
        Arc::new(kept.unwrap_or_else(|| Self {
            name: mesh.name.clone(),
            protocol: ChainProtocol::Refuse,
            origin: mesh.origin.clone(),
            mesh: mesh.clone(),
            clean: false,
        }))
    }
}
