//! The one place that prints.

use std::io::{self, Write};

/// Prints to standard output. A reader that went away is no error of ours: there is nobody left to tell.
pub(crate) fn say(text: impl std::fmt::Display) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Prints to standard error.
pub(crate) fn complain(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
