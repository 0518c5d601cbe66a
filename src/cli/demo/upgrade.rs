//! A connection that stops being HTTP: bytes both ways through gateway and sidecar.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Upgrades to the `echo` of an application and sends it `rounds` messages of `size` bytes, each of which must come back unchanged. The bytes
/// that came back.
pub(super) async fn echo(
    port: u16,
    host: &str,
    path: &str,
    rounds: u8,
    size: usize,
) -> Result<usize, String> {
    let wrong = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}");
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
    let stream = stream.map_err(|error| wrong("connecting", &error))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| wrong("connecting", &error))?;
    tokio::spawn(async move { drop(connection.with_upgrades().await) });
    let request = Request::get(path)
        .header("host", host)
        .header("connection", "upgrade")
        .header("upgrade", "echo")
        .body(Empty::<Bytes>::new())
        .map_err(|error| wrong("the request", &error))?;
    let response = sender.send_request(request).await.map_err(|error| wrong("the upgrade", &error))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(format!("the upgrade was answered {}", response.status()));
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(|error| wrong("the upgrade", &error))?;
    let mut tunnel = TokioIo::new(upgraded);
    let mut came = vec![0; size];
    for round in 0..rounds {
        let message = vec![round; size];
        tunnel.write_all(&message).await.map_err(|error| wrong("writing", &error))?;
        tunnel.read_exact(&mut came).await.map_err(|error| wrong("reading", &error))?;
        if came != message {
            return Err(format!("message {round} came back changed"));
        }
    }
    tunnel.shutdown().await.map_err(|error| wrong("closing", &error))?;
    match tunnel.read(&mut came).await {
        Ok(0) => Ok(usize::from(rounds) * size),
        Ok(more) => Err(format!("{more} bytes came after the end")),
        Err(error) => Err(wrong("the end", &error)),
    }
}
