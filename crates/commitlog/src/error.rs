//! What can go wrong, one enum per family of operations.
//!
//! Variants say what the caller can do: a refused append has consumed nothing, `Full` and `Busy`
//! end by themselves, `Failed` needs a restart.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use message::RecordError;
use mmap_core::{IoError, StageError};
use segment_queue::QueueError;
use thiserror::Error;

use crate::options::OptionsError;

/// An error that came from code of the caller: a visitor or a quarantine.
pub type CallerError = Box<dyn Error + Send + Sync>;

/// Opening, recovering, flushing, trimming or closing a log failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogError {
    /// An option cannot be used.
    #[error("commit log option {0}")]
    Options(#[from] OptionsError),
    /// The segments refused: a foreign or missing file, another segment size, an I/O error.
    #[error(transparent)]
    Segments(Arc<QueueError>),
    /// Recovery was told to start outside of the log.
    #[error("recovery cannot start at {offset}: the segments hold {min} to {end}")]
    RecoveryStart {
        /// Where it was told to start.
        offset: u64,
        /// Start of the oldest segment.
        min: u64,
        /// End of the newest one.
        end: u64,
    },
    /// What recovery is about to cut off could not be kept aside; nothing was changed.
    #[error("{len} bytes at {offset} are to be cut off, and could not be kept aside first")]
    Quarantine {
        /// First byte to be cut off.
        offset: u64,
        /// How many.
        len: u64,
        /// What the quarantine said.
        source: CallerError,
    },
    /// The caller's visitor refused a record; nothing was changed.
    #[error("the record at {offset} was refused during recovery")]
    Visit {
        /// The record's physical offset.
        offset: u64,
        /// What the visitor said.
        source: CallerError,
    },
    /// There is no memory for a record that has to be read whole.
    #[error("no memory for the record of {len} bytes at {offset}")]
    OutOfMemory {
        /// The record's physical offset.
        offset: u64,
        /// Its length.
        len: u64,
    },
    /// There is no memory for the buffers of staged mode.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// A service thread could not be started.
    #[error("cannot start the thread {name}")]
    Thread {
        /// Its name.
        name: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A sync failed earlier; the log takes no more records.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// An append was refused. It consumed no queue offset and left nothing in the log.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AppendError {
    /// No segment of this log can ever hold the record, or the records of one batch together.
    #[error(
        "{len} bytes do not fit into a segment of {segment_len} bytes (8 are kept for its end)"
    )]
    TooLarge {
        /// Bytes of the record or batch.
        len: u64,
        /// Length of a segment.
        segment_len: u64,
    },
    /// A batch without records.
    #[error("a batch must have at least one record")]
    EmptyBatch,
    /// No space on the device, or the quota is used up. Appends work again by themselves once
    /// there is space.
    #[error("no space for the commit log in {dir}")]
    Full {
        /// The log's directory.
        dir: PathBuf,
        /// Which operation on which file found it out.
        source: Arc<QueueError>,
    },
    /// Too much waits for the device, for longer than `append_wait`: try again later. With
    /// `is_fast_failing`, at this moment.
    #[error("{waiting} bytes wait to be written, {limit} may ({option})")]
    Busy {
        /// Bytes that wait.
        waiting: u64,
        /// How many may.
        limit: u64,
        /// The option that sets the limit.
        option: &'static str,
    },
    /// The segments refused for another reason; the log goes on.
    #[error(transparent)]
    Segments(Arc<QueueError>),
    /// A sync failed earlier; the log takes no more records.
    #[error(transparent)]
    Failed(Failure),
    /// The queue's topic was deleted meanwhile: find the queue again.
    #[error("the queue was deleted while a message was put to it")]
    Retired,
    /// The log was closed.
    #[error("the commit log is closed")]
    Closed,
}

/// A ticket did not resolve to durability.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum FlushError {
    /// The sync took longer than the mode's timeout. The record is in the log and may become
    /// durable (RocketMQ: `FLUSH_DISK_TIMEOUT`).
    #[error("not synced in time: needed up to {target}, synced up to {flushed}")]
    Timeout {
        /// The log must be synced up to here.
        target: u64,
        /// It was synced up to here.
        flushed: u64,
    },
    /// The sync failed. Whether the record survives a restart is not known.
    #[error(transparent)]
    Failed(Failure),
}

/// Reading a record failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The offset is outside of what can be read.
    #[error("offset {offset} is outside of the readable log from {min} to {visible}")]
    OutOfRange {
        /// What was asked for.
        offset: u64,
        /// The log starts here.
        min: u64,
        /// Readers may see up to here.
        visible: u64,
    },
    /// The device cannot read it.
    #[error(transparent)]
    Device(#[from] IoError),
    /// No valid record starts there.
    #[error("no record starts at {offset}")]
    NotARecord {
        /// What was asked for.
        offset: u64,
        /// What stands there instead.
        source: RecordError,
    },
    /// A record starts there that says it belongs elsewhere, or the end of a segment does.
    #[error("no record of this log starts at {offset}: {found}")]
    Misplaced {
        /// What was asked for.
        offset: u64,
        /// What stands there instead.
        found: Misplaced,
    },
}

/// What stands at an offset where no record of this log starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misplaced {
    /// The blank record that ends a segment.
    Blank,
    /// A record with another physical offset in it.
    Record {
        /// That offset.
        physical_offset: i64,
    },
}

impl fmt::Display for Misplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blank => f.write_str("it is the blank end of a segment"),
            Self::Record { physical_offset } => write!(f, "a record of {physical_offset}"),
        }
    }
}

/// The first write or sync that failed. It ended the log for writers: what the kernel kept of
/// the pages is not known, so no later sync could prove anything. Reads go on up to the last
/// flushed offset; opening the log again recovers it.
#[derive(Clone, Debug)]
pub struct Failure(Cause);

#[derive(Clone, Debug)]
enum Cause {
    Segments(Arc<QueueError>),
    Panic,
    ReadOnly(Arc<str>),
}

impl Failure {
    pub(crate) fn new(error: QueueError) -> Self {
        Self(Cause::Segments(Arc::new(error)))
    }

    /// Recovery could not keep aside what had to go, and changed nothing.
    pub(crate) fn read_only(reason: String) -> Self {
        Self(Cause::ReadOnly(reason.into()))
    }

    /// A thread panicked while it held a lock of the log.
    pub(crate) fn panicked() -> Self {
        Self(Cause::Panic)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the commit log takes no more records until it is opened again: ")?;
        match &self.0 {
            Cause::Segments(_) => f.write_str("a write or sync failed"),
            Cause::Panic => f.write_str("a thread panicked while it was writing"),
            Cause::ReadOnly(reason) => write!(
                f,
                "recovery found no room to keep aside what it must cut off ({reason})"
            ),
        }
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0 {
            Cause::Segments(error) => Some(error.as_ref()),
            Cause::Panic | Cause::ReadOnly(_) => None,
        }
    }
}

impl From<QueueError> for LogError {
    fn from(error: QueueError) -> Self {
        Self::Segments(Arc::new(error))
    }
}
