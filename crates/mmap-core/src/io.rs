//! The seam between the store and the device: what a file system does for us, as two traits.
//!
//! Everything above takes `I: Io` with [`OsIo`](crate::OsIo) as its default, so that a simulated
//! device can take its place in tests and costs nothing otherwise. Not a portable file system
//! interface: only what a store made of memory-mapped files needs.

use std::ffi::OsString;
use std::fmt::Debug;
use std::io::IoSlice;
use std::path::Path;
use std::time::SystemTime;

use crate::error::{IoError, LockError, LockState};
use crate::map::RawMap;
use crate::replace;

/// A file system. Implementations must be usable from several threads at once.
///
/// What a failed operation has changed is not known, unless its text says so.
pub trait Io: Clone + Debug + Send + Sync + 'static {
    /// An open file.
    type File: IoFile<Map = Self::Map>;
    /// A mapping of a part of a file.
    type Map: RawMap;
    /// A held directory lock; dropping it releases the lock.
    type Lock: Debug + Send + Sync + 'static;

    /// Creates `path`, `len` bytes long and reading as zeros, without allocating blocks, open for
    /// reading and writing. On error no file is left.
    ///
    /// # Errors
    /// `AlreadyExists` when there is one.
    fn create(&self, path: &Path, len: u64) -> Result<Self::File, IoError>;

    /// Opens the existing file `path`.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    fn open(&self, path: &Path, access: Access) -> Result<Self::File, IoError>;

    /// What is known of `path`; `None` when it does not exist. Symbolic links are followed.
    ///
    /// # Errors
    /// Any other reason for which the system refuses the answer.
    fn metadata(&self, path: &Path) -> Result<Option<FileInfo>, IoError>;

    /// The entries of a directory, sorted by name. An entry that vanishes meanwhile is left out.
    ///
    /// # Errors
    /// `NotFound` when the directory does not exist.
    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>, IoError>;

    /// Creates `dir` and what is missing above it; the entries are durable on return.
    ///
    /// # Errors
    /// An entry that could not be made durable is removed again, so that a retry does not take it
    /// for one that is. Also `NotADirectory` or `AlreadyExists` when a file stands in the way.
    fn create_dir_all(&self, dir: &Path) -> Result<(), IoError>;

    /// Creates `dir`, whose parent exists, without making its name durable: that is
    /// [`sync_dir`](Io::sync_dir) of the parent, for many at once. One that exists is as good.
    ///
    /// # Errors
    /// `NotFound` without the parent; `AlreadyExists` when a file stands in the way.
    fn create_dir(&self, dir: &Path) -> Result<(), IoError>;

    /// Makes the entries of a directory (not the files' contents) durable.
    ///
    /// # Errors
    /// After one, the entries' state on the device is unknown.
    fn sync_dir(&self, dir: &Path) -> Result<(), IoError>;

    /// Renames atomically; an existing file `to` is replaced. Durable after
    /// [`sync_dir`](Io::sync_dir).
    ///
    /// # Errors
    /// Nothing has changed then.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError>;

    /// Makes `new` a second name of the file `existing`.
    ///
    /// # Errors
    /// `AlreadyExists`; `Unsupported` or `PermissionDenied` where the file system has no links.
    fn hard_link(&self, existing: &Path, new: &Path) -> Result<(), IoError>;

    /// Removes a file's name. Mappings and open files of it live on.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    fn remove_file(&self, path: &Path) -> Result<(), IoError>;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `DirectoryNotEmpty`, `NotFound`.
    fn remove_dir(&self, path: &Path) -> Result<(), IoError>;

    /// Takes the exclusive lock of a store directory: a write lock on byte 0 of the file `path`,
    /// which is created with RocketMQ's content (the four letters `lock`) if it is missing.
    ///
    /// It excludes a second taker in this process, other processes, and Java's
    /// `FileChannel.tryLock(0, 1, false)`; it falls when the value is dropped or the process ends,
    /// and not before.
    ///
    /// # Errors
    /// [`LockError::Held`] at once when it is taken; it does not wait.
    fn lock(&self, path: &Path) -> Result<Self::Lock, LockError>;

    /// Whether somebody holds the lock at this moment: for tools that only look. Nothing is taken,
    /// created or changed.
    ///
    /// # Errors
    /// The file cannot be opened or asked; one that does not exist is free.
    fn lock_state(&self, path: &Path) -> Result<LockState, IoError>;

    /// Space of the file system that holds `path`.
    ///
    /// # Errors
    /// `NotFound` when `path` does not exist.
    fn space(&self, path: &Path) -> Result<Space, IoError>;

    /// What names this run of the machine with these directories mounted: as long as it stays the
    /// same, the machine has not lost power, the file systems that hold them have not been unmounted
    /// (a volume may be detached, and what was not synced lost with it), and the first directory,
    /// which must exist, is the one that it was and no copy. Others may be made later. `None` where
    /// the system does not say.
    fn run_id(&self, dirs: &[&Path]) -> Option<String>;

    /// Reads a small file whole.
    ///
    /// # Errors
    /// `FileTooLarge` when it is longer than `max_len` bytes; `NotFound`.
    fn read(&self, path: &Path, max_len: u64) -> Result<Vec<u8>, IoError> {
        replace::read(self, path, max_len)
    }

    /// Gives a small file a new content such that a crash leaves either the old content or the
    /// new one, durable on return: see [`replace`](crate::replace).
    ///
    /// With `backup`, the old content is kept under that name, in the same way.
    ///
    /// # Errors
    /// The old content is still there, unless the last step, the directory's sync, failed.
    fn replace(&self, path: &Path, bytes: &[u8], backup: Option<&Path>) -> Result<(), IoError> {
        replace::replace(self, path, bytes, backup)
    }
}

