//! What a response holds, as parts of an identity.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use prost::Message;

use super::Names;
use super::proto::{Any, DataSource, DiscoveryResponse, SECRET, Secret, TlsCertificate, ValidationContext};
use super::stream::printable;
use crate::identity::error::Error;
use crate::identity::files;
use crate::identity::pem::{Pem, SecretBytes};

/// The two parts of an identity, each as it was delivered last.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts {
    certificate: Option<Arc<Pair>>,
    bundle: Option<Arc<Bundle>>,
}

#[derive(Debug)]
struct Pair {
    chain: Source,
    key: Source,
}

#[derive(Debug)]
struct Bundle {
    roots: Source,
    crl: Option<Source>,
}

/// Where bytes are.
enum Source {
    Here(SecretBytes),
    File(PathBuf),
}

impl Parts {
    /// What a response holds of what was asked for.
    ///
    /// # Errors
    /// What is wrong with it, in words; it is refused as a whole.
    pub(super) fn read(response: &DiscoveryResponse, names: &Names) -> Result<Self, String> {
        if response.type_url != SECRET {
            return Err(format!(
                "it is of type `{}`; `{SECRET}` was asked for",
                printable(&response.type_url)
            ));
        }
        let mut parts = Self::default();
        for any in &response.resources {
            let secret = secret(any)?;
            let Secret { name, tls_certificate, validation_context } = secret;
            let part = |what: &str| format!("`{}` {what}", printable(&name));
            let missing = |field: &str| part(&format!("has no `{field}`"));
            if name == names.certificate {
                let own = tls_certificate.ok_or_else(|| missing("tls_certificate"))?;
                let pair = pair(own).map_err(|what| part(&what))?;
                if parts.certificate.replace(Arc::new(pair)).is_some() {
                    return Err(part("is there twice"));
                }
            } else if name == names.bundle {
                let context = validation_context.ok_or_else(|| missing("validation_context"))?;
                let bundle = bundle(context).map_err(|what| part(&what))?;
                if parts.bundle.replace(Arc::new(bundle)).is_some() {
                    return Err(part("is there twice"));
                }
            } else {
                return Err(part("was not asked for"));
            }
        }
        if !parts.is_something() {
            return Err("it holds no secret".to_owned());
        }
        Ok(parts)
    }

    /// These, where `newer` has no other.
    pub(super) fn with(&self, newer: &Self) -> Self {
        Self {
            certificate: newer.certificate.clone().or_else(|| self.certificate.clone()),
            bundle: newer.bundle.clone().or_else(|| self.bundle.clone()),
        }
    }

    /// The name of what is not there yet.
    pub(super) fn missing<'a>(&self, names: &'a Names) -> Option<&'a str> {
        match (&self.certificate, &self.bundle) {
            (None, _) => Some(&names.certificate),
            (_, None) => Some(&names.bundle),
            _ => None,
        }
    }

    /// Whether there is any.
    pub(super) fn is_something(&self) -> bool {
        self.certificate.is_some() || self.bundle.is_some()
    }

    /// Whether something of it is in files.
    pub(super) fn has_files(&self) -> bool {
        let file = |source: &Source| matches!(source, Source::File(_));
        let certificate = self.certificate.as_ref().is_some_and(|pair| file(&pair.chain) || file(&pair.key));
        certificate
            || self
                .bundle
                .as_ref()
                .is_some_and(|bundle| file(&bundle.roots) || bundle.crl.as_ref().is_some_and(file))
    }

    /// All of it as text. Blocks where something is in files.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(super) fn pem(&self) -> Result<Pem, Error> {
        let mut pem = Pem::default();
        if let Some(pair) = &self.certificate {
            pem.certificate = Some(pair.chain.text()?);
            pem.key = Some(match &pair.key {
                Source::Here(bytes) => bytes.clone(),
                Source::File(path) => files::secret(path)?,
            });
        }
        if let Some(bundle) = &self.bundle {
            pem.roots = Some(bundle.roots.text()?);
            pem.crl = bundle.crl.as_ref().map(Source::text).transpose()?;
        }
        Ok(pem)
    }
}

impl Source {
    fn text(&self) -> Result<Vec<u8>, Error> {
        match self {
            Self::Here(bytes) => Ok(bytes.reveal().to_vec()),
            Self::File(path) => files::text(path),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(bytes) => bytes.fmt(f),
            Self::File(path) => path.fmt(f),
        }
    }
}

fn secret(any: &Any) -> Result<Secret, String> {
    if any.type_url != SECRET {
        return Err(format!("a resource is of type `{}`, and no secret", printable(&any.type_url)));
    }
    Secret::decode(any.value.as_slice()).map_err(|error| format!("a secret cannot be read: {error}"))
}

fn pair(own: TlsCertificate) -> Result<Pair, String> {
    let TlsCertificate { certificate_chain, private_key, password, private_key_provider, pkcs12 } = own;
    if private_key_provider.is_some() {
        return Err("leaves its key to a `private_key_provider`, and there is none here".to_owned());
    }
    if pkcs12.is_some() {
        return Err("is `pkcs12`; deliver PEM".to_owned());
    }
    if password.is_some() {
        return Err("has a key with a `password`; deliver it not encrypted".to_owned());
    }
    Ok(Pair {
        chain: source(certificate_chain, "certificate_chain")?,
        key: source(private_key, "private_key")?,
    })
}

fn bundle(context: ValidationContext) -> Result<Bundle, String> {
    let ValidationContext {
        trusted_ca,
        crl,
        verify_certificate_hash: hashes,
        verify_certificate_spki: keys,
        require_signed_certificate_timestamp: timestamp,
        match_subject_alt_names: names,
        match_typed_subject_alt_names: typed_names,
        custom_validator_config: validator,
    } = context;
    // Whoever delivers one of these would take it for enforced.
    let others = [
        ("verify_certificate_hash", !hashes.is_empty()),
        ("verify_certificate_spki", !keys.is_empty()),
        ("require_signed_certificate_timestamp", timestamp.is_some()),
        ("match_subject_alt_names", !names.is_empty()),
        ("match_typed_subject_alt_names", !typed_names.is_empty()),
        ("custom_validator_config", validator.is_some()),
    ];
    if let Some((name, _)) = others.into_iter().find(|(_, there)| *there) {
        return Err(format!(
            "has `{name}`, which is not enforced here; deliver `trusted_ca` and `crl` alone"
        ));
    }
    let crl = crl.map(|crl| source(Some(crl), "crl")).transpose()?;
    Ok(Bundle { roots: source(trusted_ca, "trusted_ca")?, crl })
}

fn source(data: Option<DataSource>, field: &str) -> Result<Source, String> {
    let mut data = data.ok_or_else(|| format!("has no `{field}`"))?;
    let forms = (
        data.filename.take(),
        data.inline_bytes.take(),
        data.inline_string.take(),
        data.environment_variable.take(),
    );
    match forms {
        (Some(path), None, None, None) => Ok(Source::File(path.into())),
        (None, Some(bytes), None, None) => Ok(Source::Here(SecretBytes::new(bytes))),
        (None, None, Some(text), None) => Ok(Source::Here(SecretBytes::new(text.into_bytes()))),
        (None, None, None, Some(_)) => {
            Err(format!("has its `{field}` in an environment variable, which is not read; deliver it inline"))
        }
        _ => Err(format!("has a `{field}` that is not exactly one of a file and inline text")),
    }
}
