//! The kinds of object that Sidegate knows, and what it does with each.

use std::fmt;

use serde::{Serialize, Serializer};

/// A kind of object that Sidegate knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Kind {
    /// Kubernetes: a namespace.
    Namespace,
    /// Kubernetes: text by key; one of them holds Istio's mesh configuration.
    ConfigMap,
    /// Kubernetes: a service.
    Service,
    /// Kubernetes: endpoints of a service.
    EndpointSlice,
    /// Sidegate: one proxy.
    Proxy,
    /// Istio: routes of hosts.
    VirtualService,
    /// Istio: the policy towards a host.
    DestinationRule,
    /// Istio: a service that Kubernetes does not know.
    ServiceEntry,
    /// Istio: a workload outside of Kubernetes.
    WorkloadEntry,
    /// Istio: what a workload sees and listens on.
    Sidecar,
    /// Istio: servers at the edge.
    Gateway,
    /// Istio: whether callers must use mutual TLS.
    PeerAuthentication,
    /// Istio: which tokens count.
    RequestAuthentication,
    /// Istio: who may do what.
    AuthorizationPolicy,
    /// Istio: traces, metrics and access logs.
    Telemetry,
    /// Istio: patches of Envoy's configuration.
    EnvoyFilter,
    /// Istio: WebAssembly filters.
    WasmPlugin,
    /// Istio: settings of proxies.
    ProxyConfig,
    /// Istio: a template of WorkloadEntries.
    WorkloadGroup,
    /// Sidegate: keyed rate limits.
    RateLimit,
    /// Sidegate: circuit breakers.
    CircuitBreaker,
    /// Sidegate: bounded concurrency.
    Bulkhead,
    /// Sidegate: retry budgets and hedging.
    RetryPolicy,
    /// Sidegate: answers when a service fails.
    Fallback,
    /// Sidegate: further ways to balance.
    LoadBalancing,
    /// Sidegate: active health checks.
    HealthCheck,
    /// Sidegate: zero trust beyond AuthorizationPolicy.
    AccessPolicy,
    /// Sidegate: what is audited.
    AuditPolicy,
    /// Sidegate: reactions to metrics.
    Reaction,
}

impl Kind {
    /// Every kind, in the order of loading and printing.
    pub const ALL: [Self; 29] = [
        Self::Namespace,
        Self::ConfigMap,
        Self::Service,
        Self::EndpointSlice,
        Self::Proxy,
        Self::VirtualService,
        Self::DestinationRule,
        Self::ServiceEntry,
        Self::WorkloadEntry,
        Self::Sidecar,
        Self::Gateway,
        Self::PeerAuthentication,
        Self::RequestAuthentication,
        Self::AuthorizationPolicy,
        Self::Telemetry,
        Self::EnvoyFilter,
        Self::WasmPlugin,
        Self::ProxyConfig,
        Self::WorkloadGroup,
        Self::RateLimit,
        Self::CircuitBreaker,
        Self::Bulkhead,
        Self::RetryPolicy,
        Self::Fallback,
        Self::LoadBalancing,
        Self::HealthCheck,
        Self::AccessPolicy,
        Self::AuditPolicy,
        Self::Reaction,
    ];

