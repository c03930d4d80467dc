//! One segment file: mapped when it is needed, open only while it is appended to.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use mmap_core::sabotage::{self, Lie};
use mmap_core::{
    Access, Advice, AppendRegion, Appender, Io, IoError, IoFile, MapSlice, OsIo, RawMap,
};

use crate::error::QueueError;
use crate::guard::{read, write};
use crate::name::segment_name;
use crate::options::NameSync;

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
}

/// One file of a [`SegmentQueue`](crate::SegmentQueue).
#[derive(Debug)]
pub struct Segment<I: Io = OsIo> {
    home: Arc<Home<I>>,
    base: u64,
    /// Position up to which blocks are known to be allocated. Written by whoever allocates, and
    /// only ever raised; a number read too low costs one superfluous call.
    allocated: AtomicU64,
    /// Replaced as a whole and never locked across I/O.
    slot: RwLock<Slot<I>>,
}

/// What of a segment is in memory.
#[derive(Debug)]
struct Slot<I: Io> {
    /// The mapping, once somebody has asked for it.
    region: Option<Arc<AppendRegion<I::Map>>>,
    /// The open file, while a writer is attached.
    file: Option<Arc<I::File>>,
}

/// A segment that its writer has open.
pub(crate) struct Attached<I: Io> {
    pub(crate) file: Arc<I::File>,
    pub(crate) region: Arc<AppendRegion<I::Map>>,
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
            slot: RwLock::new(Slot {
                region: None,
                file: None,
            }),
        })
    }

    /// A slice of published bytes; the outer `None` if the segment is not mapped.
    pub(crate) fn slice_if_mapped(&self, range: Range<usize>) -> Option<Option<MapSlice<I::Map>>> {
        let slot = read(&self.slot);
        slot.region.as_ref().map(|region| region.slice(range))
    }

    /// The mapping, made now if there is none, of which `published` bytes may be read.
    pub(crate) fn region(&self, published: u64) -> Result<Arc<AppendRegion<I::Map>>, QueueError> {
        if let Some(region) = &read(&self.slot).region {
            return Ok(Arc::clone(region));
        }
        let file = self.home.open(self.base, Access::ReadOnly)?;
        let map = self.home.map(&file, Access::ReadOnly)?;
        let made = AppendRegion::read_only(map, published as usize);
        // Another thread may have been faster, the writer even, whose region must stay.
        Ok(Arc::clone(write(&self.slot).region.get_or_insert(made)))
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
        *write(&self.slot) = Slot {
            region: Some(region),
            file: Some(file),
        };
        Ok(appender)
    }

    /// Closes the file when its writer goes on to the next segment; the mapping stays.
    pub(crate) fn close_file(&self) {
        write(&self.slot).file = None;
    }

    /// Forgets mapping and file. Slices that are held keep the mapping alive for themselves.
    pub(crate) fn unmap(&self) {
        *write(&self.slot) = Slot {
            region: None,
            file: None,
        };
    }

    /// As [`unmap`](Self::unmap), refused while anybody holds a slice.
    pub(crate) fn unmap_unpinned(&self) -> Result<(), QueueError> {
        let mut slot = write(&self.slot);
        if let Some(region) = &slot.region
            && Arc::strong_count(region) > 1
        {
            return Err(QueueError::Pinned { path: self.path() });
        }
        *slot = Slot {
            region: None,
            file: None,
        };
        Ok(())
    }

    pub(crate) fn attached(&self) -> Option<Attached<I>> {
        let slot = read(&self.slot);
        Some(Attached {
            file: Arc::clone(slot.file.as_ref()?),
            region: Arc::clone(slot.region.as_ref()?),
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
        let region = read(&self.slot).region.clone();
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
            map.advise(self.advice, 0..len)?;
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
