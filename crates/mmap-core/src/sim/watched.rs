//! The simulated device with an eye on its mapped bytes: for models, in builds for loom only.
//!
//! A [`SimMap`]'s bytes are plain memory, of which loom knows nothing. Here each write through a
//! mapping is an access that loom sees, and so is each read that says so ([`WatchedMap::read`]): a
//! byte that is read and written without an order between them fails the model. The mapping itself
//! is read by both and written by its end, so that a use beside or after the unmapping fails, too.
//!
//! # Safety
//! **U4** of docs/unsafe.md: [`RawMap`] for [`WatchedMap`], which is a [`SimMap`].
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;
use std::io::IoSlice;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use super::{SimFile, SimIo, SimLock, SimMap, SimWriteGuard};
use crate::append::MapSlice;
use crate::error::{IoError, LockError, LockState};
use crate::io::{Access, DirEntry, FileInfo, Io, IoFile, Space};
use crate::map::{Advice, RawMap, Residency};
use crate::sync::cell::{ConstPtr, MutPtr, UnsafeCell};
use crate::sync::{Mutex, MutexGuard};

/// A simulated device whose mapped bytes loom watches. Names are not used twice for other files.
#[derive(Clone, Debug)]
pub struct WatchedIo {
    io: SimIo,
    /// By loom's lock, as those who use a directory are ordered by the kernel's.
    files: Arc<Mutex<Files>>,
}

type Files = BTreeMap<PathBuf, Arc<Cells>>;

/// An open file of it.
#[derive(Debug)]
pub struct WatchedFile {
    file: SimFile,
    cells: Arc<Cells>,
}

/// A mapping of it.
pub struct WatchedMap {
    map: SimMap,
    file_offset: usize,
    cells: Arc<Cells>,
    /// Written by the end of the mapping, read by whoever uses it.
    mapped: UnsafeCell<()>,
}

/// Stands for the bytes of a file, each for itself: all mappings show the same ones.
struct Cells(Vec<UnsafeCell<()>>);

/// While bytes are written through a [`WatchedMap`].
pub struct WatchedWriteGuard<'a> {
    _mapped: ConstPtr<()>,
    _bytes: Vec<MutPtr<()>>,
    _guard: SimWriteGuard<'a>,
}

/// While bytes are read through a [`WatchedMap`].
pub struct WatchedReadGuard {
    _mapped: ConstPtr<()>,
    _bytes: Vec<ConstPtr<()>>,
}

impl WatchedIo {
    /// An empty device.
    #[expect(clippy::new_without_default, reason = "as SimIo, which wants a seed")]
    pub fn new() -> Self {
        Self {
            io: SimIo::new(0),
            files: Arc::default(),
        }
    }

    fn lock_files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file with the cells of its name, made when it is seen for the first time.
fn watch(files: &mut Files, path: &Path, file: SimFile) -> Result<WatchedFile, IoError> {
    let len = file.len()?;
    let cells = files
        .entry(path.to_owned())
        .or_insert_with(|| Arc::new(Cells((0..len).map(|_| UnsafeCell::new(())).collect())));
    let cells = Arc::clone(cells);
    Ok(WatchedFile { file, cells })
}

impl WatchedMap {
    /// Says that the bytes of a range are read until the guard is dropped.
    pub fn read(&self, range: Range<usize>) -> WatchedReadGuard {
        WatchedReadGuard {
            _mapped: self.mapped.get(),
            _bytes: self.bytes(range).iter().map(UnsafeCell::get).collect(),
        }
    }

    fn bytes(&self, range: Range<usize>) -> &[UnsafeCell<()>] {
        &self.cells.0[self.file_offset + range.start..self.file_offset + range.end]
    }
}

impl MapSlice<WatchedMap> {
    /// Copies the bytes, seen by loom.
    pub fn read(&self) -> Vec<u8> {
        let _reading = self.region().map().read(self.range());
        self.to_vec()
    }
}

impl Drop for WatchedMap {
    fn drop(&mut self) {
        // Fails the model if somebody still uses it, or may not know that nobody does.
        drop(self.mapped.get_mut());
    }
}

// SAFETY: (U4) the cells hold nothing. They are asked for accesses from any thread, which loom notes
// down and orders by itself: it runs one thread at a time.
unsafe impl Send for Cells {}
// SAFETY: (U4) as for Send.
unsafe impl Sync for Cells {}
// SAFETY: (U4) as for `Cells`; a `SimMap` is both.
unsafe impl Send for WatchedMap {}
// SAFETY: (U4) as for Send.
unsafe impl Sync for WatchedMap {}

// SAFETY: (U4) all of it is the `SimMap`'s; the guard of writing holds the `SimMap`'s own.
unsafe impl RawMap for WatchedMap {
    type WriteGuard<'a> = WatchedWriteGuard<'a>;

    fn as_ptr(&self) -> *mut u8 {
        self.map.as_ptr()
    }

