//! Consume queues: for each queue of a topic, the list of its messages in the commit log.
//!
//! The files are those of RocketMQ 5.3.3 (`ConsumeQueue`): entries of 20 bytes, one per message,
//! whose place is the message's index in the queue. This crate does not know what a message is: it
//! is fed plain values by one thread at a time, in the order of the log, and read by any number of
//! threads without copies. Nothing here is evidence about the log: the files may always be removed and
//! built again.
//!
//! - [`ConsumeQueue`]: put, read, search by time, cut and trim where the log was.
//! - [`ExtensionUnit`]: what an entry may refer to, in files beside the queue's.
//! - [`BatchQueue`], [`BatchQueueSet`]: queues whose records may hold many messages each.
//! - [`ConsumeQueueSet`]: all queues of a store, of which only those in use have files open.
//!
//! A place is never guessed: an entry that does not belong right behind the last one is refused
//! with what is missing ([`PutOutcome::Gap`]), where RocketMQ puts it into the wrong place.
//!
//! ```
//! use consumequeue::{Boundary, ConsumeQueueOptions, ConsumeQueueSet, Entry, OpenPolicy, PutOutcome};
//! use consumequeue::mmap_core::OsIo;
//!
//! let dir = tempfile::tempdir()?;
//! let root = dir.path().join("consumequeue");
//! let options = ConsumeQueueOptions::DEFAULT;
//! let (set, _report) = ConsumeQueueSet::open(OsIo, &root, options, OpenPolicy::Clean)?;
//!
//! let queue = set.find_or_create("orders", 3)?;
//! for index in 0..10 {
//!     let entry = Entry { physical_offset: index * 100, size: 100, tags_code: 7 };
//!     assert_eq!(queue.put(index, entry)?, PutOutcome::Appended);
//! }
//!
//! let entries = queue.entries(4, 32)?.ok_or("there are some")?;
//! let offsets: Vec<i64> = entries.iter().map(|(_, entry)| entry.physical_offset).collect();
//! assert_eq!(offsets, [400, 500, 600, 700, 800, 900]);
//!
//! // The caller knows when a message was stored: here, one each second.
//! let store_time_ms = |entry: &Entry| Some(entry.physical_offset * 10);
//! assert_eq!(queue.index_by_time(4_500, Boundary::Lower, &store_time_ms)?, 5);
//! set.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

/// Its types stand in this crate's signatures.
pub use mmap_core;
/// Its types stand in this crate's signatures.
pub use segment_queue;

mod batch;
mod batch_set;
mod entry;
mod error;
mod extension;
mod hot;
mod locate;
mod opening;
mod options;
mod queue;
mod read;
mod recover;
mod search;
mod set;

pub use batch::{BATCH_ENTRY_LEN, BatchEntry, BatchQueue, DEFAULT_BATCH_FILE_LEN};
pub use batch_set::BatchQueueSet;
pub use entry::{ENTRY_LEN, EXTENSION_ADDRESS_MAX, Entry};
pub use error::ConsumeQueueError;
pub use extension::{ExtensionUnit, UNIT_LEN_MIN};
pub use options::{BatchQueueOptions, ConsumeQueueOptions, ExtensionOptions, OpenPolicy};
pub use queue::{ConsumeQueue, PutOutcome};
pub use read::{Entries, EntryIter};
pub use recover::Doubt;
pub use search::Boundary;
pub use segment_queue::{FlushPolicy, Trimmed};
pub use set::{ConsumeQueueSet, DoubtfulQueue, NamedQueue, OpenReport, RecoverReport};
