//! The stack: one typed expression, outermost layer first. Its order never changes; what a port or a route wants from a filter is data.

use super::admit::AdmitLayer;
use super::audit::PassLayer;
use super::edge::EdgeLayer;
use super::record::{RecordLayer, Recorded};
use super::reply::ReplyLayer;
use super::{canonicalise, check::CheckLayer, cluster, route, upstream, worker::Worker};
use crate::filters;
use filter_api::{FilterLayer, Request};
use filter_authorization::Authorization;
use filter_authorization::access::{Access, Arrival};
use filter_jwt::Jwt;
use filter_timeout::TimeoutLayer;
use filter_transform::Transform;
use std::convert::Infallible;
use std::rc::Rc;
use tower::{Service, ServiceBuilder};

/// The stack of a worker, with something in its two extension slots or with nothing.
macro_rules! stack {
    ($worker:expr $(, $before_route:expr, $after_route:expr)?) => {{
        let worker: &Rc<Worker> = $worker;
        let innermost = worker.clone();
        ServiceBuilder::new()
            // Sees every outcome: answers and failures of all layers below, panics, and exchanges that were dropped.
            .layer(RecordLayer::new(worker.clone()))
            // Turns failures into answers, and a panic into a failure.
            .layer(ReplyLayer(worker.clone()))
            .layer(CheckLayer::new(worker.clone(), canonicalise::check))
            $(.layer($before_route))?
            // With the request, before the upstream hears of it: a tunnel is a connection, and the filters of the port may refuse it.
            .layer(AdmitLayer)
            // What access policies take from a request before anything judges it, and what they count of answers.
            .layer(FilterLayer::<Arrival>::new(filters::port::arrival))
            .layer(FilterLayer::<Jwt>::new(filters::port::jwt))
            .layer(FilterLayer::<Authorization>::new(filters::port::authorization))
            .layer(FilterLayer::<Access>::new(filters::port::access))
            // What was let in and is recorded goes no further without a place for its record.
            .layer(PassLayer::new(worker.clone()))
            .layer(CheckLayer::new(worker.clone(), route::check))
            $(.layer($after_route))?
            .layer(FilterLayer::<Transform>::new(filters::route::transform))
            // Outside of whatever will act on what an upstream says of itself, inside of what the operator adds to an answer.
            .layer(EdgeLayer)
            .layer(TimeoutLayer::new(filters::route::timeout))
            .layer(cluster::PickLayer::new(worker.clone()))
            .service(tower::service_fn(move |(request, picked)| {
                // Boxed, the one allocation of the stack: every layer above moves its inner future, and this one is large.
                Box::pin(upstream::call(innermost.clone(), request, picked))
            }))
    }};
}

/// Builds the stack of one worker.
pub(crate) fn build(
    worker: &Rc<Worker>,
) -> impl Service<Request, Response = http::Response<Recorded>, Error = Infallible, Future: 'static>
+ Clone
+ 'static
+ use<> {
    stack!(worker)
}

#[cfg(test)]
mod tests;