/// An open file. Positions are absolute; there is no cursor.
#[expect(
    clippy::len_without_is_empty,
    reason = "the length of a file is a system call"
)]
pub trait IoFile: Debug + Send + Sync + 'static {
    /// A mapping of a part of this file.
    type Map: RawMap;

    /// The name under which it was opened.
    fn path(&self) -> &Path;

    /// Length in bytes.
    ///
    /// # Errors
    /// Those of `fstat`.
    fn len(&self) -> Result<u64, IoError>;

    /// Grows the file with zeros, or shortens it. **Must not** shorten a file that is mapped: the
    /// mapping's pages beyond the new end raise SIGBUS.
    ///
    /// # Errors
    /// Those of `ftruncate`.
    fn set_len(&self, len: u64) -> Result<(), IoError>;

    /// Allocates the blocks of a range without changing content or length, so that writing there
    /// through a mapping cannot fail for lack of space.
    ///
    /// Where the file system has no `fallocate`, zeros are written over blocks that read as zeros;
    /// the range **must not** be written by others at the same time.
    ///
    /// # Errors
    /// [`IoError::is_full`] when the space is not there.
    fn allocate(&self, offset: u64, len: u64) -> Result<(), IoError>;

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file ends before.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<(), IoError>;

    /// Reads what is there, up to `buf`'s length; 0 at the end of the file.
    ///
    /// # Errors
    /// Those of `pread`.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, IoError>;

    /// The first place from `offset` on where bytes that are not zero may stand; `None` when the
    /// rest of the file reads as zeros. What was allocated and never written counts as zeros.
    ///
    /// A place that is answered may be zero all the same, for written zeros are data; and where the
    /// file system cannot tell, every place is answered.
    ///
    /// # Errors
    /// Those of `lseek`, but for the one that says that there is no data.
    fn seek_data(&self, offset: u64) -> Result<Option<u64>, IoError>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// A part may have been written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<(), IoError>;

    /// Writes all parts, one after the other, at `offset`, in as few system calls as possible.
    ///
    /// # Errors
    /// A part may have been written.
    fn write_parts_at(&self, parts: &[IoSlice<'_>], offset: u64) -> Result<(), IoError>;

    /// Makes content written through the file or a mapping durable, with what of the metadata is
    /// needed to read it back (`fdatasync`).
    ///
    /// # Errors
    /// After one the content on the device is unknown, and a second call proves nothing: the
    /// kernel may have dropped the pages.
    fn sync_data(&self) -> Result<(), IoError>;

    /// As [`sync_data`](IoFile::sync_data), with all metadata (`fsync`).
    ///
    /// # Errors
    /// As [`sync_data`](IoFile::sync_data).
    fn sync_all(&self) -> Result<(), IoError>;

    /// Maps `len` bytes from `offset`, shared with the file. `offset` need not be aligned.
    ///
    /// # Errors
    /// `InvalidInput` for an empty range or one beyond the file's end;
    /// [`IoError::is_out_of_memory`] when address space or map entries are used up.
    fn map(&self, offset: u64, len: usize, access: Access) -> Result<Self::Map, IoError>;

    /// How many names the file has; 0 when it was removed (by whomever) while open.
    ///
    /// # Errors
    /// Those of `fstat`.
    fn link_count(&self) -> Result<u64, IoError>;
}

/// What may be done with a file or mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading only.
    ReadOnly,
    /// Reading and writing.
    ReadWrite,
}

/// What kind of thing a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Anything else: a device, a socket, a dangling link.
    Other,
}

/// What is known of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Its kind.
    pub kind: FileKind,
    /// Length in bytes.
    pub len: u64,
    /// Time of the last modification of the content. Whoever may write the file can set it.
    pub modified: SystemTime,
    /// Time of the last change of content, times, owner, mode or names. Nobody sets it.
    pub changed: SystemTime,
    /// Count of names.
    pub link_count: u64,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name, without the directory.
    pub name: OsString,
    /// Its kind.
    pub kind: FileKind,
    /// Length in bytes; 0 for a directory.
    pub len: u64,
}

/// Space of a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Its size.
    pub total: u64,
    /// What is not in use, also where only privileged processes may use it.
    pub free: u64,
    /// What a process without privileges may still use.
    pub available: u64,
    /// Tells this file system from others (`f_fsid`).
    pub id: u64,
}
