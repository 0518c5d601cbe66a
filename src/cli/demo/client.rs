//! A small HTTP client: one connection, HTTP/1.1 or HTTP/2, opened again when the server closes it.

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than any answer of the demo takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Client {
    address: SocketAddr,
    protocol: Protocol,
    sender: Option<Sender>,
}

/// What is spoken.
#[derive(Clone, Copy, Debug)]
enum Protocol {
    Http1,
    Http2,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    /// The status.
    pub(super) status: StatusCode,
    /// The body.
    pub(super) body: Bytes,
    /// What came after the body.
    pub(super) trailers: Option<HeaderMap>,
}

impl Answer {
    /// The body as text.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim_end().to_owned()
    }

    /// The body as JSON; `Null` when it is none.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Service and version of whoever answered.
    pub(super) fn who(&self) -> String {
        let json = self.json();
        let part = |name: &str| json[name].as_str().unwrap_or("?").to_owned();
        format!("{} {}", part("service"), part("version"))
    }
}

impl Client {
    /// A client of HTTP/1.1 for a port of the loopback.
    pub(super) fn http1(port: u16) -> Self {
        Self::new(port, Protocol::Http1)
    }

    /// A client of HTTP/2 with prior knowledge.
    pub(super) fn http2(port: u16) -> Self {
        Self::new(port, Protocol::Http2)
    }

    fn new(port: u16, protocol: Protocol) -> Self {
        Self { address: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port), protocol, sender: None }
    }

    /// Asks for `path` of `host`.
    pub(super) async fn get(&mut self, host: &str, path: &str) -> Result<Answer, String> {
        self.send(self.request("GET", host, path, &[], Bytes::new())?).await
    }

    /// A request to `host`, whoever it is sent to.
    pub(super) fn request(
        &self,
        method: &str,
        host: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, String> {
        let mut request = Request::builder().method(method);
        request = match self.protocol {
            Protocol::Http1 => request.uri(path).header("host", host),
            Protocol::Http2 => {
                let uri = Uri::builder().scheme("http").authority(host).path_and_query(path).build();
                request.uri(uri.map_err(|error| error.to_string())?)
            }
        };
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Full::new(body)).map_err(|error| error.to_string())
    }

    /// Sends a request and reads the answer. What was never sent, because the connection had just been closed, is sent on a new one; nothing is
    /// sent twice.
    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        timeout(PATIENCE, self.exchange(request))
            .await
            .map_err(|_| format!("no answer within {} s", PATIENCE.as_secs()))?
    }

    async fn exchange(&mut self, mut request: Request<Full<Bytes>>) -> Result<Answer, String> {
        for _ in 0..3 {
            let unsent = match self.sender().await? {
                Sender::Http1(sender) => match sender.try_send_request(request).await {
                    Ok(response) => return read(response).await,
                    Err(mut error) => error.take_message().ok_or_else(|| describe(error.error())),
                },
                Sender::Http2(sender) => match sender.try_send_request(request).await {
                    Ok(response) => return read(response).await,
                    Err(mut error) => error.take_message().ok_or_else(|| describe(error.error())),
                },
            };
            self.sender = None;
            request = unsent?;
        }
        Err("the server closed three connections before a request".to_owned())
    }

    /// The connection, ready for a request.
    async fn sender(&mut self) -> Result<&mut Sender, String> {
        let ready = match &mut self.sender {
            Some(Sender::Http1(sender)) => sender.ready().await.is_ok(),
            Some(Sender::Http2(sender)) => sender.ready().await.is_ok(),
            None => false,
        };
        let sender = if ready { self.sender.take() } else { None };
        let sender = match sender {
            Some(sender) => sender,
            None => connect(self.address, self.protocol).await?,
        };
        Ok(self.sender.insert(sender))
    }
}

async fn connect(address: SocketAddr, protocol: Protocol) -> Result<Sender, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}"))?;
    // Without it, small requests of HTTP/1 wait for the acknowledgement of earlier ones.
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let io = TokioIo::new(stream);
    Ok(match protocol {
        Protocol::Http1 => {
            let (sender, connection) = http1::handshake(io).await.map_err(|error| describe(&error))?;
            // Its errors are those of the requests on it.
            tokio::spawn(async move { drop(connection.with_upgrades().await) });
            Sender::Http1(sender)
        }
        Protocol::Http2 => {
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), io).await.map_err(|error| describe(&error))?;
            tokio::spawn(async move { drop(connection.await) });
            Sender::Http2(sender)
        }
    })
}

async fn read(response: http::Response<hyper::body::Incoming>) -> Result<Answer, String> {
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(|error| format!("the answer broke off: {}", describe(&error)))?;
    let trailers = body.trailers().cloned();
    Ok(Answer { status: head.status, body: body.to_bytes(), trailers })
}

fn describe(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
