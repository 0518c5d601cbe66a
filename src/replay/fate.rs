//! What becomes of a logged request under one configuration.

use super::line::Entry;
use super::unknown::{Unknown, Way, decide};
use crate::app::choose;
use crate::config::resources::proxy::{Interception, Proxy, Role};
use crate::config::resources::{ObjectKey, Resource, Spec};
use crate::config::translate::{Input, translate};
use crate::explain::{Explanation, Outcome, Question, Tls, Verdict, explain};
use crate::filters::PortSettings;
use crate::mesh::{Address, ChainProtocol, Direction, Mesh};
use crate::policy_test::{caller, targets};
use crate::snapshot::Snapshot;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct End {
    /// Whether it is let through, or refused.
    pub(super) allowed: bool,
    /// Status of an answer that the proxy makes itself.
    pub(super) status: Option<u16>,
    /// The route that it takes.
    pub(super) route: String,
    /// Where it goes, by weight.
    pub(super) to: Vec<(String, f64)>,
}

/// What is known of that.
#[derive(Clone, Debug)]
pub(super) enum Fate {
    /// It is certain.
    Known(End),
    /// It depends on these.
    Depends(BTreeSet<String>),
}

impl Fate {
    pub(super) fn depends_on(&self) -> impl Iterator<Item = &str> {
        let names = match self {
            Self::Known(_) => None,
            Self::Depends(names) => Some(names),
        };
        names.into_iter().flatten().map(String::as_str)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.allowed, self.status) {
            (false, Some(0)) => f.write_str("connection closed"),
            (false, Some(status)) => write!(f, "refused with {status}"),
            (false, None) => f.write_str("refused"),
            (true, Some(status)) => write!(f, "answered with {status}"),
            (true, None) => {
                f.write_str("to")?;
                for (at, (cluster, percent)) in self.to.iter().enumerate() {
                    let comma = if at == 0 { "" } else { "," };
                    if self.to.len() == 1 {
                        write!(f, " {cluster}")?;
                    } else {
                        write!(f, "{comma} {cluster} {percent:.0} %")?;
                    }
                }
                if self.route.is_empty() { Ok(()) } else { write!(f, " by route {}", self.route) }
            }
        }
    }
}

/// Whose line it is.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    proxy: Arc<Resource>,
    inbound: bool,
}

/// A configuration, and what its Proxies run.
pub(super) struct Side<'a> {
    resources: &'a [Arc<Resource>],
    meshes: BTreeMap<ObjectKey, Arc<Mesh>>,
    decided: BTreeMap<(ObjectKey, Unknown, Way), Decided>,
    /// With Proxies of the other side.
    compared: BTreeMap<(ObjectKey, ObjectKey), Same>,
}

/// What two Proxies have in common.
#[derive(Clone, Copy)]
struct Same {
    all: bool,
    tokens: bool,
    access: bool,
    /// Whether there are access policies at all.
    any_access: bool,
}

#[derive(Clone)]
struct Decided {
    snapshot: Arc<Snapshot>,
    named: Arc<BTreeSet<String>>,
}

impl<'a> Side<'a> {
    pub(super) fn new(resources: &'a [Arc<Resource>]) -> Self {
        Self { resources, meshes: BTreeMap::new(), decided: BTreeMap::new(), compared: BTreeMap::new() }
    }

    /// The Proxy whose line it is, and which way the request went; `None` when nobody can tell.
    pub(super) fn place(&mut self, entry: &Entry, named: Option<&str>) -> Option<Placed> {
        let went = went(entry);
        if let Some(named) = named {
            let proxy = self.named(named)?;
            let listens = self.listens(&proxy, entry);
            let inbound = went.or(listens).unwrap_or_else(|| refused_by_policy(entry));
            return Some(Placed { inbound: inbound && !is_gateway(&proxy), proxy });
        }
        let proxies = self.resources.iter().filter(|resource| matches!(resource.spec, Spec::Proxy(_)));
        let proxies: Vec<_> = proxies.cloned().collect();
        for proxy in &proxies {
            // An address that several Proxies have tells nothing.
            if let Some(inbound) = self.listens(proxy, entry)
                && proxies.iter().filter(|other| self.listens(other, entry).is_some()).count() == 1
            {
                return Some(Placed { inbound: inbound && !is_gateway(proxy), proxy: proxy.clone() });
            }
        }
        let inbound = went.or_else(|| refused_by_policy(entry).then_some(true))?;
        if let [only] = proxies.as_slice() {
            return Some(Placed { inbound: inbound && !is_gateway(only), proxy: only.clone() });
        }
        let host = entry.authority.split(':').next().unwrap_or_default();
        let mut found = targets(self.resources, host, None).ok()?;
        if inbound {
            // Several workloads behind a service may have several policies.
            return if found.len() == 1 {
                found.pop().map(|one| Placed { proxy: one.proxy, inbound })
            } else {
                None
            };
        }
        let namespace = found.first().map(|one| one.proxy.key.namespace.to_string())?;
        let proxy = caller(self.resources, None, entry.principal.as_deref(), &namespace).ok()?;
        Some(Placed { proxy, inbound })
    }

