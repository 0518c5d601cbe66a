//! Whom we believe: roots, revocation lists, trust domains; and the session tickets that hang on them.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::DistinguishedName;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::ProducesTickets;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor, UnixTime};
use webpki::{
    BorrowedCertRevocationList, CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy, VerifiedPath,
};

use super::certificate::{Read, sha256};
use super::error::{Error, Refused, Validity, system};
use super::judge::Rule;
use super::provider::ALGORITHMS;
use super::spiffe::TrustDomains;

/// The most kinds of client judgement of which tickets are kept; the oldest goes first, and its sessions are made anew.
const MAX_TICKETERS: usize = 64;

/// Roots, revocation lists and trust domains: one generation of whom we believe.
///
/// A new certificate of our own under the same roots keeps the generation; any change here is a new one, and no session of an older one is
/// resumed.
pub struct Trust {
    roots: Vec<Root>,
    anchors: Vec<TrustAnchor<'static>>,
    crls: Vec<CertRevocationList<'static>>,
    domains: Option<TrustDomains>,
    generation: u64,
    digest: [u8; 32],
    tickets: Mutex<Vec<(Judged, Arc<dyn ProducesTickets>)>>,
}

/// How clients were judged before they got a ticket: by this rule, and whether one without a certificate was let in. `None`: not at all.
pub(super) type Judged = Option<(Arc<Rule>, bool)>;

/// What a trust anchor alone does not say.
struct Root {
    subject: Arc<str>,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Trust {
    /// Trusts nobody: for servers that ask no client for a certificate.
    #[must_use]
    pub fn nobody() -> Self {
        Self::of(Vec::new(), Vec::new(), Vec::new(), None, [0; 32])
    }

    /// Trusts `roots`, each once. A root that is not valid now is kept, as its time may come; it verifies nothing until then.
    ///
    /// # Errors
    /// A root or list that cannot be read; where `lenient`, a root is left out instead: bundles of operating systems hold odd ones.
    pub(super) fn new(
        roots: &[CertificateDer<'static>],
        crls: &[CertificateRevocationListDer<'static>],
        domains: Option<TrustDomains>,
        lenient: bool,
    ) -> Result<Self, Error> {
        let unreadable = |what, text: &dyn fmt::Display| Error::Unreadable { what, text: text.to_string() };
        let (mut read, mut anchors) = (Vec::new(), Vec::new());
        let mut seen = BTreeSet::new();
        for root in roots.iter().filter(|root| seen.insert((*root).as_ref())) {
            let found =
                Read::new(root).map_err(|error| unreadable("trust bundle", &error)).and_then(|said| {
                    let anchor = webpki::anchor_from_trusted_cert(root).map_err(|error| {
                        unreadable("trust bundle", &format_args!("`{}`: {error}", said.subject))
                    })?;
                    Ok((said, anchor))
                });
            let (said, anchor) = match found {
                Ok(found) => found,
                Err(error) if lenient => {
                    tracing::debug!(%error, "a root is left out");
                    continue;
                }
                Err(error) => return Err(error),
            };
            anchors.push(anchor.to_owned());
            read.push(Root { subject: said.subject, not_before: said.not_before, not_after: said.not_after });
        }
        let lists = crls.iter().map(|crl| {
            let list = BorrowedCertRevocationList::from_der(crl).and_then(|list| list.to_owned());
            list.map(CertRevocationList::from).map_err(|error| unreadable("revocation list", &error))
        });
        let lists = lists.collect::<Result<Vec<_>, _>>()?;
        if !roots.is_empty() && anchors.is_empty() {
            return Err(unreadable("trust bundle", &"it has no root that can be used"));
        }
        let mut all = Vec::new();
        for der in roots.iter().map(AsRef::as_ref).chain(crls.iter().map(AsRef::as_ref)) {
            all.extend(sha256(der));
        }
        // So that no root could be read as a list.
        all.extend(roots.len().to_be_bytes());
        all.extend(domains.iter().flat_map(|domains| domains.to_string().into_bytes()));
        let digest = sha256(&all);
        Ok(Self::of(read, anchors, lists, domains, digest))
    }

    fn of(
        roots: Vec<Root>,
        anchors: Vec<TrustAnchor<'static>>,
        crls: Vec<CertRevocationList<'static>>,
        domains: Option<TrustDomains>,
        digest: [u8; 32],
    ) -> Self {
        Self { roots, anchors, crls, domains, generation: 1, digest, tickets: Mutex::default() }
    }

    /// `previous` where it says the same, else the next generation of it.
    pub(super) fn after(mut self, previous: Option<&Arc<Self>>) -> Arc<Self> {
        match previous {
            Some(previous) if previous.digest == self.digest => Arc::clone(previous),
            previous => {
                self.generation = previous.map_or(1, |previous| previous.generation + 1);
                Arc::new(self)
            }
        }
    }

    /// Grows when roots, revocation lists or trust domains change, not when our certificate does.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The trust domains of the mesh; `None` where SPIFFE identities are not looked at.
    #[must_use]
    pub fn domains(&self) -> Option<&TrustDomains> {
        self.domains.as_ref()
    }

    /// How many roots there are.
    #[must_use]
    pub fn roots(&self) -> usize {
        self.roots.len()
    }

    /// When the first of the roots that are valid at `now` expires; when the last one did, where none is.
    #[must_use]
    pub fn expires(&self, now: SystemTime) -> Option<SystemTime> {
        let ends = self.roots.iter().map(|root| root.not_after);
        ends.clone().filter(|end| *end >= now).min().or_else(|| ends.max())
    }

    /// Subjects and ends of the roots.
    pub(super) fn ends(&self) -> impl Iterator<Item = (&Arc<str>, SystemTime)> {
        self.roots.iter().map(|root| (&root.subject, root.not_after))
    }

    /// The subjects of the roots, as hints for clients.
    pub(super) fn hints(&self) -> Vec<DistinguishedName> {
        self.anchors.iter().map(|anchor| DistinguishedName::in_sequence(&anchor.subject)).collect()
    }

    /// The tickets of sessions whose clients were judged so; what is judged otherwise never shares any.
    pub(super) fn tickets(&self, judged: &Judged) -> Result<Arc<dyn ProducesTickets>, Error> {
        let mut all = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, found)) = all.iter().find(|(known, _)| known == judged) {
            return Ok(Arc::clone(found));
        }
        // Keys roll every 6 hours and are forgotten after 12.
        let made = Ticketer::new()?;
        if all.len() >= MAX_TICKETERS {
            all.remove(0);
        }
        all.push((judged.clone(), Arc::clone(&made)));
        Ok(made)
    }

    /// Verifies the path from the leaf of `chain` to a root that is valid now, for `usage`, against the revocation lists.
    pub(super) fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        usage: Usage,
        now: UnixTime,
    ) -> Result<(), Refused> {
        self.verify_with(chain, usage, now, true)
    }

