//! `sidegate certs`: a root and certificates of workloads, in files named as Istio names them.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args as ClapArgs;

use super::{USAGE, out};
use crate::identity::issue::{self, Authority, Issued, Workload};

/// Arguments of `sidegate certs`.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Args {
    /// Where they are written: the root here, each workload in NAMESPACE/ACCOUNT below. A root that is there already is used again.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The workloads.
    #[arg(long = "for", value_name = "NAMESPACE/ACCOUNT", value_delimiter = ',', required = true)]
    workloads: Vec<String>,
    /// The trust domain of the mesh.
    #[arg(long, default_value = "cluster.local", value_name = "NAME")]
    trust_domain: String,
    /// A DNS name for each of the certificates.
    #[arg(long, value_name = "NAME")]
    dns: Vec<String>,
    /// How long certificates are valid.
    #[arg(long, default_value_t = 30, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MAX_DAYS))]
    days: u32,
    /// How long a new root is valid.
    #[arg(long, default_value_t = 3650, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MAX_DAYS))]
    root_days: u32,
    /// Replace certificates of workloads that are there already.
    #[arg(long)]
    force: bool,
}

/// A hundred years.
const MAX_DAYS: i64 = 36_500;
const ROOT_CERTIFICATE: &str = "root-cert.pem";
const ROOT_KEY: &str = "root-key.pem";
const CHAIN: &str = "cert-chain.pem";
const KEY: &str = "key.pem";

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Issue(#[from] issue::Error),
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
}

fn file(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |error| Error::File { path, error }
}

