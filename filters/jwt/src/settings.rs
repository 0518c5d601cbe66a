//! What a source can say.

use filter_api::Origin;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The tokens that a port takes. With neither rules nor refusals every request passes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The issuers. A request passes without a token, or with one that any of them vouches for.
    pub rules: Vec<Rule>,
    /// Objects that would say which tokens count and are not valid: no token can be trusted until they are.
    pub broken: Vec<Origin>,
}

/// One issuer of tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rule {
    /// Where it was written; `explain` and the record name it.
    pub origin: Origin,
    /// The `iss` claim, compared letter by letter.
    pub issuer: String,
    /// Audiences of which the token has to name one; empty: any token. As in Envoy, `http://`, `https://` and a slash at the end do not count.
    pub audiences: Vec<String>,
    /// Where the keys are.
    pub keys: Keys,
    /// Where tokens are looked for. Empty: the header `authorization` after `Bearer`, and the query parameter `access_token`.
    pub places: Vec<Place>,
    /// Whether the token goes on to the upstream.
    pub forward: bool,
    /// A header that gets the payload, as base64url.
    pub payload_header: Option<String>,
    /// Headers that get single claims.
    pub claim_headers: Vec<ClaimHeader>,
    /// Claims that are lists written as one text, besides `scope` and `permission`.
    pub space_delimited: Vec<String>,
    /// How far the clock of the issuer may differ. Absent: 60 s, as Envoy has it.
    pub leeway: Option<Duration>,
}

/// Where keys are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Keys {
    /// Here: the JSON of a key set.
    Inline(String),
    /// There, to be fetched.
    Fetched {
        /// Where.
        uri: String,
        /// The most time for one fetch, and for a request that waits for the first.
        timeout: Duration,
    },
}

/// Where a token may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// In a header.
    Header {
        /// Its name.
        name: String,
        /// What comes before the token, `Bearer ` for example; a value that starts otherwise holds no token.
        prefix: String,
    },
    /// In a query parameter of this name.
    Parameter(String),
    /// In a cookie of this name.
    Cookie(String),
}

/// A header that gets a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimHeader {
    /// The header.
    pub header: String,
    /// The claim, `address.city` for one within another.
    pub claim: String,
}

impl Default for Keys {
    fn default() -> Self {
        Self::Inline(String::new())
    }
}
