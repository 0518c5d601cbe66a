//! Asks every stage of the data path in its order.

use super::arrive::{Arrival, arrive, authority, destination};
use super::{
    Callee, Decided, Explanation, Outcome, Part, Question, Step, Verdict, Way, access, policy, token,
};
use crate::config::fields::nearest;
use crate::filters;
use crate::mesh::{self, Address, Balance, Discovery, EndpointAddress};
use crate::proxy::headers::grpc::is_grpc;
use crate::proxy::{canonicalise, client_of};
use crate::snapshot::{Destination, Listener, Miss, Route, RouteTable, Snapshot};
use filter_api::{Error, Reason, TraceStep};
use filter_timeout::parse_grpc_timeout;
use filter_transform::{Decision, decide};
use http::request::Parts;
use std::sync::Arc;
use std::time::Duration;

pub(super) fn walk(snapshot: &Snapshot, question: &Question) -> Explanation {
    let mut found = Explanation {
        request: question.text(),
        listener: None,
        notes: Vec::new(),
        canonical: Vec::new(),
        tokens: Vec::new(),
        policies: Vec::new(),
        decision: None,
        table: None,
        rules: Vec::new(),
        route: None,
        destinations: Vec::new(),
        outcome: Outcome::Forwarded,
    };
    let mut head = question.head();
    let (listener, http, ended) = match arrive(snapshot, question, &head) {
        Arrival::Taken(listener, http, ended) => (listener, http, ended),
        Arrival::Refused { listener, why, hint, origin } => {
            found.listener = Some(part(&listener));
            let by = origin.object_name().map(ToString::to_string).unwrap_or_default();
            let origin = origin.to_string();
            found.decision =
                Some(Decided { verdict: Verdict::Deny, by, also: Vec::new(), origin, clause: None });
            found.outcome = Outcome::Refused { status: 0, flag: "NR", why, hint: hint.to_owned() };
            return found;
        }
        Arrival::Passed(listener) => {
            found.listener = Some(part(&listener));
            let note = "the bytes are passed on unopened: no rule about requests is asked, nor is any about connections here";
            found.notes.push(note.to_owned());
            return found;
        }
        Arrival::Nowhere => {
            found.outcome = refused(
                &Error::new(Reason::NoRoute).detail("no listener of this proxy takes HTTP for it"),
                "see `/listeners` of the admin port; for the way to the application ask with `--inbound`",
            );
            return found;
        }
    };
    found.listener = Some(part(&listener));
    if question.principal().is_some() && !ended {
        let note = "this port ends no mutual TLS (PeerAuthentication DISABLE, or a Proxy without `identity`): the caller proves nothing";
        found.notes.push(note.to_owned());
    }
    let before = head.clone();
    let client = client_of(&http.mesh, &head, question.peer());
    if let Err(error) = canonicalise(&http.mesh, &mut head, question.peer()) {
        found.outcome = refused(&error, "");
        return found;
    }
    found.canonical = differences(&before, &head);
    let canonical = head.clone();
    let connection = policy::connection(question, (&listener, ended), destination(question));
    access::strip(&http, &mut head, &connection);
    let tokens = token::ask(question, &http, &mut head);
    found.tokens = tokens.steps;
    found.notes.extend(tokens.notes);
    if let Some((decided, outcome)) = tokens.refusal {
        found.decision = Some(decided);
        found.outcome = outcome;
        return found;
    }
    let asked = policy::ask(question, &http, (&mut head, tokens.token.as_deref()), (&connection, client));
    found.canonical.extend(differences(&canonical, &head));
    found.policies = asked.steps;
    found.decision = Some(asked.decided);
    if let Some(refusal) = asked.refusal {
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

fn part(listener: &Listener) -> Part {
    let addresses: Vec<_> = listener.mesh.addresses.iter().map(Address::to_string).collect();
    Part {
        name: format!("{} at {}", listener.mesh.name, addresses.join(", ")),
        origin: listener.mesh.origin.to_string(),
    }
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
