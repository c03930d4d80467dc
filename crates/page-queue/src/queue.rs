//! The queue as everybody sees it: items by number and by time.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crc32fast::hash;
use mmap_core::{Io, MapSlice, OsIo};
use segment_queue::{Preallocator, SegmentQueue};

use crate::entry::{ENTRY_LEN, Entry};
use crate::error::PageQueueError;
use crate::options::{Durability, PageQueueOptions};
use crate::push::Writer;
use crate::reader::Place;
use crate::state::{Mark, State};

/// A persistent queue of items, numbered as they are pushed. A handle: clones are the same queue,
/// for any number of threads.
///
/// Dropping the last handle leaves the queue as a killed process would: whole, but with its end to
/// be found when it is opened. [`close`](Self::close) says where it is.
pub struct PageQueue<I: Io = OsIo> {
    pub(crate) shared: Arc<Shared<I>>,
}

pub(crate) struct Shared<I: Io> {
    pub(crate) options: PageQueueOptions,
    pub(crate) items: Arc<SegmentQueue<I>>,
    pub(crate) index: Arc<SegmentQueue<I>>,
    /// The first item held. Written under `front`; read by everybody.
    pub(crate) first: AtomicU64,
    /// The number behind the last item that was appended. Written under `writer` (Release), after
    /// the pages show the item and its entry.
    pub(crate) published: AtomicU64,
    /// As `published`, of what is synced. Written under `keeping`, after the syncs.
    pub(crate) durable: AtomicU64,
    pub(crate) front: Mutex<Front>,
    /// `None` once the queue is closed.
    pub(crate) writer: Mutex<Option<Writer<I>>>,
    /// Held while syncing and while pages are removed. Taken before `writer`, which is taken before
    /// `front`.
    pub(crate) keeping: Mutex<Kept>,
    /// Whether a push is syncing for all that wait. Held for moments only.
    pub(crate) is_led: Mutex<bool>,
    pub(crate) led: Condvar,
    /// Of item and index pages; held for a step.
    pub(crate) preallocators: Mutex<[Preallocator<I>; 2]>,
    /// A leaf, as each reader's own file is.
    pub(crate) readers: Mutex<BTreeMap<String, Arc<Place<I>>>>,
    pub(crate) io: I,
    pub(crate) _directory_lock: I::Lock,
}

/// Where the queue begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Front {
    pub(crate) first: u64,
    /// The offset of the first item's first byte.
    pub(crate) item_offset: u64,
}

/// What the one who syncs keeps.
pub(crate) struct Kept {
    /// The file as it is on the disk.
    pub(crate) state: State,
    pub(crate) durable: Mark,
    /// When [`PageQueue::step`] last flushed, by its caller's clock.
    pub(crate) flushed_at: Duration,
}

/// An item, without a copy: its bytes stay valid and mapped as long as it is held, trimmed or not.
pub struct Item<I: Io = OsIo> {
    number: u64,
    time_ms: i64,
    bytes: MapSlice<I::Map>,
}

impl<I: Io> PageQueue<I> {
    /// The number of the first item held.
    pub fn first(&self) -> u64 {
        self.shared.first()
    }

    /// The number behind the last item that readers may see.
    pub fn end(&self) -> u64 {
        self.shared.end()
    }

