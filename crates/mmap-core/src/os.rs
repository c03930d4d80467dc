//! The operating system's file system, as [`Io`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::{FallocateFlags, SeekFrom};

use crate::error::{IoError, LockError, LockState};
use crate::io::{Access, DirEntry, FileInfo, FileKind, Io, IoFile, Space};
use crate::limits;
use crate::lock::OsLock;
use crate::map::OsMap;
use crate::modes::{PrivateMap, ReadOnlyMap};
use crate::reaper;

/// How many parts one `pwritev` takes at most. The kernel takes 1024; a small array stays on the
/// stack.
const PARTS_PER_CALL: usize = 64;

/// The operating system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsIo;

/// An open file of the operating system.
#[derive(Debug)]
pub struct OsFile {
    file: File,
    path: Arc<Path>,
}

impl Io for OsIo {
    type File = OsFile;
    type Map = OsMap;
    type Lock = OsLock;

    fn create(&self, path: &Path, len: u64) -> Result<OsFile, IoError> {
        const OP: &str = "create";
        let error = |source| IoError::new(OP, path, source);
        failpoint!("mmap_core.create", path, error);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(error)?;
        if let Err(source) = file.set_len(len) {
            // The first error is the one to report; a file left behind is empty.
            let _ = fs::remove_file(path);
            return Err(error(source));
        }
        Ok(OsFile {
            file,
            path: path.into(),
        })
    }

    fn open(&self, path: &Path, access: Access) -> Result<OsFile, IoError> {
        let error = |source| IoError::new("open", path, source);
        failpoint!("mmap_core.open", path, error);
        let file = OpenOptions::new()
            .read(true)
            .write(access == Access::ReadWrite)
            .open(path)
            .map_err(error)?;
        Ok(OsFile {
            file,
            path: path.into(),
        })
    }

