//! What the owner of a queue decides: place, sizes, policies.

use std::path::PathBuf;
use std::time::Duration;

use mmap_core::Advice;

use crate::error::QueueError;
use crate::unmap::MapBudget;

/// Bytes of a page in RocketMQ's flush rules: the literal 4096 of `DefaultMappedFile.OS_PAGE_SIZE`,
/// whatever the system's page size is.
pub const FLUSH_PAGE_LEN: u64 = 4096;

/// Bytes allocated at a time ahead of the writer. Default: 16 MiB.
pub const DEFAULT_ALLOCATE_STEP: u64 = 16 * 1024 * 1024;

/// How long a writer waits for a segment that is being prepared: 5 s
/// (RocketMQ: `AllocateMappedFileService.waitTimeOut`).
pub const DEFAULT_PREPARE_WAIT: Duration = Duration::from_secs(5);

/// How a [`SegmentQueue`](crate::SegmentQueue) is laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentQueueOptions {
    /// The directory of the segment files, and of nothing else (sub-directories are ignored).
    /// It is created with the first segment.
    pub dir: PathBuf,
    /// Bytes of each segment file. Part of the format: a directory of another size is refused.
    pub segment_len: u64,
    /// Bytes of disk blocks allocated at a time ahead of the writer, so that a full disk is an
    /// error and not a SIGBUS. Default: [`DEFAULT_ALLOCATE_STEP`]. A larger step costs fewer
    /// calls, and more disk for a queue that stays small.
    pub allocate_step: u64,
    /// Where an empty directory's addresses start, rounded down to a multiple of `segment_len`
    /// (RocketMQ 5.3.3 `MappedFileQueue.getLastMappedFile`). Default: 0.
    pub base_when_empty: u64,
    /// When the name of a new file is made durable. Default: [`NameSync::AtCreation`].
    pub name_sync: NameSync,
    /// What the kernel is told of every mapping. Default: [`Advice::Normal`], by which the first
    /// touch of a page reads what lies around it too, up to the device's read-ahead: right for
    /// large segments that are read in order. With [`Advice::Random`] it reads the page: right for
    /// many small queues, of which a page or two are in use (8 MiB of read-ahead cost 5 ms for the
    /// first entry of each).
    pub advice: Advice,
    /// Bytes that may be mapped at a time: the segments read least recently are unmapped when
    /// another one is mapped to be read, or made, and by
    /// [`step_unmap`](crate::SegmentQueue::step_unmap). The segment
    /// at the end, and what a step was told to keep, stay mapped even so; mappings that only slices
    /// keep do not count. Default: `None`, no bound.
    ///
    /// Page tables take 4 KiB for each 2 MiB that are touched: 16 GiB cost at most 32 MiB.
    pub mapped_len_max: Option<u64>,
    /// Bytes that may be mapped at a time of all queues that share it. A queue unmaps its own
    /// segments only: it does so when it maps one, and by
    /// [`step_unmap`](crate::SegmentQueue::step_unmap). Default: `None`.
    pub budget: Option<MapBudget>,
    /// How long a segment that is not read stays mapped, by the steps of
    /// [`step_unmap`](crate::SegmentQueue::step_unmap). Default: `None`, for good.
    pub unmap_after: Option<Duration>,
    /// How long [`SegmentWriter::roll`](crate::SegmentWriter::roll) waits for a segment that is
    /// being prepared. Default: [`DEFAULT_PREPARE_WAIT`].
    pub prepare_wait: Duration,
    /// Whether the segment that is appended to is kept in memory (`mlock2`): its pages stay there
    /// once they are written or read, until the writer goes on to the next segment. Opening fails
    /// if the process may not lock a whole segment (`RLIMIT_MEMLOCK`). Default: no.
    pub lock_tail: bool,
    /// What to do about segment files that are short, empty or missing. Default:
    /// [`DamagePolicy::RemoveEmptyLast`]. A queue opened to read never changes a file.
    pub damage: DamagePolicy,
}

impl SegmentQueueOptions {
    /// Options with the default of every field but these two.
    pub fn new(dir: impl Into<PathBuf>, segment_len: u64) -> Self {
        Self {
            dir: dir.into(),
            segment_len,
            allocate_step: DEFAULT_ALLOCATE_STEP,
            base_when_empty: 0,
            name_sync: NameSync::AtCreation,
            advice: Advice::Normal,
            mapped_len_max: None,
            budget: None,
            unmap_after: None,
            prepare_wait: DEFAULT_PREPARE_WAIT,
            lock_tail: false,
            damage: DamagePolicy::RemoveEmptyLast,
        }
    }

