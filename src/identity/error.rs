//! What can be wrong with certificates, ours and those of others.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::{AlertDescription, CertificateError, OtherError};
use rustls_pki_types::UnixTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::spiffe::Malformed;

/// Why an identity or settings of TLS cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A server of certificates does not serve.
    #[error("the SDS server at {}: {text}", path.display())]
    Server {
        /// Its socket.
        path: PathBuf,
        /// What is wrong.
        text: String,
    },
    /// A response of such a server cannot be used.
    #[error("a response of the SDS server is refused: {0}")]
    Delivery(String),
    /// Something is not there.
    #[error("the {what} has no PEM section of its kind; write `-----BEGIN {section}-----` ...")]
    Missing {
        /// `certificate`, `private key`, `trust bundle`, `revocation list`.
        what: &'static str,
        /// The section that it must have.
        section: &'static str,
    },
    /// Something is not PEM or not DER.
    #[error("the {what} cannot be read: {text}")]
    Unreadable {
        /// What of an identity.
        what: &'static str,
        /// What is wrong.
        text: String,
    },
    /// A key of a kind that TLS here does not use.
    #[error(
        "the private key cannot be used: {0}; write an ECDSA P-256, P-384 or RSA key as PKCS#8, SEC 1 or PKCS#1, not encrypted"
    )]
    Key(String),
    /// The key belongs to another certificate.
    #[error("the private key does not belong to the certificate `{subject}`; replace both files together")]
    Mismatch {
        /// Subject of the certificate.
        subject: Arc<str>,
    },
    /// The chain is not in order.
    #[error(
        "certificate {index} of the chain (`{subject}`) did not issue the one before it, which names `{issuer}`; write the leaf first, then each issuer"
    )]
    Order {
        /// Which, from 0.
        index: usize,
        /// Its subject.
        subject: Arc<str>,
        /// The issuer it should be.
        issuer: Arc<str>,
    },
    /// A certificate is not valid now.
    #[error("the {part} certificate `{subject}` {validity}")]
    Validity {
        /// `leaf`, `intermediate` or `root`.
        part: &'static str,
        /// Its subject.
        subject: Arc<str>,
        /// Its bounds, and now.
        validity: Validity,
    },
    /// Our own certificate would be refused by others.
    #[error("our certificate `{subject}` would be refused by our peers: {reason}")]
    Own {
        /// Its subject.
        subject: Arc<str>,
        /// Why.
        reason: Refused,
    },
    /// A name is no trust domain.
    #[error("`{name}` is no trust domain: {reason}")]
    TrustDomain {
        /// The name.
        name: String,
        /// Why.
        reason: Malformed,
    },
    /// A cipher suite that is not offered.
    #[error("cipher suite `{0}` is not offered; write one of {known}", known = super::provider::names())]
    Cipher(String),
    /// A hash of the settings is none.
    #[error("`{0}` is no SHA-256; write 64 hexadecimal digits, or 44 characters of base64 for a key")]
    Hash(String),
    /// Settings that contradict each other.
    #[error("{0}")]
    Settings(&'static str),
    /// rustls refuses the settings.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// Why a peer is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// It showed no certificate.
    #[error("it showed no certificate")]
    NoCertificate,
    /// Its certificate cannot be read.
    #[error("its certificate cannot be read: {0}")]
    Unreadable(&'static str),
    /// A certificate of its path is not valid now.
    #[error("a certificate of its path {0}")]
    Validity(Validity),
    /// Its certificate, or that of an issuer, was revoked.
    #[error("its certificate, or one of an issuer, was revoked")]
    Revoked,
    /// No list says whether it was revoked.
    #[error(
        "no valid revocation list covers the issuer of its certificate; the lists must cover every issuer up to the root"
    )]
    RevocationUnknown,
    /// No root of the trust bundle issued it.
    #[error("its certificate was issued by none of the roots in the trust bundle")]
    UnknownIssuer,
    /// The certificate is for another use.
    #[error("its certificate is not for {0} (extended key usage)")]
    Usage(&'static str),
    /// The leaf is a certificate of an authority.
    #[error("its leaf is the certificate of an authority, which may sign others")]
    Authority,
    /// Names are outside of what an issuer may sign.
    #[error("its names are outside of the name constraints of an issuer")]
    NameConstraints,
    /// Something else is wrong with its path.
    #[error("its certificate path is not sound: {0}")]
    Path(String),
    /// It has no URI, so no SPIFFE id.
    #[error("its certificate has no SPIFFE id (no URI name)")]
    NoId,
    /// It has several URIs.
    #[error("its certificate has {0} URI names; a SPIFFE certificate has exactly one")]
    ManyIds(usize),
    /// Its URI is no SPIFFE id of a workload.
    #[error("`{id}` is no SPIFFE id of a workload: {reason}")]
    Id {
        /// The URI, as text that is safe to print.
        id: String,
        /// What is wrong.
        reason: Malformed,
    },
    /// A DNS name holds the text of a URI.
    #[error("a DNS name of its certificate is none: `{0}`")]
    DnsName(String),
    /// It is of another mesh.
    #[error(
        "its trust domain `{found}` is not of ours ({ours}); an alias in `trustDomainAliases` would let it in"
    )]
    TrustDomain {
        /// Its trust domain.
        found: String,
        /// Ours.
        ours: String,
    },
    /// It proves another name than was expected.
    #[error("its certificate proves {found}, where {expected} is expected")]
    Name {
        /// What it proves.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// Its certificate or key is not among those that are allowed.
    #[error("the hash of its certificate or key is not among those that are allowed")]
    Hash,
}

