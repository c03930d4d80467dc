//! Mappings of files that others may write: what each mode may do stands in its type.
//!
//! | | bytes as a slice | written | synced | page table entries dropped |
//! |---|---|---|---|---|
//! | [`AppendRegion`](crate::AppendRegion), [`CellRegion`](crate::CellRegion) over a shared mapping | published ones: the directory is locked | yes | yes | yes |
//! | [`ReadOnlyMap`] | `unsafe`; copies | no | no | yes |
//! | [`PrivateMap`] | `unsafe`; copies | yes, for this mapping alone | no | refused |
//!
//! # Safety
//! **U9** of docs/unsafe.md: copies between a mapping and memory of the caller's, and the slices
//! that callers ask for at their own risk.
#![allow(unsafe_code)]

use std::ops::Range;
use std::path::Path;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use memmap2::MmapOptions;

use crate::error::IoError;
use crate::map::{Advice, Mapped, OsMap, RawMap};

/// A part of a file, mapped for reading, that nobody has locked: others may write it meanwhile.
///
/// ```
/// # use mmap_core::{Io, IoFile, OsIo};
/// # let dir = tempfile::tempdir()?;
/// let file = OsIo.create(&dir.path().join("notes"), 4096)?;
/// file.write_all_at(b"hello", 10)?;
/// let map = file.map_read_only(0, 4096)?;
/// let mut copy = [0; 5];
/// map.read_at(10, &mut copy)?;
/// assert_eq!(&copy, b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ReadOnlyMap {
    map: OsMap,
}

/// A part of a file whose changes stay in this mapping (copy on write): neither the file nor any
/// other mapping of it ever sees them. Each page that is changed takes memory of this process.
///
/// What others write to the file may or may not show in pages that were not changed. There is
/// nothing to sync.
#[derive(Debug)]
pub struct PrivateMap {
    mapped: Mapped,
    path: Arc<Path>,
    file_offset: u64,
}

#[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
impl ReadOnlyMap {
    pub(crate) fn new(map: OsMap) -> Self {
        Self { map }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Copies the bytes from `position` on. A page that cannot be read raises SIGBUS, unless it
    /// was asked for before ([`populate_read`](Self::populate_read)).
    ///
    /// # Errors
    /// They are not all within the mapping.
    pub fn read_at(&self, position: usize, buf: &mut [u8]) -> Result<(), IoError> {
        let range = position..position.saturating_add(buf.len());
        check(self.map.path(), "read", &range, self.len())?;
        copy_out(self.map.as_ptr(), position, buf);
        Ok(())
    }

    /// The bytes of a range, without a copy; `None` if it is not within the mapping.
    ///
    /// # Safety
    /// While the slice lives nobody writes these bytes of the file, or shortens it.
    pub unsafe fn bytes(&self, range: Range<usize>) -> Option<&[u8]> {
        check(self.map.path(), "read", &range, self.len()).ok()?;
        let first = self.map.as_ptr().wrapping_add(range.start);
        // SAFETY: (U9) checked to be within the mapping, which lives as long as `self`; the caller
        // promises that the bytes do not change.
        Some(unsafe { slice::from_raw_parts(first, range.len()) })
    }

    /// Brings a range into memory; an unreadable page is an error.
    ///
    /// # Errors
    /// Those of `MADV_POPULATE_READ`.
    pub fn populate_read(&self, range: Range<usize>) -> Result<(), IoError> {
        self.map.populate_read(range)
    }

    /// Tells the kernel how a range will be used.
    ///
    /// # Errors
    /// When the kernel does not know the advice, or has not the memory for it.
    pub fn advise(&self, advice: Advice, range: Range<usize>) -> Result<(), IoError> {
        self.map.advise(advice, range)
    }
}

#[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
impl PrivateMap {
    /// Maps a range that the caller has found to lie within the file.
    pub(crate) fn new(
        file: &std::fs::File,
        path: &Arc<Path>,
        file_offset: u64,
        len: usize,
    ) -> std::io::Result<Self> {
        let mut options = MmapOptions::new();
        options.offset(file_offset).len(len);
        // SAFETY: (U9) only raw pointers are made of it, but for slices that callers ask for at
        // their own risk.
        let raw = unsafe { options.map_copy(file) }?.into();
        Ok(Self {
            mapped: Mapped::new(raw, file_offset, path),
            path: Arc::clone(path),
            file_offset,
        })
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.mapped.raw().len()
    }