    /// The kind that is written as `kind: name` in this API group, of whatever version.
    #[must_use]
    pub fn of(group: &str, name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name && kind.group() == group)
    }

    /// The name after `kind:`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::ConfigMap => "ConfigMap",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Proxy => "Proxy",
            Self::VirtualService => "VirtualService",
            Self::DestinationRule => "DestinationRule",
            Self::ServiceEntry => "ServiceEntry",
            Self::WorkloadEntry => "WorkloadEntry",
            Self::Sidecar => "Sidecar",
            Self::Gateway => "Gateway",
            Self::PeerAuthentication => "PeerAuthentication",
            Self::RequestAuthentication => "RequestAuthentication",
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::Telemetry => "Telemetry",
            Self::EnvoyFilter => "EnvoyFilter",
            Self::WasmPlugin => "WasmPlugin",
            Self::ProxyConfig => "ProxyConfig",
            Self::WorkloadGroup => "WorkloadGroup",
            Self::RateLimit => "RateLimit",
            Self::CircuitBreaker => "CircuitBreaker",
            Self::Bulkhead => "Bulkhead",
            Self::RetryPolicy => "RetryPolicy",
            Self::Fallback => "Fallback",
            Self::LoadBalancing => "LoadBalancing",
            Self::HealthCheck => "HealthCheck",
            Self::AccessPolicy => "AccessPolicy",
            Self::AuditPolicy => "AuditPolicy",
            Self::Reaction => "Reaction",
        }
    }

    /// The API group before the `/` of `apiVersion`; empty for the core group.
    #[must_use]
    pub const fn group(self) -> &'static str {
        match self {
            Self::Namespace | Self::ConfigMap | Self::Service => "",
            Self::EndpointSlice => "discovery.k8s.io",
            Self::VirtualService
            | Self::DestinationRule
            | Self::ServiceEntry
            | Self::WorkloadEntry
            | Self::Sidecar
            | Self::Gateway
            | Self::EnvoyFilter
            | Self::ProxyConfig
            | Self::WorkloadGroup => "networking.istio.io",
            Self::PeerAuthentication | Self::RequestAuthentication | Self::AuthorizationPolicy => {
                "security.istio.io"
            }
            Self::Telemetry => "telemetry.istio.io",
            Self::WasmPlugin => "extensions.istio.io",
            Self::Proxy
            | Self::RateLimit
            | Self::CircuitBreaker
            | Self::Bulkhead
            | Self::RetryPolicy
            | Self::Fallback
            | Self::LoadBalancing
            | Self::HealthCheck
            | Self::AccessPolicy
            | Self::AuditPolicy
            | Self::Reaction => "sidegate.io",
        }
    }

    /// The versions after the `/` of `apiVersion` that are read, all with the same fields.
    #[must_use]
    pub fn versions(self) -> &'static [&'static str] {
        match self.group() {
            "" | "discovery.k8s.io" => &["v1"],
            "networking.istio.io" => &["v1", "v1beta1", "v1alpha3"],
            "security.istio.io" => &["v1", "v1beta1"],
            "telemetry.istio.io" => &["v1", "v1alpha1"],
            _ => &["v1alpha1"],
        }
    }

    /// Whether it belongs to the whole cluster instead of a namespace.
    #[must_use]
    pub const fn is_cluster_scoped(self) -> bool {
        matches!(self, Self::Namespace)
    }

    /// Whether it protects something, so that nothing in it may be misunderstood.
    #[must_use]
    pub const fn is_security(self) -> bool {
        matches!(
            self,
            Self::PeerAuthentication
                | Self::RequestAuthentication
                | Self::AuthorizationPolicy
                | Self::AccessPolicy
                | Self::AuditPolicy
        )
    }

    /// Whether an object of it that is rejected, and has no earlier version, closes what it is about.
    #[must_use]
    pub const fn closes(self) -> bool {
        matches!(
            self,
            Self::PeerAuthentication
                | Self::RequestAuthentication
                | Self::AuthorizationPolicy
                | Self::AccessPolicy
        )
    }

    /// Whether its fields stand beside `metadata` instead of under `spec`.
    #[must_use]
    pub const fn is_flat(self) -> bool {
        matches!(self, Self::EndpointSlice | Self::ConfigMap)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::Kind;

    #[test]
    fn every_kind_is_listed_once_in_order_and_found_by_its_name() {
        assert!(Kind::ALL.windows(2).all(|pair| pair[0] < pair[1]));
        for kind in Kind::ALL {
            assert_eq!(Kind::of(kind.group(), kind.name()), Some(kind));
        }
        // The derived order numbers the variants, so the last one tells whether any is missing.
        assert_eq!(Kind::Reaction as usize + 1, Kind::ALL.len());
    }

    #[test]
    fn the_gateway_of_the_gateway_api_is_another_kind() {
        assert_eq!(Kind::of("gateway.networking.k8s.io", "Gateway"), None);
    }
}