    fn metadata(&self, path: &Path) -> Result<Option<FileInfo>, IoError> {
        let error = |source| IoError::new("stat", path, source);
        failpoint!("mmap_core.stat", path, error);
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(error(source)),
        };
        Ok(Some(FileInfo {
            kind: kind(metadata.file_type()),
            len: metadata.len(),
            modified: metadata.modified().map_err(error)?,
            changed: changed(&metadata),
            link_count: metadata.nlink(),
        }))
    }

    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>, IoError> {
        let error = |source| IoError::new("list", dir, source);
        failpoint!("mmap_core.list", dir, error);
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir).map_err(error)? {
            let entry = entry.map_err(error)?;
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                // Known without a call for each.
                entries.push(DirEntry {
                    name: entry.file_name(),
                    kind: FileKind::Directory,
                    len: 0,
                });
                continue;
            }
            // Follows links, as `metadata` does; `DirEntry::metadata` would not.
            let (kind, len) = match fs::metadata(entry.path()) {
                Ok(metadata) => (kind(metadata.file_type()), metadata.len()),
                Err(_) if entry.file_type().is_ok_and(|kind| kind.is_symlink()) => {
                    (FileKind::Other, 0)
                }
                Err(source) if source.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(IoError::new("stat", entry.path(), source)),
            };
            entries.push(DirEntry {
                name: entry.file_name(),
                kind,
                len,
            });
        }
        entries.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(entries)
    }

    fn create_dir_all(&self, dir: &Path) -> Result<(), IoError> {
        let error = |source| IoError::new("create_dir", dir, source);
        if fs::metadata(dir).is_ok_and(|metadata| metadata.is_dir()) {
            return Ok(());
        }
        let parent = match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        if parent != Path::new(".") {
            self.create_dir_all(parent)?;
        }
        failpoint!("mmap_core.create_dir", dir, error);
        match fs::create_dir(dir) {
            // A retry would find the directory and not sync its name.
            Ok(()) => self.sync_dir(parent).inspect_err(|_| {
                let _ = fs::remove_dir(dir);
            }),
            // Another thread was faster, or a file stands there.
            Err(source) if fs::metadata(dir).is_ok_and(|metadata| metadata.is_dir()) => {
                debug_assert_eq!(source.kind(), io::ErrorKind::AlreadyExists);
                self.sync_dir(parent)
            }
            Err(source) => Err(error(source)),
        }
    }

    fn create_dir(&self, dir: &Path) -> Result<(), IoError> {
        let error = |source| IoError::new("create_dir", dir, source);
        failpoint!("mmap_core.create_dir", dir, error);
        match fs::create_dir(dir) {
            Err(_) if fs::metadata(dir).is_ok_and(|metadata| metadata.is_dir()) => Ok(()),
            created => created.map_err(error),
        }
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), IoError> {
        let error = |source| IoError::new("sync_dir", dir, source);
        failpoint!("mmap_core.sync_dir", dir, error);
        let directory = File::open(dir).map_err(error)?;
        directory.sync_all().map_err(error)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError> {
        let error = |source| IoError::new("rename", from, source);
        failpoint!("mmap_core.rename", from, error);
        fs::rename(from, to).map_err(error)
    }

    fn hard_link(&self, existing: &Path, new: &Path) -> Result<(), IoError> {
        let error = |source| IoError::new("link", existing, source);
        failpoint!("mmap_core.link", existing, error);
        fs::hard_link(existing, new).map_err(error)
    }

    fn remove_file(&self, path: &Path) -> Result<(), IoError> {
        let error = |source| IoError::new("remove", path, source);
        failpoint!("mmap_core.remove", path, error);
        fs::remove_file(path).map_err(error)
    }

    fn remove_dir(&self, path: &Path) -> Result<(), IoError> {
        let error = |source| IoError::new("remove_dir", path, source);
        failpoint!("mmap_core.remove_dir", path, error);
        fs::remove_dir(path).map_err(error)
    }

    fn lock(&self, path: &Path) -> Result<OsLock, LockError> {
        OsLock::take(path)
    }

    fn run_id(&self, dirs: &[&Path]) -> Option<String> {
        crate::run::run_id(dirs)
    }

    fn lock_state(&self, path: &Path) -> Result<LockState, IoError> {
        crate::lock::state(path)
    }

    fn space(&self, path: &Path) -> Result<Space, IoError> {
        let error = |source| IoError::new("statvfs", path, source);
        failpoint!("mmap_core.statvfs", path, error);
        let space = rustix::fs::statvfs(path).map_err(|errno| error(errno.into()))?;
        Ok(Space {
            total: space.f_blocks.saturating_mul(space.f_frsize),
            free: space.f_bfree.saturating_mul(space.f_frsize),
            available: space.f_bavail.saturating_mul(space.f_frsize),
            id: space.f_fsid,
        })
    }
}

impl AsFd for OsFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl OsFile {
    fn error(&self, op: &'static str, source: io::Error) -> IoError {
        IoError::new(op, &*self.path, source)
    }
}

impl OsFile {
    /// Maps `len` bytes from `offset` for reading, without a promise of anybody's that they stay as
    /// they are.
    ///
    /// # Errors
    /// As [`IoFile::map`].
    pub fn map_read_only(&self, offset: u64, len: usize) -> Result<ReadOnlyMap, IoError> {
        let map = self.map(offset, len, Access::ReadOnly)?;
        Ok(ReadOnlyMap::new(map))
    }

    /// Maps `len` bytes from `offset` such that changes never reach the file. The file may be open
    /// for reading only.
    ///
    /// # Errors
    /// As [`IoFile::map`].
    pub fn map_private(&self, offset: u64, len: usize) -> Result<PrivateMap, IoError> {
        self.map_by(offset, len, || {
            PrivateMap::new(&self.file, &self.path, offset, len)
        })
    }

