//! Memory of the process, locked and of a fixed size, in which bytes wait to be written to a file
//! (RocketMQ: `TransientStorePool`).

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use memmap2::MmapMut;
use rustix::io::Errno;

use crate::limits::explain_memlock;

/// A fixed number of [`StageBuffer`]s, taken and given back.
///
/// All of them are made, and their pages locked in memory, with the pool: whoever fills one takes
/// no page fault, and what the pool takes is known from the start. Where the system does not allow
/// the lock ([`lock_refusal`](Self::lock_refusal)) the pool works all the same: its pages are
/// touched once, and may be swapped out later.
///
/// ```
/// use mmap_core::StagePool;
///
/// let pool = StagePool::new(2, 65_536)?;
/// let mut buffer = pool.take().expect("nobody has taken one");
/// let copied = buffer.push(b"hello");
/// assert_eq!((buffer.bytes(), copied, pool.available()), (&b"hello"[..], 5, 1));
/// pool.give_back(buffer);
/// assert_eq!(pool.available(), 2);
/// # Ok::<(), mmap_core::StageError>(())
/// ```
#[derive(Debug)]
pub struct StagePool {
    free: Mutex<Vec<StageBuffer>>,
    buffer_count: usize,
    buffer_len: usize,
    lock_refusal: Option<io::Error>,
}

/// Memory of a [`StagePool`] that is filled from front to back.
pub struct StageBuffer {
    map: MmapMut,
    /// Bytes that were pushed.
    filled: usize,
}

impl StagePool {
    /// Makes `buffer_count` buffers of `buffer_len` bytes, in whole pages.
    ///
    /// # Errors
    /// There is not so much memory, or no size is possible. Nothing is kept then.
    pub fn new(buffer_count: usize, buffer_len: usize) -> Result<Self, StageError> {
        let refuse = |source| StageError {
            buffer_count,
            buffer_len,
            source,
        };
        let page_len = rustix::param::page_size();
        let rounded = buffer_len.checked_next_multiple_of(page_len);
        let (1.., Some(rounded @ 1..)) = (buffer_count, rounded) else {
            return Err(refuse(io::ErrorKind::InvalidInput.into()));
        };
        let mut free = Vec::with_capacity(buffer_count);
        let mut lock_refusal = None;
        for _ in 0..buffer_count {
            let mut map = MmapMut::map_anon(rounded).map_err(refuse)?;
            if lock_refusal.is_none()
                && let Err(source) = map.lock()
            {
                lock_refusal = Some(match Errno::from_io_error(&source) {
                    Some(errno) => explain_memlock(errno, buffer_count * rounded),
                    None => source,
                });
            }
            if lock_refusal.is_some() {
                // Touched, so that the first filling takes no faults at least.
                map.fill(0);
            }
            free.push(StageBuffer { map, filled: 0 });
        }
        Ok(Self {
            free: Mutex::new(free),
            buffer_count,
            buffer_len: rounded,
            lock_refusal,
        })
    }

    /// An empty buffer, if one is left.
    pub fn take(&self) -> Option<StageBuffer> {
        self.free().pop()
    }

    /// Takes a buffer of this pool back.
    ///
    /// # Panics
    /// If it is not one: more would be given back than there are.
    pub fn give_back(&self, mut buffer: StageBuffer) {
        buffer.filled = 0;
        let mut free = self.free();
        assert!(
            free.len() < self.buffer_count && buffer.map.len() == self.buffer_len,
            "a buffer of another pool"
        );
        free.push(buffer);
    }

    /// How many buffers can be taken.
    pub fn available(&self) -> usize {
        self.free().len()
    }

    /// How many buffers there are, taken or not.
    pub fn buffer_count(&self) -> usize {
        self.buffer_count
    }

    /// Bytes that fit into one.
    pub fn buffer_len(&self) -> usize {
        self.buffer_len
    }

    /// Why not all buffers are locked in memory, if they are not.
    pub fn lock_refusal(&self) -> Option<&io::Error> {
        self.lock_refusal.as_ref()
    }

    fn free(&self) -> MutexGuard<'_, Vec<StageBuffer>> {
        // Nothing that can panic stands between two states of the list.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StageBuffer {
    /// Copies as many of `bytes` as fit behind what is there; returns how many.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let rest = &mut self.map[self.filled..];
        let len = bytes.len().min(rest.len());
        rest[..len].copy_from_slice(&bytes[..len]);
        self.filled += len;
        len
    }

    /// What was pushed since the buffer was taken.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.map[..self.filled]
    }

    /// How many bytes still fit.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.map.len() - self.filled
    }
}

impl fmt::Debug for StageBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StageBuffer")
            .field("filled", &self.filled)
            .field("len", &self.map.len())
            .finish()
    }
}

/// The memory of a [`StagePool`] could not be had.
#[derive(Debug)]
pub struct StageError {
    buffer_count: usize,
    buffer_len: usize,
    source: io::Error,
}

impl fmt::Display for StageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no memory for {} stage buffers of {} bytes: {}",
            self.buffer_count, self.buffer_len, self.source
        )
    }
}

impl Error for StageError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test ends by panicking")]

    use super::*;

    #[test]
    fn buffers_are_bounded_and_come_back_empty() {
        let pool = StagePool::new(2, 5000).unwrap();
        assert_eq!(pool.buffer_len() % rustix::param::page_size(), 0);
        let (mut first, second) = (pool.take().unwrap(), pool.take().unwrap());
        assert!(pool.take().is_none());
        let bytes = vec![7; pool.buffer_len() + 1];
        assert_eq!(first.push(&bytes[..10]), 10);
        assert_eq!(first.push(&bytes), pool.buffer_len() - 10, "what fits");
        assert_eq!((first.remaining(), first.push(b"x")), (0, 0));
        assert_eq!(first.bytes(), &bytes[..pool.buffer_len()]);
        pool.give_back(first);
        pool.give_back(second);
        assert!(pool.take().unwrap().bytes().is_empty());
        assert_eq!((pool.available(), pool.buffer_count()), (1, 2));
    }

    #[test]
    fn impossible_sizes_are_errors() {
        for (count, len) in [(0, 4096), (1, 0), (1, usize::MAX), (2, usize::MAX / 4)] {
            let error = StagePool::new(count, len).unwrap_err();
            assert!(error.to_string().contains("stage buffers of"), "{error}");
        }
    }
}
