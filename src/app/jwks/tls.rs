//! TLS towards public servers of keys.

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The longest file that is read for certificates.
const MAX_FILE: u64 = 4 << 20;

/// Files of one folder that are read.
const MAX_FILES: usize = 4096;

/// Trusts the certificates of a folder (`/etc/ssl/certs`) or file. Reads from disk, so it belongs on a thread that may block.
pub(super) fn client(roots: &Path) -> Result<Arc<ClientConfig>, String> {
    let mut store = RootCertStore::empty();
    let found = certificates(roots).map_err(|error| format!("{}: {error}", roots.display()))?;
    // Systems ship certificates that no verifier takes; the others count.
    store.add_parsable_certificates(found.iter().map(|found| CertificateDer::from_slice(found)));
    if store.is_empty() {
        return Err(format!("{} holds no certificate; set `trust.system` of the Proxy", roots.display()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    Ok(Arc::new(builder.with_root_certificates(store).with_no_client_auth()))
}

/// Each certificate once: a folder often holds a bundle and all its parts.
fn certificates(roots: &Path) -> io::Result<BTreeSet<Box<[u8]>>> {
    let mut found = BTreeSet::new();
    for file in files(roots)? {
        // Links that lead nowhere, and things that are no text, are not worth more than their absence.
        let Ok(known) = std::fs::metadata(&file) else { continue };
        if !known.is_file() || known.len() > MAX_FILE {
            continue;
        }
        let Ok(text) = std::fs::read(&file) else { continue };
        found.extend(CertificateDer::pem_slice_iter(&text).flatten().map(|found| Box::from(found.as_ref())));
    }
    Ok(found)
}

fn files(roots: &Path) -> io::Result<Vec<PathBuf>> {
    if !std::fs::metadata(roots)?.is_dir() {
        return Ok(vec![roots.to_owned()]);
    }
    std::fs::read_dir(roots)?.take(MAX_FILES).map(|entry| entry.map(|entry| entry.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_certificates_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("readme.txt"), "no certificate").unwrap();
        let error = client(folder.path()).unwrap_err();
        assert!(error.contains("holds no certificate"), "{error}");
        assert!(client(&folder.path().join("gone")).is_err());
    }
}
