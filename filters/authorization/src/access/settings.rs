//! What a source can say: policies as `kind: AccessPolicy` has them.

use crate::settings::DestinationPort;
use filter_api::Origin;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// All policies in force at one port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The policies, in the order in which their rules are tried. Shared: every port of a workload has the same.
    pub policies: Arc<Vec<Policy>>,
    /// Which port of the application a connection is for.
    pub destination_port: DestinationPort,
}

/// One AccessPolicy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// Where it was written.
    pub origin: Origin,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Decides and is recorded, and changes nothing (`mode: Shadow`).
    pub shadow: bool,
    /// Why it refuses everything although nobody wrote so: it stands for a policy that could not be read.
    pub closed: Option<String>,
    /// The rules; the first that holds decides.
    pub rules: Vec<Rule>,
    /// Whether a request passes for which no rule holds. Of several policies all have to say so.
    pub allows_by_default: bool,
    /// How old what a caller shows may be.
    pub session: Session,
    /// What `risk.score` is made of.
    pub risk: Risk,
    /// Who has which permissions.
    pub roles: Vec<Role>,
    /// Which requests need a permission. One that several cover needs one of them.
    pub permissions: Vec<Permission>,
}

/// What is decided about which requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rule {
    /// Where it was written.
    pub origin: Origin,
    /// Its name; may be empty.
    pub name: String,
    /// Requests, any of which may match; none: all.
    pub matches: Vec<Match>,
    /// Conditions, all of which have to hold.
    pub when: Vec<Condition>,
    /// What is decided.
    pub effect: Effect,
    /// Headers for the upstream of a request that it allows. A copy that the client sent is taken away first, whatever is decided.
    pub add_headers: Vec<(String, String)>,
    /// Whether it leaves a record of what it decided.
    pub audit: bool,
}

/// What a rule decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// The request passes.
    Allow,
    /// The caller has to authenticate more strongly: 401 with a challenge (RFC 9470).
    StepUp,
    /// The request is refused: 403.
    #[default]
    Deny,
}

/// Properties of a request, all of which have to hold; an empty list says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Match {
    /// Methods.
    pub methods: Vec<String>,
    /// Paths without query, also with the operators `{*}` and `{**}`.
    pub paths: Vec<String>,
    /// Hosts; without a port they match at any port.
    pub hosts: Vec<String>,
    /// Headers by name, each with its pattern.
    pub headers: Vec<(String, String)>,
}

/// A condition on one attribute.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Condition {
    /// The attribute: one of AuthorizationPolicy, or `request.time`, `connection.tls`, `session.age`, `risk.score`, `request.permissions`.
    pub key: String,
    /// Values of which one has to match.
    pub values: Vec<String>,
    /// Values of which none may match.
    pub not_values: Vec<String>,
    /// The window of `request.time`.
    pub within: Option<Within>,
    /// `session.age` and `risk.score` have to be greater.
    pub above: Option<Threshold>,
    /// They have to be less.
    pub below: Option<Threshold>,
}

/// A bound of `risk.score` or `session.age`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Threshold {
    /// A score, from 0 to 1.
    Number(f64),
    /// An age.
    Age(Duration),
}

/// Hours of the wall clock of a zone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Within {
    /// Days on which the window begins; none: every day.
    pub days: Vec<Day>,
    /// When it begins, `08:00`; absent: at midnight.
    pub from: Option<String>,
    /// When it is over, `18:00`; absent: at midnight. Before `from`: on the next day.
    pub to: Option<String>,
    /// IANA name of the zone, `Europe/Berlin`; absent: UTC.
    pub zone: Option<String>,
}

/// A day of the week.
#[allow(missing_docs, reason = "their names say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// How old what a caller shows may be. What is not there is not too old: rules say what has to be there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Session {
    /// The most time since `iat` of the token. A token without `iat` is too old.
    pub max_token_age: Option<Duration>,
    /// The most time since the certificate of the peer became valid.
    pub max_certificate_age: Option<Duration>,
    /// Whether connections that a new version no longer allows are closed.
    pub revoke_existing: bool,
}

/// What `risk.score` is made of; the sum is at most 1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Risk {
    /// A header that says a score.
    pub header: Option<RiskHeader>,
    /// What a source that was never let in before adds.
    pub new_source: f64,
    /// What a source adds that was refused five times of late; fewer times add less.
    pub failed_attempts: f64,
    /// What a peer without certificate adds.
    pub no_client_certificate: f64,
}

/// A header that says a score from 0 to 1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RiskHeader {
    /// Its name.
    pub name: String,
    /// Peers that are believed, as principals. The header of others is taken away.
    pub from: Vec<String>,
}

/// Permissions that a claim gives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Role {
    /// The claim: `roles`, or `[realm_access][roles]`.
    pub claim: String,
    /// Its value, or one of its list.
    pub value: String,
    /// Names of permissions.
    pub permissions: Vec<String>,
}

/// A permission, and the requests that need it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Permission {
    /// `resource:action`.
    pub name: String,
    /// The requests, any of which may match; none: all.
    pub matches: Vec<Match>,
}
