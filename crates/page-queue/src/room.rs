//! Making room: trimming what was read, dropping what is oldest, and giving pages back.

use std::sync::atomic::Ordering;

use mmap_core::Io;

use crate::entry::ENTRY_LEN;
use crate::error::PageQueueError;
use crate::guard::lock;
use crate::push::Writer;
use crate::queue::{Front, PageQueue, Shared};

impl<I: Io> PageQueue<I> {
    /// Forgets the items below `number`; returns how many. Pages of which nothing is left are
    /// removed. Items that are held stay valid, and their space returns when the last one of a page
    /// is dropped.
    ///
    /// A trim that frees no page is remembered with the next flush; until then a crash brings the
    /// items back.
    ///
    /// # Errors
    /// [`PageQueueError::OutOfRange`] behind the end; those of syncing and removing files, when the
    /// items are forgotten all the same, and the next trim goes on.
    pub fn trim_to(&self, number: u64) -> Result<u64, PageQueueError> {
        let end = self.end();
        if number > end {
            return Err(PageQueueError::OutOfRange {
                number,
                first: self.first(),
                end,
            });
        }
        if lock(&self.shared.writer).is_none() {
            return Err(PageQueueError::Closed);
        }
        let count = self.shared.move_front(number)?;
        self.shared.remove_pages()?;
        Ok(count)
    }

    /// Forgets what every reader has read and committed: [`trim_to`](Self::trim_to) the least
    /// committed position. Without readers nothing is trimmed.
    ///
    /// # Errors
    /// As [`trim_to`](Self::trim_to).
    pub fn trim_read(&self) -> Result<u64, PageQueueError> {
        let least = self.readers().into_iter().map(|(_, committed)| committed);
        match least.min() {
            Some(number) => self.trim_to(number),
            None => Ok(0),
        }
    }
}

impl<I: Io> Shared<I> {
    /// Lets the queue begin at `number`, if that is behind its first; returns how many items go.
    pub(crate) fn move_front(&self, number: u64) -> Result<u64, PageQueueError> {
        let item_offset = self.item_offset(number)?;
        let mut front = lock(&self.front);
        if item_offset < front.item_offset || number < front.first {
            return Ok(0);
        }
        let count = number - front.first;
        *front = Front {
            first: number,
            item_offset,
        };
        self.first.store(number, Ordering::Release);
        Ok(count)
    }

    /// Where the item lies; the next one that can be found, if its entry is damaged.
    fn item_offset(&self, number: u64) -> Result<u64, PageQueueError> {
        for number in number..self.published.load(Ordering::Acquire) {
            match self.entry(number) {
                Ok(entry) => return Ok(entry.offset),
                Err(PageQueueError::Damaged { .. }) => {}
                // Somebody else has trimmed further.
                Err(PageQueueError::OutOfRange { .. }) => break,
                Err(error) => return Err(error),
            }
        }
        let writer = lock(&self.writer);
        let writer = writer.as_ref().ok_or(PageQueueError::Closed)?;
        Ok(writer.end.item_end)
    }

    /// Drops the oldest items until one of `len` bytes fits.
    pub(crate) fn drop_oldest(&self, len: u64) -> Result<(), PageQueueError> {
        let size_max = self.options.size_max.unwrap_or(u64::MAX);
        {
            let guard = lock(&self.writer);
            let writer = guard.as_ref().ok_or(PageQueueError::Closed)?;
            let mut front = lock(&self.front);
            let mut next = *front;
            while writer.size_with(len, &next) > size_max && next.first < writer.end.number {
                next.first += 1;
                match self.entry(next.first) {
                    Ok(entry) => next.item_offset = entry.offset,
                    // The one behind the last is not there yet.
                    Err(PageQueueError::Damaged { .. } | PageQueueError::OutOfRange { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            *front = next;
            self.first.store(next.first, Ordering::Release);
        }
        self.remove_pages()
    }

    /// Removes the pages in front of the first item, after the new beginning is durable.
    pub(crate) fn remove_pages(&self) -> Result<(), PageQueueError> {
        let front = *lock(&self.front);
        let is_first_page = |offset: u64, queue: &segment_queue::SegmentQueue<I>| {
            offset < queue.min_offset() + queue.segment_len()
        };
        if is_first_page(front.item_offset, &self.items)
            && is_first_page(front.first * ENTRY_LEN, &self.index)
        {
            return Ok(());
        }
        let mut kept = lock(&self.keeping);
        if kept.state.is_closed {
            return Err(PageQueueError::Closed);
        }
        self.flush_kept(&mut kept)?;
        self.save_state(&mut kept, false)?;
        self.items.trim_to(front.item_offset)?;
        // The last item's entry stays, as the last item's page does.
        let last = front.first.min(kept.durable.number.saturating_sub(1));
        self.index.trim_to(last * ENTRY_LEN)?;
        Ok(())
    }

    pub(crate) fn size(&self) -> u64 {
        let writer = lock(&self.writer);
        let front = *lock(&self.front);
        match writer.as_ref() {
            Some(writer) => writer.size(&front),
            None => {
                let count = self.published.load(Ordering::Acquire) - front.first;
                self.items.published() - front.item_offset + count * ENTRY_LEN
            }
        }
    }
}

impl<I: Io> Writer<I> {
    /// Bytes in use.
    pub(crate) fn size(&self, front: &Front) -> u64 {
        match self.end.number.saturating_sub(front.first) {
            0 => 0,
            count => self.items.position() - front.item_offset + count * ENTRY_LEN,
        }
    }

    /// Bytes in use once another item is there.
    pub(crate) fn size_with(&self, len: u64, front: &Front) -> u64 {
        let offset = self.next_offset(len);
        let count = self.end.number.saturating_sub(front.first) + 1;
        // The first item of an empty queue leaves nothing free in front of it.
        let start = if count == 1 {
            offset
        } else {
            front.item_offset
        };
        (offset + len).saturating_sub(start) + count * ENTRY_LEN
    }
}
