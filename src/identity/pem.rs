//! What a source delivers: PEM text, and the sections of it.

use std::fmt;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::SigningKey;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use std::sync::Arc;
use zeroize::{Zeroize, Zeroizing};

use super::error::Error;

/// The most certificates of one chain.
const MAX_CHAIN: usize = 16;
/// The most roots of one bundle; the bundles of operating systems hold about 150.
const MAX_ROOTS: usize = 4096;

/// Bytes that are overwritten when they are dropped, and never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretBytes(pub(super) Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Takes the bytes over; copies that were made before are not its concern.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for a file of mode 0600 or the crypto library.
    #[must_use]
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// PEM text of one identity, from whatever source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pem {
    /// The leaf and its issuers.
    pub certificate: Option<Vec<u8>>,
    /// Its key.
    pub key: Option<SecretBytes>,
    /// The roots.
    pub roots: Option<Vec<u8>>,
    /// What was revoked.
    pub crl: Option<Vec<u8>>,
}

impl Pem {
    pub(super) fn chain(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        let text = self.certificate.as_deref().unwrap_or_default();
        sections(text, "certificate", "CERTIFICATE", MAX_CHAIN)
    }

    pub(super) fn roots(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        let text = self.roots.as_deref().unwrap_or_default();
        sections(text, "trust bundle", "CERTIFICATE", MAX_ROOTS)
    }

    pub(super) fn crls(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, Error> {
        self.crl
            .as_deref()
            .map_or(Ok(Vec::new()), |text| sections(text, "revocation list", "X509 CRL", MAX_ROOTS))
    }

    /// The key, ready to sign; its DER does not outlive this call.
    pub(super) fn key(&self) -> Result<Arc<dyn SigningKey>, Error> {
        let text = self.key.as_ref().map_or(&[][..], |key| &key.0);
        let mut der = match PrivateKeyDer::from_pem_slice(text) {
            Ok(der) => der,
            Err(pem::Error::NoItemsFound) => {
                return Err(Error::Missing { what: "private key", section: "PRIVATE KEY" });
            }
            // The text of the error names the fault, never the bytes.
            Err(error) => {
                return Err(Error::Unreadable { what: "private key", text: kind(&error).to_owned() });
            }
        };
        let key = any_supported_type(&der).map_err(|_| Error::Key("it is no key of a known kind".to_owned()));
        der.zeroize();
        key
    }
}

fn kind(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no end",
        pem::Error::IllegalSectionStart { .. } => "a section has no start",
        pem::Error::Base64Decode(_) => "a section is not base64",
        _ => "it is not PEM",
    }
}

fn sections<T: PemObject>(
    text: &[u8],
    what: &'static str,
    section: &'static str,
    most: usize,
) -> Result<Vec<T>, Error> {
    let found = T::pem_slice_iter(text).take(most + 1).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| Error::Unreadable { what, text: kind(&error).to_owned() })?;
    match found.len() {
        0 => Err(Error::Missing { what, section }),
        count if count > most => {
            Err(Error::Unreadable { what, text: format!("it has more than {most} sections") })
        }
        _ => Ok(found),
    }
}
