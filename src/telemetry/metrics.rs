//! Counters that cost a request one hash look-up and a few relaxed stores.
//!
//! A [`Registry`] turns label sets into [`Series`]; every worker counts into a slab of its own through its
//! [`WorkerMetrics`]; a scrape adds the slabs up. Label text is built when a series is first seen, never later.

mod bundle;
mod cache;
mod istio;
mod own;
mod policy;
mod process;
mod providers;
mod registry;
mod scrape;
mod slab;
mod sweep;
mod worker;

pub use bundle::{Buckets, Bundle, HistogramSlot, Kind, Slot, Spec};
pub use istio::{
    BUILD, ConnectionLabels, MESSAGES, Measured, Part, Protocol, REQUEST_MESSAGES, REQUESTS,
    RESPONSE_MESSAGES, Reporter, RequestLabels, SecurityPolicy, Service, TCP, TCP_CLOSED, TCP_OPENED,
    TCP_RECEIVED, TCP_SENT, Workload,
};
pub use own::{ConfigMetrics, JwksMetrics, LimitMetrics, PoolMetrics, WorkerEvents};
pub(crate) use own::{show_lost_access_log_lines, show_lost_own_log_lines};
pub use policy::PolicyMetrics;
pub use process::scrape_process;
pub(crate) use process::status_bytes;
pub use providers::ProviderMetrics;
pub use registry::{Registry, RegistryLimits, Series};
pub use scrape::{FamilyScrape, Scrape, SeriesScrape, Value};
pub use worker::WorkerMetrics;

#[cfg(test)]
mod tests;
