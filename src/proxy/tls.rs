//! TLS at both ends of the data path. What a handshake needs comes from the keyring; it ends with what it began with.

use super::connection::Refusal;
use super::stream::{Begun, Socket, Stream};
use crate::identity::Keyring;
use crate::mesh::DownstreamTls;
use bytes::Bytes;
use filter_api::{Reason, TlsFacts};
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::TlsAcceptor;

/// Ends the TLS that a client began. `first` has been read of it already. Zero for `limit`: it may take for ever.
///
/// # Errors
/// Why the client is not let in; nothing that it sent within TLS has been looked at.
pub(super) async fn accept(
    keyring: &Keyring,
    settings: &DownstreamTls,
    socket: Socket,
    first: Bytes,
    limit: Duration,
) -> Result<(Stream, TlsFacts, Option<Arc<str>>), Refusal> {
    let refused = |why: String| (Reason::DownstreamTls, why);
    let server =
        keyring.server(settings).map_err(|error| refused(format!("no TLS can be spoken: {error}")))?;
    let handshake = TlsAcceptor::from(server.config().clone()).accept(Begun { first, socket });
    let done = if limit.is_zero() {
        handshake.await
    } else {
        match tokio::time::timeout(limit, handshake).await {
            Ok(done) => done,
            Err(_) => return Err(refused(format!("no TLS handshake within {limit:?}"))),
        }
    };
    let tls =
        done.map_err(|error| refused(format!("TLS handshake: {}", crate::identity::explain(&error))))?;
    let facts = server.facts(tls.get_ref().1).map_err(|why| refused(format!("TLS handshake: {why}")))?;
    let server_name = tls.get_ref().1.server_name().map(|name| Arc::from(name.to_ascii_lowercase()));
    Ok((Stream::Ended(Box::new(tls)), facts, server_name))
}
