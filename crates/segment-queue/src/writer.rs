//! The one writer of a queue.

use std::fmt;
use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;

use mmap_core::sabotage::{self, Lie};
use mmap_core::sync::atomic::Ordering;
use mmap_core::{Appender, Io, IoError, IoFile, OsIo};

use crate::ahead::Prepared;
use crate::error::{AppendError, QueueError};
use crate::guard::{lock, read, write};
use crate::queue::SegmentQueue;
use crate::segment::Segment;

/// Appends to a [`SegmentQueue`], by one of three ways that move the same positions.
///
/// Mapped: [`append`](Self::append) copies into the mapping, [`publish`](Self::publish) shows it
/// to readers, [`SegmentQueue::flush`] makes it durable. Written through:
/// [`write_through`](Self::write_through) hands bytes that were collected outside to the file,
/// syncs, and then shows them. Written behind: [`write_behind`](Self::write_behind) hands them to
/// the file and shows them, and [`SegmentQueue::flush`] makes them durable.
///
/// `flushed <= published <= position`: what is written and not yet published is the writer's own.
pub struct SegmentWriter<I: Io = OsIo> {
    pub(crate) queue: Arc<SegmentQueue<I>>,
    /// The segment being appended to, once something is.
    pub(crate) tail: Option<Tail<I>>,
}

/// The segment at the end, open and mapped.
pub(crate) struct Tail<I: Io> {
    pub(crate) segment: Arc<Segment<I>>,
    pub(crate) file: Arc<I::File>,
    pub(crate) appender: Appender<I::Map>,
    /// Position up to which appending needs no further look at the file.
    pub(crate) ready: u64,
    /// Position up to which the blocks are known to have been written before.
    pub(crate) initialised: u64,
}

/// Blocks are initialised up to the next multiple of this: 256 KiB. The sync that does so takes
/// twice as long as others, and is one of 200 for records of 1 KiB.
const INITIALISE_STEP: u64 = 256 << 10;
/// Blocks are initialised ahead of writes of at most this many bytes: 16 KiB. Larger ones are few
/// enough to bear a commit of the journal each.
const INITIALISE_FOR_MAX: u64 = 16 << 10;
/// What they are initialised with.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

impl<I: Io> SegmentWriter<I> {
    pub(crate) fn new(queue: Arc<SegmentQueue<I>>) -> Self {
        Self { queue, tail: None }
    }

    /// The queue written to.
    pub fn queue(&self) -> &Arc<SegmentQueue<I>> {
        &self.queue
    }

    /// The offset at which the next byte goes.
    #[inline]
    pub fn position(&self) -> u64 {
        match &self.tail {
            Some(tail) => tail.position(),
            None => self.queue.published(),
        }
    }

    /// Bytes left in the current segment; 0 also when there is none yet.
    pub fn remaining(&self) -> u64 {
        let end = read(&self.queue.list).last().map(|last| last.end());
        end.map_or(0, |end| end - self.position())
    }

    /// Copies `parts`, one after the other, into the mapping; returns the offset of the first
    /// byte. Readers see them after [`publish`](Self::publish).
    ///
    /// # Errors
    /// Nothing is appended then. [`AppendError::NeedsRoll`] when they do not fit; a full disk
    /// ([`QueueError::Full`]) is found here, before the first byte is copied, and passes by itself.
    pub fn append(&mut self, parts: &[&[u8]]) -> Result<u64, AppendError> {
        self.append_by(parts, Appender::write)
    }

    /// As [`append`](Self::append), but the first bytes come last: a process that is killed in the
    /// middle leaves none of them ([`Appender::write_head_last`]).
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn append_head_last(&mut self, parts: &[&[u8]]) -> Result<u64, AppendError> {
        self.append_by(parts, Appender::write_head_last)
    }

    #[inline]
    fn append_by(
        &mut self,
        parts: &[&[u8]],
        write: impl FnOnce(&mut Appender<I::Map>, &[&[u8]]) -> Option<Range<usize>>,
    ) -> Result<u64, AppendError> {
        let len = parts.iter().map(|part| part.len() as u64).sum();
        let tail = self.tail_with_room(len)?;
        match write(&mut tail.appender, parts) {
            Some(range) => Ok(tail.segment.base() + range.start as u64),
            None => Err(tail.needs_roll(len)),
        }
    }

