//! What an input or output operation that failed says: which operation, on which file, where.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A failed operation on a file, directory or mapping.
///
/// The cause is the operating system's (or the simulated device's) [`io::Error`]. What a caller
/// can act upon is asked by kind, never by text: [`is_full`](IoError::is_full),
/// [`is_not_found`](IoError::is_not_found), [`is_out_of_memory`](IoError::is_out_of_memory).
#[derive(Debug)]
pub struct IoError {
    op: &'static str,
    path: PathBuf,
    offset: Option<u64>,
    source: io::Error,
}

impl IoError {
    /// An error of `op` on `path`.
    pub fn new(op: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self {
            op,
            path: path.into(),
            offset: None,
            source,
        }
    }

    /// The same error, at a byte offset within the file.
    #[must_use]
    pub fn at(mut self, offset: u64) -> Self {
        self.offset = Some(offset);
        self
    }

    /// An error that no system call reported: `what` says what is wrong.
    pub fn invalid(op: &'static str, path: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        Self::new(
            op,
            path,
            io::Error::new(io::ErrorKind::InvalidInput, what.into()),
        )
    }

    /// The operation that failed, by the name of the system call or of the method.
    pub fn op(&self) -> &'static str {
        self.op
    }

    /// The file or directory concerned.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Byte offset within the file, where one is concerned.
    pub fn offset(&self) -> Option<u64> {
        self.offset
    }

    /// The kind of the cause.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// No space: the device is full or a quota is used up. A state that can end by itself.
    pub fn is_full(&self) -> bool {
        matches!(
            self.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }

    /// The file or directory does not exist.
    pub fn is_not_found(&self) -> bool {
        self.kind() == io::ErrorKind::NotFound
    }

    /// No memory or no map entry left (`RLIMIT_AS`, `vm.max_map_count`).
    pub fn is_out_of_memory(&self) -> bool {
        self.kind() == io::ErrorKind::OutOfMemory
    }
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.op, self.path.display())?;
        if let Some(offset) = self.offset {
            write!(f, " at offset {offset}")?;
        }
        write!(f, ": {}", self.source)
    }
}

impl Error for IoError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

/// Whether the lock of a store directory is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockState {
    /// Nobody holds it.
    Free,
    /// Somebody does.
    Held {
        /// As in [`LockError::Held`].
        holder_pid: Option<u32>,
    },
}

/// Why a directory's lock was not taken.
#[derive(Debug)]
#[non_exhaustive]
pub enum LockError {
    /// Somebody else holds it: another process (also a Java broker), or this one.
    Held {
        /// The lock file.
        path: PathBuf,
        /// The holder, where the kernel tells: it does for the `fcntl` record locks that Java
        /// takes, and does not for the open-file-description locks that we take.
        holder_pid: Option<u32>,
    },
    /// The lock file cannot be opened, written or locked.
    Io(IoError),
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held {
                path,
                holder_pid: Some(pid),
            } => {
                write!(
                    f,
                    "{} is locked by process {pid}; stop it first",
                    path.display()
                )
            }
            Self::Held {
                path,
                holder_pid: None,
            } => write!(
                f,
                "{} is locked by another broker or tool; `fuser {}` names it",
                path.display(),
                path.display()
            ),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl Error for LockError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Held { .. } => None,
            Self::Io(error) => Some(error),
        }
    }
}

impl From<IoError> for LockError {
    fn from(error: IoError) -> Self {
        Self::Io(error)
    }
}
