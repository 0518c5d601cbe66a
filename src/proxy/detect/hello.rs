//! The ClientHello of a connection that we pass on unopened: its server name and protocols.

use std::borrow::Cow;

use crate::proxy::authority::Authority;

/// The largest ClientHello read, in bytes: Envoy's limit in its `tls_inspector`.
pub const MAX_HELLO: usize = 16 * 1024;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
/// The most bytes worth collecting for a hello: the limit, with a record header for each of its bytes.
const MAX_RECORDS: usize = MAX_HELLO * 6;

/// What the first bytes of a TLS connection say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hello {
    /// The ClientHello is not complete yet.
    NeedMore,
    /// A whole ClientHello.
    Parsed(ClientHello),
    /// No ClientHello, a broken one, or one over [`MAX_HELLO`].
    Invalid,
}

/// What a client asks for before encryption begins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientHello {
    /// The server name (RFC 6066 section 3), lower-case and without final dot. Absent when there is none, or
    /// when it is an IP address, which the RFC forbids and clients send all the same.
    pub sni: Option<Box<str>>,
    /// The protocols offered (RFC 7301), in the client's order.
    pub alpn: Vec<Box<[u8]>>,
}

/// Reads the ClientHello at the start of `bytes`, which may be cut anywhere and spread over several records
/// (RFC 8446 section 5.1). Nothing is consumed: the bytes go to the server as they came.
#[must_use]
pub fn client_hello(bytes: &[u8]) -> Hello {
    match message(bytes) {
        Step::NeedMore => Hello::NeedMore,
        Step::Invalid => Hello::Invalid,
        Step::Done(body) => parse(&body).map_or(Hello::Invalid, Hello::Parsed),
    }
}

enum Step<'a> {
    NeedMore,
    Invalid,
    Done(Cow<'a, [u8]>),
}

/// The body of the first handshake message: borrowed when one record holds it, which is nearly always.
fn message(bytes: &[u8]) -> Step<'_> {
    let mut gathered: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    let mut rest = bytes;
    loop {
        // Checked byte by byte, so that what is no TLS is not waited for.
        if rest.first().is_some_and(|&byte| byte != HANDSHAKE) || rest.get(1).is_some_and(|&byte| byte != 3) {
            return Step::Invalid;
        }
        let Some((header, after)) = rest.split_at_checked(5) else { return Step::NeedMore };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        // An empty handshake record is forbidden, and would let a client keep us busy for nothing.
        if length == 0 || length > 1 << 14 {
            return Step::Invalid;
        }
        let (fragment, next) = after.split_at(length.min(after.len()));
        if gathered.is_empty() {
            gathered = Cow::Borrowed(fragment);
        } else {
            gathered.to_mut().extend_from_slice(fragment);
        }
        if gathered.first().is_some_and(|&kind| kind != CLIENT_HELLO) {
            return Step::Invalid;
        }
        if let [_, high, middle, low, ..] = *gathered {
            let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            if length > MAX_HELLO {
                return Step::Invalid;
            }
            if gathered.len() >= 4 + length {
                return Step::Done(match gathered {
                    Cow::Borrowed(all) => Cow::Borrowed(&all[4..4 + length]),
                    Cow::Owned(all) => Cow::Owned(all[4..4 + length].to_vec()),
                });
            }
        }
        if bytes.len() > MAX_RECORDS {
            return Step::Invalid;
        }
        if fragment.len() < length {
            return Step::NeedMore;
        }
        rest = next;
    }
}

/// A reader of length-prefixed fields; `None` is the end of the input.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn short(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A field behind a length of one byte.
    fn field8(&mut self) -> Option<&'a [u8]> {
        let length = self.take(1)?[0];
        self.take(usize::from(length))
    }

    /// A field behind a length of two bytes.
    fn field16(&mut self) -> Option<&'a [u8]> {
        let length = self.short()?;
        self.take(usize::from(length))
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// RFC 8446 section 4.1.2; the same layout since TLS 1.0.
fn parse(body: &[u8]) -> Option<ClientHello> {
    let mut reader = Reader(body);
    let version = reader.short()?;
    if version >> 8 != 3 {
        return None;
    }
    reader.take(32)?;
    if reader.field8()?.len() > 32 {
        return None;
    }
    let suites = reader.field16()?;
    if suites.is_empty() || suites.len() % 2 != 0 || reader.field8()?.is_empty() {
        return None;
    }
    let mut hello = ClientHello::default();
    // A client of TLS 1.2 may leave the extensions out.
    if reader.is_empty() {
        return Some(hello);
    }
    let mut extensions = Reader(reader.field16()?);
    if !reader.is_empty() {
        return None;
    }
    let (mut named, mut offered) = (false, false);
    while !extensions.is_empty() {
        let kind = extensions.short()?;
        let content = extensions.field16()?;
        // Two of a kind are forbidden (RFC 8446 section 4.2): which would the server believe?
        match kind {
            SERVER_NAME if named => return None,
            SERVER_NAME => {
                named = true;
                hello.sni = server_name(content)?;
            }
            ALPN if offered => return None,
            ALPN => {
                offered = true;
                hello.alpn = protocols(content)?;
            }
            _ => {}
        }
    }
    Some(hello)
}

/// The list may hold one name of each type, and there is but one type (RFC 6066 section 3). The outer `None`
/// is a broken extension.
fn server_name(content: &[u8]) -> Option<Option<Box<str>>> {
    let mut reader = Reader(content);
    let mut list = Reader(reader.field16()?);
    if list.take(1)?[0] != 0 {
        return None;
    }
    let name = list.field16()?;
    if !list.is_empty() || !reader.is_empty() {
        return None;
    }
    // An IPv6 address comes without brackets here, and is no host name otherwise.
    if std::str::from_utf8(name).is_ok_and(|text| text.parse::<std::net::IpAddr>().is_ok()) {
        return Some(None);
    }
    // The same rules as for Host: what they give is compared with it (421 on a difference).
    let authority = Authority::parse(name).ok()?;
    if name.contains(&b':') || name.starts_with(b"[") {
        return None;
    }
    Some(Some(authority.host.into()))
}

fn protocols(content: &[u8]) -> Option<Vec<Box<[u8]>>> {
    let mut reader = Reader(content);
    let mut list = Reader(reader.field16()?);
    if list.is_empty() || !reader.is_empty() {
        return None;
    }
    let mut protocols = Vec::new();
    while !list.is_empty() {
        let protocol = list.field8()?;
        if protocol.is_empty() {
            return None;
        }
        protocols.push(Box::from(protocol));
    }
    Some(protocols)
}

#[cfg(test)]
mod tests;
