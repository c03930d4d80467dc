//! Content of a simulated file: heap pages, the durable image below them, and mappings of them.
//!
//! # Safety
//! **U4** of docs/unsafe.md: the implementation of [`RawMap`] for [`SimMap`]. **U7**: the heap
//! memory behind it, which the device itself reads and writes only while it holds the file's lock,
//! as [`RawMap::begin_write`]'s guard does for those who write through a mapping.
#![allow(unsafe_code)]

use std::alloc::{self, Layout};
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::random::Random;
use super::space::SpaceMeter;
use super::{CrashStyle, PAGE_LEN, SECTOR_LEN, SimIo};
use crate::error::IoError;
use crate::io::Access;
use crate::map::{Advice, RawMap, Residency};

/// A file, whatever its names.
#[derive(Debug)]
pub(super) struct Inode {
    content: Mutex<Content>,
}

/// What a file's lock protects. Also the bytes behind `buffer`: the device reads and writes them
/// through the methods of this type only.
pub(super) struct Content {
    space: Arc<SpaceMeter>,
    /// As long as the file.
    buffer: Arc<Buffer>,
    /// What the device knows.
    durable: Vec<u8>,
    durable_allocated: BTreeSet<usize>,
    /// Pages (by index) that have changed and will still reach the device.
    dirty: BTreeSet<usize>,
    /// Pages that have blocks.
    allocated: BTreeSet<usize>,
    pub(super) modified_ms: u64,
    pub(super) changed_ms: u64,
}

/// Zeroed heap memory with a stable address.
struct Buffer {
    pointer: NonNull<u8>,
    len: usize,
}

/// A mapping of a part of a simulated file.
pub struct SimMap {
    io: SimIo,
    inode: Arc<Inode>,
    buffer: Arc<Buffer>,
    path: Arc<Path>,
    start: usize,
    len: usize,
    access: Access,
}

/// Held while bytes are written through a [`SimMap`]: the device does not look at them meanwhile.
pub struct SimWriteGuard<'a> {
    _content: MutexGuard<'a, Content>,
}

