//! How bytes that are written once become readable: by one position.
//!
//! Below it everybody reads and nobody writes. At or above it one writer writes, which alone moves
//! it, and nobody reads. It is stored with Release after the bytes below it were written, and
//! loaded with Acquire before any of them is read, so that whoever finds a byte published finds
//! what was written there.

use std::ops::Range;

use crate::sync::atomic::{AtomicU64, Ordering};

/// The position up to which bytes may be read.
#[derive(Debug)]
pub struct Published(AtomicU64);

/// Where the one writer stands: at or above the published position.
#[derive(Debug)]
pub(crate) struct Tail {
    /// Where the next byte goes.
    position: usize,
}

impl Published {
    /// What lies below `position` may be read: it was written before this value was shared.
    pub fn new(position: u64) -> Self {
        Self(AtomicU64::new(position))
    }

    /// The position. What lies below it is visible to the caller.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Whether the whole range may be read.
    #[inline]
    pub fn covers(&self, range: &Range<usize>) -> bool {
        range.start <= range.end && range.end as u64 <= self.get()
    }

    /// Lets readers see what lies below `position`, all of which is written. For the one writer.
    #[inline]
    pub fn publish(&self, position: u64) {
        self.0.store(position, Ordering::Release);
    }
}

impl Tail {
    /// The writer of bytes of which `published` are there already.
    pub(crate) fn new(published: usize) -> Self {
        Self {
            position: published,
        }
    }

    #[inline]
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// Whether the writer may write `len` bytes at `start`, of a map of `map_len`: none of them may
    /// be published.
    #[inline]
    pub(crate) fn may_write(&self, start: usize, len: usize, map_len: usize) -> bool {
        let room = map_len.checked_sub(start);
        start >= self.position && room.is_some_and(|room| len <= room)
    }

    /// Goes on behind bytes that were written.
    #[inline]
    pub(crate) fn advance_to(&mut self, position: usize) {
        debug_assert!(position >= self.position);
        self.position = position;
    }

    /// Lets readers see all that was written.
    #[inline]
    pub(crate) fn publish(&mut self, published: &Published) {
        published.publish(self.position as u64);
    }
}
