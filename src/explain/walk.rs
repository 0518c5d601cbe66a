//! Asks every stage of the data path in its order.

use super::policy;
use super::{Callee, Explanation, Outcome, Part, Question, Step, Way};
use crate::config::fields::nearest;
use crate::filters;
use crate::mesh::{self, Address, Balance, Direction, Discovery, EndpointAddress, TransportProtocol};
use crate::proxy::authority::{Authority, request_authority};
use crate::proxy::headers::grpc::is_grpc;
use crate::proxy::{canonicalise, client_of};
use crate::snapshot::{ChainQuery, Destination, Http, Listener, Miss, Route, RouteTable, Snapshot};
use filter_api::{Error, NoTrace, Reason, TraceStep};
use filter_timeout::parse_grpc_timeout;
use filter_transform::{Decision, decide};
use http::request::Parts;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

pub(super) fn walk(snapshot: &Snapshot, question: &Question) -> Explanation {
    let mut found = Explanation {
        request: question.text(),
        listener: None,
        canonical: Vec::new(),
        policies: Vec::new(),
        table: None,
        rules: Vec::new(),
        route: None,
        destinations: Vec::new(),
        outcome: Outcome::Forwarded,
    };
    let mut head = question.head();
    let Some((listener, http)) = arrive(snapshot, question, &head) else {
        found.outcome = refused(
            &Error::new(Reason::NoRoute).detail("no listener of this proxy takes HTTP for it"),
            "see `/listeners` of the admin port; for the way to the application ask with `--inbound`",
        );
        return found;
    };
    let addresses: Vec<_> = listener.mesh.addresses.iter().map(Address::to_string).collect();
    found.listener = Some(Part {
        name: format!("{} at {}", listener.mesh.name, addresses.join(", ")),
        origin: listener.mesh.origin.to_string(),
    });
    let before = head.clone();
    let client = client_of(&http.mesh, &head, question.peer());
    if let Err(error) = canonicalise(&http.mesh, &mut head, question.peer()) {
        found.outcome = refused(&error, "");
        return found;
    }
    found.canonical = differences(&before, &head);
    let ip = question.ip().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let destination = SocketAddr::new(ip, question.port());
    let canonical = head.clone();
    let (policies, refusal) = policy::ask(question, &listener, &http, &mut head, (client, destination));
    found.canonical.extend(differences(&canonical, &head));
    found.policies = policies;
    if let Some(refusal) = refusal {
        found.outcome = refusal;
        return found;
    }
    found.table = Some(http.routes.mesh.name.to_string());
    let authority = authority(&head);
    let host = authority.as_ref().map_or("", |authority| &authority.host);
    let port = authority.as_ref().and_then(|authority| authority.port);
    let mut trace: Vec<TraceStep> = Vec::new();
    let route = http.routes.select(host, port, &head, &mut trace);
    found.rules = trace.iter().map(step).collect();
    match route {
        Ok(route) => {
            found.route = Some(Part { name: route.name.to_string(), origin: route.origin.to_string() });
            found.destinations = ways(route, &head);
            let outcomes = || found.destinations.iter().map(|way| &way.outcome);
            let whole = outcomes().find(|outcome| !outcome.is_refused()).or_else(|| outcomes().next());
            found.outcome = whole.cloned().unwrap_or(Outcome::Forwarded);
        }
        Err(miss) => found.outcome = missed(&miss, host, &http.routes),
    }
    found
}

/// The listener and HTTP chain that a client of this question meets: of those of the right direction the one that knows the host, and of these the
/// one of the port.
fn arrive(snapshot: &Snapshot, question: &Question, head: &Parts) -> Option<(Arc<Listener>, Arc<Http>)> {
    let mut best: Option<(u8, &Arc<Listener>, Arc<Http>)> = None;
    for listener in snapshot.listeners() {
        let wanted = match listener.mesh.direction {
            Direction::Inbound => question.is_inbound(),
            Direction::Outbound | Direction::Gateway => !question.is_inbound(),
        };
        let own_port = ports(listener).any(|port| port == question.port());
        // One that is not bound takes over the connections to its own port alone.
        if !wanted || (!listener.mesh.bound && !own_port) {
            continue;
        }
        let ip = question.ip().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let captured = listener.mesh.interception.is_some() || !listener.mesh.bound;
        let destination = SocketAddr::new(ip, question.port());
        let query = ChainQuery {
            destination: captured.then_some(destination).or_else(|| first_address(listener)),
            source: question.peer(),
            transport: TransportProtocol::RawBuffer,
            server_name: None,
            application_protocols: &["http/1.1"],
        };
        // Mutual TLS where the port takes it, as a sidecar would call.
        let secure =
            ChainQuery { transport: TransportProtocol::Tls, application_protocols: &["istio"], ..query };
        let ended = listener.chain(&secure).filter(|chain| chain.mesh.tls.is_some());
        let chain = ended.or_else(|| listener.chain(&query));
        let Some(http) = chain.and_then(|chain| chain.protocol.http()) else { continue };
        let mut canonical = head.clone();
        let known = canonicalise(&http.mesh, &mut canonical, question.peer()).is_ok()
            && authority(&canonical).is_some_and(|authority| {
                let found = http.routes.select(&authority.host, authority.port, &canonical, &mut NoTrace);
                !matches!(found, Err(Miss::Host))
            });
        let rank = u8::from(!known) * 2 + u8::from(!own_port);
        if best.as_ref().is_none_or(|(other, ..)| rank < *other) {
            best = Some((rank, listener, http.clone()));
        }
    }
    best.map(|(_, listener, http)| (listener.clone(), http))
}