    /// Maps by `map` a range of the file, once more if there is no memory at first.
    fn map_by<M>(
        &self,
        offset: u64,
        len: usize,
        map: impl Fn() -> io::Result<M>,
    ) -> Result<M, IoError> {
        const OP: &str = "map";
        failpoint!("mmap_core.map", &self.path, |source| self
            .error(OP, source)
            .at(offset));
        let file_len = self.len()?;
        let fits = offset
            .checked_add(len as u64)
            .is_some_and(|end| end <= file_len);
        if len == 0 || !fits {
            let what = format!("{len} bytes of a file of {file_len}");
            return Err(IoError::invalid(OP, &*self.path, what).at(offset));
        }
        let mapped = match map() {
            Err(source) if source.kind() == io::ErrorKind::OutOfMemory => {
                // Address space that was given up may not have been given back yet.
                reaper::settle();
                map().map_err(|source| limits::explain_no_memory(&source))
            }
            result => result,
        };
        mapped.map_err(|source| self.error(OP, source).at(offset))
    }
}

#[cfg(feature = "failpoints")]
impl OsFile {
    /// Writes the first half of many pages, so that a failpoint stands in the middle of the whole:
    /// between two pages, where the kernel looks for a signal as well. What is left to write.
    fn write_half<'a>(&self, bytes: &'a [u8], offset: u64) -> Result<(&'a [u8], u64), IoError> {
        const PAGE_LEN: u64 = 4096;
        let error = |source| self.error("write", source).at(offset);
        let middle = offset + bytes.len() as u64 / 2;
        let middle = (middle - middle % PAGE_LEN).max(offset);
        let (first, rest) = bytes.split_at((middle - offset) as usize);
        self.file.write_all_at(first, offset).map_err(error)?;
        failpoint!("mmap_core.write_middle", &self.path, error);
        Ok((rest, offset + first.len() as u64))
    }
}

impl IoFile for OsFile {
    type Map = OsMap;

    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64, IoError> {
        let metadata = self
            .file
            .metadata()
            .map_err(|source| self.error("stat", source))?;
        Ok(metadata.len())
    }

    fn set_len(&self, len: u64) -> Result<(), IoError> {
        failpoint!("mmap_core.set_len", &self.path, |source| self
            .error("set_len", source)
            .at(len));
        self.file
            .set_len(len)
            .map_err(|source| self.error("set_len", source).at(len))
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<(), IoError> {
        let error = |source| self.error("allocate", source).at(offset);
        failpoint!("mmap_core.allocate", &self.path, error);
        loop {
            match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, offset, len) {
                Ok(()) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::OPNOTSUPP) => {
                    return allocate_by_writing(&self.file, offset, len).map_err(error);
                }
                Err(errno) => return Err(error(errno.into())),
            }
        }
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<(), IoError> {
        let error = |source| self.error("read", source).at(offset);
        failpoint!("mmap_core.read", &self.path, error);
        self.file.read_exact_at(buf, offset).map_err(error)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, IoError> {
        let error = |source| self.error("read", source).at(offset);
        failpoint!("mmap_core.read", &self.path, error);
        loop {
            match self.file.read_at(buf, offset) {
                Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map_err(error),
            }
        }
    }

    fn seek_data(&self, offset: u64) -> Result<Option<u64>, IoError> {
        let error = |source| self.error("seek_data", source).at(offset);
        failpoint!("mmap_core.seek_data", &self.path, error);
        // Moves the descriptor's cursor, which nobody uses.
        match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(found) => Ok(Some(found)),
            Err(rustix::io::Errno::NXIO) => Ok(None),
            // A file system that does not know its holes.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => {
                let inside = offset < self.len()?;
                Ok(inside.then_some(offset))
            }
            Err(errno) => Err(error(errno.into())),
        }
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<(), IoError> {
        let error = |source| self.error("write", source).at(offset);
        failpoint!("mmap_core.write", &self.path, error);
        #[cfg(feature = "failpoints")]
        let (bytes, offset) = self.write_half(bytes, offset)?;
        self.file.write_all_at(bytes, offset).map_err(error)
    }

