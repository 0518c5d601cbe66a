//! What is under way on a worker: for the clock, the drain and the stop to find.

use super::{Accepted, Shared, Worker};
use crate::mesh::Direction;
use crate::proxy::carried::Bytes;
use crate::proxy::connection::{Close, Conn, Door};
use crate::proxy::record::Activity;
use filter_api::{Error, Reason};
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Notify;

/// A connection on the worker's list, until it is dropped.
pub(crate) struct Registered {
    worker: Rc<Worker>,
    conn: Rc<Conn>,
}

#[derive(Debug, Default)]
pub(super) struct Tunnels {
    stopped: Cell<bool>,
    stop: Notify,
    /// Those that carry a TCP connection.
    connections: RefCell<Vec<Weak<OpenTunnel>>>,
}

/// A connection that carries bytes, for the drain to wait for and the stop to end.
#[derive(Clone, Debug)]
pub(crate) struct Tunnel(Rc<OpenTunnel>);

#[derive(Debug)]
struct OpenTunnel {
    all: Rc<Tunnels>,
    shared: Arc<Shared>,
    direction: Direction,
    /// How the TCP connection came in; `None` for what a request opened, which is judged as that.
    door: Option<Rc<Door>>,
    /// Why it has to end before its time.
    revoked: RefCell<Option<Error>>,
    revoke: Notify,
    /// It is judged to end, at a moment that is still to come.
    doomed: Cell<bool>,
    /// Place in the list of all.
    place: Cell<usize>,
}

impl Worker {
    /// A connection was accepted: what is known of it begins now. `None` when there are as many as there may be; it is closed then.
    pub(crate) fn connection_arrived(&self) -> Option<Accepted> {
        self.clock.advance();
        let accepted = self.shared.accept();
        if accepted.is_none() {
            self.count_limit(Reason::Overload);
        }
        accepted
    }

    /// Puts a connection on the list of those that the clock and the drain look at.
    pub(crate) fn register(self: &Rc<Self>, conn: &Rc<Conn>) -> Registered {
        let mut conns = self.conns.borrow_mut();
        conn.place.set(conns.len());
        conns.push(conn.clone());
        self.clock.hurry();
        self.shared.count(conn.direction()).fetch_add(1, Ordering::Relaxed);
        if self.shared.ends(conn.direction()) {
            conn.close(Close::Soon);
        }
        Registered { worker: self.clone(), conn: conn.clone() }
    }

    pub(crate) fn begin_exchange(&self, activity: &Rc<Activity>) {
        let mut exchanges = self.exchanges.borrow_mut();
        activity.place.set(exchanges.len());
        exchanges.push(activity.clone());
        self.clock.hurry();
    }

    pub(crate) fn end_exchange(&self, activity: &Activity) {
        let mut exchanges = self.exchanges.borrow_mut();
        let place = activity.place.get();
        if place < exchanges.len() {
            exchanges.swap_remove(place);
            if let Some(moved) = exchanges.get(place) {
                moved.place.set(place);
            }
        }
    }

    /// The bytes of a TCP connection are to be counted from now on.
    pub(in crate::proxy) fn begin_carrying(&self, bytes: &Rc<Bytes>) {
        let mut carried = self.carried.borrow_mut();
        bytes.place.set(carried.len());
        carried.push(bytes.clone());
        self.clock.hurry();
    }

    pub(in crate::proxy) fn end_carrying(&self, bytes: &Bytes) {
        let mut carried = self.carried.borrow_mut();
        let place = bytes.place.get();
        if place < carried.len() {
            carried.swap_remove(place);
            if let Some(moved) = carried.get(place) {
                moved.place.set(place);
            }
        }
    }

    /// A connection that carries bytes from now on: a TCP connection that came in by this door, or what a request opened.
    pub(crate) fn open_tunnel(&self, direction: Direction, door: Option<Rc<Door>>) -> Tunnel {
        self.shared.count(direction).fetch_add(1, Ordering::Relaxed);
        let mut connections = self.tunnels.connections.borrow_mut();
        let tunnel = Rc::new(OpenTunnel {
            all: self.tunnels.clone(),
            shared: self.shared.clone(),
            direction,
            door,
            revoked: RefCell::new(None),
            revoke: Notify::new(),
            doomed: Cell::new(false),
            place: Cell::new(connections.len()),
        });
        if tunnel.door.is_some() {
            connections.push(Rc::downgrade(&tunnel));
        }
        Tunnel(tunnel)
    }

