//! Calls of our own from within an exchange: a filter asks a service of the mesh before a request goes on.

use crate::Error;
use bytes::Bytes;
use http::{HeaderMap, request, response};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Sends requests to clusters of the mesh: balancing, limits, pools and mutual TLS are those of everybody who calls the cluster.
///
/// Implemented by the worker that carries the exchange. A call is dropped with its future.
pub trait Calls {
    /// Sends one request. Fails as a client of the cluster would see it; [`Reason::RequestTimeout`](crate::Reason::RequestTimeout) when the
    /// answer is not there in time.
    fn call(self: Rc<Self>, call: Call) -> Answered;
}

/// The future of a call.
pub type Answered = Pin<Box<dyn Future<Output = Result<Answer, Error>>>>;

/// A request of our own.
#[derive(Debug)]
pub struct Call {
    /// The name of the cluster.
    pub cluster: Arc<str>,
    /// Method, target in origin form, version and headers, `Host` among them. HTTP/2 where the cluster leaves the choice to its clients.
    pub head: request::Parts,
    /// What follows the head.
    pub body: Bytes,
    /// The most time from now to the last byte of the answer.
    pub timeout: Duration,
    /// Bytes of the answer's body that are read.
    pub most: usize,
}

/// The answer to a call, read to its end or to as many bytes as were asked for.
#[derive(Debug)]
pub struct Answer {
    /// Status and headers.
    pub head: response::Parts,
    /// Its body.
    pub body: Bytes,
    /// The body is longer than what was read of it.
    pub cut: bool,
    /// Trailers, if any came.
    pub trailers: Option<HeaderMap>,
}

/// Who makes the calls of an exchange; nobody where the exchange is on no worker.
#[derive(Clone, Default)]
pub(crate) struct Caller(pub(crate) Option<Rc<dyn Calls>>);

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Caller" } else { "Caller(nobody)" })
    }
}
