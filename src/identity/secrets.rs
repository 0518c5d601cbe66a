//! Secrets as folders of a mounted volume, for what a Gateway calls `credentialName`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::error::Error;
use super::files::{Files, follow};
use super::held::Held;
use super::material::Purpose;
use crate::telemetry::metrics::Registry;

/// The most names in use at once.
const MAX_NAMES: usize = 4096;

/// A folder with one Secret in each folder below it: `<name>/{tls.crt, tls.key, ca.crt, ca.crl}`.
///
/// A name is watched for as long as somebody holds it.
#[derive(Debug)]
pub struct Secrets {
    folder: PathBuf,
    registry: Arc<Registry>,
    held: Mutex<BTreeMap<Key, Weak<Watched>>>,
}

/// Name, the Secret of its roots, and whether it is for roots alone.
type Key = (Box<str>, Option<Box<str>>, bool);

/// A Secret in use; its files are watched until it is dropped.
#[derive(Debug)]
pub struct Watched {
    held: Arc<Held>,
    task: tokio::task::AbortHandle,
}

impl Watched {
    /// What is in force.
    #[must_use]
    pub fn held(&self) -> &Arc<Held> {
        &self.held
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Secrets {
    /// The Secrets below `folder`.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>, registry: Arc<Registry>) -> Self {
        Self { folder: folder.into(), registry, held: Mutex::default() }
    }

    /// The Secret `name`, with the roots of the Secret `ca` where one is given. Needs a tokio runtime, whose tasks watch it.
    ///
    /// # Errors
    /// A name that is none of a Secret, or too many of them. A Secret that is not there is no error: it may come.
    pub fn credential(&self, name: &str, ca: Option<&str>) -> Result<Arc<Watched>, Error> {
        let files = Files::secret(&self.folder, check(name)?, ca.map(check).transpose()?);
        self.watch((name.into(), ca.map(Into::into), false), files, Purpose::Credential)
    }

    /// The roots of the Secret `name`.
    ///
    /// # Errors
    /// As of [`credential`](Self::credential).
    pub fn roots(&self, name: &str) -> Result<Arc<Watched>, Error> {
        let files = Files::secret(&self.folder, check(name)?, Some(name)).without_certificate();
        self.watch((name.into(), None, true), files, Purpose::Roots)
    }

    fn watch(&self, key: Key, files: Files, purpose: Purpose) -> Result<Arc<Watched>, Error> {
        let mut all = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = all.get(&key).and_then(Weak::upgrade) {
            return Ok(found);
        }
        all.retain(|_, held| held.strong_count() > 0);
        if all.len() >= MAX_NAMES {
            return Err(Error::Settings("more than 4096 Secrets are in use"));
        }
        let held = Arc::new(Held::new(&key.0, purpose));
        let task = tokio::spawn(follow(Arc::clone(&held), files, Arc::clone(&self.registry))).abort_handle();
        let watched = Arc::new(Watched { held, task });
        all.insert(key, Arc::downgrade(&watched));
        Ok(watched)
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// A name becomes a part of a path: only what Kubernetes allows in the name of a Secret.
fn check(name: &str) -> Result<&str, Error> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-');
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let bytes = || name.bytes();
    if name.len() <= 253 && bytes().all(plain) && edge(bytes().next()) && edge(bytes().next_back()) {
        Ok(name)
    } else {
        Err(Error::Settings(
            "a credentialName is the name of a Secret: `a-z`, `0-9`, `-` and `.`, at most 253",
        ))
    }
}