impl Inode {
    pub(super) fn new(space: Arc<SpaceMeter>, len: usize) -> Self {
        let content = Content {
            space,
            buffer: Arc::new(Buffer::new(len)),
            durable: Vec::new(),
            durable_allocated: BTreeSet::new(),
            dirty: BTreeSet::new(),
            allocated: BTreeSet::new(),
            modified_ms: 0,
            changed_ms: 0,
        };
        Self {
            content: Mutex::new(content),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file that is left of this one after a crash.
    pub(super) fn crash(
        &self,
        style: CrashStyle,
        random: &mut Random,
        space: Arc<SpaceMeter>,
    ) -> Self {
        let old = self.lock();
        let survived = match style {
            CrashStyle::KillProcess => old.to_vec(),
            CrashStyle::LoseUnsynced => old.durable.clone(),
            CrashStyle::Tear | CrashStyle::Scatter => old.torn(random),
        };
        let killed_only = style == CrashStyle::KillProcess;
        let inode = Self::new(space, survived.len());
        let mut new = inode.lock();
        new.write(0, &survived);
        new.durable = if killed_only {
            old.durable.clone()
        } else {
            survived
        };
        new.dirty = if killed_only {
            old.dirty.clone()
        } else {
            BTreeSet::new()
        };
        new.durable_allocated = old.durable_allocated.clone();
        let allocated = if killed_only {
            &old.allocated
        } else {
            &old.durable_allocated
        };
        new.allocated = allocated.clone();
        new.space.take_anyway(new.allocated.len() * PAGE_LEN);
        new.modified_ms = old.modified_ms;
        new.changed_ms = old.changed_ms;
        drop(new);
        inode
    }
}

impl Content {
    pub(super) fn len(&self) -> usize {
        self.buffer.len
    }

    pub(super) fn is_mapped(&self) -> bool {
        Arc::strong_count(&self.buffer) > 1
    }

    /// Copies bytes out; the range is within the file.
    pub(super) fn read(&self, position: usize, buf: &mut [u8]) {
        assert!(
            position
                .checked_add(buf.len())
                .is_some_and(|end| end <= self.buffer.len)
        );
        // SAFETY: (U7) checked to be within the buffer.
        let source = unsafe { self.buffer.pointer.as_ptr().add(position) };
        // SAFETY: (U7) both ranges are valid and apart, for `buf` is borrowed mutably. Nobody
        // writes the bytes meanwhile: writers hold the file's lock, and so does who has `&self`.
        unsafe { buf.as_mut_ptr().copy_from_nonoverlapping(source, buf.len()) };
    }

    /// The first place from `position` on in a page whose bytes are not all zero.
    pub(super) fn seek_data(&self, position: usize) -> Option<usize> {
        let mut bytes = [0; PAGE_LEN];
        let mut at = position;
        while at < self.len() {
            let end = (at - at % PAGE_LEN + PAGE_LEN).min(self.len());
            let rest = &mut bytes[..end - at];
            self.read(at, rest);
            if rest.iter().any(|byte| *byte != 0) {
                return Some(at);
            }
            at = end;
        }
        None
    }

    /// Copies bytes in, without further ado; the range is within the file.
    fn write(&mut self, position: usize, bytes: &[u8]) {
        assert!(
            position
                .checked_add(bytes.len())
                .is_some_and(|end| end <= self.buffer.len)
        );
        // SAFETY: (U7) checked to be within the buffer.
        let target = unsafe { self.buffer.pointer.as_ptr().add(position) };
        // SAFETY: (U7) both ranges are valid. Nobody reads or writes the target meanwhile: who has
        // `&mut self` holds the file's lock, and that a file is not written where a region has
        // published bytes of it is what `AppendRegion::new` asks of its callers.
        unsafe { target.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    /// As a process writes: takes blocks, notes dirty pages, grows the file.
    pub(super) fn write_at(&mut self, position: usize, bytes: &[u8]) -> Result<(), io::Error> {
        if bytes.is_empty() {
            return Ok(());
        }
        let end = position
            .checked_add(bytes.len())
            .ok_or(io::ErrorKind::FileTooLarge)?;
        if end > self.len() {
            self.set_len(end)?;
        }
        self.touch(position, bytes.len())?;
        self.write(position, bytes);
        Ok(())
    }

    /// Notes that a range is about to be written.
    fn touch(&mut self, position: usize, len: usize) -> Result<(), io::Error> {
        self.allocate(position, len)?;
        self.dirty.extend(pages(position, len));
        Ok(())
    }

    /// Takes blocks for the pages of a range that have none: all, or none if there is no space.
    pub(super) fn allocate(&mut self, position: usize, len: usize) -> Result<(), io::Error> {
        let missing: Vec<usize> = pages(position, len)
            .filter(|page| !self.allocated.contains(page))
            .collect();
        self.space.take(missing.len() * PAGE_LEN)?;
        self.allocated.extend(missing);
        Ok(())
    }

    /// Changes the length of a file that is not mapped.
    pub(super) fn set_len(&mut self, len: usize) -> Result<(), io::Error> {
        if len == self.len() {
            return Ok(());
        }
        if self.is_mapped() {
            let what = "the simulated device does not change the length of a mapped file";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, what));
        }
        let kept = len.min(self.len());
        let content = self.to_vec();
        self.buffer = Arc::new(Buffer::new(len));
        self.write(0, &content[..kept]);
        // Pages cut off must not come back from the durable image when the file grows again.
        self.dirty
            .extend(pages(kept, self.durable.len().saturating_sub(kept)));
        let cut = self.allocated.split_off(&len.div_ceil(PAGE_LEN));
        self.space.give(cut.len() * PAGE_LEN);
        Ok(())
    }

    /// Makes the dirty pages of a range durable, with the length.
    pub(super) fn sync(&mut self, position: usize, len: usize) {
        self.durable.resize(self.len(), 0);
        self.durable_allocated = self.allocated.clone();
        for page in self.take_dirty(position, len) {
            self.sync_page(page);
        }
    }

    /// What a failed sync does: the pages count as clean and never reach the device.
    pub(super) fn forget_dirty(&mut self, position: usize, len: usize) {
        self.take_dirty(position, len);
    }

    /// Makes some dirty pages durable early, as the kernel may at any time.
    pub(super) fn write_back(&mut self, random: &mut Random) {
        for page in self.dirty.clone() {
            if random.coin() && self.page(page).end <= self.durable.len() {
                self.dirty.remove(&page);
                self.sync_page(page);
            }
        }
    }

    /// Changes one bit of a file that is not mapped, on the device and in memory.
    pub(super) fn flip_bit(&mut self, position: usize, bit: u32) {
        assert!(!self.is_mapped(), "bits of a mapped file are not flipped");
        let mut byte = [0];
        self.read(position, &mut byte);
        self.write(position, &[byte[0] ^ (1 << bit)]);
        if let Some(byte) = self.durable.get_mut(position) {
            *byte ^= 1 << bit;
        }
    }

    /// Copies a page to the durable image, which is long enough.
    fn sync_page(&mut self, page: usize) {
        let range = self.page(page);
        let mut bytes = vec![0; range.len()];
        self.read(range.start, &mut bytes);
        self.durable[range].copy_from_slice(&bytes);
    }

    fn take_dirty(&mut self, position: usize, len: usize) -> Vec<usize> {
        let taken: Vec<usize> = pages(position, len)
            .filter(|page| self.dirty.contains(page))
            .collect();
        for page in &taken {
            self.dirty.remove(page);
        }
        taken
    }

    /// The durable content with each dirty page written, lost, or torn between its sectors.
    fn torn(&self, random: &mut Random) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        if random.coin() {
            bytes.resize(self.len(), 0);
        }
        for page in &self.dirty {
            let range = self.page(*page);
            let fate = random.up_to(2);
            for sector in range.clone().step_by(SECTOR_LEN) {
                let sector = sector..(sector + SECTOR_LEN).min(range.end);
                let written = fate == 0 || (fate == 1 && random.coin());
                if let Some(target) = bytes.get_mut(sector.clone()).filter(|_| written) {
                    self.read(sector.start, target);
                }
            }
        }
        bytes
    }

    fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len()];
        self.read(0, &mut bytes);
        bytes
    }

    /// The bytes of a page that the file has.
    fn page(&self, page: usize) -> Range<usize> {
        let end = ((page + 1) * PAGE_LEN).min(self.len());
        (page * PAGE_LEN).min(end)..end
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        self.space.give(self.allocated.len() * PAGE_LEN);
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content")
            .field("len", &self.len())
            .field("durable_len", &self.durable.len())
            .field("dirty_pages", &self.dirty.len())
            .finish_non_exhaustive()
    }
}

