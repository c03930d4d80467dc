//! What can go wrong with a store, one enum per family of operations.

use std::path::PathBuf;

use commitlog::{AppendError, LogError};
use consumequeue::ConsumeQueueError;
use indexfile::IndexError;
use message::{BatchError, EncodeError};
use mmap_core::{IoError, LockError};
use segment_queue::QueueError;

/// A store was not opened. Unless the variant says otherwise, nothing in the directory was
/// changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has the directory open, or this one has.
    #[error(transparent)]
    Lock(LockError),
    /// The commit log: a foreign file, another segment size, damage, an I/O error.
    #[error("commit log: {0}")]
    Log(#[from] LogError),
    /// The consume queues.
    #[error("consume queue: {0}")]
    Queue(#[from] ConsumeQueueError),
    /// The index.
    #[error("index: {0}")]
    Index(#[from] IndexError),
    /// The log is damaged, and [`RecoveryPolicy::Refuse`](crate::RecoveryPolicy) was asked for.
    #[error("commit log: {0}")]
    Damage(String),
    /// Another file of the store.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A thread could not be started.
    #[error("cannot start the thread {name}: {source}")]
    Thread {
        /// Its name.
        name: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A message was not stored, and consumed no queue offset.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PutError {
    /// The message breaks a limit or a rule of the format (RocketMQ: `MESSAGE_ILLEGAL`,
    /// `PROPERTIES_SIZE_EXCEEDED`).
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The batch's body is not one.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A queue id that no queue can have.
    #[error("queue id {queue_id} of topic {topic}: 0 to {max} are possible")]
    QueueId {
        /// The topic.
        topic: String,
        /// The queue id asked for.
        queue_id: i32,
        /// The highest that is possible.
        max: i32,
    },
    /// A record of this kind is not written by this store (inner batches).
    #[error("{what} cannot be stored")]
    Unsupported {
        /// What was to be stored.
        what: &'static str,
    },
    /// The topic has batch consume queues, to which this store does not write.
    #[error("topic {topic} has batch consume queues in {}, which are read only", dir.display())]
    BatchQueues {
        /// The topic.
        topic: String,
        /// Their directory.
        dir: PathBuf,
    },
    /// The queue is new and cannot be created.
    #[error("consume queue: {0}")]
    Queue(#[from] ConsumeQueueError),
    /// A disk is fuller than it may be (RocketMQ: `DISK_FULL`). Reading goes on; messages are taken
    /// again by themselves when there is space.
    #[error(
        "the disk of {} is full: {used} of {limit} bytes are used, {used_percent} %, and messages \
         are taken up to {limit_percent} % (diskSpaceWarningLevelRatio); reading goes on", path.display()
    )]
    DiskFull {
        /// The directory whose disk it is.
        path: PathBuf,
        /// Bytes in use, by whatever.
        used: u64,
        /// Bytes that can be used.
        limit: u64,
        /// The used part.
        used_percent: u8,
        /// Up to which messages are taken.
        limit_percent: u8,
    },
    /// The log refused: full disk, failed sync, too much waiting, closed.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// A read failed; the message may well be there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A consume queue could not be read.
    #[error("consume queue: {0}")]
    Queue(#[from] ConsumeQueueError),
    /// The index could not be read.
    #[error("index: {0}")]
    Index(#[from] IndexError),
    /// The device cannot read a part of the log.
    #[error("commit log: {0}")]
    Log(IoError),
    /// A segment of the log cannot be opened.
    #[error("commit log: {0}")]
    Segment(#[from] QueueError),
    /// The messages were removed from the log meanwhile.
    #[error("the log no longer holds what was at {offset}")]
    Gone {
        /// Where they were.
        offset: u64,
    },
    /// A part of the log is not in memory, and the read was not to wait for the device.
    #[error("a part of the log is not in memory")]
    NotInMemory,
    /// The store has no index (`messageIndexEnable=false`).
    #[error("this store keeps no index of keys (messageIndexEnable is false)")]
    NoIndex,
}

impl ReadError {
    /// Whether the read would have had to wait for the device.
    pub fn is_not_in_memory(&self) -> bool {
        matches!(
            self,
            Self::NotInMemory | Self::Queue(ConsumeQueueError::NotInMemory { .. })
        )
    }
}

/// The derived files could not be written; the log is not touched by that. Dispatch goes on where
/// it stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DispatchError {
    /// A consume queue entry.
    #[error("consume queue: {0}")]
    Queue(#[from] ConsumeQueueError),
    /// An index entry.
    #[error("index: {0}")]
    Index(#[from] IndexError),
    /// A record of the log has an offset in its queue that leaves a gap behind the last entry.
    #[error(
        "message {index} of queue {queue_id} of topic {topic} at {physical_offset}: the entries \
         end at {max_index}"
    )]
    Gap {
        /// The topic.
        topic: String,
        /// The queue.
        queue_id: i32,
        /// The record's queue offset.
        index: i64,
        /// Where the entries end.
        max_index: i64,
        /// The record's place in the log.
        physical_offset: i64,
    },
    /// The log holds something that is no record where the next one should be.
    #[error("the log cannot be read at {offset}: {source}")]
    Record {
        /// Where.
        offset: u64,
        /// Why.
        source: message::RecordError,
    },
}

impl DispatchError {
    /// Whether there was no space: the same call works once there is some.
    pub fn is_full(&self) -> bool {
        let is_typed = match self {
            Self::Queue(error) => error.is_full(),
            Self::Index(error) => error.is_full(),
            Self::Gap { .. } | Self::Record { .. } => false,
        };
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause.filter(|_| !is_typed) {
            if let Some(error) = error.downcast_ref::<IoError>() {
                return error.is_full();
            }
            cause = error.source();
        }
        is_typed
    }
}

/// A store was not closed cleanly: the `abort` file stays, the next opening recovers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloseError {
    /// The log could not be flushed.
    #[error("commit log: {0}")]
    Log(#[from] LogError),
    /// Derived files could not be written.
    #[error(transparent)]
    Dispatch(#[from] DispatchError),
    /// Another file could not be written.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl From<ConsumeQueueError> for CloseError {
    fn from(error: ConsumeQueueError) -> Self {
        Self::Dispatch(error.into())
    }
}

impl From<IndexError> for CloseError {
    fn from(error: IndexError) -> Self {
        Self::Dispatch(error.into())
    }
}
