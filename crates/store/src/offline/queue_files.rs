//! The queues that lie on disk, and their entries.

use std::path::{Path, PathBuf};

use mmap_core::{FileKind, Io, IoError};

use super::files::{SegmentDir, StoreDirs, list_or_nothing};
use crate::options::StoreOptions;

/// What kind of queue it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QueueKind {
    /// Entries of 20 bytes, one a message.
    Simple,
    /// Entries of 46 bytes, one a record, which can be a batch.
    Batch,
}

impl QueueKind {
    /// RocketMQ's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Simple => "SimpleCQ",
            Self::Batch => "BatchCQ",
        }
    }
}

/// A queue on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueFiles {
    /// The topic.
    pub topic: String,
    /// The queue.
    pub queue_id: i32,
    /// Its kind, told by where it lies.
    pub kind: QueueKind,
    /// Its directory.
    pub dir: PathBuf,
}

/// All queues of a store, simple ones first.
///
/// # Errors
/// A directory cannot be listed.
pub fn queues<I: Io>(io: &I, options: &StoreOptions) -> Result<Vec<QueueFiles>, IoError> {
    let dirs = StoreDirs::new(options);
    let mut found = queue_dirs(io, &dirs.queues)?;
    let batch = queue_dirs(io, &dirs.batch_queues)?;
    found.extend(batch.into_iter().map(|queue| QueueFiles {
        kind: QueueKind::Batch,
        ..queue
    }));
    Ok(found)
}

/// The queues under `dir`, which need not exist. Names that are no queue id are passed over, as
/// RocketMQ does.
pub(crate) fn queue_dirs<I: Io>(io: &I, dir: &Path) -> Result<Vec<QueueFiles>, IoError> {
    let mut found = Vec::new();
    for topic in list_or_nothing(io, dir)? {
        let Some(name) = topic.name.to_str() else {
            continue;
        };
        if topic.kind != FileKind::Directory {
            continue;
        }
        for queue in list_or_nothing(io, &dir.join(name))? {
            let id = queue.name.to_str().and_then(|id| id.parse().ok());
            if let (FileKind::Directory, Some(queue_id)) = (queue.kind, id) {
                found.push(QueueFiles {
                    topic: name.to_owned(),
                    queue_id,
                    kind: QueueKind::Simple,
                    dir: dir.join(name).join(&queue.name),
                });
            }
        }
    }
    found.sort_by(|a, b| (&a.topic, a.queue_id).cmp(&(&b.topic, b.queue_id)));
    Ok(found)
}

/// Entries of one length in a directory's files, read through a window.
#[derive(Debug)]
pub(crate) struct EntryReader<I: Io, const LEN: usize> {
    files: SegmentDir<I>,
    /// Entries in the window at most.
    window_count: usize,
    window: Vec<u8>,
    window_first: u64,
}

impl<I: Io, const LEN: usize> EntryReader<I, LEN> {
    pub(crate) fn new(files: SegmentDir<I>, window_len: usize) -> Self {
        Self {
            files,
            window_count: (window_len / LEN).max(1),
            window: Vec::new(),
            window_first: 0,
        }
    }

    /// Entries in a file.
    fn per_file(&self) -> u64 {
        (self.files.file_len() / LEN as u64).max(1)
    }

    /// Ordinal of the first entry there can be.
    pub(crate) fn first(&self) -> u64 {
        self.files.min() / self.files.file_len() * self.per_file()
    }

    /// Ordinal behind the last place in the last file.
    pub(crate) fn end(&self) -> u64 {
        self.files.end() / self.files.file_len() * self.per_file()
    }

    /// The file and the position in it of an entry.
    pub(crate) fn place(&self, ordinal: u64) -> (PathBuf, u64) {
        self.files.place(self.offset_of(ordinal))
    }

    /// The bytes of an entry; `None` where no file holds them.
    pub(crate) fn entry(&mut self, ordinal: u64) -> Result<Option<[u8; LEN]>, IoError> {
        if !self.holds(ordinal) {
            self.fill(ordinal)?;
        }
        Ok(self.in_window(ordinal))
    }

    /// As [`entry`](Self::entry), from the file also if it was read before.
    pub(crate) fn entry_again(&mut self, ordinal: u64) -> Result<Option<[u8; LEN]>, IoError> {
        self.fill(ordinal)?;
        Ok(self.in_window(ordinal))
    }

    /// Gives the window's memory back.
    pub(crate) fn release(&mut self) {
        self.window = Vec::new();
        self.files.close();
    }

    fn offset_of(&self, ordinal: u64) -> u64 {
        let per_file = self.per_file();
        (ordinal / per_file)
            .saturating_mul(self.files.file_len())
            .saturating_add(ordinal % per_file * LEN as u64)
    }

    fn holds(&self, ordinal: u64) -> bool {
        let count = (self.window.len() / LEN) as u64;
        ordinal >= self.window_first && ordinal - self.window_first < count
    }

    fn in_window(&self, ordinal: u64) -> Option<[u8; LEN]> {
        let skipped = usize::try_from(ordinal.checked_sub(self.window_first)?).ok()?;
        let start = skipped.checked_mul(LEN)?;
        self.window.get(start..)?.first_chunk().copied()
    }

    fn fill(&mut self, ordinal: u64) -> Result<(), IoError> {
        let left = self.per_file() - ordinal % self.per_file();
        let count =
            usize::try_from(left).map_or(self.window_count, |left| left.min(self.window_count));
        self.window.resize(count * LEN, 0);
        self.window_first = ordinal;
        let offset = self.offset_of(ordinal);
        let read = self.files.read(offset, &mut self.window)?;
        self.window.truncate(read / LEN * LEN);
        // There may be very many queues, and each has a reader.
        self.files.close();
        Ok(())
    }
}
