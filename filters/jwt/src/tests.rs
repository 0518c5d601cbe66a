#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

pub(crate) mod support;

mod assumed;
mod mutation;
mod requests;
mod tokens;
