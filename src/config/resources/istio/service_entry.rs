//! Istio's `ServiceEntry` and `WorkloadEntry`: services and workloads that Kubernetes does not know.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::LabelsSelector;
use crate::mesh::Labels;

/// A service that Kubernetes does not know.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceEntry {
    /// Its names.
    pub hosts: Vec<String>,
    /// Its virtual addresses, or CIDR.
    pub addresses: Vec<String>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Inside or outside of the mesh.
    pub location: Option<Location>,
    /// How its endpoints are found.
    pub resolution: Option<Resolution>,
    /// Its endpoints.
    pub endpoints: Vec<WorkloadEntry>,
    /// Pods and WorkloadEntries that are its endpoints.
    pub workload_selector: Option<LabelsSelector>,
    /// The namespaces that see it: `.`, `*`, or names.
    pub export_to: Vec<String>,
    /// Names of which the server must prove one.
    pub subject_alt_names: Vec<String>,
}

/// A port of a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    /// The port that clients address.
    pub number: u16,
    /// HTTP, HTTPS, GRPC, HTTP2, MONGO, TCP or TLS.
    pub protocol: Option<String>,
    /// Its name.
    pub name: String,
    /// The port of the endpoints, the same when absent.
    pub target_port: Option<u16>,
}

/// Inside or outside of the mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Location {
    /// Outside: no mesh identity.
    #[default]
    MeshExternal,
    /// Inside.
    MeshInternal,
}

/// How endpoints are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Resolution {
    /// The address that the client asked for.
    #[default]
    None,
    /// As listed.
    Static,
    /// By DNS, every address.
    Dns,
    /// By DNS, the first address.
    DnsRoundRobin,
    /// By DNS, for the name that the client asked for.
    DynamicDns,
}

/// One workload outside of Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadEntry {
    /// Its address, name, or `unix:///path`.
    pub address: Option<String>,
    /// Its ports by the name of the service port.
    pub ports: BTreeMap<String, u16>,
    /// Its labels.
    pub labels: Labels,
    /// Its network.
    pub network: Option<String>,
    /// Its `region/zone/subzone`.
    pub locality: Option<String>,
    /// Its share, 1 when absent.
    pub weight: Option<u32>,
    /// Its service account.
    pub service_account: Option<String>,
}
