//! `x-forwarded-client-cert`: the client's certificate, told to those behind us, in Envoy's grammar.
//!
//! Elements are parted by `,`, pairs by `;`, name and value by `=`; a value with one of these is quoted, and a quote in it is `\"`. A
//! backslash stays as it is, unless a quote, another backslash or the end follows: then it is doubled, so that every value reads back.

use std::cell::RefCell;
use std::fmt::{self, Write};

use filter_api::Peer;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use rustc_hash::FxHashMap;

/// The header.
pub const XFCC: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// What becomes of the header (Envoy's `forward_client_cert_details`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// It is removed.
    #[default]
    Sanitize,
    /// It is kept when the client showed a certificate.
    ForwardOnly,
    /// What we know of the client is appended, when it showed a certificate (Istio's inbound side).
    AppendForward,
    /// What we know of the client replaces it, when it showed a certificate.
    SanitizeSet,
    /// It is kept.
    AlwaysForwardOnly,
}

/// What of the client's certificate is told beside `By` and `Hash` (Envoy's `set_current_client_cert_details`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Details {
    /// The leaf, as PEM in percent codes.
    pub cert: bool,
    /// The chain, in the same way.
    pub chain: bool,
    /// The subject.
    pub subject: bool,
    /// The URI names.
    pub uri: bool,
    /// The DNS names.
    pub dns: bool,
}

impl Details {
    /// What Istio's sidecars and gateways tell.
    pub const ISTIO: Self = Self { cert: false, chain: false, subject: true, uri: true, dns: true };
}

/// One element of the header: one certificate that a proxy saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// URI names of the proxy's own certificate.
    pub by: Vec<String>,
    /// SHA-256 of the client's certificate, in hexadecimal.
    pub hash: Option<String>,
    /// The client's certificate, as PEM in percent codes.
    pub cert: Option<String>,
    /// Its chain, in the same way.
    pub chain: Option<String>,
    /// Its subject, as RFC 2253 writes it.
    pub subject: Option<String>,
    /// Its URI names.
    pub uris: Vec<String>,
    /// Its DNS names.
    pub dns: Vec<String>,
}

/// Why a text is no such header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A pair has no `=`.
    #[error("a pair has no `=`")]
    Pair,
    /// A pair has another name than the seven.
    #[error("a pair has an unknown name")]
    Name,
    /// A name that may stand once is there twice.
    #[error("a name is there twice")]
    Twice,
    /// A quote has no end, or something follows it.
    #[error("a quoted value has no end, or something follows it")]
    Quote,
}

impl Element {
    /// What is told of `peer` by a proxy whose certificate has the URI `by`.
    #[must_use]
    pub fn of(peer: &Peer, by: Option<&str>, details: Details) -> Self {
        let mut hash = String::with_capacity(64);
        for byte in peer.hash {
            // Writing to a String cannot fail.
            let _ = write!(hash, "{byte:02x}");
        }
        let names = |on: bool, names: &[Box<str>]| {
            if on { names.iter().map(|name| safe(name)).collect() } else { Vec::new() }
        };
        Self {
            by: by.map(safe).into_iter().collect(),
            hash: Some(hash),
            cert: details.cert.then(|| peer.chain.first().map_or_else(String::new, |der| pem(der))),
            chain: details.chain.then(|| peer.chain.iter().map(|der| pem(der)).collect()),
            subject: details.subject.then(|| printable(&peer.subject)),
            uris: names(details.uri, &peer.uris),
            dns: names(details.dns, &peer.dns),
        }
    }

    fn take(&mut self, name: &str, value: String) -> Result<(), Malformed> {
        let once = match name.to_ascii_lowercase().as_str() {
            "by" => return many(&mut self.by, value),
            "uri" => return many(&mut self.uris, value),
            "dns" => return many(&mut self.dns, value),
            "hash" => &mut self.hash,
            "cert" => &mut self.cert,
            "chain" => &mut self.chain,
            "subject" => &mut self.subject,
            _ => return Err(Malformed::Name),
        };
        if once.replace(value).is_some() { Err(Malformed::Twice) } else { Ok(()) }
    }
}

fn many(values: &mut Vec<String>, value: String) -> Result<(), Malformed> {
    values.push(value);
    Ok(())
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = (self.by.iter().map(|value| ("By", value)))
            .chain(self.hash.iter().map(|value| ("Hash", value)))
            .chain(self.cert.iter().map(|value| ("Cert", value)))
            .chain(self.chain.iter().map(|value| ("Chain", value)))
            .chain(self.subject.iter().map(|value| ("Subject", value)))
            .chain(self.uris.iter().map(|value| ("URI", value)))
            .chain(self.dns.iter().map(|value| ("DNS", value)));
        for (place, (name, value)) in pairs.enumerate() {
            f.write_str(if place == 0 { "" } else { ";" })?;
            let quoted = matches!(name, "Cert" | "Chain" | "Subject")
                || value.contains(|c: char| matches!(c, ',' | ';' | '=' | '"') || c.is_whitespace());
            write!(f, "{name}=")?;
            if quoted { quote(value, f)? } else { f.write_str(value)? }
        }
        Ok(())
    }
}

fn quote(value: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_char('"')?;
    let mut rest = value.chars().peekable();
    while let Some(now) = rest.next() {
        let doubtful = now == '\\' && matches!(rest.peek(), None | Some('"' | '\\'));
        if now == '"' || doubtful {
            f.write_char('\\')?;
        }
        f.write_char(now)?;
    }
    f.write_char('"')
}

