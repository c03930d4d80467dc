//! One segment file: mapped when it is needed, open only while it is appended to.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mmap_core::sabotage::{self, Lie};
use mmap_core::sync::RwLock;
use mmap_core::sync::atomic::{AtomicU64, Ordering};
use mmap_core::{
    Access, Advice, AppendRegion, Appender, Io, IoError, IoFile, MapSlice, OsIo, RawMap,
};

use crate::error::QueueError;
use crate::guard::{read, write};
use crate::name::segment_name;
use crate::options::NameSync;
use crate::unmap::{MapBudget, NEVER, UseClock};

/// What all segments of a queue share.
#[derive(Debug)]
pub(crate) struct Home<I: Io> {
    pub(crate) io: I,
    pub(crate) dir: PathBuf,
    pub(crate) segment_len: u64,
    pub(crate) allocate_step: u64,
    pub(crate) access: Access,
    pub(crate) name_sync: NameSync,
    pub(crate) advice: Advice,
    pub(crate) mapped_len_max: Option<u64>,
    pub(crate) budget: Option<MapBudget>,
    pub(crate) unmap_after: Option<Duration>,
    pub(crate) prepare_wait: Duration,
    pub(crate) lock_tail: bool,
    /// Why the tail is not locked though it was to be; the first reason.
    pub(crate) lock_failure: OnceLock<String>,
    /// Bytes of the mappings that segments keep; orders nothing.
    pub(crate) mapped_len: AtomicU64,
    pub(crate) use_clock: UseClock,
}

/// One file of a [`SegmentQueue`](crate::SegmentQueue).
#[derive(Debug)]
pub struct Segment<I: Io = OsIo> {
    home: Arc<Home<I>>,
    base: u64,
    /// Position up to which blocks are known to be allocated. Written by whoever allocates, and
    /// only ever raised; a number read too low costs one superfluous call.
    allocated: AtomicU64,
    /// Stamp of the last use while mapped, by the queue's clock; orders nothing.
    used: AtomicU64,
    /// Replaced as a whole and never locked across I/O.
    slot: RwLock<Slot<I>>,
}

/// What of a segment is in memory.
#[derive(Debug)]
struct Slot<I: Io> {
    /// The mapping, once somebody has asked for it.
    region: Option<Kept<I>>,
    /// The open file, while a writer is attached.
    file: Option<Arc<I::File>>,
    /// A file opened for those who send from it, as long as the mapping is there.
    sent_from: Option<Arc<I::File>>,
}

/// A mapping that a segment keeps, counted in what its queue has mapped.
#[derive(Debug)]
struct Kept<I: Io> {
    region: AppendRegion<I::Map>,
    home: Arc<Home<I>>,
}

impl<I: Io> Kept<I> {
    fn new(home: &Arc<Home<I>>, region: AppendRegion<I::Map>) -> Self {
        home.mapped_len
            .fetch_add(home.segment_len, Ordering::Relaxed);
        if let Some(budget) = &home.budget {
            budget.add(home.segment_len);
        }
        Self {
            region,
            home: Arc::clone(home),
        }
    }
}

impl<I: Io> Drop for Kept<I> {
    fn drop(&mut self) {
        self.home
            .mapped_len
            .fetch_sub(self.home.segment_len, Ordering::Relaxed);
        if let Some(budget) = &self.home.budget {
            budget.give_back(self.home.segment_len);
        }
    }
}

/// A segment that its writer has open.
pub(crate) struct Attached<I: Io> {
    pub(crate) file: Arc<I::File>,
    pub(crate) region: AppendRegion<I::Map>,
}

