//! `sidegate probe`: is a running proxy ready?

use super::{USAGE, out};
use clap::Args as ClapArgs;
use http::Uri;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Arguments of `sidegate probe`.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Args {
    /// What is asked; any answer but 200 to 299 fails.
    #[arg(default_value = "http://127.0.0.1:15021/healthz/ready", value_name = "URL")]
    url: String,
    /// Time for all of it, in seconds.
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS")]
    timeout: f64,
}

/// An answer whose head is longer is none of ours.
const MAX_ANSWER: u64 = 64 * 1024;

/// Ends with 0 when the answer is 200 to 299, with 1 for any other or none.
pub(crate) fn main(args: &Args) -> ExitCode {
    let usage = |text: String| {
        out::complain(text);
        ExitCode::from(USAGE)
    };
    let Ok(timeout) = Duration::try_from_secs_f64(args.timeout) else {
        return usage(format!("--timeout: {} is no time; write seconds, as in 2 or 0.5", args.timeout));
    };
    let target =
        args.url.parse::<Uri>().ok().filter(|uri| uri.scheme_str() == Some("http") && uri.host().is_some());
    let Some(target) = target else {
        return usage(format!(
            "`{}` is no URL to ask; write it as in http://127.0.0.1:15021/healthz/ready",
            args.url
        ));
    };
    match ask(&target, timeout) {
        Ok((200..=299, _)) => ExitCode::SUCCESS,
        Ok((status, text)) => {
            out::complain(format_args!("{target}: {status}: {}", text.trim()));
            ExitCode::FAILURE
        }
        Err(error) => {
            out::complain(format_args!("{target}: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Status and body of the answer.
pub(super) fn ask(target: &Uri, timeout: Duration) -> io::Result<(u16, String)> {
    let end = Instant::now() + timeout;
    let (host, port) = (target.host().unwrap_or_default(), target.port_u16().unwrap_or(80));
    let addresses = (host.trim_matches(['[', ']']), port).to_socket_addrs()?;
    let mut stream = connect(addresses, end)?;
    stream.set_write_timeout(Some(left(end)?))?;
    let path = target.path_and_query().map_or("/", |path| path.as_str());
    // In one piece, so that it is in one packet.
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while (answer.len() as u64) < MAX_ANSWER {
        stream.set_read_timeout(Some(left(end)?))?;
        match stream.read(&mut chunk)? {
            0 => break,
            amount => answer.extend_from_slice(&chunk[..amount]),
        }
    }
    let text = String::from_utf8_lossy(&answer);
    let status = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let status =
        status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "this is no answer of HTTP/1.1"))?;
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned();
    Ok((status, body))
}

fn connect(addresses: impl Iterator<Item = SocketAddr>, end: Instant) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, left(end)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// The time left; zero is not allowed as a time-out of a socket.
fn left(end: Instant) -> io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")) } else { Ok(left) }
}