/// A URI or DNS name as a header can hold it: what is not visible ASCII, a quote or a backslash is written in percent codes. None of them
/// is in a sound name, and readers differ in how they take a backslash.
fn safe(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'!'..0x7f if !matches!(byte, b'"' | b'\\') => safe.push(char::from(byte)),
            other => {
                // Writing to a String cannot fail.
                let _ = write!(safe, "%{other:02X}");
            }
        }
    }
    safe
}

/// A subject as a header can hold it, which ours are already.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect()
}

/// DER as PEM in percent codes.
fn pem(der: &[u8]) -> String {
    let body = crate::config::resources::scalar::Base64(der.to_vec()).to_string();
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in body.as_bytes().chunks(64) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// Reads a header; an empty one has no elements.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &str) -> Result<Vec<Element>, Malformed> {
    let mut elements = Vec::new();
    let mut rest = text.trim();
    if rest.is_empty() {
        return Ok(elements);
    }
    loop {
        let mut element = Element::default();
        loop {
            let (name, after) = rest.split_once('=').ok_or(Malformed::Pair)?;
            let (value, after) = value(after.trim_start())?;
            element.take(name.trim(), value)?;
            rest = after.trim_start();
            match rest.strip_prefix(';') {
                Some(next) => rest = next,
                None => break,
            }
        }
        elements.push(element);
        if rest.is_empty() {
            return Ok(elements);
        }
        rest = rest.strip_prefix(',').ok_or(Malformed::Quote)?;
    }
}

/// The value at the start of `text`, and what follows.
fn value(text: &str) -> Result<(String, &str), Malformed> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ';']).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return Ok((value.trim_end().to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices().peekable();
    while let Some((at, now)) = characters.next() {
        match now {
            '"' => return Ok((value, &quoted[at + 1..])),
            '\\' => match characters.next_if(|(_, next)| matches!(next, '"' | '\\')) {
                Some((_, next)) => value.push(next),
                None => value.push('\\'),
            },
            other => value.push(other),
        }
    }
    Err(Malformed::Quote)
}

/// Handles the header of a request. `peer` is the client's certificate, `None` when it showed none; `by` is the URI name of ours.
pub fn apply(headers: &mut HeaderMap, mode: Mode, details: Details, peer: Option<&Peer>, by: Option<&str>) {
    tell(headers, mode, peer.map(|peer| move || written(peer, by, details)));
}

/// Our element as a header; `None`, which cannot be, where it does not fit into one.
fn written(peer: &Peer, by: Option<&str>, details: Details) -> Option<HeaderValue> {
    HeaderValue::try_from(Element::of(peer, by, details).to_string()).ok()
}

/// Our elements for the clients of a worker, each made once: nothing of it changes from request to request.
#[derive(Debug, Default)]
pub(crate) struct Elements(RefCell<FxHashMap<[u8; 32], Option<HeaderValue>>>);

/// Clients whose elements are kept; beyond, all are made anew.
const MAX_ELEMENTS: usize = 1024;

impl Elements {
    /// Handles the header of a request, as [`apply`] with [`Details::ISTIO`] does. `by` is asked for a client that is new.
    pub(crate) fn apply(
        &self,
        headers: &mut HeaderMap,
        mode: Mode,
        peer: Option<&Peer>,
        by: impl FnOnce() -> Option<String>,
    ) {
        let ours = |peer: &Peer| {
            let mut known = self.0.borrow_mut();
            if let Some(element) = known.get(&peer.hash) {
                return element.clone();
            }
            if known.len() >= MAX_ELEMENTS {
                known.clear();
            }
            let element = written(peer, by().as_deref(), Details::ISTIO);
            known.insert(peer.hash, element.clone());
            element
        };
        tell(headers, mode, peer.map(|peer| move || ours(peer)));
    }

    /// Forgets all: we may be somebody else than before.
    pub(crate) fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}

/// `ours` makes our element, where the client showed a certificate.
fn tell(headers: &mut HeaderMap, mode: Mode, ours: Option<impl FnOnce() -> Option<HeaderValue>>) {
    let ours = match (mode, ours) {
        (Mode::AlwaysForwardOnly, _) | (Mode::ForwardOnly, Some(_)) => return,
        (Mode::Sanitize | Mode::ForwardOnly, _) | (_, None) => {
            headers.remove(XFCC);
            return;
        }
        (Mode::AppendForward | Mode::SanitizeSet, Some(ours)) => ours(),
    };
    let Some(ours) = ours else {
        // Nothing is better than what the client wrote.
        headers.remove(XFCC);
        return;
    };
    if mode == Mode::SanitizeSet || !headers.contains_key(XFCC) {
        headers.insert(XFCC, ours);
        return;
    }
    let mut all = Vec::new();
    for line in headers.get_all(XFCC).iter().filter(|line| !line.is_empty()) {
        all.extend_from_slice(line.as_bytes());
        all.push(b',');
    }
    // A quote that the client left open would take what we say into its own value.
    let told = all.strip_suffix(b",").and_then(|told| std::str::from_utf8(told).ok());
    if told.is_none_or(|told| parse(told).is_err()) {
        all.clear();
    }
    all.extend_from_slice(ours.as_bytes());
    match HeaderValue::from_bytes(&all) {
        Ok(value) => {
            headers.insert(XFCC, value);
        }
        // All parts fit into a header, so this cannot be; if it were, nothing is better than what the client wrote.
        Err(_) => {
            headers.remove(XFCC);
        }
    }
}

#[cfg(test)]
mod tests;
