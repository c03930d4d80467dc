//! What the owner of a queue decides: place, sizes, limits, durability.

use std::path::PathBuf;
use std::time::Duration;

use segment_queue::SegmentQueueOptions;

use crate::entry::ENTRY_LEN;
use crate::error::PageQueueError;

/// How a [`PageQueue`](crate::PageQueue) is laid out and behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageQueueOptions {
    /// The queue's directory, of which everything in it is the queue's. Created if it is missing.
    pub dir: PathBuf,
    /// Bytes of an item page, and the most that an item may have; below 4 GiB. Part of the format:
    /// a queue of another length is refused. Default: 64 MiB.
    pub page_len: u64,
    /// Index entries in an index page, of 32 bytes each. Part of the format. Default: 1 Mi, which
    /// is 32 MiB.
    pub index_page_items: u64,
    /// The number of the first item of a new queue. Default: 0.
    pub first_number: u64,
    /// Bytes that the queue may hold: its items, the ends of pages left free between them, and 32
    /// for each item. Whole pages are what comes back to the disk, so that up to a page of each
    /// kind more may be in use there. Default: `None`, as much as the disk takes.
    pub size_max: Option<u64>,
    /// What becomes of a push beyond `size_max`. Default: [`WhenFull::Reject`].
    pub when_full: WhenFull,
    /// When what is pushed is durable. Default: [`Durability::Interval`] of one second.
    pub durability: Durability,
    /// Bytes of disk blocks allocated at a time, so that a full disk is an error and not a signal.
    /// Default: 4 MiB.
    pub allocate_step: u64,
    /// Bytes of item pages that may be mapped at a time, and as many of index pages; those read
    /// least recently are unmapped. Slices that are held do not count. Default: 1 GiB.
    pub mapped_len_max: Option<u64>,
    /// How long a page that is neither written nor read nor the next of a reader stays mapped, by
    /// [`step`](crate::PageQueue::step). Default: one minute.
    pub unmap_after: Option<Duration>,
}

/// What happens to a push when the queue has no room for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// It is refused: [`PageQueueError::Full`], until something is trimmed.
    Reject,
    /// The oldest items go, read or not. Readers that have not come to them are told how many they
    /// missed.
    DropOldest,
}

/// What a push that has returned promises. A killed process loses nothing in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The item is synced. Pushes that wait at the same time share one sync of the item pages and
    /// one of the index. Readers see only what is synced. A power cut loses no item and no position
    /// whose commit has returned.
    EachPush,
    /// Synced by [`step`](crate::PageQueue::step) after this time. A power cut loses what was
    /// pushed and committed since the last such step: items lost are the newest, and readers get
    /// again what they had committed.
    Interval(Duration),
    /// Synced by [`flush`](crate::PageQueue::flush) and [`close`](crate::PageQueue::close) only. A
    /// power cut loses what came after, as with `Interval`.
    OnFlush,
}

impl PageQueueOptions {
    /// Options with the default of every field but the directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            page_len: 64 << 20,
            index_page_items: 1 << 20,
            first_number: 0,
            size_max: None,
            when_full: WhenFull::Reject,
            durability: Durability::Interval(Duration::from_secs(1)),
            allocate_step: 4 << 20,
            mapped_len_max: Some(1 << 30),
            unmap_after: Some(Duration::from_secs(60)),
        }
    }

    /// Checks the fields against each other.
    ///
    /// # Errors
    /// [`PageQueueError::Options`] names the field that cannot be.
    pub fn validate(&self) -> Result<(), PageQueueError> {
        let what = if self.page_len == 0 || self.page_len > u64::from(u32::MAX) {
            "page_len must be from 1 to 2^32-1 bytes"
        } else if self.index_page_items == 0 || self.index_page_items > 1 << 40 {
            "index_page_items must be from 1 to 2^40"
        } else if self.first_number > 1 << 57 {
            "first_number must be at most 2^57"
        } else if self.allocate_step == 0 {
            "allocate_step must be at least one byte"
        } else {
            return Ok(());
        };
        Err(PageQueueError::Options { what })
    }

    /// Bytes of an index page.
    pub(crate) fn index_page_len(&self) -> u64 {
        self.index_page_items * ENTRY_LEN
    }

    pub(crate) fn items(&self) -> SegmentQueueOptions {
        self.pages("items", self.page_len)
    }

    pub(crate) fn index(&self, first: u64) -> SegmentQueueOptions {
        SegmentQueueOptions {
            base_when_empty: first * ENTRY_LEN,
            ..self.pages("index", self.index_page_len())
        }
    }

    fn pages(&self, name: &str, page_len: u64) -> SegmentQueueOptions {
        SegmentQueueOptions {
            allocate_step: self.allocate_step,
            mapped_len_max: self.mapped_len_max,
            unmap_after: self.unmap_after,
            ..SegmentQueueOptions::new(self.dir.join(name), page_len)
        }
    }
}
