//! Whether a peer is believed, by its certificate chain: the same judgement in a handshake and for a session that is resumed.

use std::fmt;
use std::sync::Arc;

use filter_api::Principal;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::EndEntityCert;

use super::certificate::{Read, sha256};
use super::error::{Refused, system};
use super::provider::ALGORITHMS;
use super::spiffe;
use super::trust::{Trust, Usage};

/// A name that a peer may prove: a URI or DNS name, whole or by its start (Istio's `subjectAltNames`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NameMatch {
    /// All of it.
    Exact(Box<str>),
    /// Its start.
    Prefix(Box<str>),
}

impl NameMatch {
    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(text) => name == &**text,
            Self::Prefix(text) => name.starts_with(&**text),
        }
    }
}

impl fmt::Display for NameMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => f.write_str(text),
            Self::Prefix(text) => write!(f, "{text}*"),
        }
    }
}

/// What a peer has to prove.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Rule {
    /// A workload of the mesh, and one of these ids where there are any.
    Mesh(Box<[NameMatch]>),
    /// A path to a root; and one of each of these where there are any.
    Listed { names: Box<[NameMatch]>, hashes: Box<[[u8; 32]]>, keys: Box<[[u8; 32]]> },
    /// A path to a root, and the name that was asked for.
    Asked,
    /// Nothing (`insecureSkipVerify`).
    Nothing,
}

/// A verifier of peers.
pub(super) struct Judge {
    pub(super) trust: Arc<Trust>,
    pub(super) rule: Arc<Rule>,
    pub(super) usage: Usage,
    /// A client without a certificate is let in, too.
    pub(super) optional: bool,
    pub(super) hints: Vec<DistinguishedName>,
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge").field("rule", &self.rule).field("usage", &self.usage).finish_non_exhaustive()
    }
}

impl Judge {
    /// Judges a chain at `now`. `asked` is the name of the server that we called.
    pub(super) fn judge(
        &self,
        chain: &[CertificateDer<'_>],
        asked: Option<&ServerName<'_>>,
        now: UnixTime,
    ) -> Result<(), Refused> {
        let first = chain.first().ok_or(Refused::NoCertificate)?;
        if *self.rule == Rule::Nothing {
            return Ok(());
        }
        let leaf = Read::new(first)?;
        leaf.check_time(system(now)).map_err(Refused::Validity)?;
        if leaf.authority {
            return Err(Refused::Authority);
        }
        self.trust.verify(chain, self.usage, now)?;
        match &*self.rule {
            Rule::Mesh(_) => self.principal(&leaf).map(drop),
            Rule::Listed { names, hashes, keys } => check_listed(first, &leaf, names, hashes, keys),
            Rule::Asked => check_asked(first, &leaf, asked),
            Rule::Nothing => Ok(()),
        }
    }

    /// The identity of a leaf whose path was verified. Only workloads of the mesh have one: any authority that a gateway or a
    /// DestinationRule trusts could write a SPIFFE id into its certificates.
    pub(super) fn principal(&self, leaf: &Read) -> Result<Option<Principal>, Refused> {
        let Rule::Mesh(expected) = &*self.rule else { return Ok(None) };
        let principal = workload(leaf)?;
        let ours = self.trust.domains();
        if !ours.is_some_and(|ours| ours.contains(principal.trust_domain())) {
            let ours = ours.map_or_else(|| "none".to_owned(), ToString::to_string);
            return Err(Refused::TrustDomain { found: principal.trust_domain().to_owned(), ours });
        }
        let id = leaf.uris.first().map_or("", |id| id);
        if expected.is_empty() || expected.iter().any(|name| name.matches(id)) {
            Ok(Some(principal))
        } else {
            Err(Refused::Name { found: id.to_owned(), expected: listed(expected) })
        }
    }
}

/// The one SPIFFE id of a leaf.
pub(super) fn workload(leaf: &Read) -> Result<Principal, Refused> {
    if let Some(name) = leaf.dns.iter().find(|name| name.contains(['/', ':', '\0'])) {
        return Err(Refused::DnsName(printable(name)));
    }
    match &*leaf.uris {
        [] => Err(Refused::NoId),
        [id] => spiffe::parse(id).map_err(|reason| Refused::Id { id: printable(id), reason }),
        several => Err(Refused::ManyIds(several.len())),
    }
}

fn check_listed(
    first: &CertificateDer<'_>,
    leaf: &Read,
    names: &[NameMatch],
    hashes: &[[u8; 32]],
    keys: &[[u8; 32]],
) -> Result<(), Refused> {
    let mut said = leaf.uris.iter().chain(&leaf.dns);
    if !names.is_empty() && !said.any(|said| names.iter().any(|name| name.matches(said))) {
        return Err(Refused::Name { found: proven(leaf), expected: listed(names) });
    }
    // As in Envoy, either list will do where both are there.
    let pinned = !hashes.is_empty() || !keys.is_empty();
    if pinned && !hashes.contains(&sha256(first)) && !keys.contains(&sha256(&leaf.spki)) {
        return Err(Refused::Hash);
    }
    Ok(())
}

fn check_asked(
    first: &CertificateDer<'_>,
    leaf: &Read,
    asked: Option<&ServerName<'_>>,
) -> Result<(), Refused> {
    let proves = asked.is_some_and(|asked| {
        EndEntityCert::try_from(first).is_ok_and(|cert| cert.verify_is_valid_for_subject_name(asked).is_ok())
    });
    if proves {
        return Ok(());
    }
    let expected = asked.map_or_else(|| "a name".to_owned(), |asked| asked.to_str().into_owned());
    Err(Refused::Name { found: proven(leaf), expected })
}

fn proven(leaf: &Read) -> String {
    let names: Vec<_> = leaf.uris.iter().chain(&leaf.dns).take(8).map(|name| printable(name)).collect();
    if names.is_empty() { "no name".to_owned() } else { names.join(", ") }
}

fn listed(names: &[NameMatch]) -> String {
    names.iter().take(8).map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}

/// Text of others, safe to print and not endless.
fn printable(text: &str) -> String {
    text.chars().take(256).flat_map(char::escape_default).collect()
}

impl ClientCertVerifier for Judge {
    fn client_auth_mandatory(&self) -> bool {
        !self.optional
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.judge(&joined(end_entity, intermediates), None, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &ALGORITHMS)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &ALGORITHMS)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ALGORITHMS.supported_schemes()
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge(&joined(end_entity, intermediates), Some(server_name), now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &ALGORITHMS)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &ALGORITHMS)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ALGORITHMS.supported_schemes()
    }
}

/// The chain as one, without a copy of its bytes.
fn joined<'a>(leaf: &'a CertificateDer<'_>, others: &'a [CertificateDer<'_>]) -> Vec<CertificateDer<'a>> {
    let all = std::iter::once(leaf).chain(others);
    all.map(|der| CertificateDer::from(der.as_ref())).collect()
}