/// The bounds of a certificate, and the clock that was outside of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Start.
    pub not_before: Option<SystemTime>,
    /// End.
    pub not_after: Option<SystemTime>,
    /// Our clock.
    pub now: SystemTime,
}

impl std::fmt::Display for Validity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let early = self.not_before.is_some_and(|start| self.now < start);
        f.write_str(if early { "is not valid yet" } else { "has expired" })?;
        write!(f, ": our clock says {}", written(self.now))?;
        if let Some(start) = self.not_before {
            write!(f, ", its issuer's said {} or later when it signed", written(start))?;
        }
        match (self.not_before, self.not_after) {
            (Some(start), Some(end)) => {
                write!(f, "; it is valid from {} to {}", written(start), written(end))
            }
            (None, Some(end)) => write!(f, "; it is valid to {}", written(end)),
            (_, None) => Ok(()),
        }
    }
}

/// A time as RFC 3339 writes it, in UTC with seconds.
pub(super) fn written(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time).replace_nanosecond(0);
    time.ok().and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| "a time after 9999".to_owned())
}

/// A time in the form of rustls: seconds since 1970.
pub(super) fn unix(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// The same, back.
pub(super) fn system(time: UnixTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(time.as_secs())
}

/// Tells the peer as much as an alert can say, and keeps the reason for us.
impl From<Refused> for rustls::Error {
    fn from(refused: Refused) -> Self {
        let error = match refused {
            Refused::NoCertificate => return Self::NoCertificatesPresented,
            Refused::Revoked => CertificateError::Revoked,
            Refused::UnknownIssuer => CertificateError::UnknownIssuer,
            Refused::RevocationUnknown => CertificateError::UnknownRevocationStatus,
            Refused::Validity(Validity { not_before: Some(start), now, .. }) if now < start => {
                CertificateError::NotValidYetContext { time: unix(now), not_before: unix(start) }
            }
            Refused::Validity(Validity { not_after: Some(end), now, .. }) => {
                CertificateError::ExpiredContext { time: unix(now), not_after: unix(end) }
            }
            // The alert of all others is one and the same: certificate_unknown.
            other => CertificateError::Other(OtherError(Arc::new(other))),
        };
        Self::InvalidCertificate(error)
    }
}

/// Why a handshake failed, in words: the reason of [`Refused`] where the peer's certificate was refused, what the peer's alert means
/// where it refused ours.
#[must_use]
pub fn explain(error: &io::Error) -> String {
    let Some(tls) = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) else {
        return error.to_string();
    };
    match tls {
        rustls::Error::NoCertificatesPresented => format!("the peer was refused: {}", Refused::NoCertificate),
        rustls::Error::InvalidCertificate(reason) => {
            let known = match reason {
                CertificateError::Other(other) => other.0.downcast_ref::<Refused>().cloned(),
                CertificateError::NotValidYetContext { time, not_before } => {
                    Some(Refused::Validity(Validity {
                        not_before: Some(system(*not_before)),
                        not_after: None,
                        now: system(*time),
                    }))
                }
                CertificateError::ExpiredContext { time, not_after } => Some(Refused::Validity(Validity {
                    not_before: None,
                    not_after: Some(system(*not_after)),
                    now: system(*time),
                })),
                CertificateError::Revoked => Some(Refused::Revoked),
                CertificateError::UnknownIssuer => Some(Refused::UnknownIssuer),
                CertificateError::UnknownRevocationStatus => Some(Refused::RevocationUnknown),
                _ => None,
            };
            known.map_or_else(|| tls.to_string(), |refused| format!("the peer was refused: {refused}"))
        }
        rustls::Error::AlertReceived(alert) => {
            let about = match alert {
                AlertDescription::CertificateRequired => "it wants a certificate of ours",
                AlertDescription::UnknownCA => "none of its roots issued our certificate",
                AlertDescription::CertificateExpired => "our certificate has expired by its clock",
                AlertDescription::CertificateRevoked => "our certificate was revoked",
                AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::AccessDenied => "it does not accept our certificate",
                AlertDescription::HandshakeFailure | AlertDescription::ProtocolVersion => {
                    "no version, cipher suite or key exchange in common"
                }
                AlertDescription::NoApplicationProtocol => "no application protocol in common",
                _ => return format!("the peer ended the handshake: {alert:?}"),
            };
            format!("the peer ended the handshake: {about} ({alert:?})")
        }
        other => other.to_string(),
    }
}
