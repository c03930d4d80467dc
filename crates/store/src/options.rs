//! What a store is opened with.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use commitlog::{CommitLogOptions, FlushMode, LogWarmUp};
use consumequeue::{BatchQueueOptions, ConsumeQueueOptions, ExtensionOptions};
use indexfile::IndexOptions;
use message::Limits;
use mmap_core::Advice;
use segment_queue::MapBudget;

use crate::clean::CleanOptions;
use crate::delay::DelayLevels;

/// Options of a store. The sizes are part of the format: a directory is opened with the sizes it
/// was written with, or refused.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The store's directory (RocketMQ: `storePathRootDir`).
    pub root: PathBuf,
    /// The commit log's directory; `commitlog` under the root by default (`storePathCommitLog`).
    pub commit_log_dir: Option<PathBuf>,
    /// Bytes of a commit log segment. Default: 1 GiB (`mappedFileSizeCommitLog`).
    pub segment_len: u64,
    /// Bytes of a consume queue file, a multiple of 20. Default: 6,000,000
    /// (`mappedFileSizeConsumeQueue`).
    pub queue_file_len: u64,
    /// Bytes of a file of extended consume queues. Default: 48 MiB
    /// (`mappedFileSizeConsumeQueueExt`).
    pub extension_file_len: u64,
    /// Whether each new queue entry gets a unit in the extended consume queue. Units that are there
    /// are read either way. Default: no (`enableConsumeQueueExt`).
    pub writes_extensions: bool,
    /// Whether records that name light queues in their properties get entries in them. Default: no
    /// (`enableMultiDispatch`).
    pub dispatches_light_queues: bool,
    /// Topics that have batch consume queues (attribute `queue.type=BatchCQ`), beside those whose
    /// files are there. Their records are served, and none is written. Default: none.
    pub batch_topics: BTreeSet<String>,
    /// Bytes of a batch consume queue file, a multiple of 46. Default: 13,800,000
    /// (`mapperFileSizeBatchConsumeQueue`).
    pub batch_queue_file_len: u64,
    /// Shape of the index files, or `None` for no index (`maxHashSlotNum`, `maxIndexNum`,
    /// `messageIndexEnable`).
    pub index: Option<IndexOptions>,
    /// When an acknowledgement means that the device has the message. Default: asynchronous
    /// (`flushDiskType`). What each mode can lose is in docs/durability.md.
    pub flush: FlushMode,
    /// What is done to the log's pages before they are written. Default: [`LogWarmUp::Window`]
    /// (`warmMapedFileEnable` is [`WarmUp::Touch`](mmap_core::WarmUp::Touch) of whole files).
    pub log_warm_up: LogWarmUp,
    /// Whether the log's segment that is appended to is kept in memory (`mlock2`); the store is not
    /// opened if `RLIMIT_MEMLOCK` does not allow it. Default: no.
    pub log_lock_tail: bool,
    /// What the kernel is told of how the log is read. Default: [`Advice::Normal`]
    /// (`dataReadAheadEnable=false` is [`Advice::Random`]).
    pub log_advice: Advice,
    /// How often queues, index and checkpoint are synced. Default: 1 s
    /// (`flushIntervalConsumeQueue`).
    pub derived_flush_interval: Duration,
    /// Limits of a message (`maxMessageSize`) and how its record is written.
    pub limits: Limits,
    /// Delays of the levels 1, 2, ... (`messageDelayLevel`).
    pub delay_levels: DelayLevels,
    /// Bytes of the log, the queues and their extensions that may be mapped at a time; those read
    /// least recently are unmapped when there are more. The ends stay, and what readers hold. Page
    /// tables take 4 KiB for each 2 MiB that are touched. Default: 16 GiB.
    pub mapped_len_max: Option<u64>,
    /// How long a file that is not read stays mapped. Default: 1 h (`commitLogSwapMapInterval`).
    pub unmap_after: Option<Duration>,
    /// Bounds of one read.
    pub read: ReadLimits,
    /// How long messages are kept, and what a full disk does.
    pub clean: CleanOptions,
    /// What opening does about damage in the middle of the log. Default:
    /// [`RecoveryPolicy::Report`].
    pub recovery: RecoveryPolicy,
}

/// What opening a store does about damage in the log that has good records behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RecoveryPolicy {
    /// The damage is kept aside and passed over; the report names it.
    #[default]
    Report,
    /// The store is not opened, and the log stays as it is.
    Refuse,
}

