//! Configuration out of folders and files: what they hold now, and when that changes.

mod list;
mod store;
mod watch;
mod writing;

pub use store::{Rejected, Store, Update};
pub use watch::Watcher;
pub use writing::Writing;

#[cfg(test)]
mod tests;
