//! The wiring: configuration to mesh, mesh to workers; start, reload, drain, stop.
mod workers;