impl StoreOptions {
    /// RocketMQ's defaults for a store in `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            commit_log_dir: None,
            segment_len: commitlog::DEFAULT_SEGMENT_LEN,
            queue_file_len: 300_000 * consumequeue::ENTRY_LEN as u64,
            extension_file_len: ExtensionOptions::DEFAULT_FILE_LEN,
            writes_extensions: false,
            dispatches_light_queues: false,
            batch_topics: BTreeSet::new(),
            batch_queue_file_len: consumequeue::DEFAULT_BATCH_FILE_LEN,
            index: Some(IndexOptions::DEFAULT),
            flush: FlushMode::async_default(),
            log_warm_up: LogWarmUp::Window,
            log_lock_tail: false,
            log_advice: Advice::Normal,
            derived_flush_interval: Duration::from_secs(1),
            limits: Limits::default(),
            delay_levels: DelayLevels::default(),
            mapped_len_max: Some(16 << 30),
            unmap_after: Some(Duration::from_secs(3600)),
            read: ReadLimits::DEFAULT,
            clean: CleanOptions::DEFAULT,
            recovery: RecoveryPolicy::default(),
        }
    }

    pub(crate) fn commit_log(&self, budget: Option<&MapBudget>) -> CommitLogOptions {
        CommitLogOptions {
            budget: budget.cloned(),
            unmap_after: self.unmap_after,
            segment_len: self.segment_len,
            flush: self.flush,
            limits: self.limits,
            warm_up: self.log_warm_up,
            lock_tail: self.log_lock_tail,
            advice: self.log_advice,
            ..CommitLogOptions::new(self.commit_log_dir())
        }
    }

    pub(crate) fn commit_log_dir(&self) -> PathBuf {
        match &self.commit_log_dir {
            Some(dir) => dir.clone(),
            None => self.root.join("commitlog"),
        }
    }

    pub(crate) fn consume_queues(&self, budget: Option<&MapBudget>) -> ConsumeQueueOptions {
        ConsumeQueueOptions {
            budget: budget.cloned(),
            unmap_after: self.unmap_after,
            extensions: Some(ExtensionOptions {
                root: self.root.join("consumequeue_ext"),
                file_len: self.extension_file_len,
                is_written: self.writes_extensions,
            }),
            ..ConsumeQueueOptions::with_file_len(self.queue_file_len)
        }
    }

    pub(crate) fn batch_queues(&self, budget: Option<&MapBudget>) -> BatchQueueOptions {
        BatchQueueOptions {
            file_len: self.batch_queue_file_len,
            budget: budget.cloned(),
            unmap_after: self.unmap_after,
        }
    }

    pub(crate) fn queue_dir(&self) -> PathBuf {
        self.root.join("consumequeue")
    }

    pub(crate) fn batch_queue_dir(&self) -> PathBuf {
        self.root.join("batchconsumequeue")
    }

    pub(crate) fn index_dir(&self) -> PathBuf {
        self.root.join("index")
    }

    /// Files of our own lie here; they are never needed to open the store.
    pub(crate) fn own_dir(&self) -> PathBuf {
        self.root.join("foliomq")
    }
}

/// Bounds of one [`get`](crate::MessageStore::get), whatever the caller asks for. The message
/// that begins a read always passes, however large it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimits {
    /// Messages of a read from the hot end of the log (`maxTransferCountOnMessageInMemory`).
    pub hot_count_max: usize,
    /// Bytes of a read from the hot end of the log (`maxTransferBytesOnMessageInMemory`).
    pub hot_bytes_max: u64,
    /// Messages of a read from behind it (`maxTransferCountOnMessageInDisk`).
    pub cold_count_max: usize,
    /// Bytes of a read from behind it (`maxTransferBytesOnMessageInDisk`).
    pub cold_bytes_max: u64,
    /// How many bytes of the log's end count as hot (`accessMessageInMemoryMaxRatio` of the
    /// machine's memory).
    pub hot_len: u64,
    /// How far the kernel is told to read ahead for a reader that goes through a part of the log
    /// that is not in memory.
    pub read_ahead_len: u64,
    /// Queue entries examined at most by a read whose filter lets little through
    /// (`maxFilterMessageSize` in entries).
    pub examined_count_max: usize,
}

impl ReadLimits {
    /// RocketMQ's values; hot is what 8 GiB of memory hold by its rule of 40 %.
    pub const DEFAULT: Self = Self {
        hot_count_max: 32,
        hot_bytes_max: 256 * 1024,
        cold_count_max: 8,
        cold_bytes_max: 64 * 1024,
        hot_len: (8 << 30) / 100 * 40,
        read_ahead_len: 2 * 1024 * 1024,
        examined_count_max: 16_000 / consumequeue::ENTRY_LEN,
    };
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
