//! Certificates of a mesh of its own for each test.

use sidegate::identity::issue::{Authority, Workload};
use std::path::Path;

/// The fields of a Proxy's spec that name the files which [`write`] makes.
pub const IDENTITY: &str =
    "identity: {files: {certificate: cert-chain.pem, privateKey: key.pem, trustBundle: root-cert.pem}}";

/// A new root.
pub fn authority() -> Authority {
    Authority::new("cluster.local", 30).unwrap()
}

/// Puts the certificate of a workload of `shop` into a folder, as renewals do: each file by renaming.
pub fn write(folder: &Path, authority: &Authority, account: &str) {
    write_trusting(folder, authority, account, authority.certificate());
}

/// The same with other roots to believe.
pub fn write_trusting(folder: &Path, authority: &Authority, account: &str, roots: &str) {
    let issued = authority
        .issue(&Workload {
            trust_domain: "cluster.local",
            namespace: "shop",
            service_account: account,
            dns: &[],
            days: 1,
        })
        .unwrap();
    put(folder, "key.pem", issued.key.reveal());
    put(folder, "cert-chain.pem", issued.certificate.as_bytes());
    put(folder, "root-cert.pem", roots.as_bytes());
}

fn put(folder: &Path, name: &str, bytes: &[u8]) {
    let temporary = folder.join(format!(".{name}.new"));
    std::fs::write(&temporary, bytes).unwrap();
    std::fs::rename(&temporary, folder.join(name)).unwrap();
}