    /// Copies the bytes from `position` on, as this mapping has them.
    ///
    /// # Errors
    /// They are not all within the mapping.
    pub fn read_at(&self, position: usize, buf: &mut [u8]) -> Result<(), IoError> {
        let range = position..position.saturating_add(buf.len());
        check(&self.path, "read", &range, self.len())?;
        copy_out(self.mapped.raw().as_mut_ptr(), position, buf);
        Ok(())
    }

    /// Changes bytes for this mapping alone.
    ///
    /// # Errors
    /// They are not all within the mapping; nothing has changed then.
    pub fn write_at(&mut self, position: usize, bytes: &[u8]) -> Result<(), IoError> {
        let range = position..position.saturating_add(bytes.len());
        check(&self.path, "write", &range, self.len())?;
        let target = self.mapped.raw().as_mut_ptr().wrapping_add(position);
        // SAFETY: (U9) checked to be within the mapping, which is writable, and `&mut self` is the
        // only way to its bytes.
        unsafe { target.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    /// The bytes of a range, without a copy; `None` if it is not within the mapping.
    ///
    /// # Safety
    /// While the slice lives nobody writes these bytes of the file, or shortens it: pages that
    /// were not changed here are the file's.
    pub unsafe fn bytes(&self, range: Range<usize>) -> Option<&[u8]> {
        check(&self.path, "read", &range, self.len()).ok()?;
        let first = self.mapped.raw().as_ptr().wrapping_add(range.start);
        // SAFETY: (U9) as in `ReadOnlyMap::bytes`; `write_at` borrows `self` mutably.
        Some(unsafe { slice::from_raw_parts(first, range.len()) })
    }

    /// Tells the kernel how a range will be used.
    ///
    /// # Errors
    /// [`Advice::DontNeed`] is refused: it would throw the changes away. Otherwise as
    /// [`RawMap::advise`].
    pub fn advise(&self, advice: Advice, range: Range<usize>) -> Result<(), IoError> {
        const OP: &str = "madvise";
        check(&self.path, OP, &range, self.len())?;
        let Some(known) = advice.without_loss() else {
            let what = "DontNeed on a private mapping would lose its changes: drop the mapping";
            return Err(IoError::invalid(OP, &*self.path, what));
        };
        let raw = self.mapped.raw();
        raw.advise_range(known, range.start, range.len())
            .map_err(|source| {
                let offset = self.file_offset + range.start as u64;
                IoError::new(OP, &*self.path, source).at(offset)
            })
    }
}

/// Refuses a range that is not within a mapping of `len` bytes.
fn check(path: &Path, op: &'static str, range: &Range<usize>, len: usize) -> Result<(), IoError> {
    if range.start <= range.end && range.end <= len {
        return Ok(());
    }
    let what = format!("range {range:?} of a mapping of {len} bytes");
    Err(IoError::invalid(op, path, what))
}

/// Copies bytes that others may be writing: each is loaded for itself, so that a torn value is the
/// worst that can come of it. The range was checked to be within the mapping.
fn copy_out(map: *mut u8, position: usize, buf: &mut [u8]) {
    for (index, byte) in buf.iter_mut().enumerate() {
        let source = map.wrapping_add(position + index);
        // SAFETY: (U9) within the mapping, which outlives this call; other writers of this
        // process have mappings of their own, and those of other processes write no Rust memory.
        let source = unsafe { AtomicU8::from_ptr(source) };
        *byte = source.load(Ordering::Relaxed);
    }
}
