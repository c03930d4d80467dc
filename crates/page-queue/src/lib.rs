//! A persistent queue for programs that embed one: items go in at the end, are numbered, and are
//! read at the front by any number of readers that remember where they are.
//!
//! The queue is larger than memory: it lies in mapped files of fixed length (pages), of which those
//! at the end and in front of the readers are in memory and the ones between are not even mapped. An
//! item is copied once, into its page; reading it copies nothing.
//!
//! - [`PageQueue::push`] returns the item's number. [`PageQueue::get`] reads any item by number (a
//!   multiplication, whatever the number), [`PageQueue::find_time`] finds a number by time.
//! - [`PageQueue::reader`] makes a [`Reader`] with a name of its own: [`Reader::peek`],
//!   [`Reader::pop`], [`Reader::commit`]. Each item is delivered at least once to each reader.
//! - [`PageQueue::trim_to`] and [`PageQueue::trim_read`] give pages back;
//!   [`PageQueueOptions::size_max`] bounds the queue, and what is pushed beyond is refused or takes
//!   the place of the oldest ([`WhenFull`]).
//! - [`Durability`] says what a power cut may take. A killed process loses nothing in any case.
//!   After a power cut the queue ends at the first item that is not whole; the rest is cleared.
//!
//! Nothing runs by itself: a thread of yours calls [`PageQueue::step`] now and then, for flushing by
//! the interval, for unmapping, and for preparing the next page. Without it pushes do their work
//! alone.
//!
//! An item lies within one page: one that is longer than [`PageQueueOptions::page_len`] is refused
//! ([`PageQueueError::TooLarge`]), and one that does not fit into what is left of a page goes to the
//! next. So a page should be much longer than an item.
//!
//! It is not: a broker's log (topics, tags and keys are `store`'s), a priority queue, or a queue
//! between processes: one process has the directory, and its lock.
//!
//! # Example
//! ```
//! use page_queue::mmap_core::OsIo;
//! use page_queue::{PageQueue, PageQueueOptions, WhenFull};
//!
//! # let dir = tempfile::tempdir()?;
//! let mut options = PageQueueOptions::new(dir.path().join("jobs"));
//! options.size_max = Some(1 << 30);
//! options.when_full = WhenFull::Reject;
//! let (queue, _report) = PageQueue::open(OsIo, &options)?;
//!
//! let number = queue.push(b"resize image 1")?;
//! queue.push(b"resize image 2")?;
//! assert_eq!(&*queue.get(number)?, b"resize image 1");
//!
//! let mut worker = queue.reader("worker")?;
//! while let Some(item) = worker.pop()? {
//!     assert!(item.starts_with(b"resize image"));
//!     worker.commit()?;
//! }
//! assert_eq!(queue.trim_read()?, 2);
//! queue.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is on the disk
//! All integers are big-endian. CRCs are CRC-32 (IEEE).
//!
//! ```text
//! DIR/lock               byte 0 is locked while the queue is open
//! DIR/state              sizes, first item, mark
//! DIR/items/N            item pages, of page_len bytes; N is the offset of the first, 20 digits
//! DIR/index/N            index pages, of index_page_items * 32 bytes, named likewise
//! DIR/readers/NAME       a reader's position
//! ```
//!
//! An item page holds the bytes of items, one behind the other, and zeros behind the last that fits.
//! The index entry of item `n` stands at byte `n * 32` of the index:
//!
//! | byte | type | index entry |
//! |---|---|---|
//! | 0 | u64 | offset of the item's first byte, in the address space of the item pages |
//! | 8 | i64 | time of the push, in milliseconds since 1970; never below the entry before |
//! | 16 | u32 | bytes of the item |
//! | 20 | u32 | CRC of the item |
//! | 24 | u32 | 0x464D5049 |
//! | 28 | u32 | CRC of the item's number (u64) and of bytes 0 to 27 |
//!
//! | byte | type | state (64 bytes, replaced as a whole) |
//! |---|---|---|
//! | 0 | u32 | 0x464D5051 |
//! | 4 | u32 | version: 1 |
//! | 8 | u64 | bytes of an item page |
//! | 16 | u64 | entries of an index page |
//! | 24 | u64 | number of the first item |
//! | 32 | u64 | mark: the number below which everything is synced |
//! | 40 | u64 | mark: the offset behind the last item below it |
//! | 48 | i64 | mark: the time of that item |
//! | 56 | u32 | 1 if nothing was written behind the mark |
//! | 60 | u32 | CRC of bytes 0 to 59 |
//!
//! A reader's file has two slots, at bytes 0 and 4096, of which the one with the higher sequence
//! counts; the other is what was synced before it.
//!
//! | byte | type | slot |
//! |---|---|---|
//! | 0 | u32 | 0x464D5052 |
//! | 4 | u32 | CRC of bytes 8 to 23 |
//! | 8 | u64 | sequence |
//! | 16 | u64 | number of the next item |
//!
//! # Crashes
//! A queue that was closed is opened without looking at items. Otherwise they are checked from the
//! mark on, which moves with each quarter of a page that is flushed, and the first one of which entry
//! or bytes are not whole is the end: lengths are never trusted. What stands behind it is zeroed and
//! synced, so that it never comes back. Below the mark nothing is cut: an item that is damaged there
//! is an error when it is read ([`PageQueueError::Damaged`]), and no other is concerned.

/// Its types stand in this crate's signatures.
pub use mmap_core;
/// Its errors stand in this crate's.
pub use segment_queue;

mod bytes;
mod entry;
mod error;
mod flush;
mod guard;
mod open;
mod options;
mod position;
mod push;
mod queue;
mod reader;
mod recover;
mod room;
mod state;

pub use entry::ENTRY_LEN;
pub use error::PageQueueError;
pub use flush::Step;
pub use open::OpenReport;
pub use options::{Durability, PageQueueOptions, WhenFull};
pub use queue::{Item, PageQueue};
pub use reader::Reader;
