//! What people write, and where it comes from: typed objects out of folders of YAML, each with its place.

pub mod fields;
pub mod finding;
pub mod resources;
pub mod spans;
