//! Identities out of files, read again when they change.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{MissedTickBehavior, interval};
use zeroize::Zeroizing;

use super::error::Error;
use super::held::Held;
use super::metrics::IdentityMetrics;
use super::pem::{Pem, SecretBytes};
use crate::config::files::Watcher;
use crate::telemetry::metrics::Registry;

/// The most bytes of one file; the bundles of operating systems have about 250 KiB.
const MAX_FILE: u64 = 4 << 20;
/// The most files of a folder of roots.
const MAX_ROOT_FILES: usize = 4096;
/// Time between two looks at what only the clock changes: expiry, and a renewal that was not valid yet.
pub(super) const TICK: Duration = Duration::from_secs(10);

/// The files of one identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    certificate: Part,
    key: Part,
    roots: Part,
    crl: Part,
}

/// The first of these files that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Part {
    paths: Vec<PathBuf>,
    /// That none is there is an error.
    needed: bool,
}

impl Part {
    fn needed(path: impl Into<PathBuf>) -> Self {
        Self { paths: vec![path.into()], needed: true }
    }

    fn read<T>(&self, read: impl Fn(&Path) -> Result<T, Error>) -> Result<Option<T>, Error> {
        for path in &self.paths {
            match read(path) {
                Err(Error::Read { error, .. }) if error.kind() == io::ErrorKind::NotFound && !self.needed => {
                }
                outcome => return outcome.map(Some),
            }
        }
        Ok(None)
    }
}

impl Files {
    /// A certificate chain and its key.
    #[must_use]
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self { certificate: Part::needed(certificate), key: Part::needed(key), ..Self::default() }
    }

    /// Roots alone: a file, or a folder of files such as `/etc/ssl/certs`, whose odd ones are left out.
    #[must_use]
    pub fn only_roots(path: impl Into<PathBuf>) -> Self {
        Self::default().with_roots(path)
    }

    /// With roots.
    #[must_use]
    pub fn with_roots(self, path: impl Into<PathBuf>) -> Self {
        Self { roots: Part::needed(path), ..self }
    }

    /// With what was revoked.
    #[must_use]
    pub fn with_crl(self, path: impl Into<PathBuf>) -> Self {
        Self { crl: Part::needed(path), ..self }
    }

    /// A mounted Secret at `folder/name`, of type `kubernetes.io/tls` (`tls.crt`, `tls.key`, `ca.crt`, `ca.crl`) or generic (`cert`, `key`,
    /// `cacert`, `crl`). Roots are optional, and are taken from the Secret `ca` or, as Istio does, from `name-cacert` first.
    #[must_use]
    pub fn secret(folder: &Path, name: &str, ca: Option<&str>) -> Self {
        let own = folder.join(name);
        let named = ca.map_or_else(|| folder.join(format!("{name}-cacert")), |ca| folder.join(ca));
        let all = |folder: &Path, names: [&str; 2]| names.map(|name| folder.join(name)).to_vec();
        let roots = match ca {
            // A name that was given and leads nowhere must not fall back to other roots.
            Some(_) => all(&named, ["ca.crt", "cacert"]),
            None => [all(&named, ["ca.crt", "cacert"]), all(&own, ["ca.crt", "cacert"])].concat(),
        };
        let crl = [all(&named, ["ca.crl", "crl"]), all(&own, ["ca.crl", "crl"])].concat();
        let optional = |paths| Part { paths, needed: false };
        Self {
            certificate: optional(all(&own, ["tls.crt", "cert"])),
            key: optional(all(&own, ["tls.key", "key"])),
            roots: optional(roots),
            crl: optional(crl),
        }
    }

    /// Without certificate and key.
    #[must_use]
    pub(super) fn without_certificate(self) -> Self {
        Self { certificate: Part::default(), key: Part::default(), ..self }
    }

    /// Reads them now. Blocks.
    ///
    /// # Errors
    /// The first file that cannot be read.
    pub fn read(&self) -> Result<Pem, Error> {
        Ok(Pem {
            certificate: self.certificate.read(text)?,
            key: self.key.read(secret)?,
            roots: self.roots.read(|path| if path.is_dir() { folder(path) } else { text(path) })?,
            crl: self.crl.read(text)?,
        })
    }

    fn paths(&self) -> Vec<PathBuf> {
        let parts = [&self.certificate, &self.key, &self.roots, &self.crl];
        parts.into_iter().flat_map(|part| part.paths.iter().cloned()).collect()
    }
}

pub(super) fn text(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    read_into(path, &mut bytes)?;
    Ok(bytes)
}

pub(super) fn secret(path: &Path) -> Result<SecretBytes, Error> {
    // Room for all of it beforehand: what grows leaves copies behind.
    let size = path.metadata().map_or(0, |metadata| metadata.len().min(MAX_FILE));
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 64));
    read_into(path, &mut bytes)?;
    Ok(SecretBytes(bytes))
}

fn read_into(path: &Path, bytes: &mut Vec<u8>) -> Result<(), Error> {
    let failed = |error| Error::Read { path: path.to_owned(), error };
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_FILE + 1).read_to_end(bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(failed(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("more than {MAX_FILE} bytes"),
        )));
    }
    Ok(())
}

/// All files of a folder, one after the other. Links that lead nowhere are common in folders of roots.
fn folder(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |error| Error::Read { path: path.to_owned(), error };
    let entries = path.read_dir().map_err(failed)?.take(MAX_ROOT_FILES);
    let mut files = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(failed)?;
    files.retain(|file| file.is_file());
    files.sort();
    let mut all = Vec::new();
    for file in files {
        all.extend(text(&file)?);
        all.push(b'\n');
    }
    Ok(all)
}

/// Keeps `held` as these files are, for ever: reads them now, again whenever their folders change, and while what they hold is not accepted.
pub async fn follow(held: Arc<Held>, files: Files, registry: Arc<Registry>) {
    let metrics = IdentityMetrics::new(&registry, held.name());
    let mut watcher = Watcher::new(files.paths());
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let files = Arc::new(files);
    loop {
        let asked = Arc::clone(&files);
        let read = tokio::task::spawn_blocking(move || asked.read()).await;
        // When the task is lost, the runtime ends, and nobody waits for an identity any more.
        let Ok(read) = read else { return };
        held.offer(read, SystemTime::now());
        metrics.show(&registry, &held, SystemTime::now());
        loop {
            tokio::select! {
                () = watcher.changed() => break,
                _ = tick.tick() => {
                    let now = SystemTime::now();
                    metrics.show(&registry, &held, now);
                    held.say_when_expired(now);
                    if held.refused() {
                        break;
                    }
                }
            }
        }
    }
}
