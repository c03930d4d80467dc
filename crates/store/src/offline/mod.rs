//! Looking at a store that is not open: inspect, verify, rebuild, export.
//!
//! For any RocketMQ store, also one that a Java broker wrote or is writing. All but
//! [`rebuild`](rebuild()) only read: they take no lock, create nothing, and read by `pread` with
//! bounded memory, so that a damaged, foreign or changing file is something to report and never a
//! crash. The sizes of the files are found from the files themselves ([`Shape`]), because whoever
//! looks at a store often has no configuration for it.
//!
//! ```
//! use mmap_core::OsIo;
//! use store::offline::{self, Severity, VerifyOptions};
//! use store::{NoProgress, StoreOptions};
//!
//! # let dir = tempfile::tempdir()?;
//! # let mut options = StoreOptions::new(dir.path());
//! # options.segment_len = 1 << 16;
//! # let (store, _) = store::MessageStore::open(options.clone())?;
//! # store.close()?;
//! let mut wrong = 0;
//! let mut report = |finding: &offline::Finding| {
//!     println!("{finding}");
//!     wrong += u32::from(finding.severity > Severity::Info);
//! };
//! offline::verify(&OsIo, &options, &VerifyOptions::default(), &mut report, &NoProgress)?;
//! assert_eq!(wrong, 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod export;
mod facts;
mod files;
mod finding;
mod inspect;
mod log;
mod queue_files;
mod rebuild;
mod shape;
mod verify;

pub use consumequeue::{BATCH_ENTRY_LEN, BatchEntry};
pub use error::OfflineError;
pub use export::{ExportRange, ExportReport, ExportSource, Take, export};
pub use files::StoreDirs;
pub use finding::{Finding, FindingKind, Part, QueuePlace, Severity, Totals};
pub use inspect::{
    CheckpointFields, ExtensionUnit, IndexChainEntry, IndexFileView, OwnState, QueueEntryView,
    RecordBytes, checkpoint, extension_unit, index_chain, index_entry, index_files, index_slot,
    own_state, queue_entry, record_at, record_in_file,
};
pub use queue_files::{QueueFiles, QueueKind, queues};
pub use rebuild::{RebuildReport, RebuildSelection, rebuild};
pub use shape::Shape;
pub use verify::{LogSummary, QueueSummary, VerifyOptions, VerifyReport, verify};
