//! What an index is opened with, and what opening it found.

use std::path::PathBuf;

use crate::error::IndexError;
use crate::layout::{FIRST_ENTRY, Layout};

/// Shape and limits of an index. The first two are part of the format: every file has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexOptions {
    /// Count of hash slots in a file. Default: 5,000,000, RocketMQ's `maxHashSlotNum`.
    pub slot_count: u32,
    /// Count of entries in a file, of which the first is never used. Default: 20,000,000,
    /// RocketMQ's `maxIndexNum`.
    pub entry_count_max: u32,
    /// The most offsets that a query returns, whatever it asks for. Default: 64, RocketMQ's
    /// `maxMsgsNumBatch`.
    pub query_count_max: usize,
}

impl IndexOptions {
    /// RocketMQ's values.
    pub const DEFAULT: Self = Self {
        slot_count: 5_000_000,
        entry_count_max: 20_000_000,
        query_count_max: 64,
    };

    /// Checks the values.
    ///
    /// # Errors
    /// [`IndexError::Options`] names the value that no file can have.
    pub fn validate(&self) -> Result<(), IndexError> {
        let check = |name, value, min| {
            if value < min {
                Err(IndexError::Options { name, value, min })
            } else {
                Ok(())
            }
        };
        check("slot_count", self.slot_count, 1)?;
        check("entry_count_max", self.entry_count_max, FIRST_ENTRY + 1)
    }

    pub(crate) fn layout(&self) -> Layout {
        Layout {
            slot_count: self.slot_count,
            entry_count_max: self.entry_count_max,
        }
    }
}

impl Default for IndexOptions {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// How the store was left, which decides whether the files are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenPolicy {
    /// It was closed: every file is taken as it is.
    Clean,
    /// It was not. RocketMQ destroys every file that is newer than the checkpoint, and with it the
    /// keys of messages that it does not dispatch again. Here such a file is read through, its
    /// good entries are kept, its slots are built again from them, and the report says from which
    /// offset messages must be put once more.
    Unclean {
        /// Files whose last message was stored after this time are suspect: the checkpoint's
        /// `indexMsgTimestamp`, Unix time in milliseconds.
        checkpoint_timestamp_ms: i64,
    },
    /// As `Unclean`, but a sync of the index had failed and the machine has run on: the kernel may
    /// count pages as written that the device never got. So what is kept is written again, also
    /// where it does not differ.
    Doubted {
        /// As in `Unclean`.
        checkpoint_timestamp_ms: i64,
    },
    /// The process was killed and the machine has run on, so that every file holds what was put:
    /// they are taken as they are, but that the message with which they end may lack keys. Not to
    /// be chosen after a sync has failed: see `Doubted`.
    Killed {
        /// Files whose last message was stored after this time are synced by the next flush.
        checkpoint_timestamp_ms: i64,
    },
}

/// What opening an index found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenReport {
    /// Count of files now in use.
    pub file_count: usize,
    /// Files whose names RocketMQ would pass over as well; they are left alone.
    pub ignored: Vec<PathBuf>,
    /// The files that were newer than the checkpoint, and what became of them, oldest first.
    pub suspects: Vec<SuspectFile>,
    /// After [`OpenPolicy::Unclean`]: the messages from this commit-log offset on must be put
    /// again. Those that are indexed already are recognised.
    pub resume_offset: Option<u64>,
}

/// A file that was checked because the store was not closed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SuspectFile {
    /// The file.
    pub path: PathBuf,
    /// Count of entries that its header promised.
    pub entry_count: u32,
    /// Count of entries that were found whole and kept.
    pub kept_count: u32,
    /// Whether the file was removed: its header was lost, or a file before it was cut.
    pub removed: bool,
}
