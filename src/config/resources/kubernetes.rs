//! The Kubernetes objects that say which services and endpoints exist.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::scalar::{IntOrString, Timestamp};
use super::unread::Unread;
use crate::mesh::{Labels, Word};

/// A Kubernetes Service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    /// Its virtual address; `None` is headless.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<Box<str>>,
    /// Its virtual addresses, one by family.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Box<[Box<str>]>,
    /// Its type, `ClusterIP` when absent.
    #[serde(rename = "type")]
    pub service_type: Option<ServiceType>,
    /// Its ports.
    pub ports: Box<[ServicePort]>,
    /// Labels of its pods.
    pub selector: Labels,
    /// The DNS name that it stands for.
    pub external_name: Option<Box<str>>,
    /// Further addresses.
    #[serde(rename = "externalIPs")]
    pub external_ips: Unread<Vec<String>>,
    /// How many families it has.
    pub ip_family_policy: Unread<Option<String>>,
    /// Its families.
    pub ip_families: Unread<Vec<String>>,
    /// Affinity of kube-proxy.
    pub session_affinity: Unread<Option<String>>,
    /// Its settings.
    pub session_affinity_config: Unread<Option<SessionAffinityConfig>>,
    /// Whether endpoints that are not ready count.
    pub publish_not_ready_addresses: Option<bool>,
    /// `Cluster` or `Local`.
    pub internal_traffic_policy: Unread<Option<String>>,
    /// `Cluster` or `Local`.
    pub external_traffic_policy: Unread<Option<String>>,
    /// A preference for near endpoints.
    pub traffic_distribution: Unread<Option<String>>,
    /// Deprecated address of a load balancer.
    #[serde(rename = "loadBalancerIP")]
    pub load_balancer_ip: Unread<Option<String>>,
    /// Who makes the load balancer.
    pub load_balancer_class: Unread<Option<String>>,
    /// Clients of the load balancer.
    pub load_balancer_source_ranges: Unread<Vec<String>>,
    /// Whether it has node ports.
    pub allocate_load_balancer_node_ports: Unread<Option<bool>>,
    /// The port of node checks.
    pub health_check_node_port: Unread<Option<u16>>,
}

/// The type of a Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub enum ServiceType {
    /// A virtual address.
    #[default]
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    /// And a port on each node.
    NodePort,
    /// And a load balancer.
    LoadBalancer,
    /// A DNS name.
    ExternalName,
}

/// A port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(rename = "KubernetesServicePort")]
pub struct ServicePort {
    /// Its name, whose prefix may name the protocol.
    pub name: Option<Word>,
    /// `TCP` when absent.
    pub protocol: Option<Word>,
    /// The protocol of the application.
    pub app_protocol: Option<Word>,
    /// The port that clients address.
    pub port: u16,
    /// The port of the pods, by number or name; the same when absent.
    pub target_port: Option<IntOrString>,
    /// The port on each node.
    pub node_port: Unread<Option<u16>>,
}

/// Settings of affinity.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionAffinityConfig {
    /// By address of the client.
    #[serde(rename = "clientIP")]
    pub client_ip: Option<ClientIpConfig>,
}

/// Affinity by address of the client.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientIpConfig {
    /// How long it lasts.
    pub timeout_seconds: Option<u32>,
}

/// A Kubernetes EndpointSlice: endpoints of a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSlice {
    /// `IPv4`, `IPv6` or `FQDN`.
    pub address_type: Option<Word>,
    /// The endpoints.
    pub endpoints: Box<[SliceEndpoint]>,
    /// Their ports.
    pub ports: Box<[SlicePort]>,
}

/// One endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SliceEndpoint {
    /// Its addresses, all of the same workload.
    pub addresses: Box<[Box<str>]>,
    /// Whether it is ready.
    pub conditions: Option<EndpointConditions>,
    /// Its host name.
    pub hostname: Option<String>,
    /// The pod behind it.
    pub target_ref: Option<ObjectReference>,
    /// Its node.
    pub node_name: Unread<Option<String>>,
    /// Its zone.
    pub zone: Option<Word>,
    /// Zones that should use it.
    pub hints: Unread<Option<EndpointHints>>,
    /// Deprecated labels of its place.
    pub deprecated_topology: Labels,
}

/// Whether an endpoint is ready.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointConditions {
    /// Ready for traffic; absent is true.
    pub ready: Option<bool>,
    /// Able to serve, even when it ends.
    pub serving: Option<bool>,
    /// About to end.
    pub terminating: Option<bool>,
}

/// Zones that should use an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointHints {
    /// The zones.
    pub for_zones: Vec<ForZone>,
    /// The nodes.
    pub for_nodes: Vec<ForZone>,
}

/// A zone or node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ForZone {
    /// Its name.
    pub name: String,
}

/// Another object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectReference {
    /// Its group and version.
    pub api_version: Unread<Option<String>>,
    /// Its kind.
    pub kind: Unread<Option<String>>,
    /// Its name.
    pub name: Option<Box<str>>,
    /// Its namespace.
    pub namespace: Unread<Option<String>>,
    /// Its identity.
    pub uid: Unread<Option<String>>,
    /// Its version.
    pub resource_version: Unread<Option<String>>,
    /// A part of it.
    pub field_path: Unread<Option<String>>,
}

/// A port of the endpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SlicePort {
    /// The name of the service port.
    pub name: Option<Word>,
    /// `TCP` when absent.
    pub protocol: Option<Word>,
    /// The number; absent is any.
    pub port: Option<u16>,
    /// The protocol of the application.
    pub app_protocol: Option<Word>,
}

/// A Kubernetes ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigMap {
    /// Text by key.
    pub data: BTreeMap<String, String>,
    /// Base64 by key.
    pub binary_data: BTreeMap<String, String>,
    /// Whether it never changes.
    pub immutable: Option<bool>,
}

/// What every object says about itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    /// Its labels.
    pub labels: Labels,
    /// Its annotations.
    pub annotations: Labels,
    /// When it was made; the older of two objects wins.
    pub creation_timestamp: Option<Timestamp>,
    /// How often its spec was changed.
    pub generation: Unread<Option<u64>>,
    /// Its version.
    pub resource_version: Unread<Option<String>>,
    /// Its identity.
    pub uid: Unread<Option<String>>,
}
