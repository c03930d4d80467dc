//! Appending items.

use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use crc32fast::hash;
use mmap_core::Io;
use segment_queue::{AppendError, SegmentWriter};

use crate::entry::{ENTRY_LEN, Entry};
use crate::error::PageQueueError;
use crate::guard::lock;
use crate::options::{Durability, WhenFull};
use crate::queue::{PageQueue, Shared};
use crate::state::Mark;

/// The end of the queue, open for writing.
pub(crate) struct Writer<I: Io> {
    pub(crate) items: SegmentWriter<I>,
    pub(crate) index: SegmentWriter<I>,
    pub(crate) end: Mark,
}

impl<I: Io> PageQueue<I> {
    /// Appends an item, stamped with the system's time; returns its number.
    ///
    /// # Errors
    /// [`PageQueueError::TooLarge`] beyond a page, [`PageQueueError::Full`] beyond `size_max`,
    /// [`segment_queue::QueueError::Full`] on a full disk: nothing was appended then, and the last two pass. With
    /// [`Durability::EachPush`] a failed sync is an error too: then it is not known whether the item
    /// is there, and nothing more is taken until the queue is opened again.
    pub fn push(&self, item: &[u8]) -> Result<u64, PageQueueError> {
        let time = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        self.push_at(item, i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
    }

    /// As [`push`](Self::push) with a time in milliseconds since 1970. A time before that of the
    /// last item counts as that, so that items can be searched for by time.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn push_at(&self, item: &[u8], time_ms: i64) -> Result<u64, PageQueueError> {
        let (len, page_len) = (item.len() as u64, self.shared.options.page_len);
        if len > page_len {
            return Err(PageQueueError::TooLarge { len, page_len });
        }
        let entry = Entry {
            offset: 0,
            time_ms,
            len: item.len() as u32,
            crc: hash(item),
        };
        let number = self.shared.append(item, entry)?;
        if self.shared.options.durability == Durability::EachPush {
            self.shared.flush_to(number + 1)?;
        }
        Ok(number)
    }
}

impl<I: Io> Shared<I> {
    fn append(&self, item: &[u8], entry: Entry) -> Result<u64, PageQueueError> {
        loop {
            {
                let mut guard = lock(&self.writer);
                let writer = guard.as_mut().ok_or(PageQueueError::Closed)?;
                if self.has_room(writer, item.len() as u64)? {
                    let number = writer.append(item, entry)?;
                    if self.first() == number {
                        let mut front = lock(&self.front);
                        front.item_offset = writer.end.item_end - item.len() as u64;
                    }
                    self.published.store(number + 1, Ordering::Release);
                    return Ok(number);
                }
            }
            // Somebody else may take the room that this makes.
            self.drop_oldest(item.len() as u64)?;
        }
    }

    /// Whether the item fits within `size_max`; false if room can be made for it.
    fn has_room(&self, writer: &Writer<I>, len: u64) -> Result<bool, PageQueueError> {
        let Some(size_max) = self.options.size_max else {
            return Ok(true);
        };
        let front = *lock(&self.front);
        let size = writer.size_with(len, &front);
        if size <= size_max {
            return Ok(true);
        }
        let can_fit = len.saturating_add(ENTRY_LEN) <= size_max;
        if can_fit && self.options.when_full == WhenFull::DropOldest {
            return Ok(false);
        }
        Err(PageQueueError::Full {
            len,
            size: writer.size(&front),
            size_max,
        })
    }
}

impl<I: Io> Writer<I> {
    /// Appends and shows an item and its entry, of which the offset is still to be filled in.
    fn append(&mut self, item: &[u8], mut entry: Entry) -> Result<u64, PageQueueError> {
        // First the blocks of both, so that a full disk leaves no half of an item behind.
        in_a_page(&mut self.index, |index| index.reserve(ENTRY_LEN))?;
        if item.is_empty() && self.items.remaining() == 0 {
            // An empty item lies in a page as well.
            self.items.roll()?;
        }
        entry.offset = in_a_page(&mut self.items, |items| items.append(&[item]))?;
        entry.time_ms = entry.time_ms.max(self.end.time_ms);
        let number = self.end.number;
        in_a_page(&mut self.index, |index| {
            index.append(&[&entry.encode(number)])
        })?;
        self.items.publish();
        self.index.publish();
        self.end = Mark {
            number: number + 1,
            item_end: entry.end(),
            time_ms: entry.time_ms,
        };
        Ok(number)
    }

    /// The offset at which an item of this length will lie.
    pub(crate) fn next_offset(&self, len: u64) -> u64 {
        let (position, page_len) = (self.items.position(), self.items.queue().segment_len());
        let rest = page_len - position % page_len;
        if len > rest {
            position + rest
        } else {
            position
        }
    }
}

/// Appends by `append`; in the next page if the current one has no room.
fn in_a_page<I: Io>(
    writer: &mut SegmentWriter<I>,
    append: impl Fn(&mut SegmentWriter<I>) -> Result<u64, AppendError>,
) -> Result<u64, PageQueueError> {
    let mut appended = append(writer);
    if let Err(AppendError::NeedsRoll { .. }) = appended {
        writer.roll()?;
        appended = append(writer);
    }
    appended.map_err(|error| match error {
        AppendError::Queue(error) => error.into(),
        other => PageQueueError::Append(other),
    })
}
