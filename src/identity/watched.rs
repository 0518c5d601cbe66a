//! Key material that is followed for as long as somebody uses it.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, SystemTime};

use super::error::Error;
use super::files::{Files, follow};
use super::held::Held;
use super::sds::{self, Sds};
use crate::telemetry::metrics::Registry;

/// The longest time that a start waits for what a server delivers. It goes on without: `/ready` tells, and handshakes are refused.
const START: Duration = Duration::from_secs(2);

/// Where key material comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Supply {
    /// Files, read again when they change.
    Files(Files),
    /// A server that delivers it.
    Sds(Sds),
}

impl From<Files> for Supply {
    fn from(files: Files) -> Self {
        Self::Files(files)
    }
}

/// What a source delivers, kept up to date until it is dropped.
#[derive(Debug)]
pub struct Watched {
    held: Arc<Held>,
    task: tokio::task::AbortHandle,
}

impl Watched {
    /// Takes what is there here and now, since a handshake may come next, and keeps `held` as its source says from then on. Blocks, 2 seconds at most
    /// for a server; needs a tokio runtime.
    pub(super) fn start(held: Arc<Held>, supply: Supply, registry: &Arc<Registry>) -> Self {
        let (kept, registry) = (Arc::clone(&held), Arc::clone(registry));
        let task = match supply {
            Supply::Files(files) => {
                held.offer(files.read(), SystemTime::now());
                tokio::spawn(follow(kept, files, registry))
            }
            Supply::Sds(sds) => {
                let (first, outcome) = sync_channel(1);
                let task = tokio::spawn(sds::follow(kept, sds, registry, first));
                if outcome.recv_timeout(START).is_err() {
                    tracing::warn!(identity = %held.name(), "the start does not wait any longer for a certificate");
                }
                task
            }
        };
        Self { held, task: task.abort_handle() }
    }

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

/// A name becomes a part of a path: only what Kubernetes allows in the name of a Secret.
pub(super) fn secret_name(name: &str) -> Result<&str, Error> {
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
