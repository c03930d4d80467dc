//! Which files an index consists of: loading them, checking them after a crash, cutting them where
//! the log was cut.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mmap_core::{Access, FileKind, Io, IoError, IoFile};

use crate::error::IndexError;
use crate::file::{Body, IndexFile, open_checked};
use crate::layout::{ENTRY_LEN, FIRST_ENTRY, HEADER_LEN, Header, IndexEntry, Layout, SLOT_LEN};
use crate::name::is_index_name;
use crate::options::SuspectFile;
use crate::repair::{Scan, Writes};

/// The files of a directory.
#[derive(Debug)]
pub(crate) struct Loaded<I: Io> {
    /// Oldest first.
    pub(crate) files: Vec<Arc<IndexFile<I>>>,
    /// Files that are no index files by name.
    pub(crate) ignored: Vec<PathBuf>,
    /// Files without a byte: a crash came between their creation and their first header.
    pub(crate) empty: Vec<PathBuf>,
    /// A file that ends before its last entry, and those behind it or behind one without a byte:
    /// behind a gap, nobody knows what is missing.
    pub(crate) broken: Vec<PathBuf>,
}

/// What recovery left of them.
#[derive(Debug)]
pub(crate) struct Recovery<I: Io> {
    /// Oldest first.
    pub(crate) files: Vec<Arc<IndexFile<I>>>,
    pub(crate) suspects: Vec<SuspectFile>,
}

/// Opens every index file of `dir`, in the order of their names; changes nothing.
pub(crate) fn load<I: Io>(io: &I, dir: &Path, layout: Layout) -> Result<Loaded<I>, IndexError> {
    let mut loaded = Loaded {
        files: Vec::new(),
        ignored: Vec::new(),
        empty: Vec::new(),
        broken: Vec::new(),
    };
    let entries = match io.list(dir) {
        Ok(entries) => entries,
        Err(error) if error.is_not_found() => return Ok(loaded),
        Err(error) => return Err(error.into()),
    };
    for entry in entries
        .into_iter()
        .filter(|entry| entry.kind == FileKind::File)
    {
        let path = dir.join(&entry.name);
        if entry.name.to_str().is_some_and(is_index_name) && entry.len == 0 {
            loaded.empty.push(path);
        } else if entry.name.to_str().is_some_and(is_index_name) {
            let is_behind_gap = !loaded.empty.is_empty() || !loaded.broken.is_empty();
            if is_behind_gap || is_broken(io, &path, entry.len, layout)? {
                loaded.broken.push(path);
                continue;
            }
            loaded
                .files
                .push(Arc::new(IndexFile::open(io, path, layout)?));
        } else {
            // RocketMQ 5.3.3 IndexService.load passes over it with a line in its log.
            loaded.ignored.push(path);
        }
    }
    Ok(loaded)
}

/// Whether a file that is shorter than configured was cut, and not written with another
/// configuration: it ends before the last entry that it says to have, or that entry is where the
/// configured counts put it, the newest of its slot.
fn is_broken<I: Io>(io: &I, path: &Path, len: u64, layout: Layout) -> Result<bool, IndexError> {
    if len >= layout.file_len() {
        return Ok(false);
    }
    let file = io.open(path, Access::ReadOnly)?;
    let mut header = [0; HEADER_LEN];
    if file.read_at(&mut header, 0)? < HEADER_LEN {
        return Ok(true);
    }
    let next_entry = Header::decode(&header).next_entry;
    if next_entry <= FIRST_ENTRY || layout.entry_position(next_entry) as u64 > len {
        return Ok(true);
    }
    let mut entry = [0; ENTRY_LEN];
    let position = layout.entry_position(next_entry - 1) as u64;
    file.read_exact_at(&mut entry, position)?;
    let slot = layout.slot_of(IndexEntry::decode(&entry).key_hash);
    let mut newest = [0; SLOT_LEN];
    file.read_exact_at(&mut newest, layout.slot_position(slot) as u64)?;
    Ok(u32::from_be_bytes(newest) == next_entry - 1)
}

/// Whether a file is not known to be durable. The checkpoint moves when a full file has been synced;
/// the next may end in the same millisecond. A file that is not full may have lost anything, its
/// header's times included.
pub(crate) fn is_in_doubt<I: Io>(file: &IndexFile<I>, checkpoint_timestamp_ms: i64) -> bool {
    file.header().end_timestamp_ms >= checkpoint_timestamp_ms || !file.is_full()
}

/// Takes back a put to the last file that was not counted any more.
pub(crate) fn take_back_uncounted<I: Io>(
    io: &I,
    files: &[Arc<IndexFile<I>>],
) -> Result<(), IndexError> {
    if let Some(last) = files.last().filter(|last| !last.is_full()) {
        last.mapped(io)?.take_back_uncounted();
    }
    Ok(())
}

