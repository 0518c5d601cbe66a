//! Picking an endpoint of the chosen cluster.

use super::check::Early;
use super::upstream::{EndpointPool, Place, Target};
use super::worker::Worker;
use crate::mesh::{Balance, Discovery};
use crate::snapshot::{Cluster, Destination, Endpoint, InFlight, Permit};
use filter_api::{ConnectionFacts, Cx, Error, Reason, Request, Response};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use tower::{Layer, Service};

/// The endpoint that a request goes to. Counts as one active request of it while it lives.
#[derive(Debug)]
pub(crate) struct Picked {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) endpoint: Option<Arc<Endpoint>>,
    pub(crate) target: Target,
    pub(crate) pool: Rc<EndpointPool>,
    _in_flight: Option<InFlight>,
    _permit: Option<Permit>,
}

/// See the module's documentation.
#[derive(Clone)]
pub(crate) struct PickLayer(Rc<Worker>);

/// See [`PickLayer`].
#[derive(Clone)]
pub(crate) struct PickService<S> {
    worker: Rc<Worker>,
    inner: S,
}

impl Picked {
    /// Picks an endpoint of `cluster`, none of `tried` as long as there is another.
    pub(crate) fn new(
        worker: &Worker,
        cluster: &Arc<Cluster>,
        connection: &Arc<ConnectionFacts>,
        tried: &[u32],
    ) -> Result<Self, Error> {
        let passthrough = cluster.mesh.discovery == Discovery::OriginalDestination
            || cluster.mesh.balance == Balance::Passthrough && connection.original_destination.is_some();
        if passthrough {
            let Some(address) = connection.original_destination else {
                let detail = format!("cluster {} forwards captured connections only", cluster.mesh.name);
                return Err(Error::new(Reason::NoHealthyUpstream).detail(detail));
            };
            if worker.is_own_address(address) {
                let detail = format!("{address} is this proxy itself");
                return Err(Error::new(Reason::Loop).detail(detail).closing());
            }
            let pool = pool_of(worker, cluster, Place::Address(address), connection);
            return Ok(Self {
                cluster: cluster.clone(),
                endpoint: None,
                _in_flight: None,
                target: Target::Socket(address),
                pool,
                _permit: None,
            });
        }
        let endpoint = cluster.pick(&mut || worker.random(), tried);
        let target = endpoint.as_ref().and_then(|endpoint| Target::of(&endpoint.address));
        let (Some(endpoint), Some(target)) = (endpoint, target) else { return Err(nobody(cluster)) };
        // Where the client connected on purpose, that address is ours: the request would come back for ever.
        if connection.original_destination.is_none() && target.socket() == Some(connection.local) {
            let detail =
                format!("{} of cluster {} is this proxy itself", connection.local, cluster.mesh.name);
            return Err(Error::new(Reason::Loop).detail(detail).closing());
        }
        let pool = pool_of(worker, cluster, Place::Endpoint(endpoint.id), connection);
        let _in_flight = Some(endpoint.begin());
        Ok(Self {
            cluster: cluster.clone(),
            _in_flight,
            endpoint: Some(endpoint),
            target,
            pool,
            _permit: None,
        })
    }
}

fn pool_of(
    worker: &Worker,
    cluster: &Cluster,
    place: Place,
    connection: &Arc<ConnectionFacts>,
) -> Rc<EndpointPool> {
    worker.pools.of(cluster.state.id, place, cluster.mesh.proxy_protocol.is_some(), connection)
}

fn nobody(cluster: &Cluster) -> Error {
    let service = &cluster.mesh.service;
    let mut detail = if service.subset.is_empty() {
        format!("no endpoint of {} takes traffic (cluster {})", service.host, cluster.mesh.name)
    } else {
        format!(
            "no endpoint of subset {} of {} takes traffic (cluster {})",
            service.subset, service.host, cluster.mesh.name
        )
    };
    if let Some(failure) = cluster.state.discovery_failure() {
        detail.push_str("; DNS: ");
        detail.push_str(&failure);
    }
    Error::new(Reason::NoHealthyUpstream).retry_safe().detail(detail)
}

impl Picked {
    /// Keeps a permit as long as the endpoint is in use.
    pub(crate) fn holding(mut self, permit: Option<Permit>) -> Self {
        self._permit = permit;
        self
    }
}

impl PickLayer {
    pub(crate) fn new(worker: Rc<Worker>) -> Self {
        Self(worker)
    }
}

impl<S> Layer<S> for PickLayer {
    type Service = PickService<S>;

    fn layer(&self, inner: S) -> PickService<S> {
        PickService { worker: self.0.clone(), inner }
    }
}

impl<S> Service<Request> for PickService<S>
where
    S: Service<(Request, Picked), Response = Response, Error = Error>,
{
    type Response = Response;
    type Error = Error;
    type Future = Early<S::Future>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    // Not inlined: where calls meet in one function, each branch copies the inner future once more.
    #[inline(never)]
    fn call(&mut self, request: Request) -> Self::Future {
        match self.pick(&request.cx) {
            Ok(picked) => Early::go_on(self.inner.call((request, picked))),
            Err(error) => Early::fail(error),
        }
    }
}

impl<S> PickService<S> {
    fn pick(&self, cx: &Cx) -> Result<Picked, Error> {
        let destination = cx.matched().and_then(|matched| matched.target.downcast_ref::<Destination>());
        let Some(destination) = destination else { return Err(Reason::Internal.into()) };
        let Some(cluster) = &destination.cluster else {
            let detail = format!("route names cluster {}, which does not exist", destination.cluster_name);
            return Err(Error::new(Reason::NoCluster).detail(detail));
        };
        cx.facts.borrow_mut().cluster = Some(cluster.mesh.name.clone());
        let picked = Picked::new(&self.worker, cluster, &cx.connection, &[])?;
        let mut facts = cx.facts.borrow_mut();
        facts.upstream = picked.target.socket();
        facts.endpoint = picked.endpoint.clone().map(|endpoint| endpoint as _);
        drop(facts);
        Ok(picked)
    }
}
