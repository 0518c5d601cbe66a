//! Sidegate: a service-mesh sidecar proxy that reads Istio's YAML and carries all traffic of one workload.

pub mod config;
