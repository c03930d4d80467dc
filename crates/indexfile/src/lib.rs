//! Hash index files: from a message key to the commit-log offsets of its messages, by time.
//!
//! The files are those of RocketMQ 5.3.3 (`IndexFile`), byte for byte: a header, hash slots, and
//! entries chained from the newest to the oldest. A file holds a fixed count of entries; then the
//! next one is begun, named by the local time. Only the key's hash is stored, so that a query
//! returns candidates: the caller reads the records and compares key and store time.
//!
//! This crate does not know what a message is. It is fed plain values by one thread at a time, in
//! the order of the log, and queried by any number of threads meanwhile. Nothing here is evidence
//! about the log: the files may always be removed and built again.
//!
//! ```
//! use indexfile::{IndexOptions, IndexService, OpenPolicy};
//! use indexfile::mmap_core::OsIo;
//!
//! let dir = tempfile::tempdir()?;
//! let options = IndexOptions { slot_count: 100, entry_count_max: 400, ..IndexOptions::DEFAULT };
//! let (index, _report) =
//!     IndexService::open(OsIo, &dir.path().join("index"), options, OpenPolicy::Clean)?;
//!
//! // topic, key, commit-log offset, store time in milliseconds
//! index.put("orders", "order-17", 4096, 1_700_000_000_000)?;
//! index.put("orders", "order-18", 4300, 1_700_000_000_500)?;
//!
//! // topic, key, at most so many, between these store times
//! assert_eq!(index.query("orders", "order-17", 32, 0, i64::MAX)?, [4096]);
//! index.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

/// Its types stand in this crate's signatures.
pub use mmap_core;

mod blocks;
mod error;
mod file;
mod key;
mod layout;
mod mapped;
mod name;
mod options;
mod recover;
mod repair;
mod select;
mod service;

pub use error::IndexError;
pub use key::{TopicHash, key_hash};
pub use layout::{
    ENTRY_LEN, FIRST_ENTRY, HEADER_LEN, Header as IndexHeader, IndexEntry, Layout as IndexLayout,
    SLOT_LEN,
};
pub use name::is_index_name;
pub use options::{IndexOptions, OpenPolicy, OpenReport, SuspectFile};
pub use service::{Flushed, HashedKey, IndexReach, IndexService, LastUpdate, PutOutcome, Trimmed};