impl Buffer {
    fn new(len: usize) -> Self {
        let layout = Self::layout(len);
        // SAFETY: (U7) the layout's size is not 0.
        let pointer = unsafe { alloc::alloc_zeroed(layout) };
        let Some(pointer) = NonNull::new(pointer) else {
            alloc::handle_alloc_error(layout)
        };
        Self { pointer, len }
    }

    fn layout(len: usize) -> Layout {
        match Layout::from_size_align(len.max(1), PAGE_LEN) {
            Ok(layout) => layout,
            Err(error) => panic!("a simulated file of {len} bytes: {error}"),
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: (U7) allocated by `new` with this layout, and no mapping of it is left: each
        // holds a reference count.
        unsafe { alloc::dealloc(self.pointer.as_ptr(), Self::layout(self.len)) };
    }
}

// SAFETY: (U7) the memory is owned, and accessed under the rules in the module's text, which do
// not depend on the thread.
unsafe impl Send for Buffer {}
// SAFETY: (U7) as for Send.
unsafe impl Sync for Buffer {}

impl SimMap {
    /// A mapping of a range that lies within the file, whose lock the caller holds.
    pub(super) fn new(
        io: SimIo,
        inode: &Arc<Inode>,
        content: &Content,
        path: Arc<Path>,
        range: Range<usize>,
        access: Access,
    ) -> Self {
        assert!(!range.is_empty() && range.end <= content.len());
        let (buffer, inode) = (Arc::clone(&content.buffer), Arc::clone(inode));
        Self {
            io,
            inode,
            buffer,
            path,
            start: range.start,
            len: range.len(),
            access,
        }
    }

