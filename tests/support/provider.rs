//! A provider of external authorization that says what a test wants.

use super::body::{BoxBody, ChannelBody, empty, full, trailers};
use super::objects::service_at;
use super::upstream::Upstream;
use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::{BodyExt, Collected};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};

/// What a provider says from now on.
#[derive(Clone, Debug)]
pub enum Says {
    /// HTTP: status, headers, body.
    Http(u16, Vec<(&'static str, &'static str)>, &'static str),
    /// gRPC: a message.
    Message(Vec<u8>),
    /// gRPC: a status without a message.
    GrpcStatus(&'static str),
    /// Nothing at all.
    Nothing,
}

/// A provider that tells what it was asked.
#[derive(Debug)]
pub struct Provider {
    pub server: Upstream,
    says: Arc<Mutex<Says>>,
    asked: Arc<Mutex<Vec<(Parts, Bytes)>>>,
}

impl Provider {
    /// Starts it.
    pub async fn start(grpc: bool, says: Says) -> Self {
        let says = Arc::new(Mutex::new(says));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (shared, calls) = (says.clone(), asked.clone());
        let server = Upstream::tcp(move |_, stream| {
            let (says, asked) = (shared.clone(), calls.clone());
            let service = service_fn(move |request| answer(says.clone(), asked.clone(), request));
            async move {
                let io = TokioIo::new(stream);
                let served = if grpc {
                    http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await
                } else {
                    http1::Builder::new().serve_connection(io, service).await
                };
                served.map_err(io::Error::other)
            }
        })
        .await;
        Self { server, says, asked }
    }

    /// Says something else from now on.
    pub fn now(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// The last question.
    pub fn last(&self) -> (Parts, Bytes) {
        self.asked.lock().unwrap().last().cloned().unwrap()
    }

    /// The service that it is.
    pub fn service(&self, protocol: &str) -> String {
        service_at("authz.mesh", 9000, protocol, &[self.server.address])
    }
}

async fn answer(
    says: Arc<Mutex<Says>>,
    asked: Arc<Mutex<Vec<(Parts, Bytes)>>>,
    request: Request<Incoming>,
) -> Result<Response<BoxBody>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
    asked.lock().unwrap().push((head, body));
    let says = says.lock().unwrap().clone();
    Ok(match says {
        Says::Http(status, headers, body) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(full(body)).unwrap()
        }
        Says::Message(message) => {
            let (frames, body) = ChannelBody::new();
            let length = u32::try_from(message.len()).unwrap().to_be_bytes();
            tokio::spawn(async move {
                frames.data([&[0], &length[..], &message].concat()).await;
                frames.trailers(trailers(&[("grpc-status", "0")])).await;
            });
            Response::builder().header("content-type", "application/grpc").body(body).unwrap()
        }
        Says::GrpcStatus(status) => Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", status)
            .body(empty())
            .unwrap(),
        Says::Nothing => std::future::pending().await,
    })
}

/// A field of a protobuf message: its number and its bytes.
fn field(number: u8, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    assert!(bytes.len() < 128);
    [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
}

fn header(name: &str, value: &str) -> Vec<u8> {
    field(1, [field(1, name), field(2, value)].concat())
}

/// `status {code: 0} ok_response {headers: [x-user] headers_to_remove: [x-secret] response_headers_to_add: [x-seen]}`
pub fn allowed(user: &str) -> Says {
    let ok =
        [field(2, header("x-user", user)), field(5, "x-secret"), field(6, header("x-seen", "yes"))].concat();
    Says::Message([field(1, [8, 0]), field(3, ok)].concat())
}

/// `status {code: 7} denied_response {status {code: 401} headers: [x-why] body}`
pub fn denied() -> Says {
    let denied = [field(1, [8, 0x91, 3]), field(2, header("x-why", "because")), field(3, "nobody knows you")];
    Says::Message([field(1, [8, 7]), field(2, denied.concat())].concat())
}
