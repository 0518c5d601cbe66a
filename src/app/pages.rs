//! The admin, health and metrics pages.

use super::Status;
use super::status::DrainRequest;
use crate::admin::{self, Call, Reply, Routes, State};
use crate::explain::{Question, explain};
use crate::mesh::Direction;
use crate::proxy::LIMITS;
use crate::snapshot::Resource;
use crate::telemetry::decisions::Decisions;
use crate::telemetry::logging::Levels;
use http::StatusCode;
use serde_json::{Value, json};
use std::future::{Ready, ready};
use std::sync::Arc;
use std::time::SystemTime;

/// The pages of the admin port, under Envoy's names.
pub(super) fn admin(status: &Arc<Status>, levels: Option<Levels>) -> Routes {
    let routes = Routes::new("Sidegate")
        .get("/ready", "200 when traffic is welcome, else 503 and why", readiness(status))
        .get(
            "/config_dump",
            "the mesh in force, its generation, and what was rejected",
            page(status, config_dump),
        )
        .get("/clusters", "clusters, their endpoints and their limits", page(status, clusters))
        .get("/certs", "certificates that are held: whose, until when, and why a renewal was kept out", page(status, certs))
        .get("/listeners", "listeners and where they really listen", page(status, listeners))
        .get(
            "/routes",
            "route tables: hosts, rules in order, where each was written",
            page(status, routes_page),
        )
        .get(
            "/explain",
            "the way of a request: ?method=GET&url=http://HOST/PATH&header=NAME:%20VALUE, &inbound, &format=text",
            explain_page(status),
        )
        .get(
            "/explain/",
            "what became of a request or connection, by the id of the decision: /explain/ID, ?format=text",
            remembered(status, admin::decision),
        )
        .get(
            "/decisions",
            "the latest refusals and a sample of what passed: ?limit=50, ?status=403, ?policy=NAMESPACE/NAME, ?outcome=refused",
            remembered(status, admin::list),
        )
        .get("/limits", "every limit: default, unit, scope", admin::limits(LIMITS))
        .get("/audit", "the audit: number and hash of its last record, what waits, why it cannot be written", page(status, audit))
        .get("/stats/prometheus", "metrics", admin::prometheus(status.registry().clone()))
        .get("/stats", "metrics as lines; ?filter=REGEX, ?usedonly", admin::stats(status.registry().clone()))
        .get("/memory", "memory of the process", admin::memory())
        .get("/server_info", "version, state, uptime", {
            let status = status.clone();
            admin::server_info(env!("CARGO_PKG_VERSION"), move || (state(&status), refusal(&status)))
        })
        .post(
            "/drain_listeners",
            "fail readiness and close the inbound listeners, with ?graceful after the propagation window; the process goes on",
            drain_listeners(status),
        )
        .post("/quitquitquit", "end as after SIGTERM", quit(status));
    match levels {
        Some(levels) => routes.on(
            admin::Methods::GetAndPost,
            "/logging",
            "levels of the proxy's own log; POST ?level=debug",
            admin::logging(levels),
        ),
        None => routes,
    }
}

/// The pages of the health port.
pub(super) fn health(status: &Arc<Status>) -> Routes {
    Routes::new("Sidegate health")
        .get("/healthz/ready", "200 when traffic is welcome", readiness(status))
        .get("/healthz/live", "200 while the process answers", |_| ready(Reply::text("ok\n")))
}

/// The pages of the metrics port.
pub(super) fn metrics(status: &Arc<Status>) -> Routes {
    Routes::new("Sidegate metrics")
        .get("/stats/prometheus", "metrics", admin::prometheus(status.registry().clone()))
        .get(
            "/metrics",
            "the same, where Prometheus looks by default",
            admin::prometheus(status.registry().clone()),
        )
}

fn readiness(status: &Arc<Status>) -> impl Fn(Call) -> Ready<Reply> + Send + Sync + use<> {
    let status = status.clone();
    admin::health(move || status.ready().map(|()| refusal(&status)))
}

/// The most names of one kind of trouble that a probe is told.
const NAMES: usize = 5;

