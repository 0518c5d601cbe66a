//! What a source can say.

use filter_api::Origin;
use serde::{Deserialize, Serialize};

/// Everything one route or destination changes. All of it is optional.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Where it was written; `explain` and the record name it.
    pub origin: Origin,
    /// Changes to the request head.
    pub request_headers: HeaderChanges,
    /// Changes to the response head.
    pub response_headers: HeaderChanges,
    /// A new path. The query is kept.
    pub path: Option<PathRewrite>,
    /// A new authority, `host` or `host:port`. That of the route wins over that of a destination, as Istio has it.
    pub authority: Option<String>,
    /// An answer instead of forwarding.
    pub reply: Option<Reply>,
}

/// Changes to a set of header fields, in this order: remove, set, add.
///
/// Where several settings have some, they apply one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeaderChanges {
    /// Names to remove.
    pub remove: Vec<String>,
    /// Replaces all fields of the name.
    pub set: Vec<HeaderChange>,
    /// Appends a field of the name.
    pub add: Vec<HeaderChange>,
}

/// A header field to set or add.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderChange {
    /// Field name, in any case.
    pub name: String,
    /// Value, taken literally.
    pub value: String,
}

/// How the path changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathRewrite {
    /// The path becomes this.
    Full(String),
    /// What the route matched as a prefix is replaced, text by text (Envoy's `prefix_rewrite`): `/api` to `/` makes `//x` of `/api/x`, as Istio
    /// has it for VirtualServices, whose authors write `/api/` to `/`. Gateway API routes match whole segments; Istio translates their
    /// replacement by `/` to the pattern `^/api(/?)(.*)` with `/\2`, and so does whoever makes these settings from them.
    Prefix {
        /// The prefix that the route matched. The comparison ignores ASCII case when the route's does.
        matched: String,
        /// What takes its place.
        with: String,
    },
    /// Every match of the pattern is replaced (Istio's `uriRegexRewrite`, Envoy's `regex_rewrite`).
    Regex {
        /// RE2 pattern.
        pattern: String,
        /// Replacement; `\0` is the whole match, `\1` the first group, `\\` a backslash.
        with: String,
    },
}

/// An answer of our own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Send the client elsewhere.
    Redirect(Redirect),
    /// A fixed answer.
    Direct {
        /// HTTP status, 200 to 599.
        status: u16,
        /// Body bytes.
        body: Vec<u8>,
    },
}

/// Where a redirect leads; what is absent stays as in the request, the query too.
///
/// The request's own port goes along with its own host unless it was the default of the request's scheme or is that of the new one (Envoy). Any
/// other port, `:8443`, stays, also when the scheme changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// `host` or `host:port`; without a port here when `port` is set.
    pub authority: Option<String>,
    /// Port, left out where it is the scheme's default. Absent: that of `authority` when there is one, the request's own otherwise.
    pub port: Option<u16>,
    /// The path.
    pub path: Option<RedirectPath>,
}

/// The path of a redirect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RedirectPath {
    /// The whole path; the query is dropped when it brings its own, else kept.
    Full(String),
    /// What the route matched as a prefix is replaced.
    Prefix {
        /// The prefix that the route matched.
        matched: String,
        /// What takes its place.
        with: String,
    },
}
