//! Sidegate: a service-mesh sidecar proxy. The binary is thin, this library is the product.

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod explain;
pub mod filters;
pub mod identity;
pub mod mesh;
pub mod policy_test;
pub mod proxy;
pub mod replay;
pub mod snapshot;
pub mod telemetry;
