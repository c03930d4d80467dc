//! Mappings: what a region needs of one, and the one the kernel makes.
//!
//! A mapping hands out a raw pointer and nothing else. What may be done with the bytes behind it
//! is decided by the region types, [`AppendRegion`](crate::AppendRegion) and
//! [`CellRegion`](crate::CellRegion).
//!
//! # Safety
//! **U4** of docs/unsafe.md: the implementation of [`RawMap`] for [`OsMap`]. **U5**: calls that
//! take the address of a mapping and change neither its bytes nor its existence.
#![allow(unsafe_code)]

use std::fmt::{self, Debug};
use std::io;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw, UncheckedAdvice};

use crate::counters;
use crate::error::IoError;
use crate::io::Access;
use crate::limits;
use crate::reaper;
use crate::sigbus::Registration;

/// A mapped range of bytes with a stable address.
///
/// # Safety
/// An implementor **must** see to it that, from its making until its drop:
/// - [`as_ptr`](RawMap::as_ptr) returns the same address each time, valid for reads of
///   [`len`](RawMap::len) bytes and, if [`access`](RawMap::access) is `ReadWrite`, for writes;
/// - `len` returns the same value each time, above 0 and at most `isize::MAX`;
/// - the bytes are initialised;
/// - no reference to the bytes exists but those made by this crate's regions, and no other method
///   of the trait changes them;
/// - all this holds from any thread.
#[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
pub unsafe trait RawMap: Debug + Send + Sync + 'static {
    /// What [`begin_write`](RawMap::begin_write) returns.
    type WriteGuard<'a>
    where
        Self: 'a;

    /// Address of the first byte.
    fn as_ptr(&self) -> *mut u8;

    /// Length in bytes.
    fn len(&self) -> usize;

    /// Whether the bytes may be written.
    fn access(&self) -> Access;

    /// Called before the bytes of a range are written through the pointer; the writing ends before
    /// the guard is dropped. Nothing on a real device, where the kernel notices by itself; the
    /// simulated one needs it to know its dirty pages, and to keep its own reading of the bytes
    /// from racing with their writing.
    fn begin_write(&self, position: usize, len: usize) -> Self::WriteGuard<'_>;

    /// Makes a range of the mapping durable (`msync`).
    ///
    /// # Errors
    /// As [`IoFile::sync_data`](crate::IoFile::sync_data).
    fn sync_range(&self, position: usize, len: usize) -> Result<(), IoError>;

    /// Tells the kernel how a range will be used. Never changes the bytes.
    ///
    /// # Errors
    /// When the kernel does not know the advice, or has not the memory for it.
    fn advise(&self, advice: Advice, range: Range<usize>) -> Result<(), IoError>;

    /// Brings a range into memory and maps it for reading. An unreadable page is an error here
    /// where touching it would raise SIGBUS.
    ///
    /// # Errors
    /// Those of `MADV_POPULATE_READ`.
    fn populate_read(&self, range: Range<usize>) -> Result<(), IoError>;

    /// Maps a range for writing, as if each of its pages had been written, without changing it.
    ///
    /// # Errors
    /// Those of `MADV_POPULATE_WRITE`.
    fn populate_write(&self, range: Range<usize>) -> Result<(), IoError>;

    /// Brings a range into memory and keeps it there (`mlock`).
    ///
    /// Not a warm-up: the pages are mapped for reading only, so that the first store to each of
    /// them takes a fault of its own.
    ///
    /// # Errors
    /// When `RLIMIT_MEMLOCK` does not allow it: the error says what is allowed and what to do.
    fn lock(&self, range: Range<usize>) -> Result<(), IoError>;

    /// Keeps each page of a range in memory once it is there (`mlock2` with `MLOCK_ONFAULT`):
    /// nothing is read or faulted in now.
    ///
    /// # Errors
    /// As [`lock`](RawMap::lock).
    fn lock_on_fault(&self, range: Range<usize>) -> Result<(), IoError>;

    /// Undoes both.
    ///
    /// # Errors
    /// Those of `munlock`.
    fn unlock(&self, range: Range<usize>) -> Result<(), IoError>;

    /// How much of a range is in memory.
    ///
    /// # Errors
    /// Those of `mincore`.
    fn resident(&self, range: Range<usize>) -> Result<Residency, IoError>;
}

/// How a range of a mapping will be used (`madvise`). Only advice that leaves the bytes alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// No special treatment.
    Normal,
    /// Read-ahead is useless.
    Random,
    /// Read-ahead is useful, pages read are not needed again.
    Sequential,
    /// Start reading it now.
    WillNeed,
    /// Drop the page table entries, not the page cache: the bytes of a shared mapping stay.
    DontNeed,
    /// Use huge pages where possible.
    HugePage,
}

