//! The connections of one worker, by endpoint.

mod endpoint;
mod idle_time;
mod lease;

pub(crate) use endpoint::EndpointPool;
pub(super) use endpoint::PENDING_TIMEOUT;
pub(super) use lease::{H1Connection, Lease, Open, Rest};

use crate::mesh::{Pool, UpstreamTls};
use filter_api::ConnectionFacts;
use rustc_hash::FxHashMap;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use tokio::time::Instant;

/// All pools of a worker. Keyed by the endpoint's id, which is unique for the life of the process.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    endpoints: RefCell<FxHashMap<(u32, u32), Rc<EndpointPool>>>,
    /// Of clusters that forward to wherever the downstream wanted to go.
    addresses: RefCell<FxHashMap<(u32, SocketAddr), Rc<EndpointPool>>>,
    /// Of clusters that send a PROXY protocol header: a connection is that of one client.
    clients: RefCell<FxHashMap<ClientKey, ClientPool>>,
}

/// A connection that began with a PROXY protocol header may serve only requests that would have sent the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ClientKey {
    cluster: u32,
    place: Place,
    source: SocketAddr,
    destination: SocketAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// An endpoint, by its id.
    Endpoint(u32),
    /// Wherever the downstream wanted to go.
    Address(SocketAddr),
}

#[derive(Debug)]
struct ClientPool {
    pool: Rc<EndpointPool>,
    /// Once the downstream connection is gone, nobody can ask for the pool any more.
    client: Weak<ConnectionFacts>,
}

/// Addresses that passthrough clusters keep connections to, and clients that PROXY protocol names; beyond, a connection is used once.
const MAX_ADDRESSES: usize = 4096;

impl Pools {
    /// The pool for requests of this downstream connection to an endpoint or address of a cluster.
    pub(crate) fn of(
        &self,
        cluster: u32,
        place: Place,
        proxy_protocol: bool,
        downstream: &Arc<ConnectionFacts>,
        tls: Option<&Arc<UpstreamTls>>,
    ) -> Rc<EndpointPool> {
        let find = || match place {
            _ if proxy_protocol => self.of_client(cluster, place, downstream),
            Place::Endpoint(endpoint) => self.of_endpoint(cluster, endpoint),
            Place::Address(address) => self.of_address(cluster, address),
        };
        let pool = find();
        if pool.is_secured_by(tls) {
            return pool;
        }
        // The cluster is called in another way than before: what was opened in the old one serves no new request.
        pool.retire();
        self.endpoints.borrow_mut().retain(|_, known| !Rc::ptr_eq(known, &pool));
        self.addresses.borrow_mut().retain(|_, known| !Rc::ptr_eq(known, &pool));
        self.clients.borrow_mut().retain(|_, known| !Rc::ptr_eq(&known.pool, &pool));
        let pool = find();
        pool.is_secured_by(tls);
        pool
    }

    /// Lets go of every connection that speaks TLS: whom we believe has changed.
    pub(crate) fn retire_secured(&self) {
        let plain = |pool: &Rc<EndpointPool>| {
            let plain = !pool.is_secured();
            if !plain {
                pool.retire();
            }
            plain
        };
        self.endpoints.borrow_mut().retain(|_, pool| plain(pool));
        self.addresses.borrow_mut().retain(|_, pool| plain(pool));
        self.clients.borrow_mut().retain(|_, client| plain(&client.pool));
    }

    fn of_endpoint(&self, cluster: u32, endpoint: u32) -> Rc<EndpointPool> {
        if let Some(pool) = self.endpoints.borrow().get(&(cluster, endpoint)) {
            return pool.clone();
        }
        self.endpoints.borrow_mut().entry((cluster, endpoint)).or_default().clone()
    }

    fn of_address(&self, cluster: u32, address: SocketAddr) -> Rc<EndpointPool> {
        let mut addresses = self.addresses.borrow_mut();
        if addresses.len() >= MAX_ADDRESSES && !addresses.contains_key(&(cluster, address)) {
            return EndpointPool::for_one_request();
        }
        addresses.entry((cluster, address)).or_default().clone()
    }

