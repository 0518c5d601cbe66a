//! What a `Proxy` is when its file says nothing.

use super::{
    Address, Credentials, Discovery, DiscoveryXds, Drain, Explain, GatewayRole, Inbound, Interception,
    Limits, Locality, Outbound, Proxy, Redaction, Role, State, Trust, Workload, XdsNode,
};
use crate::config::resources::istio::mesh_config::MeshConfig;
use crate::config::resources::scalar::{Duration, Quantity};

fn address(text: &str) -> Address {
    Address { address: text.to_owned() }
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            role: Role::Sidecar,
            gateway: GatewayRole::default(),
            workload: Workload::default(),
            cluster: "Kubernetes".to_owned(),
            network: String::new(),
            locality: Locality::default(),
            trust_domain: "cluster.local".to_owned(),
            workers: None,
            outbound: Outbound::default(),
            inbound: Inbound::default(),
            interception: Interception::Explicit,
            admin: address("127.0.0.1:15000"),
            health: address("0.0.0.0:15021"),
            metrics: address("0.0.0.0:15090"),
            identity: None,
            trust: Trust::default(),
            credentials: Credentials::default(),
            discovery: Discovery::default(),
            state: State::default(),
            mesh_config: MeshConfig::default(),
            limits: Limits::default(),
            drain: Drain::default(),
            explain: Explain::default(),
            redaction: Redaction::default(),
        }
    }
}

impl Default for Outbound {
    fn default() -> Self {
        Self { addresses: vec!["127.0.0.1:15001".to_owned()], policy: None }
    }
}

impl Default for Inbound {
    fn default() -> Self {
        Self { addresses: vec!["0.0.0.0:15006".to_owned()], application: None }
    }
}

impl Default for DiscoveryXds {
    fn default() -> Self {
        Self { address: String::new(), node: XdsNode::default(), delta: true }
    }
}

impl Default for Trust {
    fn default() -> Self {
        Self { system: "/etc/ssl/certs".to_owned(), private_targets: Vec::new() }
    }
}

/// Envoy's defaults where it has safe ones, else those of its guide for edge proxies.
impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 65_536,
            max_concurrent_streams: 100,
            max_header_bytes: Quantity(60 << 10),
            max_headers: 100,
            max_body_bytes: None,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(3600),
            stream_idle_timeout: Duration::from_secs(300),
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self { propagation: Duration::from_secs(5), grace_period: Duration::from_secs(25) }
    }
}