impl<I: Io> Segment<I> {
    /// Offset of the first byte.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Bytes of the file, written or not.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a segment has its full length from the start"
    )]
    pub fn len(&self) -> u64 {
        self.home.segment_len
    }

    /// Offset behind the last byte.
    pub fn end(&self) -> u64 {
        self.base + self.home.segment_len
    }

    /// The file.
    pub fn path(&self) -> PathBuf {
        self.home.path(self.base)
    }

    /// Whether it is mapped at the moment.
    pub fn is_mapped(&self) -> bool {
        read(&self.slot).region.is_some()
    }

    pub(crate) fn new(home: &Arc<Home<I>>, base: u64) -> Arc<Self> {
        Arc::new(Self {
            home: Arc::clone(home),
            base,
            allocated: AtomicU64::new(0),
            used: AtomicU64::new(NEVER),
            slot: RwLock::new(Slot {
                region: None,
                file: None,
                sent_from: None,
            }),
        })
    }

    /// The stamp of its last use; [`NEVER`] if it is not mapped.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// A slice of published bytes; `None` if the segment is not mapped, or was before they were
    /// there.
    pub(crate) fn slice_if_mapped(&self, range: Range<usize>) -> Option<MapSlice<I::Map>> {
        let slot = read(&self.slot);
        let slice = slot.region.as_ref()?.region.slice(range)?;
        // Only a change is written, so that readers of one segment share its cache line.
        let now = self.home.use_clock.now();
        if self.used.load(Ordering::Relaxed) != now {
            self.used.store(now, Ordering::Relaxed);
        }
        Some(slice)
    }

    /// The mapping, made now if there is none of which `published` bytes may be read.
    pub(crate) fn region(&self, published: u64) -> Result<AppendRegion<I::Map>, QueueError> {
        if let Some(region) = read(&self.slot).covering(published) {
            return Ok(region);
        }
        let file = self.home.open(self.base, Access::ReadOnly)?;
        let map = self.home.map(&file, Access::ReadOnly)?;
        let mut slot = write(&self.slot);
        // Another thread may have been faster, the writer even, whose region must stay.
        if let Some(region) = slot.covering(published) {
            return Ok(region);
        }
        let made = AppendRegion::read_only(map, published as usize);
        slot.region = Some(Kept::new(&self.home, made.clone()));
        self.used
            .store(self.home.use_clock.tick(), Ordering::Relaxed);
        Ok(made)
    }

    /// Maps the segment for its writer, at `position`; readers get the new mapping from now on.
    pub(crate) fn attach(
        &self,
        file: Arc<I::File>,
        position: u64,
    ) -> Result<Appender<I::Map>, QueueError> {
        let map = self.home.map(&file, Access::ReadWrite)?;
        let (region, appender) = AppendRegion::new(map, position as usize);
        self.allocated.fetch_max(position, Ordering::Relaxed);
        let mut slot = write(&self.slot);
        *slot = Slot {
            region: Some(Kept::new(&self.home, region)),
            file: Some(file),
            sent_from: None,
        };
        self.used
            .store(self.home.use_clock.tick(), Ordering::Relaxed);
        Ok(appender)
    }

    /// The file, open: the writer's handle, or one of its own that is kept while the segment is
    /// mapped.
    pub(crate) fn file(&self) -> Result<Arc<I::File>, QueueError> {
        {
            let slot = read(&self.slot);
            if let Some(file) = slot.file.as_ref().or(slot.sent_from.as_ref()) {
                return Ok(Arc::clone(file));
            }
        }
        let file = Arc::new(self.home.open(self.base, Access::ReadOnly)?);
        let mut slot = write(&self.slot);
        if slot.region.is_some() && slot.sent_from.is_none() {
            slot.sent_from = Some(Arc::clone(&file));
        }
        Ok(file)
    }

    /// Keeps the pages of the mapping in memory while its writer has it open, if that is wanted.
    pub(crate) fn lock_pages(&self) {
        if !self.home.lock_tail {
            return;
        }
        let Some(attached) = self.attached() else {
            return;
        };
        let map = attached.region.map();
        if let Err(error) = map.lock_on_fault(0..map.len()) {
            self.home.lock_failure.get_or_init(|| error.to_string());
        }
    }

    /// Closes the file when its writer goes on to the next segment; the mapping stays.
    pub(crate) fn close_file(&self) {
        let mut slot = write(&self.slot);
        slot.file = None;
        if let Some(kept) = &slot.region {
            if self.home.lock_tail {
                let map = kept.region.map();
                // Pages that could not be locked need no unlocking.
                let _ = map.unlock(0..map.len());
            }
            self.used
                .store(self.home.use_clock.now(), Ordering::Relaxed);
        }
    }

    /// Forgets mapping and file. Slices that are held keep the mapping alive for themselves.
    pub(crate) fn unmap(&self) {
        self.empty(&mut write(&self.slot));
    }

    /// As [`unmap`](Self::unmap) unless a writer has it open; returns whether it was mapped.
    pub(crate) fn unmap_detached(&self) -> bool {
        let mut slot = write(&self.slot);
        if slot.file.is_some() || slot.region.is_none() {
            return false;
        }
        self.empty(&mut slot);
        true
    }

    /// As [`unmap`](Self::unmap), refused while anybody holds a slice.
    pub(crate) fn unmap_unpinned(&self) -> Result<(), QueueError> {
        let mut slot = write(&self.slot);
        if let Some(kept) = &slot.region
            && kept.region.is_shared()
        {
            return Err(QueueError::Pinned { path: self.path() });
        }
        self.empty(&mut slot);
        Ok(())
    }

    fn empty(&self, slot: &mut Slot<I>) {
        *slot = Slot {
            region: None,
            file: None,
            sent_from: None,
        };
        self.used.store(NEVER, Ordering::Relaxed);
    }

    pub(crate) fn attached(&self) -> Option<Attached<I>> {
        let slot = read(&self.slot);
        Some(Attached {
            file: Arc::clone(slot.file.as_ref()?),
            region: slot.region.as_ref()?.region.clone(),
        })
    }

    /// Allocates blocks up to `position`, in whole steps; returns up to where there are some now.
    pub(crate) fn allocate_to(&self, file: &I::File, position: u64) -> Result<u64, QueueError> {
        let from = self.allocated.load(Ordering::Relaxed);
        if position <= from {
            return Ok(from);
        }
        let step = self.home.allocate_step;
        let to = position
            .checked_next_multiple_of(step)
            .map_or(self.len(), |to| to.min(self.len()));
        match file.allocate(from, to - from) {
            Ok(()) => Ok(self.allocated.fetch_max(to, Ordering::Relaxed).max(to)),
            Err(error) => Err(self.home.explain(error, to - from)),
        }
    }

    /// Makes the bytes from position `from` to `to` durable.
    pub(crate) fn sync(&self, from: u64, to: u64) -> Result<(), QueueError> {
        if sabotage::is_planted(Lie::SkipSync) {
            return Ok(());
        }
        let region = read(&self.slot)
            .region
            .as_ref()
            .map(|kept| kept.region.clone());
        match region {
            Some(region) => {
                region
                    .map()
                    .sync_range(from as usize, (to - from) as usize)?;
            }
            None => self.home.open(self.base, self.home.access)?.sync_data()?,
        }
        Ok(())
    }
}