    /// Checks the fields against each other.
    ///
    /// # Errors
    /// [`QueueError::Options`] names the field that cannot be.
    pub fn validate(&self) -> Result<(), QueueError> {
        // A segment is mapped as one piece, and Java's offsets are signed.
        if self.segment_len == 0 || self.segment_len > isize::MAX as u64 {
            return Err(QueueError::Options {
                what: "segment_len must be from 1 to 2^63-1 bytes",
            });
        }
        if self.allocate_step == 0 {
            return Err(QueueError::Options {
                what: "allocate_step must be at least one byte",
            });
        }
        if self.base_when_empty > i64::MAX as u64 - self.segment_len {
            return Err(QueueError::Options {
                what: "base_when_empty and a segment after it must fit in 63 bits",
            });
        }
        Ok(())
    }
}

/// When the name and length of a new segment file are made durable. Either way nothing in it counts
/// as flushed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameSync {
    /// When it is created, which for a prepared segment is off the append and flush paths.
    AtCreation,
    /// With the first flush that follows: for many small queues that can be rebuilt, where syncs
    /// at creation would hold up whoever fills them. A power cut can leave files of what was not
    /// flushed empty or missing before others: open with [`DamagePolicy::ExtendWithZeros`].
    WithFlush,
}

/// What opening does about segment files that are shorter than they should be, or missing.
///
/// All files of another size are never damage but another configuration, and always refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DamagePolicy {
    /// Change nothing: [`QueueError::Damaged`] or [`QueueError::Gap`].
    Refuse,
    /// As RocketMQ does: an empty last file, which a crash leaves between creating a file and
    /// setting its length, is removed; anything else is refused.
    RemoveEmptyLast,
    /// Short and empty files are extended with zeros to the full length, and missing ones (up to
    /// [`MISSING_COUNT_MAX`](crate::MISSING_COUNT_MAX)) created: the owner's recovery then finds
    /// where the content ends.
    ExtendWithZeros,
}

/// When a flush is worth its sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushPolicy {
    /// Whatever was published is synced.
    All,
    /// Nothing is done until so many pages of [`FLUSH_PAGE_LEN`] bytes are waiting, or a segment
    /// was filled (RocketMQ 5.3.3 `DefaultMappedFile.isAbleToFlush`). 0 is [`FlushPolicy::All`].
    LeastPages(u64),
}

impl FlushPolicy {
    pub(crate) fn is_due(self, flushed: u64, published: u64, segment_len: u64) -> bool {
        match self {
            _ if published <= flushed => false,
            Self::All | Self::LeastPages(0) => true,
            Self::LeastPages(count) => {
                published / FLUSH_PAGE_LEN - flushed / FLUSH_PAGE_LEN >= count
                    || published / segment_len > flushed / segment_len
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_is_due_by_pages_or_by_a_filled_segment() {
        let due =
            |policy: FlushPolicy, flushed, published| policy.is_due(flushed, published, 65536);
        assert!(!due(FlushPolicy::All, 10, 10));
        assert!(due(FlushPolicy::All, 10, 11));
        assert!(due(FlushPolicy::LeastPages(0), 10, 11));
        assert!(!due(FlushPolicy::LeastPages(2), 0, 8191));
        assert!(due(FlushPolicy::LeastPages(2), 0, 8192));
        assert!(due(FlushPolicy::LeastPages(4), 65000, 65536));
    }

    #[test]
    fn options_are_checked() {
        let options = SegmentQueueOptions::new("x", 4096);
        assert!(options.validate().is_ok());
        assert!(
            SegmentQueueOptions {
                segment_len: 0,
                ..options.clone()
            }
            .validate()
            .is_err()
        );
        assert!(
            SegmentQueueOptions {
                allocate_step: 0,
                ..options.clone()
            }
            .validate()
            .is_err()
        );
        assert!(
            SegmentQueueOptions {
                base_when_empty: u64::MAX,
                ..options
            }
            .validate()
            .is_err()
        );
    }
}
