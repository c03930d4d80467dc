//! Putting directories in the place of others.

use std::path::{Path, PathBuf};

use mmap_core::{FileKind, Io, IoError};

use super::super::files::{StoreDirs, list_or_nothing};
use crate::checkpoint::{CHECKPOINT_FILE, CHECKPOINT_LEN};
use crate::dispatched;
use crate::ownership::{LastExit, Ownership};

/// A directory that takes the place of another.
#[derive(Debug)]
pub(super) struct Swap {
    made: PathBuf,
    place: PathBuf,
}

impl Swap {
    pub(super) fn new(made: PathBuf, place: PathBuf) -> Self {
        Self { made, place }
    }

    /// Whether there is anything to put in place, or to take away.
    pub(super) fn is_needed<I: Io>(&self, io: &I) -> Result<bool, IoError> {
        Ok(io.metadata(&self.made)?.is_some() || io.metadata(&self.place)?.is_some())
    }
}

/// Puts the new directories in place and removes the old ones.
pub(super) fn put_in_place<I: Io>(
    io: &I,
    dirs: &StoreDirs,
    ownership: &Ownership<I>,
    aside: &Path,
    swaps: &[Swap],
) -> Result<(), IoError> {
    let checkpoint = dirs.root.join(CHECKPOINT_FILE);
    let kept = match io.metadata(&checkpoint)? {
        Some(_) => Some(io.read(&checkpoint, CHECKPOINT_LEN)?),
        None => None,
    };
    ownership.mark_open(io)?;
    // Hints by which the next start would pass over records that have no entries.
    for hint in [
        &checkpoint,
        &dirs.own.join("state"),
        &dirs.own.join("queues"),
    ] {
        remove_if_there(io, hint)?;
    }
    dispatched::remove(io, &dirs.own)?;
    if io.metadata(&dirs.own)?.is_some() {
        io.sync_dir(&dirs.own)?;
    }
    io.sync_dir(&dirs.root)?;
    let old = aside.join("old");
    io.create_dir_all(&old)?;
    for (number, swap) in swaps.iter().enumerate() {
        if io.metadata(&swap.place)?.is_some() {
            io.rename(&swap.place, &old.join(number.to_string()))?;
        }
        let Some(above) = swap.place.parent() else {
            continue;
        };
        if io.metadata(&swap.made)?.is_some() {
            io.create_dir_all(above)?;
            io.rename(&swap.made, &swap.place)?;
        }
        if io.metadata(above)?.is_some() {
            io.sync_dir(above)?;
        }
    }
    if let Some(kept) = kept {
        io.replace(&checkpoint, &kept, None)?;
    }
    if ownership.last_exit() == LastExit::Clean {
        ownership.mark_closed(io)?;
    }
    remove_all(io, aside)
}

/// Removes a directory with what is in it; one that is not there is as good.
pub(super) fn remove_all<I: Io>(io: &I, dir: &Path) -> Result<(), IoError> {
    for entry in list_or_nothing(io, dir)? {
        let path = dir.join(&entry.name);
        match entry.kind {
            FileKind::Directory => remove_all(io, &path)?,
            _ => io.remove_file(&path)?,
        }
    }
    match io.remove_dir(dir) {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

fn remove_if_there<I: Io>(io: &I, path: &Path) -> Result<(), IoError> {
    match io.remove_file(path) {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
