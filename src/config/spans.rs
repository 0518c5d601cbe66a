//! Reads a file as a stream of YAML events: its documents, and the place of every field.
//!
//! The typed decoder sees neither duplicate keys nor lines, so this pass comes first. After a syntax error
//! reading goes on with the next document; everything is bounded.

mod outline;
mod places;
mod reader;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::{Serialize, Serializer};

pub use outline::{Entry, Outline, Step, Value, push_index, push_key, steps};
pub use places::Places;
pub use reader::{Broken, Document, Fault, MAX_ALIASED, MAX_DEPTH, MAX_FILE_BYTES, MAX_NODES, read};

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The file.
    pub file: Arc<Path>,
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests;