    /// The Proxy of this name, or the one that a workload of this name would have.
    fn named(&self, name: &str) -> Option<Arc<Resource>> {
        choose(self.resources, Some(name)).ok().or_else(|| {
            let service = match name.split_once('/') {
                Some((namespace, short)) => format!("{short}.{namespace}"),
                None => name.to_owned(),
            };
            Some(targets(self.resources, &service, None).ok()?.pop()?.proxy)
        })
    }

    /// Whether a Proxy listens where the request came to: inbound `Some(true)`, outbound `Some(false)`.
    fn listens(&mut self, proxy: &Arc<Resource>, entry: &Entry) -> Option<bool> {
        let port = entry.local?.port();
        let mesh = self.mesh(proxy);
        let has = |address: &Address| matches!(address, Address::Socket(address) if address.port() == port);
        let bound = mesh.listeners.values().filter(|listener| listener.bound);
        bound
            .filter(|listener| listener.addresses.iter().any(has))
            .map(|listener| listener.direction == Direction::Inbound)
            .next()
    }

    fn mesh(&mut self, proxy: &Arc<Resource>) -> Arc<Mesh> {
        let resources = self.resources;
        let make = || Arc::new(translate(&Input { resources, proxy }, None).mesh);
        self.meshes.entry(proxy.key.clone()).or_insert_with(make).clone()
    }

    /// Whether all that decides about a request is the same on both sides.
    pub(super) fn same(&mut self, other: &mut Side<'_>, own: &Placed, its: &Placed) -> bool {
        own.inbound == its.inbound && self.compared(other, own, its).all
    }

    /// Whether the rules about tokens are the same on both sides.
    pub(super) fn same_tokens(&mut self, other: &mut Side<'_>, own: &Placed, its: &Placed) -> bool {
        !own.inbound || self.compared(other, own, its).tokens
    }

    /// Whether an outcome hangs on access policies: they differ and there is something to refuse, or they may have refused what now changes.
    pub(super) fn hangs_on_access(
        &mut self,
        other: &mut Side<'_>,
        (own, before): (&Placed, &End),
        (its, after): (&Placed, &End),
    ) -> bool {
        if !own.inbound {
            return false;
        }
        let same = self.compared(other, own, its);
        (!same.access && (before.allowed || after.allowed)) || (same.any_access && before != after)
    }

    fn compared(&mut self, other: &mut Side<'_>, own: &Placed, its: &Placed) -> Same {
        let key = (own.proxy.key.clone(), its.proxy.key.clone());
        if let Some(known) = self.compared.get(&key) {
            return *known;
        }
        let (own, its) = (self.mesh(&own.proxy), other.mesh(&its.proxy));
        let same = Same {
            all: own.listeners == its.listeners && own.routes == its.routes && own.clusters == its.clusters,
            tokens: token_rules(&own).eq(token_rules(&its)),
            access: access_policies(&own).eq(access_policies(&its)),
            any_access: access_policies(&own).chain(access_policies(&its)).next().is_some(),
        };
        self.compared.insert(key, same);
        same
    }

    /// What becomes of a request.
    pub(super) fn fate(&mut self, entry: &Entry, placed: &Placed) -> Fate {
        let mesh = self.mesh(&placed.proxy);
        let tokens = token_rules(&mesh).next().is_some();
        let forwarded = entry.headers.iter().any(|(name, _)| *name == "x-forwarded-for");
        let unknown = Unknown {
            principal: entry.mutual && entry.principal.is_none(),
            peer: entry.client.is_none() || forwarded,
            token: placed.inbound && tokens,
        };
        let Some(question) = question(entry, placed) else {
            return Fate::Depends(["a host or path that the log shows whole".to_owned()].into());
        };
        let lenient = self.decided(placed, unknown, Way::Lenient);
        let strict = self.decided(placed, unknown, Way::Strict);
        let [one, other] = [&lenient, &strict].map(|decided| end(&explain(&decided.snapshot, &question)));
        if one != other {
            // Policies stand on the way in, routes with conditions on the way out.
            let of_routes = |name: &&String| name.starts_with("header ");
            let names = lenient.named.union(&strict.named);
            return Fate::Depends(names.filter(|name| of_routes(name) != placed.inbound).cloned().collect());
        }
        Fate::Known(one)
    }

