//! Which parts of the log are in memory: asked of the kernel once in a while for a whole chunk, and
//! remembered, so that a hot read costs one load.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use commitlog::Clock;
use mmap_core::{IoError, MapSlice, RawMap, read_ahead};

/// Bytes that are asked for, and remembered, together.
const CHUNK_LEN: u64 = 1 << 20;
/// Chunks remembered: one for each place of the table.
const PLACE_COUNT: usize = 4096;
/// How many seconds an answer of the kernel holds.
const FRESH_SECONDS: u64 = 1;
/// A read of the chunk before, no longer ago than this, makes a reader that goes on from there.
const FOLLOWED_SECONDS: u64 = 8;
/// Bits of a place below the number of its chunk: seconds and [`IN_MEMORY`]. The number of a chunk
/// has the other 43, which are enough for any offset.
const CHUNK_SHIFT: u32 = 21;
const SECONDS_MASK: u64 = (1 << (CHUNK_SHIFT - 1)) - 1;
/// The kernel has said that all of the chunk is in memory; otherwise it was only read from.
const IN_MEMORY: u64 = 1;

/// What to do where the bytes asked for are not in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Bring them in, however long the device takes.
    ForDevice,
    /// Say so.
    Never,
}

/// What is known of the log's pages.
#[derive(Debug)]
pub(crate) struct Residency {
    clock: Arc<dyn Clock>,
    /// Chunk, second and state in one word: a hint that may be overwritten by any reader.
    places: Box<[AtomicU64]>,
}

impl Residency {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let places = std::iter::repeat_with(|| AtomicU64::new(0));
        Self {
            clock,
            places: places.take(PLACE_COUNT).collect(),
        }
    }

    /// Whether the first `len` bytes of `slice`, which is the log from `offset` on, are in memory,
    /// or were a moment ago.
    pub(crate) fn is_in_memory<M: RawMap>(
        &self,
        offset: u64,
        slice: &MapSlice<M>,
        len: usize,
    ) -> bool {
        let end = offset + len as u64;
        let seconds = self.seconds();
        let mut chunks = offset / CHUNK_LEN..end.div_ceil(CHUNK_LEN);
        chunks.all(|chunk| {
            if self.word_of(chunk, seconds, FRESH_SECONDS) & IN_MEMORY != 0 {
                return true;
            }
            let whole = chunk * CHUNK_LEN..(chunk + 1) * CHUNK_LEN;
            // Of a chunk that lies in two files one alone tells nothing.
            if lies_in_mapping(offset, slice, &whole) && is_resident(offset, slice, &whole) {
                self.note(chunk, seconds, IN_MEMORY);
                return true;
            }
            is_resident(
                offset,
                slice,
                &(whole.start.max(offset)..whole.end.min(end)),
            )
        })
    }

    /// Has the kernel begin to read what a reader that goes through the log will want after the
    /// first `len` bytes of `slice`, and all of these bytes at once rather than page by page: a
    /// touch, or populating, would have it read as much around each page as the device is set to.
    pub(crate) fn read_ahead<M: RawMap>(
        &self,
        offset: u64,
        slice: &MapSlice<M>,
        len: usize,
        ahead: u64,
    ) {
        let (seconds, chunk) = (self.seconds(), offset / CHUNK_LEN);
        let was_read = |chunk| self.word_of(chunk, seconds, FOLLOWED_SECONDS) != 0;
        let follows = was_read(chunk) || chunk.checked_sub(1).is_some_and(was_read);
        self.note(chunk, seconds, 0);
        let ahead = if follows { ahead } else { 0 };
        let len = len.saturating_add(usize::try_from(ahead).unwrap_or(usize::MAX));
        let start = slice.range().start;
        read_ahead(slice.region().map(), start..start + len.min(slice.len()));
    }

    /// The word of a chunk that is remembered and no older than so many seconds; else 0.
    fn word_of(&self, chunk: u64, seconds: u64, age_max: u64) -> u64 {
        let word = self.place(chunk).load(Ordering::Relaxed);
        let age = seconds.wrapping_sub(word >> 1) & SECONDS_MASK;
        match word >> CHUNK_SHIFT == chunk && age <= age_max {
            true => word,
            false => 0,
        }
    }

    fn note(&self, chunk: u64, seconds: u64, state: u64) {
        let word = chunk << CHUNK_SHIFT | seconds << 1 | state;
        self.place(chunk).store(word, Ordering::Relaxed);
    }

    fn place(&self, chunk: u64) -> &AtomicU64 {
        &self.places[chunk as usize % PLACE_COUNT]
    }

    /// From 1, so that no word is 0.
    fn seconds(&self) -> u64 {
        (self.clock.monotonic().as_secs() + 1) & SECONDS_MASK
    }
}

/// Whether a range of the log lies in the mapping of `slice`, which is the log from `offset` on.
fn lies_in_mapping<M: RawMap>(offset: u64, slice: &MapSlice<M>, range: &Range<u64>) -> bool {
    let base = offset - slice.range().start as u64;
    base <= range.start && range.end <= base + slice.region().map().len() as u64
}

/// Whether the part of a range of the log that lies in the mapping of `slice`, and is readable, is
/// in memory. What the kernel does not say is not.
fn is_resident<M: RawMap>(offset: u64, slice: &MapSlice<M>, range: &Range<u64>) -> bool {
    let Range { start, end } = slice.range();
    let base = offset - start as u64;
    let position = |offset: u64| usize::try_from(offset.saturating_sub(base)).unwrap_or(end);
    let asked = position(range.start)..position(range.end).min(end);
    let map = slice.region().map();
    map.resident(asked)
        .is_ok_and(|found| found.resident == found.pages)
}

/// Brings the first `len` bytes of a slice into memory: what the device cannot read is an error
/// here, where touching it would raise a signal.
pub(crate) fn bring_in<M: RawMap>(slice: &MapSlice<M>, len: usize) -> Result<(), IoError> {
    let start = slice.range().start;
    slice.region().map().populate_read(start..start + len)
}
