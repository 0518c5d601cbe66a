//! What application protocols sidecars offer each other.
//!
//! Istio's client side offers `istio-http/1.1` or `istio-h2` first, so that a server's chains can tell mesh traffic, then `istio`, then the
//! plain name; TCP offers `istio-peer-exchange` and `istio`. A server never chooses an `istio-*` name: each means another byte stream, or
//! the same as the plain one.

/// A mesh server that speaks HTTP. `istio` is taken only when nothing plainer was offered: rustls, unlike BoringSSL, ends a handshake without
/// a protocol in common, and Istio's TCP clients offer nothing else.
pub const SERVER_HTTP: &[&[u8]] = &[b"h2", b"http/1.1", b"http/1.0", b"istio"];

/// A mesh server that carries bytes, or looks at them first.
pub const SERVER_TCP: &[&[u8]] = &[b"istio", b"h2", b"http/1.1", b"http/1.0"];

/// A mesh client that will speak HTTP/2.
pub const CLIENT_HTTP2: &[&[u8]] = &[b"istio-h2", b"istio", b"h2"];

/// A mesh client that will speak HTTP/1.1.
pub const CLIENT_HTTP1: &[&[u8]] = &[b"istio-http/1.1", b"istio", b"http/1.1"];

/// A mesh client that carries bytes. Without `istio-peer-exchange`, after which Envoy would wait for a preface with metadata.
pub const CLIENT_TCP: &[&[u8]] = &[b"istio"];
