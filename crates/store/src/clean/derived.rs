//! What goes along with the log's files: files of the queues and of the index all of whose
//! messages are gone.

use std::path::{Path, PathBuf};

use mmap_core::{Access, FileKind, Io, IoError, IoFile};

use super::facts::segment_names;
use crate::options::StoreOptions;

/// Bytes of an entry of a batch consume queue; like a simple one's it begins with the message's
/// log offset.
const BATCH_ENTRY_LEN: u64 = 46;
/// Where an index file's header has the log offset of its last message.
const INDEX_LAST_POSITION: u64 = 24;

/// A file whose messages are all gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DerivedFile {
    /// The file.
    pub path: PathBuf,
    /// Its length in bytes.
    pub len: u64,
    /// What it is.
    pub kind: DerivedKind,
    /// Log offset of its last message, which lies below the log's beginning.
    pub last_offset: u64,
}

/// A kind of file that is derived from the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DerivedKind {
    /// Of a consume queue.
    ConsumeQueue,
    /// Of a batch consume queue.
    BatchConsumeQueue,
    /// Of the index.
    Index,
}

impl DerivedKind {
    /// Its name in texts.
    pub fn name(self) -> &'static str {
        match self {
            Self::ConsumeQueue => "consume queue",
            Self::BatchConsumeQueue => "batch consume queue",
            Self::Index => "index",
        }
    }
}

/// The files that can go once the log begins at `log_min`: the first ones of each queue and of the
/// index, never the last one.
pub(super) fn below<I: Io>(
    io: &I,
    options: &StoreOptions,
    log_min: u64,
) -> Result<Vec<DerivedFile>, IoError> {
    let mut found = Vec::new();
    let entry_len = consumequeue::ENTRY_LEN as u64;
    for (root, entry_len, kind) in [
        (options.queue_dir(), entry_len, DerivedKind::ConsumeQueue),
        (
            options.batch_queue_dir(),
            BATCH_ENTRY_LEN,
            DerivedKind::BatchConsumeQueue,
        ),
    ] {
        for topic in directories(io, &root)? {
            for queue in directories(io, &topic)? {
                let paths = segment_names(io, &queue)?
                    .into_iter()
                    .map(|name| queue.join(name));
                let last = |len: u64| len.checked_sub(entry_len);
                take_below(io, paths.collect(), kind, last, log_min, &mut found)?;
            }
        }
    }
    let index = files(io, &options.index_dir())?;
    let last = |_| Some(INDEX_LAST_POSITION);
    take_below(io, index, DerivedKind::Index, last, log_min, &mut found)?;
    Ok(found)
}

/// Takes files from the front while the log offset of their last message, which stands where
/// `position` says, lies below `log_min`.
fn take_below<I: Io>(
    io: &I,
    paths: Vec<PathBuf>,
    kind: DerivedKind,
    position: impl Fn(u64) -> Option<u64>,
    log_min: u64,
    found: &mut Vec<DerivedFile>,
) -> Result<(), IoError> {
    let Some((_last, candidates)) = paths.split_last() else {
        return Ok(());
    };
    for path in candidates {
        let file = match io.open(path, Access::ReadOnly) {
            // Whoever has the store open may be cleaning too.
            Err(error) if error.is_not_found() => continue,
            opened => opened?,
        };
        let len = file.len()?;
        let Some(position) = position(len) else {
            break;
        };
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, position)?;
        let last_offset = u64::try_from(i64::from_be_bytes(bytes)).unwrap_or(0);
        if last_offset >= log_min {
            break;
        }
        found.push(DerivedFile {
            path: path.clone(),
            len,
            kind,
            last_offset,
        });
    }
    Ok(())
}

fn directories<I: Io>(io: &I, dir: &Path) -> Result<Vec<PathBuf>, IoError> {
    children(io, dir, FileKind::Directory)
}

fn files<I: Io>(io: &I, dir: &Path) -> Result<Vec<PathBuf>, IoError> {
    children(io, dir, FileKind::File)
}

fn children<I: Io>(io: &I, dir: &Path, kind: FileKind) -> Result<Vec<PathBuf>, IoError> {
    match io.list(dir) {
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        entries => Ok(entries?
            .into_iter()
            .filter(|entry| entry.kind == kind)
            .map(|entry| dir.join(entry.name))
            .collect()),
    }
}