    /// The same for our own, of which others judge whether it was revoked.
    pub(super) fn verify_own(
        &self,
        chain: &[CertificateDer<'_>],
        usage: Usage,
        now: UnixTime,
    ) -> Result<(), Refused> {
        self.verify_with(chain, usage, now, false)
    }

    fn verify_with(
        &self,
        chain: &[CertificateDer<'_>],
        usage: Usage,
        now: UnixTime,
        revocation: bool,
    ) -> Result<(), Refused> {
        let (leaf, intermediates) = chain.split_first().ok_or(Refused::NoCertificate)?;
        let leaf = EndEntityCert::try_from(leaf).map_err(|error| refused(error, usage))?;
        let crls: Vec<&CertRevocationList<'_>> = self.crls.iter().collect();
        // As Envoy: once there is a list, every certificate below the root needs one that is current.
        let revocation =
            revocation.then(|| RevocationOptionsBuilder::new(&crls).ok()).flatten().map(|options| {
                options
                    .with_depth(RevocationCheckDepth::Chain)
                    .with_status_policy(UnknownStatusPolicy::Deny)
                    .with_expiration_policy(ExpirationPolicy::Enforce)
                    .build()
            });
        let root_is_valid = |path: &VerifiedPath<'_>| self.check_root(path.anchor(), now);
        leaf.verify_for_usage(
            ALGORITHMS.all,
            &self.anchors,
            intermediates,
            now,
            usage.webpki(),
            revocation,
            Some(&root_is_valid),
        )
        .map_err(|error| refused(error, usage))?;
        Ok(())
    }

    /// webpki takes a root for valid at any time; we do not. One that was renewed with its key is there twice, and either will do.
    fn check_root(&self, anchor: &TrustAnchor<'_>, now: UnixTime) -> Result<(), webpki::Error> {
        let time = system(now);
        let same = |(_, known): &(&Root, &TrustAnchor<'_>)| {
            known.subject == anchor.subject && known.subject_public_key_info == anchor.subject_public_key_info
        };
        let mut outcome = Err(webpki::Error::UnknownIssuer);
        for (root, _) in self.roots.iter().zip(&self.anchors).filter(same) {
            if time < root.not_before {
                let not_before = super::error::unix(root.not_before);
                outcome = Err(webpki::Error::CertNotValidYet { time: now, not_before });
            } else if time > root.not_after {
                let not_after = super::error::unix(root.not_after);
                outcome = Err(webpki::Error::CertExpired { time: now, not_after });
            } else {
                return Ok(());
            }
        }
        outcome
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust")
            .field("generation", &self.generation)
            .field("roots", &self.roots.iter().map(|root| &root.subject).collect::<Vec<_>>())
            .field("crls", &self.crls.len())
            .field("domains", &self.domains)
            .finish_non_exhaustive()
    }
}

/// What a certificate has to be for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Usage {
    /// Proving a client.
    Client,
    /// Proving a server.
    Server,
}

impl Usage {
    /// A certificate without extended key usages is for all of them (RFC 5280, section 4.2.1.12).
    fn webpki(self) -> KeyUsage {
        match self {
            Self::Client => KeyUsage::client_auth(),
            Self::Server => KeyUsage::server_auth(),
        }
    }
}

fn refused(error: webpki::Error, usage: Usage) -> Refused {
    use webpki::Error as E;
    match error {
        E::CertExpired { time, not_after } => Refused::Validity(Validity {
            not_before: None,
            not_after: Some(system(not_after)),
            now: system(time),
        }),
        E::CertNotValidYet { time, not_before } => Refused::Validity(Validity {
            not_before: Some(system(not_before)),
            not_after: None,
            now: system(time),
        }),
        E::CertRevoked => Refused::Revoked,
        E::UnknownRevocationStatus | E::CrlExpired { .. } => Refused::RevocationUnknown,
        // The second is a root of the same name with another key, as after it was made anew.
        E::UnknownIssuer | E::InvalidSignatureForPublicKey => Refused::UnknownIssuer,
        E::RequiredEkuNotFoundContext(_) => Refused::Usage(match usage {
            Usage::Client => "clients",
            Usage::Server => "servers",
        }),
        E::CaUsedAsEndEntity => Refused::Authority,
        E::NameConstraintViolation => Refused::NameConstraints,
        E::BadDer | E::BadDerTime => Refused::Unreadable("it is no X.509 certificate"),
        other => Refused::Path(other.to_string()),
    }
}
