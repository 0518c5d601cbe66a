//! Upgrades across versions of HTTP: the extended CONNECT of HTTP/2 (RFC 8441) is, between our codecs, what HTTP/1.1 calls an upgrade.
//!
//! So policy and routes see a WebSocket as `GET` with `Upgrade: websocket` and answered by 101, whatever carries it, as in Envoy. WebSocket's key and its
//! proof belong to HTTP/1.1 alone: where the other side is HTTP/2, they are made and checked here.

use data_encoding::BASE64;
use filter_api::{Error, Reason};
use http::header::{
    CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, request, response};
use sha1::{Digest, Sha1};

/// Marks a request that came as extended CONNECT.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extended;

/// What an exchange with an HTTP/2 server opens, besides itself.
#[derive(Debug)]
pub(super) enum Opening {
    /// A tunnel by CONNECT.
    Connect,
    /// A tunnel by extended CONNECT.
    Extended {
        /// Its `:protocol`.
        protocol: HeaderValue,
        /// What an HTTP/1.1 client that sent a WebSocket key expects to read.
        accept: Option<HeaderValue>,
    },
}

/// What an HTTP/1.1 server has to answer to the upgrade that an HTTP/2 client asked for.
#[derive(Debug)]
pub(super) struct Handshake {
    accept: Option<HeaderValue>,
}

const UPGRADE_OPTION: HeaderValue = HeaderValue::from_static("upgrade");

/// RFC 6455 section 1.3.
const WEBSOCKET_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Makes the extended CONNECT of a client the upgrade that it stands for. True if it was one.
pub(super) fn to_upgrade(head: &mut request::Parts) -> bool {
    if head.method != Method::CONNECT {
        return false;
    }
    let Some(protocol) = head.extensions.remove::<hyper::ext::Protocol>() else { return false };
    head.method = Method::GET;
    head.extensions.insert(Extended);
    // A protocol that is no header value stays away, and with it what allows the request to pass.
    if let Ok(protocol) = HeaderValue::try_from(protocol.as_str()) {
        head.headers.insert(UPGRADE, protocol);
        head.headers.insert(CONNECTION, UPGRADE_OPTION);
    }
    true
}

/// Makes a 101 the 200 that an extended CONNECT waits for.
pub(super) fn to_connected<B>(response: &mut http::Response<B>) {
    *response.status_mut() = StatusCode::OK;
    for name in [UPGRADE, CONNECTION, SEC_WEBSOCKET_ACCEPT] {
        response.headers_mut().remove(name);
    }
}

/// A successful answer to CONNECT has no body, whatever its head says (RFC 9110 section 9.3.6).
pub(super) fn remove_framing(headers: &mut HeaderMap) {
    headers.remove(CONTENT_LENGTH);
    headers.remove(TRANSFER_ENCODING);
}

/// Refuses an extended CONNECT that lost its upgrade: without it, the request would be an ordinary GET, and the 200 to that no tunnel.
pub(super) fn check(head: &request::Parts) -> Result<(), Error> {
    if head.extensions.get::<Extended>().is_some() && !head.headers.contains_key(UPGRADE) {
        return Err(Error::new(Reason::UpgradeRefused).detail("this port carries no such extended CONNECT"));
    }
    Ok(())
}

/// Whether a request offers HTTP/2 over cleartext. An upstream that took it would answer requests which nobody here has looked at.
pub(super) fn offers_http2(headers: &HeaderMap) -> bool {
    headers.get_all(UPGRADE).iter().any(|value| {
        value.as_bytes().split(|&byte| byte == b',').any(|one| {
            let name = one.split(|&byte| byte == b'/').next().unwrap_or_default().trim_ascii();
            name.eq_ignore_ascii_case(b"h2c") || name.eq_ignore_ascii_case(b"h2")
        })
    })
}

