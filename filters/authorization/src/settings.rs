//! What a source can say: policies as Istio's AuthorizationPolicy has them.

use crate::custom::{Custom, Failures};
use filter_api::Origin;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// All policies in force at one port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The policies, in the order in which they are tried within an action. Shared: every port of a workload has the same.
    pub policies: Arc<Vec<Policy>>,
    /// Who decides what CUSTOM policies hold for; one for a workload, as in Istio.
    pub custom: Option<Arc<Custom>>,
    /// Which port of the application a connection is for.
    pub destination_port: DestinationPort,
}

/// How `ports` and `destination.port` learn the port of the application.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DestinationPort {
    /// It is the port that the connection was made to.
    #[default]
    Connection,
    /// It is this one, whatever port the connection was made to.
    Fixed(u16),
    /// The route decides it, later: a rule that asks for it denies, and does not allow.
    Unknown,
}

/// One AuthorizationPolicy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// Where it was written.
    pub origin: Origin,
    /// Its namespace, also that of service accounts without one.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What happens when a rule holds.
    pub action: Action,
    /// Decides and is recorded, and changes nothing (`istio.io/dry-run`).
    pub dry_run: bool,
    /// Why it refuses everything although nobody wrote so: it stands for a policy that could not be read.
    pub closed: Option<String>,
    /// The rules, any of which may hold. None: an ALLOW policy allows nothing, the others do nothing.
    pub rules: Vec<Rule>,
}

/// What happens when a rule of a policy holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// The request is allowed; once there is such a policy, whatever none of them allows is refused.
    #[default]
    Allow,
    /// The request is refused.
    Deny,
    /// The request is recorded.
    Audit,
    /// A provider decides.
    Custom {
        /// Its name in the mesh configuration.
        provider: String,
        /// What becomes of a request without a verdict.
        #[serde(default)]
        failures: Failures,
        /// How long a verdict is good for the same question; `None`: each request is asked about.
        #[serde(default)]
        cache: Option<Duration>,
    },
}

/// Who, what and when: all three have to hold. A rule that says nothing holds always.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rule {
    /// Where it was written.
    pub origin: Origin,
    /// Callers, any of which may hold; none: any caller.
    pub from: Vec<Source>,
    /// Operations, any of which may hold; none: any operation.
    pub to: Vec<Operation>,
    /// Conditions, all of which have to hold.
    pub when: Vec<Condition>,
}

/// Properties of a caller, all of which have to hold; an empty list says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Source {
    /// Identities of the peer, `cluster.local/ns/shop/sa/cart`.
    pub principals: Vec<String>,
    /// The same, excluded.
    pub not_principals: Vec<String>,
    /// Identities of the token, `issuer/subject`.
    pub request_principals: Vec<String>,
    /// The same, excluded.
    pub not_request_principals: Vec<String>,
    /// Namespaces of the peer.
    pub namespaces: Vec<String>,
    /// The same, excluded.
    pub not_namespaces: Vec<String>,
    /// Service accounts of the peer, `namespace/account` or `account` in the namespace of the policy.
    pub service_accounts: Vec<String>,
    /// The same, excluded.
    pub not_service_accounts: Vec<String>,
    /// Trust domains of the peer.
    pub trust_domains: Vec<String>,
    /// The same, excluded.
    pub not_trust_domains: Vec<String>,
    /// Addresses of the peer of the connection, single ones or CIDR blocks.
    pub ip_blocks: Vec<String>,
    /// The same, excluded.
    pub not_ip_blocks: Vec<String>,
    /// Addresses of the client, as PROXY protocol or `x-forwarded-for` of trusted hops say.
    pub remote_ip_blocks: Vec<String>,
    /// The same, excluded.
    pub not_remote_ip_blocks: Vec<String>,
}

/// Properties of a request, all of which have to hold; an empty list says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Operation {
    /// Hosts; without a port they match at any port.
    pub hosts: Vec<String>,
    /// The same, excluded.
    pub not_hosts: Vec<String>,
    /// Ports of the application.
    pub ports: Vec<String>,
    /// The same, excluded.
    pub not_ports: Vec<String>,
    /// Methods.
    pub methods: Vec<String>,
    /// The same, excluded.
    pub not_methods: Vec<String>,
    /// Paths without query, also with the operators `{*}` and `{**}`. For gRPC `/package.Service/Method`.
    pub paths: Vec<String>,
    /// The same, excluded.
    pub not_paths: Vec<String>,
}

/// A condition on one attribute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Condition {
    /// The attribute, `request.headers[x-tenant]`.
    pub key: String,
    /// Values of which one has to match.
    pub values: Vec<String>,
    /// Values of which none may match.
    pub not_values: Vec<String>,
}
