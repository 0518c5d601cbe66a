//! Connections: those that are carried as bytes, and those that are turned away at the door.

use super::{Room, of_connection, room, unavailable};
use crate::mesh::Direction;
use crate::proxy::worker::{Tunnel, Worker};
use crate::snapshot::Listener;
use crate::telemetry::audit::{Access, AuditLog, Event, Place};
use filter_api::{ConnectionFacts, DecisionId, Error, Origin, Reason, Record};
use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest wait of a TCP connection for a place. Requests have the idle timeout of their stream.
const HOLD: Duration = Duration::from_secs(60);

/// Waits for a place for a TCP connection that was let in, where it needs one.
pub(in crate::proxy) async fn admit(worker: &Worker, tunnel: &Tunnel) -> Result<Option<Place>, Error> {
    let random = worker.random();
    match room(worker, |log| log.samples(random)) {
        Room::Unneeded => Ok(None),
        Room::Free(place) => Ok(Some(place)),
        Room::Full(log) => {
            let place = if log.denies_when_full() { None } else { wait(log.clone(), tunnel).await };
            place.map(Some).ok_or_else(|| {
                log.count_refused();
                unavailable()
            })
        }
    }
}

/// Records a TCP connection that was let in and has its place, when it is clear what became of the call to its endpoint.
pub(in crate::proxy) fn admitted(
    place: Option<Place>,
    (facts, started): (&Arc<ConnectionFacts>, Instant),
    cluster: Option<&Arc<str>>,
    upstream: Result<Option<SocketAddr>, &Error>,
) {
    let Some(place) = place else { return };
    let access = Access {
        cluster: cluster.cloned(),
        upstream: upstream.unwrap_or_default(),
        details: upstream.err().map(|error| error.reason().details().into()),
        ..of_connection(facts, started)
    };
    place.write(Event::Allowed(Box::new(access)));
}

/// Records that the filters of a port refused a TCP connection. It is closed already, so that it may wait for a place.
pub(in crate::proxy) async fn refused(
    worker: &Worker,
    tunnel: &Tunnel,
    facts: &Arc<ConnectionFacts>,
    error: &Error,
    (decision, started): (Option<DecisionId>, Instant),
) {
    let place = match room(worker, |_| true) {
        Room::Unneeded => return,
        Room::Free(place) => place,
        Room::Full(log) if log.denies_when_full() => return log.count_missed(),
        Room::Full(log) => match wait(log.clone(), tunnel).await {
            Some(place) => place,
            None => return log.count_missed(),
        },
    };
    let decided = error.decided().cloned();
    let access = Access {
        id: decision.and_then(|id| http::HeaderValue::try_from(id.as_str()).ok()),
        details: Some(error.reason().details().into()),
        decisions: vec![decided.unwrap_or_else(|| because(error.detail_str().to_owned()))],
        ..of_connection(facts, started)
    };
    place.write(Event::Denied(Box::new(access)));
}

/// Records that a connection was closed because it did not prove what it has to. Nothing of it was served, so it does not wait.
pub(in crate::proxy) fn turned_away(
    worker: &Worker,
    listener: &Listener,
    (reason, why): (Reason, &str),
    facts: impl FnOnce() -> ConnectionFacts,
) {
    let proof = matches!(
        reason,
        Reason::DownstreamTls | Reason::ConnectionRefused | Reason::NoRoute | Reason::AccessDenied
    );
    if !proof || listener.mesh.direction == Direction::Outbound {
        return;
    }
    match room(worker, |_| true) {
        Room::Unneeded => {}
        Room::Free(place) => {
            let access = Access {
                details: Some(reason.details().into()),
                decisions: vec![because(why.to_owned())],
                ..of_connection(&Arc::new(facts()), Instant::now())
            };
            place.write(Event::Denied(Box::new(access)));
        }
        Room::Full(log) => log.count_missed(),
    }
}

async fn wait(log: Arc<AuditLog>, tunnel: &Tunnel) -> Option<Place> {
    tokio::select! {
        place = log.take() => Some(place),
        () = tunnel.stopped() => None,
        () = tokio::time::sleep(HOLD) => None,
    }
}

fn because(why: String) -> Record {
    Record { layer: "connection", origin: Origin::BUILT_IN, because: Cow::Owned(why), ruling: None }
}
