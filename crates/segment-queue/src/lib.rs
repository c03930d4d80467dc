//! Fixed-size segment files named by their first offset, seen as one long address space.
//!
//! This is RocketMQ's `MappedFileQueue` (its files are interchangeable with it), without what
//! crashes Java brokers. It does not know what a message is: bytes go in at the end, and are read
//! anywhere.
//!
//! - [`SegmentQueue`]: what readers share. Slices without copies, which stay valid when a segment
//!   is trimmed away; reads by `pread` for what must not raise a signal; flushing; trimming.
//! - [`SegmentWriter`]: the one writer. Through the mapping, or by write, with a sync or without.
//! - [`Preallocator`]: makes the next segments before they are needed, and warms up their pages.
//! - [`Layout`]: what a directory holds, and what of it is damaged.
//!
//! Segments are mapped when they are read. How much stays mapped, and for how long, the options
//! bound ([`SegmentQueueOptions::mapped_len_max`], [`SegmentQueueOptions::unmap_after`],
//! [`SegmentQueue::step_unmap`]): opening terabytes maps nothing, and reading all of them leaves
//! page tables of what is in use.
//!
//! Three positions move, always `flushed <= published <= position`: the writer's own position,
//! what readers may see, and what is durable. Blocks are allocated before they are written through
//! a mapping, so a full disk is an error that passes by itself; a failed write or sync is not
//! retried but ends writing ([`QueueError::Poisoned`]).
//!
//! It is not: a log (it keeps no lengths and no checksums: the owner of the content finds its end
//! after a crash), and does not lock the directory: hold [`mmap_core::Io::lock`].
//!
//! # Example
//! ```
//! use segment_queue::mmap_core::{Io, OsIo};
//! use segment_queue::{AppendError, FlushPolicy, SegmentQueue, SegmentQueueOptions};
//!
//! # let dir = tempfile::tempdir()?;
//! let _lock = OsIo.lock(&dir.path().join("lock"))?;
//! let options = SegmentQueueOptions::new(dir.path().join("commitlog"), 64 * 1024);
//! let (queue, mut writer) = SegmentQueue::open(OsIo, &options)?;
//!
//! let record = b"twenty-byte record..";
//! let offset = loop {
//!     match writer.append(&[record]) {
//!         Ok(offset) => break offset,
//!         Err(AppendError::NeedsRoll { .. }) => writer.roll()?,
//!         Err(error) => return Err(error.into()),
//!     }
//! };
//! assert!(queue.slice(offset, record.len()).is_none(), "not published yet");
//! writer.publish();
//! let slice = queue.slice(offset, record.len()).ok_or("published")?;
//! assert_eq!(&*slice, record);
//!
//! queue.flush(FlushPolicy::All)?;
//! assert_eq!(queue.flushed(), 20);
//!
//! // After a restart the owner finds the end of its content, and says so.
//! writer.close()?;
//! let (queue, mut writer) = SegmentQueue::open(OsIo, &options)?;
//! writer.truncate(20)?;
//! assert_eq!(queue.published(), 20);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

/// Its types stand in this crate's signatures.
pub use mmap_core;

mod ahead;
mod allocate;
mod cut;
mod error;
mod flush;
mod guard;
mod layout;
mod list;
mod name;
mod options;
mod queue;
mod segment;
mod unmap;
mod writer;

pub use ahead::Serving;
pub use allocate::{PreallocateOptions, PreallocateStep, Preallocator};
pub use cut::Truncation;
pub use error::{AppendError, QueueError};
pub use layout::{Damage, Layout, MISSING_COUNT_MAX};
pub use name::{SEGMENT_NAME_LEN, parse_segment_name, segment_name};
pub use options::{
    DEFAULT_ALLOCATE_STEP, DEFAULT_PREPARE_WAIT, DamagePolicy, FLUSH_PAGE_LEN, FlushPolicy,
    NameSync, SegmentQueueOptions,
};
pub use queue::{SegmentQueue, Trimmed};
pub use segment::Segment;
pub use unmap::{MapBudget, Unmapped};
pub use writer::SegmentWriter;
