//! Upstream connections: who may use them, how many there are, and what becomes of a request whose connection goes away.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod limits;
mod proxy_protocol;
mod replay;
mod resets;
mod restart;
