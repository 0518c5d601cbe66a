//! Small real servers: one that speaks HTTP/1 and HTTP/2 and tells what it saw, and plain TCP ones.

use super::body::{BoxBody, BoxError, empty, full};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde_json::json;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// A server. Stops accepting when it is dropped.
#[derive(Debug)]
pub struct Upstream {
    pub address: SocketAddr,
    pub seen: Arc<Seen>,
    accepting: tokio::task::JoinHandle<()>,
}

/// What a server has seen so far.
#[derive(Debug)]
pub struct Seen {
    name: String,
    requests: AtomicU64,
    connections: AtomicU64,
    open: AtomicU64,
    /// Bytes of endless bodies that were handed to the connection.
    sent: AtomicU64,
    heads: Mutex<Vec<String>>,
    /// What came over each connection, as far as [`RECORDED`] goes.
    bytes: Mutex<Vec<Vec<u8>>>,
    active: AtomicU64,
    most_active: AtomicU64,
}

/// Bytes of a connection that are kept.
const RECORDED: usize = 16 * 1024;

/// Size of a piece of an endless body.
const PIECE: usize = 16 * 1024;

impl Upstream {
    /// A server named `up`.
    pub async fn start() -> Self {
        Self::named("up").await
    }

    /// A server that says its name in every echo.
    pub async fn named(name: &str) -> Self {
        Self::serving(name, None, false).await
    }

    /// A server that takes extended CONNECT.
    pub async fn extended() -> Self {
        Self::serving("up", None, true).await
    }

    /// A server that closes connections without a request for so long, at whatever moment that is for the other side.
    pub async fn closing_idle(after: Duration) -> Self {
        Self::serving("up", Some(after), false).await
    }

    async fn serving(name: &str, idle: Option<Duration>, extended: bool) -> Self {
        Self::tcp_named(name, move |seen, stream| serve(seen, stream, idle, extended)).await
    }

    /// A TCP server: each connection is given to `serve`.
    pub async fn tcp<F>(serve: impl Fn(Arc<Seen>, TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        Self::tcp_named("tcp", serve).await
    }

    async fn tcp_named<F>(name: &str, serve: impl Fn(Arc<Seen>, TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::new(name));
        let shared = seen.clone();
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                stream.set_nodelay(true).unwrap();
                shared.connections.fetch_add(1, SeqCst);
                shared.open.fetch_add(1, SeqCst);
                let serving = serve(shared.clone(), stream);
                let seen = shared.clone();
                tokio::spawn(async move {
                    // How a connection ends is the test's to look at from the other side.
                    let _ = serving.await;
                    seen.open.fetch_sub(1, SeqCst);
                });
            }
        });
        Self { address, seen, accepting }
    }

    /// A TCP server that gives back what it gets, and ends when its client has ended.
    pub async fn echo() -> Self {
        Self::tcp(|seen, mut stream| async move {
            let place = seen.begin_bytes();
            let mut chunk = vec![0; 4096];
            loop {
                let read = stream.read(&mut chunk).await?;
                if read == 0 {
                    return stream.shutdown().await;
                }
                seen.record(place, &chunk[..read]);
                stream.write_all(&chunk[..read]).await?;
            }
        })
        .await
    }

    pub fn requests(&self) -> u64 {
        self.seen.requests.load(SeqCst)
    }

    pub fn connections(&self) -> u64 {
        self.seen.connections.load(SeqCst)
    }

    pub fn open(&self) -> u64 {
        self.seen.open.load(SeqCst)
    }

    pub fn sent(&self) -> u64 {
        self.seen.sent.load(SeqCst)
    }

    /// The most requests that were under way at once.
    pub fn most_active(&self) -> u64 {
        self.seen.most_active.load(SeqCst)
    }

    /// `METHOD target` of each request, in order.
    pub fn heads(&self) -> Vec<String> {
        self.seen.heads.lock().unwrap().clone()
    }

    /// The first bytes of each connection.
    pub fn bytes(&self) -> Vec<Vec<u8>> {
        self.seen.bytes.lock().unwrap().clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Seen {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            open: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            heads: Mutex::default(),
            bytes: Mutex::default(),
            active: AtomicU64::new(0),
            most_active: AtomicU64::new(0),
        }
    }

    /// A place for the bytes of one more connection.
    pub fn begin_bytes(&self) -> usize {
        let mut bytes = self.bytes.lock().unwrap();
        bytes.push(Vec::new());
        bytes.len() - 1
    }

    pub fn record(&self, place: usize, new: &[u8]) {
        let mut bytes = self.bytes.lock().unwrap();
        let room = RECORDED.saturating_sub(bytes[place].len()).min(new.len());
        bytes[place].extend_from_slice(&new[..room]);
    }
}

