//! What can go wrong with a queue, and what to do about it.

use std::path::PathBuf;

use mmap_core::{IoError, LockError};
use segment_queue::{AppendError, QueueError};

/// Why an operation on a [`PageQueue`](crate::PageQueue) failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PageQueueError {
    /// The pages refuse or fail; a full disk ([`QueueError::Full`]) passes by itself.
    #[error(transparent)]
    Pages(#[from] QueueError),
    /// A page does not take what it has room for: it was not this queue alone that wrote to it.
    #[error(transparent)]
    Append(AppendError),
    /// A call to the file system failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// Another process, or another queue of this one, has the directory.
    #[error(transparent)]
    Locked(#[from] LockError),
    /// An item is longer than any page is.
    #[error(
        "an item of {len} bytes is more than a page of {page_len} holds: split it, or make a queue \
         with longer pages"
    )]
    TooLarge {
        /// Bytes of the item.
        len: u64,
        /// The limit: [`page_len`](crate::PageQueueOptions::page_len).
        page_len: u64,
    },
    /// The queue has no room for the item, for now or, if it is larger than the limit, ever.
    #[error(
        "no room for an item of {len} bytes: {size} of {size_max} bytes are in use: trim what was \
         read, or raise size_max"
    )]
    Full {
        /// Bytes of the item.
        len: u64,
        /// Bytes in use, as [`size`](crate::PageQueue::size) counts them.
        size: u64,
        /// The limit: [`size_max`](crate::PageQueueOptions::size_max).
        size_max: u64,
    },
    /// No such item: it was trimmed or dropped, or is not there yet.
    #[error("item {number} lies outside of the {first}..{end} held")]
    OutOfRange {
        /// The number asked for.
        number: u64,
        /// The first item held.
        first: u64,
        /// The number behind the last item.
        end: u64,
    },
    /// The item, or its index entry, is not what was pushed. Others are not concerned.
    #[error("item {number} is damaged: {what}: go on behind it, or restore the queue's files")]
    Damaged {
        /// The item's number.
        number: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A file beside the pages cannot be read as what it should be.
    #[error("{}: damaged: {remedy}", path.display())]
    DamagedFile {
        /// The file.
        path: PathBuf,
        /// What may be done.
        remedy: &'static str,
    },
    /// Pages are missing that the queue is known to have had.
    #[error("{}: pages are missing ({what}): restore them", dir.display())]
    MissingPages {
        /// The directory.
        dir: PathBuf,
        /// Which.
        what: &'static str,
    },
    /// The queue was made with other sizes.
    #[error("{}: made with {field} {stored}, configured is {configured}: configure what it was made with", dir.display())]
    OtherSizes {
        /// The queue's directory.
        dir: PathBuf,
        /// The option.
        field: &'static str,
        /// What the queue was made with.
        stored: u64,
        /// What the options say.
        configured: u64,
    },
    /// A reader's name that cannot be.
    #[error(
        "{name:?} cannot name a reader: 1 to 100 letters, digits, `-`, `_` and `.`, not first nor \
         ending in `.tmp`"
    )]
    ReaderName {
        /// The name.
        name: String,
    },
    /// The reader of this name is in use.
    #[error("reader {name} is in use: one at a time has a position")]
    ReaderInUse {
        /// The name.
        name: String,
    },
    /// The queue was closed.
    #[error("the queue is closed: open it again to write")]
    Closed,
    /// Options that cannot be.
    #[error("page queue options: {what}")]
    Options {
        /// The field and what it may be.
        what: &'static str,
    },
}

impl PageQueueError {
    /// Whether there is no room for now, on the disk or within the limit: nothing was changed, and
    /// the call may be repeated.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Full { .. } => true,
            Self::Pages(error) => error.is_full(),
            Self::Io(error) => error.is_full(),
            _ => false,
        }
    }
}
