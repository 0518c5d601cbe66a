//! The data path, in the order a request meets it.

pub mod authority;
pub mod canonical;
pub mod detect;
#[doc(hidden)]
pub mod fuzz;
pub mod headers;
pub mod proxy_protocol;
pub mod socket;
