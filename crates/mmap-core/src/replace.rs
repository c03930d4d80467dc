//! Small files that are read and replaced as a whole: state tables, markers, checkpoints.
//!
//! A replacement is: write a temporary file beside it, sync it, keep the old content as a second
//! name if a backup is wanted, rename, sync the directory. So at any time one complete content
//! stands under the name (and one under the backup's), whatever step a crash comes at; a temporary
//! file left behind is overwritten by the next replacement. Not for files of more than some
//! megabytes, and not for segment directories, where no foreign name may stand.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::IoError;
use crate::io::{Access, Io, IoFile};

/// Ending of the temporary files.
pub const TEMPORARY_SUFFIX: &str = ".tmp";

pub(crate) fn read<I: Io>(io: &I, path: &Path, max_len: u64) -> Result<Vec<u8>, IoError> {
    let file = io.open(path, Access::ReadOnly)?;
    let len = file.len()?;
    if len > max_len {
        let what = format!("{len} bytes long, at most {max_len} are read");
        let source = io::Error::new(io::ErrorKind::FileTooLarge, what);
        return Err(IoError::new("read", path, source));
    }
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

pub(crate) fn replace<I: Io>(
    io: &I,
    path: &Path,
    bytes: &[u8],
    backup: Option<&Path>,
) -> Result<(), IoError> {
    let temporary = with_suffix(path, TEMPORARY_SUFFIX);
    write_new(io, &temporary, bytes)?;
    if let Some(backup) = backup {
        keep_backup(io, path, backup)?;
    }
    io.rename(&temporary, path)?;
    io.sync_dir(directory(path))
}

/// Puts the content of `path`, if there is one, under the name `backup` as well.
fn keep_backup<I: Io>(io: &I, path: &Path, backup: &Path) -> Result<(), IoError> {
    if io.metadata(path)?.is_none() {
        return Ok(());
    }
    let temporary = with_suffix(backup, TEMPORARY_SUFFIX);
    remove_if_there(io, &temporary)?;
    match io.hard_link(path, &temporary) {
        Ok(()) => {}
        Err(error) if no_links(&error) => {
            let len = io.open(path, Access::ReadOnly)?.len()?;
            write_new(io, &temporary, &io.read(path, len)?)?;
        }
        Err(error) => return Err(error),
    }
    io.rename(&temporary, backup)?;
    // When an earlier replacement stopped right here, both names stood for one file already, and
    // then rename(2) succeeds without doing anything.
    remove_if_there(io, &temporary)?;
    if directory(backup) != directory(path) {
        io.sync_dir(directory(backup))?;
    }
    Ok(())
}

fn write_new<I: Io>(io: &I, path: &Path, bytes: &[u8]) -> Result<(), IoError> {
    remove_if_there(io, path)?;
    let file = io.create(path, 0)?;
    file.write_all_at(bytes, 0)?;
    file.sync_all()
}

fn remove_if_there<I: Io>(io: &I, path: &Path) -> Result<(), IoError> {
    match io.remove_file(path) {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// A file system without hard links says so in one of these ways.
fn no_links(error: &IoError) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied
    )
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