    /// Allocates the blocks of the next `len` bytes of the segment, in whole steps; returns the
    /// offset up to which nothing more has to be allocated. For owners that hand out offsets
    /// before they write.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn reserve(&mut self, len: u64) -> Result<u64, AppendError> {
        let tail = self.tail_with_room(len)?;
        Ok(tail.segment.base() + tail.ready)
    }

    /// Lets readers see everything appended so far.
    #[inline]
    pub fn publish(&mut self) {
        if let Some(tail) = &mut self.tail {
            tail.appender.publish();
            self.queue.published.publish(tail.position());
        }
    }

    /// Appends `first` (a format's end marker, say) and counts the rest of the segment as
    /// written, whatever it holds (zeros, if nobody wrote there). Returns the offset of `first`.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn fill_to_end(&mut self, first: &[u8]) -> Result<u64, AppendError> {
        let offset = self.append(&[first])?;
        if let Some(tail) = &mut self.tail {
            tail.appender.skip(tail.appender.remaining());
        }
        Ok(offset)
    }

    /// Goes on to the next segment: the prepared one, one that is waited for
    /// ([`SegmentQueue::serve_ahead`]), or one created now. What is left of the current one counts
    /// as written; everything written is published.
    ///
    /// # Errors
    /// [`QueueError::Full`] and [`QueueError::Late`] among others; nothing has changed then, and
    /// rolling can be tried again.
    pub fn roll(&mut self) -> Result<(), QueueError> {
        self.queue.check_poison()?;
        let queue = Arc::clone(&self.queue);
        let last = read(&queue.list).last().cloned();
        let base = last
            .as_ref()
            .map_or_else(|| queue.published(), |last| last.end());
        // Held until the list has the new segment, so that nobody prepares the same one meanwhile.
        let (_ahead, prepared) = queue.next_segment(base)?;
        if let Some(mut tail) = self.tail.take() {
            tail.appender.skip(tail.appender.remaining());
            tail.appender.publish();
            tail.segment.close_file();
        } else if let Some(last) = last {
            // A reader's mapping of it ends where the segment did so far.
            last.unmap();
        }
        queue.published.publish(base);
        self.enter(prepared);
        Ok(())
    }

    fn enter(&mut self, prepared: Prepared<I>) {
        let mut list = write(&self.queue.list);
        *list = list.with_last(Arc::clone(&prepared.segment));
        drop(list);
        prepared.segment.lock_pages();
        self.tail = Some(Tail {
            segment: prepared.segment,
            file: prepared.file,
            appender: prepared.appender,
            ready: 0,
            initialised: prepared.initialised,
        });
    }

    /// Writes `parts`, one after the other, to the file at the writer's position, syncs, and then
    /// shows them to readers, together with everything appended before; returns the offset of the
    /// first byte.
    ///
    /// One call is one write and one sync: gather what waits. The parts must fit into the segment
    /// together. Zeros are written behind small ones from time to time: a sync of blocks that were
    /// allocated and never written commits the file system's journal, too, and takes half as long
    /// again.
    ///
    /// # Errors
    /// As [`append`](Self::append). A failed write or sync poisons the queue; readers see nothing
    /// of it.
    pub fn write_through(&mut self, parts: &[IoSlice<'_>]) -> Result<u64, AppendError> {
        let queue = Arc::clone(&self.queue);
        let (tail, len) = self.write_parts(parts, INITIALISE_FOR_MAX)?;
        let offset = tail.position();
        let is_too_early = sabotage::is_planted(Lie::VisibleBeforeFlushed);
        if is_too_early {
            tail.appender.skip(len as usize);
            tail.appender.publish();
            queue.published.publish(offset + len);
        }
        queue.sync_with_tail(tail)?;
        if !is_too_early {
            tail.appender.skip(len as usize);
        }
        self.publish();
        self.queue
            .flushed
            .fetch_max(self.position(), Ordering::Release);
        Ok(offset)
    }

    /// Writes `parts`, one after the other, to the file at the writer's position and shows them to
    /// readers, together with everything appended before; returns the offset of the first byte.
    /// They are durable after [`SegmentQueue::flush`].
    ///
    /// One call is one write: gather 64 KiB and more, of which the kernel makes the least work. The
    /// parts must fit into the segment together.
    ///
    /// # Errors
    /// As [`write_through`](Self::write_through).
    pub fn write_behind(&mut self, parts: &[IoSlice<'_>]) -> Result<u64, AppendError> {
        let (tail, len) = self.write_parts(parts, 0)?;
        let offset = tail.position();
        tail.appender.skip(len as usize);
        self.publish();
        Ok(offset)
    }

    /// Writes `parts` to the file at the writer's position, which does not move; returns their
    /// length. If that is `initialise_for` at most, blocks behind them are initialised now and then.
    fn write_parts(
        &mut self,
        parts: &[IoSlice<'_>],
        initialise_for: u64,
    ) -> Result<(&mut Tail<I>, u64), AppendError> {
        let len = parts.iter().map(|part| part.len() as u64).sum();
        let queue = Arc::clone(&self.queue);
        let tail = self.tail_with_room(len)?;
        let written = if len <= initialise_for {
            tail.write_initialising(parts, len)
        } else {
            tail.write(parts, len)
        };
        if let Err(error) = written {
            return Err(queue.failed_write(tail, len, error).into());
        }
        Ok((tail, len))
    }

    /// Publishes what was appended and lets go of all mappings and files until they are needed
    /// again: a queue at rest then costs neither map entries nor descriptors.
    pub fn park(&mut self) {
        self.publish();
        if let Some(tail) = self.tail.take() {
            tail.segment.close_file();
        }
        self.queue.release();
    }

    /// Ends writing: what was appended is published and synced, and the prepared segments that
    /// were not used are deleted (as RocketMQ does). A writer that is only dropped leaves it, as a crash
    /// would.
    ///
    /// # Errors
    /// Those of the sync and of removing the file.
    pub fn close(mut self) -> Result<(), QueueError> {
        self.park();
        self.queue.discard_prepared(true)?;
        self.queue.flush(crate::FlushPolicy::All)?;
        Ok(())
    }

    /// The tail with `len` bytes free and their blocks allocated.
    fn tail_with_room(&mut self, len: u64) -> Result<&mut Tail<I>, AppendError> {
        self.queue.check_poison()?;
        let segment_len = self.queue.segment_len();
        if len > segment_len {
            return Err(AppendError::TooLarge { len, segment_len });
        }
        if self.tail.is_none() {
            self.tail = self.open_tail()?;
        }
        let Some(tail) = &mut self.tail else {
            return Err(AppendError::NeedsRoll { len, remaining: 0 });
        };
        if len > tail.appender.remaining() as u64 {
            return Err(tail.needs_roll(len));
        }
        let end = tail.appender.position() as u64 + len;
        if end > tail.ready {
            tail.make_ready(end)?;
        }
        Ok(tail)
    }

    /// Opens the last segment for appending; `None` if there is none or it is full.
    pub(crate) fn open_tail(&self) -> Result<Option<Tail<I>>, QueueError> {
        let Some(segment) = read(&self.queue.list).last().cloned() else {
            return Ok(None);
        };
        let position = self.queue.published() - segment.base();
        if position == segment.len() {
            return Ok(None);
        }
        let file = self.queue.file_for_reading(segment.base())?;
        self.queue.forget_file(segment.base());
        let appender = self
            .queue
            .map_with_relief(|| segment.attach(Arc::clone(&file), position))?;
        segment.lock_pages();
        Ok(Some(Tail {
            segment,
            file,
            appender,
            ready: 0,
            initialised: position,
        }))
    }
}

impl<I: Io> Tail<I> {
    fn position(&self) -> u64 {
        self.segment.base() + self.appender.position() as u64
    }

    fn needs_roll(&self, len: u64) -> AppendError {
        AppendError::NeedsRoll {
            len,
            remaining: self.appender.remaining() as u64,
        }
    }

    /// Checks that the file still has its name (a Java broker started on a live directory removes
    /// files before it finds the lock taken), and allocates blocks up to `end`.
    fn make_ready(&mut self, end: u64) -> Result<(), QueueError> {
        if self.file.link_count()? == 0 {
            return Err(QueueError::Unlinked {
                path: self.segment.path(),
            });
        }
        self.ready = self.segment.allocate_to(&self.file, end)?;
        Ok(())
    }

    fn write(&self, parts: &[IoSlice<'_>], len: u64) -> Result<(), IoError> {
        debug_assert!(len <= self.appender.remaining() as u64);
        self.file
            .write_parts_at(parts, self.appender.position() as u64)
    }

    /// As [`write`](Self::write), with zeros behind it if some of its blocks were never written.
    fn write_initialising(&mut self, parts: &[IoSlice<'_>], len: u64) -> Result<(), IoError> {
        let end = self.appender.position() as u64 + len;
        if end <= self.initialised {
            return self.write(parts, len);
        }
        // Nothing but zeros is there: the log ends here. No further than blocks are allocated.
        let step = end.checked_next_multiple_of(INITIALISE_STEP);
        let initialised = step.map_or(end, |step| step.min(self.ready).max(end));
        let mut parts = parts.to_vec();
        let mut missing = (initialised - end) as usize;
        while missing > 0 {
            let zeros = ZEROS.get(..missing).unwrap_or(&ZEROS);
            parts.push(IoSlice::new(zeros));
            missing -= zeros.len();
        }
        self.write(&parts, len)?;
        self.initialised = initialised;
        Ok(())
    }
}

impl<I: Io> SegmentQueue<I> {
    /// After a failed write of `len` bytes at the tail's position: zeros over what may have
    /// arrived if the disk was full in spite of allocated blocks (file systems that copy on
    /// write), so that a later, shorter write is not followed by it; anything else is the end.
    fn failed_write(&self, tail: &Tail<I>, len: u64, error: IoError) -> QueueError {
        let position = tail.appender.position() as u64;
        let zeroed = error.is_full()
            && tail
                .file
                .write_all_at(&vec![0; len as usize], position)
                .is_ok();
        let error = self.home.explain(error, len);
        if zeroed {
            error
        } else {
            self.poisoned_by(error)
        }
    }

    /// Syncs everything before the tail's segment that is not durable yet, then the tail's file.
    fn sync_with_tail(&self, tail: &Tail<I>) -> Result<(), QueueError> {
        let _one_at_a_time = lock(&self.flushing);
        self.check_poison()?;
        self.sync_segments(tail.segment.base())?;
        self.sync_names()?;
        if sabotage::is_planted(Lie::SkipSync) {
            return Ok(());
        }
        let synced = tail.file.sync_data().map_err(QueueError::from);
        synced.or_else(|error| self.failed_sync(error))
    }
}

impl<I: Io> fmt::Debug for SegmentWriter<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentWriter")
            .field("queue", &self.queue)
            .field("position", &self.position())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use mmap_core::SimIo;

    use super::*;
    use crate::options::SegmentQueueOptions;

    /// Up to where blocks are initialised after a write of `len` bytes.
    fn initialised_by(writer: &mut SegmentWriter<SimIo>, len: usize) -> u64 {
        let bytes = vec![7; len];
        let offset = writer.write_through(&[IoSlice::new(&bytes)]).unwrap();
        let written = writer.queue.slice(offset, len).unwrap();
        assert!(written.iter().all(|byte| *byte == 7));
        writer.tail.as_ref().unwrap().initialised
    }

    #[test]
    fn small_writes_initialise_the_blocks_of_many() {
        const STEP: u64 = INITIALISE_STEP;
        let mut options = SegmentQueueOptions::new("/store/queue", 4 * STEP);
        options.allocate_step = 3 * STEP / 2;
        let io = SimIo::new(1);
        let (queue, mut writer) = SegmentQueue::open(io, &options).unwrap();
        writer.roll().unwrap();
        assert_eq!(initialised_by(&mut writer, 1000), STEP);
        assert_eq!(initialised_by(&mut writer, 1000), STEP);
        // No further than blocks are allocated.
        let large = STEP as usize;
        assert_eq!(
            initialised_by(&mut writer, large),
            STEP,
            "not for large ones"
        );
        assert_eq!(initialised_by(&mut writer, 1000), 3 * STEP / 2);
        let left = writer.remaining() as usize;
        initialised_by(&mut writer, left - 1000);
        assert_eq!(initialised_by(&mut writer, 1000), 4 * STEP, "the end");
        // Zeros are behind what is written, and no part of it.
        assert_eq!(queue.published(), 4 * STEP);
        writer.roll().unwrap();
        assert_eq!(initialised_by(&mut writer, 1), STEP);
        assert_eq!(queue.published(), 4 * STEP + 1);
    }
}