impl Advice {
    /// The kernel's word for it; `None` for the one that drops the pages of a private mapping.
    pub(crate) fn without_loss(self) -> Option<memmap2::Advice> {
        match self {
            Self::Normal => Some(memmap2::Advice::Normal),
            Self::Random => Some(memmap2::Advice::Random),
            Self::Sequential => Some(memmap2::Advice::Sequential),
            Self::WillNeed => Some(memmap2::Advice::WillNeed),
            Self::HugePage => Some(memmap2::Advice::HugePage),
            Self::DontNeed => None,
        }
    }
}

/// How much of a range is in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Residency {
    /// Count of pages that the range touches.
    pub pages: usize,
    /// Count of those that are in memory.
    pub resident: usize,
}

/// The [`WriteGuard`](RawMap::WriteGuard) of a mapping that needs none.
#[derive(Debug)]
pub struct NoGuard;

/// A mapping made by the kernel, shared with the file.
///
/// It does not keep the file open, and outlives the file's name.
pub struct OsMap {
    /// Taken by `drop` only.
    mapped: ManuallyDrop<Mapped>,
    path: Arc<Path>,
    /// Position in the file of the first byte.
    file_offset: u64,
    access: Access,
}

/// The mapping itself, apart from what is known about it: what the reaper takes over.
#[derive(Debug)]
pub(crate) struct Mapped {
    /// Above `raw`, so that it is dropped before the address range is free for others.
    _registration: Registration,
    raw: MmapRaw,
}

impl OsMap {
    /// Maps a range that the caller has found to lie within the file.
    pub(crate) fn new(
        file: &std::fs::File,
        path: &Arc<Path>,
        file_offset: u64,
        len: usize,
        access: Access,
    ) -> io::Result<Self> {
        let mut options = MmapOptions::new();
        options.offset(file_offset).len(len);
        let raw = match access {
            Access::ReadOnly => options.map_raw_read_only(file)?,
            Access::ReadWrite => options.map_raw(file)?,
        };
        Ok(Self {
            mapped: ManuallyDrop::new(Mapped::new(raw, file_offset, path)),
            path: Arc::clone(path),
            file_offset,
            access,
        })
    }

    /// The file mapped.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Refuses a range that is not within the mapping.
    fn check(&self, op: &'static str, range: &Range<usize>) -> Result<(), IoError> {
        if range.start <= range.end && range.end <= self.mapped.raw.len() {
            return Ok(());
        }
        let what = format!(
            "range {range:?} of a mapping of {} bytes",
            self.mapped.raw.len()
        );
        Err(IoError::invalid(op, self.path(), what))
    }

    fn error(&self, op: &'static str, position: usize, source: io::Error) -> IoError {
        IoError::new(op, self.path(), source).at(self.file_offset + position as u64)
    }

    fn advise_checked(
        &self,
        op: &'static str,
        advice: memmap2::Advice,
        range: Range<usize>,
    ) -> Result<(), IoError> {
        self.check(op, &range)?;
        self.mapped
            .raw
            .advise_range(advice, range.start, range.len())
            .map_err(|source| self.error(op, range.start, source))
    }

    /// Address and length of the whole pages that a range within the mapping touches.
    fn pages(&self, range: &Range<usize>) -> (*mut u8, usize) {
        let pointer = self.mapped.raw.as_mut_ptr().wrapping_add(range.start);
        let lead = pointer.addr() % page_size();
        (
            pointer.wrapping_sub(lead),
            (lead + range.len()).next_multiple_of(page_size()),
        )
    }
}

// SAFETY: (U4) memmap2 maps `len` bytes (above 0, see its checks) with MAP_SHARED and unmaps them
// in the drop of `Mapped`, not before; it is not exposed, so it is neither remapped nor unmapped by
// others. File pages are always initialised. Writable mappings are made with PROT_WRITE. That a
// page can become unreadable (SIGBUS) ends the process: see docs/unsafe.md.
unsafe impl RawMap for OsMap {
    type WriteGuard<'a> = NoGuard;

    #[inline]
    fn as_ptr(&self) -> *mut u8 {
        self.mapped.raw.as_mut_ptr()
    }

    #[inline]
    fn len(&self) -> usize {
        self.mapped.raw.len()
    }

    #[inline]
    fn access(&self) -> Access {
        self.access
    }

    #[inline]
    fn begin_write(&self, _position: usize, _len: usize) -> NoGuard {
        NoGuard
    }

