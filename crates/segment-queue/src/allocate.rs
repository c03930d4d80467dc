//! Segments made before they are needed and off the append path, and their pages.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use mmap_core::sync::atomic::Ordering;
use mmap_core::{Io, IoFile, OsIo, RawMap, WarmUp, warm_up};

use crate::ahead::{Busy, Prepared};
use crate::error::QueueError;
use crate::guard::read;
use crate::options::NameSync;
use crate::queue::SegmentQueue;
use crate::segment::{Attached, Segment};
use crate::unmap::Unmapped;

/// Pages are faulted in by pieces of this many bytes, so that a writer who asks for a segment
/// meanwhile is served soon: 4 MiB.
const POPULATE_PIECE_LEN: u64 = 4 << 20;

/// Bytes of a new segment that one step warms up: 16 MiB.
const WARM_PIECE_LEN: u64 = 16 << 20;

/// How far ahead of the writer the [`Preallocator`] works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreallocateOptions {
    /// How many segments are ready at most. Default: 2, the next and the next but one, as in
    /// RocketMQ (`AllocateMappedFileService`).
    pub count: u32,
    /// The next segment is created once no more than this many bytes are left of the current one;
    /// each one behind it once half as many are left as for the one before. Default: half of a
    /// segment.
    pub create_below: u64,
    /// Bytes ahead of what is published whose blocks are allocated and whose pages are faulted in
    /// for writing; into the next segment too. 0: none. Default: 32 MiB.
    ///
    /// Wide enough for what arrives between two steps, and no wider: a page that the kernel has
    /// written back before its first store costs a write-protect fault again.
    pub window: u64,
    /// What is done to the whole of a segment that is ready, piece by piece. Default: nothing.
    ///
    /// It brings the file into the page cache, or its blocks onto the device, long before they are
    /// written. It does not replace the window, which comes all the same: by then the kernel has
    /// written the pages back.
    pub warm_up: Option<WarmUp>,
}

impl PreallocateOptions {
    /// The defaults for segments of this length.
    pub fn for_segment_len(segment_len: u64) -> Self {
        Self {
            count: 2,
            create_below: segment_len / 2,
            window: 32 * 1024 * 1024,
            warm_up: None,
        }
    }
}

/// Prepares what the writer of a queue is about to need, so that appending waits for no file and
/// takes no page fault.
///
/// [`step`](Self::step) is to be called from a thread of its own, repeatedly. With
/// [`SegmentQueue::serve_ahead`] the writer relies on that thread; without, it creates itself what
/// is not ready. What a step could not do the next one tries again, and no failure of it is ever
/// the queue's.
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
    /// Bytes of a segment that is ready that were warmed up.
    pub warmed_len: u64,
}

impl PreallocateStep {
    /// Whether nothing was to be done: the next step can wait until something is appended.
    pub fn is_idle(&self) -> bool {
        *self == Self::default()
    }
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

    /// Does what is due now, and returns what that was: nothing, most times. First a segment that
    /// the writer waits for, then one that is due, then the pages in front of the writer, then a
    /// piece of the warm-up.
    ///
    /// # Errors
    /// A full disk among others. The next step tries again; the writer is not affected.
    pub fn step(&mut self) -> Result<PreallocateStep, QueueError> {
        let done = self.try_step();
        if done.is_err() {
            self.queue.ahead.count_failure();
        }
        done
    }

    fn try_step(&mut self) -> Result<PreallocateStep, QueueError> {
        self.queue.check_poison()?;
        let mut step = PreallocateStep {
            created: self.create_next()?,
            populated_len: self.populate()?,
            warmed_len: 0,
        };
        if step.populated_len == 0 {
            step.warmed_len = self.warm_next()?;
        }
        Ok(step)
    }

    fn create_next(&self) -> Result<Option<u64>, QueueError> {
        let Some((base, busy)) = self.due() else {
            return Ok(None);
        };
        busy.put(self.queue.create_segment(base)?);
        Ok(Some(base))
    }

    /// The segment to be created, if there is one.
    fn due(&self) -> Option<(u64, Busy<'_, I>)> {
        let queue = &self.queue;
        let mut state = queue.ahead.lock();
        // Only with the lock held is the last segment the one that the next one follows.
        let last_end = read(&queue.list).last().map(|last| last.end());
        let published = queue.published();
        let base = match state.ready.back() {
            Some(prepared) => prepared.segment.end(),
            None => last_end.unwrap_or(published),
        };
        let place = state.ready.len() as u32;
        let is_near = last_end.is_some_and(|end| {
            let below = self.options.create_below.checked_shr(place).unwrap_or(0);
            place < self.options.count && end.saturating_sub(published) <= below
        });
        if is_near || state.wanted == Some(base) {
            return Some((base, queue.ahead.begin(&mut state)?));
        }
        None
    }

