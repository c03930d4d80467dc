//! The queue as its readers see it: one address space, sliced and read.

use std::fmt;
use std::sync::{Arc, OnceLock};

use mmap_core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use mmap_core::sync::{Mutex, RwLock};
use mmap_core::transfer::FileRange;
use mmap_core::{Access, Io, IoFile, MapSlice, OsIo, Published, check_lockable};

use crate::ahead::Ahead;
use crate::error::QueueError;
use crate::guard::{lock, read, write};
use crate::layout::Layout;
use crate::list::SegmentList;
use crate::options::SegmentQueueOptions;
use crate::segment::{Home, Segment};
use crate::unmap::{Unmapped, UseClock};
use crate::writer::SegmentWriter;

/// Fixed-size segment files seen as one address space, shared by any number of readers.
///
/// Offsets count bytes from the start of the address space; of it the queue holds
/// `min_offset()..published()`. There is one [`SegmentWriter`], handed out by
/// [`open`](SegmentQueue::open).
///
/// Slices never cross a segment, keep their mapping alive, and stay valid when the segment is
/// removed. Readers take a read lock for the time of a look-up, never across I/O.
pub struct SegmentQueue<I: Io = OsIo> {
    pub(crate) home: Arc<Home<I>>,
    pub(crate) list: RwLock<SegmentList<I>>,
    /// First offset held. Written by trimming and cutting, each under its own exclusion.
    pub(crate) min: AtomicU64,
    /// End of what readers may see.
    pub(crate) published: Published,
    /// Everything below it is durable. Raised after a successful sync only.
    pub(crate) flushed: AtomicU64,
    /// The first failed write or sync; nothing is written after it.
    pub(crate) poison: OnceLock<String>,
    /// Whether the names of all segments are known to be durable; those found at opening are not,
    /// as a killed process may have left them in the cache. Set by flushing before it syncs the
    /// directory, cleared by whoever creates a file after that.
    pub(crate) names_synced: AtomicBool,
    /// What is flushed below this offset is written again first. Changed by the writer before the
    /// queue serves, read under `flushing`.
    pub(crate) unsure_end: AtomicU64,
    /// Held while syncing, so that one sync runs at a time and `flushed` has no gaps.
    pub(crate) flushing: Mutex<()>,
    /// Held while segments are removed at the front.
    trimming: Mutex<()>,
    /// The segments prepared for the writer.
    pub(crate) ahead: Ahead<I>,
    /// The file last read by [`read_exact_at`](SegmentQueue::read_exact_at).
    last_read: Mutex<Option<LastRead<I>>>,
    /// Offsets whose segments stay mapped, as the last step was told.
    pub(crate) keep_mapped: Mutex<Vec<u64>>,
}

struct LastRead<I: Io> {
    base: u64,
    file: Arc<I::File>,
}

/// What [`SegmentQueue::trim_to`] removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trimmed {
    /// Removed segment files.
    pub segment_count: u64,
    /// Their bytes.
    pub len: u64,
}

impl<I: Io> SegmentQueue<I> {
    /// Opens a directory to append to it, with every segment taken as full: a freshly opened
    /// queue's owner finds where the content ends ([`read_exact_at`](Self::read_exact_at)) and
    /// tells the writer ([`SegmentWriter::truncate`], [`SegmentWriter::resume`]) before serving
    /// anybody.
    ///
    /// The caller holds the lock of the store. Nothing is mapped yet, and nothing is created.
    ///
    /// # Errors
    /// Files that do not belong here or do not fit together, see [`Layout::scan`], damage that the
    /// policy does not repair, and a tail that may not be locked.
    pub fn open(
        io: I,
        options: &SegmentQueueOptions,
    ) -> Result<(Arc<Self>, SegmentWriter<I>), QueueError> {
        if options.lock_tail {
            check_lockable(options.segment_len)?;
        }
        let mut layout = Layout::scan(&io, options)?;
        layout.repair(&io, options)?;
        let queue = Arc::new(Self::new(io, options, Access::ReadWrite, &layout));
        let writer = SegmentWriter::new(Arc::clone(&queue));
        Ok((queue, writer))
    }

