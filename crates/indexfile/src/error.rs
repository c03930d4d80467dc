//! What can go wrong with index files.

use std::path::PathBuf;

use mmap_core::IoError;

/// Why an operation of the index failed. Index files are derived from the commit log: the cure
/// that always works is to remove them and let the store build them again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// Options that no file can have.
    #[error("{name} is {value}, at least {min} is needed")]
    Options {
        /// The option's name.
        name: &'static str,
        /// Its value.
        value: u32,
        /// The least value allowed.
        min: u32,
    },
    /// A file whose length does not follow from the options.
    #[error(
        "index file {path} has {len} bytes where {expected} are configured ({slot_count} slots, \
         {entry_count_max} entries); use the store's own counts (maxHashSlotNum, maxIndexNum), or \
         remove the file to have it built again"
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
        /// The length that the options give.
        expected: u64,
        /// The configured count of slots.
        slot_count: u32,
        /// The configured count of entries.
        entry_count_max: u32,
    },
    /// A commit-log offset that the format's signed 64 bits cannot hold.
    #[error("commit-log offset {offset} is beyond the format's limit of 2^63 - 1")]
    Offset {
        /// The offset given.
        offset: u64,
    },
    /// An earlier sync failed: what is on the device is not known, so nothing more is put.
    /// Queries go on. Opening the index again recovers it.
    #[error("the index takes nothing more since a sync of its files failed; reopen the store")]
    Poisoned,
    /// A failed input or output operation. [`IoError::is_full`] tells a full disk, a state that
    /// can end by itself: the put may be repeated.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl IndexError {
    /// Whether the cause is a full disk: nothing was put, and the call may be repeated.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io(error) if error.is_full())
    }
}
