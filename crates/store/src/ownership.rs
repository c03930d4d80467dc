//! Who owns the directory: the `lock` file while the store is open, the `abort` file from opening
//! until a clean close.

use std::path::{Path, PathBuf};

use mmap_core::{Io, IoError, LockError};

/// The file whose first byte is locked, as a Java broker does.
pub const LOCK_FILE: &str = "lock";
/// The file that stands while the store is open: found at start, it tells of a crash. RocketMQ
/// writes the process id into it; only its existence matters.
pub const ABORT_FILE: &str = "abort";

/// How the directory was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastExit {
    /// Closed, or never opened.
    Clean,
    /// The `abort` file was there: the process or the machine died.
    Unclean,
}

/// The directory, locked. Dropping it releases the lock and leaves the `abort` file.
#[derive(Debug)]
pub(crate) struct Ownership<I: Io> {
    root: PathBuf,
    last_exit: LastExit,
    _lock: I::Lock,
}

impl<I: Io> Ownership<I> {
    /// Locks `root`, creating it where it is missing. Nothing else in it is touched.
    pub(crate) fn take(io: &I, root: &Path) -> Result<Self, LockError> {
        io.create_dir_all(root).map_err(LockError::Io)?;
        let lock = io.lock(&root.join(LOCK_FILE))?;
        let abort = io.metadata(&root.join(ABORT_FILE)).map_err(LockError::Io)?;
        let last_exit = if abort.is_some() {
            LastExit::Unclean
        } else {
            LastExit::Clean
        };
        Ok(Self {
            root: root.to_owned(),
            last_exit,
            _lock: lock,
        })
    }

    pub(crate) fn last_exit(&self) -> LastExit {
        self.last_exit
    }

    /// Writes the `abort` file, durably: after a power loss it must be there, or the next start
    /// would take the store for closed. RocketMQ 5.3.3 does not sync it.
    pub(crate) fn mark_open(&self, io: &I) -> Result<(), IoError> {
        let pid = std::process::id().to_string();
        io.replace(&self.root.join(ABORT_FILE), pid.as_bytes(), None)
    }

    /// Removes the `abort` file: everything is on disk and in every derived file.
    pub(crate) fn mark_closed(&self, io: &I) -> Result<(), IoError> {
        io.remove_file(&self.root.join(ABORT_FILE))?;
        io.sync_dir(&self.root)
    }
}
