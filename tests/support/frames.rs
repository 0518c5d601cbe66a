//! HTTP/2 written and read frame by frame, as client and as server, for what no well-behaved peer does.

use super::in_time;
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const NO_ERROR: u32 = 0;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// A connection.
#[derive(Debug)]
pub struct Frames(pub TcpStream);

impl Frame {
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, flags, stream, payload: payload.into() }
    }

    /// A request without a body.
    pub fn get(stream: u32, host: &str, path: &str) -> Self {
        let block = block(&[(":method", "GET"), (":scheme", "http"), (":authority", host), (":path", path)]);
        Self::new(HEADERS, END_HEADERS | END_STREAM, stream, block)
    }

    /// A response head of status 200.
    pub fn ok(stream: u32, flags: u8) -> Self {
        Self::new(HEADERS, END_HEADERS | flags, stream, [0x88])
    }

    pub fn reset(stream: u32, code: u32) -> Self {
        Self::new(RST_STREAM, 0, stream, code.to_be_bytes())
    }

    pub fn go_away(last: u32, code: u32) -> Self {
        Self::new(GOAWAY, 0, 0, [last.to_be_bytes(), code.to_be_bytes()].concat())
    }

    /// Its bytes on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).unwrap().to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], self.kind, self.flags];
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// The frames that these bytes are.
    pub fn all(mut bytes: &[u8]) -> Vec<Self> {
        let mut frames = Vec::new();
        while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let (payload, rest) = rest.split_at(length);
            frames.push(Self::new(head[3], head[4], stream, payload));
            bytes = rest;
        }
        frames
    }

    /// The error code of a RST_STREAM or GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// A header block of literals without compression.
pub fn block(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in headers {
        bytes.push(0);
        for text in [name, value] {
            assert!(text.len() < 127, "{text}");
            bytes.push(u8::try_from(text.len()).unwrap());
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

impl Frames {
    /// Connects as a client, and sends the preface.
    pub async fn connect(address: SocketAddr) -> Self {
        let mut stream = super::client::connect(address).await;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut frames = Self(stream);
        frames.send(&Frame::new(SETTINGS, 0, 0, [])).await.unwrap();
        frames
    }

    /// Takes the preface of a client, and sends ours with these settings.
    pub async fn accept(mut stream: TcpStream, settings: &[(u16, u32)]) -> io::Result<Self> {
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await?;
        let mut payload = Vec::new();
        for (name, value) in settings {
            payload.extend(name.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        let mut frames = Self(stream);
        frames.send(&Frame::new(SETTINGS, 0, 0, payload)).await?;
        Ok(frames)
    }

    pub async fn send(&mut self, frame: &Frame) -> io::Result<()> {
        self.0.write_all(&frame.bytes()).await
    }

    /// The next frame; those of settings and pings are answered on the way.
    pub async fn next(&mut self) -> io::Result<Frame> {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let mut payload = vec![0; length];
            self.0.read_exact(&mut payload).await?;
            let frame = Frame { kind: head[3], flags: head[4], stream, payload };
            match frame.kind {
                SETTINGS if frame.flags & ACK == 0 => self.send(&Frame::new(SETTINGS, ACK, 0, [])).await?,
                PING if frame.flags & ACK == 0 => {
                    self.send(&Frame::new(PING, ACK, 0, frame.payload)).await?;
                }
                SETTINGS | PING => {}
                _ => return Ok(frame),
            }
        }
    }

    /// The next frame of this kind, whatever comes before.
    pub async fn next_of(&mut self, kind: u8) -> io::Result<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.kind == kind {
                return Ok(frame);
            }
        }
    }

    /// All frames until the peer closes.
    pub async fn rest(&mut self) -> Vec<Frame> {
        let mut all = Vec::new();
        while let Ok(frame) = in_time("a frame or the end", self.next()).await {
            all.push(frame);
        }
        all
    }
}
