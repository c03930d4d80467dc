//! What consume queues are opened with.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mmap_core::Advice;
use segment_queue::{DamagePolicy, MapBudget, NameSync, SegmentQueueOptions};

use crate::entry::ENTRY_LEN;
use crate::error::ConsumeQueueError;

/// Shape and limits of consume queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumeQueueOptions {
    /// Length of a file in bytes, a multiple of 20; part of the format. RocketMQ rounds a
    /// configured `mappedFileSizeConsumeQueue` up: [`with_file_len`](Self::with_file_len).
    /// Default: 6,000,000.
    pub file_len: u64,
    /// How many bytes of disk are allocated ahead of a queue's end at a time. Default: 16 KiB, so
    /// that 100,000 queues of one message take 1.6 GB and not 600.
    pub allocate_step: u64,
    /// How many queues have files open and mapped at most; those that were not used for longest
    /// are closed and opened again when needed. Each takes up to two descriptors. Default: 1024.
    pub hot_queue_count_max: usize,
    /// Bytes that may be mapped at a time, together with other queues. Default: none, no bound.
    pub budget: Option<MapBudget>,
    /// How long a file that is not read stays mapped, by the steps of
    /// [`ConsumeQueueSet::step_unmap`](crate::ConsumeQueueSet::step_unmap). Default: none, as long
    /// as its queue is in use.
    pub unmap_after: Option<Duration>,
    /// Where the extension files are, if the queues may have some. Default: none.
    pub extensions: Option<ExtensionOptions>,
}

/// Shape and limits of batch queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchQueueOptions {
    /// Length of a file in bytes, a multiple of 46; part of the format.
    /// Default: [`DEFAULT_BATCH_FILE_LEN`](crate::DEFAULT_BATCH_FILE_LEN).
    pub file_len: u64,
    /// Bytes that may be mapped at a time, together with other queues. Default: none, no bound.
    pub budget: Option<MapBudget>,
    /// How long a file that nothing is put to stays mapped, by the steps of
    /// [`BatchQueueSet::step_unmap`](crate::BatchQueueSet::step_unmap). Default: none, for good.
    pub unmap_after: Option<Duration>,
}

impl BatchQueueOptions {
    /// RocketMQ's file length, and no limits.
    pub const DEFAULT: Self = Self {
        file_len: crate::batch::DEFAULT_BATCH_FILE_LEN,
        budget: None,
        unmap_after: None,
    };
}

impl Default for BatchQueueOptions {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Extension files (RocketMQ 5.3.3 `ConsumeQueueExt`). Entries that refer to them are read whether
/// or not new ones are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtensionOptions {
    /// Their directory: `consumequeue_ext`, beside the queues'.
    pub root: PathBuf,
    /// Length of a file in bytes; part of the format (`mappedFileSizeConsumeQueueExt`).
    /// [`DEFAULT_FILE_LEN`](Self::DEFAULT_FILE_LEN) is RocketMQ's.
    pub file_len: u64,
    /// Whether each new entry gets a unit (`enableConsumeQueueExt`).
    pub is_written: bool,
}

impl ExtensionOptions {
    /// 48 MiB.
    pub const DEFAULT_FILE_LEN: u64 = 48 * 1024 * 1024;
    /// A file must hold a unit and an end mark.
    const FILE_LEN_MIN: u64 = 32;

    /// Units under `root` are read, and none are written.
    pub fn read_only(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            file_len: Self::DEFAULT_FILE_LEN,
            is_written: false,
        }
    }
}

impl ConsumeQueueOptions {
    /// RocketMQ's file length, and limits for many queues.
    pub const DEFAULT: Self = Self {
        file_len: 300_000 * ENTRY_LEN as u64,
        allocate_step: 16 * 1024,
        hot_queue_count_max: 1024,
        budget: None,
        unmap_after: None,
        extensions: None,
    };

    /// The defaults with files of this length, rounded up to whole entries as RocketMQ does.
    pub fn with_file_len(file_len: u64) -> Self {
        let entry_len = ENTRY_LEN as u64;
        Self {
            file_len: file_len.div_ceil(entry_len).saturating_mul(entry_len),
            ..Self::DEFAULT
        }
    }

    /// Checks the values.
    ///
    /// # Errors
    /// [`ConsumeQueueError::Options`] names the value that cannot be.
    pub fn validate(&self) -> Result<(), ConsumeQueueError> {
        let refuse = |name, value, expected| {
            Err(ConsumeQueueError::Options {
                name,
                value,
                expected,
            })
        };
        if self.file_len == 0 || !self.file_len.is_multiple_of(ENTRY_LEN as u64) {
            return refuse(
                "file_len",
                self.file_len,
                "must be a multiple of 20 bytes above 0",
            );
        }
        if self.allocate_step == 0 {
            return refuse("allocate_step", 0, "must be at least one byte");
        }
        if self.hot_queue_count_max == 0 {
            return refuse("hot_queue_count_max", 0, "must be at least 1");
        }
        if let Some(extensions) = &self.extensions
            && extensions.file_len < ExtensionOptions::FILE_LEN_MIN
        {
            let expected = "must be at least 32 bytes";
            return refuse("extensions.file_len", extensions.file_len, expected);
        }
        Ok(())
    }

    /// Count of entries in a file.
    pub(crate) fn entries_per_file(&self) -> i64 {
        offset_to_index(self.file_len)
    }

    pub(crate) fn segments(&self, dir: &Path, damage: DamagePolicy) -> SegmentQueueOptions {
        SegmentQueueOptions {
            allocate_step: self.allocate_step,
            damage,
            // The dispatching thread must not wait for a sync per queue.
            name_sync: NameSync::WithFlush,
            advice: Advice::Random,
            budget: self.budget.clone(),
            unmap_after: self.unmap_after,
            ..SegmentQueueOptions::new(dir, self.file_len)
        }
    }
}

impl Default for ConsumeQueueOptions {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// How the store was left, which decides how much of a queue is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenPolicy {
    /// It was closed: the last file is read up to its end.
    Clean,
    /// It was not: the last three files are read, as RocketMQ does, short files are filled up with
    /// zeros, what lies behind the end is cleared, and nothing counts as flushed.
    Unclean,
}

/// The byte offset of an entry within the queue's address space.
pub(crate) fn index_to_offset(index: i64) -> u64 {
    index.unsigned_abs() * ENTRY_LEN as u64
}

/// The index of the entry at a byte offset. Offsets are below 2^63, and so indexes are.
pub(crate) fn offset_to_index(offset: u64) -> i64 {
    (offset / ENTRY_LEN as u64).cast_signed()
}
