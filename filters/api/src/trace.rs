//! How a pure decision tells what it looked at, for `explain`.

use crate::Origin;

/// Receives the steps of a decision. The data path passes [`NoTrace`], which compiles to nothing.
pub trait Trace {
    /// Takes one step; the closure is called only when somebody listens.
    fn step(&mut self, step: impl FnOnce() -> TraceStep);
}

/// One thing that was looked at.
#[derive(Clone, Debug)]
pub struct TraceStep {
    /// The rule or setting.
    pub origin: Origin,
    /// Did it hold?
    pub held: bool,
    /// In words: what was expected and what was there.
    pub because: String,
}

/// Nobody listens.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTrace;

impl Trace for NoTrace {
    #[inline(always)]
    fn step(&mut self, _: impl FnOnce() -> TraceStep) {}
}

impl Trace for Vec<TraceStep> {
    fn step(&mut self, step: impl FnOnce() -> TraceStep) {
        self.push(step());
    }
}
