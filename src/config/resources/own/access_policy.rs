//! Sidegate's `AccessPolicy`: zero trust beyond AuthorizationPolicy. A request has to be allowed by both.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::common::{Mode, RequestMatch};
use crate::config::resources::istio::common::MatchLabels;
use crate::config::resources::scalar::{Duration, Parsed};

/// Who may do what, when, how freshly authenticated and at what risk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessPolicy {
    /// The workloads; absent is the whole namespace, in the root namespace the mesh.
    pub selector: Option<MatchLabels>,
    /// A destination instead of workloads.
    pub host: Option<String>,
    /// A subset of it.
    pub subset: Option<String>,
    /// Whether it acts or is only tried.
    pub mode: Mode,
    /// Of several policies for one place the rules of the lower number are tried first; absent is 0.
    pub priority: i32,
    /// The rules; the first that holds decides.
    pub rules: Vec<AccessRule>,
    /// What happens when none holds.
    pub default: AccessDefault,
    /// How old what a caller shows may be.
    pub session: AccessSession,
    /// What `risk.score` is made of.
    pub risk: AccessRisk,
    /// Who has which permissions.
    pub roles: Vec<AccessRole>,
    /// Which requests need a permission.
    pub permissions: Vec<AccessPermission>,
}

/// What is decided about which requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessRule {
    /// Its name, for logs and explanations.
    pub name: String,
    /// Requests, any of which may match; empty is all.
    #[serde(rename = "match")]
    pub matches: Vec<RequestMatch>,
    /// Conditions, all of which must hold.
    pub when: Vec<AccessCondition>,
    /// What is decided.
    pub effect: Option<AccessEffect>,
    /// What is done beside it.
    pub actions: Vec<AccessAction>,
}

/// A condition on an attribute.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessCondition {
    /// The attribute: one of AuthorizationPolicy conditions, or `request.time`, `connection.tls`, `session.age`, `risk.score`,
    /// `request.permissions`.
    pub key: String,
    /// Values of which one must be equal.
    pub values: Vec<String>,
    /// Values of which none may be equal.
    pub not_values: Vec<String>,
    /// The window of `request.time`.
    pub within: Option<TimeWindow>,
    /// What `risk.score` or `session.age` must be greater than.
    pub above: Option<Threshold>,
    /// What they must be less than.
    pub below: Option<Threshold>,
}

/// Hours of the wall clock of a zone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TimeWindow {
    /// Days on which it begins; empty is every day.
    pub days: Vec<Weekday>,
    /// When it begins, `08:00`; absent is midnight.
    pub from: Option<String>,
    /// When it is over, `18:00`; absent is midnight, before `from` is the next day.
    pub to: Option<String>,
    /// IANA name of the zone; absent is UTC.
    pub zone: Option<String>,
}

/// A day of the week.
#[allow(missing_docs, reason = "their names say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Weekday {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// A bound: a score from 0 to 1, or a duration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Threshold {
    /// A score.
    Number(f64),
    /// A duration.
    Age(Duration),
}

/// What a rule decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub enum AccessEffect {
    /// The request passes.
    Allow,
    /// The caller has to authenticate more strongly: 401 with a challenge (RFC 9470).
    StepUp,
    /// The request is refused: 403.
    Deny,
}

/// What happens when no rule holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub enum AccessDefault {
    /// The request passes.
    Allow,
    /// The request is refused.
    #[default]
    Deny,
}

/// One thing that is done beside the decision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessAction {
    /// Writes a header to the upstream; a copy that the client sent is taken away.
    pub add_header: Option<AddHeader>,
    /// Spends from a limit.
    pub rate_limit: Option<String>,
    /// Leaves a record.
    pub audit: Option<AuditAction>,
}

/// A header for the upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AddHeader {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A record of what a rule decided. There is nothing to say about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditAction {}

/// How old what a caller shows may be. What is not there is not too old.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessSession {
    /// The most time since a token was issued; one that does not say it is too old.
    pub max_token_age: Option<Duration>,
    /// The most time since the certificate of the peer became valid.
    pub max_certificate_age: Option<Duration>,
    /// Whether connections that a new version no longer allows are closed.
    pub revoke_existing: bool,
}

/// What `risk.score` is made of; the sum is at most 1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessRisk {
    /// A header that says a score.
    pub header: Option<RiskHeader>,
    /// What was observed.
    pub signals: RiskSignals,
}

/// A header that says a score from 0 to 1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RiskHeader {
    /// Its name.
    pub name: String,
    /// Peers that are believed; the header of others is taken away.
    pub from: Vec<String>,
}

/// What observed facts add to the score, each from 0 to 1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RiskSignals {
    /// The source was never let in before, as far as this proxy remembers.
    pub new_source: f64,
    /// The source was refused five times of late; fewer times add less.
    pub failed_attempts: f64,
    /// The peer showed no certificate.
    pub no_client_certificate: f64,
}

/// Permissions that a claim gives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessRole {
    /// The claim: `roles`, or `[realm_access][roles]` for a nested one.
    pub claim: String,
    /// Its value, or one of its list.
    pub value: String,
    /// Names of permissions.
    pub permissions: Vec<String>,
}

/// A permission, and the requests that need it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessPermission {
    /// `resource:action`.
    pub name: String,
    /// The requests, any of which may match; empty is all.
    #[serde(rename = "match")]
    pub matches: Vec<RequestMatch>,
}

impl FromStr for Threshold {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.parse().ok().filter(|number: &f64| number.is_finite()).map(Self::Number);
        number
            .or_else(|| text.parse().ok().map(Self::Age))
            .ok_or("a bound is a number from 0 to 1, as in `0.3`, or a duration, as in `15m`")
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Age(age) => age.fmt(f),
        }
    }
}

impl Serialize for Threshold {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_f64(*number),
            Self::Age(age) => age.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Threshold {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Parsed::deserialize(deserializer)
    }
}

impl JsonSchema for Threshold {
    fn schema_name() -> Cow<'static, str> {
        "Threshold".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "number" }, { "type": "string" }], "x-kubernetes-preserve-unknown-fields": true })
    }
}
