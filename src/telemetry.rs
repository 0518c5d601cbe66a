//! What the proxy says about itself: metrics, access log, its own log, and the ring of recent decisions.
//!
//! The data path only counts and formats into buffers of its own worker; merging, rendering and writing happen
//! on the control side.

pub mod access_log;
pub mod audit;
pub mod decisions;
pub mod flags;
pub mod log_sink;
pub mod logging;
pub mod metrics;
pub mod prometheus;
pub mod redact;
pub mod timestamp;