    fn of_client(&self, cluster: u32, place: Place, downstream: &Arc<ConnectionFacts>) -> Rc<EndpointPool> {
        let key = ClientKey { cluster, place, source: downstream.remote, destination: downstream.local };
        let mut clients = self.clients.borrow_mut();
        if clients.len() >= MAX_ADDRESSES && !clients.contains_key(&key) {
            return EndpointPool::for_one_request();
        }
        let client = Arc::downgrade(downstream);
        let known =
            clients.entry(key).or_insert_with(|| ClientPool { pool: Rc::default(), client: Weak::new() });
        // A later connection from the same port may go on with what the earlier one left.
        known.client = client;
        known.pool.clone()
    }

    /// Lets go of the pools whose endpoint `keep` does not know any more: idle connections close, busy ones after their exchange. Of an address,
    /// only the cluster is asked for.
    pub(crate) fn retain(&self, mut keep: impl FnMut(u32, Option<u32>) -> bool) {
        let mut kept = |cluster, endpoint, pool: &EndpointPool| {
            let keep = keep(cluster, endpoint);
            if !keep {
                pool.retire();
            }
            keep
        };
        self.endpoints.borrow_mut().retain(|(cluster, endpoint), pool| kept(*cluster, Some(*endpoint), pool));
        self.addresses.borrow_mut().retain(|(cluster, _), pool| kept(*cluster, None, pool));
        self.clients.borrow_mut().retain(|key, client| {
            let endpoint = match key.place {
                Place::Endpoint(endpoint) => Some(endpoint),
                Place::Address(_) => None,
            };
            kept(key.cluster, endpoint, &client.pool)
        });
    }

    /// Closes what was idle for too long, or cannot be used any more. Called by the worker's clock.
    pub(crate) fn expire(&self, now: Instant, limits: impl Fn(u32) -> Option<Pool>) {
        let expire = |cluster: u32, pool: &EndpointPool| {
            if let Some(limits) = limits(cluster) {
                pool.expire(now, &limits);
            }
        };
        self.endpoints.borrow().iter().for_each(|((cluster, _), pool)| expire(*cluster, pool));
        self.addresses.borrow_mut().retain(|(cluster, _), pool| {
            expire(*cluster, pool);
            Rc::strong_count(pool) > 1 || !pool.is_empty()
        });
        self.clients.borrow_mut().retain(|key, client| {
            expire(key.cluster, &client.pool);
            let gone = client.client.strong_count() == 0;
            if gone {
                client.pool.retire();
            }
            !gone && (Rc::strong_count(&client.pool) > 1 || !client.pool.is_empty())
        });
    }

    /// True when no connection is kept.
    pub(crate) fn are_empty(&self) -> bool {
        self.endpoints.borrow().values().all(|pool| pool.is_empty())
            && self.addresses.borrow().values().all(|pool| pool.is_empty())
            && self.clients.borrow().values().all(|client| client.pool.is_empty())
    }

    /// Idle and open connections, for metrics.
    pub(crate) fn count(&self, cluster: u32) -> (usize, usize) {
        let (endpoints, addresses, clients) =
            (self.endpoints.borrow(), self.addresses.borrow(), self.clients.borrow());
        let endpoints = endpoints.iter().map(|((of, _), pool)| (*of, pool));
        let addresses = addresses.iter().map(|((of, _), pool)| (*of, pool));
        let clients = clients.iter().map(|(key, client)| (key.cluster, &client.pool));
        let all = endpoints.chain(addresses).chain(clients);
        all.filter(|(of, _)| *of == cluster)
            .map(|(_, pool)| pool.count())
            .fold((0, 0), |sum, pool| (sum.0 + pool.0, sum.1 + pool.1))
    }
}

#[cfg(test)]
mod tests;
