//! What is audited.

use super::Origin;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What is recorded of the workload, and where. Refusals always are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Audit {
    /// How many of a hundred requests that were let in are recorded.
    pub allowed_percent: f64,
    /// Configurations are.
    pub configuration: bool,
    /// Certificates and roots are.
    pub certificate: bool,
    /// Calls of the admin interface that change something are.
    pub admin: bool,
    /// The file.
    pub path: PathBuf,
    /// Bytes of a file before another one is begun.
    pub max_size: u64,
    /// How many files are kept beside it.
    pub keep: u32,
    /// Records are on disk before their place in the queue is free again; else within a second.
    pub sync_always: bool,
    /// A request that cannot be recorded is refused at once; else it waits.
    pub deny_when_full: bool,
    /// Where it was written.
    pub origin: Origin,
}
