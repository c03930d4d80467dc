//! The lock of a store directory.
//!
//! # Safety
//! **U6** of docs/unsafe.md: `fcntl` with a lock description, which rustix does not offer for
//! open-file-description locks.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::{IoError, LockError, LockState};

/// What RocketMQ 5.3.3 writes to the lock file (DefaultMessageStore.java, `start`).
const CONTENT: &[u8] = b"lock";

/// A write lock on byte 0 of a file, held until it is dropped.
///
/// It is an open-file-description lock: it conflicts with Java's process-wide `fcntl` locks and
/// with other locks of its own kind, also within this process, and does not fall when some other
/// descriptor of the file is closed, as an ordinary `fcntl` lock does.
#[derive(Debug)]
pub struct OsLock {
    /// Its descriptor is the lock's owner; closing it releases the lock.
    _file: File,
}

impl OsLock {
    pub(crate) fn take(path: &Path) -> Result<Self, LockError> {
        let error = |source| LockError::Io(IoError::new("lock", path, source));
        failpoint!("mmap_core.lock", path, error);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(error)?;
        if let Err(source) = fcntl(&file, libc::F_OFD_SETLK, &mut byte_zero()) {
            return match source.kind() {
                // EAGAIN or EACCES, by POSIX.
                io::ErrorKind::WouldBlock | io::ErrorKind::PermissionDenied => {
                    Err(LockError::Held {
                        path: PathBuf::from(path),
                        holder_pid: conflict(&file)
                            .ok()
                            .flatten()
                            .and_then(|conflict| holder(&conflict)),
                    })
                }
                _ => Err(error(source)),
            };
        }
        if file.metadata().map_err(error)?.len() == 0 {
            file.write_all_at(CONTENT, 0).map_err(error)?;
        }
        Ok(Self { _file: file })
    }
}

/// Asks who would be in the way of taking the lock.
pub(crate) fn state(path: &Path) -> Result<LockState, IoError> {
    let error = |source| IoError::new("lock state", path, source);
    failpoint!("mmap_core.lock_state", path, error);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(LockState::Free),
        Err(source) => return Err(error(source)),
    };
    Ok(match conflict(&file).map_err(error)? {
        Some(conflict) => LockState::Held {
            holder_pid: holder(&conflict),
        },
        None => LockState::Free,
    })
}

/// The lock that conflicts with ours, if there is one.
fn conflict(file: &File) -> io::Result<Option<libc::flock>> {
    let mut lock = byte_zero();
    fcntl(file, libc::F_OFD_GETLK, &mut lock)?;
    Ok((lock.l_type != libc::F_UNLCK as libc::c_short).then_some(lock))
}

/// The process that holds a lock, where the kernel knows one.
fn holder(lock: &libc::flock) -> Option<u32> {
    // -1 stands for an open-file-description lock, 0 for a process outside our pid namespace.
    u32::try_from(lock.l_pid).ok().filter(|pid| *pid != 0)
}

/// A write lock on the byte that Java locks: `FileChannel.tryLock(0, 1, false)`.
fn byte_zero() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 1,
        // Must be 0 for open-file-description locks.
        l_pid: 0,
    }
}

fn fcntl(file: &File, command: libc::c_int, lock: &mut libc::flock) -> io::Result<()> {
    // SAFETY: (U6) the descriptor is open for as long as `file` is borrowed, and both commands take
    // a pointer to a `flock`, which `lock` is for the length of the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), command, std::ptr::from_mut(lock)) };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