/// A request that is under way; also tells an idle connection from a busy one.
struct Active {
    seen: Arc<Seen>,
    conn: Arc<ConnUse>,
}

#[derive(Debug)]
struct ConnUse {
    active: AtomicU64,
    last: Mutex<Instant>,
}

impl Active {
    fn new(seen: &Arc<Seen>, conn: &Arc<ConnUse>) -> Self {
        let now = seen.active.fetch_add(1, SeqCst) + 1;
        seen.most_active.fetch_max(now, SeqCst);
        conn.active.fetch_add(1, SeqCst);
        Self { seen: seen.clone(), conn: conn.clone() }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.seen.active.fetch_sub(1, SeqCst);
        *self.conn.last.lock().unwrap() = Instant::now();
        self.conn.active.fetch_sub(1, SeqCst);
    }
}

async fn serve(seen: Arc<Seen>, stream: TcpStream, idle: Option<Duration>, extended: bool) -> io::Result<()> {
    let mut start = [0; 4];
    loop {
        match stream.peek(&mut start).await? {
            0 => return Ok(()),
            4.. => break,
            _ => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
    let place = seen.begin_bytes();
    let conn = Arc::new(ConnUse { active: AtomicU64::new(0), last: Mutex::new(Instant::now()) });
    let service = {
        let (seen, conn) = (seen.clone(), conn.clone());
        service_fn(move |request| {
            let active = Active::new(&seen, &conn);
            answer(seen.clone(), request, active)
        })
    };
    let io = TokioIo::new(Recording { stream, seen, place });
    let serving = async move {
        if start == *b"PRI " {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            if extended {
                builder.enable_connect_protocol();
            }
            builder
                .timer(TokioTimer::new())
                .max_send_buf_size(PIECE)
                .max_concurrent_streams(1000)
                .serve_connection(io, service)
                .await
        } else {
            let builder = http1::Builder::new();
            builder.serve_connection(io, service).with_upgrades().await
        }
    };
    let too_idle = async move {
        let Some(idle) = idle else { return std::future::pending().await };
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if conn.active.load(SeqCst) == 0 && conn.last.lock().unwrap().elapsed() >= idle {
                return;
            }
        }
    };
    tokio::select! {
        result = serving => result.map_err(io::Error::other),
        () = too_idle => Ok(()),
    }
}

async fn answer(
    seen: Arc<Seen>,
    mut request: Request<Incoming>,
    active: Active,
) -> Result<Response<BoxBody>, BoxError> {
    seen.requests.fetch_add(1, SeqCst);
    seen.heads.lock().unwrap().push(format!("{} {}", request.method(), request.uri()));
    if let Some(delay) = request.headers().get("x-delay-ms") {
        let delay = delay.to_str()?.parse()?;
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    let tunnel = request.method() == Method::CONNECT || request.headers().contains_key(UPGRADE);
    if tunnel && request.uri().path() == "/refuse" {
        let mut response = Response::new(empty());
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        return Ok(response);
    }
    if tunnel {
        return Ok(upgrade(&mut request));
    }
    if request
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
    {
        return Ok(grpc(request, active));
    }
    let path = request.uri().path().to_owned();
    let mut parts = path.trim_start_matches('/').split('/');
    let response = match (parts.next().unwrap_or_default(), parts.next()) {
        ("endless", _) => Response::new(Endless { seen, _active: active }.boxed_unsync()),
        ("bytes", Some(count)) => Response::new(full(vec![b'x'; count.parse()?])),
        ("status", Some(status)) => {
            let mut response = Response::new(empty());
            *response.status_mut() = status.parse()?;
            response
        }
        ("hang", _) => {
            request.into_body().collect().await?;
            std::future::pending().await
        }
        // An error of the service makes hyper drop the connection.
        ("die", _) => {
            request.into_body().collect().await?;
            return Err("dying as asked".into());
        }
        ("stream", _) => {
            let body = Held { body: request.into_body(), _active: active };
            let mut response = Response::new(body.boxed_unsync());
            response.headers_mut().insert("trailer", HeaderValue::from_static("x-sum"));
            response
        }
        _ => echo(&seen, request).await?,
    };
    Ok(response)
}

/// Everything that was seen of the request, as JSON.
async fn echo(seen: &Seen, request: Request<Incoming>) -> Result<Response<BoxBody>, BoxError> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?;
    let lines = |headers: &HeaderMap| -> Vec<_> {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.iter().map(|(name, value)| json!([name.as_str(), text(value)])).collect()
    };
    let trailers = body.trailers().map(lines).unwrap_or_default();
    let body = body.to_bytes();
    let text = json!({
        "upstream": seen.name,
        "method": head.method.as_str(),
        "target": head.uri.to_string(),
        "version": format!("{:?}", head.version),
        "headers": lines(&head.headers),
        "trailers": trailers,
        "length": body.len(),
        "body": String::from_utf8_lossy(&body[..body.len().min(4096)]),
    });
    let mut response = Response::new(full(text.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert("x-upstream", HeaderValue::from_str(&seen.name)?);
    if head.uri.path() == "/close" {
        response.headers_mut().insert("connection", HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// Opens a tunnel and gives back what comes through it. A WebSocket gets the key it wants; its frames are the echo's own affair.
fn upgrade(request: &mut Request<Incoming>) -> Response<BoxBody> {
    let mut response = Response::new(empty());
    if request.method() != Method::CONNECT {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert("connection", HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, request.headers()[UPGRADE].clone());
        if let Some(key) = request.headers().get("sec-websocket-key") {
            let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
            headers.insert("sec-websocket-accept", accept.parse().unwrap());
        }
    }
    let websocket = request.headers().contains_key("sec-websocket-version");
    let upgraded = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let mut io = TokioIo::new(upgraded.await?);
        if websocket {
            return websocket_echo(io).await;
        }
        let mut chunk = vec![0; 4096];
        loop {
            let read = io.read(&mut chunk).await?;
            if read == 0 {
                io.shutdown().await?;
                return Ok(());
            }
            io.write_all(&chunk[..read]).await?;
        }
    });
    response
}

async fn websocket_echo(io: impl AsyncRead + AsyncWrite + Unpin) -> Result<(), BoxError> {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::protocol::Role;
    let mut socket = tokio_tungstenite::WebSocketStream::from_raw_socket(io, Role::Server, None).await;
    while let Some(message) = socket.next().await {
        let message = message?;
        if message.is_text() || message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}

/// gRPC as far as a proxy sees it: messages come back as they are, then the status in the trailers.
fn grpc(request: Request<Incoming>, active: Active) -> Response<BoxBody> {
    let failing = request.uri().path().ends_with("/Fail");
    let mut response = if failing {
        let mut response = Response::new(empty());
        response.headers_mut().insert("grpc-status", HeaderValue::from_static("5"));
        response.headers_mut().insert("grpc-message", HeaderValue::from_static("no such thing"));
        response
    } else {
        Response::new(Grpc { body: Some(request.into_body()), _active: active }.boxed_unsync())
    };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// Gives the messages back, and ends with a status.
struct Grpc {
    body: Option<Incoming>,
    _active: Active,
}

impl Body for Grpc {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        match ready!(Pin::new(body).poll_frame(task)) {
            Some(Ok(frame)) if frame.is_data() => Poll::Ready(Some(Ok(frame))),
            Some(Err(error)) => Poll::Ready(Some(Err(error.into()))),
            rest => {
                self.body = None;
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                let sent = rest.and_then(Result::ok).and_then(|frame| frame.into_trailers().ok());
                if let Some(sum) = sent.and_then(|sent| sent.get("x-sum").cloned()) {
                    trailers.insert("x-sum", sum);
                }
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
        }
    }
}

/// A request's body on its way back.
struct Held {
    body: Incoming,
    _active: Active,
}

impl Body for Held {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(task).map_err(Into::into)
    }
}

/// A body without end, which counts what the connection has taken of it.
struct Endless {
    seen: Arc<Seen>,
    _active: Active,
}

impl Body for Endless {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        static DATA: [u8; PIECE] = [b'e'; PIECE];
        self.seen.sent.fetch_add(PIECE as u64, SeqCst);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&DATA)))))
    }
}

/// A socket whose incoming bytes are kept.
struct Recording {
    stream: TcpStream,
    seen: Arc<Seen>,
    place: usize,
}

impl AsyncRead for Recording {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(task, buffer))?;
        self.seen.record(self.place, &buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Recording {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(task, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(task)
    }
}
