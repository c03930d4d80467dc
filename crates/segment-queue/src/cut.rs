//! Setting the end of a queue after recovery. Only before it serves anybody: readers' slices are
//! of bytes that never change.

use std::sync::Arc;

use mmap_core::sabotage::{self, Lie};
use mmap_core::sync::atomic::Ordering;
use mmap_core::{Io, IoError, IoFile};

use crate::error::QueueError;
use crate::guard::{lock, read, write};
use crate::segment::Segment;
use crate::writer::SegmentWriter;

/// Bytes read at a time when looking for what is not zero behind the end.
const SCAN_LEN: u64 = 256 * 1024;

/// What [`SegmentWriter::truncate`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Truncation {
    /// Bytes behind the end, in its segment, that were not zero and are now, in whole pieces of
    /// the block that was rewritten.
    pub zeroed_len: u64,
    /// Segment files behind the end that were removed.
    pub removed_count: u64,
}

impl<I: Io> SegmentWriter<I> {
    /// Makes `end` the end of the queue: later segments are removed, the rest of the segment is
    /// zeroed, and all of that segment is synced, so that what was cut never comes back and what
    /// was kept stays. Readers see everything below `end`.
    ///
    /// A segment that starts exactly at `end` is kept, empty. Earlier segments are taken to be
    /// durable; if that is not known, see [`mark_unflushed`](Self::mark_unflushed).
    ///
    /// # Errors
    /// [`QueueError::OutOfRange`] below the first or behind the last segment,
    /// [`QueueError::Pinned`] if somebody holds a slice of the segment, or those of the file
    /// system; then some later segments may be gone, the last ones first.
    pub fn truncate(&mut self, end: u64) -> Result<Truncation, QueueError> {
        let removed_count = self.cut(end)?;
        let Some(segment) = read(&self.queue.list).find(end).cloned() else {
            return Ok(Truncation {
                zeroed_len: 0,
                removed_count,
            });
        };
        let file = self.queue.file_for_reading(segment.base())?;
        let zeroed_len = zero(&*file, end - segment.base(), segment.len())?;
        file.sync_data()?;
        self.tail = self.open_tail()?;
        Ok(Truncation {
            zeroed_len,
            removed_count,
        })
    }

    /// As [`truncate`](Self::truncate) for an end that is known to have only zeros behind it in
    /// its segment, after a clean stop, say: nothing is read, written or synced, and the segment
    /// not even opened before the first append.
    ///
    /// # Errors
    /// As [`truncate`](Self::truncate).
    pub fn resume(&mut self, end: u64) -> Result<Truncation, QueueError> {
        let removed_count = self.cut(end)?;
        self.queue.release();
        Ok(Truncation {
            zeroed_len: 0,
            removed_count,
        })
    }

    /// Writes `bytes` over what stands at `offset`, within one segment, and syncs them: for taking
    /// out damage while nobody reads.
    ///
    /// # Errors
    /// [`QueueError::OutOfRange`], [`QueueError::Pinned`] if somebody holds a slice of the segment,
    /// or those of writing.
    pub fn overwrite(&mut self, offset: u64, bytes: &[u8]) -> Result<(), QueueError> {
        let (file, position) = self.file_to_change(offset, bytes.len() as u64)?;
        file.write_all_at(bytes, position)?;
        Ok(file.sync_data()?)
    }

    /// Writes zeros from `offset` to `end`, which lie within one segment, and syncs them, leaving
    /// what is zero alone.
    ///
    /// # Errors
    /// As [`overwrite`](Self::overwrite).
    pub fn erase(&mut self, offset: u64, end: u64) -> Result<(), QueueError> {
        let (file, position) = self.file_to_change(offset, end - offset)?;
        zero(&*file, position, position + (end - offset))?;
        Ok(file.sync_data()?)
    }

    /// Writes the bytes from `offset` to `end` again as they are, so that the next flush hands them
    /// to the device: after a sync that failed, the kernel may hold pages that it takes for written
    /// and that never were. Only before the queue serves anybody.
    ///
    /// # Errors
    /// [`QueueError::OutOfRange`], or those of reading and writing.
    pub fn write_again(&mut self, offset: u64, end: u64) -> Result<(), QueueError> {
        let segment_len = self.queue.segment_len();
        let mut at = offset;
        while at < end {
            let to = (at - at % segment_len + segment_len).min(end);
            let (file, position) = self.file_to_change(at, to - at)?;
            // Takes what the kernel has to tell of writes that failed before: whoever calls has read the
            // bytes, and the sync that counts is that of what is written now.
            let _told = file.sync_data();
            write_again(&*file, position, position + (to - at))?;
            at = to;
        }
        Ok(())
    }

    /// As [`write_again`](Self::write_again), by whoever flushes next, from what is flushed then up
    /// to `end`: the queue can serve at once. What the kernel tells then of a write that has failed
    /// before is a failed sync, because nobody has looked what it took along.
    pub fn write_again_later(&mut self, end: u64) {
        self.queue.unsure_end.store(end, Ordering::Release);
    }

    /// Makes `end` the end of what readers see and changes no file: for a queue that is only read,
    /// because what is behind its end cannot be cut off. Nothing may be appended any more.
    ///
    /// # Errors
    /// [`QueueError::OutOfRange`], [`QueueError::Pinned`] if somebody holds a slice of the segment.
    pub fn limit_to(&mut self, end: u64) -> Result<(), QueueError> {
        self.move_end(end)
    }