    fn decided(&mut self, placed: &Placed, unknown: Unknown, way: Way) -> Decided {
        let mesh = self.mesh(&placed.proxy);
        let key = (placed.proxy.key.clone(), unknown, way);
        let make = || {
            let mut mesh = Mesh::clone(&mesh);
            let named = Arc::new(decide(&mut mesh, unknown, way));
            Decided { snapshot: Snapshot::compile(mesh, None).0, named }
        };
        self.decided.entry(key).or_insert_with(make).clone()
    }
}

/// Which way a request went, as its cluster tells: inbound or not.
fn went(entry: &Entry) -> Option<bool> {
    let begins = |with: &[&str]| with.iter().any(|prefix| entry.cluster.starts_with(prefix));
    if begins(&["inbound|", "InboundPassthrough"]) {
        return Some(true);
    }
    begins(&["outbound|", "Passthrough", "BlackHole"]).then_some(false)
}

/// Policies stand before applications.
fn refused_by_policy(entry: &Entry) -> bool {
    ["rbac_access_denied", "jwt_authn_access_denied"].iter().any(|details| entry.details.starts_with(details))
}

fn proxy_of(resource: &Resource) -> Option<&Proxy> {
    if let Spec::Proxy(proxy) = &resource.spec { Some(proxy) } else { None }
}

fn is_gateway(resource: &Resource) -> bool {
    proxy_of(resource).is_some_and(|proxy| proxy.role == Role::Gateway)
}

/// The rules about tokens, chain by chain.
fn token_rules(mesh: &Mesh) -> impl Iterator<Item = &Vec<filter_jwt::Settings>> {
    filters(mesh).map(|filters| &filters.jwt).filter(|rules| !rules.is_empty())
}

/// The access policies, chain by chain.
fn access_policies(mesh: &Mesh) -> impl Iterator<Item = &Vec<filter_authorization::access::Settings>> {
    filters(mesh).map(|filters| &filters.access).filter(|policies| !policies.is_empty())
}

fn filters(mesh: &Mesh) -> impl Iterator<Item = &PortSettings> {
    let chains =
        mesh.listeners.values().flat_map(|listener| listener.chains.iter().chain(&listener.default_chain));
    chains.filter_map(|chain| match &chain.protocol {
        ChainProtocol::Http(http) | ChainProtocol::Detect { http, .. } => Some(&http.filters),
        ChainProtocol::Tcp(_) | ChainProtocol::Refuse(_) => None,
    })
}

/// The request of a line, as far as the line tells.
fn question(entry: &Entry, placed: &Placed) -> Option<Question> {
    let captured = proxy_of(&placed.proxy).is_some_and(|proxy| proxy.interception != Interception::Explicit);
    let at = match entry.local.filter(|_| captured) {
        Some(local) => local.to_string(),
        None => entry.authority.clone(),
    };
    let mut lines: Vec<String> =
        entry.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    lines.push(format!("host: {}", entry.authority));
    let url = format!("http://{at}{}", entry.path);
    let mut question =
        Question::parse(&entry.method, &url, lines.iter().map(String::as_str)).ok()?.inbound(placed.inbound);
    if let Some(client) = entry.client {
        question = question.from(client);
    }
    if let Ok(timed) = question.clone().at(&entry.time) {
        question = timed;
    }
    if !placed.inbound {
        return Some(question.over(Tls::None));
    }
    match &entry.principal {
        Some(principal) => question.by(principal).ok(),
        None => Some(question.over(if entry.mutual { Tls::Mutual } else { Tls::None })),
    }
}

fn end(found: &Explanation) -> End {
    let denied = found.decision.as_ref().is_some_and(|decided| decided.verdict != Verdict::Allow);
    let (refused, status) = match &found.outcome {
        Outcome::Forwarded => (false, None),
        Outcome::Answered { status, .. } => (false, Some(*status)),
        // Whether an endpoint is there is of the moment, not of the configuration.
        Outcome::Refused { flag: "UH", .. } => (false, None),
        Outcome::Refused { status, .. } => (true, Some(*status)),
    };
    End {
        allowed: !denied && !refused,
        status,
        route: found.route.as_ref().map(|route| route.name.clone()).unwrap_or_default(),
        to: found.destinations.iter().map(|way| (way.cluster.clone(), way.percent)).collect(),
    }
}
