//! Sidegate: a service-mesh sidecar proxy. The binary is thin, this library is the product.

pub mod config;
pub mod filters;
pub mod mesh;