impl<I: Io> Recovery<I> {
    /// Checks the files that were not known to be durable. From the first that is not whole, the
    /// rest of the index is cut off: behind a gap, nobody knows what is missing. `gone` are the
    /// files that are removed whatever the others hold; `writes` is what is written of those kept.
    pub(crate) fn after_crash(
        io: &I,
        files: Vec<Arc<IndexFile<I>>>,
        mut gone: Vec<PathBuf>,
        checkpoint_timestamp_ms: i64,
        writes: Writes,
    ) -> Result<Self, IndexError> {
        let mut recovery = Self {
            files: Vec::new(),
            suspects: Vec::new(),
        };
        let mut suspicious = false;
        let mut cut = false;
        let mut first_doubtful = None;
        for file in files {
            let header = file.header();
            suspicious |= is_in_doubt(&file, checkpoint_timestamp_ms);
            if !suspicious {
                recovery.files.push(file);
                continue;
            }
            let Repaired { kept, doubtful } = if cut {
                Repaired::default()
            } else {
                repair(io, &file, u64::MAX, writes)?
            };
            first_doubtful = first_doubtful.or(doubtful);
            recovery.suspects.push(SuspectFile {
                path: file.path().to_owned(),
                entry_count: header.next_entry.saturating_sub(FIRST_ENTRY),
                kept_count: kept.map_or(0, |next_entry| next_entry - FIRST_ENTRY),
                removed: kept.is_none(),
            });
            match kept {
                Some(_) => {
                    cut |= !file.is_full();
                    recovery.files.push(file);
                }
                None => {
                    cut = true;
                    gone.push(file.path().to_owned());
                }
            }
        }
        remove_all(io, gone)?;
        // Others of its message's keys may be left, and it counts as indexed by them.
        if let Some(offset) = first_doubtful {
            recovery.files = Self::cut(io, recovery.files, offset)?.files;
        }
        Ok(recovery)
    }

    /// Cuts off the entries of messages at or above `log_end`.
    pub(crate) fn cut(
        io: &I,
        files: Vec<Arc<IndexFile<I>>>,
        mut log_end: u64,
    ) -> Result<Self, IndexError> {
        let mut recovery = Self {
            files,
            suspects: Vec::new(),
        };
        while let Some(last) = recovery.files.last() {
            let header = last.header();
            let end = u64::try_from(header.end_physical_offset).unwrap_or(0);
            if !header.is_empty() && end < log_end && agrees(io, last)? {
                break;
            }
            last.replace_body(Body::Closed(header));
            let Repaired { kept, doubtful } = repair(io, last, log_end, Writes::Differences)?;
            recovery.suspects.push(SuspectFile {
                path: last.path().to_owned(),
                entry_count: header.next_entry.saturating_sub(FIRST_ENTRY),
                kept_count: kept.map_or(0, |next_entry| next_entry - FIRST_ENTRY),
                removed: kept.is_none(),
            });
            if kept.is_none() {
                remove(io, last.path())?;
                recovery.files.pop();
            } else if doubtful.is_none() {
                break;
            }
            log_end = doubtful.unwrap_or(log_end);
        }
        Ok(recovery)
    }
}

/// Whether a file's header names the message of its last entry as the last one. A damaged one
/// would make every message below it look indexed.
fn agrees<I: Io>(io: &I, file: &IndexFile<I>) -> Result<bool, IndexError> {
    let header = file.header();
    if header.next_entry > file.layout().entry_count_max {
        return Ok(false);
    }
    let last = file.read(io, |index| index.entry(header.next_entry - 1))?;
    Ok(last.is_some_and(|last| last.physical_offset == header.end_physical_offset))
}

/// Whether the last file that has entries [`agrees`] with itself.
pub(crate) fn last_agrees<I: Io>(io: &I, files: &[Arc<IndexFile<I>>]) -> Result<bool, IndexError> {
    let last = files.iter().rev().find(|file| !file.header().is_empty());
    last.map_or(Ok(true), |last| agrees(io, last))
}

/// The last file's header, of those that have entries.
pub(crate) fn last_used<I: Io>(files: &[Arc<IndexFile<I>>]) -> Option<Header> {
    files
        .iter()
        .rev()
        .map(|file| file.header())
        .find(|header| !header.is_empty())
}

/// Removes files, the newest first: a crash in between leaves no gap that nobody would notice.
pub(crate) fn remove_all<I: Io>(io: &I, mut paths: Vec<PathBuf>) -> Result<(), IoError> {
    paths.sort_unstable();
    paths.iter().rev().try_for_each(|path| remove(io, path))
}

/// Removes an index file, durably: after a power loss it would be taken for a part of the index
/// that is built in its place. One that is gone already is as good.
pub(crate) fn remove<I: Io>(io: &I, path: &Path) -> Result<(), IoError> {
    match io.remove_file(path) {
        Err(error) if !error.is_not_found() => return Err(error),
        _ => {}
    }
    path.parent().map_or(Ok(()), |dir| io.sync_dir(dir))
}

/// What became of a file.
#[derive(Debug, Default)]
struct Repaired {
    /// The ordinal behind its last entry; `None` when nothing of the file can be used.
    kept: Option<u32>,
    /// The message of a last entry that was dropped because it may be torn.
    doubtful: Option<u64>,
}

/// Cuts a closed file behind its last good entry below `log_end` and builds its slots again.
fn repair<I: Io>(
    io: &I,
    file: &IndexFile<I>,
    log_end: u64,
    writes: Writes,
) -> Result<Repaired, IndexError> {
    let header = file.header();
    let layout = file.layout();
    let handle = open_checked(io, file.path(), layout, Access::ReadWrite)?;
    let mut scan = Scan::run(&handle, layout, &header, log_end)?;
    let mut doubtful = None;
    // What is left is asked the same, or the next repair would find its end doubtful.
    while let Some(offset) = scan.drop_doubtful(&header) {
        // With the other keys of its message, in the same step: found without this one after a
        // crash in between, they would look like all of them.
        scan = Scan::run(&handle, layout, &header, offset.min(log_end))?;
        doubtful = Some(offset);
    }
    if scan.next_entry() == FIRST_ENTRY || header.begin_timestamp_ms <= 0 {
        return Ok(Repaired {
            kept: None,
            doubtful,
        });
    }
    let repaired = scan.header(&header);
    scan.apply(&handle, &header, &repaired, writes)?;
    file.replace_body(Body::Closed(repaired));
    Ok(Repaired {
        kept: Some(scan.next_entry()),
        doubtful,
    })
}
