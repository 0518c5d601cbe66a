//! Sidegate's own kinds: what Istio's objects cannot say.

pub mod audit_policy;
