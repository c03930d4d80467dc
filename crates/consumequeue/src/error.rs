//! What can go wrong with consume queues.

use std::path::PathBuf;

use mmap_core::IoError;
use segment_queue::{AppendError, QueueError};

use crate::entry::Entry;

/// Why an operation on a consume queue failed. Consume queues are derived from the commit log: the
/// cure that always works is to remove them and let the store build them again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumeQueueError {
    /// The files of a queue, or what was done with them. [`QueueError::Full`] is a state that ends
    /// by itself: the call may be repeated.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// An append that no queue refuses: the files changed under this process.
    #[error(transparent)]
    Append(AppendError),
    /// A failed input or output operation elsewhere than on a segment file.
    #[error(transparent)]
    Io(#[from] IoError),
    /// Options that no queue can have.
    #[error("{name} is {value}: {expected}")]
    Options {
        /// The option's name.
        name: &'static str,
        /// Its value.
        value: u64,
        /// What it may be.
        expected: &'static str,
    },
    /// A topic or queue id that cannot be the name of a directory.
    #[error("no consume queue can be of topic {topic:?}, queue {queue_id}: {reason}")]
    Name {
        /// The topic.
        topic: String,
        /// The queue id.
        queue_id: i32,
        /// Why not.
        reason: &'static str,
    },
    /// An entry that stands for no message.
    #[error("no message has the entry {entry:?} at index {index}")]
    Entry {
        /// Its place.
        index: i64,
        /// The entry.
        entry: Entry,
    },
    /// The queue was deleted with its topic.
    #[error("consume queue {} was deleted", dir.display())]
    Deleted {
        /// Its directory.
        dir: PathBuf,
    },
    /// The entries are not in memory, and the read was not to wait for the device.
    #[error("entries of consume queue {} are not in memory", dir.display())]
    NotInMemory {
        /// The queue's directory.
        dir: PathBuf,
    },
    /// An earlier sync failed: what is on the device is not known, so nothing more is put.
    /// Reads go on. Opening the store again recovers the queues.
    #[error("consume queues take nothing more since a sync failed; reopen the store")]
    Poisoned,
}

impl ConsumeQueueError {
    /// Whether the cause is a full disk: nothing was put, and the call may be repeated.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Queue(error) => error.is_full(),
            Self::Io(error) => error.is_full(),
            _ => false,
        }
    }
}

impl ConsumeQueueError {
    /// Whether a file is shorter than configured, and none of its directory has the length: damage,
    /// or another configuration.
    pub(crate) fn is_short(&self) -> bool {
        matches!(
            self,
            Self::Queue(QueueError::SegmentLen { len, segment_len, .. }) if len < segment_len
        )
    }

    /// Whether the files of the queue cannot be used as they are, so that it has to be built anew
    /// from the log.
    pub fn is_damage(&self) -> bool {
        self.is_broken() || matches!(self, Self::Queue(QueueError::SegmentLen { .. }))
    }

    /// Whether files are short or missing, as no configuration explains it.
    pub(crate) fn is_broken(&self) -> bool {
        matches!(
            self,
            Self::Queue(QueueError::Damaged { .. } | QueueError::Gap { .. })
        )
    }
}

impl From<AppendError> for ConsumeQueueError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Queue(error) => Self::Queue(error),
            other => Self::Append(other),
        }
    }
}
