//! Sidegate's own kinds: what neither Istio's objects nor those of the Gateway API can say.

pub mod access_policy;
pub mod audit_policy;
pub mod common;
