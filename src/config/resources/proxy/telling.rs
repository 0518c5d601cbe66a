//! What a `Proxy` tells of its decisions, and what it keeps to itself.

use crate::telemetry::redact::{MaskRule, Rules, Sort};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What it tells of its decisions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Explain {
    /// Whether every refusal carries its id in the header `x-sidegate-decision`.
    pub header: bool,
    /// How many percent of the requests that pass are remembered. Refusals are always.
    pub allowed_percent: f64,
}

/// What is hidden of what is written down, besides credentials in headers, secret query values and tokens, which always are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Redaction {
    /// Further headers whose values are hidden.
    pub headers: Vec<String>,
    /// Further query parameters whose values are hidden.
    pub query: Vec<String>,
    /// What is hidden within texts.
    pub masks: Vec<Mask>,
    /// The key of pseudonyms; absent is a random one of the process.
    pub pseudonym_key: Option<PseudonymKey>,
}

/// What is hidden within texts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Mask {
    /// What is looked for.
    pub find: Find,
    /// The expression (RE2), with `find: Pattern`.
    pub pattern: Option<String>,
    /// Whether a pseudonym stands in for it: the same for the same value, HMAC-SHA256 under the key.
    pub pseudonym: bool,
}

/// What a mask looks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub enum Find {
    /// What the expression finds.
    #[default]
    Pattern,
    /// Mail addresses.
    Email,
    /// Phone numbers.
    Phone,
    /// Numbers of payment cards.
    Card,
}

/// The key of pseudonyms.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PseudonymKey {
    /// The file that holds it: 32 bytes or more, read when the configuration changes.
    pub file: String,
}

impl Redaction {
    /// The same as telemetry knows it. The key is not read yet.
    #[must_use]
    pub fn rules(&self) -> Rules {
        let mask = |mask: &Mask| MaskRule {
            sort: match mask.find {
                Find::Pattern => Sort::Pattern(mask.pattern.clone().unwrap_or_default()),
                Find::Email => Sort::Email,
                Find::Phone => Sort::Phone,
                Find::Card => Sort::Card,
            },
            pseudonym: mask.pseudonym,
        };
        Rules {
            headers: self.headers.clone(),
            query: self.query.clone(),
            masks: self.masks.iter().map(mask).collect(),
            key: None,
        }
    }
}

impl Default for Explain {
    fn default() -> Self {
        Self { header: false, allowed_percent: 0.1 }
    }
}