    fn write_parts_at(&self, parts: &[IoSlice<'_>], offset: u64) -> Result<(), IoError> {
        failpoint!("mmap_core.write", &self.path, |source| self
            .error("write", source)
            .at(offset));
        #[cfg(feature = "failpoints")]
        if crate::failpoint::is_armed("mmap_core.write_middle") {
            let parts: Vec<&[u8]> = parts.iter().map(|part| &**part).collect();
            return self.write_all_at(&parts.concat(), offset);
        }
        let mut offset = offset;
        for parts in parts.chunks(PARTS_PER_CALL) {
            let mut array = [IoSlice::new(&[]); PARTS_PER_CALL];
            array[..parts.len()].copy_from_slice(parts);
            let mut rest = &mut array[..parts.len()];
            // Without content, `advance_slices` drops leading empty parts.
            IoSlice::advance_slices(&mut rest, 0);
            while !rest.is_empty() {
                let written = match rustix::io::pwritev(&self.file, rest, offset) {
                    Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => Ok(written),
                    Err(rustix::io::Errno::INTR) => continue,
                    Err(errno) => Err(io::Error::from(errno)),
                };
                let written = written.map_err(|source| self.error("write", source).at(offset))?;
                IoSlice::advance_slices(&mut rest, written);
                offset += written as u64;
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> Result<(), IoError> {
        failpoint!("mmap_core.sync_data", &self.path, |source| self
            .error("sync_data", source));
        self.file
            .sync_data()
            .map_err(|source| self.error("sync_data", source))
    }

    fn sync_all(&self) -> Result<(), IoError> {
        failpoint!("mmap_core.sync_all", &self.path, |source| self
            .error("sync_all", source));
        self.file
            .sync_all()
            .map_err(|source| self.error("sync_all", source))
    }

    fn map(&self, offset: u64, len: usize, access: Access) -> Result<OsMap, IoError> {
        self.map_by(offset, len, || {
            OsMap::new(&self.file, &self.path, offset, len, access)
        })
    }

    fn link_count(&self) -> Result<u64, IoError> {
        let metadata = self
            .file
            .metadata()
            .map_err(|source| self.error("stat", source))?;
        Ok(metadata.nlink())
    }
}

/// The time of the last change of a file, or 1970 for one before.
fn changed(metadata: &fs::Metadata) -> SystemTime {
    let (seconds, nanos) = (metadata.ctime(), metadata.ctime_nsec());
    let since_1970 = match (u64::try_from(seconds), u32::try_from(nanos)) {
        (Ok(seconds), Ok(nanos)) => Duration::new(seconds, nanos),
        _ => Duration::ZERO,
    };
    SystemTime::UNIX_EPOCH + since_1970
}

fn kind(file_type: fs::FileType) -> FileKind {
    if file_type.is_file() {
        FileKind::File
    } else if file_type.is_dir() {
        FileKind::Directory
    } else {
        FileKind::Other
    }
}

/// Allocates the blocks of a range by writing zeros over those that read as zeros.
///
/// For file systems without `fallocate` (some FUSE and network ones). Another writer of the range
/// could lose bytes between the read and the write: [`IoFile::allocate`] forbids one.
fn allocate_by_writing(file: &File, offset: u64, len: u64) -> io::Result<()> {
    const BLOCK_LEN: u64 = 4096;
    const ZEROS: [u8; BLOCK_LEN as usize] = [0; BLOCK_LEN as usize];
    let end = offset.saturating_add(len).min(file.metadata()?.len());
    let mut buf = [0; BLOCK_LEN as usize];
    let mut position = offset - offset % BLOCK_LEN;
    while position < end {
        let block = (end - position).min(BLOCK_LEN) as usize;
        file.read_exact_at(&mut buf[..block], position)?;
        if buf[..block] == ZEROS[..block] {
            file.write_all_at(&ZEROS[..block], position)?;
        }
        position += BLOCK_LEN;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocating_by_writing_fills_holes_and_keeps_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let OsFile { file, .. } = OsIo.create(&path, 20_001).unwrap();
        file.write_all_at(b"kept", 9_000).unwrap();
        allocate_by_writing(&file, 5_000, 50_000).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), 20_001);
        assert_eq!(metadata.blocks() * 512, 4 * 4096, "all but the first block");
        let mut content = vec![0; 20_001];
        file.read_exact_at(&mut content, 0).unwrap();
        assert_eq!(content[9_000..9_004], *b"kept");
        assert_eq!(content.iter().filter(|byte| **byte != 0).count(), 4);
    }
}
