//! Making certificates, for `sidegate certs`, the demo and tests. No certificate authority for production: nothing is recorded or revoked.

use std::fmt;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::{Duration, OffsetDateTime};

use super::certificate::Read;
use super::pem::{Pem, SecretBytes};
use super::spiffe::{self, Malformed};

/// Certificates are valid from a little before they are made, for clocks that are behind.
const SKEW: Duration = Duration::minutes(5);

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The identity is none.
    #[error("`{id}` is no SPIFFE id: {reason}")]
    Id {
        /// The id.
        id: String,
        /// Why.
        reason: Malformed,
    },
    /// A DNS name is none.
    #[error("`{0}` is no DNS name")]
    Dns(String),
    /// The root cannot be used.
    #[error("the root cannot be used: {0}")]
    Root(String),
    /// The certificate could not be made.
    #[error("making a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// A root with its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    expires: OffsetDateTime,
}

impl Authority {
    /// A new root for `trust_domain`, valid for `days`.
    ///
    /// # Errors
    /// A name that is no trust domain, or a fault of the crypto library.
    pub fn new(trust_domain: &str, days: u32) -> Result<Self, Error> {
        // The trust domain stands in every id that the root will sign.
        let id = format!("spiffe://{trust_domain}/ns/a/sa/a");
        spiffe::parse(&id).map_err(|reason| Error::Id { id: format!("spiffe://{trust_domain}"), reason })?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, trust_domain);
        params.distinguished_name.push(DnType::CommonName, "Sidegate root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let now = OffsetDateTime::now_utc();
        (params.not_before, params.not_after) = (now - SKEW, now + Duration::days(days.into()));
        let expires = params.not_after;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate, expires })
    }

    /// A root that was made before.
    ///
    /// # Errors
    /// Text that is no certificate of an authority, no key, or a key of another.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, Error> {
        let key = KeyPair::from_pem(key)?;
        let der = CertificateDer::from_pem_slice(certificate.as_bytes());
        let der = der.map_err(|error| Error::Root(error.to_string()))?;
        let read = Read::new(&der).map_err(|error| Error::Root(error.to_string()))?;
        if !read.authority {
            return Err(Error::Root("it is not the certificate of an authority".to_owned()));
        }
        if read.spki.as_ref() != rcgen::PublicKeyData::subject_public_key_info(&key) {
            return Err(Error::Root("its key is that of another certificate".to_owned()));
        }
        let issuer = Issuer::from_ca_cert_der(&der, key)?;
        Ok(Self { issuer, certificate: certificate.to_owned(), expires: read.not_after.into() })
    }

    /// The root as PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Its key as PEM (PKCS#8).
    #[must_use]
    pub fn key(&self) -> SecretBytes {
        SecretBytes::new(self.issuer.key().serialize_pem().into_bytes())
    }

    /// When it expires.
    #[must_use]
    pub fn expires(&self) -> OffsetDateTime {
        self.expires
    }

    /// A certificate for a workload, for clients and servers, with a new P-256 key; it ends with the root at the latest.
    ///
    /// # Errors
    /// A name that cannot stand in a certificate, or a root that has expired.
    pub fn issue(&self, workload: &Workload<'_>) -> Result<Issued, Error> {
        let Workload { trust_domain, namespace, service_account, dns, days } = *workload;
        let id = format!("spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}");
        spiffe::parse(&id).map_err(|reason| Error::Id { id: id.clone(), reason })?;
        let now = OffsetDateTime::now_utc();
        if self.expires <= now {
            return Err(Error::Root(format!("it expired at {}", super::error::written(self.expires.into()))));
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names.push(SanType::URI(id.clone().try_into()?));
        for name in dns {
            if rustls_pki_types::DnsName::try_from(name.strip_prefix("*.").unwrap_or(name)).is_err() {
                return Err(Error::Dns(name.clone()));
            }
            params.subject_alt_names.push(SanType::DnsName(name.clone().try_into()?));
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = now - SKEW;
        params.not_after = self.expires.min(now + Duration::days(days.into()));
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued {
            id,
            expires: params.not_after,
            certificate,
            key: SecretBytes::new(key.serialize_pem().into_bytes()),
            root: self.certificate.clone(),
        })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// Whom a certificate is for.
#[derive(Clone, Copy, Debug)]
pub struct Workload<'a> {
    /// The trust domain.
    pub trust_domain: &'a str,
    /// The namespace.
    pub namespace: &'a str,
    /// The service account.
    pub service_account: &'a str,
    /// DNS names beside the SPIFFE id, for clients outside of the mesh.
    pub dns: &'a [String],
    /// How long it is valid.
    pub days: u32,
}

/// A certificate with its key, as PEM.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The SPIFFE id.
    pub id: String,
    /// When it expires.
    pub expires: OffsetDateTime,
    /// The certificate.
    pub certificate: String,
    /// Its key (PKCS#8).
    pub key: SecretBytes,
    /// The root that issued it.
    pub root: String,
}

impl Issued {
    /// What a source of it would deliver.
    #[must_use]
    pub fn pem(&self) -> Pem {
        Pem {
            certificate: Some(self.certificate.clone().into_bytes()),
            key: Some(self.key.clone()),
            roots: Some(self.root.clone().into_bytes()),
            crl: None,
        }
    }
}
