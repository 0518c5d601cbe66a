//! How an exchange ends, and who is told.

use crate::Reason;
use http::HeaderMap;
use smallvec::SmallVec;

/// What is known when the last byte has gone, or when it is clear that it never will.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Why it ended.
    pub outcome: Outcome,
    /// Body bytes that passed; of a connection or tunnel, those of both directions.
    pub bytes: u64,
    /// Trailers, if any came.
    pub trailers: Option<&'a HeaderMap>,
}

/// Why an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of it was passed on.
    Complete,
    /// It broke off.
    Reset(Reason),
    /// It was dropped before its end: the downstream went away, or a layer outside stopped waiting.
    Cancelled,
}

/// Told once how the exchange ended, on drop too: permits, counters, breakers.
pub trait Observer: Send + 'static {
    /// Called exactly once.
    fn on_end(self: Box<Self>, end: &End<'_>);
}

/// The observers of one body. Few: most exchanges have none.
pub type Observers = SmallVec<[Box<dyn Observer>; 1]>;
