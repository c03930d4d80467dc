//! Records on their way to the file, in the order of their offsets: those that wait for the owner of
//! the segment writer, and those that it is writing.

use std::io::IoSlice;
use std::sync::Arc;

use mmap_core::{StageBuffer, StagePool};

/// A group buffer that has grown beyond this is given back after use: 4 MiB.
const RETAINED_CAPACITY_MAX: usize = 4 << 20;

/// The bytes of some records, one after the other.
#[derive(Debug)]
pub(crate) enum Batch {
    /// In memory that grows as is needed: what waits for a sync.
    Group(Vec<u8>),
    /// In buffers of a pool.
    Staged(Staged),
}

/// Bytes in buffers of a pool, all full but the last one.
#[derive(Debug)]
pub(crate) struct Staged {
    pool: Arc<StagePool>,
    buffers: Vec<StageBuffer>,
    /// The end of what is larger than the whole pool.
    oversized: Vec<u8>,
    len: usize,
}

impl Batch {
    pub(crate) fn staged(pool: Arc<StagePool>) -> Self {
        Self::Staged(Staged {
            pool,
            buffers: Vec::new(),
            oversized: Vec::new(),
            len: 0,
        })
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Group(bytes) => bytes.len(),
            Self::Staged(staged) => staged.len,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether `len` more bytes have a place, when so many wait or are being written already, of
    /// which `waiting_max` may. Who waits alone always has one: else a record of that length never
    /// would.
    pub(crate) fn has_room(&self, len: u64, waiting: u64, waiting_max: u64) -> bool {
        if waiting == 0 {
            return true;
        }
        match self {
            Self::Group(_) => waiting + len <= waiting_max,
            Self::Staged(staged) => staged.has_room(len),
        }
    }

    /// Adds bytes for which there is room.
    #[inline]
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        match self {
            Self::Group(group) => group.extend_from_slice(bytes),
            Self::Staged(staged) => staged.push(bytes),
        }
    }

    /// All bytes, for one write.
    pub(crate) fn slices(&self) -> Vec<IoSlice<'_>> {
        match self {
            Self::Group(bytes) => vec![IoSlice::new(bytes)],
            Self::Staged(staged) => {
                let buffers = staged.buffers.iter().map(StageBuffer::bytes);
                let all = buffers.chain([&staged.oversized[..]]);
                all.map(IoSlice::new).collect()
            }
        }
    }

    /// Forgets the bytes and gives the memory back.
    pub(crate) fn clear(&mut self) {
        match self {
            Self::Group(bytes) => {
                bytes.clear();
                bytes.shrink_to(RETAINED_CAPACITY_MAX);
            }
            Self::Staged(staged) => staged.clear(),
        }
    }
}

impl Staged {
    fn has_room(&self, len: u64) -> bool {
        let last = self.buffers.last().map_or(0, StageBuffer::remaining);
        if last as u64 >= len {
            return true;
        }
        // Only appenders take buffers, one at a time: what is free stays free until they do.
        let free = self.pool.available() * self.pool.buffer_len();
        self.oversized.is_empty() && (last + free) as u64 >= len
    }

    fn push(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
        let mut rest = bytes;
        while !rest.is_empty() && self.oversized.is_empty() {
            let copied = match self.buffers.last_mut() {
                Some(last) => last.push(rest),
                None => 0,
            };
            rest = rest.get(copied..).unwrap_or_default();
            if !rest.is_empty() {
                match self.pool.take() {
                    Some(buffer) => self.buffers.push(buffer),
                    None => break,
                }
            }
        }
        self.oversized.extend_from_slice(rest);
    }

    fn clear(&mut self) {
        for buffer in self.buffers.drain(..) {
            self.pool.give_back(buffer);
        }
        self.oversized = Vec::new();
        self.len = 0;
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(batch: &Batch) -> Vec<u8> {
        let slices = batch.slices();
        slices.iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn staged_bytes_fill_one_buffer_after_the_other() {
        let pool = Arc::new(StagePool::new(3, 4096).unwrap());
        let len = pool.buffer_len();
        let mut batch = Batch::staged(pool.clone());
        let bytes: Vec<u8> = (0..len * 2 + 10).map(|index| index as u8).collect();
        let (first, rest) = bytes.split_at(len - 1);
        assert!(batch.has_room(rest.len() as u64, 0, 0));
        batch.push(first);
        assert_eq!(pool.available(), 2);
        batch.push(rest);
        assert_eq!((pool.available(), batch.len()), (0, bytes.len()));
        assert_eq!(bytes_of(&batch), bytes);
        let left = (len - 10) as u64;
        assert!(batch.has_room(left, 1, 0) && !batch.has_room(left + 1, 1, 0));
        batch.clear();
        assert_eq!((pool.available(), batch.len()), (3, 0));
        assert_eq!(bytes_of(&batch), []);
    }

    #[test]
    fn what_is_larger_than_the_pool_waits_alone() {
        let pool = Arc::new(StagePool::new(1, 4096).unwrap());
        let mut batch = Batch::staged(pool.clone());
        let bytes = vec![3; 3 * pool.buffer_len()];
        assert!(!batch.has_room(bytes.len() as u64, 1, 0));
        assert!(batch.has_room(bytes.len() as u64, 0, 0));
        batch.push(&bytes);
        batch.push(b"behind");
        assert!(!batch.has_room(1, batch.len() as u64, 0));
        assert_eq!(bytes_of(&batch), [&bytes[..], b"behind"].concat());
        drop(batch);
        assert_eq!(pool.available(), 1);
    }
}
