//! Regions that are rewritten in place: aligned big-endian cells, each accessed atomically.
//!
//! For the index files' header, slots and entries, and for the checkpoint. There are no slices at
//! all, because any byte may change at any time.
//!
//! The memory model forbids racing atomic accesses of different sizes to the same bytes. So each
//! byte of a region has one cell size, fixed when the region is made: the first `wide_len` bytes
//! are 8-byte cells, the others 4-byte cells.
//!
//! # Safety
//! One deed, **U3** of docs/unsafe.md: viewing a cell as an atomic integer. It rests on
//! [`RawMap`]'s contract, on the alignment checked by [`CellRegion::new`] and at each access, and
//! on no other kind of access to these bytes existing in this process.
#![allow(unsafe_code)]

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::io::Access;
use crate::map::{OsMap, RawMap};

const NARROW: usize = size_of::<u32>();
const WIDE: usize = size_of::<u64>();

/// A mapped range of a file, made of big-endian integers that are loaded and stored one by one.
///
/// Positions are bytes from the region's start and must be multiples of the cell's size.
///
/// ```
/// # use mmap_core::{Access, CellRegion, Io, IoFile, OsIo};
/// # use std::sync::atomic::Ordering;
/// # let dir = tempfile::tempdir()?;
/// let file = OsIo.create(&dir.path().join("checkpoint"), 4096)?;
/// let cells = CellRegion::new(file.map(0, 4096, Access::ReadWrite)?, 4096);
/// cells.store_u64(8, 1_700_000_000_000, Ordering::Release);
/// assert_eq!(cells.load_u64(8, Ordering::Acquire), 1_700_000_000_000);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct CellRegion<M: RawMap = OsMap> {
    map: M,
    /// Bytes below are 8-byte cells, those from here on 4-byte cells.
    wide_len: usize,
}

#[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
impl<M: RawMap> CellRegion<M> {
    /// Cells over `map`: 8-byte ones in the first `wide_len` bytes, 4-byte ones behind them.
    ///
    /// # Panics
    /// If the map was not made at an offset that is a multiple of 8, or `wide_len` is not a
    /// multiple of 8 within the map.
    pub fn new(map: M, wide_len: usize) -> Self {
        assert!(
            map.as_ptr().addr().is_multiple_of(WIDE),
            "cells of a map that is not aligned"
        );
        assert!(
            wide_len.is_multiple_of(WIDE) && wide_len <= map.len(),
            "wide_len {wide_len}"
        );
        Self { map, wide_len }
    }

    /// The 4-byte cell at `position`.
    ///
    /// # Panics
    /// If there is no 4-byte cell at `position`. `ordering` as for [`AtomicU32::load`].
    #[inline]
    pub fn load_u32(&self, position: usize, ordering: Ordering) -> u32 {
        u32::from_be(self.narrow(position).load(ordering))
    }

    /// Sets the 4-byte cell at `position`.
    ///
    /// # Panics
    /// If there is no 4-byte cell at `position`, or the map is read-only. `ordering` as for
    /// [`AtomicU32::store`].
    #[inline]
    pub fn store_u32(&self, position: usize, value: u32, ordering: Ordering) {
        self.check_writable();
        failpoint!("mmap_core.store_cell");
        let cell = self.narrow(position);
        let _guard = self.map.begin_write(position, NARROW);
        cell.store(value.to_be(), ordering);
    }

    /// The 8-byte cell at `position`.
    ///
    /// # Panics
    /// If there is no 8-byte cell at `position`. `ordering` as for [`AtomicU64::load`].
    #[inline]
    pub fn load_u64(&self, position: usize, ordering: Ordering) -> u64 {
        u64::from_be(self.wide(position).load(ordering))
    }

    /// Sets the 8-byte cell at `position`.
    ///
    /// # Panics
    /// If there is no 8-byte cell at `position`, or the map is read-only. `ordering` as for
    /// [`AtomicU64::store`].
    #[inline]
    pub fn store_u64(&self, position: usize, value: u64, ordering: Ordering) {
        self.check_writable();
        failpoint!("mmap_core.store_cell");
        let cell = self.wide(position);
        let _guard = self.map.begin_write(position, WIDE);
        cell.store(value.to_be(), ordering);
    }