/// What there is to say besides, when the newest configuration is not in force, closes something or is not known whole: traffic is welcome all
/// the same.
fn refusal(status: &Status) -> Option<String> {
    let mut said: Vec<String> = Vec::new();
    said.extend(status.refused().map(|refused| format!("{} {}", refused.subject(), refused.message)));
    if let Some(applied) = status.applied() {
        let closed = applied.closed.iter().map(ToString::to_string);
        said.extend(names(
            "security objects are rejected and their scopes closed",
            &closed.collect::<Vec<_>>(),
        ));
        let unreadable = applied.unreadable.iter().map(|file| file.display().to_string());
        said.extend(names("files cannot be read to the end", &unreadable.collect::<Vec<_>>()));
    }
    let missing = status.shared().snapshot().mesh.telemetry.audit_missing.join(", ");
    if !missing.is_empty() {
        said.push(format!("{missing} is rejected: what it asks for is NOT recorded"));
    }
    let stuck = status.shared().auditor().status().and_then(|audit| audit.problem);
    said.extend(stuck.map(|problem| format!("the audit cannot be written: {problem}")));
    (!said.is_empty()).then(|| said.join("; "))
}

/// `3 files cannot be read: a, b, c`; `None` for none.
fn names(what: &str, names: &[String]) -> Option<String> {
    let more = names.len().checked_sub(NAMES).filter(|more| *more > 0);
    let more = more.map_or_else(String::new, |more| format!(" and {more} more"));
    let first: Vec<_> = names.iter().take(NAMES).map(String::as_str).collect();
    (!names.is_empty()).then(|| format!("{} {what}: {}{more}", names.len(), first.join(", ")))
}

fn page(
    status: &Arc<Status>,
    render: fn(&Status) -> Value,
) -> impl Fn(Call) -> Ready<Reply> + Send + Sync + use<> {
    let status = status.clone();
    move |_| ready(Reply::json(&render(&status)))
}

fn remembered(
    status: &Arc<Status>,
    show: fn(&Decisions, &Call) -> Reply,
) -> impl Fn(Call) -> Ready<Reply> + Send + Sync + use<> {
    let status = status.clone();
    move |call| ready(show(status.shared().decisions(), &call))
}

fn explain_page(status: &Arc<Status>) -> impl Fn(Call) -> Ready<Reply> + Send + Sync + use<> {
    let status = status.clone();
    move |call| {
        let query = &call.query;
        let headers = query.iter().filter(|(key, _)| *key == "header").map(|(_, line)| line);
        let method = query.value("method").unwrap_or("GET");
        let question = Question::parse(method, query.value("url").unwrap_or_default(), headers);
        ready(match question {
            Ok(question) => {
                let question = question.inbound(query.has("inbound"));
                let explanation = explain(&status.shared().snapshot(), &question);
                if query.value("format") == Some("text") {
                    Reply::text(explanation.to_string())
                } else {
                    Reply::json(&explanation)
                }
            }
            Err(error) => Reply::error(StatusCode::BAD_REQUEST, error.to_string()),
        })
    }
}

/// As Envoy's, with `inboundonly` always: the application behind us still has calls to make.
fn drain_listeners(status: &Arc<Status>) -> impl Fn(Call) -> Ready<Reply> + Send + Sync + use<> {
    let status = status.clone();
    move |call| {
        status.drain_listeners(DrainRequest { graceful: call.query.has("graceful") });
        ready(Reply::text("OK\n"))
    }
}

fn quit(status: &Arc<Status>) -> impl Fn(Call) -> Ready<Reply> + Send + Sync + use<> {
    let status = status.clone();
    move |_| {
        status.quit();
        ready(Reply::text("draining\n").with_status(StatusCode::ACCEPTED))
    }
}

fn state(status: &Status) -> State {
    match (status.applied().is_some(), status.shared().is_draining()) {
        (false, _) => State::PreInitializing,
        (true, true) => State::Draining,
        (true, false) => State::Live,
    }
}

fn certs(status: &Status) -> Value {
    let held = status.shared().keyring().status(SystemTime::now());
    json!({ "certificates": held })
}

fn audit(status: &Status) -> Value {
    json!({ "audit": status.shared().auditor().status() })
}