    fn file_to_change(&mut self, offset: u64, len: u64) -> Result<(Arc<I::File>, u64), QueueError> {
        self.queue.check_poison()?;
        self.queue.check_range(offset, len)?;
        self.close_tail()?;
        let segment = self.queue.find(offset).ok_or(QueueError::OutOfRange {
            offset,
            len,
            min: self.queue.min_offset(),
            end: self.queue.published(),
        })?;
        segment.unmap_unpinned()?;
        let file = self.queue.file_for_reading(segment.base())?;
        Ok((file, offset - segment.base()))
    }

    /// Says that bytes from `offset` on may not be durable (a process that was killed left them in
    /// the page cache), so that the next flush syncs them.
    pub fn mark_unflushed(&mut self, offset: u64) {
        let offset = offset.max(self.queue.min_offset());
        self.queue.flushed.fetch_min(offset, Ordering::AcqRel);
    }

    /// Removes every segment and starts anew at `base`, rounded down to a segment's start. Slices
    /// that are held stay valid.
    ///
    /// # Errors
    /// Those of removing files, the last ones first.
    pub fn reset(&mut self, base: u64) -> Result<(), QueueError> {
        let base = base - base % self.queue.segment_len();
        let queue = Arc::clone(&self.queue);
        let _no_flush = lock(&queue.flushing);
        self.close_tail()?;
        self.queue.published.publish(self.queue.min_offset());
        while self.remove_last_if(|_| true)? {}
        self.queue.min.store(base, Ordering::Release);
        self.queue.flushed.store(base, Ordering::Release);
        self.queue.published.publish(base);
        Ok(())
    }

    /// Removes every segment and the directory. Slices that are held stay valid.
    ///
    /// # Errors
    /// Those of removing files, and of the directory if it holds anything else.
    pub fn delete(mut self) -> Result<(), QueueError> {
        self.reset(0)?;
        match self.queue.home.io.remove_dir(&self.queue.home.dir) {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Moves the positions to `end` and removes the segments behind it; returns their count.
    fn cut(&mut self, end: u64) -> Result<u64, QueueError> {
        let queue = Arc::clone(&self.queue);
        self.move_end(end)?;
        let _no_flush = lock(&queue.flushing);
        let mut removed_count = 0;
        while self.remove_last_if(|last| last.base() > end)? {
            removed_count += 1;
        }
        Ok(removed_count)
    }

    fn move_end(&mut self, end: u64) -> Result<(), QueueError> {
        self.queue.check_poison()?;
        self.queue.check_range(end, 0)?;
        let queue = Arc::clone(&self.queue);
        let _no_flush = lock(&queue.flushing);
        self.close_tail()?;
        // Whoever comes from now on sees nothing of what goes.
        self.queue.published.publish(end);
        self.queue.flushed.store(end, Ordering::Release);
        match self.queue.find(end) {
            Some(segment) => segment.unmap_unpinned(),
            None => Ok(()),
        }
    }

    fn close_tail(&mut self) -> Result<(), QueueError> {
        self.publish();
        if let Some(tail) = self.tail.take() {
            tail.segment.close_file();
        }
        self.queue.discard_prepared(false)
    }

    /// Removes the last segment, durably, so that no crash leaves a gap.
    fn remove_last_if(
        &mut self,
        condition: impl Fn(&Segment<I>) -> bool,
    ) -> Result<bool, QueueError> {
        let Some(last) = read(&self.queue.list).last().cloned() else {
            return Ok(false);
        };
        if !condition(&last) {
            return Ok(false);
        }
        let home = &self.queue.home;
        home.io.remove_file(&last.path())?;
        home.io.sync_dir(&home.dir)?;
        last.unmap();
        self.queue.forget_file(last.base());
        let mut list = write(&self.queue.list);
        *list = list.without_last();
        Ok(true)
    }
}

/// Writes a range of a file again as it is.
pub(crate) fn write_again(file: &impl IoFile, from: u64, to: u64) -> Result<(), IoError> {
    let mut buf = vec![0; SCAN_LEN.min(to - from) as usize];
    let mut position = from;
    while position < to {
        let len = (to - position).min(SCAN_LEN) as usize;
        let bytes = buf.get_mut(..len).unwrap_or_default();
        file.read_exact_at(bytes, position)?;
        file.write_all_at(bytes, position)?;
        position += len as u64;
    }
    Ok(())
}

/// Writes zeros over what is not zero from `from` to `to`, leaving holes as they are; returns the
/// bytes written.
fn zero(file: &impl IoFile, from: u64, to: u64) -> Result<u64, QueueError> {
    let mut buf = vec![0; SCAN_LEN.min(to - from) as usize];
    let zeros = vec![0; buf.len()];
    let mut zeroed_len = 0;
    if sabotage::is_planted(Lie::TailNotZeroed) {
        return Ok(zeroed_len);
    }
    let mut position = from;
    while position < to {
        let len = (to - position).min(SCAN_LEN) as usize;
        let (found, zeros) = (&mut buf[..len], &zeros[..len]);
        file.read_exact_at(found, position)?;
        if found != zeros {
            file.write_all_at(zeros, position)?;
            zeroed_len += len as u64;
        }
        position += len as u64;
    }
    Ok(zeroed_len)
}