    /// Writes bytes, cell by cell (Relaxed), behind `wide_len`. Other threads may see a part: what
    /// makes them visible as a whole is a Release store of another cell afterwards.
    ///
    /// # Panics
    /// If `position` or the length is not a multiple of 4, the range is not within the 4-byte
    /// cells, or the map is read-only.
    #[inline]
    pub fn write_words(&self, position: usize, bytes: &[u8]) {
        self.check_writable();
        let (words, rest) = bytes.as_chunks::<NARROW>();
        assert!(rest.is_empty(), "{} bytes are not whole cells", bytes.len());
        self.check_words(position, bytes.len());
        let _guard = self.map.begin_write(position, bytes.len());
        for (index, word) in words.iter().enumerate() {
            failpoint!("mmap_core.store_cell");
            let value = u32::from_be_bytes(*word).to_be();
            self.narrow(position + index * NARROW)
                .store(value, Ordering::Relaxed);
        }
    }

    /// Copies bytes out, cell by cell (Relaxed), from behind `wide_len`.
    ///
    /// # Panics
    /// If `position` or the length is not a multiple of 4, or the range is not within the 4-byte
    /// cells.
    #[inline]
    pub fn copy_out(&self, position: usize, buf: &mut [u8]) {
        self.check_words(position, buf.len());
        let (words, rest) = buf.as_chunks_mut::<NARROW>();
        assert!(rest.is_empty(), "{} bytes over whole cells", rest.len());
        for (index, word) in words.iter_mut().enumerate() {
            let value = self
                .narrow(position + index * NARROW)
                .load(Ordering::Relaxed);
            *word = u32::from_be(value).to_be_bytes();
        }
    }

    /// The mapping.
    pub fn map(&self) -> &M {
        &self.map
    }

    /// The mapping's length.
    #[inline]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    #[inline]
    fn narrow(&self, position: usize) -> &AtomicU32 {
        self.check_words(position, NARROW);
        // SAFETY: (U3) the check above keeps the address within the map.
        let pointer = unsafe { self.map.as_ptr().add(position) };
        // SAFETY: (U3) the address is valid for as long as `self`, and a multiple of 4 since the
        // base is one of 8 and `position` one of 4; the byte lies behind `wide_len`, so that every
        // access to it is an atomic one of this size.
        unsafe { AtomicU32::from_ptr(pointer.cast()) }
    }

    #[inline]
    fn wide(&self, position: usize) -> &AtomicU64 {
        let fits = position
            .checked_add(WIDE)
            .is_some_and(|end| end <= self.wide_len);
        assert!(
            fits && position.is_multiple_of(WIDE),
            "no 8-byte cell at {position}: they are the first {} bytes",
            self.wide_len
        );
        // SAFETY: (U3) the check above keeps the address within the map.
        let pointer = unsafe { self.map.as_ptr().add(position) };
        // SAFETY: (U3) the address is valid for as long as `self`, and a multiple of 8 since the
        // base and `position` are; the byte lies below `wide_len`, so that every access to it is
        // an atomic one of this size.
        unsafe { AtomicU64::from_ptr(pointer.cast()) }
    }

    #[inline]
    fn check_words(&self, position: usize, len: usize) {
        let fits = position
            .checked_add(len)
            .is_some_and(|end| end <= self.map.len());
        assert!(
            fits && position >= self.wide_len && position.is_multiple_of(NARROW),
            "no 4-byte cells at {position}, {len} bytes: they are bytes {}..{}",
            self.wide_len,
            self.map.len()
        );
    }

    #[inline]
    fn check_writable(&self) {
        assert!(
            self.map.access() == Access::ReadWrite,
            "the mapping is read-only"
        );
    }
}

impl<M: RawMap> fmt::Debug for CellRegion<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CellRegion")
            .field("map", &self.map)
            .field("wide_len", &self.wide_len)
            .finish()
    }
}
