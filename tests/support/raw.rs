//! A connection whose bytes the test writes itself.

use super::in_time;
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// See the module's documentation.
#[derive(Debug)]
pub struct Raw {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

/// A response, as far as its bytes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawReply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl RawReply {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's value, whatever its case; empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        let value = self.head.lines().filter_map(|line| line.split_once(':'));
        let mut value =
            value.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim());
        value.next().unwrap_or_default()
    }
}

impl Raw {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Self {
        Self { stream: super::client::connect(address).await, buffer: Vec::new() }
    }

    /// Writes bytes. A peer that has closed already is none of the writer's business; reading tells.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = in_time("writing", self.stream.write_all(bytes.as_ref())).await;
    }

    /// Closes the writing half.
    pub async fn finish(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Reads what comes next; empty at the end, which a reset is, too.
    pub async fn some(&mut self) -> Vec<u8> {
        if !self.buffer.is_empty() {
            return std::mem::take(&mut self.buffer);
        }
        let mut chunk = vec![0; 16 * 1024];
        match in_time("reading", self.stream.read(&mut chunk)).await {
            Ok(read) => chunk.truncate(read),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => chunk.clear(),
            Err(error) => panic!("reading: {error}"),
        }
        chunk
    }

    /// Reads so many bytes.
    pub async fn exactly(&mut self, count: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < count {
            let some = self.some().await;
            assert!(!some.is_empty(), "{count} bytes expected, then the end after {:?}", lossy(&all));
            all.extend(some);
        }
        self.buffer = all.split_off(count);
        all
    }

    /// Reads to the end.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let some = self.some().await;
            if some.is_empty() {
                return all;
            }
            all.extend(some);
        }
    }

    /// Reads one response head; `None` at the end.
    pub async fn head(&mut self) -> Option<(u16, String)> {
        let mut all = Vec::new();
        loop {
            let some = self.some().await;
            if some.is_empty() {
                assert!(all.is_empty(), "the end within a head: {:?}", lossy(&all));
                return None;
            }
            all.extend(some);
            if let Some(end) = all.windows(4).position(|four| four == b"\r\n\r\n") {
                self.buffer = all.split_off(end + 4);
                let head = lossy(&all);
                let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
                return Some((status.unwrap_or_else(|| panic!("no status: {head}")), head));
            }
        }
    }

    /// Reads one response with its body; `None` at the end. `HEAD` has none.
    pub async fn reply_to(&mut self, method: &str) -> Option<RawReply> {
        let (status, head) = self.head().await?;
        let mut reply = RawReply { status, head, body: Vec::new() };
        if method == "HEAD" || status < 200 || status == 204 || status == 304 {
            return Some(reply);
        }
        if reply.header("transfer-encoding") == "chunked" {
            reply.body = self.chunked().await;
        } else if let Ok(length) = reply.header("content-length").parse() {
            reply.body = self.exactly(length).await;
        } else {
            reply.body = self.rest().await;
        }
        Some(reply)
    }

    /// The response to a GET or the like; its absence ends the test.
    pub async fn reply(&mut self) -> RawReply {
        self.reply_to("GET").await.expect("the connection ended without a response")
    }

    /// Whether the peer has closed: nothing comes but the end.
    pub async fn is_at_end(&mut self) -> bool {
        self.some().await.is_empty()
    }

    async fn chunked(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let size = self.line().await;
            let size = usize::from_str_radix(&size, 16).unwrap_or_else(|_| panic!("no chunk size: {size}"));
            if size == 0 {
                while !self.line().await.is_empty() {}
                return body;
            }
            body.extend(self.exactly(size).await);
            assert_eq!(self.line().await, "");
        }
    }

    async fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.extend(self.exactly(1).await);
        }
        lossy(&line[..line.len() - 2])
    }
}

/// Sends bytes over a connection of their own, and reads all responses until the proxy closes.
pub async fn speak(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut raw = Raw::connect(address).await;
    raw.send(bytes).await;
    raw.rest().await
}

pub fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
