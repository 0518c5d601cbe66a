//! Certificates good and bad.

use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use rustls::sign::CertifiedKey;
use time::{Duration, OffsetDateTime};

use crate::identity::{Identity, Pem, Purpose, SecretBytes, TrustDomains};

pub(in crate::identity) const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
pub(in crate::identity) const REVIEWS: &str = "spiffe://cluster.local/ns/shop/sa/reviews";

/// An authority: a root, or an intermediate with the chain above it.
pub(in crate::identity) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub(in crate::identity) pem: String,
    /// What a leaf is followed by.
    above: String,
}

impl Ca {
    pub(in crate::identity) fn new(name: &str) -> Self {
        Self::with(name, |_| ())
    }

    pub(in crate::identity) fn with(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = authority(name);
        change(&mut params);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem, above: String::new() }
    }

    pub(in crate::identity) fn intermediate(&self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = authority("intermediate");
        change(&mut params);
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        let above = pem.clone() + &self.above;
        Self { issuer: Issuer::new(params, key), pem, above }
    }

    pub(in crate::identity) fn leaf(&self, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        self.leaf_of(&KeyPair::generate().unwrap(), change)
    }

    pub(in crate::identity) fn leaf_of(
        &self,
        key: &KeyPair,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Leaf {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.serial_number = Some(SerialNumber::from(7));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = OffsetDateTime::now_utc() - Duration::hours(1);
        params.not_after = OffsetDateTime::now_utc() + Duration::hours(24);
        change(&mut params);
        let certificate = params.signed_by(key, &self.issuer).unwrap().pem();
        Leaf { chain: certificate + &self.above, key: key.serialize_pem() }
    }

    /// A list in which these serial numbers are revoked.
    pub(in crate::identity) fn crl(&self, serials: &[u64], days: i64) -> String {
        let now = OffsetDateTime::now_utc();
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now - Duration::hours(1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now - Duration::days(10),
            next_update: now + Duration::days(days),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    /// A workload's identity.
    pub(in crate::identity) fn workload(&self, id: &str) -> Identity {
        identity(&self.leaf(uri(id)).with_roots(&self.pem), None)
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

pub(in crate::identity) struct Leaf {
    pub(in crate::identity) chain: String,
    pub(in crate::identity) key: String,
}

impl Leaf {
    pub(in crate::identity) fn with_roots(&self, roots: &str) -> Pem {
        Pem { roots: Some(roots.into()), ..self.alone() }
    }

    pub(in crate::identity) fn alone(&self) -> Pem {
        Pem {
            certificate: Some(self.chain.clone().into_bytes()),
            key: Some(SecretBytes::new(self.key.clone().into_bytes())),
            ..Pem::default()
        }
    }

    /// Chain and key, unchecked.
    pub(in crate::identity) fn certified(&self) -> CertifiedKey {
        let pem = self.alone();
        CertifiedKey::new(pem.chain().unwrap(), pem.key().unwrap())
    }
}

pub(in crate::identity) fn uri(id: &str) -> impl FnOnce(&mut CertificateParams) {
    let id = SanType::URI(id.to_owned().try_into().unwrap());
    |params| params.subject_alt_names.push(id)
}

pub(in crate::identity) fn dns(name: &str) -> SanType {
    SanType::DnsName(name.to_owned().try_into().unwrap())
}

pub(in crate::identity) fn mesh() -> Purpose {
    Purpose::Workload(TrustDomains::new("cluster.local", &["old.local".to_owned()]).unwrap())
}

pub(in crate::identity) fn identity(pem: &Pem, previous: Option<&Identity>) -> Identity {
    Identity::new(pem, &mesh(), previous, SystemTime::now()).unwrap()
}