    fn len(&self) -> usize {
        self.map.len()
    }

    fn access(&self) -> Access {
        self.map.access()
    }

    fn begin_write(&self, position: usize, len: usize) -> WatchedWriteGuard<'_> {
        let bytes = self.bytes(position..position + len);
        WatchedWriteGuard {
            _mapped: self.mapped.get(),
            _bytes: bytes.iter().map(UnsafeCell::get_mut).collect(),
            _guard: self.map.begin_write(position, len),
        }
    }

    fn sync_range(&self, position: usize, len: usize) -> Result<(), IoError> {
        self.map.sync_range(position, len)
    }

    fn advise(&self, advice: Advice, range: Range<usize>) -> Result<(), IoError> {
        self.map.advise(advice, range)
    }

    fn populate_read(&self, range: Range<usize>) -> Result<(), IoError> {
        self.map.populate_read(range)
    }

    fn populate_write(&self, range: Range<usize>) -> Result<(), IoError> {
        self.map.populate_write(range)
    }

    fn lock(&self, range: Range<usize>) -> Result<(), IoError> {
        self.map.lock(range)
    }

    fn lock_on_fault(&self, range: Range<usize>) -> Result<(), IoError> {
        self.map.lock_on_fault(range)
    }

    fn unlock(&self, range: Range<usize>) -> Result<(), IoError> {
        self.map.unlock(range)
    }

    fn resident(&self, range: Range<usize>) -> Result<Residency, IoError> {
        self.map.resident(range)
    }
}

impl Io for WatchedIo {
    type File = WatchedFile;
    type Map = WatchedMap;
    type Lock = SimLock;

    fn create(&self, path: &Path, len: u64) -> Result<WatchedFile, IoError> {
        let mut files = self.lock_files();
        watch(&mut files, path, self.io.create(path, len)?)
    }

    fn open(&self, path: &Path, access: Access) -> Result<WatchedFile, IoError> {
        let mut files = self.lock_files();
        watch(&mut files, path, self.io.open(path, access)?)
    }

    fn metadata(&self, path: &Path) -> Result<Option<FileInfo>, IoError> {
        self.io.metadata(path)
    }

    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>, IoError> {
        let _files = self.lock_files();
        self.io.list(dir)
    }

    fn create_dir_all(&self, dir: &Path) -> Result<(), IoError> {
        self.io.create_dir_all(dir)
    }

    fn create_dir(&self, dir: &Path) -> Result<(), IoError> {
        self.io.create_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), IoError> {
        self.io.sync_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError> {
        self.io.rename(from, to)
    }

    fn hard_link(&self, existing: &Path, new: &Path) -> Result<(), IoError> {
        self.io.hard_link(existing, new)
    }

    fn remove_file(&self, path: &Path) -> Result<(), IoError> {
        let _files = self.lock_files();
        self.io.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> Result<(), IoError> {
        self.io.remove_dir(path)
    }

    fn lock(&self, path: &Path) -> Result<SimLock, LockError> {
        self.io.lock(path)
    }

    fn lock_state(&self, path: &Path) -> Result<LockState, IoError> {
        self.io.lock_state(path)
    }

    fn space(&self, path: &Path) -> Result<Space, IoError> {
        self.io.space(path)
    }

    fn run_id(&self, dirs: &[&Path]) -> Option<String> {
        self.io.run_id(dirs)
    }
}

impl IoFile for WatchedFile {
    type Map = WatchedMap;

    fn path(&self) -> &Path {
        self.file.path()
    }

    fn len(&self) -> Result<u64, IoError> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> Result<(), IoError> {
        self.file.set_len(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<(), IoError> {
        self.file.allocate(offset, len)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<(), IoError> {
        self.file.read_exact_at(buf, offset)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, IoError> {
        self.file.read_at(buf, offset)
    }

    fn seek_data(&self, offset: u64) -> Result<Option<u64>, IoError> {
        self.file.seek_data(offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<(), IoError> {
        self.file.write_all_at(bytes, offset)
    }

    fn write_parts_at(&self, parts: &[IoSlice<'_>], offset: u64) -> Result<(), IoError> {
        self.file.write_parts_at(parts, offset)
    }

    fn sync_data(&self) -> Result<(), IoError> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> Result<(), IoError> {
        self.file.sync_all()
    }

    fn map(&self, offset: u64, len: usize, access: Access) -> Result<WatchedMap, IoError> {
        Ok(WatchedMap {
            map: self.file.map(offset, len, access)?,
            file_offset: offset as usize,
            cells: Arc::clone(&self.cells),
            mapped: UnsafeCell::new(()),
        })
    }

    fn link_count(&self) -> Result<u64, IoError> {
        self.file.link_count()
    }
}

impl fmt::Debug for Cells {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cells").field(&self.0.len()).finish()
    }
}

impl fmt::Debug for WatchedMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.map.fmt(f)
    }
}