    fn check(&self, op: &'static str, range: &Range<usize>) -> Result<(), IoError> {
        if range.start <= range.end && range.end <= self.len {
            return Ok(());
        }
        let what = format!("range {range:?} of a mapping of {} bytes", self.len);
        Err(IoError::invalid(op, &*self.path, what))
    }

    fn checked_op(&self, op: &'static str, range: &Range<usize>) -> Result<(), IoError> {
        self.check(op, range)?;
        let failed = |error: IoError| error.at((self.start + range.start) as u64);
        self.io.check(op, &self.path).map_err(failed)
    }
}

// SAFETY: (U4) the buffer is allocated zeroed, as long as the file, and lives as long as `self`;
// `start + len` lies within it (checked by `new`); a mapped file never gets another buffer
// (`Content::set_len` refuses). The device changes mapped bytes only by `Content::write`.
unsafe impl RawMap for SimMap {
    type WriteGuard<'a> = SimWriteGuard<'a>;

    fn as_ptr(&self) -> *mut u8 {
        self.buffer.pointer.as_ptr().wrapping_add(self.start)
    }

    fn len(&self) -> usize {
        self.len
    }

    fn access(&self) -> Access {
        self.access
    }

    /// # Panics
    /// If a page has no block and the device is full: a real one raises SIGBUS then.
    fn begin_write(&self, position: usize, len: usize) -> SimWriteGuard<'_> {
        self.io.pass(&mut self.io.device());
        let mut content = self.inode.lock();
        let touched = content.touch(self.start + position, len);
        if let Err(error) = touched {
            panic!(
                "SIGBUS at position {position} of {}: {error}",
                self.path.display()
            );
        }
        SimWriteGuard { _content: content }
    }

    fn sync_range(&self, position: usize, len: usize) -> Result<(), IoError> {
        const OP: &str = "msync";
        self.check(OP, &(position..position.saturating_add(len)))?;
        let result = self.io.check(OP, &self.path);
        let mut content = self.inode.lock();
        match result {
            Ok(()) => content.sync(self.start + position, len),
            Err(_) => content.forget_dirty(self.start + position, len),
        }
        result
    }

    fn advise(&self, _advice: Advice, range: Range<usize>) -> Result<(), IoError> {
        self.checked_op("madvise", &range)
    }

    fn populate_read(&self, range: Range<usize>) -> Result<(), IoError> {
        self.checked_op("populate_read", &range)
    }

    fn populate_write(&self, range: Range<usize>) -> Result<(), IoError> {
        self.checked_op("populate_write", &range)
    }

    fn lock(&self, range: Range<usize>) -> Result<(), IoError> {
        self.checked_op("mlock", &range)
    }

    fn lock_on_fault(&self, range: Range<usize>) -> Result<(), IoError> {
        self.checked_op("mlock2", &range)
    }

    fn unlock(&self, range: Range<usize>) -> Result<(), IoError> {
        self.checked_op("munlock", &range)
    }

    fn resident(&self, range: Range<usize>) -> Result<Residency, IoError> {
        self.checked_op("mincore", &range)?;
        // Nothing is, so that whoever asks brings in what the device may refuse to give.
        Ok(Residency {
            pages: pages(self.start + range.start, range.len()).count(),
            resident: 0,
        })
    }
}

impl fmt::Debug for SimWriteGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimWriteGuard").finish_non_exhaustive()
    }
}

impl fmt::Debug for SimMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimMap")
            .field("path", &self.path)
            .field("start", &self.start)
            .field("len", &self.len)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

/// The pages that a range touches, by index.
fn pages(position: usize, len: usize) -> Range<usize> {
    if len == 0 {
        return 0..0;
    }
    position / PAGE_LEN..position.saturating_add(len).div_ceil(PAGE_LEN)
}
