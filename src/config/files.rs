//! Configuration out of folders and files: what they hold now, and when that changes.

mod list;
mod store;
mod watch;

pub use store::{Rejected, Store, Update};
pub use watch::Watcher;

#[cfg(test)]
mod tests;
