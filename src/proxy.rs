//! The data path, in the order a request meets it.

pub mod authority;
pub mod canonical;
mod canonicalise;
mod check;
mod cluster;
mod connection;
mod counts;
pub mod detect;
#[doc(hidden)]
pub mod fuzz;
pub mod headers;
mod http;
pub(crate) mod internal;
mod labels;
mod limits;
mod listener;
pub mod proxy_protocol;
mod record;
mod reply;
mod route;
pub mod socket;
mod stack;
mod stream;
mod tcp;
mod tunnel;
mod upstream;
mod worker;

pub(crate) use canonicalise::canonicalise;
pub use limits::{LIMITS, Limit};
pub(crate) use listener::Socket;
pub(crate) use worker::{Command, run};
pub use worker::{LogTarget, Shared};
