//! Carries log lines to a file without ever making a worker wait: those of the access logs, and of the proxy's own log.
//!
//! Each worker fills a buffer of its own and hands it over whole; one thread per destination writes. When that
//! thread is stuck, buffers are dropped and their lines counted.

mod writer;

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tokio::sync::Notify;

use self::writer::Writer;

/// A worker hands its buffer over when it holds this many bytes.
const FLUSH_BYTES: usize = 16 * 1024;
/// Lines wait at most this long for others.
const FLUSH_AFTER: Duration = Duration::from_millis(500);
/// Buffers on their way to the writer, for all workers: 4 MiB.
const QUEUED_BUFFERS: usize = 256;

/// One destination of log lines, shared by all workers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LogSink {
    queue: SyncSender<Message>,
    counts: Arc<Counts>,
}

/// A worker's end of a [`LogSink`]; stays on its thread. Dropping the last clone hands over what is left.
#[derive(Clone, Debug)]
pub struct WorkerLog {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    sink: LogSink,
    pending: RefCell<Pending>,
    /// Rings when the first line enters an empty buffer.
    filling: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    lines: u64,
}

/// Lines that sinks have lost, those that are no more included. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Lost(Arc<AtomicU64>);

impl Lost {
    /// So many.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
struct Counts {
    written: AtomicU64,
    dropped: AtomicU64,
    lost: Lost,
    reopen: AtomicBool,
}

impl Counts {
    fn lose(&self, lines: u64) {
        self.dropped.fetch_add(lines, Ordering::Relaxed);
        self.lost.0.fetch_add(lines, Ordering::Relaxed);
    }
}

#[derive(Debug)]
enum Message {
    Lines(Vec<u8>, u64),
    /// Answered once everything before it is written.
    Flush(SyncSender<()>),
}

impl LogSink {
    /// Opens `path` for appending and starts its writer; `/dev/stdout` and `/dev/stderr` are our own.
    ///
    /// # Errors
    /// When the file cannot be opened or the thread not started.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::counted(path, &Lost::default())
    }

    /// The same, and adds the lines that it loses to `lost`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn counted(path: &Path, lost: &Lost) -> io::Result<Self> {
        let (sink, queue) = Self::queued(QUEUED_BUFFERS, lost);
        let writer = Writer::open(path, sink.counts.clone())?;
        std::thread::Builder::new().name("log-writer".to_owned()).spawn(move || writer.run(&queue))?;
        Ok(sink)
    }

    /// A buffer for one more worker, to be made on that worker's thread.
    #[must_use]
    pub fn worker(&self) -> WorkerLog {
        let inner = Inner { sink: self.clone(), pending: RefCell::default(), filling: Notify::new() };
        WorkerLog { inner: Rc::new(inner) }
    }

    /// Opens the file anew before the next lines are written, for a rotation that we were told of. A file that was
    /// moved or removed is noticed without it.
    pub fn reopen(&self) {
        self.counts.reopen.store(true, Ordering::Relaxed);
    }

    /// Waits until everything handed over so far is written; `false` when that takes longer than `patience`.
    /// Blocks: for shutdown, or `spawn_blocking`.
    #[must_use]
    pub fn flush(&self, patience: Duration) -> bool {
        let (answer, done) = sync_channel(1);
        self.queue.try_send(Message::Flush(answer)).is_ok() && done.recv_timeout(patience).is_ok()
    }

    /// Lines dropped because the destination was too slow or refused them.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.counts.dropped.load(Ordering::Relaxed)
    }

    /// Lines written.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.counts.written.load(Ordering::Relaxed)
    }

    fn queued(buffers: usize, lost: &Lost) -> (Self, Receiver<Message>) {
        let (queue, receiver) = sync_channel(buffers);
        let counts = Counts { lost: lost.clone(), ..Counts::default() };
        (Self { queue, counts: Arc::new(counts) }, receiver)
    }

    /// Hands lines over as they are, from any thread. Never waits.
    pub fn send(&self, bytes: Vec<u8>, lines: u64) {
        if self.queue.try_send(Message::Lines(bytes, lines)).is_err() {
            self.counts.lose(lines);
        }
    }
}

impl WorkerLog {
    /// Appends one line, which `write` must end with a newline. Never waits, wakes no other thread unless the
    /// buffer is full.
    pub fn line(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut pending = self.inner.pending.borrow_mut();
        let first = pending.bytes.is_empty();
        if first && pending.bytes.capacity() == 0 {
            // Room for the line that passes the mark.
            pending.bytes.reserve(FLUSH_BYTES + FLUSH_BYTES / 8);
        }
        write(&mut pending.bytes);
        pending.lines += 1;
        if pending.bytes.len() >= FLUSH_BYTES {
            self.inner.hand_over(&mut pending);
        } else if first {
            self.inner.filling.notify_one();
        }
    }

    /// Hands the pending lines to the writer.
    pub fn flush(&self) {
        self.inner.hand_over(&mut self.inner.pending.borrow_mut());
    }

    /// Hands over lines that have waited for half a second; sleeps without a timer while there are none. To be
    /// spawned once on the worker, and dropped with it.
    pub async fn flush_in_time(self) {
        loop {
            self.inner.filling.notified().await;
            tokio::time::sleep(FLUSH_AFTER).await;
            self.flush();
        }
    }
}

impl Inner {
    fn hand_over(&self, pending: &mut Pending) {
        if pending.lines > 0 {
            let Pending { bytes, lines } = std::mem::take(pending);
            self.sink.send(bytes, lines);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let mut pending = self.pending.take();
        self.hand_over(&mut pending);
    }
}

#[cfg(test)]
mod tests;
