//! Loading of what the mesh names.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::{Client, Keyring, Places, Server, Source, State};
use crate::identity::client::Servers;
use crate::identity::files::Files;
use crate::identity::held::Held;
use crate::identity::judge::NameMatch;
use crate::identity::material::Purpose;
use crate::identity::provider::{Hybrid, Tls, TlsVersion};
use crate::identity::server::{Clients, ServerSettings};
use crate::identity::spiffe::TrustDomains;
use crate::identity::watched::{Supply, Watched, secret_name};
use crate::mesh::{
    self, Certificate, ClientCertificate, DownstreamTls, KeyExchange, Node, Roots, UpstreamTls,
};

/// Finds what the mesh names among what is loaded, and loads what is new.
pub(super) struct Loader<'a> {
    pub(super) keyring: &'a Keyring,
    pub(super) old: &'a State,
    pub(super) places: &'a Places,
    pub(super) domains: Option<TrustDomains>,
    pub(super) sources: HashMap<Source, Arc<Watched>>,
    pub(super) opened: HashMap<Source, (Purpose, Supply)>,
    pub(super) problems: Vec<String>,
}

impl Loader<'_> {
    pub(super) fn server(&mut self, tls: &DownstreamTls, node: &Node) -> Option<Arc<Server>> {
        let (clients, trust) = match &tls.client {
            ClientCertificate::None => (Clients::Unknown, None),
            ClientCertificate::Optional(trust) => (Clients::Optional, Some(trust)),
            ClientCertificate::Required(trust) if trust.mesh => (Clients::Mesh, Some(trust)),
            ClientCertificate::Required(trust) => (Clients::Required, Some(trust)),
        };
        let own = self.load(self.shown(&tls.certificate, trust.map(|trust| &trust.roots)))?;
        let names = trust.map(|trust| names(&trust.names)).unwrap_or_default();
        let alpn = tls.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let mut settings = ServerSettings { names, alpn, ..ServerSettings::new(clients, &[]) };
        settings.tls = Tls {
            min: Some(version(tls.min_version)),
            max: Some(version(tls.max_version)),
            ciphers: tls.cipher_suites.iter().map(ToString::to_string).collect(),
            hybrid: hybrid(node.tls.key_exchange),
        };
        let known = self.old.servers.get(tls);
        if let Some(known) = known
            && Arc::ptr_eq(&known.own, &own)
            && known.settings == settings
        {
            return Some(known.clone());
        }
        Some(Arc::new(Server { own, settings, current: ArcSwapOption::empty() }))
    }

    pub(super) fn client(&mut self, tls: &UpstreamTls, node: &Node) -> Option<Arc<Client>> {
        let own = match &tls.certificate {
            Some(certificate) => Some(self.load(self.shown(certificate, None))?),
            None => None,
        };
        let trust = match self.believed(&tls.roots) {
            Some(source) => Some(self.load(source)?),
            None => None,
        };
        let servers = match &tls.roots {
            Roots::Unverified => Servers::Unverified,
            _ if tls.mesh => Servers::Mesh(names(&tls.names)),
            _ if tls.names.is_empty() => Servers::Asked,
            _ => Servers::Names(names(&tls.names)),
        };
        let settings = Tls {
            min: tls.mesh.then(|| version(node.tls.min_version)),
            hybrid: hybrid(node.tls.key_exchange),
            ..Tls::default()
        };
        let same = |a: &Option<Arc<Watched>>, b: &Option<Arc<Watched>>| {
            a.as_ref().map(Arc::as_ptr) == b.as_ref().map(Arc::as_ptr)
        };
        let known = self.old.clients.get(tls);
        if let Some(known) = known
            && same(&known.own, &own)
            && same(&known.trust, &trust)
            && known.tls == settings
        {
            return Some(known.clone());
        }
        Some(Arc::new(Client {
            own,
            trust,
            servers,
            tls: settings,
            mesh: tls.mesh,
            current: Default::default(),
        }))
    }

    /// Where a certificate comes from, with the roots that it judges others by.
    fn shown(&self, certificate: &Certificate, roots: Option<&Roots>) -> Source {
        match certificate {
            Certificate::Workload => Source::Workload,
            Certificate::Credential(name) => {
                let ca = match roots {
                    Some(Roots::Credential(ca)) if ca != name => Some(ca.clone()),
                    _ => None,
                };
                Source::Credential(name.clone(), ca)
            }
            Certificate::Files { certificate, private_key } => {
                let roots = match roots {
                    Some(Roots::File { bundle, crl }) => {
                        Some((self.at(bundle), crl.as_ref().map(|crl| self.at(crl))))
                    }
                    _ => None,
                };
                Source::Files { certificate: Some((self.at(certificate), self.at(private_key))), roots }
            }
        }
    }

    fn believed(&self, roots: &Roots) -> Option<Source> {
        Some(match roots {
            Roots::Mesh => Source::Workload,
            Roots::System => Source::System,
            Roots::Credential(name) => Source::RootsOf(name.clone()),
            Roots::File { bundle, crl } => Source::Files {
                certificate: None,
                roots: Some((self.at(bundle), crl.as_ref().map(|crl| self.at(crl)))),
            },
            Roots::Unverified => return None,
        })
    }

    fn at(&self, path: &Path) -> PathBuf {
        self.places.base.join(path)
    }

    pub(super) fn load(&mut self, source: Source) -> Option<Arc<Watched>> {
        if let Some(found) = self.sources.get(&source) {
            return Some(found.clone());
        }
        let (name, purpose, supply) = match self.describe(&source) {
            Ok(described) => described,
            Err(error) => {
                self.problems.push(error);
                return None;
            }
        };
        // What is opened as before goes on: a good identity outlives every change that is not its own.
        let same = self.old.opened.get(&source).is_some_and(|known| known.0 == purpose && known.1 == supply);
        let watched = match self.old.sources.get(&source).filter(|_| same) {
            Some(known) => known.clone(),
            None => {
                let held = Held::within(self.keyring.epoch.clone(), &name, purpose.clone());
                let held = Arc::new(held.audited(self.keyring.auditor.clone()));
                Arc::new(Watched::start(held, supply.clone(), &self.keyring.registry))
            }
        };
        self.opened.insert(source.clone(), (purpose, supply));
        self.sources.insert(source, watched.clone());
        Some(watched)
    }

    /// Name, purpose and supply of a source.
    fn describe(&self, source: &Source) -> Result<(String, Purpose, Supply), String> {
        let folder = || {
            self.places.credentials.as_deref().map(|folder| self.places.base.join(folder)).ok_or_else(|| {
                "a credentialName is used, and the Proxy names no `credentials.directory` to find it in"
                    .to_owned()
            })
        };
        Ok(match source {
            Source::Workload => {
                let supply = self
                    .places
                    .workload
                    .clone()
                    .ok_or("the Proxy has no identity; write `identity.files` or `identity.sds`")?;
                let domains = self.domains.clone().ok_or("the trust domain is none")?;
                ("workload".to_owned(), Purpose::Workload(domains), supply)
            }
            Source::Credential(name, ca) => {
                let name = secret_name(name).map_err(|error| error.to_string())?;
                let ca = ca.as_deref().map(secret_name).transpose().map_err(|error| error.to_string())?;
                (name.to_owned(), Purpose::Credential, Files::secret(&folder()?, name, ca).into())
            }
            Source::RootsOf(name) => {
                let name = secret_name(name).map_err(|error| error.to_string())?;
                let files = Files::secret(&folder()?, name, Some(name)).without_certificate();
                (format!("{name} (roots)"), Purpose::Roots, files.into())
            }
            Source::Files { certificate, roots } => {
                let mut files = match certificate {
                    Some((certificate, key)) => Files::new(certificate, key),
                    None => Files::default(),
                };
                if let Some((bundle, crl)) = roots {
                    files = files.with_roots(bundle);
                    if let Some(crl) = crl {
                        files = files.with_crl(crl);
                    }
                }
                let path =
                    certificate.as_ref().map(|(path, _)| path).or(roots.as_ref().map(|(path, _)| path));
                let purpose = if certificate.is_some() { Purpose::Credential } else { Purpose::Roots };
                (path.map(|path| path.display().to_string()).unwrap_or_default(), purpose, files.into())
            }
            Source::System => {
                let path = self.at(&self.places.system);
                ("system".to_owned(), Purpose::Roots, Files::only_roots(path).into())
            }
        })
    }
}

/// `a*` is a start, as Istio writes it.
fn names(written: &[mesh::Name]) -> Vec<NameMatch> {
    let name = |name: &mesh::Name| match name.strip_suffix('*') {
        Some(start) => NameMatch::Prefix(start.into()),
        None => NameMatch::Exact((&**name).into()),
    };
    written.iter().map(name).collect()
}

fn version(version: mesh::TlsVersion) -> TlsVersion {
    match version {
        mesh::TlsVersion::Tls12 => TlsVersion::V12,
        mesh::TlsVersion::Tls13 => TlsVersion::V13,
    }
}

fn hybrid(exchange: KeyExchange) -> Hybrid {
    match exchange {
        KeyExchange::Prefer => Hybrid::Prefer,
        KeyExchange::Require => Hybrid::Require,
        KeyExchange::Off => Hybrid::Off,
    }
}
