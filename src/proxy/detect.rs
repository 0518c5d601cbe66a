//! What protocol the first bytes of a connection speak.
//!
//! Decided as early as the bytes allow: a byte that rules out everything gives [`Detected::Unknown`] at once,
//! for each byte waited for delays a protocol that is none of ours. Taking HTTP for something else is a way
//! around HTTP policies, so whatever an HTTP/1 server would take for a request is HTTP here.

pub mod hello;

/// What a connection speaks, as far as its first bytes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Detected {
    /// Not told yet: these bytes may still become one of the others.
    NeedMore,
    /// A TLS handshake.
    Tls,
    /// A request line of HTTP/1.
    Http1,
    /// The connection preface of HTTP/2 (RFC 9113 section 3.4).
    Http2,
    /// None of them, for sure.
    Unknown,
}

/// After so many bytes there is always a verdict. As long as the longest URI the `http` crate can hold.
pub const MAX_UNDECIDED: usize = 64 * 1024;
/// The longest method: all registered with IANA are shorter (`UPDATEREDIRECTREF` has 17).
const MAX_METHOD: usize = 24;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Methods after which the first byte of a path is proof enough (RFC 9110 section 9, RFC 5789).
const METHODS: &[&[u8]] =
    &[b"GET", b"POST", b"PUT", b"HEAD", b"DELETE", b"OPTIONS", b"PATCH", b"CONNECT", b"TRACE"];

/// Says what `bytes`, all that a connection brought so far, speak.
///
/// TLS is a record of a ClientHello: 0x16, major version 3, a sane length, handshake type 1. HTTP/2 is the
/// whole preface, which every client sends in one piece. HTTP/1 is a known method and a path; or else a token,
/// what may be a target, and `HTTP/1.` at the end of the line. Empty lines before a request line are skipped
/// (RFC 9112 section 2.2), as HTTP parsers do.
#[must_use]
pub fn classify(bytes: &[u8]) -> Detected {
    match bytes.first() {
        None => Detected::NeedMore,
        Some(0x16) => tls(bytes),
        Some(b'P') if bytes.starts_with(PREFACE) => Detected::Http2,
        Some(b'P') if PREFACE.starts_with(bytes) => Detected::NeedMore,
        Some(_) => match http1(bytes) {
            Detected::NeedMore if bytes.len() >= MAX_UNDECIDED => Detected::Unknown,
            told => told,
        },
    }
}

/// Whether the server usually speaks first on this port, or sniffing has other known troubles; no
/// byte should be waited for there.
///
/// The union of Linkerd's default opaque ports (25 and 587 SMTP, 3306 MySQL, 4444 Galera, 5432 Postgres, whose
/// client opens with a packet of its own, 6379 Redis, 9300 Elasticsearch, 11211 Memcached) and of those that
/// Istio treats as plain TCP when a Service does not say ("Server First Protocols": 25 SMTP, 53 DNS, 3306
/// MySQL, 27017 MongoDB).
#[must_use]
pub fn server_first(port: u16) -> bool {
    matches!(port, 25 | 53 | 587 | 3306 | 4444 | 5432 | 6379 | 9300 | 11211 | 27017)
}

/// A record header and the type of its handshake message (RFC 8446 sections 5.1 and 4).
fn tls(bytes: &[u8]) -> Detected {
    let possible = bytes.iter().take(6).enumerate().all(|(at, &byte)| match at {
        0 => byte == 0x16,
        1 => byte == 3,
        // TLS 1.3 writes 1.0 or 1.2 here; 1.4 will not be written by anybody.
        2 => byte <= 4,
        // At most 2^14 bytes of plain text.
        3 => byte <= 0x40,
        5 => byte == 1,
        _ => true,
    });
    match (possible, bytes.len() >= 6) {
        (false, _) => Detected::Unknown,
        (true, false) => Detected::NeedMore,
        (true, true) => Detected::Tls,
    }
}

fn http1(bytes: &[u8]) -> Detected {
    // As many as come: a parser behind us that skips them all must not see what we took for something else.
    let blank = bytes.iter().take_while(|&&byte| byte == b'\r' || byte == b'\n').count();
    let line = &bytes[blank..];
    let method = line.iter().take(MAX_METHOD + 1).take_while(|&&byte| is_token(byte)).count();
    if method > MAX_METHOD {
        return Detected::Unknown;
    }
    // Some servers skip more than one space; what they would read is HTTP here, for hyper to refuse.
    let spaces = line[method..].iter().take_while(|&&byte| byte == b' ').count();
    match line.get(method + spaces) {
        None if spaces == 0 || method > 0 => Detected::NeedMore,
        Some(b'/') if spaces == 1 && METHODS.contains(&&line[..method]) => Detected::Http1,
        Some(&first) if spaces > 0 && method > 0 && starts_target(first) => request_line(line),
        _ => Detected::Unknown,
    }
}

/// Without a known method and a path, only the version at the end of the line proves a request: `GET key` is
/// Redis.
fn request_line(line: &[u8]) -> Detected {
    match memchr::memchr(b'\n', line) {
        Some(end) => {
            let line = line[..end].trim_ascii_end();
            let version = line.rsplit(|&byte| byte == b' ').next().unwrap_or_default();
            if version.starts_with(b"HTTP/1.") { Detected::Http1 } else { Detected::Unknown }
        }
        None => Detected::NeedMore,
    }
}

/// `tchar` of RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What may begin a path, `*`, `http://...` or `host:port`; not what other protocols with a word in front have
/// there, as NATS a `{`.
fn starts_target(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte)
}

#[cfg(test)]
mod tests;
