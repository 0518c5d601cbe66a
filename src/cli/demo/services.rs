//! The applications of the demo: each says who it is and what reached it; one calls the others through its own proxy.

use super::client::Client;
use super::ports::Ports;
use super::workload::{Application, Workload, page};
use super::{Error, system};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Map, Value, json};
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::{TcpListener, TcpStream};

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// Headers that an application hands on to those it calls, as real ones do.
const HANDED_ON: [&str; 4] = ["x-canary", "x-request-id", "traceparent", "authorization"];

/// Starts the application of each workload.
pub(super) async fn start(workloads: &[Workload], ports: &Ports) -> Result<(), Error> {
    for workload in workloads {
        let Some(application) = workload.application else { continue };
        let port = ports.of(workload.port(page::SERVICE));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .await
            .map_err(system(format!("opening port {port} for {application}")))?;
        let server = Arc::new(Server {
            application,
            proxy: ports.of(workload.port(page::OUTBOUND)),
            idle: Mutex::default(),
        });
        tokio::spawn(server.serve(listener));
    }
    Ok(())
}

/// A running application.
struct Server {
    application: Application,
    /// The port of its own proxy.
    proxy: u16,
    /// Connections to it that nobody uses.
    idle: Mutex<Vec<Client>>,
}

impl Server {
    async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(self.clone().connection(stream))),
                // Out of descriptors, most likely: later there are some again.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream) {
        let mut first = [0; 3];
        // `PRI`: only HTTP/2 begins so. Fewer bytes are the beginning of something else.
        let http2 = matches!(stream.peek(&mut first).await, Ok(3)) && first == *b"PRI";
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let service = service_fn(move |request| {
            let server = self.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        let io = TokioIo::new(stream);
        // The caller sees every error of its connection.
        if http2 {
            drop(http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await);
        } else {
            drop(http1::Builder::new().serve_connection(io, service).with_upgrades().await);
        }
    }

    async fn answer(&self, mut request: Request<Incoming>) -> Answer {
        if request.headers().get(UPGRADE).is_some_and(|to| to == "echo") {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(echo(upgrade));
            return upgraded();
        }
        let grpc = request
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await.map(http_body_util::Collected::to_bytes) else {
            return plain(StatusCode::BAD_REQUEST, &json!({"error": "the request broke off"}));
        };
        if grpc {
            return grpc_answer(body);
        }
        let calls = self.call_others(&head.headers).await;
        let failed = calls.iter().any(|call| call["status"].as_u64() != Some(200));
        let status = if failed { StatusCode::BAD_GATEWAY } else { StatusCode::OK };
        let headers: Map<String, Value> = head
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
            .collect();
        let mut answer = json!({
            "service": self.application.service,
            "version": self.application.version,
            "request": format!("{} {} {:?}", head.method, head.uri, head.version),
            "headers": headers,
        });
        if !body.is_empty() {
            answer["bodyBytes"] = body.len().into();
        }
        if !calls.is_empty() {
            answer["calls"] = calls.into();
        }
        plain(status, &answer)
    }

    async fn call_others(&self, headers: &HeaderMap) -> Vec<Value> {
        let handed_on: Vec<(&str, &str)> =
            HANDED_ON.iter().filter_map(|name| Some((*name, headers.get(*name)?.to_str().ok()?))).collect();
        let mut answers = Vec::with_capacity(self.application.calls.len());
        for (method, service, path) in self.application.calls {
            let mut client = self.take().unwrap_or_else(|| Client::http1(self.proxy));
            let body = if *method == "POST" { Bytes::from_static(b"{\"amount\": 7}") } else { Bytes::new() };
            let request = client.request(method, service, path, &handed_on, body);
            let outcome = match request {
                Ok(request) => client.send(request).await,
                Err(error) => Err(error),
            };
            answers.push(match outcome {
                Ok(answer) if answer.status == StatusCode::OK => {
                    json!({"service": service, "status": 200, "version": answer.json()["version"]})
                }
                Ok(answer) => {
                    json!({"service": service, "status": answer.status.as_u16(), "error": answer.text()})
                }
                Err(error) => json!({"service": service, "error": error}),
            });
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(client);
        }
        answers
    }

    fn take(&self) -> Option<Client> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}

fn plain(status: StatusCode, answer: &Value) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(format!("{answer:#}\n"))).boxed());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The message back, and gRPC's status in the trailers.
fn grpc_answer(message: Bytes) -> Answer {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(message).with_trailers(async move { Some(Ok(trailers)) });
    let mut response = Response::new(body.boxed());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn upgraded() -> Answer {
    let mut response = Response::new(Full::new(Bytes::new()).boxed());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("echo"));
    response
}

/// Sends back whatever comes, until the other side ends.
async fn echo(upgrade: hyper::upgrade::OnUpgrade) {
    let Ok(upgraded) = upgrade.await else { return };
    let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
    if tokio::io::copy(&mut from, &mut to).await.is_ok() {
        // The other side may be gone by now, which is the end it wanted.
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut to).await;
    }
}
