//! The metrics of a TCP connection, counted while it lives: it may live for days.

use super::tcp::Flow;
use super::worker::Worker;
use crate::telemetry::metrics::{Series, TCP_CLOSED, TCP_OPENED, TCP_RECEIVED, TCP_SENT};
use std::cell::Cell;
use std::rc::Rc;

/// A connection on its worker's list, until it is dropped.
pub(super) struct Carried {
    worker: Rc<Worker>,
    bytes: Rc<Bytes>,
}

/// Its bytes, as the worker's clock counts them.
#[derive(Debug)]
pub(super) struct Bytes {
    series: Series,
    flow: Rc<Flow>,
    received: Cell<u64>,
    sent: Cell<u64>,
    /// Place in the worker's list.
    pub(super) place: Cell<usize>,
}

impl Carried {
    /// Counts a connection as opened, and from now on its bytes.
    pub(super) fn new(worker: &Rc<Worker>, series: Series, flow: Rc<Flow>) -> Self {
        worker.metrics.add(&series, TCP_OPENED, 1);
        let (received, sent, place) = (Cell::new(0), Cell::new(0), Cell::new(usize::MAX));
        let bytes = Rc::new(Bytes { series, flow, received, sent, place });
        worker.begin_carrying(&bytes);
        Self { worker: worker.clone(), bytes }
    }
}

impl Bytes {
    /// Counts what has moved since the last call.
    pub(super) fn count(&self, worker: &Worker) {
        for (slot, counted, now) in
            [(TCP_RECEIVED, &self.received, self.flow.received()), (TCP_SENT, &self.sent, self.flow.sent())]
        {
            let more = now - counted.replace(now);
            if more > 0 {
                worker.metrics.add(&self.series, slot, more);
            }
        }
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.bytes.count(&self.worker);
        self.worker.metrics.add(&self.bytes.series, TCP_CLOSED, 1);
        self.worker.end_carrying(&self.bytes);
    }
}
