//! The filter contract, proven on three throw-away filters: one that waits, one that sends the body again, one that acts at the end.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod body;
mod ending;
mod retrying;
mod support;
mod waiting;