fn ports(listener: &Listener) -> impl Iterator<Item = u16> {
    listener.mesh.addresses.iter().filter_map(|address| match address {
        Address::Socket(address) => Some(address.port()),
        Address::Unix(_) => None,
    })
}

fn first_address(listener: &Listener) -> Option<SocketAddr> {
    listener.mesh.addresses.iter().find_map(|address| match address {
        Address::Socket(address) => Some(*address),
        Address::Unix(_) => None,
    })
}

/// The authority of a head that is canonical.
fn authority(head: &Parts) -> Option<Authority<'_>> {
    request_authority(head.version, &head.method, &head.uri, &head.headers).ok().flatten()
}

pub(super) fn step(step: &TraceStep) -> Step {
    Step { held: step.held, because: step.because.clone(), origin: step.origin.to_string() }
}

fn ways(route: &Route, head: &Parts) -> Vec<Way> {
    let total: u64 = route.destinations().map(|(weight, _)| weight).sum();
    let way = |(weight, destination): (u64, &Arc<Destination>)| {
        #[allow(clippy::cast_precision_loss, reason = "weights are 32 bits wide")]
        let percent = 100.0 * weight as f64 / total.max(1) as f64;
        way(percent, destination, head)
    };
    route.destinations().map(way).collect()
}

/// What the filters and the cluster of a destination do with the request.
fn way(percent: f64, destination: &Destination, head: &Parts) -> Way {
    let mut way = Way {
        percent,
        cluster: destination.cluster_name.to_string(),
        origin: destination.origin.to_string(),
        changes: Vec::new(),
        balance: None,
        timeouts: Vec::new(),
        endpoints: Vec::new(),
        outcome: Outcome::Forwarded,
    };
    let mut sent = head.clone();
    if let Some(settings) = destination.slots.read(filters::route::transform) {
        let mut trace: Vec<TraceStep> = Vec::new();
        let decision = decide(settings, head, &mut trace);
        way.changes = trace.iter().map(step).collect();
        let failed = match decision {
            Decision::Reply(reply) => {
                let location = reply.headers.get(http::header::LOCATION);
                let location = location.and_then(|value| value.to_str().ok()).map(str::to_owned);
                way.outcome = Outcome::Answered { status: reply.status.as_u16(), location };
                return way;
            }
            Decision::Forward(edit) => edit.apply(settings, &mut sent).err(),
            Decision::Fail(why) => Some(why),
        };
        if let Some(why) = failed {
            let error = Error::new(Reason::BadPath).detail(why);
            way.outcome = refused(&error, "correct the rewrite of the rule");
            return way;
        }
    }
    way.timeouts = timeouts(destination, &sent);
    let Some(cluster) = &destination.cluster else {
        let detail = format!("route names cluster {}, which does not exist", destination.cluster_name);
        let hint =
            "add a Service or ServiceEntry for the host, or correct `destination.host`, `port` or `subset`";
        way.outcome = refused(&Error::new(Reason::NoCluster).detail(detail), hint);
        return way;
    };
    way.balance = Some(balance(&cluster.mesh).to_owned());
    let table = cluster.state.endpoints();
    way.endpoints = table.endpoints().iter().map(|endpoint| callee(&endpoint.mesh)).collect();
    if table.preferred().is_empty() && cluster.mesh.discovery == Discovery::Endpoints {
        let service = &cluster.mesh.service;
        let detail = match &*service.subset {
            "" => format!("no endpoint of {} takes traffic", service.host),
            subset => format!("no endpoint of subset {subset} of {} takes traffic", service.host),
        };
        let hint = "see which labels the subset asks for, and which the endpoints carry (`/clusters`)";
        way.outcome = refused(&Error::new(Reason::NoHealthyUpstream).detail(detail), hint);
    }
    way
}

