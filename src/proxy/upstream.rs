//! The innermost layer: a request to a chosen endpoint, over a pooled connection.
//!
//! Each worker has its own pools, so that no lock and no other thread is in the way of a request. HTTP/1 is hyper's client connection, HTTP/2
//! the `h2` crate's client: the stream's own task moves the body, which saves a channel and a task for each request.

mod connect;
mod h1;
mod h2;
mod pool;
mod replay;

pub(crate) use connect::{Target, connect};
pub(crate) use h1::MAX_BUFFER;
pub(crate) use h2::{H2Tunnel, Handover};
pub(crate) use pool::{EndpointPool, Place, Pools};

use super::cluster::Picked;
use super::worker::Worker;
use crate::mesh::UpstreamProtocol;
use filter_api::{Error, Request, Response};
use http::Version;
use pin_project_lite::pin_project;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Sends the request to the endpoint that was picked for it.
///
/// Not an async function, nor are those it chooses from: each would keep its arguments a second time in the future that every request is.
pub(crate) fn call(worker: Rc<Worker>, request: Request, picked: Picked) -> impl Future<Output = Answer> {
    let http2 = match picked.cluster.mesh.protocol {
        UpstreamProtocol::Http1 => false,
        UpstreamProtocol::Http2 => true,
        UpstreamProtocol::Downstream => request.head.version == Version::HTTP_2,
    };
    if http2 {
        Call::H2 { call: h2::call(worker, request, picked) }
    } else {
        Call::H1 { call: h1::call(worker, request, picked) }
    }
}

type Answer = Result<Response, Error>;

pin_project! {
    #[project = CallProj]
    enum Call<A, B> {
        H1 { #[pin] call: A },
        H2 { #[pin] call: B },
    }
}

impl<A: Future<Output = Answer>, B: Future<Output = Answer>> Future for Call<A, B> {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Answer> {
        match self.project() {
            CallProj::H1 { call } => call.poll(task),
            CallProj::H2 { call } => call.poll(task),
        }
    }
}
