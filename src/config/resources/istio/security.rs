//! Istio's security kinds: who may connect, which tokens count, and who may do what.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{MatchLabels, TargetReference};
use crate::config::resources::scalar::Duration;

/// Whether callers must use mutual TLS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PeerAuthentication {
    /// The workloads; absent is the whole namespace.
    pub selector: Option<MatchLabels>,
    /// The mode for all ports.
    pub mtls: Option<MutualTls>,
    /// The mode by port of the workload.
    pub port_level_mtls: BTreeMap<String, MutualTls>,
}

/// The mode of mutual TLS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MutualTls {
    /// The mode.
    pub mode: MutualTlsMode,
}

/// Whether callers must use mutual TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MutualTlsMode {
    /// As the parent says.
    #[default]
    Unset,
    /// Plain text only.
    Disable,
    /// Both.
    Permissive,
    /// Mutual TLS only.
    Strict,
}

/// Which tokens count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestAuthentication {
    /// The workloads; absent is the whole namespace.
    pub selector: Option<MatchLabels>,
    /// The object it is attached to.
    pub target_ref: Option<TargetReference>,
    /// The objects it is attached to.
    pub target_refs: Vec<TargetReference>,
    /// The issuers, any of which may hold.
    pub jwt_rules: Vec<JwtRule>,
}

/// One issuer of tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JwtRule {
    /// The `iss` claim.
    pub issuer: String,
    /// Audiences of which one must be named.
    pub audiences: Vec<String>,
    /// Where the keys are.
    pub jwks_uri: Option<String>,
    /// The keys themselves.
    pub jwks: Option<String>,
    /// Headers that may carry the token.
    pub from_headers: Vec<JwtHeader>,
    /// Query parameters that may.
    pub from_params: Vec<String>,
    /// Cookies that may.
    pub from_cookies: Vec<String>,
    /// The header that gets the claims, as base64url.
    pub output_payload_to_header: Option<String>,
    /// Whether the token is kept.
    pub forward_original_token: Option<bool>,
    /// Headers that get single claims.
    pub output_claim_to_headers: Vec<ClaimToHeader>,
    /// The most time for fetching the keys, 5 s when absent.
    pub timeout: Option<Duration>,
    /// Claims that hold lists separated by spaces.
    pub space_delimited_claims: Vec<String>,
}

/// A header that may carry the token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JwtHeader {
    /// Its name.
    pub name: String,
    /// What comes before the token.
    pub prefix: Option<String>,
}

/// A header that gets a claim.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimToHeader {
    /// The header.
    pub header: String,
    /// The claim.
    pub claim: String,
}

/// Who may do what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthorizationPolicy {
    /// The workloads; absent is the whole namespace.
    pub selector: Option<MatchLabels>,
    /// The object it is attached to.
    pub target_ref: Option<TargetReference>,
    /// The objects it is attached to.
    pub target_refs: Vec<TargetReference>,
    /// The rules, any of which may hold; none never holds.
    pub rules: Vec<Rule>,
    /// What happens when one holds.
    pub action: AuthorizationAction,
    /// Who decides, for `CUSTOM`.
    pub provider: Option<AuthorizationProvider>,
}

/// What happens when a rule holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AuthorizationAction {
    /// The request is allowed.
    #[default]
    Allow,
    /// The request is refused.
    Deny,
    /// The request is recorded.
    Audit,
    /// An extension provider decides.
    Custom,
}

/// An extension provider.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthorizationProvider {
    /// Its name in the mesh configuration.
    pub name: String,
}

/// Who, what and when; all three must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// Callers, any of which may hold; empty is any.
    pub from: Vec<From>,
    /// Operations, any of which may hold; empty is any.
    pub to: Vec<To>,
    /// Further conditions, all of which must hold.
    pub when: Vec<Condition>,
}

/// A caller.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct From {
    /// Its properties.
    pub source: Option<PolicySource>,
}

/// Properties of a caller, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicySource {
    /// Identities of the peer.
    pub principals: Vec<String>,
    /// Identities of the peer, excluded.
    pub not_principals: Vec<String>,
    /// Identities of the token, `iss/sub`.
    pub request_principals: Vec<String>,
    /// Identities of the token, excluded.
    pub not_request_principals: Vec<String>,
    /// Namespaces of the peer.
    pub namespaces: Vec<String>,
    /// Namespaces of the peer, excluded.
    pub not_namespaces: Vec<String>,
    /// Service accounts of the peer.
    pub service_accounts: Vec<String>,
    /// Service accounts of the peer, excluded.
    pub not_service_accounts: Vec<String>,
    /// Addresses of the peer, as CIDR.
    pub ip_blocks: Vec<String>,
    /// Addresses of the peer, excluded.
    pub not_ip_blocks: Vec<String>,
    /// Addresses of the client, as CIDR.
    pub remote_ip_blocks: Vec<String>,
    /// Addresses of the client, excluded.
    pub not_remote_ip_blocks: Vec<String>,
    /// Trust domains of the peer.
    pub trust_domains: Vec<String>,
    /// Trust domains of the peer, excluded.
    pub not_trust_domains: Vec<String>,
}

/// An operation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct To {
    /// Its properties.
    pub operation: Option<Operation>,
}

/// Properties of a request, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Operation {
    /// Hosts.
    pub hosts: Vec<String>,
    /// Hosts, excluded.
    pub not_hosts: Vec<String>,
    /// Ports of the workload.
    pub ports: Vec<String>,
    /// Ports of the workload, excluded.
    pub not_ports: Vec<String>,
    /// Methods.
    pub methods: Vec<String>,
    /// Methods, excluded.
    pub not_methods: Vec<String>,
    /// Paths.
    pub paths: Vec<String>,
    /// Paths, excluded.
    pub not_paths: Vec<String>,
}

/// A condition on an attribute.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// The attribute.
    pub key: String,
    /// Values of which one must be equal.
    pub values: Vec<String>,
    /// Values of which none may be equal.
    pub not_values: Vec<String>,
}
