//! An identity: what we prove, and whom we believe. Immutable; a renewal is a new one.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use filter_api::Principal;
use rustls::InconsistentKeys;
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;

use super::certificate::Read;
use super::error::{Error, Refused, unix};
use super::judge::workload;
use super::pem::Pem;
use super::spiffe::TrustDomains;
use super::trust::{Trust, Usage};

/// What an identity is for, and so what it has to hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// A workload of the mesh: one SPIFFE id of these trust domains, verified by its own bundle, for clients and servers.
    Workload(TrustDomains),
    /// The certificate of a gateway's server or of a client outside of the mesh; roots where it verifies others.
    Credential,
    /// Roots alone.
    Roots,
}

/// What we prove, and whom we believe, from one delivery of a source.
#[derive(Debug)]
pub struct Identity {
    certificate: Option<Certificate>,
    trust: Arc<Trust>,
    generation: u64,
}

/// A chain with its key.
pub struct Certificate {
    pub(super) key: Arc<CertifiedKey>,
    principal: Option<Principal>,
    subject: Arc<str>,
    not_before: SystemTime,
    leaf_end: SystemTime,
    issuers_end: Option<SystemTime>,
}

impl Identity {
    /// Checks what a source delivered: the key is that of the leaf, the chain is in order and valid now; for a workload, its peers would
    /// believe it. `previous` is the one in force, whose generations go on.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn new(
        pem: &Pem,
        purpose: &Purpose,
        previous: Option<&Self>,
        now: SystemTime,
    ) -> Result<Self, Error> {
        let (domains, needed) = match purpose {
            Purpose::Workload(domains) => (Some(domains.clone()), true),
            Purpose::Credential => (None, false),
            Purpose::Roots => (None, true),
        };
        // One that nobody asks for would be taken for one that works.
        if pem.crl.is_some() && pem.roots.is_none() {
            return Err(Error::Settings(
                "there is a revocation list, and no trust bundle that it belongs to",
            ));
        }
        let roots = if needed || pem.roots.is_some() { pem.roots()? } else { Vec::new() };
        let trust = Trust::new(&roots, &pem.crls()?, domains, *purpose == Purpose::Roots)?;
        let trust = trust.after(previous.map(|previous| &previous.trust));
        let certificate = match purpose {
            Purpose::Roots => None,
            Purpose::Workload(_) | Purpose::Credential => Some(Certificate::new(pem, purpose, &trust, now)?),
        };
        Ok(Self { certificate, trust, generation: previous.map_or(1, |previous| previous.generation + 1) })
    }

    /// Our chain and key; `None` where there are roots alone.
    #[must_use]
    pub fn certificate(&self) -> Option<&Certificate> {
        self.certificate.as_ref()
    }

    /// Whom we believe.
    #[must_use]
    pub fn trust(&self) -> &Arc<Trust> {
        &self.trust
    }

    /// Grows with every renewal. A connection to an upstream belongs to the generation that opened it.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether it says the same as another of whom we believe and who we are: a renewal.
    #[must_use]
    pub fn stands_for_the_same(&self, other: &Self) -> bool {
        // Outside of the mesh, the subject is what others know us by.
        let who = |one: &Self| {
            one.certificate.as_ref().map(|own| own.principal.clone().ok_or_else(|| own.subject.clone()))
        };
        Arc::ptr_eq(&self.trust, &other.trust) && who(self) == who(other)
    }

    /// Whether it proves us at `now`; roots alone always do.
    #[must_use]
    pub fn valid(&self, now: SystemTime) -> bool {
        self.certificate.as_ref().is_none_or(|own| own.not_before <= now && now <= own.expires())
    }
}

impl Certificate {
    fn new(pem: &Pem, purpose: &Purpose, trust: &Trust, now: SystemTime) -> Result<Self, Error> {
        let chain = pem.chain()?;
        let read = chain.iter().map(|der| Read::new(der)).collect::<Result<Vec<_>, _>>();
        let read =
            read.map_err(|error| Error::Unreadable { what: "certificate", text: error.to_string() })?;
        let Some((leaf, issuers)) = read.split_first() else {
            return Err(Error::Missing { what: "certificate", section: "CERTIFICATE" });
        };
        for (index, pair) in read.windows(2).enumerate() {
            if let [below, above] = pair
                && below.issuer_der != above.subject_der
            {
                let (subject, issuer) = (Arc::clone(&above.subject), Arc::clone(&below.issuer));
                return Err(Error::Order { index: index + 1, subject, issuer });
            }
        }
        let key = CertifiedKey::new(chain, pem.key()?);
        match key.keys_match() {
            Ok(()) => {}
            Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                return Err(Error::Mismatch { subject: Arc::clone(&leaf.subject) });
            }
            Err(error) => return Err(error.into()),
        }
        for (part, read) in
            std::iter::once(("leaf", leaf)).chain(issuers.iter().map(|read| ("intermediate", read)))
        {
            read.check_time(now).map_err(|validity| Error::Validity {
                part,
                subject: Arc::clone(&read.subject),
                validity,
            })?;
        }
        let principal = match purpose {
            Purpose::Workload(domains) => Some(check_workload(&key.cert, leaf, domains, trust, now)?),
            Purpose::Credential | Purpose::Roots => None,
        };
        Ok(Self {
            principal,
            subject: Arc::clone(&leaf.subject),
            not_before: leaf.not_before,
            leaf_end: leaf.not_after,
            issuers_end: issuers.iter().map(|issuer| issuer.not_after).min(),
            key: Arc::new(key),
        })
    }

    /// Who we are in the mesh.
    #[must_use]
    pub fn principal(&self) -> Option<&Principal> {
        self.principal.as_ref()
    }

    /// Subject of the leaf, as RFC 2253 writes it.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// DER of the chain, leaf first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.key.cert
    }

    /// Start of the leaf.
    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// End of the leaf.
    #[must_use]
    pub fn leaf_expires(&self) -> SystemTime {
        self.leaf_end
    }

    /// End of the first intermediate to expire.
    #[must_use]
    pub fn intermediate_expires(&self) -> Option<SystemTime> {
        self.issuers_end
    }

    /// When the chain stops being believed.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        self.issuers_end.map_or(self.leaf_end, |end| end.min(self.leaf_end))
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("subject", &self.subject)
            .field("principal", &self.principal)
            .field("chain", &self.key.cert.len())
            .field("key", &"(secret)")
            .finish_non_exhaustive()
    }
}

/// As a peer would judge us.
fn check_workload(
    chain: &[CertificateDer<'_>],
    leaf: &Read,
    domains: &TrustDomains,
    trust: &Trust,
    now: SystemTime,
) -> Result<Principal, Error> {
    let own = |reason| Error::Own { subject: Arc::clone(&leaf.subject), reason };
    if leaf.authority {
        return Err(own(Refused::Authority));
    }
    for usage in [Usage::Client, Usage::Server] {
        trust.verify_own(chain, usage, unix(now)).map_err(own)?;
    }
    let principal = workload(leaf).map_err(own)?;
    if !domains.contains(principal.trust_domain()) {
        let (found, ours) = (principal.trust_domain().to_owned(), domains.to_string());
        return Err(own(Refused::TrustDomain { found, ours }));
    }
    Ok(principal)
}