/// Makes them and says what was made.
pub(crate) fn main(args: &Args) -> ExitCode {
    match make(args) {
        Ok(lines) => {
            out::say(lines.join("\n"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            out::complain(&error);
            match error {
                Error::Usage(_) | Error::Issue(issue::Error::Id { .. } | issue::Error::Dns(_)) => {
                    ExitCode::from(USAGE)
                }
                Error::Issue(_) | Error::File { .. } => ExitCode::FAILURE,
            }
        }
    }
}

fn make(args: &Args) -> Result<Vec<String>, Error> {
    let mut wanted = Vec::new();
    for text in &args.workloads {
        let parts = text.split_once('/').filter(|(_, account)| !account.contains('/'));
        let usage = || {
            Error::Usage(format!("--for: `{text}` is no workload; write NAMESPACE/ACCOUNT, as in shop/cart"))
        };
        let (namespace, account) = parts.ok_or_else(usage)?;
        let folder = args.out.join(namespace).join(account);
        // The names were not checked yet: one such as `..` must not lead elsewhere.
        let id = format!("spiffe://{}/ns/{namespace}/sa/{account}", args.trust_domain);
        crate::identity::parse(&id).map_err(|reason| issue::Error::Id { id, reason })?;
        let taken = [CHAIN, KEY, ROOT_CERTIFICATE]
            .map(|name| folder.join(name))
            .into_iter()
            .find(|path| path.exists());
        if let Some(path) = taken.filter(|_| !args.force) {
            return Err(Error::Usage(format!("{} is there already; --force replaces it", path.display())));
        }
        wanted.push((namespace, account, folder));
    }
    let (authority, mut lines) = authority(args)?;
    for (namespace, service_account, folder) in wanted {
        let issued = authority.issue(&Workload {
            trust_domain: &args.trust_domain,
            namespace,
            service_account,
            dns: &args.dns,
            days: args.days,
        })?;
        store(&folder, &issued)?;
        lines.push(format!("{}: {}, until {}", folder.display(), issued.id, issued.expires.date()));
    }
    Ok(lines)
}

/// The root that is there, or a new one.
fn authority(args: &Args) -> Result<(Authority, Vec<String>), Error> {
    let (certificate, key) = (args.out.join(ROOT_CERTIFICATE), args.out.join(ROOT_KEY));
    match (certificate.exists(), key.exists()) {
        (true, true) => {
            let text = |path: &Path| fs::read_to_string(path).map_err(file(path));
            let authority = Authority::from_pem(&text(&certificate)?, &text(&key)?)?;
            let line = format!("{}: used again, until {}", certificate.display(), authority.expires().date());
            Ok((authority, vec![line]))
        }
        (false, false) => {
            let authority = Authority::new(&args.trust_domain, args.root_days)?;
            fs::create_dir_all(&args.out).map_err(file(&args.out))?;
            write(&key, authority.key().reveal(), 0o600)?;
            write(&certificate, authority.certificate().as_bytes(), 0o644)?;
            let line = format!("{}: a new root, until {}", certificate.display(), authority.expires().date());
            Ok((authority, vec![line]))
        }
        (true, false) => {
            Err(Error::Usage(format!("{} is missing, the key of the root beside it", key.display())))
        }
        (false, true) => {
            Err(Error::Usage(format!("{} is missing, the root of the key beside it", certificate.display())))
        }
    }
}

fn store(folder: &Path, issued: &Issued) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(file(folder))?;
    write(&folder.join(KEY), issued.key.reveal(), 0o600)?;
    write(&folder.join(CHAIN), issued.certificate.as_bytes(), 0o644)?;
    write(&folder.join(ROOT_CERTIFICATE), issued.root.as_bytes(), 0o644)
}

/// Writes beside the file and renames, so that nobody who watches it reads half of it.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let written = (|| {
        // One that a run before left behind may have another mode.
        if beside.exists() {
            fs::remove_file(&beside)?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    written.map_err(file(path))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::time::SystemTime;

    use super::{Args, Error, make};
    use crate::identity::{Files, Identity, Purpose, TrustDomains};

    fn args(out: &Path, workloads: &[&str]) -> Args {
        Args {
            out: out.to_owned(),
            workloads: workloads.iter().map(ToString::to_string).collect(),
            trust_domain: "cluster.local".to_owned(),
            dns: vec!["cart.shop".to_owned()],
            days: 2,
            root_days: 10,
            force: false,
        }
    }

    #[test]
    fn what_is_made_is_an_identity_and_its_keys_are_for_the_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("certs");
        let lines = make(&args(&out, &["shop/cart", "shop/reviews"])).unwrap();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[1].contains("spiffe://cluster.local/ns/shop/sa/cart"), "{lines:?}");
        for path in ["root-key.pem", "shop/cart/key.pem", "shop/reviews/key.pem"] {
            assert_eq!(fs::metadata(out.join(path)).unwrap().permissions().mode() & 0o777, 0o600, "{path}");
        }
        let cart = out.join("shop/cart");
        let pem = Files::new(cart.join("cert-chain.pem"), cart.join("key.pem"))
            .with_roots(cart.join("root-cert.pem"))
            .read()
            .unwrap();
        let purpose = Purpose::Workload(TrustDomains::new("cluster.local", &[]).unwrap());
        let identity = Identity::new(&pem, &purpose, None, SystemTime::now()).unwrap();
        let principal = identity.certificate().unwrap().principal().unwrap().to_string();
        assert_eq!(principal, "cluster.local/ns/shop/sa/cart");
    }

    #[test]
    fn the_root_is_used_again_and_nothing_is_replaced_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path();
        make(&args(out, &["shop/cart"])).unwrap();
        let read = |path: &str| fs::read_to_string(out.join(path)).unwrap();
        let (root, cart) = (read("root-cert.pem"), read("shop/cart/cert-chain.pem"));
        let error = make(&args(out, &["shop/ratings", "shop/cart"])).unwrap_err();
        assert!(matches!(&error, Error::Usage(text) if text.contains("--force")), "{error}");
        assert!(!out.join("shop/ratings").exists(), "all or nothing");
        make(&args(out, &["shop/ratings"])).unwrap();
        assert_eq!((read("root-cert.pem"), read("shop/ratings/root-cert.pem")), (root.clone(), root));
        let forced = Args { force: true, ..args(out, &["shop/cart"]) };
        make(&forced).unwrap();
        assert_ne!(read("shop/cart/cert-chain.pem"), cart);
        fs::remove_file(out.join("root-key.pem")).unwrap();
        let error = make(&args(out, &["shop/other"])).unwrap_err();
        assert!(error.to_string().contains("root-key.pem"), "{error}");
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["shop", "../cart", "shop/..", "shop/a/b", "/cart", "shop/", "shop/a b"] {
            let error = make(&args(folder.path(), &[name])).unwrap_err();
            assert!(matches!(error, Error::Usage(_) | Error::Issue(_)), "{name}: {error}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
