//! Clients: HTTP/1 and HTTP/2 over one connection each.

use super::body::{BoxBody, empty};
use super::in_time;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// A whole response.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: HeaderMap,
}

impl Reply {
    /// Reads a response to its end.
    pub async fn read(response: Response<Incoming>) -> Result<Self, hyper::Error> {
        let (head, body) = response.into_parts();
        let body = in_time("reading a response", body.collect()).await?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let body = body.to_bytes();
        Ok(Self { status: head.status, version: head.version, headers: head.headers, body, trailers })
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The head of the request as the upstream saw it.
    pub fn echo(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{} is no echo ({error}): {}", self.status, self.text()))
    }

    /// The name of the upstream that answered.
    pub fn upstream(&self) -> String {
        self.echo()["upstream"].as_str().unwrap().to_owned()
    }

    /// The request target that the upstream saw.
    pub fn target(&self) -> String {
        self.echo()["target"].as_str().unwrap().to_owned()
    }

    /// Every value of a request header that the upstream saw.
    pub fn seen(&self, name: &str) -> Vec<String> {
        let echo = self.echo();
        let headers = echo["headers"].as_array().unwrap();
        headers
            .iter()
            .filter(|line| line[0] == name)
            .map(|line| line[1].as_str().unwrap().to_owned())
            .collect()
    }

    /// A response header; empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// A GET without body.
pub fn get(host: &str, path: &str) -> Request<BoxBody> {
    request("GET", host, path, &[], empty())
}

/// A request whose target is in origin form; HTTP/2 makes it absolute.
pub fn request(
    method: &str,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: BoxBody,
) -> Request<BoxBody> {
    let mut builder = Request::builder().method(method).uri(path).header("host", host);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(body).unwrap_or_else(|error| panic!("{method} {host} {path}: {error}"))
}

/// One request over a connection of its own.
pub async fn fetch(address: SocketAddr, request: Request<BoxBody>) -> Reply {
    Client1::connect(address).await.exchange(request).await
}

/// An HTTP/1 connection.
#[derive(Debug)]
pub struct Client1 {
    pub sender: http1::SendRequest<BoxBody>,
    pub connection: JoinHandle<Result<(), hyper::Error>>,
}

impl Client1 {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::over(connect(address).await).await
    }

    /// Speaks over a connection that is there.
    pub async fn over<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S) -> Self {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        Self { sender, connection: tokio::spawn(connection.with_upgrades()) }
    }

    /// Sends a request; the response's body is still to come.
    pub async fn send(&mut self, request: Request<BoxBody>) -> Result<Response<Incoming>, hyper::Error> {
        in_time("the connection", self.sender.ready()).await?;
        in_time("a response", self.sender.send_request(request)).await
    }

    /// Sends a request and reads the response to its end.
    pub async fn try_exchange(&mut self, request: Request<BoxBody>) -> Result<Reply, hyper::Error> {
        Reply::read(self.send(request).await?).await
    }

    /// The same, where a failure ends the test.
    pub async fn exchange(&mut self, request: Request<BoxBody>) -> Reply {
        let what = format!("{} {}", request.method(), request.uri());
        self.try_exchange(request).await.unwrap_or_else(|error| panic!("{what}: {error:?}"))
    }
}

/// An HTTP/2 connection with prior knowledge.
#[derive(Clone, Debug)]
pub struct Client2 {
    pub sender: http2::SendRequest<BoxBody>,
}

impl Client2 {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = connect(address).await;
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self { sender }
    }

    /// Sends a request; the response's body is still to come.
    pub async fn send(&mut self, request: Request<BoxBody>) -> Result<Response<Incoming>, hyper::Error> {
        let request = absolute(request);
        in_time("the connection", self.sender.ready()).await?;
        in_time("a response", self.sender.send_request(request)).await
    }

    /// Sends a request and reads the response to its end.
    pub async fn try_exchange(&mut self, request: Request<BoxBody>) -> Result<Reply, hyper::Error> {
        Reply::read(self.send(request).await?).await
    }

    /// The same, where a failure ends the test.
    pub async fn exchange(&mut self, request: Request<BoxBody>) -> Reply {
        let what = format!("{} {}", request.method(), request.uri());
        self.try_exchange(request).await.unwrap_or_else(|error| panic!("{what}: {error:?}"))
    }
}

/// The host moves from its header into the target, where HTTP/2 has it.
fn absolute(mut request: Request<BoxBody>) -> Request<BoxBody> {
    if let Some(host) = request.headers_mut().remove("host") {
        let uri = format!("http://{}{}", host.to_str().unwrap(), request.uri());
        *request.uri_mut() = uri.parse().unwrap_or_else(|error| panic!("{uri}: {error}"));
    }
    request
}

pub async fn connect(address: SocketAddr) -> TcpStream {
    let stream = in_time("connecting", TcpStream::connect(address)).await;
    let stream = stream.unwrap_or_else(|error| panic!("connecting to {address}: {error}"));
    stream.set_nodelay(true).unwrap();
    stream
}
