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
    ///
    /// A disk without a free block is no reason not to open: one that is there is kept, and one
    /// that there is no room for stays empty.
    pub(crate) fn mark_open(&self, io: &I) -> Result<(), IoError> {
        let abort = self.root.join(ABORT_FILE);
        if self.last_exit == LastExit::Unclean {
            return io.sync_dir(&self.root);
        }
        let pid = std::process::id().to_string();
        match io.replace(&abort, pid.as_bytes(), None) {
            Err(error) if error.is_full() => {
                io.create(&abort, 0)?;
                io.sync_dir(&self.root)
            }
            outcome => outcome,
        }
    }

    /// Removes the `abort` file: everything is on disk and in every derived file.
    pub(crate) fn mark_closed(&self, io: &I) -> Result<(), IoError> {
        io.remove_file(&self.root.join(ABORT_FILE))?;
        io.sync_dir(&self.root)
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use mmap_core::{CrashStyle, SimIo};

    use super::*;

    #[test]
    fn a_full_disk_can_be_opened_and_remembers_that_it_was() {
        for seed in 0..20 {
            let (io, root) = (SimIo::new(seed), Path::new("/store"));
            let ownership = Ownership::take(&io, root).unwrap();
            io.fail_from("write", 1, ErrorKind::StorageFull);
            ownership.mark_open(&io).unwrap();
            drop(ownership);
            for style in [CrashStyle::KillProcess, CrashStyle::Tear] {
                let io = io.crash(style);
                io.fail_from("write", 1, ErrorKind::StorageFull);
                let ownership = Ownership::take(&io, root).unwrap();
                assert_eq!(ownership.last_exit(), LastExit::Unclean);
                ownership.mark_open(&io).unwrap();
                assert!(io.metadata(&root.join(ABORT_FILE)).unwrap().is_some());
            }
        }
    }
}
