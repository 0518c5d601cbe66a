//! One call of `StreamSecrets` over HTTP/2 on a UNIX socket.

use std::fmt::Display;
use std::future::poll_fn;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{self, ResponseFuture};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Method, Request, StatusCode, Version};
use percent_encoding::percent_decode;
use prost::Message;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::frames::{Frames, framed};
use super::proto::STREAM_SECRETS;

/// The longest time to open a call, or to get rid of a request.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most characters that are shown of what a server says.
const MAX_TEXT: usize = 256;

/// A call, from its opening to its end; ends when it is dropped.
#[derive(Debug)]
pub(super) struct Stream {
    requests: SendStream<Bytes>,
    /// Until the head of the answer is there, which comes with its first message.
    head: Option<ResponseFuture>,
    body: Option<RecvStream>,
    frames: Frames,
    _connection: JoinSet<()>,
}

impl Stream {
    /// Connects and calls.
    ///
    /// # Errors
    /// What failed, in words.
    pub(super) async fn open(path: &Path) -> Result<Self, String> {
        timeout(PATIENCE, Self::call(path)).await.map_err(|_| "it does not answer".to_owned())?
    }

    async fn call(path: &Path) -> Result<Self, String> {
        let socket = UnixStream::connect(path).await.map_err(|error| format!("no connection: {error}"))?;
        let (client, connection) = client::handshake(socket).await.map_err(|error| broken(&error))?;
        let mut running = JoinSet::new();
        running.spawn(async move {
            // The call fails with the same error, and tells of it.
            let _ = connection.await;
        });
        let mut client = client.ready().await.map_err(|error| broken(&error))?;
        let request = Request::builder()
            .method(Method::POST)
            .version(Version::HTTP_2)
            .uri(format!("http://localhost{STREAM_SECRETS}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", concat!("sidegate/", env!("CARGO_PKG_VERSION")))
            .body(())
            .map_err(|error| error.to_string())?;
        let (head, requests) = client.send_request(request, false).map_err(|error| broken(&error))?;
        Ok(Self { requests, head: Some(head), body: None, frames: Frames::default(), _connection: running })
    }

    /// Sends a request once the server takes it, so that none are queued.
    ///
    /// # Errors
    /// The call has ended, or the server takes nothing.
    pub(super) async fn send(&mut self, request: &impl Message) -> Result<(), String> {
        let bytes = framed(request);
        self.requests.reserve_capacity(bytes.len());
        let granted = timeout(PATIENCE, async {
            while self.requests.capacity() < bytes.len() {
                match poll_fn(|context| self.requests.poll_capacity(context)).await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(broken(&error)),
                    None => return Err("it ended the stream".to_owned()),
                }
            }
            Ok(())
        });
        granted.await.map_err(|_| "it takes no requests".to_owned())??;
        self.requests.send_data(bytes, false).map_err(|error| broken(&error))
    }

    /// The next message. May be dropped and called again: nothing is lost.
    ///
    /// # Errors
    /// The call has ended; why, in words.
    pub(super) async fn next(&mut self) -> Result<Zeroizing<Vec<u8>>, String> {
        loop {
            if let Some(message) = self.frames.next()? {
                return Ok(message);
            }
            if let Some(head) = &mut self.head {
                let response = head.await.map_err(|error| broken(&error))?;
                self.head = None;
                if response.status() != StatusCode::OK {
                    return Err(format!("it answered HTTP {}, where gRPC has 200", response.status()));
                }
                if let Some(status) = status(response.headers()) {
                    return Err(status);
                }
                self.body = Some(response.into_body());
            }
            let Some(body) = &mut self.body else { return Err("it ended the stream".to_owned()) };
            match body.data().await {
                Some(Ok(chunk)) => {
                    body.flow_control().release_capacity(chunk.len()).map_err(|error| broken(&error))?;
                    self.frames.push(chunk);
                }
                Some(Err(error)) => return Err(broken(&error)),
                None if !self.frames.is_between() => {
                    return Err("it ended the stream within a message".to_owned());
                }
                None => {
                    let trailers = body.trailers().await.map_err(|error| broken(&error))?;
                    let status = trailers.as_ref().and_then(status);
                    return Err(status.unwrap_or_else(|| "it ended the stream".to_owned()));
                }
            }
        }
    }
}

/// What a call that has ended says of why.
fn status(headers: &HeaderMap) -> Option<String> {
    let status = headers.get("grpc-status")?;
    let code = printable(&String::from_utf8_lossy(status.as_bytes()));
    let message = headers.get("grpc-message").map_or(&b""[..], |message| message.as_bytes());
    let message = printable(&percent_decode(message).decode_utf8_lossy());
    Some(format!("it ended the stream with gRPC status {code}: `{message}`"))
}

fn broken(error: &impl Display) -> String {
    format!("the stream broke: {error}")
}

/// Text of a server, cut and fit for a log line.
pub(super) fn printable(text: &str) -> String {
    let plain = |character: char| if character.is_control() { '?' } else { character };
    text.chars().take(MAX_TEXT).map(plain).collect()
}
