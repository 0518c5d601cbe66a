//! What a certificate says of itself. It is believed only after its path was verified.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use filter_api::{Peer, Principal};
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;

use super::error::{Refused, Validity};

/// What is read of a certificate.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) subject: Arc<str>,
    pub(super) issuer: Arc<str>,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
    pub(super) uris: Vec<Box<str>>,
    pub(super) dns: Vec<Box<str>>,
    /// It may sign certificates or revocation lists, by its basic constraints or its key usage.
    pub(super) authority: bool,
    /// DER of subject and issuer.
    pub(super) subject_der: Box<[u8]>,
    pub(super) issuer_der: Box<[u8]>,
    /// DER of the public key with its algorithm.
    pub(super) spki: Box<[u8]>,
}

impl Read {
    /// Reads `der`, all of it.
    pub(super) fn new(der: &[u8]) -> Result<Self, Refused> {
        let (rest, read) =
            X509Certificate::from_der(der).map_err(|_| Refused::Unreadable("it is no X.509 certificate"))?;
        if !rest.is_empty() {
            return Err(Refused::Unreadable("bytes follow it"));
        }
        let (mut uris, mut dns) = (Vec::new(), Vec::new());
        let names = read
            .subject_alternative_name()
            .map_err(|_| Refused::Unreadable("it names its subject twice, or in no known form"))?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::URI(uri) => uris.push((*uri).into()),
                GeneralName::DNSName(name) => dns.push((*name).into()),
                GeneralName::Invalid(..) => return Err(Refused::Unreadable("a name of it is no text")),
                _ => {}
            }
        }
        let doubled = |_| Refused::Unreadable("an extension is there twice, or in no known form");
        let constraints = read.basic_constraints().map_err(doubled)?;
        let usage = read.key_usage().map_err(doubled)?;
        let authority = constraints.is_some_and(|found| found.value.ca)
            || usage.is_some_and(|found| found.value.key_cert_sign() || found.value.crl_sign());
        Ok(Self {
            subject: rfc2253(read.subject()).into(),
            issuer: rfc2253(read.issuer()).into(),
            not_before: system(read.validity().not_before),
            not_after: system(read.validity().not_after),
            uris,
            dns,
            authority,
            subject_der: read.subject().as_raw().into(),
            issuer_der: read.issuer().as_raw().into(),
            spki: read.public_key().raw.into(),
        })
    }

    /// Whether `now` is within its bounds; its last second is within them.
    pub(super) fn check_time(&self, now: SystemTime) -> Result<(), Validity> {
        let validity = Validity { not_before: Some(self.not_before), not_after: Some(self.not_after), now };
        let within = self.not_before <= now && now < self.not_after + Duration::from_secs(1);
        if within { Ok(()) } else { Err(validity) }
    }
}

/// The facts of a chain that was verified.
pub(super) fn peer(
    chain: &[CertificateDer<'_>],
    leaf: Read,
    principal: Option<Principal>,
) -> Result<Peer, Refused> {
    let first = chain.first().ok_or(Refused::NoCertificate)?;
    Ok(Peer {
        principal,
        not_before: leaf.not_before,
        not_after: leaf.not_after,
        subject: leaf.subject,
        uris: leaf.uris.into(),
        dns: leaf.dns.into(),
        chain: chain.iter().map(|der| der.as_ref().into()).collect(),
        hash: sha256(first),
    })
}

/// SHA-256 of `bytes`.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

fn system(time: ASN1Time) -> SystemTime {
    let seconds = time.timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let found = if seconds < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    found.unwrap_or(UNIX_EPOCH)
}

/// A name as RFC 2253 writes it (Envoy's form): last part first, `,` between them. Quotes, backslashes, control characters and what is not
/// ASCII are written as `\` and two digits, so that the text fits into a header and a log as it is.
fn rfc2253(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    let parts: Vec<_> = name.iter_rdn().collect();
    for (place, part) in parts.iter().rev().enumerate() {
        for (and, attribute) in part.iter().enumerate() {
            let between = match (place, and) {
                (0, 0) => "",
                (_, 0) => ",",
                _ => "+",
            };
            text.push_str(between);
            let oid = attribute.attr_type().to_id_string();
            text.push_str(short_name(&oid).unwrap_or(&oid));
            text.push('=');
            escape(attribute.as_slice(), &mut text);
        }
    }
    text
}

fn escape(value: &[u8], text: &mut String) {
    for (at, &byte) in value.iter().enumerate() {
        let edge = at == 0 || at + 1 == value.len();
        match byte {
            b' ' if edge => text.push_str("\\20"),
            b'#' if at == 0 => text.push_str("\\23"),
            b',' | b'+' | b'<' | b'>' | b';' => {
                text.push('\\');
                text.push(char::from(byte));
            }
            b'"' | b'\\' | 0..b' ' | 0x7f.. => {
                // Writing to a String cannot fail.
                let _ = write!(text, "\\{byte:02X}");
            }
            plain => text.push(char::from(plain)),
        }
    }
}

fn short_name(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "2.5.4.3" => "CN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "street",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return None,
    })
}
