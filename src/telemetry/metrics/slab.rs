//! The cells one worker counts in.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Cells per chunk (16 KiB). A series never crosses a chunk.
pub(super) const CHUNK_CELLS: u32 = 2_048;
const CHUNKS: u32 = 512;
/// Cells a slab can have: room for about 22,000 label sets of HTTP requests.
pub(super) const MAX_CELLS: u32 = CHUNK_CELLS * CHUNKS;

type Chunk = Box<[AtomicU64]>;

/// Cells of one writer, readable by everybody. Chunks appear on first use and never move, so a scrape reads while
/// the worker writes.
#[derive(Debug)]
pub(super) struct Slab {
    chunks: Box<[OnceLock<Chunk>]>,
}

impl Slab {
    pub(super) fn new() -> Self {
        Self { chunks: (0..CHUNKS).map(|_| OnceLock::new()).collect() }
    }

    /// The cells from `cell` to the end of its chunk, made if need be.
    pub(super) fn cells(&self, cell: u32) -> &[AtomicU64] {
        let Some(chunk) = self.chunks.get((cell / CHUNK_CELLS) as usize) else { return &[] };
        let chunk = chunk.get_or_init(|| (0..CHUNK_CELLS).map(|_| AtomicU64::new(0)).collect());
        chunk.get((cell % CHUNK_CELLS) as usize..).unwrap_or_default()
    }

    /// The value of a cell; zero when its chunk was never written.
    pub(super) fn read(&self, cell: u32) -> u64 {
        let chunk = self.chunks.get((cell / CHUNK_CELLS) as usize).and_then(OnceLock::get);
        let value = chunk.and_then(|chunk| chunk.get((cell % CHUNK_CELLS) as usize));
        value.map_or(0, |value| value.load(Ordering::Relaxed))
    }

    /// Sets cells to zero. Only for cells to which no series points any more.
    pub(super) fn clear(&self, cell: u32, width: u32) {
        let Some(chunk) = self.chunks.get((cell / CHUNK_CELLS) as usize).and_then(OnceLock::get) else {
            return;
        };
        let cells = chunk.iter().skip((cell % CHUNK_CELLS) as usize).take(width as usize);
        cells.for_each(|value| value.store(0, Ordering::Relaxed));
    }
}

/// Adds to a cell of which the caller is the only writer: a load and a store, no locked instruction.
pub(super) fn bump(cells: &[AtomicU64], offset: u32, n: u64) {
    if let Some(cell) = cells.get(offset as usize) {
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }
}