    /// How many items there are.
    pub fn len(&self) -> u64 {
        let end = self.end();
        end.saturating_sub(self.first())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The item of a number, if it is what was pushed.
    ///
    /// # Errors
    /// [`PageQueueError::OutOfRange`], [`PageQueueError::Damaged`], or those of mapping a page.
    pub fn get(&self, number: u64) -> Result<Item<I>, PageQueueError> {
        self.shared.get(number)
    }

    /// The first item that was stored at or after a time; the end if none was.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn find_time(&self, time_ms: i64) -> Result<u64, PageQueueError> {
        let (mut low, mut high) = (self.first(), self.end());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.shared.entry(middle) {
                Ok(entry) if entry.time_ms < time_ms => low = middle + 1,
                Ok(_) => high = middle,
                // Trimmed meanwhile, and what is asked for lies behind it.
                Err(PageQueueError::OutOfRange { first, .. }) if middle < first => low = first,
                Err(error) => return Err(error),
            }
        }
        Ok(low)
    }

    /// Bytes in use, as [`size_max`](PageQueueOptions::size_max) counts them.
    pub fn size(&self) -> u64 {
        self.shared.size()
    }

    /// Bytes of the pages that are mapped now, those that only items which are held keep apart.
    pub fn mapped_len(&self) -> u64 {
        self.shared.items.mapped_len() + self.shared.index.mapped_len()
    }

    /// The options it was opened with.
    pub fn options(&self) -> &PageQueueOptions {
        &self.shared.options
    }
}

impl<I: Io> Shared<I> {
    pub(crate) fn first(&self) -> u64 {
        self.first.load(Ordering::Acquire)
    }

    pub(crate) fn end(&self) -> u64 {
        match self.options.durability {
            Durability::EachPush => self.durable.load(Ordering::Acquire),
            Durability::Interval(_) | Durability::OnFlush => self.published.load(Ordering::Acquire),
        }
    }

    pub(crate) fn get(&self, number: u64) -> Result<Item<I>, PageQueueError> {
        let end = self.end();
        if number >= end {
            return Err(self.out_of_range(number, end));
        }
        let entry = self.entry(number)?;
        let slice = self.items.try_slice(entry.offset, entry.len as usize)?;
        let Some(bytes) = slice else {
            return Err(self.gone(number, "its index entry points to where no item can be"));
        };
        if hash(&bytes) != entry.crc {
            return Err(damaged(number, "the CRC of its bytes differs"));
        }
        Ok(Item {
            number,
            time_ms: entry.time_ms,
            bytes,
        })
    }

    /// The index entry of an item, visible to readers or not.
    pub(crate) fn entry(&self, number: u64) -> Result<Entry, PageQueueError> {
        let published = self.published.load(Ordering::Acquire);
        if number < self.first() || number >= published {
            return Err(self.out_of_range(number, published));
        }
        let slice = self
            .index
            .try_slice(number * ENTRY_LEN, ENTRY_LEN as usize)?;
        match slice.as_deref().and_then(<[u8]>::first_chunk) {
            Some(bytes) => Entry::decode(number, bytes).map_err(|what| damaged(number, what)),
            None => Err(self.gone(number, "its index page is missing")),
        }
    }

    fn out_of_range(&self, number: u64, end: u64) -> PageQueueError {
        PageQueueError::OutOfRange {
            number,
            first: self.first(),
            end,
        }
    }

    /// What could not be found may have been trimmed since it was looked up.
    fn gone(&self, number: u64, what: &'static str) -> PageQueueError {
        if number < self.first() {
            self.out_of_range(number, self.end())
        } else {
            damaged(number, what)
        }
    }
}

fn damaged(number: u64, what: &'static str) -> PageQueueError {
    PageQueueError::Damaged { number, what }
}

impl<I: Io> Item<I> {
    /// Its number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// When it was pushed, in milliseconds since 1970; never before the item in front of it.
    pub fn time_ms(&self) -> i64 {
        self.time_ms
    }

    /// Its bytes, which keep the page mapped.
    pub fn into_bytes(self) -> MapSlice<I::Map> {
        self.bytes
    }
}

impl<I: Io> Deref for Item<I> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl<I: Io> fmt::Debug for Item<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Item")
            .field("number", &self.number)
            .field("time_ms", &self.time_ms)
            .field("len", &self.bytes.len())
            .finish()
    }
}

impl<I: Io> Clone for PageQueue<I> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<I: Io> fmt::Debug for PageQueue<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageQueue")
            .field("dir", &self.shared.options.dir)
            .field("first", &self.first())
            .field("end", &self.end())
            .finish_non_exhaustive()
    }
}
