//! The log of all messages: append, group commit, flush, read, recover.
//!
//! One long sequence of records in segment files of fixed length, byte for byte RocketMQ's
//! `CommitLog`: each record carries its own physical offset, every full segment ends with a blank
//! record, and no record crosses a segment.
//!
//! - [`CommitLog`] appends, under one lock, with one copy of the payload; and reads, without any.
//!   Three paths behind one interface: into the mapping (async), by group commit (sync), and through
//!   a pool of locked buffers that a service writes out (staged; see [`FlushMode`]).
//! - [`PutTicket`] says when a record is as durable as the [`FlushMode`] promises: a future, and
//!   something that threads can wait for. Durability is one number that advances.
//! - [`Opening`] finds the end of a log after a stop, clean or not, and keeps aside what it cuts
//!   off ([`Quarantine`]).
//! - [`LogServices`] runs the background work on threads; every piece of it is also a step
//!   function, so that a simulation needs none.
//!
//! What it does better than what it is compatible with: a record that fits no segment is refused
//! (RocketMQ 5.3.3 acknowledges it, stores nothing and spends a segment); store times never run
//! backwards within a log; a failed sync ends writing, and is never retried as if nothing had
//! happened; what recovery cuts off is zeroed and synced, so that it never comes back.
//!
//! It is not: an index (the records of one queue are found through its consume queue), and it does
//! not lock the directory: hold [`mmap_core::Io::lock`].
//!
//! # Example
//! ```
//! use std::sync::Arc;
//!
//! use commitlog::{
//!     CallerError, CommitLog, CommitLogOptions, CrcCheck, DirQuarantine, FlushMode, Known,
//!     QueueCursor, RecoverFrom, SystemClock, Tail,
//! };
//! use commitlog::message::{Message, Parsed, RecordView};
//! use commitlog::mmap_core::{Io, OsIo};
//!
//! # let dir = tempfile::tempdir()?;
//! # let root = dir.path();
//! let _lock = OsIo.lock(&root.join("lock"))?;
//! let mut options = CommitLogOptions::new(root.join("commitlog"));
//! options.segment_len = 64 * 1024;
//! options.flush = FlushMode::sync_default();
//!
//! // Recovery shows every record: here one would find each queue's next offset.
//! let opening = CommitLog::open(OsIo, options, Arc::new(SystemClock::new()))?;
//! let from = RecoverFrom {
//!     offset: opening.recovery_start(0)?,
//!     last_store_ms: 0,
//!     known: Known::NOTHING,
//!     crc: CrcCheck::Body,
//!     tail: Tail::Unknown,
//! };
//! let mut quarantine = DirQuarantine::new(OsIo, root.join("foliomq/quarantine"));
//! let mut visit = |_: &RecordView<'_>| -> Result<(), CallerError> { Ok(()) };
//! let (log, report) = opening.recover(&from, &mut visit, &mut quarantine)?;
//! assert_eq!(report.records, 0);
//! let services = log.start_services()?;
//!
//! let message = Message::new("TopicA", 0, b"hello");
//! let queue = QueueCursor::new(0);
//! let appended = log.append(&mut log.prepare(&message)?, &queue)?;
//! assert_eq!((appended.physical_offset, appended.queue_offset), (0, 0));
//! let durable = appended.ticket.wait()?;
//! assert_eq!(durable.flushed, u64::from(appended.len));
//!
//! let slice = log.record_at(appended.physical_offset)?;
//! let Parsed::Record(record) = RecordView::parse(&slice)? else { panic!("a record") };
//! assert_eq!(record.body(), b"hello");
//!
//! services.stop();
//! log.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

/// Its types stand in this crate's signatures.
pub use message;
/// Its types stand in this crate's signatures.
pub use mmap_core;

mod append;
mod batch;
mod clock;
mod core;
mod cursor;
mod durability;
mod error;
mod event;
mod flush;
mod gather;
mod hole;
mod known;
mod lead;
mod log;
mod options;
mod quarantine;
mod recover;
mod recovery_start;
mod scan;
mod search;
mod service;
mod stage;
mod stale;

pub use append::{Appended, AppendedBatch};
pub use clock::{Clock, SystemClock};
pub use cursor::QueueCursor;
pub use durability::{Durable, PutTicket};
pub use error::{AppendError, CallerError, Failure, FlushError, LogError, Misplaced, ReadError};
pub use hole::{HOLE_TOPIC, Hole, is_filler};
pub use known::Known;
pub use log::{CommitLog, NEW_LEN};
pub use options::{
    CommitLogOptions, DEFAULT_ALLOCATE_STEP, DEFAULT_APPEND_WAIT, DEFAULT_PENDING_LEN_MAX,
    DEFAULT_SEGMENT_LEN, DEFAULT_STAGE_BUFFER_COUNT, DEFAULT_STAGE_BUFFER_LEN, FlushMode,
    LogWarmUp, LossWindow, OptionsError, StageOptions,
};
pub use quarantine::{DirQuarantine, Piece, Place, Quarantine};
pub use recover::{Cut, Opening, RecoverFrom, RecoveryReport, Tail, Visitor};
pub use recovery_start::{first_store_timestamp, recovery_start};
pub use scan::{CrcCheck, Invalid};
pub use service::{LogServices, Next};
