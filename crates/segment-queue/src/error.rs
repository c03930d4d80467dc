//! What can go wrong with a queue, and what to do about it.

use std::path::PathBuf;
use std::time::Duration;

use mmap_core::IoError;

/// Why an operation on a queue failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// A call to the file system failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// No disk space, or no quota, for blocks of a segment. Nothing was appended; the same call
    /// succeeds once there is space.
    #[error(
        "{}: no space for {requested} more bytes: {}; writing goes on by itself when there is space",
        path.display(), shortage(*is_quota, *used, *available, *total)
    )]
    Full {
        /// The segment file.
        path: PathBuf,
        /// Bytes that were to be allocated.
        requested: u64,
        /// Bytes of the file system in use, by whatever.
        used: u64,
        /// Bytes that the file system has available.
        available: u64,
        /// Bytes of the file system.
        total: u64,
        /// It is a quota that is used up, of which the file system's figures need not tell.
        is_quota: bool,
    },
    /// A file in the segment directory has no segment's name.
    #[error(
        "{}: not a segment file (20 digits): move it out of the directory", path.display()
    )]
    ForeignFile {
        /// The file.
        path: PathBuf,
    },
    /// A segment's name is not a multiple of the segment length.
    #[error(
        "{}: the name is not a multiple of the segment length {segment_len}: configure the length \
         that the directory was written with", path.display()
    )]
    Misaligned {
        /// The file.
        path: PathBuf,
        /// The configured length in bytes.
        segment_len: u64,
    },
    /// The directory was written with another segment length.
    #[error(
        "{}: {len} bytes where segments of {segment_len} are configured: configure the length \
         that the directory was written with, or move the file away", path.display()
    )]
    SegmentLen {
        /// The first file of another length.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
        /// The configured length in bytes.
        segment_len: u64,
    },
    /// A segment file is shorter than its siblings, as crashes and broken copies leave it.
    #[error(
        "{}: damaged, {len} of {segment_len} bytes: restore the file, or open with a policy that \
         repairs it", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
        /// The length it should have.
        segment_len: u64,
    },
    /// Segments are missing between two others.
    #[error(
        "{}: missing, though {} is there: restore it, or move the files before or behind the gap \
         away", missing.display(), next.display()
    )]
    Gap {
        /// The first missing file.
        missing: PathBuf,
        /// The file behind the gap.
        next: PathBuf,
    },
    /// The preparation of a segment panicked, which is a fault of the program. The next attempt
    /// begins anew.
    #[error("{}: a panic while a segment was being prepared", dir.display())]
    PreparePanicked {
        /// The queue's directory.
        dir: PathBuf,
    },
    /// The segment at the end has no name any more: another process removed it. What would be
    /// appended to it would be lost.
    #[error(
        "{}: removed by another process while this one has it open: stop that process and open \
         the store again", path.display()
    )]
    Unlinked {
        /// The file as it was named.
        path: PathBuf,
    },
    /// An earlier write or sync failed. The kernel may have dropped what it could not write, so
    /// that nothing may be acknowledged any more; reading goes on.
    #[error(
        "{}: refused after a failed write or sync ({cause}): check the device, then open the \
         store again", dir.display()
    )]
    Poisoned {
        /// The queue's directory.
        dir: PathBuf,
        /// The first failure.
        cause: String,
    },
    /// An offset outside of what the queue holds.
    #[error("offset {offset} with {len} bytes lies outside of {min}..{end}")]
    OutOfRange {
        /// The offset asked for.
        offset: u64,
        /// The bytes asked for from there.
        len: u64,
        /// The queue's first offset.
        min: u64,
        /// The queue's end.
        end: u64,
    },
    /// The next segment was not ready in time. Nothing has changed; it is still being prepared, and
    /// the same call may find it ready.
    #[error(
        "{}: not ready after {waited:?}: the device is slow, or full of other work; appending goes \
         on when it is", path.display()
    )]
    Late {
        /// The segment file.
        path: PathBuf,
        /// How long was waited.
        waited: Duration,
    },
    /// Bytes that were to be cut off are still read by somebody.
    #[error("{}: cannot be cut while slices of it are held", path.display())]
    Pinned {
        /// The segment file.
        path: PathBuf,
    },
    /// Options that cannot be.
    #[error("segment queue options: {what}")]
    Options {
        /// The field and what it may be.
        what: &'static str,
    },
}

impl QueueError {
    /// Whether there is no space for now: nothing was changed, and the call may be repeated.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Full { .. } => true,
            Self::Io(error) => error.is_full(),
            _ => false,
        }
    }

    /// Whether address space or map entries are used up (`RLIMIT_AS`, `vm.max_map_count`).
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::Io(error) if error.is_out_of_memory())
    }
}

fn shortage(is_quota: bool, used: u64, available: u64, total: u64) -> String {
    let figures = format!("{used} of {total} bytes of the disk are used, {available} available");
    match is_quota {
        true => format!("the quota is used up ({figures})"),
        false => figures,
    }
}

/// Why bytes were not appended. Whatever the reason, nothing was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The current segment has no room for it:
    /// [`fill_to_end`](crate::SegmentWriter::fill_to_end) if the format asks for it, then
    /// [`roll`](crate::SegmentWriter::roll).
    #[error("{len} bytes do not fit into the {remaining} that are left of the segment")]
    NeedsRoll {
        /// Bytes to append.
        len: u64,
        /// Bytes left; 0 also when there is no segment yet.
        remaining: u64,
    },
    /// It would not fit into an empty segment either.
    #[error("{len} bytes are more than a segment of {segment_len} holds")]
    TooLarge {
        /// Bytes to append.
        len: u64,
        /// Bytes of a segment.
        segment_len: u64,
    },
    /// The queue refuses or fails.
    #[error(transparent)]
    Queue(#[from] QueueError),
}
