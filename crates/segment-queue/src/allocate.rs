//! The next segment, made before it is needed and off the append path.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mmap_core::{Appender, Io, IoFile, OsIo, RawMap};

use crate::error::QueueError;
use crate::guard::{lock, read};
use crate::options::NameSync;
use crate::queue::SegmentQueue;
use crate::segment::{Attached, Segment};
use crate::unmap::Unmapped;

/// The place where a prepared segment waits for the writer.
pub(crate) enum Next<I: Io> {
    Empty,
    Ready(Prepared<I>),
    /// The writer is done; nothing is prepared any more.
    Closed,
}

/// A created, allocated and mapped segment that is not part of the queue yet.
pub(crate) struct Prepared<I: Io> {
    pub(crate) segment: Arc<Segment<I>>,
    pub(crate) file: Arc<I::File>,
    pub(crate) appender: Appender<I::Map>,
}

/// How far ahead of the writer the [`Preallocator`] works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreallocateOptions {
    /// The next segment is created once no more than this many bytes are left of the current one.
    /// Default: half of a segment.
    pub create_below: u64,
    /// Bytes ahead of what is published whose blocks are allocated and whose pages are faulted in
    /// for writing; into the next segment too. 0: none. Default: 32 MiB.
    ///
    /// Wide enough for what arrives between two steps, and no wider: a page that the kernel has
    /// written back before its first store costs a write-protect fault again.
    pub window: u64,
}

impl PreallocateOptions {
    /// The defaults for segments of this length.
    pub fn for_segment_len(segment_len: u64) -> Self {
        Self {
            create_below: segment_len / 2,
            window: 32 * 1024 * 1024,
        }
    }
}

/// Prepares what the writer of a queue is about to need, so that appending waits for no file and
/// takes no page fault. Everything it does the writer does itself when it is late or fails.
///
/// [`step`](Self::step) is to be called from a thread of its own, repeatedly.
#[derive(Debug)]
pub struct Preallocator<I: Io = OsIo> {
    queue: Arc<SegmentQueue<I>>,
    options: PreallocateOptions,
    /// Offset up to which pages were faulted in.
    populated: u64,
}

/// What a [`Preallocator::step`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PreallocateStep {
    /// The first offset of the segment that was created.
    pub created: Option<u64>,
    /// Bytes that were faulted in.
    pub populated_len: u64,
}

impl<I: Io> Preallocator<I> {
    /// A preallocator for this queue, of which there should be one.
    pub fn new(queue: Arc<SegmentQueue<I>>, options: PreallocateOptions) -> Self {
        Self {
            queue,
            options,
            populated: 0,
        }
    }

    /// Does what is due now, and returns what that was: nothing, most times.
    ///
    /// # Errors
    /// A full disk among others. The next step tries again; the writer is not affected.
    pub fn step(&mut self) -> Result<PreallocateStep, QueueError> {
        self.queue.check_poison()?;
        Ok(PreallocateStep {
            created: self.create_next()?,
            populated_len: self.populate()?,
        })
    }

    fn create_next(&self) -> Result<Option<u64>, QueueError> {
        let mut next = lock(&self.queue.next);
        // Only with the lock held is the last segment the one that the next one follows.
        let Some(last) = read(&self.queue.list).last().cloned() else {
            return Ok(None);
        };
        let left = last.end().saturating_sub(self.queue.published());
        if !matches!(*next, Next::Empty) || left > self.options.create_below {
            return Ok(None);
        }
        *next = Next::Ready(self.queue.create_segment(last.end())?);
        Ok(Some(last.end()))
    }

    fn populate(&mut self) -> Result<u64, QueueError> {
        let published = self.queue.published();
        let until = published.saturating_add(self.options.window);
        let mut populated_len = 0;
        self.populated = self.populated.max(published);
        if until.saturating_sub(self.populated) < self.options.window / 4 {
            return Ok(0);
        }
        while self.populated < until {
            let Some((segment, attached)) = self.segment_at(self.populated) else {
                break;
            };
            let from = self.populated - segment.base();
            let to = (until - segment.base()).min(segment.len());
            segment.allocate_to(&attached.file, to)?;
            attached
                .region
                .map()
                .populate_write(from as usize..to as usize)?;
            populated_len += to - from;
            self.populated = segment.base() + to;
        }
        Ok(populated_len)
    }

    /// The segment that holds `offset`, if it is open for writing: the current or the next one.
    fn segment_at(&self, offset: u64) -> Option<(Arc<Segment<I>>, Attached<I>)> {
        let found = self
            .queue
            .find(offset)
            .or_else(|| match &*lock(&self.queue.next) {
                Next::Ready(prepared) if prepared.segment.base() <= offset => {
                    Some(Arc::clone(&prepared.segment))
                }
                _ => None,
            });
        let segment = found.filter(|segment| offset < segment.end())?;
        let attached = segment.attached()?;
        Some((segment, attached))
    }
}

impl<I: Io> SegmentQueue<I> {
    /// Creates the segment at `base` with its first blocks; with [`NameSync::AtCreation`] its name
    /// and length are durable on return. The caller holds `next`. On error no file is left, as far as the file system lets us.
    pub(crate) fn create_segment(&self, base: u64) -> Result<Prepared<I>, QueueError> {
        let home = &self.home;
        home.io.create_dir_all(&home.dir)?;
        let path = home.path(base);
        let file = home
            .io
            .create(&path, home.segment_len)
            .map_err(|error| home.explain(error, home.allocate_step))?;
        let prepared = self
            .prepare(base, Arc::new(file))
            .map_err(|error| self.remove_unused(&path).err().unwrap_or(error))?;
        self.keep_budget(None, &mut Unmapped::default());
        Ok(prepared)
    }

    fn prepare(&self, base: u64, file: Arc<I::File>) -> Result<Prepared<I>, QueueError> {
        let segment = Segment::new(&self.home, base);
        segment.allocate_to(&file, 1)?;
        match self.home.name_sync {
            NameSync::AtCreation => {
                file.sync_all()?;
                self.home.sync_dir(&self.home.dir)?;
            }
            NameSync::WithFlush => self.names_synced.store(false, Ordering::Release),
        }
        let appender = self.map_with_relief(|| segment.attach(Arc::clone(&file), 0))?;
        Ok(Prepared {
            segment,
            file,
            appender,
        })
    }

    /// Deletes the segment that was prepared and not used, and leaves `state` in its place.
    pub(crate) fn discard_prepared(&self, state: Next<I>) -> Result<(), QueueError> {
        let mut next = lock(&self.next);
        let before = std::mem::replace(&mut *next, state);
        if let Next::Ready(prepared) = before {
            self.remove_unused(&prepared.segment.path())?;
        }
        Ok(())
    }

    fn remove_unused(&self, path: &Path) -> Result<(), QueueError> {
        self.home.io.remove_file(path)?;
        self.home.io.sync_dir(&self.home.dir)?;
        Ok(())
    }
}
