//! What people write, and where it comes from: typed objects out of folders of YAML, each with its place.

pub mod decode;
pub mod fields;
pub mod files;
pub mod finding;
pub mod resources;
pub mod spans;
pub mod translate;
pub mod validate;
