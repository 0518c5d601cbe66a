//! The data path, in the order a request meets it.

mod admit;
mod audit;
pub mod authority;
pub mod canonical;
mod canonicalise;
mod carried;
mod check;
mod cluster;
mod coalesce;
mod connection;
mod counts;
mod decisions;
pub mod detect;
mod edge;
mod extended_connect;
#[doc(hidden)]
pub mod fuzz;
pub mod headers;
mod http;
pub(crate) mod internal;
mod labels;
mod limits;
mod listener;
mod portions;
pub mod proxy_protocol;
mod record;
mod refused;
mod reply;
mod resets;
mod revoke;
mod route;
pub mod socket;
mod stack;
mod stream;
mod tcp;
mod tls;
mod tunnel;
mod upstream;
mod worker;
pub mod xfcc;

pub(crate) use canonicalise::{canonicalise, client_of};
pub use decisions::Reporting;
pub use limits::{LIMITS, Limit};
pub(crate) use listener::Socket;
pub(crate) use worker::{Command, run};
pub use worker::{LogTarget, Shared};
