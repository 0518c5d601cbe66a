//! Key material that is followed for as long as somebody uses it.

use std::sync::Arc;
use std::time::SystemTime;

use super::error::Error;
use super::files::{Files, follow};
use super::held::Held;
use crate::telemetry::metrics::Registry;

/// What files hold, kept up to date until it is dropped.
#[derive(Debug)]
pub struct Watched {
    held: Arc<Held>,
    task: tokio::task::AbortHandle,
}

impl Watched {
    /// Reads the files here and now, since a handshake may come next, and keeps `held` as they are from then on. Blocks; needs a tokio runtime.
    pub(super) fn start(held: Arc<Held>, files: Files, registry: &Arc<Registry>) -> Self {
        held.offer(files.read(), SystemTime::now());
        let task = tokio::spawn(follow(Arc::clone(&held), files, Arc::clone(registry))).abort_handle();
        Self { held, task }
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
