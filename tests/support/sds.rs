//! A server of secrets (Envoy's SDS, version 3) on a UNIX socket, as Istio's agent runs one.

use bytes::{BufMut, Bytes, BytesMut};
use h2::server::{self, SendResponse};
use http::{Request, Response};
use prost::Message;
use sidegate::identity::issue::{Authority, Workload};
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast;
use tokio::task::JoinSet;

const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/// What a client said: `DiscoveryRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct Said {
    #[prost(string, tag = "1")]
    pub version: String,
    #[prost(message, optional, tag = "2")]
    pub node: Option<Node>,
    #[prost(string, repeated, tag = "3")]
    pub names: Vec<String>,
    #[prost(string, tag = "4")]
    pub type_url: String,
    #[prost(string, tag = "5")]
    pub nonce: String,
    #[prost(message, optional, tag = "6")]
    pub error: Option<Status>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Node {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub cluster: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Status {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
}

/// `DiscoveryResponse`.
#[derive(Clone, PartialEq, Message)]
struct Answer {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(message, repeated, tag = "2")]
    resources: Vec<Any>,
    #[prost(string, tag = "4")]
    type_url: String,
    #[prost(string, tag = "5")]
    nonce: String,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// A secret as bytes of protobuf.
pub type Secret = Vec<u8>;

/// The certificate of a workload of `shop`, and its key.
pub fn certificate(authority: &Authority, account: &str) -> Secret {
    let (certificate, key) = issued(authority, account);
    pair(&certificate, &key)
}

/// A certificate with the key of another.
pub fn mixed(authority: &Authority, account: &str) -> Secret {
    pair(&issued(authority, account).0, &issued(authority, account).1)
}

/// The roots.
pub fn roots(pem: &str) -> Secret {
    [field(1, "ROOTCA"), field(4, field(1, field(3, pem)))].concat()
}

fn issued(authority: &Authority, account: &str) -> (String, Vec<u8>) {
    let workload = Workload {
        trust_domain: "cluster.local",
        namespace: "shop",
        service_account: account,
        dns: &[],
        days: 1,
    };
    let issued = authority.issue(&workload).unwrap();
    (issued.certificate.clone(), issued.key.reveal().to_vec())
}

fn pair(certificate: &str, key: &[u8]) -> Secret {
    let pair = [field(1, field(2, certificate)), field(2, field(2, key))].concat();
    [field(1, "default"), field(2, pair)].concat()
}

/// A field of a protobuf message: its number and its bytes.
fn field(number: u8, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let mut field = vec![number << 3 | 2];
    prost::encoding::encode_varint(bytes.len() as u64, &mut field);
    field.extend_from_slice(bytes);
    field
}

/// A server that tells what its clients said. Ends, with its streams, when it is dropped.
#[derive(Debug)]
pub struct SecretServer {
    said: Arc<Mutex<Vec<Said>>>,
    current: Arc<Mutex<Vec<Secret>>>,
    pushes: broadcast::Sender<Vec<Secret>>,
    _running: JoinSet<()>,
}

impl SecretServer {
    /// Starts at this path with these secrets, which every new stream is told first.
    pub fn start(path: &Path, secrets: Vec<Secret>) -> Self {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let current = Arc::new(Mutex::new(secrets));
        let (pushes, _) = broadcast::channel(64);
        let mut running = JoinSet::new();
        let (heard, first, pushing) = (said.clone(), current.clone(), pushes.clone());
        running.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(connection(stream, heard.clone(), first.clone(), pushing.clone()));
            }
        });
        Self { said, current, pushes, _running: running }
    }

    /// Sends these to every stream, and first to new ones.
    pub fn push(&self, secrets: Vec<Secret>) {
        *self.current.lock().unwrap() = secrets.clone();
        self.send(secrets);
    }

    /// Sends these to every stream, once.
    pub fn send(&self, secrets: Vec<Secret>) {
        self.pushes.send(secrets).unwrap();
    }

    /// All that clients said so far.
    pub fn said(&self) -> Vec<Said> {
        self.said.lock().unwrap().clone()
    }
}

async fn connection(
    stream: UnixStream,
    said: Arc<Mutex<Vec<Said>>>,
    current: Arc<Mutex<Vec<Secret>>>,
    pushes: broadcast::Sender<Vec<Secret>>,
) {
    let mut connection = server::handshake(stream).await.unwrap();
    let mut calls = JoinSet::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        calls.spawn(call(request, respond, said.clone(), current.clone(), pushes.subscribe()));
    }
}

async fn call(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    said: Arc<Mutex<Vec<Said>>>,
    current: Arc<Mutex<Vec<Secret>>>,
    mut pushes: broadcast::Receiver<Vec<Secret>>,
) {
    assert_eq!(request.uri().path(), "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets");
    assert_eq!(request.headers()["content-type"], "application/grpc");
    let mut body = request.into_body();
    let (mut received, mut sent, mut number) = (BytesMut::new(), None, 0);
    loop {
        let secrets = tokio::select! {
            chunk = body.data() => {
                let Some(Ok(chunk)) = chunk else { return };
                body.flow_control().release_capacity(chunk.len()).unwrap();
                received.extend_from_slice(&chunk);
                let mut asked = false;
                while received.len() >= 5 {
                    let length = u32::from_be_bytes(received[1..5].try_into().unwrap()) as usize;
                    if received.len() < 5 + length {
                        break;
                    }
                    let message = received.split_to(5 + length);
                    let request = Said::decode(&message[5..]).unwrap();
                    asked |= request.nonce.is_empty();
                    said.lock().unwrap().push(request);
                }
                if !asked {
                    continue;
                }
                current.lock().unwrap().clone()
            }
            Ok(secrets) = pushes.recv() => secrets,
        };
        number += 1;
        let resources = secrets.into_iter().map(|value| Any { type_url: SECRET.to_owned(), value }).collect();
        let (version, nonce) = (format!("v{number}"), format!("n{number}"));
        let message = Answer { version, resources, type_url: SECRET.to_owned(), nonce }.encode_to_vec();
        let mut framed = BytesMut::new();
        framed.put_u8(0);
        framed.put_u32(message.len() as u32);
        framed.extend_from_slice(&message);
        // The head comes with the first message, as grpc-go sends it.
        let stream = sent.get_or_insert_with(|| {
            let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
            respond.send_response(head, false).unwrap()
        });
        if stream.send_data(framed.freeze(), false).is_err() {
            return;
        }
    }
}
