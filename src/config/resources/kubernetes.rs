//! The Kubernetes objects that say which services and endpoints exist.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::scalar::{IntOrString, Timestamp};

/// A Kubernetes Service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    /// Its virtual address; `None` is headless.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    /// Its virtual addresses, one by family.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<String>,
    /// Its type, `ClusterIP` when absent.
    #[serde(rename = "type")]
    pub service_type: Option<ServiceType>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Labels of its pods.
    pub selector: BTreeMap<String, String>,
    /// The DNS name that it stands for.
    pub external_name: Option<String>,
    /// Further addresses.
    #[serde(rename = "externalIPs")]
    pub external_ips: Vec<String>,
    /// How many families it has.
    pub ip_family_policy: Option<String>,
    /// Its families.
    pub ip_families: Vec<String>,
    /// Affinity of kube-proxy.
    pub session_affinity: Option<String>,
    /// Its settings.
    pub session_affinity_config: Option<SessionAffinityConfig>,
    /// Whether endpoints that are not ready count.
    pub publish_not_ready_addresses: Option<bool>,
    /// `Cluster` or `Local`.
    pub internal_traffic_policy: Option<String>,
    /// `Cluster` or `Local`.
    pub external_traffic_policy: Option<String>,
    /// A preference for near endpoints.
    pub traffic_distribution: Option<String>,
    /// Deprecated address of a load balancer.
    #[serde(rename = "loadBalancerIP")]
    pub load_balancer_ip: Option<String>,
    /// Who makes the load balancer.
    pub load_balancer_class: Option<String>,
    /// Clients of the load balancer.
    pub load_balancer_source_ranges: Vec<String>,
    /// Whether it has node ports.
    pub allocate_load_balancer_node_ports: Option<bool>,
    /// The port of node checks.
    pub health_check_node_port: Option<u16>,
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
    pub name: Option<String>,
    /// `TCP` when absent.
    pub protocol: Option<String>,
    /// The protocol of the application.
    pub app_protocol: Option<String>,
    /// The port that clients address.
    pub port: u16,
    /// The port of the pods, by number or name; the same when absent.
    pub target_port: Option<IntOrString>,
    /// The port on each node.
    pub node_port: Option<u16>,
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
    pub address_type: Option<String>,
    /// The endpoints.
    pub endpoints: Vec<SliceEndpoint>,
    /// Their ports.
    pub ports: Vec<SlicePort>,
}

/// One endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SliceEndpoint {
    /// Its addresses, all of the same workload.
    pub addresses: Vec<String>,
    /// Whether it is ready.
    pub conditions: Option<EndpointConditions>,
    /// Its host name.
    pub hostname: Option<String>,
    /// The pod behind it.
    pub target_ref: Option<ObjectReference>,
    /// Its node.
    pub node_name: Option<String>,
    /// Its zone.
    pub zone: Option<String>,
    /// Zones that should use it.
    pub hints: Option<EndpointHints>,
    /// Deprecated labels of its place.
    pub deprecated_topology: BTreeMap<String, String>,
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
    pub api_version: Option<String>,
    /// Its kind.
    pub kind: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Its namespace.
    pub namespace: Option<String>,
    /// Its identity.
    pub uid: Option<String>,
    /// Its version.
    pub resource_version: Option<String>,
    /// A part of it.
    pub field_path: Option<String>,
}

/// A port of the endpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SlicePort {
    /// The name of the service port.
    pub name: Option<String>,
    /// `TCP` when absent.
    pub protocol: Option<String>,
    /// The number; absent is any.
    pub port: Option<u16>,
    /// The protocol of the application.
    pub app_protocol: Option<String>,
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
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// When it was made; the older of two objects wins.
    pub creation_timestamp: Option<Timestamp>,
    /// How often its spec was changed.
    pub generation: Option<u64>,
    /// Its version.
    pub resource_version: Option<String>,
    /// Its identity.
    pub uid: Option<String>,
}