    /// The TCP connections that are carried, and how they came in.
    pub(in crate::proxy) fn carried_connections(&self) -> Vec<(Tunnel, Rc<Door>)> {
        let connections = self.tunnels.connections.borrow();
        let open = connections.iter().filter_map(Weak::upgrade);
        open.filter_map(|tunnel| Some((tunnel.door.clone()?, tunnel)))
            .map(|(door, tunnel)| (Tunnel(tunnel), door))
            .collect()
    }

    /// The exchanges that are under way.
    pub(in crate::proxy) fn exchanges_under_way(&self) -> Vec<Rc<Activity>> {
        self.exchanges.borrow().clone()
    }

    /// How the connections came in that speak HTTP.
    pub(in crate::proxy) fn doors(&self) -> Vec<Rc<Door>> {
        self.conns.borrow().iter().filter_map(|conn| conn.door().cloned()).collect()
    }

    /// Asks every connection of this direction to go elsewhere: with its next answer, spread over some time so that the clients do not all return
    /// at once; or, with no time left, even if it is idle.
    pub(super) async fn drain(self: Rc<Self>, direction: Direction, over: Duration) {
        let conns: Vec<_> =
            self.conns.borrow().iter().filter(|conn| conn.direction() == direction).cloned().collect();
        let Some(step) = over.checked_div(u32::try_from(conns.len()).unwrap_or(u32::MAX)) else { return };
        let how = if over.is_zero() { Close::Graceful } else { Close::Soon };
        for conn in conns {
            conn.close(how);
            if !step.is_zero() {
                tokio::time::sleep(step).await;
            }
        }
    }

    /// Ends all of it at once.
    pub(super) fn end_all(&self) {
        for conn in self.conns.borrow().iter().cloned().collect::<Vec<_>>() {
            conn.close(Close::Now);
        }
        self.tunnels.stopped.set(true);
        self.tunnels.stop.notify_waiters();
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.worker.shared.count(self.conn.direction()).fetch_sub(1, Ordering::Relaxed);
        let mut conns = self.worker.conns.borrow_mut();
        let place = self.conn.place.get();
        if place < conns.len() {
            conns.swap_remove(place);
            if let Some(moved) = conns.get(place) {
                moved.place.set(place);
            }
        }
    }
}

impl Tunnel {
    /// Resolves when the process stops.
    pub(crate) async fn stopped(&self) {
        let all = &self.0.all;
        if !all.stopped.get() {
            all.stop.notified().await;
        }
    }

    /// Resolves when it has to end before its time, with the reason: the process stops, or a policy allows it no more.
    pub(crate) async fn ended(&self) -> Error {
        if self.0.revoked.borrow().is_none() {
            tokio::select! {
                () = self.stopped() => {}
                () = self.0.revoke.notified() => {}
            }
        }
        self.0.revoked.borrow_mut().take().unwrap_or_else(|| Reason::Overload.into())
    }

    /// Ends it.
    pub(in crate::proxy) fn revoke(&self, why: Error) {
        *self.0.revoked.borrow_mut() = Some(why);
        self.0.revoke.notify_waiters();
    }

    /// It carries nothing any more, and is judged no more.
    pub(in crate::proxy) fn is_over(&self) {
        self.0.doomed.set(true);
    }

    /// Notes whether it is judged to end.
    pub(in crate::proxy) fn doom(&self, doomed: bool) {
        self.0.doomed.set(doomed);
    }

    pub(in crate::proxy) fn is_doomed(&self) -> bool {
        self.0.doomed.get()
    }
}

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        if self.door.is_some() {
            let mut connections = self.all.connections.borrow_mut();
            let place = self.place.get();
            if place < connections.len() {
                connections.swap_remove(place);
                if let Some(moved) = connections.get(place).and_then(Weak::upgrade) {
                    moved.place.set(place);
                }
            }
        }
        self.shared.count(self.direction).fetch_sub(1, Ordering::Relaxed);
    }
}