impl<I: Io> Slot<I> {
    /// The mapping, if it shows `published` bytes. A reader's shows what was there when it was
    /// made; a writer's grows.
    fn covering(&self, published: u64) -> Option<AppendRegion<I::Map>> {
        let kept = self.region.as_ref()?;
        (kept.region.published() as u64 >= published).then(|| kept.region.clone())
    }
}

impl<I: Io> Home<I> {
    pub(crate) fn path(&self, base: u64) -> PathBuf {
        self.dir.join(segment_name(base))
    }

    /// Makes the names in `dir`, the queue's or the one above, durable.
    pub(crate) fn sync_dir(&self, dir: &Path) -> Result<(), IoError> {
        if sabotage::is_planted(Lie::SkipDirSync) {
            return Ok(());
        }
        self.io.sync_dir(dir)
    }

    /// Opens a segment's file; a name that is gone was removed by somebody else.
    pub(crate) fn open(&self, base: u64, access: Access) -> Result<I::File, QueueError> {
        let path = self.path(base);
        match self.io.open(&path, access) {
            Err(error) if error.is_not_found() => Err(QueueError::Unlinked { path }),
            opened => Ok(opened?),
        }
    }

    /// Maps a segment whole; options were checked to fit the address space.
    fn map(&self, file: &I::File, access: Access) -> Result<I::Map, QueueError> {
        let len = self.segment_len as usize;
        let map = file.map(0, len, access)?;
        if self.advice != Advice::Normal {
            match map.advise(self.advice, 0..len) {
                // Advice is advice: kernels without huge pages for files do not know that one.
                Err(error) if error.kind() != io::ErrorKind::InvalidInput => {
                    return Err(error.into());
                }
                _ => {}
            }
        }
        Ok(map)
    }

    /// Turns lack of space for `requested` bytes into its own error.
    pub(crate) fn explain(&self, error: IoError, requested: u64) -> QueueError {
        if !error.is_full() {
            return error.into();
        }
        let path: &Path = error.path();
        match self.io.space(&self.dir) {
            Ok(space) => QueueError::Full {
                path: path.to_owned(),
                requested,
                used: space.total.saturating_sub(space.free),
                available: space.available,
                total: space.total,
                is_quota: error.kind() == std::io::ErrorKind::QuotaExceeded,
            },
            Err(_) => error.into(),
        }
    }
}