    /// Opens a directory to read it, without lock or change; another process may be appending.
    ///
    /// Everything up to the last segment's end counts as published until the owner has found the
    /// true end and said so with [`limit_to`](Self::limit_to); before that, read by
    /// [`read_exact_at`](Self::read_exact_at), because slices of bytes that a live writer is still
    /// changing are not sound. Segments that are short at the end (just being created) are left
    /// out.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_read_only(io: I, options: &SegmentQueueOptions) -> Result<Arc<Self>, QueueError> {
        let mut layout = Layout::scan(&io, options)?;
        layout.leave_out_tail(options)?;
        Ok(Arc::new(Self::new(io, options, Access::ReadOnly, &layout)))
    }

    fn new(io: I, options: &SegmentQueueOptions, access: Access, layout: &Layout) -> Self {
        let segment_len = options.segment_len;
        let home = Arc::new(Home {
            io,
            dir: options.dir.clone(),
            segment_len,
            allocate_step: options.allocate_step,
            access,
            name_sync: options.name_sync,
            advice: options.advice,
            mapped_len_max: options.mapped_len_max,
            budget: options.budget.clone(),
            unmap_after: options.unmap_after,
            prepare_wait: options.prepare_wait,
            lock_tail: options.lock_tail,
            lock_failure: OnceLock::new(),
            mapped_len: AtomicU64::new(0),
            use_clock: UseClock::new(),
        });
        let base_when_empty = options.base_when_empty - options.base_when_empty % segment_len;
        let min = layout.bases.first().copied().unwrap_or(base_when_empty);
        let end = layout.bases.last().map_or(min, |last| last + segment_len);
        let list = SegmentList::new(layout.bases.iter().map(|&base| Segment::new(&home, base)));
        Self {
            home,
            list: RwLock::new(list),
            min: AtomicU64::new(min),
            published: Published::new(end),
            flushed: AtomicU64::new(end),
            unsure_end: AtomicU64::new(0),
            poison: OnceLock::new(),
            names_synced: AtomicBool::new(false),
            flushing: Mutex::new(()),
            trimming: Mutex::new(()),
            ahead: Ahead::new(),
            last_read: Mutex::new(None),
            keep_mapped: Mutex::new(Vec::new()),
        }
    }

    /// The first offset held.
    pub fn min_offset(&self) -> u64 {
        self.min.load(Ordering::Acquire)
    }

    /// The end of what readers may see.
    #[inline]
    pub fn published(&self) -> u64 {
        self.published.get()
    }

    /// Everything below this offset is durable.
    pub fn flushed(&self) -> u64 {
        self.flushed.load(Ordering::Acquire)
    }

    /// Why the segment at the end could not be kept in memory, if it was to be
    /// ([`lock_tail`](crate::SegmentQueueOptions::lock_tail)): the limit has been used up by others
    /// since the queue was opened. Appending goes on.
    pub fn lock_failure(&self) -> Option<&str> {
        self.home.lock_failure.get().map(String::as_str)
    }

    /// Bytes of a segment.
    pub fn segment_len(&self) -> u64 {
        self.home.segment_len
    }

    /// The segments at this moment.
    pub fn segments(&self) -> Arc<[Arc<Segment<I>>]> {
        Arc::clone(read(&self.list).segments())
    }

    /// The segment that holds `offset`.
    pub fn find(&self, offset: u64) -> Option<Arc<Segment<I>>> {
        read(&self.list).find(offset).cloned()
    }

    /// The end of what a read-only queue shows, once its owner has found where the content ends.
    ///
    /// # Errors
    /// [`QueueError::OutOfRange`] if `end` is not within the queue.
    ///
    /// # Panics
    /// If the queue has a writer, which alone says how far it is published.
    pub fn limit_to(&self, end: u64) -> Result<(), QueueError> {
        assert!(
            self.home.access == Access::ReadOnly,
            "the end of a queue with a writer is the writer's"
        );
        self.check_range(end, 0)?;
        for segment in self.segments().iter() {
            segment.unmap_unpinned()?;
        }
        self.published.publish(end);
        self.flushed.store(end, Ordering::Release);
        Ok(())
    }

    /// Published bytes within one segment, without a copy. `None` if they are not (or no more)
    /// held, cross a segment, or the segment cannot be mapped.
    ///
    /// [`try_slice`](Self::try_slice) tells the last case apart.
    pub fn slice(&self, offset: u64, len: usize) -> Option<MapSlice<I::Map>> {
        self.try_slice(offset, len).ok().flatten()
    }

    /// Published bytes from `offset` to the end of its segment, or to the end of what is
    /// published if that is before; never empty. `None` as with [`slice`](Self::slice).
    pub fn slice_from(&self, offset: u64) -> Option<MapSlice<I::Map>> {
        let len = self.published().checked_sub(offset)?;
        let len = len.min(self.segment_len() - offset % self.segment_len());
        if len == 0 {
            return None;
        }
        self.slice(offset, usize::try_from(len).ok()?)
    }

    /// As [`slice`](Self::slice), with the reason why a segment cannot be mapped.
    ///
    /// # Errors
    /// Those of opening and mapping the file.
    pub fn try_slice(
        &self,
        offset: u64,
        len: usize,
    ) -> Result<Option<MapSlice<I::Map>>, QueueError> {
        let published = self.published();
        if offset
            .checked_add(len as u64)
            .is_none_or(|end| end > published)
        {
            return Ok(None);
        }
        let (segment, range) = {
            let list = read(&self.list);
            let Some(segment) = list.find(offset) else {
                return Ok(None);
            };
            let position = (offset - segment.base()) as usize;
            if len > segment.len() as usize - position {
                return Ok(None);
            }
            let range = position..position + len;
            if let Some(slice) = segment.slice_if_mapped(range.clone()) {
                return Ok(Some(slice));
            }
            (Arc::clone(segment), range)
        };
        let readable = (published - segment.base()).min(segment.len());
        match self.map_with_relief(|| segment.region(readable)) {
            Ok(region) => {
                let slice = region.slice(range);
                self.keep_budget(Some(offset), &mut Unmapped::default());
                Ok(slice)
            }
            // Removed since the look-up.
            Err(_) if offset < self.min_offset() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The place in its file of published bytes within one segment, to be sent from there. `None` as
    /// with [`slice`](Self::slice).
    ///
    /// The file stays open as long as the segment is mapped.
    ///
    /// # Errors
    /// Those of opening the file.
    pub fn file_range(
        &self,
        offset: u64,
        len: u64,
    ) -> Result<Option<FileRange<I::File>>, QueueError> {
        let end = offset.checked_add(len);
        if end.is_none_or(|end| end > self.published()) {
            return Ok(None);
        }
        let Some(segment) = self.find(offset) else {
            return Ok(None);
        };
        let position = offset - segment.base();
        if len > segment.len() - position {
            return Ok(None);
        }
        match segment.file() {
            Ok(file) => Ok(Some(FileRange::new(file, position, len))),
            // Removed since the look-up.
            Err(_) if offset < self.min_offset() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Copies published bytes, across segments if need be, by reading the files: an unreadable
    /// block is an error here, where a mapping would raise a signal.
    ///
    /// # Errors
    /// [`QueueError::OutOfRange`], or those of reading.
    pub fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), QueueError> {
        self.check_range(offset, buf.len() as u64)?;
        let (mut offset, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let position = offset % self.segment_len();
            let here = (self.segment_len() - position).min(rest.len() as u64);
            let (part, behind) = rest.split_at_mut(here as usize);
            self.file_for_reading(offset - position)?
                .read_exact_at(part, position)?;
            offset += here;
            rest = behind;
        }
        Ok(())
    }

    /// The first published offset from `offset` on where bytes that are not zero may stand; `None`
    /// when zeros follow to the end. Finds it without reading: see [`IoFile::seek_data`].
    ///
    /// # Errors
    /// [`QueueError::OutOfRange`], or those of asking the files.
    pub fn seek_data(&self, offset: u64) -> Result<Option<u64>, QueueError> {
        self.check_range(offset, 0)?;
        let (mut offset, end) = (offset, self.published());
        while offset < end {
            let position = offset % self.segment_len();
            let base = offset - position;
            if let Some(found) = self.file_for_reading(base)?.seek_data(position)? {
                return Ok(Some(base + found).filter(|found| *found < end));
            }
            offset = base + self.segment_len();
        }
        Ok(None)
    }

    /// Removes the segments that end at or below `offset`, oldest first, but never the last one nor
    /// what is not flushed; each removal is durable before the next, so that no crash leaves a gap.
    ///
    /// Slices of them stay valid; their space returns when the last one is dropped.
    ///
    /// # Errors
    /// Those of removing a file. What was removed before stays removed, the rest stays readable.
    pub fn trim_to(&self, offset: u64) -> Result<Trimmed, QueueError> {
        let _one_at_a_time = lock(&self.trimming);
        let offset = offset.min(self.flushed());
        let mut trimmed = Trimmed::default();
        while let Some(segment) = self.take_first_below(offset) {
            if let Err(error) = self.home.io.remove_file(&segment.path())
                && !error.is_not_found()
            {
                self.put_first_back(segment);
                return Err(error.into());
            }
            segment.unmap();
            self.forget_file(segment.base());
            trimmed.segment_count += 1;
            trimmed.len += segment.len();
            self.home.sync_dir(&self.home.dir)?;
        }
        Ok(trimmed)
    }

    /// Lets go of every mapping and file, except for those of a segment at whose end a writer is
    /// appending; readers map again what they ask for. Slices that are held stay valid.
    pub fn release(&self) {
        for segment in self.segments().iter() {
            segment.unmap_detached();
        }
        lock(&self.last_read).take();
    }

    fn take_first_below(&self, offset: u64) -> Option<Arc<Segment<I>>> {
        let mut list = write(&self.list);
        let first = list.first().cloned()?;
        if list.segments().len() < 2 || first.end() > offset {
            return None;
        }
        *list = list.without_first();
        self.min.store(first.end(), Ordering::Release);
        Some(first)
    }

    fn put_first_back(&self, segment: Arc<Segment<I>>) {
        let mut list = write(&self.list);
        self.min.store(segment.base(), Ordering::Release);
        *list = list.with_first(segment);
    }

    /// A handle of the file whose first offset is `base`: the last one used, or a new one.
    pub(crate) fn file_for_reading(&self, base: u64) -> Result<Arc<I::File>, QueueError> {
        if let Some(last) = &*lock(&self.last_read)
            && last.base == base
        {
            return Ok(Arc::clone(&last.file));
        }
        // With the writer's access, so that the writer can take over the handle with which
        // recovery has read the file: if the name is gone by then, its link count tells.
        let file = Arc::new(self.home.open(base, self.home.access)?);
        let last = LastRead {
            base,
            file: Arc::clone(&file),
        };
        *lock(&self.last_read) = Some(last);
        Ok(file)
    }

    /// Closes the handle kept by reading, if it is that of this file.
    pub(crate) fn forget_file(&self, base: u64) {
        lock(&self.last_read).take_if(|last| last.base == base);
    }

    pub(crate) fn check_range(&self, offset: u64, len: u64) -> Result<(), QueueError> {
        let (min, end) = (self.min_offset(), self.published());
        let behind = offset.checked_add(len);
        if offset < min || behind.is_none_or(|behind| behind > end) {
            return Err(QueueError::OutOfRange {
                offset,
                len,
                min,
                end,
            });
        }
        Ok(())
    }
}

impl<I: Io> fmt::Debug for SegmentQueue<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentQueue")
            .field("dir", &self.home.dir)
            .field("min_offset", &self.min_offset())
            .field("flushed", &self.flushed())
            .field("published", &self.published())
            .finish_non_exhaustive()
    }
}
