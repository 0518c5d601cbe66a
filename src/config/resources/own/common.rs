//! What several own kinds share.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether an object acts or is only tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub enum Mode {
    /// It does what it says.
    #[default]
    Enforce,
    /// It decides, counts and explains, and changes nothing.
    Shadow,
}

/// Requests that have all of these properties; an empty list says nothing. Texts are exact, `prefix*`, `*suffix` or `*`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestMatch {
    /// Methods.
    pub methods: Vec<String>,
    /// Paths without query, also with the operators `{*}` and `{**}`.
    pub paths: Vec<String>,
    /// Hosts; without a port they match at any port.
    pub hosts: Vec<String>,
    /// Headers by name.
    pub headers: BTreeMap<String, String>,
}