fn config_dump(status: &Status) -> Value {
    let snapshot = status.shared().snapshot();
    let applied = status.applied();
    let applied = applied.as_deref().map(|applied| {
        let since =
            applied.time.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let refused = status.refused();
        let rejected: Vec<_> = applied
            .rejected
            .iter()
            .chain(refused.as_deref())
            .map(|rejected| {
                json!({
                    "object": rejected.key,
                    "place": rejected.place.to_string(),
                    "message": rejected.message,
                    "keptOld": rejected.kept_old,
                })
            })
            .collect();
        json!({
            "generation": applied.generation,
            "hash": format!("{:016x}", applied.hash),
            "appliedAt": since,
            "proxy": applied.proxy.to_string(),
            "rejected": rejected,
            "closedScopes": applied.closed,
            "unreadable": applied.unreadable,
            "problems": applied.problems,
            "findings": applied.findings,
        })
    });
    json!({
        "source": status.source(),
        "configuration": applied,
        "snapshot": snapshot.generation,
        "mesh": &*snapshot.mesh,
    })
}

fn clusters(status: &Status) -> Value {
    let snapshot = status.shared().snapshot();
    let clusters: Vec<_> = snapshot
        .clusters()
        .map(|cluster| {
            let endpoints: Vec<_> = cluster
                .state
                .endpoints()
                .endpoints()
                .iter()
                .map(|endpoint| {
                    json!({
                        "address": endpoint.address,
                        "weight": endpoint.mesh.weight,
                        "health": endpoint.mesh.health,
                        "priority": endpoint.mesh.priority,
                        "locality": endpoint.mesh.locality,
                        "active": endpoint.active.load(std::sync::atomic::Ordering::Relaxed),
                        "origin": endpoint.mesh.origin.to_string(),
                    })
                })
                .collect();
            let count =
                |resource| json!({"now": cluster.state.count(resource), "limit": cluster.limit(resource)});
            json!({
                "name": cluster.mesh.name,
                "origin": cluster.mesh.origin.to_string(),
                "balance": cluster.mesh.balance,
                "connections": count(Resource::Connections),
                "pending": count(Resource::Pending),
                "requests": count(Resource::Requests),
                "endpoints": endpoints,
                "discoveryFailure": cluster.state.discovery_failure(),
            })
        })
        .collect();
    json!({ "clusters": clusters })
}

fn listeners(status: &Status) -> Value {
    let snapshot = status.shared().snapshot();
    let bound = status.listeners();
    let listeners: Vec<_> = snapshot
        .listeners()
        .map(|listener| {
            let addresses = bound.get(&listener.mesh.name).unwrap_or(&listener.mesh.addresses);
            let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            json!({
                "name": listener.mesh.name,
                "direction": listener.mesh.direction,
                "bound": bound.contains_key(&listener.mesh.name),
                "addresses": addresses,
                "chains": listener.mesh.chains.iter().map(|chain| &chain.name).collect::<Vec<_>>(),
                "origin": listener.mesh.origin.to_string(),
            })
        })
        .collect();
    let shared = status.shared();
    json!({
        "listeners": listeners,
        "connections": {
            "inbound": shared.connections(Direction::Inbound),
            "outbound": shared.connections(Direction::Outbound),
            "gateway": shared.connections(Direction::Gateway),
        },
    })
}

fn routes_page(status: &Status) -> Value {
    let snapshot = status.shared().snapshot();
    let tables: Vec<_> = snapshot
        .mesh
        .routes
        .values()
        .map(|table| {
            let hosts: Vec<_> = table
                .hosts
                .iter()
                .map(|host| {
                    let rules: Vec<_> = host
                        .routes
                        .iter()
                        .map(|route| {
                            json!({
                                "name": route.name,
                                "match": route.matches,
                                "action": route.action.action,
                                "origin": route.origin.to_string(),
                            })
                        })
                        .collect();
                    json!({"name": host.name, "domains": host.domains, "rules": rules, "origin": host.origin.to_string()})
                })
                .collect();
            json!({"name": table.name, "hosts": hosts})
        })
        .collect();
    json!({ "routes": tables })
}
