//! What is audited, and where to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::resources::istio::common::MatchLabels;
use crate::config::resources::scalar::Quantity;

/// What is audited, and where to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AuditPolicy {
    /// The workloads; absent is the whole namespace, of the root namespace the mesh.
    pub selector: Option<MatchLabels>,
    /// What is recorded. Refusals always are.
    pub events: Vec<AuditEvent>,
    /// How many of a hundred requests that were let in are recorded; absent is all of them. Needs `Allowed`.
    pub allowed_percent: Option<f64>,
    /// Where it is recorded.
    pub file: AuditFile,
    /// What becomes of a request that cannot be recorded.
    pub when_full: WhenFull,
}

/// What may be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub enum AuditEvent {
    /// Requests and connections that a security object refused.
    Denied,
    /// Those that were let in.
    Allowed,
    /// Configurations that came into force or were refused.
    Configuration,
    /// Certificates and roots that came into force or were kept out.
    Certificate,
    /// Calls of the admin interface that change something.
    Admin,
}

/// The file that an audit is written to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AuditFile {
    /// Its absolute path; the folder must exist.
    pub path: String,
    /// A file of this size is moved away, and another one begun.
    pub max_size: Quantity,
    /// How many that were moved away are kept.
    pub keep: u32,
    /// When records are on disk.
    pub sync: AuditSync,
}

/// When records are on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub enum AuditSync {
    /// Before their place in the queue is free again.
    Always,
    /// Within a second.
    #[default]
    Interval,
}

/// What becomes of a request that cannot be recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub enum WhenFull {
    /// It waits, within its timeouts.
    #[default]
    Block,
    /// It is refused: 503.
    Deny,
}

impl Default for AuditPolicy {
    fn default() -> Self {
        use AuditEvent::{Admin, Certificate, Configuration, Denied};
        Self {
            selector: None,
            events: vec![Denied, Configuration, Certificate, Admin],
            allowed_percent: None,
            file: AuditFile::default(),
            when_full: WhenFull::default(),
        }
    }
}

impl Default for AuditFile {
    fn default() -> Self {
        Self { path: String::new(), max_size: Quantity(64 << 20), keep: 10, sync: AuditSync::default() }
    }
}