fn timeouts(destination: &Destination, head: &Parts) -> Vec<String> {
    let written = destination.slots.read(filters::route::timeout).and_then(|settings| settings.last());
    let written = written.map(|settings| settings.total).filter(|total| !total.is_zero());
    let grpc = head.headers.get("grpc-timeout").filter(|_| is_grpc(&head.headers));
    let grpc = grpc.and_then(|value| parse_grpc_timeout(value.as_bytes())).filter(|time| !time.is_zero());
    let total = written.into_iter().chain(grpc).min();
    let mut timeouts =
        vec![total.map_or_else(|| "total: none".to_owned(), |total| format!("total: {total:?}"))];
    if let Some(cluster) = &destination.cluster {
        timeouts.push(format!("connect: {:?}", cluster.mesh.pool.connect_timeout));
        let idle = cluster.mesh.pool.idle_timeout;
        if idle != Duration::ZERO {
            timeouts.push(format!("idle connection: {idle:?}"));
        }
    }
    timeouts
}

fn balance(cluster: &mesh::Cluster) -> &'static str {
    match (&cluster.discovery, cluster.balance) {
        (Discovery::OriginalDestination, _) | (_, Balance::Passthrough) => {
            "the address that the client asked for"
        }
        (Discovery::StrictDns { .. } | Discovery::LogicalDns { .. }, _) => "an address that DNS gives",
        (_, Balance::LeastRequest) => "the less busy of two random ones",
        (_, Balance::RoundRobin) => "in turn",
        (_, Balance::Random) => "by chance",
    }
}

fn callee(endpoint: &mesh::Endpoint) -> Callee {
    let workload = &endpoint.workload;
    Callee {
        address: match &endpoint.address {
            EndpointAddress::Socket(address) => address.to_string(),
            EndpointAddress::Name(name, port) => format!("{name}:{port}"),
            EndpointAddress::Unix(path) => format!("unix:{}", path.display()),
        },
        workload: format!("{} {}", workload.canonical_service, workload.canonical_revision),
        weight: endpoint.weight,
        health: endpoint.health,
        origin: endpoint.origin.to_string(),
    }
}

/// What is in one head and not in the other.
fn differences(before: &Parts, after: &Parts) -> Vec<String> {
    let mut found = Vec::new();
    if before.uri != after.uri {
        found.push(format!("target {} becomes {}", before.uri, after.uri));
    }
    let values = |parts: &Parts, name: &http::HeaderName| {
        let values = parts.headers.get_all(name).iter();
        values
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect::<Vec<_>>()
            .join(", ")
    };
    for name in before.headers.keys() {
        if !after.headers.contains_key(name) {
            found.push(format!("header {name} is removed"));
        } else if values(before, name) != values(after, name) {
            found.push(format!("header {name} becomes {:?}", values(after, name)));
        }
    }
    for name in after.headers.keys().filter(|name| !before.headers.contains_key(*name)) {
        // Another one for each request.
        if name == "x-request-id" {
            found.push("header x-request-id is added: a new one".to_owned());
            continue;
        }
        found.push(format!("header {name} is added: {:?}", values(after, name)));
    }
    found
}

fn missed(miss: &Miss, host: &str, table: &RouteTable) -> Outcome {
    match miss {
        Miss::Host => {
            let detail = format!("no service or virtual host {host} in route table {}", table.mesh.name);
            let domains = || table.hosts().iter().flat_map(|host| &host.mesh.domains);
            let known = domains().map(|domain| domain.split(':').next().unwrap_or(domain));
            let hint = match nearest(host, known) {
                Some(near) => format!("did you mean {near}?"),
                None => format!(
                    "add a Service or ServiceEntry for it; this proxy knows {} hosts, see `/routes`",
                    table.hosts().len()
                ),
            };
            refused(&Error::new(Reason::NoRoute).detail(detail), &hint)
        }
        Miss::Rule { virtual_host } => {
            let detail = format!("no rule of virtual host {} matches this request", virtual_host.name);
            let last = virtual_host.routes.last().and_then(|route| route.origin.object_name().cloned());
            let hint = match last {
                Some(object) => {
                    format!("add a rule without `match` as the last of {object}, or correct the request")
                }
                None => "add a rule without `match`, or correct the request".to_owned(),
            };
            refused(&Error::new(Reason::NoRoute).detail(detail), &hint)
        }
    }
}

fn refused(error: &Error, hint: &str) -> Outcome {
    let reason = error.reason();
    Outcome::Refused {
        status: reason.status().as_u16(),
        flag: reason.flag(),
        why: match error.detail_str() {
            "" => reason.details().replace('_', " "),
            detail => detail.to_owned(),
        },
        hint: hint.to_owned(),
    }
}
