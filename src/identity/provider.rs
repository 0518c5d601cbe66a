//! What we offer in a handshake: versions, cipher suites, key exchange. One provider: aws-lc-rs.

use std::sync::{Arc, LazyLock};

use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, WebPkiSupportedAlgorithms};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, NamedGroup, SupportedCipherSuite, SupportedProtocolVersion};

use super::error::Error;

/// The signatures that are verified.
pub(super) static ALGORITHMS: LazyLock<WebPkiSupportedAlgorithms> =
    LazyLock::new(|| default_provider().signature_verification_algorithms);

/// A version of TLS. Older ones are not offered: where they are allowed, 1.2 is the oldest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2, with ephemeral key exchange and authenticated encryption only.
    V12,
    /// TLS 1.3.
    V13,
}

/// What is made of X25519MLKEM768, the hybrid key exchange that a quantum computer does not break.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Hybrid {
    /// Offered first. A server takes the first group of the client that it has, too.
    #[default]
    Prefer,
    /// The only one: a peer without it is refused, and so is TLS 1.2.
    Require,
    /// Not offered.
    Off,
}

/// What is offered in handshakes; the default is TLS 1.2 and 1.3 with everything that is sound.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tls {
    /// The oldest version; absent is 1.2.
    pub min: Option<TlsVersion>,
    /// The newest version; absent is 1.3.
    pub max: Option<TlsVersion>,
    /// Cipher suites of TLS 1.2 by OpenSSL's names, as Istio writes them, best first; empty is all. Those of TLS 1.3 are always offered, as in
    /// Envoy.
    pub ciphers: Vec<String>,
    /// The hybrid key exchange.
    pub hybrid: Hybrid,
}

impl Tls {
    /// The versions.
    pub(super) fn versions(&self) -> Result<Vec<&'static SupportedProtocolVersion>, Error> {
        let min = self.min.unwrap_or(TlsVersion::V12);
        let max = self.max.unwrap_or(TlsVersion::V13);
        if min > max {
            return Err(Error::Settings("the oldest version of TLS is newer than the newest; swap them"));
        }
        let hybrid = self.hybrid == Hybrid::Require;
        if hybrid && max < TlsVersion::V13 {
            return Err(Error::Settings(
                "the hybrid key exchange is required, and TLS 1.2 has none; allow TLS 1.3",
            ));
        }
        let (old, new) = (min <= TlsVersion::V12 && !hybrid, max >= TlsVersion::V13);
        Ok([(new, &TLS13), (old, &TLS12)]
            .into_iter()
            .filter_map(|(on, version)| on.then_some(version))
            .collect())
    }

    /// The provider with these suites and groups.
    pub(super) fn provider(&self) -> Result<Arc<CryptoProvider>, Error> {
        let mut provider = default_provider();
        if !self.ciphers.is_empty() {
            let mut suites = TLS13_SUITES.to_vec();
            for name in &self.ciphers {
                let found = TLS12_SUITES.iter().find(|(known, _)| known == name);
                suites.push(found.ok_or_else(|| Error::Cipher(name.clone()))?.1);
            }
            provider.cipher_suites = suites;
        }
        provider.kx_groups = groups(self.hybrid).to_vec();
        Ok(Arc::new(provider))
    }
}

fn groups(hybrid: Hybrid) -> &'static [&'static dyn SupportedKxGroup] {
    static ALL: [&dyn SupportedKxGroup; 4] =
        [kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
    match hybrid {
        Hybrid::Prefer => &ALL,
        Hybrid::Require => &ALL[..1],
        Hybrid::Off => &ALL[1..],
    }
}

static TLS13_SUITES: [SupportedCipherSuite; 3] = [
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
];

static TLS12_SUITES: [(&str, SupportedCipherSuite); 6] = [
    ("ECDHE-ECDSA-AES256-GCM-SHA384", cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-RSA-AES256-GCM-SHA384", cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-ECDSA-AES128-GCM-SHA256", cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-RSA-AES128-GCM-SHA256", cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-RSA-CHACHA20-POLY1305", cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];

/// The names that [`Tls::ciphers`] knows.
pub(super) fn names() -> String {
    TLS12_SUITES.map(|(name, _)| name).join(", ")
}

/// A cipher suite by its IANA name; rustls has names of its own for those of TLS 1.3.
pub(super) fn suite_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => other.as_str().unwrap_or("unknown"),
    }
}

/// A group by its IANA name.
pub(super) fn group_name(group: NamedGroup) -> &'static str {
    match group {
        NamedGroup::X25519 => "x25519",
        NamedGroup::secp256r1 => "secp256r1",
        NamedGroup::secp384r1 => "secp384r1",
        NamedGroup::X25519MLKEM768 => "X25519MLKEM768",
        other => other.as_str().unwrap_or("unknown"),
    }
}
