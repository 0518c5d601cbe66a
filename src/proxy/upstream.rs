//! The innermost layer: a request to a chosen endpoint, over a pooled connection.
//!
//! Each worker has its own pools, so that no lock and no other thread is in the way of a request. HTTP/1 is hyper's client connection, HTTP/2
//! the `h2` crate's client: the stream's own task moves the body, which saves a channel and a task for each request.

mod connect;
mod h1;
mod h2;
mod pool;

pub(crate) use connect::{Target, connect};
pub(crate) use h1::MAX_BUFFER;
pub(crate) use pool::{EndpointPool, Pools};

use super::cluster::Picked;
use super::worker::Worker;
use crate::mesh::UpstreamProtocol;
use filter_api::{Error, Request, Response};
use http::Version;
use std::rc::Rc;

/// Sends the request to the endpoint that was picked for it.
pub(crate) async fn call(worker: Rc<Worker>, request: Request, picked: Picked) -> Result<Response, Error> {
    let http2 = match picked.cluster.mesh.protocol {
        UpstreamProtocol::Http1 => false,
        UpstreamProtocol::Http2 => true,
        UpstreamProtocol::Downstream => request.head.version == Version::HTTP_2,
    };
    if http2 { h2::call(worker, request, picked).await } else { h1::call(worker, request, picked).await }
}
