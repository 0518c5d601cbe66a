//! Istio's objects, field for field as Istio 1.30 has them.

pub mod common;
pub mod destination_rule;
pub mod gateway;
pub mod mesh_config;
pub mod provider;
pub mod security;
pub mod service_entry;
pub mod sidecar;
pub mod telemetry;
pub mod virtual_service;
