//! What a finished handshake says.

use std::sync::Arc;

use filter_api::{Peer, TlsFacts};
use rustls::{CommonState, HandshakeKind, ProtocolVersion};
use rustls_pki_types::{ServerName, UnixTime};

use super::certificate::{Read, peer};
use super::error::Refused;
use super::judge::Judge;
use super::provider::{group_name, suite_name};

/// The facts of a handshake that is done.
///
/// rustls restores the certificates of a resumed session without asking the verifier, so they are judged here again: roots or lists may be
/// others by now, and the certificate may have expired.
pub(super) fn facts(
    common: &CommonState,
    judge: Option<&Judge>,
    asked: Option<&ServerName<'_>>,
) -> Result<TlsFacts, Refused> {
    let resumed = common.handshake_kind() == Some(HandshakeKind::Resumed);
    let peer = match (judge, common.peer_certificates()) {
        (Some(judge), Some(chain)) if !chain.is_empty() => {
            if resumed {
                judge.judge(chain, asked, UnixTime::now())?;
            }
            Some(Arc::new(known(judge, chain)?))
        }
        (Some(judge), _) if !judge.optional => return Err(Refused::NoCertificate),
        _ => None,
    };
    Ok(TlsFacts {
        version: match common.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "",
        },
        cipher: common.negotiated_cipher_suite().map_or("", |suite| suite_name(suite.suite())),
        group: common.negotiated_key_exchange_group().map_or("", |group| group_name(group.name())),
        alpn: common.alpn_protocol().map(|name| String::from_utf8_lossy(name).into()),
        resumed,
        peer,
    })
}

fn known(judge: &Judge, chain: &[rustls_pki_types::CertificateDer<'_>]) -> Result<Peer, Refused> {
    let first = chain.first().ok_or(Refused::NoCertificate)?;
    let leaf = Read::new(first)?;
    let principal = judge.principal(&leaf)?;
    peer(chain, leaf, principal)
}