    fn sync_range(&self, position: usize, len: usize) -> Result<(), IoError> {
        const OP: &str = "msync";
        self.check(OP, &(position..position.saturating_add(len)))?;
        failpoint!("mmap_core.msync", self.path(), |source| self
            .error(OP, position, source));
        self.mapped
            .raw
            .flush_range(position, len)
            .map_err(|source| self.error(OP, position, source))
    }

    fn advise(&self, advice: Advice, range: Range<usize>) -> Result<(), IoError> {
        const OP: &str = "madvise";
        let advice = match advice.without_loss() {
            Some(advice) => advice,
            None => {
                self.check(OP, &range)?;
                // SAFETY: (U5) the mapping is shared with its file, so that dropping its page table
                // entries loses nothing: the next access finds the same bytes in the page cache.
                let result = unsafe {
                    self.mapped.raw.unchecked_advise_range(
                        UncheckedAdvice::DontNeed,
                        range.start,
                        range.len(),
                    )
                };
                return result.map_err(|source| self.error(OP, range.start, source));
            }
        };
        self.advise_checked(OP, advice, range)
    }

    fn populate_read(&self, range: Range<usize>) -> Result<(), IoError> {
        self.advise_checked("populate_read", memmap2::Advice::PopulateRead, range)
    }

    fn populate_write(&self, range: Range<usize>) -> Result<(), IoError> {
        self.advise_checked("populate_write", memmap2::Advice::PopulateWrite, range)
    }

    fn lock(&self, range: Range<usize>) -> Result<(), IoError> {
        const OP: &str = "mlock";
        self.check(OP, &range)?;
        let (pointer, len) = self.pages(&range);
        // SAFETY: (U5) these are pages of this mapping; locking them changes no byte.
        let result = unsafe { rustix::mm::mlock(pointer.cast(), len) };
        result.map_err(|errno| self.error(OP, range.start, limits::explain_memlock(errno, len)))
    }

    fn lock_on_fault(&self, range: Range<usize>) -> Result<(), IoError> {
        const OP: &str = "mlock2";
        self.check(OP, &range)?;
        let (pointer, len) = self.pages(&range);
        let flags = rustix::mm::MlockFlags::ONFAULT;
        // SAFETY: (U5) these are pages of this mapping; locking them changes no byte.
        let result = unsafe { rustix::mm::mlock_with(pointer.cast(), len, flags) };
        result.map_err(|errno| self.error(OP, range.start, limits::explain_memlock(errno, len)))
    }

    fn unlock(&self, range: Range<usize>) -> Result<(), IoError> {
        const OP: &str = "munlock";
        self.check(OP, &range)?;
        let (pointer, len) = self.pages(&range);
        // SAFETY: (U5) these are pages of this mapping; unlocking them changes no byte.
        let result = unsafe { rustix::mm::munlock(pointer.cast(), len) };
        result.map_err(|errno| self.error(OP, range.start, errno.into()))
    }

    fn resident(&self, range: Range<usize>) -> Result<Residency, IoError> {
        const OP: &str = "mincore";
        self.check(OP, &range)?;
        let (pointer, len) = self.pages(&range);
        let mut flags = vec![0_u8; len / page_size()];
        // SAFETY: (U5) these are pages of this mapping, and `flags` has a byte for each of them.
        let result = unsafe { libc::mincore(pointer.cast(), len, flags.as_mut_ptr()) };
        if result != 0 {
            return Err(self.error(OP, range.start, io::Error::last_os_error()));
        }
        let resident = flags.iter().filter(|flag| **flag & 1 == 1).count();
        Ok(Residency {
            pages: flags.len(),
            resident,
        })
    }
}

impl Drop for OsMap {
    fn drop(&mut self) {
        // SAFETY: (U4) `mapped` is taken here only, and `self` is not used afterwards.
        let mapped = unsafe { ManuallyDrop::take(&mut self.mapped) };
        if mapped.raw.len() >= reaper::LEN_MIN {
            reaper::unmap(mapped);
        }
    }
}

impl Mapped {
    /// Counts a mapping, and names it to the SIGBUS handler.
    pub(crate) fn new(raw: MmapRaw, file_offset: u64, path: &Arc<Path>) -> Self {
        let (address, len) = (raw.as_ptr().addr(), raw.len());
        let registration = Registration::new(address, len, file_offset, path);
        counters::mapped(len);
        Self {
            _registration: registration,
            raw,
        }
    }

    pub(crate) fn raw(&self) -> &MmapRaw {
        &self.raw
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        counters::unmapped(self.raw.len());
    }
}

impl fmt::Debug for OsMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OsMap")
            .field("path", &self.path)
            .field("file_offset", &self.file_offset)
            .field("len", &self.mapped.raw.len())
            .field("access", &self.access)
            .finish()
    }
}

fn page_size() -> usize {
    rustix::param::page_size()
}