    fn populate(&mut self) -> Result<u64, QueueError> {
        let published = self.queue.published();
        let until = published.saturating_add(self.options.window);
        let mut populated_len = 0;
        self.populated = self.populated.max(published);
        if until.saturating_sub(self.populated) < self.options.window / 4 {
            return Ok(0);
        }
        while self.populated < until && !self.queue.ahead.is_wanted() {
            let Some((segment, attached)) = self.segment_at(self.populated) else {
                break;
            };
            let from = self.populated - segment.base();
            let to = (until - segment.base()).min(segment.len());
            let to = to.min(from + POPULATE_PIECE_LEN);
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

    /// The segment that holds `offset`, if it is open for writing: the current or a prepared one.
    fn segment_at(&self, offset: u64) -> Option<(Arc<Segment<I>>, Attached<I>)> {
        let found = self.queue.find(offset).or_else(|| {
            let state = self.queue.ahead.lock();
            let mut ready = state.ready.iter().map(|prepared| &prepared.segment);
            ready
                .find(|segment| (segment.base()..segment.end()).contains(&offset))
                .cloned()
        });
        let segment = found?;
        let attached = segment.attached()?;
        Some((segment, attached))
    }

    /// Warms up a piece of the first segment that is ready and not warm. The writer does not wait
    /// for more than this piece: it takes the segment as far as it is warm.
    fn warm_next(&self) -> Result<u64, QueueError> {
        let Some(how) = self.options.warm_up else {
            return Ok(0);
        };
        let Some((mut prepared, busy)) = self.take_cold() else {
            return Ok(0);
        };
        let (from, len) = (prepared.warmed, prepared.segment.len());
        let to = len.min(from + WARM_PIECE_LEN);
        let warmed = self
            .queue
            .unless_panicked(|| warm_piece(&mut prepared, from, to, how));
        if warmed.is_ok() {
            prepared.warmed = to;
            if how == WarmUp::Zeros {
                prepared.initialised = to;
            }
        }
        busy.put(prepared);
        warmed.map(|()| to - from)
    }

    fn take_cold(&self) -> Option<(Prepared<I>, Busy<'_, I>)> {
        let mut state = self.queue.ahead.lock();
        let is_cold = |prepared: &Prepared<I>| prepared.warmed < prepared.segment.len();
        let place = state.ready.iter().position(is_cold)?;
        let busy = self.queue.ahead.begin(&mut state)?;
        Some((state.ready.remove(place)?, busy))
    }
}

fn warm_piece<I: Io>(
    prepared: &mut Prepared<I>,
    from: u64,
    to: u64,
    how: WarmUp,
) -> Result<(), QueueError> {
    prepared.segment.allocate_to(&prepared.file, to)?;
    let range = from as usize..to as usize;
    warm_up(&*prepared.file, &mut prepared.appender, range, how)?;
    Ok(())
}

impl<I: Io> SegmentQueue<I> {
    /// Creates the segment at `base` with its first blocks; with [`NameSync::AtCreation`] its name
    /// and length are durable on return. The caller has seen to it that nobody else does so. On
    /// error no file is left, as far as the file system lets us.
    pub(crate) fn create_segment(&self, base: u64) -> Result<Prepared<I>, QueueError> {
        let home = &self.home;
        home.io.create_dir_all(&home.dir)?;
        let path = home.path(base);
        let file = home
            .io
            .create(&path, home.segment_len)
            .map_err(|error| home.explain(error, home.allocate_step))?;
        let prepared = self
            .unless_panicked(|| self.prepare(base, Arc::new(file)))
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
            warmed: 0,
            initialised: 0,
        })
    }

    /// Runs a piece of work on a segment to which nothing was written yet; a panic in it fails it, and
    /// nothing else. There is nothing of the segment that it could leave half done: its file is
    /// removed, or is as good as before.
    fn unless_panicked<T>(
        &self,
        work: impl FnOnce() -> Result<T, QueueError>,
    ) -> Result<T, QueueError> {
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_printed_by_the_hook| {
            Err(QueueError::PreparePanicked {
                dir: self.home.dir.clone(),
            })
        })
    }

    /// Removes the file of a segment that nothing was written to. One that is gone is as good.
    pub(crate) fn remove_unused(&self, path: &Path) -> Result<(), QueueError> {
        match self.home.io.remove_file(path) {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
        self.home.io.sync_dir(&self.home.dir)?;
        Ok(())
    }
}