impl Opening {
    /// Makes the head of an upgrade that of an extended CONNECT; `None` for a request that opens nothing.
    ///
    /// # Errors
    ///
    /// [`Reason::UpgradeRefused`] for what an extended CONNECT cannot say: other methods than GET, a choice of protocols, a body.
    pub(super) fn begin(head: &mut request::Parts, no_body: bool) -> Result<Option<Self>, Error> {
        let refuse = |what: &str| {
            let detail = format!("{what} cannot be carried over HTTP/2 (RFC 8441)");
            Err(Error::new(Reason::UpgradeRefused).detail(detail))
        };
        let connect = head.method == Method::CONNECT;
        // A pass over the names costs less than a look-up that most often finds nothing.
        let upgrades = !connect && head.headers.keys().any(|name| *name == UPGRADE);
        let upgrade = if upgrades { head.headers.remove(UPGRADE) } else { None };
        if !connect && upgrade.is_none() {
            return Ok(None);
        }
        if !no_body {
            return refuse("a tunnel whose request has a body");
        }
        let Some(upgrade) = upgrade else { return Ok(Some(Self::Connect)) };
        if head.method != Method::GET {
            return refuse(&format!("an upgrade by {}", head.method));
        }
        let protocol = upgrade.to_str().unwrap_or_default().trim().to_ascii_lowercase();
        if protocol.is_empty() || protocol.contains(',') {
            return refuse("an upgrade that offers several protocols");
        }
        let key = head.headers.remove(SEC_WEBSOCKET_KEY);
        head.headers.remove(CONNECTION);
        head.headers.remove(CONTENT_LENGTH);
        head.method = Method::CONNECT;
        head.extensions.insert(h2::ext::Protocol::from(&*protocol));
        let accept = key.filter(|_| head.extensions.get::<Extended>().is_none());
        let accept = accept.as_ref().and_then(|key| accept_of(key.as_bytes()));
        Ok(Some(Self::Extended { protocol: upgrade, accept }))
    }

    /// True when the peer has to allow it.
    pub(super) fn is_extended(&self) -> bool {
        matches!(self, Self::Extended { .. })
    }

    /// Makes the head of a successful answer the one that HTTP/1.1 has for it.
    pub(super) fn opened(self, head: &mut response::Parts) {
        remove_framing(&mut head.headers);
        let Self::Extended { protocol, accept } = self else { return };
        head.status = StatusCode::SWITCHING_PROTOCOLS;
        head.headers.insert(UPGRADE, protocol);
        head.headers.insert(CONNECTION, UPGRADE_OPTION);
        match accept {
            Some(accept) => head.headers.insert(SEC_WEBSOCKET_ACCEPT, accept),
            None => head.headers.remove(SEC_WEBSOCKET_ACCEPT),
        };
    }
}

impl Handshake {
    /// Prepares the head of a request for an HTTP/1.1 server; `None` when it came as HTTP/1.1 or opens nothing.
    pub(super) fn begin(head: &mut request::Parts) -> Option<Self> {
        head.extensions.get::<Extended>()?;
        let upgrade = head.headers.get(UPGRADE)?;
        let websocket = upgrade.as_bytes().eq_ignore_ascii_case(b"websocket");
        if !websocket || head.headers.contains_key(SEC_WEBSOCKET_KEY) {
            return Some(Self { accept: None });
        }
        // A server must not answer without one. It proves that the server speaks WebSocket and protects nothing.
        let key = BASE64.encode(&fastrand::u128(..).to_be_bytes());
        let accept = accept_of(key.as_bytes());
        head.headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::try_from(key).ok()?);
        Some(Self { accept })
    }

    /// Checks the answer, which becomes the client's answer to its CONNECT: any success opens the tunnel there.
    pub(super) fn check(&self, head: &response::Parts) -> Result<(), Error> {
        let wrong = |what: String| Err(Error::new(Reason::UpstreamProtocol).sent(true).detail(what));
        if head.status.is_success() {
            return wrong(format!("it answered {} and did not switch protocols", head.status.as_u16()));
        }
        let switched = head.status == StatusCode::SWITCHING_PROTOCOLS;
        if switched && self.accept.is_some() && head.headers.get(SEC_WEBSOCKET_ACCEPT) != self.accept.as_ref()
        {
            return wrong("its sec-websocket-accept does not fit the key".to_owned());
        }
        Ok(())
    }
}

/// The `Sec-WebSocket-Accept` of a key (RFC 6455 section 4.2.2).
fn accept_of(key: &[u8]) -> Option<HeaderValue> {
    let mut hash = Sha1::new();
    hash.update(key.trim_ascii());
    hash.update(WEBSOCKET_GUID);
    HeaderValue::try_from(BASE64.encode(&hash.finalize())).ok()
}

#[cfg(test)]
mod tests;
